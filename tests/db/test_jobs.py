"""Jobs in the database: acceptance, admission, claims, and the writes that are refused."""

import asyncio
from dataclasses import replace

import pytest
from sqlalchemy import func, select, update

from core.errors import DomainError, ErrorCode, JobErrorCode, JobFailure
from core.event import EventType
from core.job import InstallRequest, JobKind, JobPriority, JobStage, JobState, Progress, WaitReason
from core.repository import Digest, DigestKind, RepositoryFile
from db import admission, job_files, jobs, outbox, runs, volumes, weight_sets
from db.admission import Accepted, Asker, InstallOutcome, ResolvedPlan
from db.engine import Database
from db.paging import PageRequest
from db.runs import Claim, LostClaimError
from db.tables import Event, Job

REQUEST = InstallRequest(repo_id="acme/tiny", revision="main", name="acme/tiny")
FILE = RepositoryFile("model.safetensors", 1000, Digest(DigestKind.SHA256, "a" * 64))
PLAN = ResolvedPlan(commit="c" * 40, files=(FILE,))
ANNA = Asker(name="anna")
KINDS = tuple(JobKind)


async def accept(database: Database, name: str = "acme/tiny", *, asker: Asker = ANNA) -> Accepted:
    return await admission.accept_install(database, replace(REQUEST, name=name), plan=PLAN, asker=asker)


async def started(database: Database, *, worker_id: str = "w1", lease_seconds: float = 20) -> tuple[Job, Claim]:
    accepted = await accept(database)
    assert accepted.job is not None
    await admission.admit(database)
    job = await runs.claim(database, accepted.job.id, kinds=KINDS, worker_id=worker_id, lease_seconds=lease_seconds)
    assert job is not None
    return job, Claim(job.id, job.fence)


async def read(database: Database, job: Job) -> Job:
    async with database.read() as session:
        found = await jobs.get(session, job.id)
    assert found is not None
    return found


async def finish(database: Database, claim: Claim) -> None:
    async with database.write() as session:
        job = await runs.succeed(session, claim, message="done")
        await weight_sets.publish(session, job.id, REQUEST, commit=PLAN.commit, files=PLAN.files)
        await session.commit_with(jobs.event_of(job, EventType.JOB_COMPLETED))


async def event_types(database: Database) -> list[str]:
    async with database.read() as session:
        return list(await session.scalars(select(Event.type).order_by(Event.position)))


async def test_an_accepted_install_is_queued_with_its_plan_set_and_event(database: Database) -> None:
    accepted = await accept(database)

    assert accepted.outcome is InstallOutcome.STARTED
    assert accepted.job is not None
    assert (accepted.job.state, accepted.job.bytes_total, accepted.job.commit) == (JobState.QUEUED, 1000, "c" * 40)
    assert accepted.weight_set is not None
    assert accepted.weight_set.state == "INSTALLING"
    assert await event_types(database) == ["job.queued"]


async def test_the_same_install_again_joins_the_job_that_is_under_way(database: Database) -> None:
    first = await accept(database)

    second = await accept(database, asker=Asker(name="ben"))

    assert second.outcome is InstallOutcome.JOINED
    assert first.job is not None
    assert second.job is not None
    assert second.job.id == first.job.id
    assert await event_types(database) == ["job.queued"]


async def test_fifty_equal_installs_at_once_make_one_job(database: Database) -> None:
    answers = await asyncio.gather(*(accept(database) for _ in range(50)))

    assert len({answer.job.id for answer in answers if answer.job}) == 1
    assert [answer.outcome for answer in answers].count(InstallOutcome.STARTED) == 1


async def test_an_idempotency_key_answers_the_same_job_and_refuses_another_input(database: Database) -> None:
    keyed = Asker(name="anna", idempotency_key="k1")
    first = await accept(database, asker=keyed)
    assert first.job is not None
    await jobs.cancel(database, first.job.id, actor="anna")

    again = await accept(database, asker=keyed)
    with pytest.raises(DomainError) as refused:
        await accept(database, "other/name", asker=keyed)

    assert (again.outcome, again.job and again.job.id) == (InstallOutcome.JOINED, first.job.id)
    assert refused.value.code is ErrorCode.IDEMPOTENCY_MISMATCH


