"""Groups of identical subscriptions: what their followers hear, and what slow, deaf and vanishing ones cost."""

import asyncio
import json
import os
import random
import socket
import time
from collections.abc import AsyncIterator, Hashable
from contextlib import AsyncExitStack

import pytest
from websockets.frames import Opcode

from graph.answers import COMPLETE, Answer
from graph.groups import Group, Sharing, Telling
from graph.ws import SocketLimits
from graph.ws_connection import Begun, begin
from graph.ws_messages import SocketClosing, Subscribe
from graph.ws_operations import MAX_WAITING, Operation, SharedOperation
from tests.graph.test_ws_sockets import HANDSHAKE, READER, frame, is_left, open_generators, read_rest
from tests.graph.ws_endpoint import INIT, Client, Endpoint, complete, next_, serving, until, until_closed
from tests.graph.ws_schema import Request, share_by_token

STATES = "subscription { states }"
FLOOD = "subscription { endless(size: 20000, pause: 0.01) }"


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    async with serving(share=share_by_token) as endpoint:
        yield endpoint


async def test_identical_subscriptions_have_one_source_and_everybody_hears_it(endpoint):
    async with AsyncExitStack() as opened:
        clients = [await opened.enter_async_context(endpoint.client()) for _ in range(20)]
        for number, client in enumerate(clients):
            await client.subscribe(STATES, key=f"k{number}")
            await client.receive_all()
        assert (endpoint.world.open_sources, endpoint.app.groups.count) == (1, 1)
        assert endpoint.app.operation_count == 20

        for value in ("1", "2"):
            endpoint.world.told.put_nowait(("a", True, value))
        endpoint.world.told.put_nowait(None)

        for number, client in enumerate(clients):
            key = f"k{number}"
            heard = [await client.receive() for _ in range(3)]
            assert heard == [next_({"states": "1"}, key=key), next_({"states": "2"}, key=key), complete(key)]
        await until(lambda: is_left_of_groups(endpoint, sockets=20))


def is_left_of_groups(endpoint: Endpoint, *, sockets: int) -> bool:
    """Nothing is left but that many idle sockets."""
    app, world = endpoint.app, endpoint.world
    return (app.open_count, app.operation_count, world.open_sources, app.groups.count) == (sockets, 0, 0, 0)


@pytest.mark.parametrize("other", [{"variables": {"a": 1}}, {"operationName": "S"}, {"token": READER}])
async def test_what_differs_in_anything_that_matters_runs_apart(endpoint, other):
    query = "subscription S { states }"
    async with endpoint.client() as one, endpoint.socket() as another:
        await another.send(other.pop("token", INIT))
        assert await another.receive() == {"type": "connection_ack"}
        await one.subscribe(query)
        await another.subscribe(query, **other)
        await until(lambda: endpoint.world.open_sources == 2)

        assert endpoint.app.groups.count == 2


async def test_a_newcomer_hears_the_newest_of_each_subject_that_is_current_and_then_what_comes(endpoint):
    async with endpoint.client() as first, endpoint.client() as late:
        await first.subscribe(STATES)
        for told in (("a", True, "a1"), ("b", True, "b1"), ("c", True, "c1"), ("a", True, "a2"), ("b", False, "b2")):
            endpoint.world.told.put_nowait(told)
        assert [(await first.receive())["payload"]["data"]["states"] for _ in range(5)] == [
            "a1",
            "b1",
            "c1",
            "a2",
            "b2",
        ]

        await late.subscribe(STATES)
        assert await late.receive_all() == [next_({"states": "c1"}), next_({"states": "a2"})]
        endpoint.world.told.put_nowait(("c", True, "c2"))

        assert await late.receive() == next_({"states": "c2"})
        assert await first.receive() == next_({"states": "c2"})
        assert endpoint.world.open_sources == 1


async def test_the_source_ends_with_its_last_follower_and_begins_anew_with_the_next(endpoint):
    async with endpoint.client() as one, endpoint.client() as other:
        for client in (one, other):
            await client.subscribe(STATES)
        await until(lambda: endpoint.world.open_sources == 1)
        endpoint.world.told.put_nowait(("a", True, "old"))
        assert await one.receive() == await other.receive() == next_({"states": "old"})

        await one.complete("1")
        assert await one.receive_all() == []
        assert endpoint.world.open_sources == 1
        await other.complete("1")
        await until(lambda: is_left_of_groups(endpoint, sockets=2))

        await one.subscribe(STATES)
        endpoint.world.told.put_nowait(("a", True, "new"))
        assert await one.receive() == next_({"states": "new"})
        assert await other.receive_all() == []


