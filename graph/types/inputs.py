"""Filters, orders and the inputs of queries and mutations."""

from __future__ import annotations

from datetime import datetime

import strawberry

from core.ids import parse_global_id
from core.job import InstallRequest
from core.names import check_search
from db import events, jobs, weight_sets
from graph.enums import JobKind, JobPriority, JobState, OrderDirection, WeightSetOrderField, WeightSetState
from resolvers.events import event_filter
from resolvers.weights import request_of


@strawberry.input(description="Which jobs; what is left out does not matter.")
class JobFilter:
    """Which jobs."""

    kinds: list[JobKind] | None = strawberry.field(default=None, description="Of these kinds.")
    states: list[JobState] | None = strawberry.field(default=None, description="In these states.")
    subject_id: strawberry.ID | None = strawberry.field(default=None, description="That work on this.")
    created_since: datetime | None = strawberry.field(default=None, description="Made at this instant or later.")
    created_until: datetime | None = strawberry.field(default=None, description="Made before this instant.")

    def to_filter(self) -> jobs.JobFilter:
        """Say it to the database. Raises: DomainError."""
        if self.subject_id is not None:
            parse_global_id(self.subject_id, path=("filter", "subjectId"))
        return jobs.JobFilter(
            kinds=frozenset(self.kinds) if self.kinds is not None else None,
            states=frozenset(self.states) if self.states is not None else None,
            subject_id=self.subject_id,
            created_since=self.created_since,
            created_until=self.created_until,
        )


@strawberry.input(description="Which events; what is left out does not matter.")
class EventFilter:
    """Which events."""

    types: list[str] | None = strawberry.field(default=None, description="Of these types; at most 50.")
    subject_id: strawberry.ID | None = strawberry.field(default=None, description="That happened to this.")
    actor: str | None = strawberry.field(default=None, description="That this token or process did.")
    since: datetime | None = strawberry.field(default=None, description="At this instant or later.")
    until: datetime | None = strawberry.field(default=None, description="Before this instant.")

    def to_filter(self) -> events.EventFilter:
        """Say it to the database. Raises: DomainError."""
        return event_filter(
            types=self.types, subject_id=self.subject_id, actor=self.actor, since=self.since, until=self.until
        )


@strawberry.input(description="Which weight sets; what is left out does not matter.")
class WeightSetFilter:
    """Which weight sets."""

    search: str | None = strawberry.field(
        default=None, description="Part of the name or repository, without regard to case; at most 200 characters."
    )
    states: list[WeightSetState] | None = strawberry.field(default=None, description="In these states.")
    pinned: bool | None = strawberry.field(default=None, description="Kept from deletion, or not.")

    def to_filter(self) -> weight_sets.WeightSetFilter:
        """Say it to the database. Raises: DomainError."""
        search = check_search(self.search, path=("filter", "search"))
        states = frozenset(self.states) if self.states is not None else None
        return weight_sets.WeightSetFilter(search=search, states=states, pinned=self.pinned)


@strawberry.input(description="How weight sets are sorted.")
class WeightSetOrder:
    """How weight sets are sorted."""

    field: WeightSetOrderField = strawberry.field(description="By what.")
    direction: OrderDirection = strawberry.field(default=OrderDirection.ASC, description="Which way.")


@strawberry.input(description="What an install would be asked to do.")
class InstallPlanInput:
    """What an install would be asked to do."""

    repo_id: str = strawberry.field(description="owner/name on the Hub.")
    revision: str = strawberry.field(default="main", description="A branch, tag or commit.")
    name: str | None = strawberry.field(
        default=None, description="Directory on the volume, at most 4 segments; owner/name when left out."
    )
    include: list[str] | None = strawberry.field(
        default=None,
        description="Glob patterns as in the Hub's own tools; at most 50. Left out: everything that a server needs,"
        " safetensors before other formats.",
    )
    exclude: list[str] | None = strawberry.field(
        default=None, description="Glob patterns of what is left out all the same; at most 50."
    )
    replace: bool = strawberry.field(
        default=False, description="Replace a set of another commit that is there under that name."
    )

    def to_request(self) -> InstallRequest:
        """Check it. Raises: DomainError."""
        return request_of(
            repo_id=self.repo_id,
            revision=self.revision,
            name=self.name,
            include=self.include,
            exclude=self.exclude,
            replace=self.replace,
        )


@strawberry.input(description="What to install.")
class InstallWeightsInput:
    """What to install."""

    repo_id: str = strawberry.field(description="owner/name on the Hub.")
    revision: str = strawberry.field(default="main", description="A branch, tag or commit.")
    name: str | None = strawberry.field(
        default=None, description="Directory on the volume, at most 4 segments; owner/name when left out."
    )
    include: list[str] | None = strawberry.field(
        default=None,
        description="Glob patterns as in the Hub's own tools; at most 50. Left out: everything that a server needs,"
        " safetensors before other formats.",
    )
    exclude: list[str] | None = strawberry.field(
        default=None, description="Glob patterns of what is left out all the same; at most 50."
    )
    replace: bool = strawberry.field(
        default=False, description="Replace a set of another commit that is there under that name."
    )
    pin: bool = strawberry.field(default=False, description="Keep the set from deletion.")
    priority: JobPriority = strawberry.field(
        default=JobPriority.NORMAL, description="Who goes first among the jobs that wait."
    )
    plan_hash: str | None = strawberry.field(
        default=None,
        description="The `hash` of an InstallPlan: refuse (PLAN_CHANGED) when what would be done has changed since.",
    )
    idempotency_key: str | None = strawberry.field(
        default=None,
        description="A key of the caller's, 1 to 128 characters, good for 7 days: the same key again answers the same"
        " job; with another input IDEMPOTENCY_MISMATCH.",
    )

    def to_request(self) -> InstallRequest:
        """Check it. Raises: DomainError."""
        return request_of(
            repo_id=self.repo_id,
            revision=self.revision,
            name=self.name,
            include=self.include,
            exclude=self.exclude,
            replace=self.replace,
            pin=self.pin,
        )


@strawberry.input(description="Which set to delete.")
class DeleteWeightsInput:
    """Which set to delete."""

    weight_set_id: strawberry.ID = strawberry.field(description="The set's id.")
    force: bool = strawberry.field(default=False, description="Delete it although it is pinned.")


@strawberry.input(description="Which job to cancel.")
class CancelJobInput:
    """Which job to cancel."""

    job_id: strawberry.ID = strawberry.field(description="The job's id.")


@strawberry.input(description="Which job to retry.")
class RetryJobInput:
    """Which job to retry."""

    job_id: strawberry.ID = strawberry.field(description="The job's id.")


@strawberry.input(description="Which job to hold.")
class PauseJobInput:
    """Which job to hold."""

    job_id: strawberry.ID = strawberry.field(description="The job's id.")


@strawberry.input(description="Which job to go on with.")
class ResumeJobInput:
    """Which job to go on with."""

    job_id: strawberry.ID = strawberry.field(description="The job's id.")


@strawberry.input(description="Which job to move in the queue.")
class SetJobPriorityInput:
    """Which job to move."""

    job_id: strawberry.ID = strawberry.field(description="The job's id.")
    priority: JobPriority = strawberry.field(description="Who goes first among the jobs that wait.")


@strawberry.input(description="Which set to keep from deletion.")
class PinWeightsInput:
    """Which set to keep."""

    weight_set_id: strawberry.ID = strawberry.field(description="The set's id.")
    pinned: bool = strawberry.field(description="Whether it is kept from deletion from now on.")
