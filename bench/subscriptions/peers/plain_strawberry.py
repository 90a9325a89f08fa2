"""The same subscription as Strawberry's documentation shows it: its ASGI application with broadcaster.

Environment: VALKEY_PORT.
"""

import asyncio
import json
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import strawberry
from broadcaster import Broadcast
from starlette.applications import Starlette
from starlette.routing import Mount
from strawberry.asgi import GraphQL

CHANNEL = "model-manager:changes"
broadcast = Broadcast(f"redis://127.0.0.1:{os.environ['VALKEY_PORT']}")


@strawberry.type
class Progress:
    bytes_done: float
    bytes_total: float | None
    fraction: float | None
    bytes_per_second: float | None
    last_byte_at: str | None


@strawberry.type
class Job:
    state: str
    stage: str | None
    message: str | None
    attempt: int
    progress: Progress


@strawberry.type
class Query:
    version: str = "1"


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def job_progress(self, job_id: strawberry.ID) -> AsyncGenerator[Job, None]:
        topic = job_id.replace("Job:", "job:")
        async with broadcast.subscribe(channel=CHANNEL) as changes:
            async for change in changes:
                found = json.loads(change.message)
                if found["topic"] == topic:
                    yield job_of(found["data"])


def job_of(data: dict[str, Any]) -> Job:
    progress = data["progress"]
    return Job(
        state="RUNNING",
        stage=data["stage"],
        message=data["message"],
        attempt=0,
        progress=Progress(
            bytes_done=progress["bytes_done"],
            bytes_total=progress["bytes_total"],
            fraction=progress["bytes_done"] / progress["bytes_total"],
            bytes_per_second=progress["bytes_per_second"],
            last_byte_at=progress["last_byte_at"],
        ),
    )


async def hold(channel: str) -> None:
    """Subscribe for good: this version of broadcaster loses a first subscriber that comes alone."""
    async with broadcast.subscribe(channel=channel) as changes:
        async for _ in changes:
            pass


@asynccontextmanager
async def lifespan(_app: Starlette) -> AsyncIterator[None]:
    await broadcast.connect()
    held = []
    for channel in ("held", CHANNEL):
        held.append(asyncio.create_task(hold(channel)))
        await asyncio.sleep(0.1)
    yield
    for task in held:
        task.cancel()
    await asyncio.gather(*held, return_exceptions=True)
    await broadcast.disconnect()


schema = strawberry.Schema(Query, subscription=Subscription)
app = Starlette(routes=[Mount("/graphql", GraphQL(schema, graphql_ide=None))], lifespan=lifespan)
