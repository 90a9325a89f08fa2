"""The files of an install: written with its plan, before the first byte, and then only moved forward."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import bindparam, case, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from core.job import FileState
from core.repository import RepositoryFile
from db.engine import WriteSession
from db.paging import Keyset, Page, PageRequest, fetch_page
from db.tables import JobFile


@dataclass(frozen=True)
class FileProgress:
    """How far one file is. number: its place in the plan. Sizes in bytes."""

    number: int
    state: FileState
    bytes_done: int


async def replace(session: WriteSession, job_id: UUID, files: Iterable[RepositoryFile]) -> None:
    """Write a job's plan, in place of an earlier one."""
    await session.execute(delete(JobFile).where(JobFile.job_id == job_id))
    rows = [
        {
            "job_id": job_id,
            "number": number,
            "path": file.path,
            "size_bytes": file.size_bytes,
            "digest_kind": file.digest.kind,
            "digest_value": file.digest.value,
            "state": FileState.WAITING,
            "bytes_done": 0,
        }
        for number, file in enumerate(files)
    ]
    if rows:
        await session.execute(insert(JobFile), rows)


async def all_of(session: AsyncSession, job_id: UUID) -> Sequence[JobFile]:
    """Read a job's whole plan, in its order."""
    return (await session.scalars(select(JobFile).where(JobFile.job_id == job_id).order_by(JobFile.number))).all()


async def move(session: WriteSession, job_id: UUID, changes: Iterable[FileProgress]) -> None:
    """Write how far files are; the session must have updated the job's row, guarded by its fence, before."""
    rows = [
        {"of_job": job_id, "of_number": change.number, "state": change.state, "bytes_done": change.bytes_done}
        for change in changes
    ]
    if rows:
        statement = (
            update(JobFile.__table__)  # type: ignore[arg-type]  # the table, so that many rows go in one statement
            .where(JobFile.job_id == bindparam("of_job"), JobFile.number == bindparam("of_number"))
            .values(state=bindparam("state"), bytes_done=bindparam("bytes_done"))
        )
        await (await session.connection()).execute(statement, rows)


async def page(
    session: AsyncSession, job_id: UUID, request: PageRequest, *, states: Collection[FileState] | None
) -> Page[JobFile]:
    """Read a page of a job's files, in the plan's order."""
    statement = select(JobFile).where(JobFile.job_id == job_id)
    if states is not None:
        statement = statement.where(JobFile.state.in_(states))
    keyset = Keyset(stream=f"files:{job_id}", columns=(JobFile.number,))
    return await fetch_page(session, statement, keyset=keyset, request=request)


async def count(session: AsyncSession, job_id: UUID, *, states: Collection[FileState] | None) -> int:
    """Count a job's files."""
    statement = select(func.count()).select_from(JobFile).where(JobFile.job_id == job_id)
    if states is not None:
        statement = statement.where(JobFile.state.in_(states))
    return await session.scalar(statement) or 0


async def reset(session: WriteSession, job_id: UUID) -> None:
    """Mark every file of a job as not begun; the next run says what is there."""
    await session.execute(update(JobFile).where(JobFile.job_id == job_id).values(state=FileState.WAITING, bytes_done=0))


async def finish(session: WriteSession, job_id: UUID) -> None:
    """Mark every file of a job as done, those that were reused excepted."""
    state = case((JobFile.state == FileState.REUSED, FileState.REUSED), else_=FileState.DONE)
    await session.execute(
        update(JobFile).where(JobFile.job_id == job_id).values(state=state, bytes_done=JobFile.size_bytes)
    )
