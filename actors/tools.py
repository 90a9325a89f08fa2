"""What the actors of one worker process work with."""

from dataclasses import dataclass, field

from actors.bandwidth import Bandwidth
from actors.download import Patience
from actors.room import ConnectionRoom
from core.bus import Bus
from core.hub import Hub
from core.runtime_settings import RuntimeSettings
from core.storage import WeightsVolume
from db.engine import Database


@dataclass
class InForce:
    """The settings that hold now, as this process last read them."""

    settings: RuntimeSettings = field(default_factory=RuntimeSettings)


@dataclass(frozen=True, kw_only=True)
class Tools:
    """The process's own connections, shared by its jobs.

    in_force: settings that may change at any time; `SettingsWatch` writes them.
    room, bandwidth: what all transfers of the process together may use.
    """

    database: Database
    bus: Bus
    hub: Hub
    volume: WeightsVolume
    patience: Patience = field(default_factory=Patience)
    in_force: InForce = field(default_factory=InForce)
    room: ConnectionRoom = field(default_factory=ConnectionRoom)
    bandwidth: Bandwidth = field(default_factory=Bandwidth)