async def test_a_name_inside_another_set_is_a_conflict_both_ways(database: Database) -> None:
    await accept(database, "acme/tiny")

    for name in ("acme/tiny/inside", "acme"):
        with pytest.raises(DomainError) as refused:
            await accept(database, name)
        assert refused.value.code is ErrorCode.CONFLICT

    assert await event_types(database) == ["job.queued"]


async def test_names_that_differ_in_case_only_are_different_names(database: Database) -> None:
    await accept(database, "acme/tiny")

    assert (await accept(database, "ACME")).outcome is InstallOutcome.STARTED


async def test_what_does_not_fit_beside_accepted_installs_is_refused_with_the_numbers(database: Database) -> None:
    await volumes.observe(database, path="/w", capacity_bytes=10_000, free_bytes=3_400)

    answers = await asyncio.gather(*(accept(database, f"acme/n{i}") for i in range(50)), return_exceptions=True)

    refused = [answer for answer in answers if isinstance(answer, DomainError)]
    assert len(answers) - len(refused) == 3
    assert {answer.code for answer in refused} == {ErrorCode.INSUFFICIENT_STORAGE}
    assert "1,050 bytes are needed" in str(refused[0])


async def test_admission_lets_go_by_priority_then_age_and_says_what_the_others_wait_for(database: Database) -> None:
    names = [f"acme/n{i}" for i in range(5)]
    accepted = [await accept(database, name) for name in names[:4]]
    urgent = await accept(database, names[4], asker=Asker(name="anna", priority=JobPriority.HIGH))
    assert urgent.job is not None

    admitted = await admission.admit(database)

    assert admitted == [urgent.job.id, *(one.job.id for one in accepted[:2] if one.job)]
    rest = [await read(database, one.job) for one in accepted[2:] if one.job]
    assert [job.waiting_for for job in rest] == [WaitReason.SLOT, WaitReason.SLOT]
    async with database.read() as session:
        assert [message.job_id for message in await outbox.waiting(session)] == admitted


async def test_an_admitted_job_whose_message_was_lost_is_let_go_again(database: Database) -> None:
    accepted = await accept(database)
    assert accepted.job is not None
    await admission.admit(database)
    async with database.read() as session:
        sent = [message.number for message in await outbox.waiting(session)]
    await outbox.drop(database, sent)

    early = await admission.admit(database)
    await asyncio.sleep(0.3)
    late = await admission.admit(database, redispatch_seconds=0.2)

    assert (early, late) == ([], [accepted.job.id])
    assert (await read(database, accepted.job)).dispatches == 2


async def test_a_dispatch_that_is_taken_back_is_made_again_at_once(database: Database) -> None:
    accepted = await accept(database)
    assert accepted.job is not None
    first = await admission.admit(database)

    await runs.take_back(database, accepted.job.id)

    assert await admission.admit(database) == first == [accepted.job.id]


async def test_a_job_is_claimed_once_however_many_messages_arrive(database: Database) -> None:
    accepted = await accept(database)
    assert accepted.job is not None
    await admission.admit(database)

    claims = await asyncio.gather(
        *(runs.claim(database, accepted.job.id, kinds=KINDS, worker_id=f"w{i}", lease_seconds=20) for i in range(20))
    )

    assert len([job for job in claims if job is not None]) == 1
    assert await event_types(database) == ["job.queued", "job.started"]


async def test_a_job_of_an_unknown_kind_is_left_queued(database: Database) -> None:
    accepted = await accept(database)
    assert accepted.job is not None
    await admission.admit(database)

    claimed = await runs.claim(
        database, accepted.job.id, kinds=[JobKind.DELETE_WEIGHTS], worker_id="w", lease_seconds=20
    )

    assert claimed is None
    assert (await read(database, accepted.job)).state is JobState.QUEUED


async def test_an_expired_lease_is_queued_again_and_the_old_worker_can_write_nothing(database: Database) -> None:
    job, old = await started(database, lease_seconds=0.1)
    await asyncio.sleep(0.2)

    requeued = await runs.reconcile(database, actor="sync")
    await admission.admit(database)
    taken = await runs.claim(database, job.id, kinds=KINDS, worker_id="w2", lease_seconds=20)

    assert [one.id for one in requeued] == [job.id]
    assert taken is not None
    assert taken.fence == old.fence + 1
    assert await runs.renew(database, [old], lease_seconds=20) == set()
    with pytest.raises(LostClaimError):
        await runs.report(
            database, old, progress=Progress(bytes_done=999), stage=JobStage.DOWNLOADING, message="zombie"
        )
    with pytest.raises(LostClaimError):
        await runs.fail(database, old, JobFailure(JobErrorCode.INTERNAL, "zombie"), back_off_seconds=None)
    assert (await read(database, job)).bytes_done == 0


