"""Jobs and sets as workers leave them behind, made by the database's own functions: there is no worker here."""

from collections.abc import Sequence

from core.errors import JobErrorCode, JobFailure
from core.event import EventType
from core.hub import Hub
from core.ids import NodeType, global_id
from core.job import InstallRequest, JobKind
from core.repository import Digest, DigestKind, RepositoryFile
from core.selection import select_files
from db import admission, jobs, runs, weight_sets
from db.admission import Asker, ResolvedPlan
from db.engine import Database
from db.runs import Claim
from db.tables import Job
from tests.fakes.hub import FakeHub

COMMIT = "c" * 40
FILES = (
    RepositoryFile("config.json", 24, Digest(DigestKind.GIT_SHA1, "b" * 40)),
    RepositoryFile("model.safetensors", 1000, Digest(DigestKind.SHA256, "a" * 64)),
)
ANNA = Asker(name="anna")


def request_for(name: str, *, repo_id: str | None = None, revision: str = "main", pin: bool = False) -> InstallRequest:
    return InstallRequest(repo_id=repo_id or name, revision=revision, name=name, pin=pin)


async def queued(database: Database, name: str = "acme/tiny", *, asker: Asker = ANNA, pin: bool = False) -> Job:
    """An install that was accepted with its plan."""
    plan = ResolvedPlan(commit=COMMIT, files=FILES)
    accepted = await admission.accept_install(database, request_for(name, pin=pin), plan=plan, asker=asker)
    assert accepted.job is not None
    return accepted.job


async def running(database: Database, name: str = "acme/tiny", *, pin: bool = False) -> tuple[Job, Claim]:
    """An install that a worker has begun."""
    return await begun(database, await queued(database, name, pin=pin))


async def begun(database: Database, job: Job) -> tuple[Job, Claim]:
    """A worker takes a queued job."""
    await admission.admit(database)
    found = await runs.claim(database, job.id, kinds=tuple(JobKind), worker_id="w1", lease_seconds=60)
    assert found is not None
    return found, Claim(found.id, found.fence)


async def succeeded(
    database: Database,
    claim: Claim,
    request: InstallRequest,
    *,
    files: Sequence[RepositoryFile] = FILES,
    commit: str = COMMIT,
) -> None:
    """A worker publishes what it has fetched."""
    async with database.write() as session:
        job = await runs.succeed(
            session,
            claim,
            message="Published",
            bytes_done=sum(file.size_bytes for file in files),
            files_done=len(files),
        )
        await weight_sets.publish(session, job.id, request, commit=commit, files=files)
        await session.commit_with(jobs.event_of(job, EventType.JOB_COMPLETED))


async def ready(
    database: Database,
    name: str = "acme/tiny",
    *,
    pin: bool = False,
    files: Sequence[RepositoryFile] = FILES,
    repo_id: str | None = None,
    commit: str = COMMIT,
) -> Job:
    """A set that is there, and the job that brought it."""
    plan = ResolvedPlan(commit=commit, files=files)
    request = request_for(name, repo_id=repo_id, pin=pin)
    accepted = await admission.accept_install(database, request, plan=plan, asker=ANNA)
    assert accepted.job is not None
    job, claim = await begun(database, accepted.job)
    await succeeded(database, claim, request, files=files, commit=commit)
    return job


async def ready_from_hub(database: Database, hub: FakeHub, repo_id: str, *, name: str) -> Job:
    """A set with just the files that an install of the repository would choose."""
    snapshot = await Hub(endpoint=hub.url, token=None).snapshot(repo_id, "main")
    chosen = select_files(snapshot.files, include=None, exclude=())
    return await ready(database, name, repo_id=repo_id, commit=snapshot.commit, files=chosen)


async def failed(database: Database, name: str = "acme/tiny") -> Job:
    """An install that went wrong for good."""
    _, claim = await running(database, name)
    failure = JobFailure(JobErrorCode.CORRUPT, "The digest is wrong", hint="Ask the owner")
    return await runs.fail(database, claim, failure, back_off_seconds=None)


def job_id(job: Job) -> str:
    return global_id(NodeType.JOB, job.id)


def set_id(name: str) -> str:
    return global_id(NodeType.WEIGHT_SET, name)
