"""Weight sets: what is on the volume, as the jobs that put it there wrote it down."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, SQLColumnExpression, delete, func, insert, literal, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from core.errors import DomainError, ErrorCode
from core.event import EventType
from core.ids import NodeType, global_id, key_of
from core.job import TERMINAL_STATES, InstallRequest, JobKind
from core.repository import DigestKind, RepositoryFile
from core.selection import format_of
from core.weight_set import WeightSetState
from db.engine import Database, NewEvent, WriteSession
from db.paging import Keyset, Page, PageRequest, fetch_page
from db.tables import Job, WeightFile, WeightSet
from db.types import UtcDateTime, db_now

DIGESTS_AT_ONCE = 500
LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class ReadyFile:
    """A file of a set that is READY: where its bytes are on the volume."""

    set_name: str
    path: str


class WeightSetOrderField(StrEnum):
    """What sets can be sorted by."""

    NAME = "NAME"
    SIZE = "SIZE"
    INSTALLED_AT = "INSTALLED_AT"


@dataclass(frozen=True, kw_only=True)
class WeightSetFilter:
    """Which sets; None means any. search: part of a name or repository, without regard to case."""

    search: str | None = None
    states: Collection[WeightSetState] | None = None
    pinned: bool | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """Say the same in SQL."""
        found: list[ColumnElement[bool]] = []
        if self.search:
            columns = (WeightSet.name, WeightSet.repo_id)
            found.append(
                or_(*(func.lower(column).contains(self.search.lower(), autoescape=True) for column in columns))
            )
        if self.states is not None:
            found.append(WeightSet.state.in_(self.states))
        if self.pinned is not None:
            found.append(WeightSet.pinned.is_(self.pinned))
        return found


async def get(session: AsyncSession, name: str) -> WeightSet | None:
    """Read a set by its name."""
    return await session.get(WeightSet, name)


async def get_many(session: AsyncSession, names: Collection[str]) -> dict[str, WeightSet]:
    """Read several sets in one statement."""
    found = await session.scalars(select(WeightSet).where(WeightSet.name.in_(names)))
    return {weight_set.name: weight_set for weight_set in found}


async def page(
    session: AsyncSession,
    set_filter: WeightSetFilter,
    request: PageRequest,
    *,
    order: WeightSetOrderField,
    descending: bool,
) -> Page[WeightSet]:
    """Read a page of sets."""
    keys: dict[WeightSetOrderField, tuple[SQLColumnExpression[Any], ...]] = {
        WeightSetOrderField.NAME: (WeightSet.name,),
        WeightSetOrderField.SIZE: (WeightSet.size_bytes, WeightSet.name),
        WeightSetOrderField.INSTALLED_AT: (
            func.coalesce(WeightSet.installed_at, literal(LONG_AGO, UtcDateTime())),
            WeightSet.name,
        ),
    }
    keyset = Keyset(stream=f"sets:{order}:{descending}", columns=keys[order], descending=descending)
    statement = select(WeightSet).where(*set_filter.conditions())
    return await fetch_page(session, statement, keyset=keyset, request=request)


async def count(session: AsyncSession, set_filter: WeightSetFilter) -> int:
    """Count sets."""
    statement = select(func.count()).select_from(WeightSet).where(*set_filter.conditions())
    return await session.scalar(statement) or 0


async def files_of(session: AsyncSession, name: str) -> Sequence[WeightFile]:
    """Read all files of a set."""
    statement = select(WeightFile).where(WeightFile.set_name == name).order_by(WeightFile.path)
    return (await session.scalars(statement)).all()


async def files_page(session: AsyncSession, name: str, request: PageRequest) -> Page[WeightFile]:
    """Read a page of a set's files, by path."""
    keyset = Keyset(stream=f"set-files:{name}", columns=(WeightFile.path,))
    statement = select(WeightFile).where(WeightFile.set_name == name)
    return await fetch_page(session, statement, keyset=keyset, request=request)


async def count_files(session: AsyncSession, name: str) -> int:
    """Count a set's files."""
    statement = select(func.count()).select_from(WeightFile).where(WeightFile.set_name == name)
    return await session.scalar(statement) or 0


