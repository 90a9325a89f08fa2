"""What can be watched: what is first, then what changes."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Annotated

import strawberry

from core.token import Scope
from graph.context import Info
from graph.relay import After
from graph.types.event import EventFeedItem, feed_item
from graph.types.inputs import EventFilter, JobFilter
from graph.types.job import Job, JobChange, LogLine
from graph.types.overview import Overview
from resolvers import events, jobs, overview
from resolvers.access import require

JobId = Annotated[strawberry.ID, strawberry.argument(description="The job's id.")]


@strawberry.type(description="What can be watched. Everything here needs a token with scope READ.")
class Subscription:
    """What can be watched."""

    @strawberry.subscription(
        description="One job: its state now, then every change; completes when it ends. An unknown id is one `error`."
    )
    async def job_progress(self, info: Info, job_id: JobId) -> AsyncGenerator[Job, None]:
        """Watch a job."""
        require(info.context, Scope.READ)
        async for snapshot in jobs.watch(info.context, job_id=job_id):
            yield Job.from_snapshot(snapshot)

    @strawberry.subscription(
        description="Every job that has not ended, and every job that changed since `after`; then each change."
    )
    async def jobs(
        self,
        info: Info,
        after: Annotated[
            str | None, strawberry.argument(description="The cursor of the last change that was seen.")
        ] = None,
        filter: Annotated[JobFilter | None, strawberry.argument(description="Which; all when left out.")] = None,
    ) -> AsyncGenerator[JobChange, None]:
        """Watch all jobs."""
        require(info.context, Scope.READ)
        job_filter = (filter or JobFilter()).to_filter()
        async for change in jobs.watch_all(info.context, job_filter=job_filter, after=after):
            info.context.telling.of(change.job.row.id, is_current=change.is_current)
            yield JobChange.from_change(change)

    @strawberry.subscription(
        description="A job's log from its first line (or behind a cursor), then live; completes when the job ends."
    )
    async def job_log(self, info: Info, job_id: JobId, after: After = None) -> AsyncGenerator[LogLine, None]:
        """Watch a job's log."""
        require(info.context, Scope.READ)
        async for line in jobs.watch_log(info.context, job_id=job_id, after=after):
            yield LogLine.from_row(line)

    @strawberry.subscription(
        description="The journal. Without `after`: from now on, beginning with one EventFeedLive. The cursors of the"
        " `events` query are the same."
    )
    async def events(
        self,
        info: Info,
        after: Annotated[
            str | None, strawberry.argument(description="The cursor of the last event that was seen.")
        ] = None,
        filter: Annotated[EventFilter | None, strawberry.argument(description="Which; all when left out.")] = None,
    ) -> AsyncGenerator[EventFeedItem, None]:
        """Watch the journal."""
        require(info.context, Scope.READ)
        event_filter = (filter or EventFilter()).to_filter()
        async for item in events.feed(info.context, after=after, event_filter=event_filter):
            yield feed_item(item)

    @strawberry.subscription(
        description="What a dashboard shows, first as it is, then whole after each change, at most once a second."
    )
    async def overview(self, info: Info) -> AsyncGenerator[Overview, None]:
        """Watch everything."""
        require(info.context, Scope.READ)
        async for found in overview.watch(info.context):
            yield Overview.from_overview(found)
