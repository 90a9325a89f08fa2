"""The rules of graphql-transport-ws, one by one, over real sockets."""

import json
import time
from collections.abc import AsyncIterator

import pytest
from websockets.exceptions import InvalidStatus

from graph.ws import SocketLimits, share_nothing
from graph.ws_connection import is_same_origin
from tests.graph.ws_endpoint import INIT, Endpoint, complete, next_, serving, until, until_closed
from tests.graph.ws_schema import GOOD_TOKEN, share_by_token

MASKED = {"message": "masked", "viewer": GOOD_TOKEN}


@pytest.fixture(params=[share_nothing, share_by_token], ids=["own", "shared"])
async def endpoint(request: pytest.FixtureRequest) -> AsyncIterator[Endpoint]:
    """The rules are the same for operations that run by themselves and for those that follow a group."""
    async with serving(share=request.param) as endpoint:
        yield endpoint


# What operations answer


async def test_a_query_answers_one_next_then_complete(endpoint):
    async with endpoint.client() as client:
        await client.subscribe("query Q($n: String!) { hello(name: $n) }", variables={"n": "Ä"}, operationName="Q")

        assert [await client.receive(), await client.receive()] == [next_({"hello": "hello Ä"}), complete()]
        assert await client.receive_all() == []


async def test_a_mutation_runs_once_and_completes(endpoint):
    async with endpoint.client() as client:
        await client.subscribe("mutation { increment }")

        assert [await client.receive(), await client.receive()] == [next_({"increment": 1}), complete()]
        assert endpoint.world.mutations == 1


async def test_a_subscription_answers_every_value_then_complete(endpoint):
    async with endpoint.client() as client:
        await client.subscribe("subscription { count(to: 3) }", key='a"\\ü')

        messages = [await client.receive() for _ in range(4)]
        values = [next_({"count": number}, key='a"\\ü') for number in (1, 2, 3)]
        assert messages == [*values, complete('a"\\ü')]
        assert endpoint.world.open_sources == 0


async def test_an_id_may_be_used_again_when_its_operation_has_completed(endpoint):
    async with endpoint.client() as client:
        for _ in range(3):
            await client.subscribe("{ hello }")
            assert [await client.receive(), await client.receive()] == [next_({"hello": "hello you"}), complete()]


async def test_operations_run_side_by_side(endpoint):
    async with endpoint.client() as client:
        await client.subscribe("subscription { blocked }", key="waits")
        await client.subscribe("{ hello }", key="quick")
        assert [await client.receive(), await client.receive()] == [
            next_({"hello": "hello you"}, key="quick"),
            complete("quick"),
        ]
        assert endpoint.app.operation_count == 1

        endpoint.world.gate.set()

        assert [await client.receive(), await client.receive()] == [
            next_({"blocked": 1}, key="waits"),
            complete("waits"),
        ]
        assert endpoint.app.operation_count == 0


@pytest.mark.parametrize(
    ("query", "more", "message"),
    [
        ("{ hello", {}, "Syntax Error: Expected Name, found <EOF>."),
        ("", {}, 'Request data is missing a "query" value'),
        (" ", {}, "Syntax Error: Unexpected <EOF>."),
        ("{ nothing }", {}, "Cannot query field 'nothing' on type 'Query'."),
        ("query A { hello } query B { hello }", {"operationName": "C"}, 'Unknown operation named "C".'),
        ("query ($n: String!) { hello(name: $n) }", {}, None),
        ("query ($n: Int!) { hello }", {"variables": {"n": 10**400 % 10**30}}, None),
        ("subscription { refused }", {}, "no such job"),
        ("subscription { forbidden }", {}, None),
        ("{ unencodable }", {}, "masked"),
        ("{ a" * 4000, {}, None),
        ("query ($v: JSON!) { echo(value: $v) }", {"variables": {"v": json.loads("[" * 900 + "]" * 900)}}, None),
        ("{ hello } # " + "x" * 20_000, {}, "The document must be no larger than 16384 bytes."),
    ],
)
async def test_a_refused_request_answers_one_error_and_no_complete(endpoint, query, more, message):
    async with endpoint.client() as client:
        await client.subscribe(query, **more)

        answer = await client.receive()
        assert (answer["id"], answer["type"]) == ("1", "error")
        assert [error["viewer"] for error in answer["payload"]] == [GOOD_TOKEN] * len(answer["payload"])
        assert message in {None, answer["payload"][0]["message"]}
        assert await client.receive_all() == []
        assert (endpoint.app.operation_count, endpoint.world.open_sources) == (0, 0)


