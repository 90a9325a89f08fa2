"""Random histories of the queue, against a plain model of what must hold, on SQLite and on PostgreSQL.

The suite plays the same few histories each time; `make soak` plays many, from a random seed that it prints.
"""

import asyncio
import os
import shutil
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as some
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from sqlalchemy import select, update

from core.errors import DomainError, ErrorCode, JobErrorCode, JobFailure
from core.event import EventType
from core.ids import NodeType, global_id
from core.job import SLOTS, InstallRequest, JobKind, JobPriority, JobStage, JobState, Progress
from core.repository import Digest, DigestKind, RepositoryFile
from core.weight_set import WeightSetState
from db import admission, jobs, outbox, runs, weight_sets
from db.admission import Accepted, Asker, InstallOutcome, ResolvedPlan
from db.engine import Database, WriteSession
from db.runs import MAX_DELIVERIES_WITHOUT_PROGRESS, Claim, LostClaimError
from db.tables import Event, Job, OutboxMessage, WeightSet
from db.types import db_now
from tests.db.job_model import (
    CANCELLED,
    FAILED,
    LAST_EVENTS,
    PAUSED,
    QUEUED,
    RUNNING,
    SUCCEEDED,
    Model,
    ModelJob,
    ModelSet,
)
from tests.servers.postgres import PostgresServer

T = TypeVar("T")
SOAK_EXAMPLES = os.environ.get("JOB_MACHINE_EXAMPLES")
NAMES = ("a/one", "a/two", "a/two/inside", "b", "c")
COMMITS = {"main": "c" * 40, "next": "d" * 40}
FILE = RepositoryFile("model.safetensors", 1000, Digest(DigestKind.SHA256, "a" * 64))
FAILURE = JobFailure(JobErrorCode.HUB_UNAVAILABLE, "the Hub is away", retryable=True)
LEASE_SECONDS = 3600.0
picks = some.integers(0, 10_000)


