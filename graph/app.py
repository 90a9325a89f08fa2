"""The ASGI application of an API process: GraphQL over HTTP and sockets, health, pages."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from uuid import UUID

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from actors import broker as lanes
from actors.dispatcher import Dispatcher
from core.bus import JOURNAL, Bus
from core.errors import UnauthenticatedError
from core.hub import Hub
from core.ids import new_id
from core.metrics import BUS_LIVE, SOCKETS, SUBSCRIPTIONS
from core.runtime_settings import defaults_of
from core.settings import Settings
from db.engine import Database
from graph import pages
from graph.context import GraphContext
from graph.edge import Edge
from graph.errors import format_errors
from graph.http import GraphQLEndpoint
from graph.schema import build
from graph.sharing import share
from graph.sse import EventsEndpoint
from graph.wrong_tokens import CLIENT, WrongTokens, client_of
from graph.ws import SocketLimits, TransportWebSocket
from graph.ws_tokens import TokenRules
from resolvers import access, health
from resolvers.context import Services
from resolvers.health import ComponentName, ComponentState

DRAIN_SECONDS = 5.0
SOCKETS_PATH = "/graphql"
logger = logging.getLogger(__name__)


class Api:
    """One API process's application. `services` is there while it runs."""

    def __init__(self, settings: Settings, *, limits: SocketLimits | None = None) -> None:
        self._settings = settings
        self._services: Services | None = None
        schema = build()
        self.sockets: TransportWebSocket[GraphContext] = TransportWebSocket(
            schema=schema,
            sign_in=self._sign_in,
            format_errors=format_errors,
            limits=limits or SocketLimits(),
            share=share,
            token_rules=TokenRules(lambda context: context.viewer.token_id, self._still_good),
        )
        starlette = Starlette(
            routes=[
                Route("/graphql", GraphQLEndpoint(schema, self._sign_in).answer, methods=["POST"], name="graphql"),
                Route("/events", EventsEndpoint(self._sign_in).answer, name="events"),
                Route("/healthz", self._healthz, name="healthz"),
                Route("/health", self._healthz, name="health"),
                Route("/readyz", self._readyz, name="readyz"),
                *pages.routes(),
            ],
            lifespan=self._lifespan,
        )
        self._app = Edge(starlette, trusted_proxies=settings.proxy_networks)
        self._wrong_tokens = WrongTokens()
        SOCKETS.set_function(lambda: self.sockets.open_count)
        SUBSCRIPTIONS.set_function(lambda: self.sockets.operation_count)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer. Sockets go straight to their endpoint: every layer between would cost each of their messages."""
        if scope["type"] == "websocket" and scope["path"] == SOCKETS_PATH:
            CLIENT.set(client_of(scope, trusted=self._settings.proxy_networks))
            await self.sockets(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def drain(self) -> None:
        """Close every socket, spread over some seconds, so that clients do not all come back at once."""
        await self.sockets.drain(over_seconds=DRAIN_SECONDS)

    @property
    def services(self) -> Services:
        """What the process has."""
        assert self._services is not None, "the application is not running"
        return self._services

    @asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        """Open what the process has, and close it."""
        async with AsyncExitStack() as opened:
            database = Database(self._settings.database)
            opened.push_async_callback(database.close)
            bus = await opened.enter_async_context(Bus(self._settings.redis).running())
            database.after_events = partial(bus.publish, JOURNAL)
            BUS_LIVE.set_function(lambda: float(bus.is_live))
            broker = lanes.build(self._settings.redis)
            defaults = defaults_of(self._settings)
            dispatcher = Dispatcher(database, broker, interval_seconds=None, defaults=defaults)
            task = asyncio.create_task(dispatcher.run(), name="dispatcher")
            opened.push_async_callback(_end, task)
            self._services = Services(
                settings=self._settings,
                database=database,
                bus=bus,
                hub=Hub(endpoint=self._settings.hub_endpoint, token=self._settings.hub_secret()),
                wake_dispatcher=dispatcher.wake,
                started_at=datetime.now(UTC),
            )
            yield
            self._services = None

    async def _sign_in(self, token: str | None) -> GraphContext:
        """Make an operation's context of a bearer token.

        Raises: UnauthenticatedError; RateLimitedError when too many wrong ones came from the address.
        """
        client = CLIENT.get() if token else None
        self._wrong_tokens.check(client)
        try:
            viewer = await access.viewer_of(self.services, token)
        except UnauthenticatedError:
            self._wrong_tokens.check(client)  # Others may have come while the database was asked.
            self._wrong_tokens.note(client)
            raise
        return GraphContext(services=self.services, viewer=viewer, request_id=str(new_id()))

    async def _still_good(self, token_ids: Collection[UUID | None]) -> Collection[UUID | None]:
        """Find which tokens of open sockets are still good."""
        return await access.still_good(self.services, token_ids)

    async def _healthz(self, _request: Request) -> Response:
        """Say that the process lives."""
        return PlainTextResponse("ok\n")

    async def _readyz(self, _request: Request) -> Response:
        """Say whether the process can serve: one word, and how its parts are.

        It cannot without the database; without Redis or workers it answers, accepts and says what is late.
        """
        found = await health.components(self.services)
        is_ready = not any(part.name is ComponentName.DATABASE and part.state is ComponentState.DOWN for part in found)
        parts = {part.name.lower(): part.state.lower() for part in found}
        return JSONResponse({"status": "ready" if is_ready else "not ready", **parts}, 200 if is_ready else 503)


async def _end(task: asyncio.Task[None]) -> None:
    """Cancel a task and wait for its end."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
