"""What the fields about weight sets and the volume do."""

import asyncio
from dataclasses import dataclass

from core.bus import job_topic
from core.errors import DomainError, ErrorCode, JobErrorCode, JobFailure
from core.hub import AccessOutcome, HubError
from core.ids import NodeType, key_of
from core.job import InstallRequest, JobPriority
from core.names import check_patterns, check_repo_id, check_revision, check_set_name, is_plain_text
from core.selection import select_files
from db import admission, volumes, weight_sets
from db.admission import Accepted, Asker, ResolvedPlan
from db.paging import Page, PageRequest
from db.tables import Volume, WeightFile, WeightSet
from db.weight_sets import WeightSetFilter, WeightSetOrderField
from resolvers.context import Context
from resolvers.plans import plan_hash

HUB_PATIENCE_SECONDS = 3.0
MAX_IDEMPOTENCY_KEY_LENGTH = 128
REFUSALS: dict[JobErrorCode, ErrorCode] = {
    JobErrorCode.NOT_FOUND: ErrorCode.NOT_FOUND,
    JobErrorCode.HUB_ACCESS_DENIED: ErrorCode.HUB_ACCESS_DENIED,
    JobErrorCode.INVALID: ErrorCode.INVALID,
}


@dataclass(frozen=True)
class VolumeReport:
    """The volume as a worker saw it, with what is claimed and stored on it, in bytes."""

    row: Volume
    reserved_bytes: int
    weights_bytes: int


async def get(ctx: Context, *, set_id: str | None, name: str | None) -> WeightSet | None:
    """Find a set by its id or its name, exactly one of them."""
    if (set_id is None) == (name is None):
        raise DomainError(ErrorCode.INVALID, "Give exactly one of `id` and `name`", path=("id",))
    if set_id is not None:
        name = check_set_name(key_of(set_id, NodeType.WEIGHT_SET, path=("id",)), path=("id",))
    else:
        name = check_set_name(name or "", path=("name",))
    async with ctx.services.database.read() as session:
        return await weight_sets.get(session, name)


async def page(
    ctx: Context, *, set_filter: WeightSetFilter, request: PageRequest, order: WeightSetOrderField, descending: bool
) -> Page[WeightSet]:
    """Read a page of sets."""
    async with ctx.services.database.read() as session:
        return await weight_sets.page(session, set_filter, request, order=order, descending=descending)


async def count(ctx: Context, *, set_filter: WeightSetFilter) -> int:
    """Count sets."""
    async with ctx.services.database.read() as session:
        return await weight_sets.count(session, set_filter)


async def files(ctx: Context, *, name: str, request: PageRequest) -> Page[WeightFile]:
    """Read a page of a set's files."""
    async with ctx.services.database.read() as session:
        return await weight_sets.files_page(session, name, request)


async def count_files(ctx: Context, *, name: str) -> int:
    """Count a set's files."""
    async with ctx.services.database.read() as session:
        return await weight_sets.count_files(session, name)


async def volume(ctx: Context) -> VolumeReport | None:
    """Read the volume; None while no worker has reported."""
    async with ctx.services.database.read() as session:
        row = await volumes.get(session)
        if row is None:
            return None
        return VolumeReport(row, await volumes.reserved_bytes(session), await weight_sets.total_bytes(session))


async def install(
    ctx: Context,
    *,
    request: InstallRequest,
    priority: JobPriority,
    expected_plan_hash: str | None,
    idempotency_key: str | None,
) -> Accepted:
    """Accept an install.

    A key that stands for a job answers that job, whatever the Hub or the plan say by now. Else the Hub is asked for
    a moment: what it refuses is refused at once. No answer in time is no refusal: the job is accepted, and the
    worker asks again.
    Raises: DomainError.
    """
    asker = Asker(name=ctx.viewer.name, priority=priority, idempotency_key=_checked_key(idempotency_key))
    known = await admission.known_install(ctx.services.database, request, asker=asker)
    if known is not None:
        return known
    plan = await resolved(ctx, request)
    if expected_plan_hash is not None and (plan is None or plan_hash(request, plan) != expected_plan_hash):
        raise DomainError(
            ErrorCode.PLAN_CHANGED,
            "What would be done has changed since the plan was shown: look at the new plan"
            if plan is not None
            else "The Hub does not answer, so the plan cannot be compared: try again, or leave planHash out",
            path=("input", "planHash"),
        )
    accepted = await admission.accept_install(ctx.services.database, request, plan=plan, asker=asker)
    _announce(ctx, accepted)
    return accepted


