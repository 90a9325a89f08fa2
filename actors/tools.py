"""What the actors of one worker process work with."""

from dataclasses import dataclass, field

from actors.download import Patience
from core.bus import Bus
from core.hub import Hub
from core.storage import WeightsVolume
from db.engine import Database


@dataclass(frozen=True, kw_only=True)
class Tools:
    """The process's own connections, shared by its jobs."""

    database: Database
    bus: Bus
    hub: Hub
    volume: WeightsVolume
    patience: Patience = field(default_factory=Patience)
