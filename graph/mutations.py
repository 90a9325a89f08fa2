"""What can be changed. Each takes one input and gives one payload; refusals are `userErrors`."""

from __future__ import annotations

from typing import Annotated

import strawberry

from core.token import Scope
from db.admission import Accepted
from graph.context import Info
from graph.enums import InstallOutcome
from graph.errors import RefusalsAsData, Scoped, UserError
from graph.types.inputs import (
    CancelJobInput,
    DeleteWeightsInput,
    InstallWeightsInput,
    PauseJobInput,
    PinWeightsInput,
    ResumeJobInput,
    RetryJobInput,
    SetJobPriorityInput,
)
from graph.types.job import Job
from graph.types.settings import Settings, UpdateSettingsInput, UpdateSettingsPayload
from graph.types.token import ApiToken, CreateTokenInput, CreateTokenPayload, RevokeTokenInput, RevokeTokenPayload
from graph.types.weight_set import WeightSet
from resolvers import jobs, settings, tokens, weights

USER_ERRORS = "Why it was refused; empty when it was not; at most 10."


@strawberry.type(description="What came of installWeights.")
class InstallWeightsPayload:
    """What came of installWeights."""

    outcome: InstallOutcome | None = strawberry.field(default=None, description="What was done; null when refused.")
    job: Job | None = strawberry.field(
        default=None, description="The job that brings it; null when refused or when it is there already."
    )
    weight_set: WeightSet | None = strawberry.field(default=None, description="The set; null when refused.")
    user_errors: list[UserError] = strawberry.field(default_factory=list, description=USER_ERRORS)


@strawberry.type(description="What came of deleteWeights.")
class DeleteWeightsPayload:
    """What came of deleteWeights."""

    job: Job | None = strawberry.field(default=None, description="The job that removes it; null when refused.")
    weight_set: WeightSet | None = strawberry.field(default=None, description="The set, out of use; null when refused.")
    user_errors: list[UserError] = strawberry.field(default_factory=list, description=USER_ERRORS)


@strawberry.type(description="What came of cancelJob.")
class CancelJobPayload:
    """What came of cancelJob."""

    job: Job | None = strawberry.field(default=None, description="The job, CANCELLED; null when refused.")
    user_errors: list[UserError] = strawberry.field(default_factory=list, description=USER_ERRORS)


@strawberry.type(description="What came of retryJob.")
class RetryJobPayload:
    """What came of retryJob."""

    job: Job | None = strawberry.field(default=None, description="The job, QUEUED; null when refused.")
    user_errors: list[UserError] = strawberry.field(default_factory=list, description=USER_ERRORS)


@strawberry.type(description="What came of pauseJob.")
class PauseJobPayload:
    """What came of pauseJob."""

    job: Job | None = strawberry.field(default=None, description="The job, PAUSED; null when refused.")
    user_errors: list[UserError] = strawberry.field(default_factory=list, description=USER_ERRORS)


@strawberry.type(description="What came of resumeJob.")
class ResumeJobPayload:
    """What came of resumeJob."""

    job: Job | None = strawberry.field(default=None, description="The job, QUEUED; null when refused.")
    user_errors: list[UserError] = strawberry.field(default_factory=list, description=USER_ERRORS)


@strawberry.type(description="What came of setJobPriority.")
class SetJobPriorityPayload:
    """What came of setJobPriority."""

    job: Job | None = strawberry.field(default=None, description="The job at its new place; null when refused.")
    user_errors: list[UserError] = strawberry.field(default_factory=list, description=USER_ERRORS)


@strawberry.type(description="What came of pinWeights.")
class PinWeightsPayload:
    """What came of pinWeights."""

    weight_set: WeightSet | None = strawberry.field(default=None, description="The set; null when refused.")
    user_errors: list[UserError] = strawberry.field(default_factory=list, description=USER_ERRORS)


