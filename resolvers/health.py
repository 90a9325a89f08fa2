"""How the parts are that this server needs."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum

from core.errors import SettingsError
from db import workers
from resolvers.context import Services

PATIENCE_SECONDS = 4.0


class ComponentName(StrEnum):
    """What is looked at."""

    DATABASE = "DATABASE"
    REDIS = "REDIS"
    WORKERS = "WORKERS"


class ComponentState(StrEnum):
    """How it is."""

    OK = "OK"
    DEGRADED = "DEGRADED"
    DOWN = "DOWN"


@dataclass(frozen=True)
class Component:
    """How one part is. latency_milliseconds: of the question; None when it was not answered."""

    name: ComponentName
    state: ComponentState
    message: str | None = None
    latency_milliseconds: float | None = None


async def components(services: Services) -> list[Component]:
    """Look at everything at once."""
    found = await asyncio.gather(_database(services), _redis(services), _workers(services))
    return list(found)


async def _database(services: Services) -> Component:
    """Ask the database."""
    return await _asked(ComponentName.DATABASE, services.database.check, "The database does not answer")


async def _redis(services: Services) -> Component:
    """Ask Redis, and whether changes arrive by it."""
    found = await _asked(ComponentName.REDIS, services.bus.ping, "Redis does not answer: changes arrive late")
    if found.state is ComponentState.OK and not services.bus.is_live:
        return Component(found.name, ComponentState.DEGRADED, "Listening to Redis begins anew: changes arrive late")
    return found


async def _asked(name: ComponentName, ask: Callable[[], Awaitable[None]], trouble: str) -> Component:
    """Ask one part and time the answer."""
    began = time.perf_counter()
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await ask()
    except (SettingsError, OSError, TimeoutError):
        return Component(name, ComponentState.DOWN, trouble)
    except Exception as error:  # noqa: BLE001 - whatever a client raises, the part is down
        return Component(name, ComponentState.DOWN, f"{trouble} ({type(error).__name__})")
    return Component(name, ComponentState.OK, latency_milliseconds=(time.perf_counter() - began) * 1000)


async def _workers(services: Services) -> Component:
    """Look whether a worker was seen in the last minute."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS), services.database.read() as session:
            seen = await workers.seen_lately(session, limit=1)
    except Exception as error:  # noqa: BLE001 - as above
        return Component(ComponentName.WORKERS, ComponentState.DOWN, f"Not known ({type(error).__name__})")
    if not seen:
        return Component(ComponentName.WORKERS, ComponentState.DOWN, "No worker was seen in the last minute: jobs wait")
    return Component(ComponentName.WORKERS, ComponentState.OK)
