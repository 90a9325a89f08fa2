"""Let jobs go and send their messages: after each commit that may have freed something, and at intervals.

The API, the workers and `sync` all run one; two at once cost a message too many, which the claim makes harmless.
"""

import asyncio
import logging
from typing import TYPE_CHECKING

from actors import broker as lanes
from core.job import Lane
from core.runtime_settings import RuntimeSettings
from db import admission, outbox
from db.admission import DEFAULTS
from db.engine import Database

if TYPE_CHECKING:
    import dramatiq

logger = logging.getLogger(__name__)


class Dispatcher:
    """One process's dispatcher.

    interval_seconds: None means only when it is woken. defaults: of the settings that nobody has changed.
    """

    def __init__(
        self,
        database: Database,
        broker: "dramatiq.Broker",
        *,
        interval_seconds: float | None,
        defaults: RuntimeSettings = DEFAULTS,
    ) -> None:
        self._database = database
        self._defaults = defaults
        self._broker = broker
        self._interval_seconds = interval_seconds
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Ask for a look at the queue now."""
        self._woken.set()

    async def run(self) -> None:
        """Look whenever it is woken or the interval has passed, for ever."""
        while True:
            try:
                async with asyncio.timeout(self._interval_seconds):
                    await self._woken.wait()
            except TimeoutError:
                pass
            self._woken.clear()
            try:
                await self.dispatch()
            except Exception as error:  # noqa: BLE001 - the loop outlives every outage
                logger.warning("messages could not be sent: they are kept", extra={"reason": type(error).__name__})

    async def dispatch(self) -> None:
        """Admit what may run and send every message that is waiting."""
        await admission.admit(self._database, defaults=self._defaults)
        async with self._database.read() as session:
            waiting = await outbox.waiting(session)
        for message in waiting:
            await asyncio.to_thread(lanes.send, self._broker, Lane(message.lane), message.job_id)
            await outbox.drop(self._database, [message.number])
