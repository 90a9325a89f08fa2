"""The server itself: its queue, its workers, its parts, and who is asking."""

from __future__ import annotations

from datetime import datetime

import strawberry

from core.token import Viewer as ViewerValue
from db.tables import Worker as WorkerRow
from graph.enums import ComponentName, ComponentState, DatabaseKind, Scope
from resolvers import health
from resolvers.queue import QueueReport


@strawberry.type(description="A worker process.")
class Worker:
    """A worker process."""

    id: strawberry.ID = strawberry.field(description="Unique to one process.")
    host: str = strawberry.field(description="The machine or pod that it runs on.")
    version: str = strawberry.field(description="Its version of this program.")
    started_at: datetime = strawberry.field(description="When it started.")
    seen_at: datetime = strawberry.field(description="When it last said that it is alive.")
    lanes: list[str] = strawberry.field(description="The lanes that it serves; at most 3.")
    running_jobs: int = strawberry.field(description="How many jobs it was running then.")

    @classmethod
    def from_row(cls, row: WorkerRow) -> Worker:
        """Show a row."""
        return cls(
            id=strawberry.ID(f"Worker:{row.id}"),
            host=row.host,
            version=row.version,
            started_at=row.started_at,
            seen_at=row.seen_at,
            lanes=row.lanes,
            running_jobs=row.running_jobs,
        )


@strawberry.type(description="How the queue is.")
class QueueStats:
    """How the queue is."""

    id: strawberry.ID = strawberry.field(description="Always `Queue:jobs`: there is one.")
    queued: int = strawberry.field(description="Jobs that wait.")
    running: int = strawberry.field(description="Jobs that run.")
    paused: int = strawberry.field(description="Jobs that are held.")
    failed_last_day: int = strawberry.field(description="Jobs that failed in the last 24 hours.")
    oldest_queued_at: datetime | None = strawberry.field(
        description="When the job was made that waits longest; null when none waits."
    )
    workers: list[Worker] = strawberry.field(description="Workers seen in the last minute; at most 100.")

    @classmethod
    def from_report(cls, report: QueueReport) -> QueueStats:
        """Show a report."""
        return cls(
            id=strawberry.ID("Queue:jobs"),
            queued=report.queued,
            running=report.running,
            paused=report.paused,
            failed_last_day=report.failed_last_day,
            oldest_queued_at=report.oldest_queued_at,
            workers=[Worker.from_row(row) for row in report.workers],
        )


@strawberry.type(description="How one part is that this server needs.")
class ComponentStatus:
    """How one part is."""

    name: ComponentName = strawberry.field(description="Which part.")
    state: ComponentState = strawberry.field(description="How it is.")
    message: str | None = strawberry.field(description="What is wrong, in a sentence; null when nothing is.")
    latency_milliseconds: float | None = strawberry.field(
        description="How long it took to answer, in milliseconds; null when it was not asked or did not answer."
    )

    @classmethod
    def from_component(cls, component: health.Component) -> ComponentStatus:
        """Show a part."""
        return cls(
            name=component.name,
            state=component.state,
            message=component.message,
            latency_milliseconds=component.latency_milliseconds,
        )


@strawberry.type(description="The installation that answers: its version and how its parts are.")
class Server:
    """This server."""

    version: str = strawberry.field(description="The version of this program.")
    started_at: datetime = strawberry.field(description="When this API process started.")
    database: DatabaseKind = strawberry.field(description="The database that holds the truth.")
    documentation_url: str = strawberry.field(description="Where the documentation is.")
    components: list[ComponentStatus] | None = strawberry.field(description="How its parts are just now; at most 10.")


@strawberry.type(description="Who is asking.")
class Viewer:
    """Who is asking."""

    name: str = strawberry.field(description="The token's name.")
    scope: Scope = strawberry.field(description="What it may do.")
    expires_at: datetime | None = strawberry.field(description="When it ends; null when it does not.")

    @classmethod
    def from_viewer(cls, viewer: ViewerValue) -> Viewer:
        """Show a viewer."""
        return cls(name=viewer.name, scope=viewer.scope, expires_at=viewer.expires_at)