async def test_a_shared_refusal_reaches_everybody_once_and_the_next_one_tries_again(endpoint):
    async with endpoint.client() as one, endpoint.client() as other:
        for client in (one, other, one):
            await client.subscribe("subscription { refused }")
            answer = await client.receive()
            assert (answer["type"], answer["payload"][0]["message"]) == ("error", "no such job")
            assert await client.receive_all() == []


async def test_a_fault_of_ours_in_a_group_closes_its_sockets_with_4500(endpoint):
    async with endpoint.socket() as client:
        await client.send({"type": "connection_init", "payload": {"authorization": "Bearer unlucky"}})
        assert await client.receive() == {"type": "connection_ack"}

        await client.subscribe("subscription { refused }")

        assert await client.closing() == (4500, "Internal server error")
    await until(lambda: is_left_of_groups(endpoint, sockets=0))


async def open_deaf(endpoint: Endpoint) -> socket.socket:
    """A client that follows the flood and reads none of it."""
    loop, wire = asyncio.get_running_loop(), socket.socket()
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    wire.setblocking(False)
    await loop.sock_connect(wire, ("127.0.0.1", endpoint.port))
    await loop.sock_sendall(wire, HANDSHAKE)
    assert (await loop.sock_recv(wire, 1000)).startswith(b"HTTP/1.1 101 ")
    for message in (INIT, {"id": "1", "type": "subscribe", "payload": {"query": FLOOD}}):
        await loop.sock_sendall(wire, frame(Opcode.TEXT, json.dumps(message).encode()))
    return wire


async def test_ten_readers_that_stop_reading_are_closed_and_nobody_else_misses_anything():
    limits = SocketLimits(send_timeout_seconds=1.0)
    async with serving(limits, share=share_by_token) as endpoint, endpoint.client() as reader:
        await reader.subscribe(FLOOD)
        heard = asyncio.create_task(count(reader))
        deaf = [await open_deaf(endpoint) for _ in range(10)]
        try:
            await until(lambda: endpoint.app.open_count == 11)
            assert endpoint.world.open_sources == 1
            largest, started = 0, time.monotonic()
            while endpoint.app.open_count > 1 or len(endpoint.server.server_state.connections) > 1:
                held = [one.transport.get_write_buffer_size() for one in endpoint.server.server_state.connections]
                largest = max(largest, *held)
                assert time.monotonic() - started < 4, "they must be closed in time"
                await asyncio.sleep(0.01)

            produced = endpoint.world.produced["good"]
            assert largest < 2 * 65536
            assert await asyncio.gather(*(read_rest(wire) for wire in deaf))
        finally:
            for wire in deaf:
                wire.close()
        await reader.complete("1")
        await until(lambda: is_left_of_groups(endpoint, sockets=1))
        await reader.send({"type": "ping", "payload": {"until": "now"}})
        assert await heard >= produced > 50


async def count(client: Client) -> int:
    """How many values came before the answer to a ping."""
    values = 0
    while (await client.receive())["type"] == "next":
        values += 1
    return values


async def vanish(endpoint: Endpoint, *, number: int) -> None:
    """Join one of a few groups, and be gone: with a reset, with a bare end of the connection, or in good form."""
    async with endpoint.client() as client:
        for key in ("a", "b"):
            await client.subscribe(STATES, key=key, operationName=None, variables={"group": number % 3})
        if number % 3 == 0:
            client.connection.transport.abort()
        elif number % 3 == 1:
            client.connection.transport.close()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_a_thousand_clients_that_come_and_vanish_leave_no_task_no_descriptor_and_no_group(endpoint):
    await vanish(endpoint, number=0)
    await until(lambda: is_left(endpoint, sockets=0))
    before = (len(asyncio.all_tasks()), open_generators(), descriptors())

    for start in range(0, 1000, 50):
        endpoint.world.told.put_nowait(("a", True, "x"))
        await asyncio.gather(*(vanish(endpoint, number=number) for number in range(start, start + 50)))

    await until(lambda: is_left(endpoint, sockets=0) and endpoint.app.groups.count == 0)
    await until(lambda: (len(asyncio.all_tasks()), open_generators(), descriptors()) == before)


