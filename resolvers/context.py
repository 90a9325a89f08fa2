"""What a request carries, and what its process has."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from core.bus import Bus
from core.hub import Hub
from core.settings import Settings
from core.token import Viewer
from db.engine import Database


@dataclass(frozen=True, kw_only=True)
class Services:
    """What an API process has.

    wake_dispatcher: called after a commit that may have let jobs go.
    """

    settings: Settings
    database: Database
    bus: Bus
    hub: Hub
    wake_dispatcher: Callable[[], None]
    started_at: datetime


@dataclass(frozen=True, kw_only=True)
class Context:
    """One operation: the process's services, who asks, and the id that its log lines and errors carry."""

    services: Services
    viewer: Viewer
    request_id: str