@strawberry.type(
    description="What can be changed. Everything here needs a token with scope OPERATE; tokens and settings need ADMIN."
)
class Mutation:
    """What can be changed."""

    @strawberry.mutation(
        description="Download a repository's files at one commit into the volume, verified and published as a whole.",
        extensions=[RefusalsAsData(), Scoped(Scope.OPERATE)],
    )
    async def install_weights(
        self,
        info: Info,
        input: Annotated[InstallWeightsInput, strawberry.argument(description="What to install.")],
    ) -> InstallWeightsPayload | None:
        """Accept an install."""
        accepted = await weights.install(
            info.context,
            request=input.to_request(),
            priority=input.priority,
            expected_plan_hash=input.plan_hash,
            idempotency_key=input.idempotency_key,
        )
        return InstallWeightsPayload(
            outcome=accepted.outcome, job=_job(accepted), weight_set=_weight_set(info, accepted)
        )

    @strawberry.mutation(
        description="Take a set out of use and remove its files.",
        extensions=[RefusalsAsData(), Scoped(Scope.OPERATE)],
    )
    async def delete_weights(
        self,
        info: Info,
        input: Annotated[DeleteWeightsInput, strawberry.argument(description="Which set.")],
    ) -> DeleteWeightsPayload | None:
        """Accept a deletion."""
        accepted = await weights.delete(info.context, set_id=input.weight_set_id, force=input.force)
        return DeleteWeightsPayload(job=_job(accepted), weight_set=_weight_set(info, accepted))

    @strawberry.mutation(
        description="End a job for good; what it has fetched is thrown away.",
        extensions=[RefusalsAsData(), Scoped(Scope.OPERATE)],
    )
    async def cancel_job(
        self,
        info: Info,
        input: Annotated[CancelJobInput, strawberry.argument(description="Which job.")],
    ) -> CancelJobPayload | None:
        """Cancel."""
        return CancelJobPayload(job=Job.from_snapshot(await jobs.cancel(info.context, job_id=input.job_id)))

    @strawberry.mutation(
        description="Queue a job again that failed (it goes on from what is there) or was cancelled (from zero).",
        extensions=[RefusalsAsData(), Scoped(Scope.OPERATE)],
    )
    async def retry_job(
        self,
        info: Info,
        input: Annotated[RetryJobInput, strawberry.argument(description="Which job.")],
    ) -> RetryJobPayload | None:
        """Retry."""
        return RetryJobPayload(job=Job.from_snapshot(await jobs.retry(info.context, job_id=input.job_id)))

    @strawberry.mutation(
        description="Hold an install, waiting or running; what it has fetched stays.",
        extensions=[RefusalsAsData(), Scoped(Scope.OPERATE)],
    )
    async def pause_job(
        self, info: Info, input: Annotated[PauseJobInput, strawberry.argument(description="Which job.")]
    ) -> PauseJobPayload | None:
        """Pause."""
        return PauseJobPayload(job=Job.from_snapshot(await jobs.pause(info.context, job_id=input.job_id)))

    @strawberry.mutation(
        description="Queue a held job again; it goes on from what is there.",
        extensions=[RefusalsAsData(), Scoped(Scope.OPERATE)],
    )
    async def resume_job(
        self, info: Info, input: Annotated[ResumeJobInput, strawberry.argument(description="Which job.")]
    ) -> ResumeJobPayload | None:
        """Resume."""
        return ResumeJobPayload(job=Job.from_snapshot(await jobs.resume(info.context, job_id=input.job_id)))

    @strawberry.mutation(
        description="Change who goes first among the jobs that wait; a job that runs is not interrupted.",
        extensions=[RefusalsAsData(), Scoped(Scope.OPERATE)],
    )
    async def set_job_priority(
        self, info: Info, input: Annotated[SetJobPriorityInput, strawberry.argument(description="Which and how.")]
    ) -> SetJobPriorityPayload | None:
        """Move in the queue."""
        moved = await jobs.set_priority(info.context, job_id=input.job_id, priority=input.priority)
        return SetJobPriorityPayload(job=Job.from_snapshot(moved))

    @strawberry.mutation(
        description="Keep a set from deletion, or no longer.",
        extensions=[RefusalsAsData(), Scoped(Scope.OPERATE)],
    )
    async def pin_weights(
        self, info: Info, input: Annotated[PinWeightsInput, strawberry.argument(description="Which and whether.")]
    ) -> PinWeightsPayload | None:
        """Pin or unpin."""
        row = await weights.pin(info.context, set_id=input.weight_set_id, pinned=input.pinned)
        return PinWeightsPayload(weight_set=WeightSet.from_row(row, settings=info.context.services.settings))

    @strawberry.mutation(
        description="Make an access token; needs scope ADMIN.", extensions=[RefusalsAsData(), Scoped(Scope.ADMIN)]
    )
    async def create_token(
        self, info: Info, input: Annotated[CreateTokenInput, strawberry.argument(description="For whom and how long.")]
    ) -> CreateTokenPayload | None:
        """Make a token."""
        made = await tokens.create(
            info.context, name=input.name, scope=input.scope, expires_in_days=input.expires_in_days
        )
        return CreateTokenPayload(token=ApiToken.from_row(made.row), secret=made.secret)

    @strawberry.mutation(
        description="End an access token for good; one that is revoked already stays so. Needs scope ADMIN.",
        extensions=[RefusalsAsData(), Scoped(Scope.ADMIN)],
    )
    async def revoke_token(
        self, info: Info, input: Annotated[RevokeTokenInput, strawberry.argument(description="Which token.")]
    ) -> RevokeTokenPayload | None:
        """Revoke a token."""
        return RevokeTokenPayload(token=ApiToken.from_row(await tokens.revoke(info.context, token_id=input.token_id)))

    @strawberry.mutation(
        description="Change settings while the server runs, all of them or none; needs scope ADMIN.",
        extensions=[RefusalsAsData(), Scoped(Scope.ADMIN)],
    )
    async def update_settings(
        self, info: Info, input: Annotated[UpdateSettingsInput, strawberry.argument(description="What to change.")]
    ) -> UpdateSettingsPayload | None:
        """Change settings."""
        changed = await settings.update(info.context, changes=input.to_changes())
        locked = info.context.services.settings.lock_settings
        return UpdateSettingsPayload(settings=Settings.from_value(changed, locked=locked))


def _job(accepted: Accepted) -> Job | None:
    """Show the job of an accepted request."""
    return Job.from_row(accepted.job) if accepted.job is not None else None


def _weight_set(info: Info, accepted: Accepted) -> WeightSet | None:
    """Show the set of an accepted request."""
    settings = info.context.services.settings
    return WeightSet.from_row(accepted.weight_set, settings=settings) if accepted.weight_set is not None else None
