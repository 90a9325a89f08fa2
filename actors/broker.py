"""The lanes that jobs travel on: a Dramatiq broker over Redis with one actor a lane, each taking a job's id.

Dramatiq carries hints and nothing else. Its retries, delays, time limits and shutdown notifications stay off: the
job's row knows attempts, due times and leases. There is no global broker; whoever needs one builds it.
"""

from collections.abc import Callable, Iterable
from urllib.parse import urlencode
from uuid import UUID

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from core.job import Lane

NAMESPACE = "model-manager"


def _runs_nothing(_job_id: str) -> None:
    """Stand in for a worker's actor where messages are only sent."""


def build(
    redis_url: str, run: Callable[[str], None] = _runs_nothing, *, served: Iterable[Lane] = Lane
) -> dramatiq.Broker:
    """Make a broker and declare the lanes' actors on it.

    run: what a worker does with a job's id. served: the lanes that are declared; all of them to send to.
    """
    broker: dramatiq.Broker = RedisBroker(  # type: ignore[no-untyped-call]  # its arguments have no types
        url=_with_time_limits(redis_url), namespace=NAMESPACE, middleware=[]
    )
    for lane in served:
        dramatiq.actor(broker=broker, actor_name=_actor_name(lane), queue_name=lane)(run)
    return broker


def send(broker: dramatiq.Broker, lane: Lane, job_id: UUID) -> None:
    """Send a job's id down its lane. Raises whatever the Redis client raises while Redis is away."""
    broker.get_actor(_actor_name(lane)).send(str(job_id))


def _actor_name(lane: Lane) -> str:
    """Name the one actor of a lane."""
    return f"run_{lane}"


def _with_time_limits(url: str) -> str:
    """Add the connection's time limits, in seconds, to a Redis URL."""
    limits = urlencode({"socket_timeout": 5, "socket_connect_timeout": 3, "health_check_interval": 15})
    return f"{url}{'&' if '?' in url else '?'}{limits}"
