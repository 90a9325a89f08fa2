"""The journal's events and its feed."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

import strawberry

from core.ids import NodeType, global_id, parse_global_id
from core.token import Scope
from db.tables import Event as EventRow
from graph.context import Info
from graph.enums import ResyncReason
from graph.relay import Node
from graph.scalars import JSON
from graph.types.job import Job
from graph.types.token import ApiToken
from graph.types.weight_set import WeightSet
from resolvers import events


@strawberry.type(description="Something that happened, to what, and who did it. Never changed, kept for a year.")
class Event(Node):
    """A line of the journal."""

    at: datetime = strawberry.field(description="When it was written.")
    type: str = strawberry.field(description="A dotted name, e.g. `job.completed`; docs/events.md lists them all.")
    subject_id: strawberry.ID | None = strawberry.field(description="The id of what it happened to.")
    actor: str | None = strawberry.field(description="The token or process that did it.")
    message: str = strawberry.field(description="What happened, in a sentence.")
    data: JSON = strawberry.field(description="The particulars; docs/events.md shows them per type.")

    @strawberry.field(
        description="What it happened to, as it is now; null when that is not there (any more), and for a token unless"
        " yours has scope ADMIN."
    )
    async def subject(self, info: Info) -> Node | None:
        """Find the subject."""
        if self.subject_id is None:
            return None
        node_type, key = parse_global_id(self.subject_id, path=())
        if node_type is NodeType.JOB:
            found = await info.context.job_loader.load(UUID(key))
            return Job.from_snapshot(found) if found is not None else None
        if node_type is NodeType.API_TOKEN:
            token = (
                await info.context.token_loader.load(UUID(key)) if info.context.viewer.scope >= Scope.ADMIN else None
            )
            return ApiToken.from_row(token) if token is not None else None
        row = await info.context.weight_set_loader.load(key)
        return WeightSet.from_row(row, settings=info.context.services.settings) if row is not None else None

    @classmethod
    def from_row(cls, row: EventRow) -> Event:
        """Show a row."""
        return cls(
            id=strawberry.ID(global_id(NodeType.EVENT, row.position)),
            at=row.at,
            type=row.type,
            subject_id=strawberry.ID(row.subject_id) if row.subject_id is not None else None,
            actor=row.actor,
            message=row.message,
            data=JSON(row.data),
        )


@strawberry.type(description="Something new in the journal, with the place to go on from.")
class EventFeedEntry:
    """An event of the feed."""

    cursor: str = strawberry.field(description="Where to go on after a cut.")
    event: Event = strawberry.field(description="What happened.")


@strawberry.type(description="All that was missed has been sent; what follows happens now.")
class EventFeedLive:
    """The end of the replay."""

    cursor: str = strawberry.field(description="Where to go on after a cut.")


@strawberry.type(description="What lies between is gone. Read the state anew and go on from `cursor`.")
class EventFeedResync:
    """A gap that cannot be filled."""

    reason: ResyncReason = strawberry.field(description="Why the feed cannot go on from the cursor that was given.")
    cursor: str = strawberry.field(description="Where the feed goes on.")


EventFeedItem = Annotated[
    EventFeedEntry | EventFeedLive | EventFeedResync,
    strawberry.union("EventFeedItem", description="What the feed of the journal sends."),
]


def feed_item(item: events.FeedItem) -> EventFeedEntry | EventFeedLive | EventFeedResync:
    """Show what the feed gives."""
    if isinstance(item, events.FeedEntry):
        return EventFeedEntry(cursor=item.cursor, event=Event.from_row(item.event))
    if isinstance(item, events.FeedLive):
        return EventFeedLive(cursor=item.cursor)
    return EventFeedResync(reason=item.reason, cursor=item.cursor)
