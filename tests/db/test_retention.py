"""Retention: what is old goes in batches, what is needed stays."""

from sqlalchemy import func, insert, select, update

from actors.retention import Retention
from core.errors import JobErrorCode, JobFailure
from core.job import InstallRequest, JobKind, LogLevel
from core.runtime_settings import RuntimeSettings, SettingName
from db import admission, jobs, retention, runs, runtime_settings, weight_sets
from db.admission import Asker
from db.engine import Database
from db.runs import Claim
from db.tables import Event, Job, JobFile, JobLogLine, Journal, OutboxMessage, WeightSet
from db.types import db_now
from tests.graph import world

DAY = 86_400
DEFAULTS = RuntimeSettings()


async def count(database: Database, table: type) -> int:
    async with database.read() as session:
        return await session.scalar(select(func.count()).select_from(table)) or 0


async def age(database: Database, job: Job, *, days: float) -> None:
    """Let a job have ended some days ago."""
    async with database.write() as session:
        ago = db_now(plus_seconds=-days * DAY)
        await session.execute(update(Job).where(Job.id == job.id).values(ended_at=ago, created_at=ago))
        await session.commit()


async def age_events(database: Database, *, days: float, upto: int) -> None:
    async with database.write() as session:
        aged = update(Event).where(Event.position <= upto).values(at=db_now(plus_seconds=-days * DAY))
        await session.execute(aged)
        await session.commit()


async def positions(database: Database) -> list[int]:
    async with database.read() as session:
        return list(await session.scalars(select(Event.position).order_by(Event.position)))


async def test_an_ended_job_goes_with_its_files_and_log_and_its_set_stays(database: Database) -> None:
    old = await world.ready(database, "acme/old")
    young = await world.ready(database, "acme/young")
    await age(database, old, days=31)
    await age(database, young, days=29)

    deleted = await retention.delete_jobs(database, older_than_days=30)

    async with database.read() as session:
        assert set(await session.scalars(select(Job.id))) == {young.id}
        assert set(await session.scalars(select(JobFile.job_id))) == {young.id}
        assert set(await session.scalars(select(JobLogLine.job_id))) == {young.id}
        assert set(await session.scalars(select(OutboxMessage.job_id))) <= {young.id}
        found = await weight_sets.get(session, "acme/old")
    assert deleted == 1
    assert isinstance(found, WeightSet)
    assert (found.state, found.install_job_id) == ("READY", None)


async def test_what_has_not_ended_is_kept_however_old_it_is(database: Database) -> None:
    waiting = await world.queued(database, "acme/waiting")
    held = await world.queued(database, "acme/held")
    await jobs.pause(database, held.id, actor="anna")
    retried = await world.failed(database, "acme/retried")
    await age(database, retried, days=99)
    await jobs.retry(database, retried.id, actor="anna")
    async with database.write() as session:
        await session.execute(update(Job).values(created_at=db_now(plus_seconds=-99 * DAY)))
        await session.commit()
    lines = await count(database, JobLogLine)

    assert await retention.delete_jobs(database, older_than_days=1) == 0
    assert await retention.delete_log_lines(database, older_than_days=1) == 0
    assert (await count(database, Job), await count(database, JobLogLine)) == (3, lines)
    assert {waiting.id, held.id, retried.id}


async def test_a_job_that_a_living_idempotency_key_stands_for_is_kept(database: Database) -> None:
    request = InstallRequest(repo_id="acme/tiny", revision="main", name="acme/tiny")
    asker = Asker(name="anna", idempotency_key="k")
    accepted = await admission.accept_install(database, request, plan=None, asker=asker)
    assert accepted.job is not None
    await jobs.cancel(database, accepted.job.id, actor="anna")
    await age(database, accepted.job, days=6)

    kept = await retention.delete_jobs(database, older_than_days=1)
    again = await admission.accept_install(database, request, plan=None, asker=asker)
    await age(database, accepted.job, days=8)
    gone = await retention.delete_jobs(database, older_than_days=1)

    assert (kept, gone) == (0, 1)
    assert again.job is not None
    assert again.job.id == accepted.job.id


async def test_the_log_of_an_ended_job_goes_before_the_job(database: Database) -> None:
    job = await world.ready(database)
    await age(database, job, days=15)

    await Retention(database, defaults=DEFAULTS).clean_up()

    assert (await count(database, Job), await count(database, JobLogLine)) == (1, 0)


async def test_rows_go_in_batches_until_none_is_old(database: Database) -> None:
    job = await world.ready(database)
    async with database.write() as session:
        line = {"job_id": job.id, "level": LogLevel.INFO, "message": "Something"}
        await session.execute(insert(JobLogLine).values(at=db_now()), [line] * 1200)
        await session.commit()
    await age(database, job, days=15)
    before = await count(database, JobLogLine)

    first = await retention.delete_log_lines(database, older_than_days=14)
    after_first = await count(database, JobLogLine)
    await Retention(database, defaults=DEFAULTS).clean_up()

    assert (first, after_first) == (500, before - 500)
    assert await count(database, JobLogLine) == 0


async def test_old_events_go_from_the_front_and_the_young_stay_without_a_gap(database: Database) -> None:
    for number in range(4):
        await world.queued(database, f"acme/n{number}")
    await age_events(database, days=366, upto=2)

    deleted = await retention.delete_events(database, older_than_days=365)

    assert deleted == 2
    assert await positions(database) == [3, 4]


async def test_an_old_event_behind_a_young_one_stays_so_that_there_is_no_gap(database: Database) -> None:
    for number in range(4):
        await world.queued(database, f"acme/n{number}")
    async with database.write() as session:  # The clock was wrong for a while.
        wrong = Event.position.in_((1, 3))
        await session.execute(update(Event).where(wrong).values(at=db_now(plus_seconds=-400 * DAY)))
        await session.commit()

    await retention.delete_events(database, older_than_days=365)

    assert await positions(database) == [2, 3, 4]


async def test_the_last_event_is_never_deleted_and_positions_go_on_behind_it(database: Database) -> None:
    for number in range(4):
        await world.queued(database, f"acme/n{number}")
    await age_events(database, days=366, upto=4)

    await Retention(database, defaults=DEFAULTS).clean_up()
    left = await positions(database)
    await world.queued(database, "acme/more")

    assert left == [4]
    assert await positions(database) == [4, 5]
    assert await count(database, Journal) == 1


async def test_an_empty_journal_is_left_alone(database: Database) -> None:
    assert await retention.delete_events(database, older_than_days=1) == 0


async def test_the_days_are_those_that_an_administrator_has_set(database: Database) -> None:
    job = await world.queued(database)
    await admission.admit(database)
    claimed = await runs.claim(database, job.id, kinds=tuple(JobKind), worker_id="w1", lease_seconds=60)
    assert claimed is not None
    failure = JobFailure(JobErrorCode.CORRUPT, "The digest is wrong")
    await runs.fail(database, Claim(claimed.id, claimed.fence), failure, back_off_seconds=None)
    await age(database, job, days=3)

    await Retention(database, defaults=DEFAULTS).clean_up()
    kept = await count(database, Job)
    await runtime_settings.change(database, {SettingName.JOB_DAYS: 2}, defaults=DEFAULTS, actor="anna")
    await Retention(database, defaults=DEFAULTS).clean_up()

    assert (kept, await count(database, Job)) == (1, 0)
