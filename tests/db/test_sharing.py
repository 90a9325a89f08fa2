"""Which files are on the volume already, and what deleting a set would free; on both databases."""

import pytest
from sqlalchemy import update

from core.errors import DomainError, ErrorCode
from core.job import FileState, InstallRequest
from core.repository import Digest, DigestKind, RepositoryFile
from core.weight_set import WeightSetState
from db import admission, job_files, volumes, weight_sets
from db.admission import Asker, ResolvedPlan
from db.engine import Database
from db.job_files import FileProgress
from db.tables import WeightSet
from db.weight_sets import ReadyFile

ANNA = Asker(name="anna")


def big(path: str, content: str, size: int) -> RepositoryFile:
    return RepositoryFile(path, size, Digest(DigestKind.SHA256, content * 64))


def small(path: str, content: str, size: int) -> RepositoryFile:
    return RepositoryFile(path, size, Digest(DigestKind.GIT_SHA1, content * 40))


ONE = [big("model.safetensors", "a", 1000), big("other.safetensors", "b", 100), small("config.json", "c", 10)]
TWO = [big("weights.safetensors", "a", 1000), big("new.safetensors", "d", 5000), small("config.json", "c", 10)]


async def publish(database: Database, name: str, files: list[RepositoryFile]) -> None:
    async with database.write() as session:
        request = InstallRequest(repo_id=name, revision="main", name=name)
        await weight_sets.publish(session, None, request, commit="c" * 40, files=files)  # type: ignore[arg-type]
        await session.commit()


async def test_files_of_ready_sets_are_found_by_their_digest_whatever_their_path(database: Database) -> None:
    await publish(database, "acme/one", ONE)

    async with database.read() as session:
        found = await weight_sets.ready_files(session, TWO)

    assert found == {"a" * 64: ReadyFile("acme/one", "model.safetensors")}


@pytest.mark.parametrize("state", [WeightSetState.DELETING, WeightSetState.INSTALLING])
async def test_files_of_a_set_that_is_not_ready_are_not_found(database: Database, state: WeightSetState) -> None:
    await publish(database, "acme/one", ONE)
    async with database.write() as session:
        await session.execute(update(WeightSet).values(state=state))
        await session.commit()

    async with database.read() as session:
        assert await weight_sets.ready_files(session, TWO) == {}
        assert await weight_sets.reusable_bytes(session, TWO) == 0


async def test_a_file_of_another_size_is_not_found(database: Database) -> None:
    await publish(database, "acme/one", ONE)

    async with database.read() as session:
        assert await weight_sets.ready_files(session, [big("x", "a", 999)]) == {}


async def test_many_digests_are_looked_for_in_pieces(database: Database) -> None:
    await publish(database, "acme/one", ONE)
    many = [RepositoryFile(str(number), 1, Digest(DigestKind.SHA256, f"{number:064x}")) for number in range(1200)]

    async with database.read() as session:
        assert await weight_sets.ready_files(session, [*many, *ONE]) == {
            "a" * 64: ReadyFile("acme/one", "model.safetensors"),
            "b" * 64: ReadyFile("acme/one", "other.safetensors"),
        }


async def test_deleting_a_set_frees_what_no_other_set_shares(database: Database) -> None:
    await publish(database, "acme/one", ONE)
    async with database.read() as session:
        alone = await weight_sets.exclusive_bytes(session, ["acme/one", "acme/two"])
    await publish(database, "acme/two", TWO)

    async with database.read() as session:
        beside = await weight_sets.exclusive_bytes(session, ["acme/one", "acme/two"])

    assert alone == {"acme/one": 1110}
    assert beside == {"acme/one": 110, "acme/two": 5010}


async def test_space_is_reserved_for_what_has_to_be_fetched(database: Database) -> None:
    await publish(database, "acme/one", ONE)
    await volumes.observe(database, path="/w", capacity_bytes=10_000, free_bytes=5400)
    request = InstallRequest(repo_id="acme/two", revision="main", name="acme/two")

    accepted = await admission.accept_install(
        database, request, plan=ResolvedPlan(commit="c" * 40, files=TWO), asker=ANNA
    )

    assert accepted.job is not None
    assert (accepted.job.bytes_total, accepted.job.reused_bytes, accepted.job.remaining_bytes) == (6010, 1000, 5010)
    async with database.read() as session:
        assert await volumes.reserved_bytes(session) == int(5010 * 1.05)
    assert await admission.admit(database) == [accepted.job.id]


async def test_what_has_to_be_fetched_and_does_not_fit_is_refused(database: Database) -> None:
    await publish(database, "acme/one", ONE)
    await volumes.observe(database, path="/w", capacity_bytes=10_000, free_bytes=5200)
    request = InstallRequest(repo_id="acme/two", revision="main", name="acme/two")

    with pytest.raises(DomainError) as refused:
        await admission.accept_install(database, request, plan=ResolvedPlan(commit="c" * 40, files=TWO), asker=ANNA)

    assert refused.value.code is ErrorCode.INSUFFICIENT_STORAGE
    async with database.read() as session:
        assert await volumes.reserved_bytes(session) == 0


async def test_a_reused_file_stays_so_when_its_job_is_done(database: Database) -> None:
    request = InstallRequest(repo_id="acme/two", revision="main", name="acme/two")
    accepted = await admission.accept_install(
        database, request, plan=ResolvedPlan(commit="c" * 40, files=TWO), asker=ANNA
    )
    assert accepted.job is not None

    async with database.write() as session:
        await job_files.move(session, accepted.job.id, [FileProgress(0, FileState.REUSED, 1000)])
        await job_files.finish(session, accepted.job.id)
        await session.commit()

    async with database.read() as session:
        rows = await job_files.all_of(session, accepted.job.id)
    assert [(row.state, row.bytes_done) for row in rows] == [
        (FileState.REUSED, 1000),
        (FileState.DONE, 5000),
        (FileState.DONE, 10),
    ]