class JobMachine(RuleBasedStateMachine):
    """The queue's functions in any order, each compared with the model at once, the whole database after each."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.loop = asyncio.Runner()
        self.database = Database(url)
        self.model = Model()

    def teardown(self) -> None:
        self.do(self.database.close())
        self.loop.close()

    # ------------------------------------------------------------ means

    def do(self, work: Awaitable[T]) -> T:
        async def run() -> T:
            return await work

        return self.loop.run(run())

    def pick(self, number: int, *states: JobState) -> ModelJob:
        """Choose a job, mostly one in these states, now and then any: refusals are part of the histories."""
        fitting = [job for job in self.model.jobs.values() if job.state in states]
        among = fitting if fitting and number % 4 else list(self.model.jobs.values())
        return among[number // 4 % len(among)]

    def pick_claim(self, number: int) -> Claim:
        held = [claim for claim in self.model.claims if self.model.holds(claim)]
        among = held if held and number % 4 else self.model.claims
        return among[number // 4 % len(among)]

    def refused(self, work: Awaitable[object], code: ErrorCode) -> None:
        with pytest.raises(DomainError) as refusal:
            self.do(work)
        assert refusal.value.code is code

    # ------------------------------------------------------------ what callers ask for

    @rule(
        name=some.sampled_from(NAMES),
        revision=some.sampled_from(sorted(COMMITS)),
        replaces=some.booleans(),
        has_plan=some.booleans(),
        key=some.sampled_from([None, None, "k1", "k2"]),
        priority=some.sampled_from(JobPriority),
    )
    def install(
        self, name: str, revision: str, replaces: bool, has_plan: bool, key: str | None, priority: JobPriority
    ) -> None:
        request = InstallRequest(repo_id="acme/tiny", revision=revision, name=name, replace=replaces)
        plan = ResolvedPlan(commit=COMMITS[revision], files=(FILE,)) if has_plan else None
        asker = Asker(name="anna", priority=priority, idempotency_key=key)
        work = admission.accept_install(self.database, request, plan=plan, asker=asker)
        known = self.model.jobs.get(self.model.keys[key]) if key in self.model.keys else None
        if known is not None and known.request != request:
            self.refused(work, ErrorCode.IDEMPOTENCY_MISMATCH)
            return
        under_way = (job for job in self.model.jobs.values() if job.is_unended and job.request == request)
        known = known or next(under_way, None)
        if known is not None:
            answer = self.do(work)
            assert (answer.outcome, answer.job and answer.job.id) == (InstallOutcome.JOINED, known.id)
            return
        found = self.model.sets.get(name)
        is_taken = found is not None and (found.state is not WeightSetState.READY or self.model.is_active_on(name))
        if is_taken or self.model.has_relatives(name):
            self.refused(work, ErrorCode.CONFLICT)
        elif found and plan and found.commit == plan.commit:
            assert self.do(work).outcome is InstallOutcome.ALREADY_INSTALLED
        elif found and not replaces:
            self.refused(work, ErrorCode.ALREADY_EXISTS)
        else:
            job = self.accepted(self.do(work), name, request=request, priority=priority)
            self.model.sets.setdefault(name, ModelSet(WeightSetState.INSTALLING, job.id))
            if key is not None:
                self.model.keys[key] = job.id

    def accepted(
        self, answer: Accepted, name: str, *, request: InstallRequest | None, priority: JobPriority
    ) -> ModelJob:
        assert answer.outcome is InstallOutcome.STARTED
        assert answer.job is not None
        job = ModelJob(answer.job.id, name, request, priority)
        assert job.id not in self.model.jobs
        self.model.jobs[job.id] = job
        self.model.tell(EventType.JOB_QUEUED, job)
        return job

    @precondition(lambda self: self.model.sets)
    @rule(number=picks)
    def delete(self, number: int) -> None:
        ready = [name for name, found in self.model.sets.items() if found.state is WeightSetState.READY]
        among = ready if ready and number % 4 else list(self.model.sets)
        name = among[number // 4 % len(among)]
        work = admission.accept_delete(self.database, name, force=False, asker=Asker(name="anna"))
        if name not in ready or self.model.is_active_on(name):
            self.refused(work, ErrorCode.CONFLICT)
            return
        self.accepted(self.do(work), name, request=None, priority=JobPriority.NORMAL)
        self.model.sets[name].state = WeightSetState.DELETING

    @precondition(lambda self: self.model.jobs)
    @rule(number=picks)
    def cancel(self, number: int) -> None:
        job = self.pick(number, QUEUED, RUNNING, PAUSED)
        work = jobs.cancel(self.database, job.id, actor="anna")
        if not job.is_unended:
            self.refused(work, ErrorCode.CONFLICT)
            return
        self.do(work)
        job.state, job.is_expired, job.is_dispatched = CANCELLED, False, False
        self.model.let_go(job)
        self.model.tell(EventType.JOB_CANCELLED, job)

    @precondition(lambda self: self.model.jobs)
    @rule(number=picks)
    def pause(self, number: int) -> None:
        job = self.pick(number, QUEUED, RUNNING)
        work = jobs.pause(self.database, job.id, actor="anna")
        if job.state not in {QUEUED, RUNNING} or job.request is None:
            self.refused(work, ErrorCode.CONFLICT)
            return
        self.do(work)
        job.state, job.is_due, job.is_expired, job.is_dispatched = PAUSED, True, False, False
        self.model.tell(EventType.JOB_PAUSED, job)

    @precondition(lambda self: self.model.jobs)
    @rule(number=picks)
    def resume(self, number: int) -> None:
        job = self.pick(number, PAUSED)
        work = jobs.resume(self.database, job.id, actor="anna")
        if job.state is not PAUSED:
            self.refused(work, ErrorCode.CONFLICT)
            return
        self.do(work)
        self.model.queue_again(job)
        job.deliveries = 0
        self.model.tell(EventType.JOB_QUEUED, job)

    @precondition(lambda self: self.model.jobs)
    @rule(number=picks)
    def retry(self, number: int) -> None:
        job = self.pick(number, FAILED, CANCELLED)
        work = jobs.retry(self.database, job.id, actor="anna")
        if not self.model.can_be_retried(job):
            self.refused(work, ErrorCode.CONFLICT)
            return
        self.do(work)
        self.model.queue_again(job)
        job.is_due, job.deliveries, job.attempt, job.fence = True, 0, job.attempt + 1, job.fence + 1
        if job.request is None:
            self.model.sets[job.name].state = WeightSetState.DELETING
        else:
            self.model.sets.setdefault(job.name, ModelSet(WeightSetState.INSTALLING, job.id))
        self.model.tell(EventType.JOB_RETRIED, job)

    @precondition(lambda self: self.model.jobs)
    @rule(number=picks, priority=some.sampled_from(JobPriority))
    def set_priority(self, number: int, priority: JobPriority) -> None:
        job = self.pick(number, QUEUED)
        work = jobs.set_priority(self.database, job.id, priority, actor="anna")
        if not job.is_unended:
            self.refused(work, ErrorCode.CONFLICT)
            return
        self.do(work)
        job.priority = priority

    # ------------------------------------------------------------ what sync does

    @rule()
    def admit(self) -> None:
        expected, reasons = self.model.admit()

        assert self.do(admission.admit(self.database)) == expected
        rows = self.do(self.rows())
        assert {job_id: rows[job_id].waiting_for for job_id in reasons} == reasons

    @rule()
    def send_what_was_admitted(self) -> None:
        async def send() -> None:
            async with self.database.read() as session:
                numbers = [message.number for message in await outbox.waiting(session)]
            await outbox.drop(self.database, numbers)

        self.do(send())

    @precondition(lambda self: any(job.state is RUNNING for job in self.model.jobs.values()))
    @rule(number=picks)
    def expire(self, number: int) -> None:
        running = [job for job in self.model.jobs.values() if job.state is RUNNING]
        job = running[number % len(running)]
        self.do(self.set_of(job, lease_until=db_now(plus_seconds=-60)))
        job.is_expired = True

    @precondition(lambda self: any(not job.is_due for job in self.model.jobs.values()))
    @rule()
    def end_the_back_offs(self) -> None:
        for job in self.model.jobs.values():
            if not job.is_due:
                self.do(self.set_of(job, next_attempt_at=db_now(plus_seconds=-60)))
                job.is_due = True

    @rule()
    def reconcile(self) -> None:
        expired = [job for job in self.model.jobs.values() if job.is_expired]
        crashed = [job for job in expired if job.deliveries >= MAX_DELIVERIES_WITHOUT_PROGRESS]
        before = len(self.model.journal)

        requeued = self.do(runs.reconcile(self.database, actor="sync"))

        assert {job.id for job in requeued} == {job.id for job in expired if job not in crashed}
        for job in crashed:
            job.state, job.is_expired = FAILED, False
            self.model.let_go(job)
            self.model.tell(EventType.JOB_FAILED, job)
        for one in requeued:
            self.model.queue_again(self.model.jobs[one.id])
            self.model.tell(EventType.JOB_QUEUED, self.model.jobs[one.id])
        told = self.do(self.events())[before:]
        assert sorted(told) == sorted(self.model.journal[before:])
        self.model.journal[before:] = told

    @precondition(lambda self: any(job.state is RUNNING for job in self.model.jobs.values()))
    @rule(number=picks)
    def crash_again_and_again(self, number: int) -> None:
        running = [job for job in self.model.jobs.values() if job.state is RUNNING]
        job = running[number % len(running)]
        while job.state is RUNNING:
            self.do(self.set_of(job, lease_until=db_now(plus_seconds=-60)))
            job.is_expired = True
            self.reconcile()
            self.admit()
            if job.is_dispatched and job.state is QUEUED:
                self.claim_by(job, ["w1"])

    # ------------------------------------------------------------ what workers do

    @precondition(lambda self: self.model.jobs)
    @rule(number=picks, workers=some.sampled_from([["w1"], ["w2"], ["w1", "w2", "w2"]]))
    def claim(self, number: int, workers: list[str]) -> None:
        dispatched = [job for job in self.model.jobs.values() if job.is_dispatched]
        among = dispatched if dispatched and number % 4 else list(self.model.jobs.values())
        self.claim_by(among[number // 4 % len(among)], workers)

    def claim_by(self, job: ModelJob, workers: list[str]) -> None:
        async def deliver() -> list[Job | None]:
            return await asyncio.gather(
                *(
                    runs.claim(
                        self.database, job.id, kinds=tuple(JobKind), worker_id=worker, lease_seconds=LEASE_SECONDS
                    )
                    for worker in workers
                )
            )

        won = [row for row in self.do(deliver()) if row is not None]
        assert len(won) == int(job.is_dispatched and job.state is QUEUED)
        if won:
            job.state, job.is_dispatched = RUNNING, False
            job.fence, job.deliveries = job.fence + 1, job.deliveries + 1
            assert won[0].fence == job.fence
            self.model.claims.append(Claim(job.id, job.fence))
            self.model.tell(EventType.JOB_STARTED, job)

    def write(self, claim: Claim, work: Callable[[], Awaitable[object]]) -> ModelJob | None:
        """Do what a worker does; None when its claim was lost, and then nothing has changed."""
        if self.model.holds(claim):
            self.do(work())
            return self.model.jobs[claim.job_id]
        before = self.do(self.everything())
        with pytest.raises(LostClaimError):
            self.do(work())
        assert self.do(self.everything()) == before
        return None

    @precondition(lambda self: self.model.claims)
    @rule(number=picks, advances=some.booleans())
    def report(self, number: int, advances: bool) -> None:
        claim = self.pick_claim(number)
        job = self.write(
            claim,
            lambda: runs.report(
                self.database,
                claim,
                progress=Progress(bytes_done=number),
                stage=JobStage.DOWNLOADING,
                message="on the way",
                has_advanced=advances,
            ),
        )
        if job is not None and advances:
            job.deliveries = 1

    @precondition(lambda self: self.model.claims)
    @rule()
    def renew(self) -> None:
        held = {claim for claim in self.model.claims if self.model.holds(claim)}

        assert self.do(runs.renew(self.database, self.model.claims, lease_seconds=LEASE_SECONDS)) == held
        for claim in held:
            self.model.jobs[claim.job_id].is_expired = False

    @precondition(lambda self: self.model.claims)
    @rule(number=picks)
    def release(self, number: int) -> None:
        claim = self.pick_claim(number)
        if job := self.write(claim, lambda: runs.release(self.database, claim, why="shutdown")):
            self.model.queue_again(job)
            job.deliveries -= 1
            self.model.tell(EventType.JOB_QUEUED, job)

    @precondition(lambda self: self.model.claims)
    @rule(number=picks, back_off=some.sampled_from([None, 0.0, 3600.0]))
    def fail(self, number: int, back_off: float | None) -> None:
        claim = self.pick_claim(number)
        job = self.write(claim, lambda: runs.fail(self.database, claim, FAILURE, back_off_seconds=back_off))
        if job is None:
            return
        job.attempt += 1
        if back_off is None:
            job.state, job.is_expired = FAILED, False
            self.model.let_go(job)
            self.model.tell(EventType.JOB_FAILED, job)
        else:
            self.model.queue_again(job)
            job.is_due = not back_off
            self.model.tell(EventType.JOB_QUEUED, job)

    @precondition(lambda self: self.model.claims)
    @rule(number=picks)
    def succeed(self, number: int) -> None:
        claim = self.pick_claim(number)
        job = self.write(claim, lambda: self.finish(claim))
        if job is None:
            return
        job.state, job.is_expired = SUCCEEDED, False
        if job.request is None:
            del self.model.sets[job.name]
        else:
            self.model.sets[job.name] = ModelSet(WeightSetState.READY, job.id, COMMITS[job.request.revision])
        self.model.tell(EventType.JOB_COMPLETED, job)

    async def finish(self, claim: Claim) -> None:
        request = self.model.jobs[claim.job_id].request
        async with self.database.write() as session:
            done = await runs.succeed(session, claim, message="done")
            await self.write_result(session, done, request)
            await session.commit_with(jobs.event_of(done, EventType.JOB_COMPLETED))

    async def write_result(self, session: WriteSession, done: Job, request: InstallRequest | None) -> None:
        if request is None:
            await weight_sets.forget(session, done.input["name"])
        else:
            await weight_sets.publish(session, done.id, request, commit=COMMITS[request.revision], files=[FILE])

    # ------------------------------------------------------------ what must hold

    @invariant()
    def the_database_agrees(self) -> None:
        rows, sets, told, messages = self.do(self.everything_as_rows())

        assert {
            key: (row.state, row.fence, row.attempt, row.deliveries, row.priority) for key, row in rows.items()
        } == {key: job.row() for key, job in self.model.jobs.items()}
        assert {one.name: ModelSet(one.state, one.install_job_id, one.commit) for one in sets} == self.model.sets
        assert [(event.type, event.subject_id) for event in told] == self.model.journal
        assert [event.position for event in told] == list(range(1, len(told) + 1))
        last = {event.subject_id: LAST_EVENTS[EventType(event.type)] for event in told}
        assert last == {global_id(NodeType.JOB, key): row.state for key, row in rows.items()}
        running = [row for row in rows.values() if row.state is RUNNING]
        assert len({row.subject_id for row in running}) == len(running)
        let_go = [row for row in rows.values() if row.state is QUEUED and row.dispatched_at is not None]
        assert {row.id for row in let_go} == {job.id for job in self.model.jobs.values() if job.is_dispatched}
        assert Counter(row.kind for row in (*running, *let_go)) <= Counter(SLOTS)
        assert all(count == 1 for count in Counter(messages).values())
        assert {row.id for row in running if row.lease_until is None} == set()

    async def everything_as_rows(self) -> tuple[dict[UUID, Job], list[WeightSet], list[Event], list[UUID]]:
        async with self.database.read() as session:
            rows = {job.id: job for job in await session.scalars(select(Job))}
            sets = list(await session.scalars(select(WeightSet)))
            told = list(await session.scalars(select(Event).order_by(Event.position)))
            return rows, sets, told, list(await session.scalars(select(OutboxMessage.job_id)))

    async def everything(self) -> list[list[tuple[object, ...]]]:
        async with self.database.read() as session:
            return [
                sorted((tuple(row) for row in await session.execute(select(*table.__table__.columns))), key=str)
                for table in (Job, WeightSet, Event, OutboxMessage)
            ]

    async def rows(self) -> dict[UUID, Job]:
        return (await self.everything_as_rows())[0]

    async def events(self) -> list[tuple[str, str | None]]:
        return [(event.type, event.subject_id) for event in (await self.everything_as_rows())[2]]

    async def set_of(self, job: ModelJob, **values: object) -> None:
        async with self.database.write() as session:
            await session.execute(update(Job).where(Job.id == job.id).values(**values))
            await session.commit()


def play(new_url: Callable[[], str], *, examples: int) -> None:
    run_state_machine_as_test(
        lambda: JobMachine(new_url()),
        settings=settings(
            max_examples=int(SOAK_EXAMPLES) if SOAK_EXAMPLES else examples,
            stateful_step_count=40,
            # Shrinking replays hundreds of histories against a database: the soak has the time, the suite has not.
            phases=tuple(Phase) if SOAK_EXAMPLES else (Phase.generate,),
            derandomize=SOAK_EXAMPLES is None,
            database=None,
            deadline=None,
            # Each step is a transaction and a look at every table; that is what is tried here.
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )


def test_every_history_agrees_with_the_model_on_sqlite(migrated_sqlite: Path, tmp_path: Path) -> None:
    def new_url() -> str:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.db"
        shutil.copy(migrated_sqlite, path)
        return f"sqlite+aiosqlite:///{path}"

    play(new_url, examples=12)


def test_every_history_agrees_with_the_model_on_postgresql(postgres: PostgresServer) -> None:
    made: list[str] = []

    def new_url() -> str:
        while made:
            postgres.drop_database(made.pop())
        made.append(postgres.create_database(template="migrated"))
        return postgres.url(made[-1])

    play(new_url, examples=12)

    postgres.drop_database(made.pop())