async def test_a_failing_field_is_part_of_a_result(endpoint):
    async with endpoint.client() as client:
        await client.subscribe("{ broken }")

        error = MASKED | {"path": ["broken"]}
        assert [await client.receive(), await client.receive()] == [next_(None, errors=[error]), complete()]


async def test_a_failing_field_of_a_subscription_does_not_end_it(endpoint):
    async with endpoint.client() as client:
        await client.subscribe("subscription { ticks { number broken } }")

        answers = [await client.receive() for _ in range(3)]
        failed = next_(None, errors=[MASKED | {"path": ["ticks", "broken"]}])
        assert answers == [failed, failed, complete()]


@pytest.mark.parametrize("name", ["failsMidway", "unencodableMidway"])
async def test_an_exception_of_a_running_source_is_one_next_without_data_then_complete(endpoint, name):
    async with endpoint.client() as client:
        await client.subscribe(f"subscription {{ {name} }}")

        answers = [await client.receive() for _ in range(3)]
        assert answers == [next_({name: 1}), next_(None, errors=[MASKED]), complete()]
        assert endpoint.world.open_sources == 0


# Stopping


@pytest.mark.parametrize("query", ["subscription { endless }", "subscription { blocked }", "{ slow }"])
async def test_complete_stops_an_operation_without_an_answer(endpoint, query):
    async with endpoint.client() as client:
        await client.subscribe(query)
        await until(lambda: endpoint.world.open_sources == 1)

        await client.complete("1")

        await client.receive_all()
        endpoint.world.gate.set()
        assert await client.receive_all() == []
        await until(lambda: endpoint.world.open_sources == 0)
        assert endpoint.app.operation_count == 0


async def test_a_source_that_ignores_being_stopped_is_not_heard(endpoint):
    async with endpoint.client() as client:
        await client.subscribe("subscription { stubborn }")
        await until(lambda: endpoint.world.open_sources == 1)

        await client.complete("1")

        assert await client.receive_all() == []
        assert await client.receive_all() == []


async def test_an_operation_stopped_before_its_first_step_never_runs(endpoint):
    async with endpoint.client() as client:
        for _ in range(20):
            await client.subscribe("mutation { increment }")
            await client.complete("1")

        answers = await client.receive_all()
        assert len(answers) <= 2 * endpoint.world.mutations
        assert endpoint.app.operation_count == 0


async def test_an_id_may_be_used_again_right_after_complete(endpoint):
    async with endpoint.client() as client:
        await client.subscribe("subscription { blocked }")
        await client.complete("1")
        await client.subscribe("subscription { count(to: 1) }")

        assert await client.receive() == next_({"count": 1})
        assert await client.receive() == complete()


async def test_complete_for_an_operation_that_is_over_or_never_was_is_ignored(endpoint):
    async with endpoint.client() as client:
        await client.subscribe("{ hello }")
        assert [await client.receive(), await client.receive()] == [next_({"hello": "hello you"}), complete()]

        await client.complete("1")
        await client.complete("never was")

        assert await client.receive_all() == []


# Beginning


async def test_the_subprotocol_is_confirmed(endpoint):
    async with endpoint.socket(subprotocols=["graphql-ws", "graphql-transport-ws"]) as client:
        assert client.connection.subprotocol == "graphql-transport-ws"


@pytest.mark.parametrize("subprotocols", [None, ["graphql-ws"]])
async def test_another_subprotocol_is_closed_with_4406(endpoint, subprotocols):
    async with endpoint.socket(subprotocols=subprotocols) as client:
        assert await client.closing() == (4406, "Subprotocol not acceptable")
    assert endpoint.app.open_count == 0