async def ready_files(session: AsyncSession, files: Sequence[RepositoryFile]) -> dict[str, ReadyFile]:
    """Find, by sha256, which of these files' bytes some set has that is READY.

    Small files, which the Hub names by their git digest, are not looked for: fetching them costs nothing.
    """
    sizes = {file.digest.value: file.size_bytes for file in files if file.digest.kind is DigestKind.SHA256}
    digests = sorted(sizes)
    found: dict[str, ReadyFile] = {}
    for begin in range(0, len(digests), DIGESTS_AT_ONCE):
        statement = (
            select(WeightFile)
            .join(WeightSet, WeightSet.name == WeightFile.set_name)
            .where(
                WeightSet.state == WeightSetState.READY,
                WeightFile.digest_kind == DigestKind.SHA256,
                WeightFile.digest_value.in_(digests[begin : begin + DIGESTS_AT_ONCE]),
            )
            .order_by(WeightFile.set_name.desc(), WeightFile.path.desc())
        )
        for row in await session.scalars(statement):
            if sizes[row.digest_value] == row.size_bytes:
                found[row.digest_value] = ReadyFile(row.set_name, row.path)
    return found


async def reusable_bytes(session: AsyncSession, files: Sequence[RepositoryFile]) -> int:
    """Sum up the files whose bytes are on the volume already."""
    found = await ready_files(session, files)
    return sum(file.size_bytes for file in files if file.digest.value in found)


async def exclusive_bytes(session: AsyncSession, names: Collection[str]) -> dict[str, int]:
    """Sum up, for each of these sets, the files that no other set shares: what deleting it would free."""
    other = aliased(WeightFile)
    is_shared = (
        select(literal(1))
        .where(
            other.digest_value == WeightFile.digest_value,
            other.digest_kind == DigestKind.SHA256,
            other.set_name != WeightFile.set_name,
        )
        .exists()
    )
    statement = (
        select(WeightFile.set_name, func.sum(WeightFile.size_bytes))
        .where(WeightFile.set_name.in_(names), or_(WeightFile.digest_kind != DigestKind.SHA256, ~is_shared))
        .group_by(WeightFile.set_name)
    )
    return {name: int(total) for name, total in (await session.execute(statement)).all()}


async def relatives(session: AsyncSession, name: str) -> Sequence[WeightSet]:
    """Read the sets whose directory would lie inside this one's, or this one's inside theirs."""
    parts = name.split("/")
    above = ["/".join(parts[:depth]) for depth in range(1, len(parts))]
    statement = select(WeightSet).where(
        or_(WeightSet.name.in_(above), func.substr(WeightSet.name, 1, len(name) + 1) == f"{name}/")
    )
    return (await session.scalars(statement)).all()


async def total_bytes(session: AsyncSession) -> int:
    """Sum up the sizes of all sets that are there."""
    statement = select(func.coalesce(func.sum(WeightSet.size_bytes), 0))
    return int(await session.scalar(statement) or 0)


async def announce(session: WriteSession, job_id: UUID, request: InstallRequest) -> None:
    """Show a set as INSTALLING from the moment its install is accepted; one that is being replaced stays as it is."""
    if await get(session, request.name) is None:
        await session.execute(
            insert(WeightSet).values(
                name=request.name,
                repo_id=request.repo_id,
                requested_revision=request.revision,
                state=WeightSetState.INSTALLING,
                size_bytes=0,
                file_count=0,
                pinned=request.pin,
                install_job_id=job_id,
            )
        )


async def publish(
    session: WriteSession, job_id: UUID, request: InstallRequest, *, commit: str, files: Sequence[RepositoryFile]
) -> None:
    """Write down that a set is complete on the volume, with its files."""
    values = {
        "repo_id": request.repo_id,
        "requested_revision": request.revision,
        "commit": commit,
        "state": WeightSetState.READY,
        "size_bytes": sum(file.size_bytes for file in files),
        "file_count": len(files),
        "install_job_id": job_id,
        "installed_at": db_now(),
        "verified_at": db_now(),
    }
    known = await session.scalar(
        update(WeightSet).where(WeightSet.name == request.name).values(**values).returning(WeightSet.name)
    )
    if known is None:
        await session.execute(insert(WeightSet).values(name=request.name, pinned=request.pin, **values))
    await session.execute(delete(WeightFile).where(WeightFile.set_name == request.name))
    if files:
        await session.execute(
            insert(WeightFile).values(verified_at=db_now()),
            [
                {
                    "set_name": request.name,
                    "path": file.path,
                    "size_bytes": file.size_bytes,
                    "digest_kind": file.digest.kind,
                    "digest_value": file.digest.value,
                    "format": format_of(file.path),
                }
                for file in files
            ],
        )


