"""What the queue must hold, in plain Python: the model that `test_job_machine.py` compares the database with."""

from collections import Counter
from dataclasses import dataclass, field
from uuid import UUID

from core.event import EventType
from core.ids import NodeType, global_id
from core.job import SLOTS, TERMINAL_STATES, InstallRequest, JobKind, JobPriority, JobState
from core.job import WaitReason as Wait
from core.weight_set import WeightSetState
from db.runs import Claim

QUEUED, RUNNING, PAUSED = JobState.QUEUED, JobState.RUNNING, JobState.PAUSED
SUCCEEDED, FAILED, CANCELLED = JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED
LAST_EVENTS = {
    EventType.JOB_QUEUED: QUEUED,
    EventType.JOB_RETRIED: QUEUED,
    EventType.JOB_STARTED: RUNNING,
    EventType.JOB_PAUSED: PAUSED,
    EventType.JOB_COMPLETED: SUCCEEDED,
    EventType.JOB_FAILED: FAILED,
    EventType.JOB_CANCELLED: CANCELLED,
}


@dataclass
class ModelJob:
    """What a job's row must say. request: None for a deletion. is_due: no back-off keeps it."""

    id: UUID
    name: str
    request: InstallRequest | None
    priority: JobPriority
    state: JobState = QUEUED
    is_dispatched: bool = False
    is_due: bool = True
    is_expired: bool = False
    fence: int = 0
    attempt: int = 0
    deliveries: int = 0

    @property
    def kind(self) -> JobKind:
        return JobKind.INSTALL_WEIGHTS if self.request else JobKind.DELETE_WEIGHTS

    @property
    def is_unended(self) -> bool:
        return self.state not in TERMINAL_STATES

    def row(self) -> tuple[object, ...]:
        return (self.state, self.fence, self.attempt, self.deliveries, self.priority)


@dataclass
class ModelSet:
    """What a set's row must say. owner: the install that brings it, or brought it."""

    state: WeightSetState
    owner: UUID
    commit: str | None = None


@dataclass
class Model:
    """Jobs in the order of their acceptance, sets by name, events as (type, subject), every claim ever given."""

    jobs: dict[UUID, ModelJob] = field(default_factory=dict)
    sets: dict[str, ModelSet] = field(default_factory=dict)
    keys: dict[str, UUID] = field(default_factory=dict)
    journal: list[tuple[str, str | None]] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)

    def holds(self, claim: Claim) -> bool:
        job = self.jobs[claim.job_id]
        return job.state is RUNNING and job.fence == claim.fence

    def tell(self, event_type: EventType, job: ModelJob) -> None:
        self.journal.append((event_type, global_id(NodeType.JOB, job.id)))

    def is_active_on(self, name: str, *, but: ModelJob | None = None) -> bool:
        return any(job.is_unended and job.name == name and job is not but for job in self.jobs.values())

    def has_relatives(self, name: str) -> bool:
        return any(other.startswith(f"{name}/") or name.startswith(f"{other}/") for other in self.sets)

    def let_go(self, job: ModelJob) -> None:
        found = self.sets.get(job.name)
        if found is None:
            return
        if found.state is WeightSetState.INSTALLING and found.owner == job.id:
            del self.sets[job.name]
        elif job.request is None and found.state is WeightSetState.DELETING:
            found.state = WeightSetState.READY

    def queue_again(self, job: ModelJob) -> None:
        job.state, job.is_dispatched, job.is_expired = QUEUED, False, False

    def can_be_retried(self, job: ModelJob) -> bool:
        found = self.sets.get(job.name)
        if job.state not in {FAILED, CANCELLED} or self.is_active_on(job.name, but=job):
            return False
        if job.request is None:
            return found is not None and found.state is WeightSetState.READY
        if found is not None:
            return found.state is WeightSetState.READY and job.request.replace
        return not self.has_relatives(job.name)

    def admit(self) -> tuple[list[UUID], dict[UUID, Wait]]:
        """Let jobs go; say which, in order, and what the others wait for."""
        busy = [job for job in self.jobs.values() if job.state is RUNNING or job.is_dispatched]
        subjects, kinds = {job.name for job in busy}, Counter(job.kind for job in busy)
        waiting = [job for job in self.jobs.values() if job.state is QUEUED and not job.is_dispatched]
        expected: list[UUID] = []
        reasons: dict[UUID, Wait] = {}
        for job in sorted(waiting, key=lambda job: job.priority):
            if not job.is_due:
                reasons[job.id] = Wait.RETRY
            elif job.name in subjects:
                reasons[job.id] = Wait.TARGET
            elif kinds[job.kind] >= SLOTS[job.kind]:
                reasons[job.id] = Wait.SLOT
            else:
                job.is_dispatched = True
                subjects.add(job.name)
                kinds[job.kind] += 1
                expected.append(job.id)
        return expected, reasons
