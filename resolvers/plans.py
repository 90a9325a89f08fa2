"""What an install would do, before a byte is downloaded."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256

import orjson

from core.errors import DomainError, ErrorCode, JobFailure
from core.hub import AccessOutcome, HubError
from core.job import InstallRequest
from core.repository import RepositoryFile, Snapshot
from core.selection import FileFormat, format_of, select_files
from core.weight_set import WeightSetState
from db import volumes, weight_sets
from db.admission import ResolvedPlan
from resolvers.context import Context

PLAN_PATIENCE_SECONDS = 8.0


class FileAction(StrEnum):
    """What an install would do with a file of the repository."""

    DOWNLOAD = "DOWNLOAD"
    REUSE = "REUSE"
    SKIP = "SKIP"


class RiskCode(StrEnum):
    """What is worth knowing before a repository is trusted."""

    PICKLE = "PICKLE"
    GATED = "GATED"


@dataclass(frozen=True)
class PlannedFile:
    """A file of the repository and what would be done with it."""

    path: str
    size_bytes: int
    action: FileAction


@dataclass(frozen=True)
class Risk:
    """Something worth knowing, in a sentence."""

    code: RiskCode
    message: str


@dataclass(frozen=True, kw_only=True)
class InstallPlan:
    """What an install would do. Sizes in bytes.

    available_bytes: free after every install that is accepted; None while no worker has reported.
    """

    hash: str
    commit: str
    files: Sequence[PlannedFile]
    download_bytes: int
    reuse_bytes: int
    available_bytes: int | None
    risks: Sequence[Risk]

    @property
    def fits_on_volume(self) -> bool | None:
        """Whether there is room, with the margin that is reserved; None while that is not known."""
        if self.available_bytes is None:
            return None
        return self.download_bytes * volumes.MARGIN <= self.available_bytes


@dataclass(frozen=True)
class Access:
    """Whether the Hub gives us the repository. url: the page where it can be mended."""

    outcome: AccessOutcome
    message: str
    url: str | None = None


@dataclass(frozen=True)
class PlanAnswer:
    """A plan, or why there is none: the Hub would not give the repository."""

    plan: InstallPlan | None
    access: Access


async def install_plan(ctx: Context, *, request: InstallRequest) -> PlanAnswer:
    """Say what an install would do.

    Raises: DomainError for what is no question of access.
    """
    try:
        async with asyncio.timeout(PLAN_PATIENCE_SECONDS):
            snapshot = await ctx.services.hub.snapshot(request.repo_id, request.revision)
    except TimeoutError:
        return PlanAnswer(None, Access(AccessOutcome.HUB_UNREACHABLE, "The Hub does not answer in time"))
    except HubError as error:
        message = f"{error}. {error.hint}" if error.hint else str(error)
        return PlanAnswer(None, Access(error.access, message, error.url))
    except JobFailure as failure:
        raise DomainError(ErrorCode.INVALID, str(failure), path=("input", "repoId")) from failure
    chosen = select_files(snapshot.files, include=request.include, exclude=request.exclude)
    async with ctx.services.database.read() as session:
        volume = await volumes.get(session)
        available = volume.free_bytes - await volumes.reserved_bytes(session) if volume is not None else None
        there = await weight_sets.get(session, request.name)
        is_there = there is not None and there.state is WeightSetState.READY and there.commit == snapshot.commit
        have = {file.path: file.digest for file in await weight_sets.files_of(session, request.name)}
        elsewhere = await weight_sets.ready_files(session, chosen)
    reusable = {
        file.path
        for file in chosen
        if (is_there and have.get(file.path) == file.digest) or file.digest.value in elsewhere
    }
    plan = InstallPlan(
        hash=plan_hash(request, ResolvedPlan(commit=snapshot.commit, files=chosen)),
        commit=snapshot.commit,
        files=_planned(snapshot, chosen, reusable),
        download_bytes=sum(file.size_bytes for file in chosen if file.path not in reusable),
        reuse_bytes=sum(file.size_bytes for file in chosen if file.path in reusable),
        available_bytes=available,
        risks=_risks(snapshot, chosen),
    )
    return PlanAnswer(plan, Access(AccessOutcome.OK, f"{request.repo_id} can be downloaded"))


def plan_hash(request: InstallRequest, plan: ResolvedPlan) -> str:
    """Name what would be done: target, commit and files."""
    content = [
        request.name,
        request.repo_id,
        plan.commit,
        sorted((file.path, file.digest.value) for file in plan.files),
    ]
    return sha256(orjson.dumps(content)).hexdigest()[:32]


def _planned(snapshot: Snapshot, chosen: Sequence[RepositoryFile], reusable: set[str]) -> list[PlannedFile]:
    """Say for every file of the repository what would be done with it."""
    wanted = {file.path for file in chosen}
    return [
        PlannedFile(
            file.path,
            file.size_bytes,
            (FileAction.REUSE if file.path in reusable else FileAction.DOWNLOAD)
            if file.path in wanted
            else FileAction.SKIP,
        )
        for file in snapshot.files
    ]


def _risks(snapshot: Snapshot, chosen: Sequence[RepositoryFile]) -> list[Risk]:
    """Look for what is worth knowing."""
    risks = []
    pickles = [file.path for file in chosen if format_of(file.path) is FileFormat.PICKLE]
    if pickles:
        risks.append(Risk(RiskCode.PICKLE, f"{pickles[0]} is a pickle file: loading it can run code"))
    if snapshot.is_gated:
        risks.append(Risk(RiskCode.GATED, "The repository is gated; the terms that were accepted apply"))
    return risks