async def mark_deleting(session: WriteSession, name: str) -> WeightSet | None:
    """Take a set out of use before its files go; None when there is none that is READY."""
    changed: WeightSet | None = await session.scalar(
        update(WeightSet)
        .where(WeightSet.name == name, WeightSet.state == WeightSetState.READY)
        .values(state=WeightSetState.DELETING)
        .returning(WeightSet)
    )
    return changed


async def pin(database: Database, name: str, *, pinned: bool, actor: str) -> WeightSet | None:
    """Keep a set from deletion, or no longer; None when there is none. Saying it twice is one event."""
    async with database.write() as session:
        changed: WeightSet | None = await session.scalar(
            update(WeightSet)
            .where(WeightSet.name == name, WeightSet.pinned.is_not(pinned))
            .values(pinned=pinned)
            .returning(WeightSet)
        )
        if changed is None:
            return await get(session, name)
        await session.commit_with(
            NewEvent(
                type=EventType.WEIGHTS_PINNED if pinned else EventType.WEIGHTS_UNPINNED,
                subject_id=global_id(NodeType.WEIGHT_SET, name),
                actor=actor,
                message=f"{name} is {'kept from deletion' if pinned else 'no longer kept from deletion'}",
                data={"name": name},
            )
        )
        return changed


async def forget(session: WriteSession, name: str) -> None:
    """Drop the row of a set whose files are gone."""
    await session.execute(delete(WeightSet).where(WeightSet.name == name))


async def let_go(session: WriteSession, job_id: UUID) -> None:
    """Undo what a job's acceptance did to its set: the job ended without a result."""
    await session.execute(
        delete(WeightSet).where(WeightSet.install_job_id == job_id, WeightSet.state == WeightSetState.INSTALLING)
    )
    job = await session.get(Job, job_id)
    if job is not None and job.kind is JobKind.DELETE_WEIGHTS:
        await session.execute(
            update(WeightSet)
            .where(WeightSet.name == _name_of(job), WeightSet.state == WeightSetState.DELETING)
            .values(state=WeightSetState.READY)
        )


async def take_again(session: WriteSession, job: Job) -> None:
    """Do to a retried job's set what its acceptance did.

    Raises: DomainError CONFLICT when the set is in another job's hands, or gone, or another lies in its way.
    """
    name = _name_of(job)
    others = select(Job.id).where(Job.subject_id == job.subject_id, Job.id != job.id, Job.state.not_in(TERMINAL_STATES))
    refusal = DomainError(ErrorCode.CONFLICT, f"{name} has changed since: start anew", path=("input", "jobId"))
    if await session.scalar(others.limit(1)) is not None:
        raise refusal
    if job.kind is JobKind.DELETE_WEIGHTS:
        if await mark_deleting(session, name) is None:
            raise refusal
        return
    request = request_of(job)
    found = await get(session, name)
    if found is not None and (found.state is not WeightSetState.READY or not request.replace):
        raise refusal
    if await relatives(session, name):
        raise refusal
    await announce(session, job.id, request)


def _name_of(job: Job) -> str:
    """Name the set that a job works on."""
    return key_of(job.subject_id, NodeType.WEIGHT_SET, path=())


def request_of(job: Job) -> InstallRequest:
    """Read back what an install was asked to do."""
    given = job.input
    return InstallRequest(
        repo_id=given["repoId"],
        revision=given["revision"],
        name=given["name"],
        include=tuple(given["include"]) if given["include"] is not None else None,
        exclude=tuple(given["exclude"]),
        replace=given["replace"],
        pin=given["pin"],
    )
