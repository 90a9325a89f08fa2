"""Run one job from its claim to its end, whatever happens in between."""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from uuid import UUID

from actors.control import RunControl, RunStopped, StopReason
from actors.delete import delete_weights
from actors.install import install_weights
from actors.leases import LeaseKeeper
from actors.tools import Tools
from core.bus import job_topic
from core.crashpoints import CrashPoint, reached
from core.errors import JobErrorCode, JobFailure
from core.job import WINDOWED_KINDS, JobKind, JobState, WaitReason
from core.metrics import JOB_DURATION, JOBS_ENDED
from db import jobs, runs
from db.runs import Claim, LostClaimError
from db.tables import Job

Handler = Callable[[Tools, Job, RunControl], Awaitable[None]]
HANDLERS: dict[JobKind, Handler] = {
    JobKind.INSTALL_WEIGHTS: install_weights,
    JobKind.DELETE_WEIGHTS: delete_weights,
}
MIN_BACK_OFF_SECONDS = 2.0
MAX_BACK_OFF_SECONDS = 300.0
SPACE_RETRY_SECONDS = 30.0

logger = logging.getLogger(__name__)


class Runner:
    """The part of a worker process that runs jobs. after_each: called when a job has ended here."""

    def __init__(
        self, tools: Tools, *, worker_id: str, leases: LeaseKeeper, after_each: Callable[[], None] = lambda: None
    ) -> None:
        self._tools = tools
        self._worker_id = worker_id
        self._leases = leases
        self._after_each = after_each
        self._is_stopping = False

    async def run(self, job_id: UUID) -> None:
        """Claim a job and run it; a message for a job that is not to be had does nothing.

        A message that comes while the process stops is spent: its job is marked to be sent again.
        """
        if self._is_stopping:
            await runs.take_back(self._tools.database, job_id)
            return
        job = await runs.claim(
            self._tools.database,
            job_id,
            kinds=HANDLERS,
            worker_id=self._worker_id,
            lease_seconds=self._leases.lease_seconds,
        )
        if job is None:
            return
        reached(CrashPoint.CLAIMED)
        control = RunControl(
            Claim(job.id, job.fence),
            lease_seconds=self._leases.lease_seconds,
            obeys_windows=job.kind in WINDOWED_KINDS,
        )
        self._leases.add(control)
        self._tools.bus.publish(job_topic(job.id))
        began = time.monotonic()
        logger.info("job started", extra={"job": str(job.id), "kind": job.kind, "fence": job.fence})
        try:
            state = await self._attempt(job, control)
        except LostClaimError:
            state = await self._left(job)
        finally:
            self._leases.discard(control)
        JOBS_ENDED.labels(kind=job.kind, state=state).inc()
        JOB_DURATION.labels(kind=job.kind, state=state).observe(time.monotonic() - began)
        logger.info("job ended", extra={"job": str(job.id), "state": state})
        self._tools.bus.publish(job_topic(job.id))
        self._tools.bus.publish(f"log:{job.id}")
        self._after_each()

    async def stop(self, *, within_seconds: float) -> None:
        """Give every running job back and wait until that is written."""
        self._is_stopping = True
        for control in self._leases.running():
            control.stop(StopReason.SHUTDOWN)
        deadline = time.monotonic() + within_seconds
        while self._leases.running() and time.monotonic() < deadline:  # noqa: ASYNC110 - two threads share it
            await asyncio.sleep(0.02)

    async def _attempt(self, job: Job, control: RunControl) -> JobState:
        """Run the job's handler and settle how it ended. Raises: LostClaimError."""
        try:
            await HANDLERS[job.kind](self._tools, job, control)
        except RunStopped as stopped:
            if stopped.reason in {StopReason.LOST, StopReason.PAUSED}:
                raise LostClaimError from stopped
            if stopped.reason is StopReason.WINDOW:
                return await self._wait_for_window(control)
            await runs.release(self._tools.database, control.claim, why="The worker stops; it goes on elsewhere")
            return JobState.QUEUED
        except JobFailure as failure:
            return await self._settle(job, control, failure)
        except LostClaimError:
            raise
        except Exception:
            logger.exception("a job met an error that nobody foresaw", extra={"job": str(job.id)})
            unforeseen = JobFailure(
                JobErrorCode.INTERNAL, "An error that nobody foresaw; the worker's log has it", retryable=True
            )
            return await self._settle(job, control, unforeseen)
        return JobState.SUCCEEDED

    async def _wait_for_window(self, control: RunControl) -> JobState:
        """Give a job back until downloads may run again; its parts stay. Raises: LostClaimError."""
        await runs.release(
            self._tools.database,
            control.claim,
            why="No download window is open; it goes on when one opens",
            waiting_for=WaitReason.WINDOW,
        )
        return JobState.QUEUED

    async def _settle(self, job: Job, control: RunControl, failure: JobFailure) -> JobState:
        """Decide what becomes of a run that went wrong: again later, or the end."""
        if failure.code is JobErrorCode.INSUFFICIENT_STORAGE:
            await runs.release(
                self._tools.database,
                control.claim,
                why=str(failure),
                wait_seconds=SPACE_RETRY_SECONDS,
                waiting_for=WaitReason.SPACE,
            )
            return JobState.QUEUED
        async with self._tools.database.read() as session:
            now = await jobs.get(session, job.id)
        fruitless = (now.fruitless_runs if now is not None else job.fruitless_runs) + 1
        is_last = not failure.retryable or fruitless >= job.max_attempts
        wait = None if is_last else back_off_seconds(fruitless, asked=failure.retry_after_seconds)
        ended = await runs.fail(self._tools.database, control.claim, failure, back_off_seconds=wait)
        return ended.state

    async def _left(self, job: Job) -> JobState:
        """Clean up after a run that lost its job: a cancelled job's parts go, a newer run's are its own."""
        async with self._tools.database.read() as session:
            now = await jobs.get(session, job.id)
        if now is None or now.state is JobState.CANCELLED:
            await asyncio.to_thread(self._tools.volume.drop_staging, job.id)
        if now is not None and now.fence != job.fence:
            logger.warning("a newer run has taken the job over", extra={"job": str(job.id), "fence": job.fence})
        return now.state if now is not None else JobState.CANCELLED


def back_off_seconds(fruitless_runs: int, *, asked: float | None) -> float:
    """How long to wait before the next attempt: 2 s doubling to 5 min, with jitter; or as long as was asked for."""
    if asked is not None:
        return min(asked, MAX_BACK_OFF_SECONDS)
    doubled: float = MIN_BACK_OFF_SECONDS * 2.0 ** (fruitless_runs - 1)
    return min(doubled, MAX_BACK_OFF_SECONDS) * random.uniform(0.8, 1.2)  # noqa: S311 - jitter
