"""A schema with every kind of operation that a socket may meet, and the world that its resolvers act upon."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import strawberry
from graphql import GraphQLError
from strawberry.permission import BasePermission
from strawberry.scalars import JSON
from strawberry.types import Info

from core.errors import DomainError, ErrorCode, UnauthenticatedError
from graph.answers import Request
from graph.groups import Sharing, Telling

GOOD_TOKEN = "good"


@dataclass
class World:
    """open_sources: those that run; produced: values of `endless` by token; gate: what `blocked` waits for.

    told: what `states` tells, each as a subject, whether it is current, and a value.
    """

    open_sources: int = 0
    produced: Counter[str | None] = field(default_factory=Counter)
    mutations: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    told: asyncio.Queue[tuple[str, bool, str] | None] = field(default_factory=asyncio.Queue)

    @contextmanager
    def source(self) -> Iterator[None]:
        self.open_sources += 1
        try:
            yield
        finally:
            self.open_sources -= 1


@dataclass(frozen=True)
class Viewer:
    token: str | None
    world: World
    telling: Telling = field(default_factory=Telling)


def share_by_token(request: Request, viewer: Viewer) -> Sharing[Viewer] | None:
    """Share every subscription among the sockets of a token."""
    if not request.query.startswith("subscription"):
        return None
    telling = Telling()
    key = (request.query, json.dumps([request.variables, request.extensions]), request.operation_name, viewer.token)
    return Sharing(key=key, context=Viewer(viewer.token, viewer.world, telling), telling=telling)


def sign_in_to(world: World):
    async def sign_in(token: str | None) -> Viewer:
        if token == "hanging":
            await asyncio.sleep(3600)
        if token == "broken":
            raise ConnectionRefusedError("the database is away")
        if token not in {GOOD_TOKEN, "reader", "unlucky"}:
            raise UnauthenticatedError("no")
        return Viewer(token=token, world=world)

    return sign_in


def format_errors(errors: Sequence[GraphQLError], viewer: Viewer) -> list[dict[str, object]]:
    """Mask what is not meant for clients; `viewer` shows that the context arrived."""
    if viewer.token == "unlucky":
        raise RuntimeError("a fault of ours")
    return [
        {"message": _message(error), "viewer": viewer.token} | ({"path": error.path} if error.path else {})
        for error in errors
    ]


def _message(error: GraphQLError) -> str:
    cause = error.original_error
    is_tellable = cause is None or isinstance(cause, DomainError) or type(cause).__module__.startswith("strawberry")
    return error.message if is_tellable else "masked"


class Never(BasePermission):
    message = "not for you"

    async def has_permission(self, *_: object, **__: object) -> bool:
        return False


def fail() -> int:
    raise RuntimeError("secret")


@strawberry.type
class Tick:
    number: int

    @strawberry.field
    def broken(self) -> int:
        return fail()


@strawberry.type
class Query:
    @strawberry.field
    def hello(self, name: str = "you") -> str:
        return f"hello {name}"

    @strawberry.field
    def broken(self) -> int:
        return fail()

    @strawberry.field
    def echo(self, value: JSON) -> JSON:
        return value

    @strawberry.field
    def unencodable(self) -> JSON:
        return JSON(2**70)

    @strawberry.field
    async def slow(self, info: Info[Viewer]) -> int:
        with info.context.world.source():
            await info.context.world.gate.wait()
            return 1


@strawberry.type
class Mutation:
    @strawberry.mutation
    def increment(self, info: Info[Viewer]) -> int:
        info.context.world.mutations += 1
        return info.context.world.mutations


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def count(self, info: Info[Viewer], to: int) -> AsyncGenerator[int, None]:
        with info.context.world.source():
            for number in range(1, to + 1):
                yield number

    @strawberry.subscription
    async def endless(self, info: Info[Viewer], size: int = 1, pause: float = 0.0) -> AsyncGenerator[str, None]:
        world = info.context.world
        with world.source():
            while True:
                world.produced[info.context.token] += 1
                yield "x" * size
                await asyncio.sleep(pause)

    @strawberry.subscription
    async def states(self, info: Info[Viewer]) -> AsyncGenerator[str, None]:
        with info.context.world.source():
            while (told := await info.context.world.told.get()) is not None:
                subject, is_current, value = told
                info.context.telling.of(subject, is_current=is_current)
                yield value

    @strawberry.subscription
    async def refused(self, info: Info[Viewer]) -> AsyncGenerator[int, None]:
        with info.context.world.source():
            raise DomainError(ErrorCode.NOT_FOUND, "no such job")
            yield 1

    @strawberry.subscription(permission_classes=[Never])
    async def forbidden(self) -> AsyncGenerator[int, None]:
        yield 1

    @strawberry.subscription
    async def fails_midway(self, info: Info[Viewer]) -> AsyncGenerator[int, None]:
        with info.context.world.source():
            yield 1
            fail()

    @strawberry.subscription
    async def unencodable_midway(self, info: Info[Viewer]) -> AsyncGenerator[JSON, None]:
        with info.context.world.source():
            yield JSON(1)
            yield JSON(2**70)

    @strawberry.subscription
    async def ticks(self) -> AsyncGenerator[Tick, None]:
        yield Tick(number=1)
        yield Tick(number=2)

    @strawberry.subscription
    async def blocked(self, info: Info[Viewer]) -> AsyncGenerator[int, None]:
        with info.context.world.source():
            await info.context.world.gate.wait()
            yield 1

    @strawberry.subscription
    def stubborn(self, info: Info[Viewer]) -> AsyncIterator[int]:
        return Stubborn(info.context.world)


class Stubborn:
    """A source that takes being cancelled for an invitation to go on, once."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.is_over = False

    def __aiter__(self) -> "Stubborn":
        return self

    async def __anext__(self) -> int:
        if self.is_over:
            raise StopAsyncIteration
        try:
            with self.world.source():
                await self.world.gate.wait()
        except asyncio.CancelledError:
            self.is_over = True
        return 1


schema = strawberry.Schema(query=Query, mutation=Mutation, subscription=Subscription)