async def test_draining_closes_the_followers_of_a_group_with_1012(endpoint):
    async with AsyncExitStack() as opened:
        clients = [await opened.enter_async_context(endpoint.client()) for _ in range(5)]
        for client in clients:
            await client.subscribe(STATES)
        await until(lambda: endpoint.app.operation_count == 5)

        await endpoint.app.drain(over_seconds=0.2)

        for client in clients:
            assert [message async for message in until_closed(client)] == []
            assert client.connection.close_code == 1012
    await until(lambda: is_left(endpoint, sockets=0) and endpoint.app.groups.count == 0)


class Wire:
    """A socket that takes messages at times of its own choosing, and notes them."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.sent: list[str] = []
        self.closing: SocketClosing | None = None
        self.lock = asyncio.Lock()
        self.tasks: set[asyncio.Task[None]] = set()

    async def _take(self, text: str) -> None:
        for _ in range(self.rng.choice((0, 0, 0, 1, 5, 40))):
            await asyncio.sleep(0)
        self.sent.append(text)

    def push(self, text: str, operation: Operation) -> Begun | None:
        return begin(self.send(text, operation=operation))

    async def send(self, text: str, *, operation: Operation) -> None:
        async with self.lock:
            if not operation.is_stopped:
                await self._take(text)

    def start(self, work, *values) -> asyncio.Task[None]:
        task = asyncio.create_task(work(*values))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def forget(self, operation: Operation) -> None:
        self.sent.append(f"forgotten: {operation.id}")

    def end(self, closing: SocketClosing | None) -> None:
        self.closing = closing


def follower(wire: Wire) -> SharedOperation:
    return SharedOperation(Subscribe("1", Request(STATES, None, None, None)), wire)


@pytest.mark.parametrize("seed", range(200))
async def test_whoever_joins_whenever_and_reads_however_hears_a_rising_tail_that_ends_with_the_end(seed):
    rng, telling = random.Random(seed), Telling()
    group = Group(Request(STATES, None, None, None), Sharing(key="k", context=None, telling=telling))
    wires: list[tuple[Wire, dict[str, int]]] = []
    told: dict[Hashable, int] = {}
    for number in range(rng.randrange(1, 120)):
        if rng.random() < 0.15:
            wires.append((Wire(rng), dict(told)))
            group.join(follower(wires[-1][0]))
        subject = rng.choice("abc")
        told[subject] = number
        telling.of(subject, is_current=True)
        group.tell(Answer(type="next", payload=json.dumps([subject, number])))
        for _ in range(rng.choice((0, 1, 10))):
            await asyncio.sleep(0)
    group.end(COMPLETE)
    await asyncio.gather(*(task for wire, _ in wires for task in wire.tasks))

    for wire, known in wires:
        *messages, last, forgotten = wire.sent
        assert (json.loads(last)["type"], forgotten) == ("complete", "forgotten: 1")
        heard = [json.loads(text)["payload"] for text in messages]
        for subject, newest in told.items():
            numbers = [number for one, number in heard if one == subject]
            assert numbers == sorted(set(numbers)), "nothing twice and nothing back"
            assert numbers[-1] == newest, "the last word on each subject always comes"
            assert numbers[0] >= known.get(subject, 0)


async def test_a_slow_follower_keeps_one_answer_for_each_subject():
    wire, telling = Wire(random.Random(1)), Telling()
    group = Group(Request(STATES, None, None, None), Sharing(key="k", context=None, telling=telling))
    await wire.lock.acquire()
    group.join(follower(wire))

    for number in range(MAX_WAITING * 3):
        telling.of(number % 7, is_current=True)
        group.tell(Answer(type="next", payload=str(number)))
    wire.lock.release()
    await asyncio.gather(*wire.tasks)

    assert [json.loads(text)["payload"] for text in wire.sent] == [0, *range(MAX_WAITING * 3 - 7, MAX_WAITING * 3)]


async def test_a_follower_with_too_much_to_catch_up_with_is_closed_with_4008():
    wire, telling = Wire(random.Random(1)), Telling()
    group = Group(Request(STATES, None, None, None), Sharing(key="k", context=None, telling=telling))
    await wire.lock.acquire()
    group.join(follower(wire))

    for number in range(MAX_WAITING + 2):
        telling.of(number, is_current=False)
        group.tell(Answer(type="next", payload="1"))

    assert wire.closing is not None
    assert wire.closing.code == 4008
    for task in wire.tasks:
        task.cancel()
    await asyncio.gather(*wire.tasks, return_exceptions=True)
