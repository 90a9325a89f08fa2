"""The API process's application behind its real server, in the test's own loop, and a small client for it."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
import uvicorn
from sqlalchemy import event
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from cli.api import configuration
from core.settings import Settings
from core.token import Scope
from db import tokens
from db.engine import Database
from graph.app import Api

PATIENCE_SECONDS = 10.0
NOWHERE = "http://127.0.0.1:9"
"""The address of a Hub that is not there."""
GRAPHQL_JSON = "application/graphql-response+json"

sqlite_only = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""What never reaches SQL need not be asked twice."""
postgresql_only = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)

Body = dict[str, Any]


@dataclass
class RunningApi:
    """tokens: one of each scope. database: the API's own, as its requests use it."""

    api: Api
    port: int
    tokens: Mapping[Scope, str]
    http: httpx2.AsyncClient

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def database(self) -> Database:
        return self.api.services.database

    def headers(self, scope: Scope = Scope.OPERATE) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.tokens[scope]}"}

    async def post(self, content: bytes, **headers: str) -> httpx2.Response:
        """Send a body as it is, signed in."""
        given = {"Content-Type": "application/json", **self.headers(), **headers}
        return await self.http.post("/graphql", content=content, headers=given)

    async def execute(
        self, query: str, variables: Mapping[str, Any] | None = None, token: str | None = None, **more: Any
    ) -> tuple[int, Body]:
        """Run an operation; without a token as OPERATE."""
        content = json.dumps({"query": query, "variables": variables, **more}).encode()
        headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
        response = await self.post(content, Accept=GRAPHQL_JSON, **headers)
        return response.status_code, response.json()

    async def data(self, query: str, variables: Mapping[str, Any] | None = None, token: str | None = None) -> Body:
        """Run an operation that must succeed."""
        status, body = await self.execute(query, variables, token)
        assert (status, body.get("errors")) == (200, None)
        found: Body = body["data"]
        return found

    async def refusal(self, query: str, variables: Mapping[str, Any] | None = None) -> tuple[str, list[str], str]:
        """Run an operation that must end in one error; return its code, the argument at fault and the message."""
        _, body = await self.execute(query, variables)
        assert len(body.get("errors", [])) == 1, body
        error = body["errors"][0]
        return error["extensions"]["code"], error["extensions"].get("argument", []), error["message"]

    @contextmanager
    def counting(self) -> Iterator[list[str]]:
        """Note the SQL statements of the API, without BEGIN and the noting of a token's use."""
        statements: list[str] = []

        def note(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
            if not statement.startswith(("BEGIN", "UPDATE tokens")):
                statements.append(statement)

        engine = self.database.engine.sync_engine
        event.listen(engine, "before_cursor_execute", note)
        try:
            yield statements
        finally:
            event.remove(engine, "before_cursor_execute", note)

    @asynccontextmanager
    async def socket(self, *, token: str | None = None) -> AsyncIterator["Socket"]:
        """Open a socket that was acknowledged."""
        async with self.raw_socket() as socket:
            await socket.send({"type": "connection_init", "payload": self._credentials(token)})
            assert await socket.receive() == {"type": "connection_ack"}
            yield socket

    @asynccontextmanager
    async def raw_socket(self) -> AsyncIterator["Socket"]:
        """Open a socket and say nothing."""
        async with connect(
            f"ws://127.0.0.1:{self.port}/graphql",
            subprotocols=["graphql-transport-ws"],
            compression=None,
            ping_interval=None,
            proxy=None,
        ) as connection:
            yield Socket(connection)

    def _credentials(self, token: str | None) -> dict[str, str]:
        return {"authorization": f"Bearer {token or self.tokens[Scope.READ]}"}


@dataclass
class Socket:
    """One WebSocket; the answers to our own pings are left out."""

    connection: ClientConnection

    async def send(self, message: Mapping[str, Any]) -> None:
        await self.connection.send(json.dumps(message))

    async def subscribe(self, query: str, *, key: str = "1", **variables: Any) -> None:
        await self.send({"id": key, "type": "subscribe", "payload": {"query": query, "variables": variables}})

    async def receive(self, *, within_seconds: float = PATIENCE_SECONDS) -> Body:
        async with asyncio.timeout(within_seconds):
            while True:
                message: Body = json.loads(await self.connection.recv())
                if message["type"] != "ping":
                    return message
                await self.send({"type": "pong"})

    async def next(self, *, within_seconds: float = PATIENCE_SECONDS) -> Body:
        """Receive data and nothing else."""
        message = await self.receive(within_seconds=within_seconds)
        assert message["type"] == "next", message
        assert "errors" not in message["payload"], message
        data: Body = message["payload"]["data"]
        return data

    async def silent(self, *, for_seconds: float = 0.3) -> bool:
        """Tell whether nothing comes for a while."""
        try:
            await self.receive(within_seconds=for_seconds)
        except TimeoutError:
            return True
        return False

    async def closing(self) -> int | None:
        """Wait until the server closes, and return the code."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self.connection.recv()
        except ConnectionClosed:
            return self.connection.close_code
        return None


@asynccontextmanager
async def serving(settings: Settings, *, secrets: Mapping[Scope, str]) -> AsyncIterator[RunningApi]:
    """Serve the API as its own command does."""
    api = Api(settings)
    config = configuration(settings, api)
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    assert server.started, "the API did not start"
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) as http:
            yield RunningApi(api, port, secrets, http)
    finally:
        await server.shutdown()


async def make_tokens(database: Database) -> dict[Scope, str]:
    """Make a token of each scope, named after it."""
    return {
        scope: (await tokens.create(database, name=scope.name.lower(), scope=scope, created_by="test")).secret
        for scope in Scope
    }


def settings_for(database_url: str, redis_url: str, *, hub_endpoint: str = NOWHERE) -> Settings:
    """Say where everything is."""
    return Settings(
        host="127.0.0.1",
        port=0,
        metrics_port=0,
        database_url=database_url,
        redis_url=redis_url,
        hub_endpoint=hub_endpoint,
        pvc_name="weights",
    )


def error_of(response: httpx2.Response) -> dict[str, Any]:
    """The one error of an answer without data."""
    body = response.json()
    assert set(body) == {"errors"}, body
    assert len(body["errors"]) == 1
    error: dict[str, Any] = body["errors"][0]
    return error
