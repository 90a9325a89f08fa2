"""The other side of a subscription: what a worker publishes and writes, and what a reader makes of it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from core.bus import Bus, job_topic
from core.job import JobStage, Progress
from db import runs
from db.engine import Database
from db.runs import Claim
from tests.graph.api import Socket

PROGRESS = """subscription($id: ID!) { jobProgress(jobId: $id) {
  state stage message attempt progress { bytesDone bytesTotal fraction bytesPerSecond lastByteAt } } }"""
JOBS = """subscription($after: String, $filter: JobFilter) { jobs(after: $after, filter: $filter) {
  cursor matches job { id state progress { bytesDone } } } }"""
LOG = "subscription($id: ID!, $after: String) { jobLog(jobId: $id, after: $after) { cursor message level } }"
UNKNOWN_JOB = "Job:01930f6e-0000-7000-8000-000000000000"


@asynccontextmanager
async def on_bus(url: str) -> AsyncIterator[Bus]:
    """Be on the bus, and know that it is live."""
    async with Bus(url).running() as running:
        await until_live(running)
        yield running


async def until_live(bus: Bus) -> None:
    async with asyncio.timeout(15):
        while not bus.is_live:  # noqa: ASYNC110 - what is waited for knows nothing of us
            await asyncio.sleep(0.005)


def tell(bus: Bus, claim: Claim, bytes_done: int, **more: Any) -> None:
    """Publish how far a run is, as its reporter does."""
    progress = Progress(bytes_done=bytes_done, bytes_total=1024, last_byte_at=datetime(2026, 1, 2, tzinfo=UTC), **more)
    message = {
        "fence": claim.fence,
        "stage": JobStage.DOWNLOADING,
        "message": "Downloading",
        "progress": asdict(progress),
    }
    bus.publish(job_topic(claim.job_id), message)


async def report(database: Database, claim: Claim, bytes_done: int) -> None:
    """Write how far a run is."""
    progress = Progress(bytes_done=bytes_done, bytes_total=1024)
    await runs.report(database, claim, progress=progress, stage=JobStage.DOWNLOADING, message="Downloading")


async def bytes_of(socket: Socket) -> tuple[str, int]:
    """The state and the bytes of the next job that is pushed."""
    job = (await socket.next())["jobProgress"]
    return job["state"], job["progress"]["bytesDone"]


async def refusal_of(socket: Socket) -> dict[str, Any]:
    """The one error that an operation ends with."""
    message = await socket.receive()
    assert (message["type"], message["id"]) == ("error", "1"), message
    (error,) = message["payload"]
    assert await socket.silent()
    found: dict[str, Any] = error
    return found
