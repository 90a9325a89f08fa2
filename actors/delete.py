"""Delete a weight set: the life of a DELETE_WEIGHTS job."""

import asyncio

from actors.control import RunControl
from actors.download import volume_failure
from actors.reporter import Reporter
from actors.tools import Tools
from core.event import EventType
from core.ids import NodeType, global_id
from core.job import JobStage
from db import jobs, runs, weight_sets
from db.engine import NewEvent
from db.tables import Job


async def delete_weights(tools: Tools, job: Job, control: RunControl) -> None:
    """Take a set's files away, then its row.

    Raises: JobFailure, LostClaimError. Safe to repeat: what is gone already is fine.
    """
    name: str = job.input["name"]
    reporter = Reporter(tools, job, control, stage=JobStage.DELETING, message=f"Deleting {name}")
    async with reporter.running():
        await reporter.write()
        control.check()
        try:
            await asyncio.to_thread(tools.volume.remove, name)
        except OSError as error:
            raise volume_failure(error) from error
    async with tools.database.write() as session:
        done = await runs.succeed(session, control.claim, message=f"Deleted {name}")
        await weight_sets.forget(session, name)
        deleted = NewEvent(
            type=EventType.WEIGHTS_DELETED,
            subject_id=global_id(NodeType.WEIGHT_SET, name),
            actor=done.created_by,
            message=f"{name} is gone from the volume",
            data={"name": name},
        )
        await session.commit_with(deleted, jobs.event_of(done, EventType.JOB_COMPLETED))
