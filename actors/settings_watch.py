"""What a worker process does about settings that change while it runs: it looks every second.

Outside of the download windows the runs that obey them are told to end; their jobs are given back and wait.
"""

import asyncio
import logging

from actors.control import StopReason
from actors.leases import LeaseKeeper
from actors.tools import Tools
from core.download_windows import is_open
from core.runtime_settings import RuntimeSettings
from db import runtime_settings

LOOK_SECONDS = 1.0

logger = logging.getLogger(__name__)


class SettingsWatch:
    """Brings what holds to whoever works by it. defaults: what holds while nobody has changed anything."""

    def __init__(
        self, tools: Tools, leases: LeaseKeeper, *, defaults: RuntimeSettings, interval_seconds: float = LOOK_SECONDS
    ) -> None:
        self._tools = tools
        self._leases = leases
        self._defaults = defaults
        self._interval_seconds = interval_seconds
        self._told: tuple[int | None] | None = None

    async def run(self) -> None:
        """Look at intervals, for ever; while the database is away, what was read last holds."""
        while True:
            try:
                await self.look()
            except Exception as error:  # noqa: BLE001 - the loop outlives every outage
                logger.warning("the settings could not be read", extra={"reason": type(error).__name__})
            await asyncio.sleep(self._interval_seconds)

    async def look(self) -> None:
        """Read what holds by the database's clock, and see to it that it does."""
        async with self._tools.database.read() as session:
            found = await runtime_settings.read(session, defaults=self._defaults)
            now = await runtime_settings.now(session)
        self._tools.in_force.settings = found
        self._limit_bandwidth(found.download_bytes_per_second)
        if not is_open(found.download_windows, now):
            for control in self._leases.running():
                if control.obeys_windows:
                    control.stop(StopReason.WINDOW)

    def _limit_bandwidth(self, bytes_per_second: int | None) -> None:
        """Tell the transfers their limit, at first and when it is another."""
        if self._told != (bytes_per_second,):
            self._tools.bandwidth.set(bytes_per_second)
            self._told = (bytes_per_second,)