def _checked_key(key: str | None) -> str | None:
    """Return an idempotency key; None stays None. Raises: DomainError INVALID."""
    if key is not None and (not 1 <= len(key) <= MAX_IDEMPOTENCY_KEY_LENGTH or not is_plain_text(key)):
        raise DomainError(
            ErrorCode.INVALID,
            f"An idempotency key has 1 to {MAX_IDEMPOTENCY_KEY_LENGTH} printable characters",
            path=("input", "idempotencyKey"),
        )
    return key


async def resolved(ctx: Context, request: InstallRequest) -> ResolvedPlan | None:
    """Ask the Hub what a revision is now, for a moment; None when it does not answer in time.

    Raises: DomainError for what it refuses.
    """
    path = ("input", "repoId")
    try:
        async with asyncio.timeout(HUB_PATIENCE_SECONDS):
            snapshot = await ctx.services.hub.snapshot(request.repo_id, request.revision)
    except TimeoutError:
        return None
    except JobFailure as failure:
        if isinstance(failure, HubError) and failure.access is AccessOutcome.HUB_UNREACHABLE:
            return None
        if failure.code is JobErrorCode.NOT_FOUND and "revision" in str(failure):
            path = ("input", "revision")
        message = f"{failure}. {failure.hint}" if failure.hint else str(failure)
        raise DomainError(REFUSALS.get(failure.code, ErrorCode.HUB_UNAVAILABLE), message, path=path) from failure
    chosen = select_files(snapshot.files, include=request.include, exclude=request.exclude)
    if not chosen:
        raise DomainError(
            ErrorCode.INVALID,
            f"No file of {request.repo_id} matches: leave `include` out to take everything that a server needs",
            path=("input", "include"),
        )
    return ResolvedPlan(commit=snapshot.commit, files=chosen)


async def delete(ctx: Context, *, set_id: str, force: bool) -> Accepted:
    """Accept the removal of a set. Raises: DomainError."""
    path = ("input", "weightSetId")
    name = check_set_name(key_of(set_id, NodeType.WEIGHT_SET, path=path), path=path)
    accepted = await admission.accept_delete(
        ctx.services.database, name, force=force, asker=Asker(name=ctx.viewer.name)
    )
    _announce(ctx, accepted)
    return accepted


async def pin(ctx: Context, *, set_id: str, pinned: bool) -> WeightSet:
    """Keep a set from deletion, or no longer. Raises: DomainError."""
    path = ("input", "weightSetId")
    name = check_set_name(key_of(set_id, NodeType.WEIGHT_SET, path=path), path=path)
    found = await weight_sets.pin(ctx.services.database, name, pinned=pinned, actor=ctx.viewer.name)
    if found is None:
        raise DomainError(ErrorCode.NOT_FOUND, f"There is no weight set {name!r}", path=path)
    return found


def _announce(ctx: Context, accepted: Accepted) -> None:
    """Tell those who watch, and let the job go."""
    if accepted.job is not None:
        ctx.services.bus.publish(job_topic(accepted.job.id))
        ctx.services.wake_dispatcher()


def request_of(
    *,
    repo_id: str,
    revision: str,
    name: str | None,
    include: list[str] | None,
    exclude: list[str] | None,
    replace: bool,
    pin: bool = False,
) -> InstallRequest:
    """Check what was asked for, before anybody else is asked.

    Raises: DomainError INVALID naming the field.
    """
    checked_repo = check_repo_id(repo_id)
    return InstallRequest(
        repo_id=checked_repo,
        revision=check_revision(revision),
        name=check_set_name(name) if name is not None else check_set_name(checked_repo, path=("input", "repoId")),
        include=check_patterns(include, path=("input", "include")),
        exclude=check_patterns(exclude, path=("input", "exclude")) or (),
        replace=replace,
        pin=pin,
    )