async def test_a_renewed_lease_does_not_expire(database: Database) -> None:
    _, claim = await started(database, lease_seconds=0.2)

    held = await runs.renew(database, [claim], lease_seconds=20)
    await asyncio.sleep(0.3)

    assert held == {claim}
    assert await runs.reconcile(database, actor="sync") == []


async def test_a_worker_that_dies_five_times_without_progress_fails_the_job(database: Database) -> None:
    job, _ = await started(database, lease_seconds=0)
    for _run in range(4):
        await runs.reconcile(database, actor="sync")
        await admission.admit(database)
        assert await runs.claim(database, job.id, kinds=KINDS, worker_id="w", lease_seconds=0)

    await runs.reconcile(database, actor="sync")

    failed = await read(database, job)
    assert (failed.state, failed.error_code) == (JobState.FAILED, JobErrorCode.WORKER_CRASHED)
    async with database.read() as session:
        assert await weight_sets.get(session, "acme/tiny") is None


async def test_cancelling_is_final_against_every_later_write(database: Database) -> None:
    job, claim = await started(database)

    cancelled = await jobs.cancel(database, job.id, actor="anna")

    assert cancelled.state is JobState.CANCELLED
    assert await runs.states_of(database, [claim]) == {claim: JobState.CANCELLED}
    with pytest.raises(LostClaimError):
        await runs.release(database, claim, why="shutdown")
    with pytest.raises(DomainError) as refused:
        await jobs.cancel(database, job.id, actor="anna")
    assert refused.value.code is ErrorCode.CONFLICT
    assert await event_types(database) == ["job.queued", "job.started", "job.cancelled"]


async def test_a_failed_run_waits_for_its_back_off_and_counts_as_an_attempt(database: Database) -> None:
    job, claim = await started(database)
    failure = JobFailure(JobErrorCode.HUB_UNAVAILABLE, "the Hub is away", retryable=True)

    await runs.fail(database, claim, failure, back_off_seconds=30)
    admitted = await admission.admit(database)

    waiting = await read(database, job)
    assert admitted == []
    assert (waiting.state, waiting.waiting_for, waiting.attempt) == (JobState.QUEUED, WaitReason.RETRY, 1)
    assert waiting.error_message == "the Hub is away"


async def test_a_retried_job_has_its_set_again_and_a_new_fence(database: Database) -> None:
    job, claim = await started(database)
    await runs.fail(database, claim, JobFailure(JobErrorCode.CORRUPT, "bad"), back_off_seconds=None)

    retried = await jobs.retry(database, job.id, actor="anna")

    assert (retried.state, retried.fence, retried.error_code) == (JobState.QUEUED, claim.fence + 1, None)
    async with database.read() as session:
        found = await weight_sets.get(session, "acme/tiny")
    assert found is not None
    assert found.state == "INSTALLING"


async def test_a_set_that_is_there_is_not_installed_again(database: Database) -> None:
    _, claim = await started(database)
    await finish(database, claim)

    same = await accept(database)
    newer = ResolvedPlan(commit="d" * 40, files=(FILE,))
    with pytest.raises(DomainError) as refused:
        await admission.accept_install(database, REQUEST, plan=newer, asker=ANNA)
    replaced = await admission.accept_install(database, replace(REQUEST, replace=True), plan=newer, asker=ANNA)

    assert (same.outcome, same.job) == (InstallOutcome.ALREADY_INSTALLED, None)
    assert refused.value.code is ErrorCode.ALREADY_EXISTS
    assert replaced.outcome is InstallOutcome.STARTED
    assert replaced.weight_set is not None
    assert replaced.weight_set.state == "READY"


async def test_pages_go_forward_and_backward_without_losing_or_doubling_a_job(database: Database) -> None:
    made = [await accept(database, f"acme/n{i}") for i in range(7)]
    newest_first = [one.job.id for one in reversed(made) if one.job]

    async with database.read() as session:
        first = await jobs.page(session, jobs.JobFilter(), PageRequest(first=3))
        second = await jobs.page(session, jobs.JobFilter(), PageRequest(first=3, after=first.cursors[-1]))
        third = await jobs.page(session, jobs.JobFilter(), PageRequest(first=3, after=second.cursors[-1]))
        back = await jobs.page(session, jobs.JobFilter(), PageRequest(last=2, before=third.cursors[0]))

    assert [job.id for page in (first, second, third) for job in page.rows] == newest_first
    assert [(page.has_previous, page.has_next) for page in (first, second, third)] == [
        (False, True),
        (True, True),
        (True, False),
    ]
    assert [job.id for job in back.rows] == newest_first[4:6]
    assert (back.has_previous, back.has_next) == (True, True)


