"""The endpoint behind a real server, and clients for it."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import pytest
import uvicorn
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from graph.groups import Share
from graph.ws import SocketLimits, TransportWebSocket, share_nothing
from graph.ws_connection import DroppableProtocol
from graph.ws_tokens import TokenRules
from tests.graph.ws_schema import GOOD_TOKEN, Viewer, World, format_errors, schema, sign_in_to

LIMITS = SocketLimits()
INIT = {"type": "connection_init", "payload": {"authorization": f"Bearer {GOOD_TOKEN}"}}


@dataclass
class Endpoint:
    app: TransportWebSocket[Viewer]
    server: uvicorn.Server
    port: int
    world: World

    @asynccontextmanager
    async def socket(self, **options) -> AsyncIterator["Client"]:
        options = {"subprotocols": ["graphql-transport-ws"], "compression": None, "ping_interval": None} | options
        async with connect(f"ws://127.0.0.1:{self.port}/graphql", proxy=None, **options) as connection:
            yield Client(connection)

    @asynccontextmanager
    async def client(self, **options) -> AsyncIterator["Client"]:
        """A socket that was acknowledged."""
        async with self.socket(**options) as client:
            await client.send(INIT)
            assert await client.receive() == {"type": "connection_ack"}
            yield client


@dataclass
class Client:
    connection: ClientConnection

    async def send(self, message: object) -> None:
        await self.connection.send(message if isinstance(message, str | bytes) else json.dumps(message))

    async def subscribe(self, query: str, *, key: str = "1", **payload: object) -> None:
        await self.send({"id": key, "type": "subscribe", "payload": {"query": query} | payload})

    async def complete(self, key: str) -> None:
        await self.send({"id": key, "type": "complete"})

    async def receive(self) -> dict[str, object]:
        async with asyncio.timeout(5):
            frame = await self.connection.recv()
        assert isinstance(frame, str), "a message must be a text frame"
        return json.loads(frame)

    async def receive_all(self) -> list[dict[str, object]]:
        """Everything that came before the answer to a ping of now."""
        await self.send({"type": "ping", "payload": {"until": "now"}})
        messages = []
        while (message := await self.receive()) != {"type": "pong", "payload": {"until": "now"}}:
            messages.append(message)
        return messages

    async def closing(self) -> tuple[int, str]:
        """The code and the reason with which the server closes, which must be all that it still says."""
        async with asyncio.timeout(5):
            with pytest.raises(ConnectionClosed):
                await self.connection.recv()
        return self.connection.close_code, self.connection.close_reason


@asynccontextmanager
async def serving(
    limits: SocketLimits = LIMITS,
    *,
    allowed_origins: frozenset[str] = frozenset(),
    ws_max_size: int | None = None,
    share: Share[Viewer] = share_nothing,
    token_rules: TokenRules[Viewer] | None = None,
) -> AsyncIterator[Endpoint]:
    world = World()
    app = TransportWebSocket(
        schema=schema,
        sign_in=sign_in_to(world),
        format_errors=format_errors,
        limits=limits,
        allowed_origins=allowed_origins,
        share=share,
        token_rules=token_rules,
    )
    config = uvicorn.Config(
        app,
        ws=DroppableProtocol,
        ws_max_size=ws_max_size or limits.frame_bytes,
        ws_per_message_deflate=False,
        ws_ping_interval=None,
        lifespan="off",
        log_level="warning",
    )
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    await server.startup(sockets=[listener])
    try:
        yield Endpoint(app=app, server=server, port=listener.getsockname()[1], world=world)
    finally:
        await server.shutdown(sockets=[listener])


async def until(is_so: Callable[[], bool], *, within_seconds: float = 5.0) -> None:
    async with asyncio.timeout(within_seconds):
        while not is_so():  # noqa: ASYNC110 - what is waited for knows nothing of us
            await asyncio.sleep(0.005)


async def until_closed(client: Client) -> AsyncIterator[str]:
    with suppress(ConnectionClosed):
        while True:
            yield await client.connection.recv()


def next_(data: object, *, key: str = "1", **more: object) -> dict[str, object]:
    return {"id": key, "type": "next", "payload": {"data": data} | more}


def complete(key: str = "1") -> dict[str, object]:
    return {"id": key, "type": "complete"}
