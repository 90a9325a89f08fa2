"""How sockets end: clients that stop reading, that vanish, and a server that goes away."""

import asyncio
import gc
import json
import socket
import struct
import time
from contextlib import suppress
from types import AsyncGeneratorType

import pytest
from websockets.frames import Frame, Opcode

from graph.ws import SocketLimits
from tests.graph.ws_endpoint import INIT, Endpoint, next_, serving, until, until_closed

READER = {"type": "connection_init", "payload": {"authorization": "Bearer reader"}}
IMPATIENT = SocketLimits(send_timeout_seconds=0.4)
FLOOD = {"id": "1", "type": "subscribe", "payload": {"query": "subscription { endless(size: 65536) }"}}
HANDSHAKE = (
    b"GET /graphql HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n"
)


async def open_deaf(endpoint: Endpoint) -> socket.socket:
    """A client that asks for a flood and reads none of it."""
    loop, wire = asyncio.get_running_loop(), socket.socket()
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    wire.setblocking(False)
    await loop.sock_connect(wire, ("127.0.0.1", endpoint.port))
    await loop.sock_sendall(wire, HANDSHAKE)
    assert (await loop.sock_recv(wire, 1000)).startswith(b"HTTP/1.1 101 ")
    for message in (INIT, FLOOD):
        await loop.sock_sendall(wire, frame(Opcode.TEXT, json.dumps(message).encode()))
    return wire


def frame(opcode: Opcode, data: bytes) -> bytes:
    return Frame(opcode, data).serialize(mask=True)


async def until_quiet(endpoint: Endpoint) -> int:
    """How many values the flood's source had made when it made no more."""
    produced = -1
    while produced != endpoint.world.produced["good"]:
        produced = endpoint.world.produced["good"]
        await asyncio.sleep(0.1)
    return produced


async def read_rest(wire: socket.socket, *, within_seconds: float = 5.0) -> int:
    """How many bytes were still to come before the connection ended."""
    size = 0
    async with asyncio.timeout(within_seconds):
        try:
            while data := await asyncio.get_running_loop().sock_recv(wire, 1 << 16):
                size += len(data)
        except ConnectionResetError:
            pass
    return size


def is_left(endpoint: Endpoint, *, sockets: int) -> bool:
    """Nothing is left but that many sockets, each with one source."""
    app, state, world = endpoint.app, endpoint.server.server_state, endpoint.world
    counts = (app.open_count, app.operation_count, world.open_sources, len(state.connections), len(state.tasks))
    return set(counts) == {sockets}


async def test_a_client_that_stops_reading_is_dropped_and_nobody_else_notices():
    async with serving(SocketLimits(send_timeout_seconds=1.0)) as endpoint, endpoint.socket() as reader:
        await reader.send(READER)
        assert await reader.receive() == {"type": "connection_ack"}
        await reader.subscribe("subscription { endless(pause: 0.01) }")
        assert await reader.receive() == next_({"endless": "x"})

        deaf, started = await open_deaf(endpoint), time.monotonic()
        try:
            produced = await until_quiet(endpoint)
            assert endpoint.app.open_count == 2, "the source must stand still before the client is dropped"
            while not is_left(endpoint, sockets=1):
                assert await reader.receive() == next_({"endless": "x"})
                assert time.monotonic() - started < 1.9, "the connection must go away"

            assert endpoint.world.produced["good"] == produced
            assert await read_rest(deaf) < produced * 65536
        finally:
            deaf.close()
        for _ in range(20):
            assert await reader.receive() == next_({"endless": "x"})


@pytest.mark.parametrize("last", ["a bad frame", "a close frame", "the end of what it sends", "a complete"])
async def test_a_client_that_stops_reading_cannot_linger_by(last):
    async with serving(IMPATIENT) as endpoint:
        loop, deaf = asyncio.get_running_loop(), await open_deaf(endpoint)
        try:
            await until_quiet(endpoint)
            match last:
                case "a bad frame":
                    await loop.sock_sendall(deaf, frame(Opcode.TEXT, b"null"))
                case "a close frame":
                    await loop.sock_sendall(deaf, frame(Opcode.CLOSE, struct.pack("!H", 1000)))
                case "the end of what it sends":
                    deaf.shutdown(socket.SHUT_WR)
                case "a complete":
                    await loop.sock_sendall(deaf, frame(Opcode.TEXT, b'{"id":"1","type":"complete"}'))
                    await loop.sock_sendall(deaf, frame(Opcode.TEXT, json.dumps(FLOOD).encode()))

            await until(lambda: is_left(endpoint, sockets=0), within_seconds=2)
        finally:
            deaf.close()


async def test_a_socket_that_is_read_slowly_is_served_at_its_pace():
    async with serving(SocketLimits(send_timeout_seconds=1.0)) as endpoint:
        wire = socket.socket()
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        wire.connect(("127.0.0.1", endpoint.port))
        async with endpoint.client(max_queue=1, close_timeout=0.1, sock=wire) as client:
            await client.subscribe("subscription { endless(size: 100000) }")

            for _ in range(40):
                await asyncio.sleep(0.025)
                assert await client.receive() == next_({"endless": "x" * 100_000})

            assert endpoint.app.open_count == 1
            assert 40 <= endpoint.world.produced["good"] < 150