@pytest.mark.parametrize("authorization", ["Bearer good", "bearer good", "BEARER   good "])
async def test_a_good_token_is_acknowledged(endpoint, authorization):
    async with endpoint.socket() as client:
        await client.send({"type": "connection_init", "payload": {"authorization": authorization}})

        assert await client.receive() == {"type": "connection_ack"}
        assert endpoint.app.open_count == 1


@pytest.mark.parametrize(
    "init",
    [
        {},
        {"payload": None},
        {"payload": {}},
        *({"payload": {"authorization": value}} for value in ("good", "Basic good", "Bearer", "Bearer bad", 1, None)),
    ],
)
async def test_no_token_or_a_bad_one_is_closed_with_4403(endpoint, init):
    async with endpoint.socket() as client:
        await client.send({"type": "connection_init"} | init)

        assert await client.closing() == (4403, "Forbidden")


@pytest.mark.parametrize("token", ["broken", "hanging"])
async def test_signing_in_that_cannot_be_done_now_is_closed_with_1013(token):
    async with serving(SocketLimits(init_timeout_seconds=0.2)) as endpoint, endpoint.socket() as client:
        await client.send({"type": "connection_init", "payload": {"authorization": f"Bearer {token}"}})

        assert await client.closing() == (1013, "Try again later")


async def test_no_connection_init_in_time_is_closed_with_4408():
    async with serving(SocketLimits(init_timeout_seconds=0.1)) as endpoint, endpoint.socket() as client:
        await client.send({"type": "ping"})
        assert await client.receive() == {"type": "pong"}

        assert await client.closing() == (4408, "Connection initialisation timeout")


async def test_a_second_connection_init_is_closed_with_4429(endpoint):
    async with endpoint.client() as client:
        await client.send(INIT)

        assert await client.closing() == (4429, "Too many initialisation requests")


async def test_subscribing_before_the_acknowledgement_is_closed_with_4401(endpoint):
    async with endpoint.socket() as client:
        await client.subscribe("mutation { increment }")

        assert await client.closing() == (4401, "Unauthorized")
    assert endpoint.world.mutations == 0


async def test_a_fault_of_ours_is_closed_with_4500(endpoint):
    async with endpoint.socket() as client:
        await client.send({"type": "connection_init", "payload": {"authorization": "Bearer unlucky"}})
        assert await client.receive() == {"type": "connection_ack"}

        await client.subscribe("{ nothing }")

        assert await client.closing() == (4500, "Internal server error")


async def test_an_id_in_use_is_closed_with_4409(endpoint):
    async with endpoint.client() as client:
        await client.subscribe("subscription { blocked }", key="ä" * 64)
        await client.subscribe("mutation { increment }", key="ä" * 64)

        assert await client.closing() == (4409, ("Subscriber for " + "ä" * 54))
    await until(lambda: (endpoint.world.open_sources, endpoint.app.open_count) == (0, 0))
    assert endpoint.world.mutations == 0


# Ping and pong


@pytest.mark.parametrize("payload", [{}, {"payload": {}}, {"payload": {"a": [1, None, "ü"], "b": 2.5}}])
async def test_a_ping_is_answered_with_what_it_carried(endpoint, payload):
    async with endpoint.socket() as client:
        await client.send({"type": "ping"} | payload)

        assert await client.receive() == {"type": "pong"} | payload


async def test_an_unasked_pong_is_taken_without_an_answer(endpoint):
    async with endpoint.client() as client:
        await client.send({"type": "pong", "payload": {"a": 1}})

        assert await client.receive_all() == []


LIVELY = SocketLimits(ping_interval_seconds=0.05, pong_timeout_seconds=0.3)


async def test_a_client_that_answers_pings_stays():
    async with serving(LIVELY) as endpoint, endpoint.client() as client:
        for _ in range(12):
            assert await client.receive() == {"type": "ping"}
            await client.send({"type": "pong"})

        assert endpoint.app.open_count == 1


