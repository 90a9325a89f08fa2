"""What a dashboard shows, in one."""

from __future__ import annotations

from datetime import datetime

import strawberry

from graph.types.server import ComponentStatus, QueueStats
from graph.types.weight_set import Volume
from resolvers import overview


@strawberry.type(description="What a dashboard shows, in one.")
class Overview:
    """What a dashboard shows."""

    id: strawberry.ID = strawberry.field(description="Always `Overview:server`: there is one.")
    queue: QueueStats | None = strawberry.field(
        description="How the queue is and who works on it; null while the database is away."
    )
    volume: Volume | None = strawberry.field(
        description="The weights volume; null while no worker has reported, or the database is away."
    )
    needs_attention: int | None = strawberry.field(
        description="How many things somebody should look at: jobs that failed in the last 24 hours, parts that are not"
        " OK, and a volume that is as full as `Settings.volumeAlertPercent`; null while the database is away."
    )
    components: list[ComponentStatus] = strawberry.field(description="How the server's parts are; at most 10.")
    observed_at: datetime = strawberry.field(description="When all of this was read.")

    @classmethod
    def from_overview(cls, found: overview.Overview) -> Overview:
        """Show what was read."""
        return cls(
            id=strawberry.ID("Overview:server"),
            queue=QueueStats.from_report(found.queue) if found.queue is not None else None,
            volume=Volume.from_report(found.volume) if found.volume is not None else None,
            needs_attention=found.needs_attention,
            components=[ComponentStatus.from_component(part) for part in found.components],
            observed_at=found.observed_at,
        )
