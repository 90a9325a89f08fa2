"""Keep the leases of a process's runs, and learn within a second of those that are lost or cancelled.

A thread with an event loop and an engine of its own: a busy or stuck main loop costs no lease, and a connection
belongs to the loop that made it.
"""

import asyncio
import logging
import threading
import time

from actors.control import RunControl, StopReason
from core.job import JobState
from db import runs
from db.engine import Database, is_unavailable

RENEWALS_PER_LEASE = 4

logger = logging.getLogger(__name__)


class LeaseKeeper:
    """The leases of one process."""

    def __init__(self, database_url: str, *, lease_seconds: float, look_seconds: float = 0.5) -> None:
        self.lease_seconds = lease_seconds
        self._renew_seconds = lease_seconds / RENEWALS_PER_LEASE
        self._look_seconds = look_seconds
        self._database_url = database_url
        self._controls: set[RunControl] = set()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._main, name="leases", daemon=True)

    def start(self) -> None:
        """Begin to keep leases."""
        self._thread.start()

    def stop(self) -> None:
        """Stop; leases that are still held run out."""
        self._ended.set()
        self._thread.join(timeout=5)

    def add(self, control: RunControl) -> None:
        """Keep a run's lease from now on."""
        with self._lock:
            self._controls.add(control)

    def discard(self, control: RunControl) -> None:
        """Keep it no longer."""
        with self._lock:
            self._controls.discard(control)

    def running(self) -> list[RunControl]:
        """List the runs of this process."""
        with self._lock:
            return list(self._controls)

    def _main(self) -> None:
        """Run the thread's loop."""
        asyncio.run(self._keep())

    async def _keep(self) -> None:
        """Look every half second, renew four times a lease."""
        database = Database(self._database_url)
        renewed_at = time.monotonic()
        while not self._ended.is_set():
            controls = self.running()
            must_renew = time.monotonic() - renewed_at >= self._renew_seconds
            if controls:
                try:
                    await self._look(database, controls, must_renew=must_renew)
                except Exception as error:
                    if not is_unavailable(error):
                        logger.exception("leases could not be looked at")
                    else:
                        logger.warning("leases could not be renewed: the database is away")
            if must_renew:
                renewed_at = time.monotonic()
            await asyncio.sleep(self._look_seconds)
        await database.close()

    async def _look(self, database: Database, controls: list[RunControl], *, must_renew: bool) -> None:
        """Ask which claims hold; stop the runs whose claim does not."""
        asked_at = time.monotonic()
        claims = [control.claim for control in controls]
        if must_renew:
            await runs.renew(database, claims, lease_seconds=self.lease_seconds)
        states = await runs.states_of(database, claims)
        for control in controls:
            state = states.get(control.claim)
            if state is JobState.PAUSED:
                control.stop(StopReason.PAUSED)
            elif state is not JobState.RUNNING:
                control.stop(StopReason.LOST)
            elif must_renew:
                control.prolong(asked_at=asked_at)
