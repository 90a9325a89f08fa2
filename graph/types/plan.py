"""The plan of an install."""

from __future__ import annotations

import strawberry

from db.paging import Page, PageRequest, decode_cursor, encode_cursor
from graph.enums import AccessOutcome, FileAction, RiskCode
from graph.errors import UserError
from graph.relay import After, Connection, First, connection, page_request
from graph.scalars import Bytes
from resolvers import plans


@strawberry.type(description="A file of the repository and what an install would do with it.")
class PlannedFile:
    """A file of the plan."""

    path: str = strawberry.field(description="Its path in the repository.")
    size_bytes: Bytes = strawberry.field(description="Its size in bytes.")
    action: FileAction = strawberry.field(description="What would be done with it.")

    @classmethod
    def from_plan(cls, file: plans.PlannedFile) -> PlannedFile:
        """Show a file of the plan."""
        return cls(path=file.path, size_bytes=Bytes(file.size_bytes), action=file.action)


@strawberry.type(description="Something worth knowing before a repository is trusted.")
class RepositoryRisk:
    """A risk."""

    code: RiskCode = strawberry.field(description="What kind of risk it is.")
    message: str = strawberry.field(description="The risk in a sentence.")


@strawberry.type(description="Whether the Hub would give us the repository.")
class AccessCheck:
    """Whether the Hub would give us the repository."""

    outcome: AccessOutcome = strawberry.field(description="What stands in the way, or OK.")
    message: str = strawberry.field(description="The same in a sentence, with what would help.")
    url: str | None = strawberry.field(
        description="The page where the terms are accepted or the token is made; null when there is none."
    )

    @classmethod
    def from_access(cls, access: plans.Access) -> AccessCheck:
        """Show what the Hub says."""
        return cls(outcome=access.outcome, message=access.message, url=access.url)


@strawberry.type(description="What an install would do, before a byte is downloaded.")
class InstallPlan:
    """What an install would do."""

    hash: str = strawberry.field(description="Names target, commit and files; `installWeights(planHash:)` compares it.")
    commit: str = strawberry.field(description="The commit that the revision is now, 40 hex digits.")
    file_count: int = strawberry.field(description="How many files would be in the set.")
    download_bytes: Bytes = strawberry.field(description="Bytes that would be fetched.")
    reuse_bytes: Bytes = strawberry.field(description="Bytes that are on the volume already.")
    available_bytes: Bytes | None = strawberry.field(
        description="Free bytes after every job that is already accepted; null while no worker has reported."
    )
    fits_on_volume: bool | None = strawberry.field(
        description="Whether there is room for it, with a margin of 5 %; null while that is not known."
    )
    risks: list[RepositoryRisk] = strawberry.field(description="What is worth knowing; at most 10.")
    planned: strawberry.Private[list[plans.PlannedFile]]

    @strawberry.field(description="Every file of the repository, in its order, with what would be done with it.")
    def files(self, first: First = None, after: After = None) -> Connection[PlannedFile]:
        """Cut a page out of the plan."""
        page = _page(self.planned, page_request(first, after), stream=self.hash)
        return connection(page, PlannedFile.from_plan, count=self._count)

    async def _count(self) -> int:
        """Count the repository's files."""
        return len(self.planned)

    @classmethod
    def from_plan(cls, plan: plans.InstallPlan) -> InstallPlan:
        """Show a plan."""
        available = plan.available_bytes
        return cls(
            hash=plan.hash,
            commit=plan.commit,
            file_count=sum(file.action is not plans.FileAction.SKIP for file in plan.files),
            download_bytes=Bytes(plan.download_bytes),
            reuse_bytes=Bytes(plan.reuse_bytes),
            available_bytes=Bytes(max(0, available)) if available is not None else None,
            fits_on_volume=plan.fits_on_volume,
            risks=[RepositoryRisk(code=risk.code, message=risk.message) for risk in plan.risks],
            planned=list(plan.files),
        )


@strawberry.type(description="The answer to installPlan.")
class InstallPlanPayload:
    """The answer to installPlan."""

    plan: InstallPlan | None = strawberry.field(
        default=None, description="The plan; null when the Hub does not give the repository."
    )
    access: AccessCheck | None = strawberry.field(
        default=None, description="Whether the Hub would give us the repository; null when the input was refused."
    )
    user_errors: list[UserError] = strawberry.field(
        default_factory=list, description="What is wrong with the input; at most 10."
    )


def _page(files: list[plans.PlannedFile], request: PageRequest, *, stream: str) -> Page[plans.PlannedFile]:
    """Cut a page out of a list in memory; the cursor is the place in it."""
    begin = 0
    if request.after is not None:
        begin = decode_cursor(f"plan:{stream}", request.after, kinds=[int], path=("after",))[0] + 1
    rows = files[begin : begin + request.size] if begin >= 0 else []
    return Page(
        rows=rows,
        cursors=[encode_cursor(f"plan:{stream}", (begin + number,)) for number in range(len(rows))],
        has_next=begin + len(rows) < len(files),
        has_previous=begin > 0,
    )