async def test_a_client_that_stays_silent_is_closed_with_4008():
    async with serving(LIVELY) as endpoint, endpoint.client() as client:
        await client.subscribe("subscription { blocked }")
        started = time.monotonic()

        heard = [frame async for frame in until_closed(client)]

        assert client.connection.close_code == 4008
        assert client.connection.close_reason == "No message came in time, not even a pong"
        assert 0.25 < time.monotonic() - started < 2
        assert len(heard) >= 3
        assert set(heard) == {'{"type":"ping"}'}
        await until(lambda: (endpoint.world.open_sources, endpoint.app.open_count) == (0, 0))


# What is not a message

SUBSCRIBE = {"id": "1", "type": "subscribe", "payload": {"query": "mutation { increment }"}}
JSON_EXPECTED = "a message must be JSON"
OBJECT_EXPECTED = "a message must be a JSON object"
TYPE_EXPECTED = "type must be connection_init, subscribe, complete, ping or pong"
ID_EXPECTED = "id must be a string of 1 to 64 characters"
BAD_FRAMES = [
    *((text, JSON_EXPECTED) for text in ("", "x", "{", "NaN", '{"type": NaN}', "[" * 100_000, '{"a":' * 100_000)),
    *((text, JSON_EXPECTED) for text in ('{"type": "ping", "payload": {"a": "\\ud800"}}', "-" + "9" * 5000)),
    *((text, OBJECT_EXPECTED) for text in ("null", "[]", '"x"', "1", "9" * 40, "true", "[[]]")),
    *((value, TYPE_EXPECTED) for value in ({}, {"type": None}, {"type": 1}, {"type": []}, {"type": {}})),
    *(({"type": name}, TYPE_EXPECTED) for name in ("", "PING", "next", "error", "connection_ack", "start", "ping\0")),
    ('{"type": "ping", "type": "nothing"}', TYPE_EXPECTED),
    *((SUBSCRIBE | {"id": value}, ID_EXPECTED) for value in (None, 1, [1], {}, "", "x" * 65, True)),
    *(({"type": "complete", "id": value}, ID_EXPECTED) for value in (None, 1, [], "", "x" * 65)),
    *((SUBSCRIBE | {"payload": value}, "payload must be an object") for value in (None, "x", [], 1)),
    *((SUBSCRIBE | {"payload": {"query": value}}, "payload.query must be a string") for value in (None, 1, [], {})),
    *(
        (
            SUBSCRIBE | {"payload": {"query": "{ hello }", name: value}},
            f"payload.{name} must be {kind} or null",
        )
        for name, kind, values in (
            ("variables", "an object", ("x", [], 1, False)),
            ("extensions", "an object", ("x", [], 1, False)),
            ("operationName", "a string", ([], {}, 1, False)),
        )
        for value in values
    ),
    *(
        ({"type": name, "payload": value}, "payload must be an object or null")
        for name in ("ping", "pong", "connection_init")
        for value in ("x", [], 1, False)
    ),
    (
        '{"type": "ping", "payload": {"a": ' + "[" * 500 + "]" * 500 + "}}",
        "payload must not be nested deeper than 250 levels",
    ),
    (json.dumps(SUBSCRIBE).encode(), "a message must be a text frame, not a binary one"),
    (b"", "a message must be a text frame, not a binary one"),
]


async def test_a_malformed_message_is_closed_with_4400_and_what_would_be_right(endpoint):
    async with endpoint.client() as onlooker:
        for frame, reason in BAD_FRAMES:
            async with endpoint.client() as client:
                await client.subscribe("subscription { blocked }", key="running")
                await client.send(frame)

                assert await client.closing() == (4400, reason), frame

        assert await onlooker.receive_all() == []
        await until(lambda: (endpoint.world.open_sources, endpoint.app.open_count) == (0, 1))
        assert endpoint.world.mutations == 0


