"""What the actors of one worker process work with."""

from dataclasses import dataclass, field
from typing import Protocol

from actors.download import Patience
from actors.room import ConnectionRoom
from core.bus import Bus
from core.hub import Hub
from core.runtime_settings import RuntimeSettings
from core.storage import WeightsVolume
from db.engine import Database


class BandwidthLimit(Protocol):
    """What all transfers of the process may take together."""

    def set(self, bytes_per_second: int | None) -> None:
        """Change the limit from now on, for transfers that run too; None means unlimited."""


@dataclass
class InForce:
    """The settings that hold now, as this process last read them."""

    settings: RuntimeSettings = field(default_factory=RuntimeSettings)


@dataclass(frozen=True, kw_only=True)
class Tools:
    """The process's own connections, shared by its jobs.

    in_force: settings that may change at any time; `SettingsWatch` writes them.
    bandwidth: what `downloadBytesPerSecond` is told to; None where transfers know no limit.
    """

    database: Database
    bus: Bus
    hub: Hub
    volume: WeightsVolume
    patience: Patience = field(default_factory=Patience)
    in_force: InForce = field(default_factory=InForce)
    bandwidth: BandwidthLimit | None = None
    room: ConnectionRoom = field(default_factory=ConnectionRoom)
