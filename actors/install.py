"""Install a repository's weights at one commit: the life of an INSTALL_WEIGHTS job."""

import asyncio
from collections.abc import Coroutine, Sequence
from datetime import UTC, datetime

from actors.control import RunControl, RunStopped, StopReason
from actors.download import Counter, FileTransfer, volume_failure
from actors.reporter import Reporter
from actors.room import InstallRoom
from actors.source import FileSource
from actors.threads import in_thread
from actors.tools import Tools
from core.crashpoints import CrashPoint, reached
from core.errors import JobErrorCode, JobFailure
from core.event import EventType
from core.ids import NodeType, global_id
from core.job import InstallRequest, JobStage
from core.manifest import Manifest
from core.names import COMMIT
from core.repository import RepositoryFile
from core.selection import FileFormat, format_of, select_files
from core.version import VERSION
from db import job_files, jobs, runs, weight_sets
from db.admission import ResolvedPlan
from db.engine import NewEvent
from db.tables import Job

FILES_AT_ONCE = 4
GIVE_UP_SECONDS = 1.0
"""How long a stopped run waits for its threads; one that hangs in the network is left behind and writes nothing."""


async def install_weights(tools: Tools, job: Job, control: RunControl) -> None:
    """Download one commit's files into the volume.

    Raises: JobFailure, RunStopped, LostClaimError.
    Safe to repeat: whole files and parts of earlier runs are kept, a set that is already published is only noted.
    Order: the row is RUNNING before the first byte and SUCCEEDED after the last rename.
    """
    request = weight_sets.request_of(job)
    reporter = Reporter(tools, job, control, message="Asking the Hub")
    async with reporter.running():
        plan = await _plan(tools, job, request, reporter)
        if not await asyncio.to_thread(_is_published, tools, request, plan):
            await _check_room(tools, job, request, plan)
            await _download(tools, job, request, plan, reporter)
            reached(CrashPoint.FILES_WHOLE)
            await _publish(tools, job, request, plan, reporter)
            reached(CrashPoint.SET_PUBLISHED)
    control.check()
    await _finish(tools, request, plan, control)


async def _plan(tools: Tools, job: Job, request: InstallRequest, reporter: Reporter) -> ResolvedPlan:
    """Read the plan that the job has; without one, ask the Hub and write it down before the first byte."""
    async with tools.database.read() as session:
        files = [
            RepositoryFile(path=row.path, size_bytes=row.size_bytes, digest=row.digest)
            for row in await job_files.all_of(session, job.id)
        ]
    if job.commit is not None and files:
        return ResolvedPlan(commit=job.commit, files=files)
    plan = await resolve(tools, request)
    reached(CrashPoint.PLAN_ASKED)
    async with tools.database.write() as session:
        await runs.hold(
            session,
            reporter.control.claim,
            commit=plan.commit,
            bytes_total=plan.download_bytes,
            files_total=len(plan.files),
        )
        await job_files.replace(session, job.id, plan.files)
        await session.commit()
    reached(CrashPoint.PLAN_WRITTEN)
    return plan


async def resolve(tools: Tools, request: InstallRequest) -> ResolvedPlan:
    """Ask the Hub what a revision is now, and choose the files.

    Raises: JobFailure, final when nothing would be left to install.
    """
    snapshot = await tools.hub.snapshot(request.repo_id, request.revision)
    files = select_files(snapshot.files, include=request.include, exclude=request.exclude)
    if not files:
        raise JobFailure(
            JobErrorCode.INVALID,
            f"No file of {request.repo_id} matches the patterns",
            hint="Leave `include` out to take everything that a server needs.",
        )
    return ResolvedPlan(commit=snapshot.commit, files=files)


def _is_published(tools: Tools, request: InstallRequest, plan: ResolvedPlan) -> bool:
    """Tell whether the set is already there, whole: an earlier run died between its rename and its last write."""
    try:
        manifest = tools.volume.read_manifest(request.name)
    except ValueError:
        return False
    except OSError as error:
        raise volume_failure(error) from error
    return (
        manifest is not None
        and (manifest.repo_id, manifest.commit) == (request.repo_id, plan.commit)
        and set(manifest.files) == set(plan.files)
    )


async def _check_room(tools: Tools, job: Job, request: InstallRequest, plan: ResolvedPlan) -> None:
    """Look at the target and the room before the first byte; what is shared with other sets needs none."""
    async with tools.database.read() as session:
        reused_bytes = await weight_sets.reusable_bytes(session, plan.files)
    await asyncio.to_thread(_check_volume, tools, job, request, plan, reused_bytes)


def _check_volume(tools: Tools, job: Job, request: InstallRequest, plan: ResolvedPlan, reused_bytes: int) -> None:
    """Look at the target, and whether what has to be fetched fits.

    Raises: JobFailure.
    """
    try:
        tools.volume.check_target(request.name, replace=request.replace)
        free_bytes = tools.volume.space().free_bytes
    except OSError as error:
        raise volume_failure(error) from error
    still_bytes = plan.download_bytes - max(job.bytes_done, reused_bytes)
    if still_bytes > free_bytes:
        raise JobFailure(
            JobErrorCode.INSUFFICIENT_STORAGE,
            f"{still_bytes:,} bytes are still to come and {free_bytes:,} are free",
            hint="Delete a weight set; the install goes on by itself when there is room.",
            retryable=True,
        )


