"""What the fields about the overview do: what a dashboard shows, in one."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from core.runtime_settings import RuntimeSettings
from db.engine import is_unavailable
from resolvers import health, queue, settings, weights
from resolvers.context import Context
from resolvers.health import Component, ComponentState
from resolvers.queue import QueueReport
from resolvers.weights import VolumeReport

EVERYTHING = "*"
MIN_SECONDS = 1.0
LOOK_SECONDS = 5.0
"""How long a part may have changed that tells nobody, such as a worker that is gone."""


@dataclass(frozen=True, kw_only=True)
class Overview:
    """What a dashboard shows.

    queue, needs_attention: None while the database is away. volume: None also while no worker has reported.
    observed_at: when all of it was read, on this process's clock.
    """

    queue: QueueReport | None
    volume: VolumeReport | None
    needs_attention: int | None
    components: Sequence[Component]
    observed_at: datetime


async def get(ctx: Context) -> Overview:
    """Read everything; a database that is away leaves out what it has."""
    components = await health.components(ctx.services)
    try:
        jobs, volume, in_force = await queue.report(ctx), await weights.volume(ctx), await settings.get(ctx)
        attention = needs_attention(jobs, volume, in_force, components)
    except Exception as error:
        if not is_unavailable(error):
            raise
        jobs, volume, attention = None, None, None
    return Overview(
        queue=jobs, volume=volume, needs_attention=attention, components=components, observed_at=datetime.now(UTC)
    )


def needs_attention(
    jobs: QueueReport, volume: VolumeReport | None, in_force: RuntimeSettings, components: Sequence[Component]
) -> int:
    """Count what somebody should look at: jobs that failed lately, parts that are not well, a volume that is full."""
    used_percent = 100 - 100 * volume.row.free_bytes / max(1, volume.row.capacity_bytes) if volume is not None else 0.0
    is_full = used_percent >= in_force.volume_alert_percent
    return jobs.failed_last_day + sum(part.state is not ComponentState.OK for part in components) + is_full


async def watch(ctx: Context) -> AsyncIterator[Overview]:
    """Give everything as it is, then whole again after a change, at most once a second, for ever.

    Order: register on the bus, then read; what changes without a word there is found by looking now and then.
    """
    with ctx.services.bus.subscribe(EVERYTHING) as subscription:
        last: Overview | None = None
        while True:
            now = await get(ctx)
            if last is None or _content(now) != _content(last):
                last = now
                yield now
            await asyncio.sleep(MIN_SECONDS)
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    await subscription.next()
            except TimeoutError:
                pass


def _content(overview: Overview) -> tuple[object, ...]:
    """Say what has to be different to be told again: all but the instant and how long the parts took to answer."""
    jobs, volume = overview.queue, overview.volume
    return (
        jobs and (jobs.queued, jobs.running, jobs.paused, jobs.failed_last_day, jobs.oldest_queued_at),
        jobs and [(row.id, row.running_jobs, row.seen_at) for row in jobs.workers],
        volume and (volume.row.free_bytes, volume.row.capacity_bytes, volume.row.observed_at),
        volume and (volume.reserved_bytes, volume.weights_bytes),
        overview.needs_attention,
        [(part.name, part.state, part.message) for part in overview.components],
    )