@pytest.mark.parametrize("cursor", ["", "x", "é", "WyJqb2JzIl0", "WyJvdGhlciIsMSwyXQ", "A" * 2000])
async def test_a_cursor_of_another_list_or_none_at_all_is_refused(database: Database, cursor: str) -> None:
    async with database.read() as session:
        with pytest.raises(DomainError) as refused:
            await jobs.page(session, jobs.JobFilter(), PageRequest(first=3, after=cursor))

    assert (refused.value.code, refused.value.path) == (ErrorCode.INVALID, ("after",))


async def test_file_progress_is_written_with_the_report(database: Database) -> None:
    job, claim = await started(database)

    await runs.report(
        database,
        claim,
        progress=Progress(bytes_done=400, bytes_total=1000, files_total=1),
        stage=JobStage.DOWNLOADING,
        message="half",
        files=[job_files.FileProgress(0, job_files.FileState.DOWNLOADING, 400)],
    )

    async with database.read() as session:
        files = await job_files.all_of(session, job.id)
    assert [(file.path, file.state, file.bytes_done) for file in files] == [("model.safetensors", "DOWNLOADING", 400)]


async def test_writers_in_parallel_lose_no_update_and_leave_positions_without_gaps(database: Database) -> None:
    job, _claim = await started(database)

    async def write(number: int) -> None:
        for _ in range(10):
            async with database.write() as session:
                await session.execute(update(Job).where(Job.id == job.id).values(files_done=Job.files_done + 1))
                await session.commit_with(jobs.event_of(job, EventType.JOB_RETRIED, message=str(number)))

    await asyncio.gather(*(write(number) for number in range(8)))

    async with database.read() as session:
        counted = await session.scalar(select(func.count()).select_from(Event))
        last = await session.scalar(select(func.max(Event.position)))
    assert (await read(database, job)).files_done == 80
    assert (counted, last) == (82, 82)


async def test_a_job_that_is_let_go_again_has_one_message_waiting(database: Database) -> None:
    accepted = await accept(database)
    assert accepted.job is not None
    await admission.admit(database)
    await jobs.pause(database, accepted.job.id, actor="anna")
    await jobs.resume(database, accepted.job.id, actor="anna")

    assert await admission.admit(database) == [accepted.job.id]

    async with database.read() as session:
        assert [message.job_id for message in await outbox.waiting(session)] == [accepted.job.id]


async def test_a_retry_whose_set_would_lie_inside_another_is_refused(database: Database) -> None:
    first = await accept(database, "acme/tiny/inside")
    assert first.job is not None
    await jobs.cancel(database, first.job.id, actor="anna")
    await accept(database, "acme/tiny")

    with pytest.raises(DomainError) as refused:
        await jobs.retry(database, first.job.id, actor="anna")

    assert refused.value.code is ErrorCode.CONFLICT
    assert (await read(database, first.job)).state is JobState.CANCELLED
    assert await event_types(database) == ["job.queued", "job.cancelled", "job.queued"]


async def test_a_deletion_is_not_retried_while_an_install_replaces_its_set(database: Database) -> None:
    _, claim = await started(database)
    await finish(database, claim)
    deletion = await admission.accept_delete(database, "acme/tiny", force=False, asker=ANNA)
    assert deletion.job is not None
    await jobs.cancel(database, deletion.job.id, actor="anna")
    newer = ResolvedPlan(commit="d" * 40, files=(FILE,))
    await admission.accept_install(database, replace(REQUEST, replace=True), plan=newer, asker=ANNA)

    with pytest.raises(DomainError) as refused:
        await jobs.retry(database, deletion.job.id, actor="anna")

    assert refused.value.code is ErrorCode.CONFLICT
    assert (await read(database, deletion.job)).state is JobState.CANCELLED
    async with database.read() as session:
        found = await weight_sets.get(session, "acme/tiny")
    assert found is not None
    assert found.state == "READY"