async def _link_known(
    tools: Tools, job: Job, plan: ResolvedPlan, counters: Sequence[Counter], reporter: Reporter
) -> None:
    """Give the job the files whose bytes another set has, by links; what cannot be linked is fetched.

    Raises: JobFailure, RunStopped.
    """
    async with tools.database.read() as session:
        known = await weight_sets.ready_files(session, plan.files)

    def link() -> None:
        for file, counter in zip(plan.files, counters, strict=True):
            reporter.control.check()
            origin = known.get(file.digest.value)
            if origin is not None and tools.volume.link_file(
                job.id, file.path, of_set=origin.set_name, of_path=origin.path, size_bytes=file.size_bytes
            ):
                counter.done, counter.is_verified, counter.is_reused = file.size_bytes, True, True
                reporter.log(f"{file.path}: {file.size_bytes:,} bytes shared with {origin.set_name}")

    try:
        await in_thread(link, name="link")
    except OSError as error:
        raise volume_failure(error) from error


async def _download(tools: Tools, job: Job, request: InstallRequest, plan: ResolvedPlan, reporter: Reporter) -> None:
    """Fetch all files, a few at once; the first that cannot be had ends the others.

    Raises: JobFailure, RunStopped.
    """
    counters = [Counter() for _ in plan.files]
    reporter.begin_files(plan.files, counters)
    reporter.stage, reporter.message = JobStage.DOWNLOADING, f"Downloading {len(plan.files)} files"
    reporter.log(f"{len(plan.files)} files, {plan.download_bytes:,} bytes, commit {plan.commit}")
    if any(format_of(file.path) is FileFormat.PICKLE for file in plan.files):
        reporter.log("Some weights are pickle files: loading them can run code. Prefer safetensors.")
    await _link_known(tools, job, plan, counters, reporter)
    room = InstallRoom(tools.room, at_most=lambda: tools.in_force.settings.ranges_per_install)
    source = FileSource(tools.hub, repo_id=request.repo_id, commit=plan.commit, connections=tools.room.most)
    files_at_once = asyncio.Semaphore(FILES_AT_ONCE)

    async def fetch(number: int) -> None:
        async with files_at_once:
            reporter.control.check()
            transfer = FileTransfer(
                volume=tools.volume,
                source=source,
                job_id=job.id,
                number=number,
                file=plan.files[number],
                commit=plan.commit,
                control=reporter.control,
                log=reporter.log,
                patience=tools.patience,
                counter=counters[number],
                room=room,
                bandwidth=tools.bandwidth,
            )
            await in_thread(transfer.run, name=f"fetch-{number}")

    try:
        missing = [number for number, counter in enumerate(counters) if not counter.is_reused]
        await _all_or_first_failure([fetch(number) for number in missing], reporter.control)
    finally:
        source.close()


async def _all_or_first_failure(fetches: Sequence[Coroutine[None, None, None]], control: RunControl) -> None:
    """Wait for all; when one fails, or the run must end, stop the rest and raise what ended it."""
    tasks = {asyncio.create_task(fetch) for fetch in fetches}
    pending = set(tasks)
    while pending:
        finished, pending = await asyncio.wait(pending, timeout=GIVE_UP_SECONDS, return_when=asyncio.FIRST_EXCEPTION)
        failure = _worst([task.exception() for task in finished if not task.cancelled()])
        if failure is None and control.reason is not None:
            failure = RunStopped(control.reason)
        if failure is not None:
            control.stop(StopReason.FAILED)
            await asyncio.wait(pending, timeout=GIVE_UP_SECONDS) if pending else None
            for task in pending:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise failure


def _worst(errors: Sequence[BaseException | None]) -> BaseException | None:
    """Choose what to tell of several errors: a failure rather than an instruction to stop."""
    found = [error for error in errors if error is not None]
    return next((error for error in found if not isinstance(error, RunStopped)), found[0] if found else None)


async def _publish(tools: Tools, job: Job, request: InstallRequest, plan: ResolvedPlan, reporter: Reporter) -> None:
    """Let the set appear on the volume, unless the job is not ours any more.

    Raises: JobFailure, RunStopped.
    """
    reporter.stage, reporter.message = JobStage.PUBLISHING, f"Publishing {request.name}"
    await reporter.write()
    reporter.control.check()
    manifest = Manifest(
        repo_id=request.repo_id,
        requested_revision=request.revision,
        commit=plan.commit,
        files=tuple(plan.files),
        installed_at=datetime.now(UTC),
        version=VERSION,
    )
    try:
        await asyncio.to_thread(tools.volume.publish, job.id, request.name, manifest, replace=request.replace)
    except OSError as error:
        raise volume_failure(error) from error


async def _finish(tools: Tools, request: InstallRequest, plan: ResolvedPlan, control: RunControl) -> None:
    """Write down that the set is there: job, set, files and events in one transaction."""
    assert COMMIT.fullmatch(plan.commit)
    total = plan.download_bytes
    async with tools.database.write() as session:
        done = await runs.succeed(
            session,
            control.claim,
            message=f"Installed {request.name} at {plan.commit[:8]}",
            bytes_done=total,
            bytes_total=total,
            verified_bytes=total,
            files_done=len(plan.files),
            files_total=len(plan.files),
        )
        await weight_sets.publish(session, done.id, request, commit=plan.commit, files=plan.files)
        await job_files.finish(session, done.id)
        installed = NewEvent(
            type=EventType.WEIGHTS_INSTALLED,
            subject_id=global_id(NodeType.WEIGHT_SET, request.name),
            actor=done.created_by,
            message=f"{request.name} is there: {total:,} bytes, commit {plan.commit[:8]}",
            data={"name": request.name, "repoId": request.repo_id, "commit": plan.commit, "sizeBytes": total},
        )
        reached(CrashPoint.RESULT_WRITTEN)
        await session.commit_with(installed, jobs.event_of(done, EventType.JOB_COMPLETED))
    reached(CrashPoint.RESULT_COMMITTED)