async def test_what_the_protocol_does_not_name_is_overlooked(endpoint):
    async with endpoint.client() as client:
        payload = {"query": "{ hello }", "variables": None, "extensions": None, "operationName": None, "more": 1}
        await client.send({"id": "1", "type": "subscribe", "payload": payload, "more": 10**30})

        assert [await client.receive(), await client.receive()] == [next_({"hello": "hello you"}), complete()]


async def test_a_frame_too_large_is_closed_with_1009_before_it_is_read():
    async with serving(SocketLimits(frame_bytes=1000)) as endpoint, endpoint.client() as client:
        await client.send('"' + "x" * 999 + '"')

        code, _ = await client.closing()
        assert code == 1009


@pytest.mark.parametrize("character", ["x", "ü"])
async def test_a_frame_too_large_is_closed_with_4400_where_the_server_let_it_through(character):
    async with serving(SocketLimits(frame_bytes=1000), ws_max_size=5000) as endpoint, endpoint.client() as client:
        await client.send('"' + character * (1000 // len(character.encode())) + '"')

        assert await client.closing() == (4400, "a message must be no larger than 1000 bytes")


async def test_one_operation_too_many_is_an_error_and_the_socket_stays():
    async with serving(SocketLimits(operations=2)) as endpoint, endpoint.client() as client:
        for key in ("1", "2"):
            await client.subscribe("subscription { blocked }", key=key)
        await client.subscribe("mutation { increment }", key="3")

        error = {"message": "At most 2 operations may run on one socket.", "viewer": GOOD_TOKEN}
        assert await client.receive() == {"id": "3", "type": "error", "payload": [error]}

        await client.complete("1")
        await until(lambda: endpoint.world.open_sources == 1)
        await client.subscribe("mutation { increment }", key="3")
        assert [await client.receive(), await client.receive()] == [next_({"increment": 1}, key="3"), complete("3")]


@pytest.mark.parametrize("share", [share_nothing, share_by_token])
async def test_one_operation_too_many_in_a_minute_is_closed_with_1008(share):
    async with serving(SocketLimits(subscribes_per_minute=3), share=share) as endpoint, endpoint.client() as client:
        for key in ("1", "2", "3"):
            await client.subscribe("subscription { blocked }", key=key)
        await client.subscribe("mutation { increment }", key="4")

        assert await client.closing() == (1008, "At most 3 operations may begin on one socket in a minute")
        await until(lambda: endpoint.world.open_sources == 0)
        assert endpoint.world.mutations == 0


# Where pages come from


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://[", "file://", "http://127.0.0.1"])
async def test_a_page_of_another_host_is_refused_before_the_handshake(endpoint, origin):
    with pytest.raises(InvalidStatus) as refusal:
        async with endpoint.socket(origin=origin):
            pass

    assert refusal.value.response.status_code == 403
    assert endpoint.app.open_count == 0


async def test_a_page_of_the_same_host_or_of_an_allowed_one_is_welcome():
    async with serving(allowed_origins=frozenset({"https://ui.example"})) as endpoint:
        for origin in (f"http://127.0.0.1:{endpoint.port}", "https://ui.example", None):
            async with endpoint.client(origin=origin) as client:
                assert await client.receive_all() == []


@pytest.mark.parametrize(
    ("host", "origin", "is_same"),
    [
        (b"mm.example", b"https://mm.example", True),
        (b"MM.example", b"https://mm.EXAMPLE:443", True),
        (b"mm.example:443", b"https://mm.example", True),
        (b"mm.example:80", b"http://mm.example", True),
        (b"[::1]:8000", b"http://[::1]:8000", True),
        (b"mm.example:8000", b"http://mm.example", False),
        (b"mm.example", b"https://mm.example.evil.example", False),
        (b"mm.example", b"https://mm.example@evil.example", False),
        (b"mm.example", b"ftp://mm.example", False),
        (b"mm.example", b"", False),
        (b"mm.example", b"\xff", False),
    ],
)
def test_hosts_are_compared_whole(host, origin, is_same):
    headers = [(b"Host", host), (b"Origin", origin)]

    assert is_same_origin(headers, allowed_origins=frozenset()) is is_same
