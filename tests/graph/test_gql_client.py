"""The API as the `gql` client for Python meets it: another's idea of the protocols, over both of its transports."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from gql import Client, gql
from gql.transport.aiohttp import AIOHTTPTransport
from gql.transport.exceptions import TransportConnectionFailed, TransportQueryError, TransportServerError
from gql.transport.websockets import WebsocketsTransport

from core.bus import Bus, job_topic
from core.token import Scope
from db import jobs
from tests.graph import world
from tests.graph.api import RunningApi
from tests.graph.watching import PROGRESS, UNKNOWN_JOB, tell, until_live
from tests.graph.world import job_id

CANCEL = gql("mutation($id: ID!) { cancelJob(input: {jobId: $id}) { job { id state } userErrors { code path } } }")
QUERY = gql("query($first: Int) { viewer { name } jobs(first: $first) { nodes { id state } } }")


def over_http(api: RunningApi, token: str) -> Client:
    transport = AIOHTTPTransport(f"{api.url}/graphql", headers={"Authorization": f"Bearer {token}"})
    return Client(transport=transport, fetch_schema_from_transport=True)


def over_socket(api: RunningApi, token: str) -> Client:
    url = f"{api.url.replace('http', 'ws')}/graphql"
    payload = {"authorization": f"Bearer {token}"}
    return Client(transport=WebsocketsTransport(url, init_payload=payload), fetch_schema_from_transport=True)


@asynccontextmanager
async def session_of(client: Client) -> AsyncIterator[Any]:
    async with client as session:
        yield session


@pytest.mark.parametrize("connect", [over_http, over_socket])
async def test_queries_and_mutations_run_over_both_transports(api: RunningApi, connect: Any) -> None:
    job = await world.queued(api.database)

    async with session_of(connect(api, api.tokens[Scope.OPERATE])) as session:
        QUERY.variable_values = {"first": 1}
        CANCEL.variable_values = {"id": job_id(job)}
        before = await session.execute(QUERY)
        cancelled = await session.execute(CANCEL)
        again = await session.execute(CANCEL)

    assert before == {"viewer": {"name": "operate"}, "jobs": {"nodes": [{"id": job_id(job), "state": "QUEUED"}]}}
    assert cancelled == {"cancelJob": {"job": {"id": job_id(job), "state": "CANCELLED"}, "userErrors": []}}
    refused = [{"code": "CONFLICT", "path": ["input", "jobId"]}]
    assert again == {"cancelJob": {"job": None, "userErrors": refused}}


async def test_a_subscription_runs_to_its_end(api: RunningApi, bus: Bus) -> None:
    await until_live(api.api.services.bus)
    job, claim = await world.running(api.database)
    seen = []

    async with asyncio.timeout(20), session_of(over_socket(api, api.tokens[Scope.READ])) as session:
        request = gql(PROGRESS)
        request.variable_values = {"id": job_id(job)}
        async for result in session.subscribe(request):
            found = result["jobProgress"]
            seen.append((found["state"], found["progress"]["bytesDone"]))
            if len(seen) == 1:
                tell(bus, claim, 512)
            elif len(seen) == 2:
                await jobs.cancel(api.database, job.id, actor="anna")
                bus.publish(job_topic(job.id))

    assert [state for state, _ in seen] == ["RUNNING", "RUNNING", "CANCELLED"]
    assert seen[1] == ("RUNNING", 512)


@pytest.mark.parametrize("connect", [over_http, over_socket])
async def test_errors_reach_the_client_as_its_own(api: RunningApi, connect: Any) -> None:
    async with session_of(connect(api, api.tokens[Scope.READ])) as session:
        CANCEL.variable_values = {"id": UNKNOWN_JOB}
        with pytest.raises(TransportQueryError) as forbidden:
            await session.execute(CANCEL)

    (error,) = forbidden.value.errors or []
    assert (error["extensions"], error["path"]) == ({"code": "FORBIDDEN"}, ["cancelJob"])


async def test_an_unknown_job_ends_a_subscription_in_an_error(api: RunningApi) -> None:
    async with session_of(over_socket(api, api.tokens[Scope.READ])) as session:
        request = gql(PROGRESS)
        request.variable_values = {"id": UNKNOWN_JOB}
        with pytest.raises(TransportQueryError) as unknown:
            async for _ in session.subscribe(request):
                pass

    assert [error["extensions"]["code"] for error in unknown.value.errors or []] == ["NOT_FOUND"]


async def test_a_bad_token_is_told_by_both_transports(api: RunningApi) -> None:
    with pytest.raises((TransportServerError, TransportQueryError)) as over_wire:
        async with session_of(over_http(api, "mm_bad")):
            pass
    with pytest.raises(TransportConnectionFailed):
        async with session_of(over_socket(api, "mm_bad")):
            pass

    assert "401" in str(over_wire.value) or "UNAUTHENTICATED" in str(over_wire.value)