async def test_a_client_that_reads_again_in_time_stays():
    async with serving(SocketLimits(send_timeout_seconds=1.0)) as endpoint:
        deaf = await open_deaf(endpoint)
        try:
            await until_quiet(endpoint)
            await asyncio.get_running_loop().sock_sendall(deaf, frame(Opcode.TEXT, b'{"id":"1","type":"complete"}'))
            await until(lambda: endpoint.world.open_sources == 0, within_seconds=0.5)

            with pytest.raises(TimeoutError):
                await read_rest(deaf, within_seconds=1.5)

            assert (endpoint.app.open_count, endpoint.app.operation_count) == (1, 0)
        finally:
            deaf.close()


async def test_many_operations_of_a_slow_socket_do_not_pile_up_messages():
    async with serving() as endpoint, endpoint.client(max_queue=1, close_timeout=0.1) as client:
        for number in range(20):
            await client.subscribe("subscription { endless(size: 65536) }", key=str(number))
        sizes = asyncio.create_task(largest_buffer(endpoint))
        for _ in range(300):
            await client.receive()

        sizes.cancel()
        assert 65536 < await sizes < 3 * 65536


async def largest_buffer(endpoint: Endpoint) -> int:
    """How much the server held for its one socket at the worst moment until it was asked to look no more."""
    (connection,) = endpoint.server.server_state.connections
    largest = 0
    with suppress(asyncio.CancelledError):
        while True:
            largest = max(largest, connection.transport.get_write_buffer_size())
            await asyncio.sleep(0)
    return largest


def open_generators() -> int:
    gc.collect()
    return sum(isinstance(thing, AsyncGeneratorType) and thing.ag_frame is not None for thing in gc.get_objects())


async def vanish(endpoint: Endpoint, *, number: int) -> None:
    """Subscribe, and be gone: with a reset, with a bare end of the connection, or in good form."""
    queries = ["subscription { endless }", "subscription { blocked }", "{ slow }", "subscription { stubborn }"]
    async with endpoint.client() as client:
        for key in ("a", "b"):
            await client.subscribe(queries[number % 4], key=key)
        if number % 3 == 0:
            client.connection.transport.abort()
        elif number % 3 == 1:
            client.connection.transport.close()


async def test_clients_that_vanish_leave_no_task_and_no_generator():
    async with serving() as endpoint:
        await vanish(endpoint, number=0)
        await until(lambda: is_left(endpoint, sockets=0))
        before = (len(asyncio.all_tasks()), open_generators())

        for start in range(0, 200, 20):
            await asyncio.gather(*(vanish(endpoint, number=number) for number in range(start, start + 20)))

        await until(lambda: is_left(endpoint, sockets=0))
        await until(lambda: (len(asyncio.all_tasks()), open_generators()) == before)


async def test_draining_closes_every_socket_with_1012_over_the_time_given():
    async with serving() as endpoint, asyncio.TaskGroup() as tasks:
        ends = [tasks.create_task(serve_until_closed(endpoint)) for _ in range(5)]
        await until(lambda: endpoint.world.open_sources == 5)
        started = time.monotonic()

        await endpoint.app.drain(over_seconds=0.5)

        assert 0.45 < time.monotonic() - started < 1.5
        moments = sorted([(await end)[1] - started for end in ends])
        assert [(await end)[0] for end in ends] == [1012] * 5
        assert moments[0] < 0.2
        assert moments[-1] > 0.35
        await until(lambda: is_left(endpoint, sockets=0))


async def serve_until_closed(endpoint: Endpoint) -> tuple[int | None, float]:
    async with endpoint.client() as client:
        await client.subscribe("subscription { blocked }")
        assert [answer async for answer in until_closed(client)] == []
        return client.connection.close_code, time.monotonic()


async def test_a_socket_that_comes_while_draining_is_closed_with_1012():
    async with serving() as endpoint:
        await endpoint.app.drain(over_seconds=1.0)

        async with endpoint.socket() as client:
            assert await client.closing() == (1012, "Service restart")
        await until(lambda: is_left(endpoint, sockets=0))


async def test_a_server_that_stops_undrained_leaves_nothing_behind():
    async with serving() as endpoint, endpoint.client() as client:
        await client.subscribe("subscription { endless }", key="a")
        await client.subscribe("subscription { blocked }", key="b")
        await until(lambda: endpoint.world.open_sources == 2)

        await endpoint.server.shutdown()

        assert [answer async for answer in until_closed(client) if '"endless"' not in answer] == []
        assert client.connection.close_code == 1012
        await until(lambda: is_left(endpoint, sockets=0))


async def test_a_server_stops_although_a_client_is_closing_and_reads_nothing():
    async with serving(IMPATIENT) as endpoint:
        deaf = await open_deaf(endpoint)
        try:
            await until_quiet(endpoint)
            await asyncio.get_running_loop().sock_sendall(deaf, frame(Opcode.CLOSE, struct.pack("!H", 1000)))
            await until(lambda: endpoint.world.open_sources == 0)
            assert len(endpoint.server.server_state.connections) == 1

            await endpoint.server.shutdown()

            assert is_left(endpoint, sockets=0)
        finally:
            deaf.close()
