"""The server for tests starts, stops and says when an application does not come up."""

import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import urllib3
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from tests.fakes.server import AppServer


async def greet(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"hello {request.url.path}")


APP = Starlette(routes=[Route("/{rest:path}", greet)])


def test_an_application_is_served_until_the_block_ends() -> None:
    with AppServer(APP) as server, urllib3.PoolManager(retries=False) as http:
        answer = http.request("GET", f"{server.url}/you")

        assert answer.data == b"hello /you"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port))


def test_a_port_once_picked_is_kept_over_a_restart() -> None:
    server = AppServer(APP)
    with server:
        first = server.url
    with server, urllib3.PoolManager(retries=False) as http:
        assert server.url == first
        assert http.request("GET", f"{first}/").status == 200


def test_idle_connections_do_not_hold_up_a_stop() -> None:
    with AppServer(APP) as server, socket.create_connection(("127.0.0.1", server.port)):
        started = time.monotonic()

        server.stop()

        assert time.monotonic() - started < 1.0


def test_an_application_that_does_not_start_is_an_error() -> None:
    @asynccontextmanager
    async def broken(_app: Starlette) -> AsyncIterator[None]:
        raise ValueError("not today")
        yield

    with pytest.raises(RuntimeError, match="did not start"):
        AppServer(Starlette(lifespan=broken)).start()
