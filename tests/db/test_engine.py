"""The transaction rules: several processes write at once, nothing is lost, and the journal has no gap."""

import asyncio
import sys
from pathlib import Path

from sqlalchemy import select, update

from core.token import Scope
from db import tokens
from db.engine import Database, NewEvent
from db.tables import Event, Journal, Token

ROOT = Path(__file__).parents[2]
WRITERS = """
import asyncio, sys
from sqlalchemy import update
from db.engine import Database, NewEvent
from db.tables import Token

async def write(database, name):
    for number in range(20):
        async with database.write() as session:
            await session.execute(update(Token).values(name=Token.name + "x"))
            await session.commit_with(NewEvent(type="test", message=name, actor=name, data={"number": number}))

async def main(url, name):
    database = Database(url)
    await asyncio.gather(*(write(database, f"{name}.{writer}") for writer in range(8)))
    await database.close()

asyncio.run(main(*sys.argv[1:]))
"""


async def test_eight_writers_in_each_of_three_processes_lose_nothing(database: Database) -> None:
    await tokens.create(database, name="", scope=Scope.READ, created_by="test")

    command = [sys.executable, "-c", WRITERS, database.url]
    writers = [
        await asyncio.create_subprocess_exec(*command, name, cwd=ROOT, stderr=asyncio.subprocess.PIPE) for name in "abc"
    ]
    for writer in writers:
        _, errors = await asyncio.wait_for(writer.communicate(), 120)
        assert writer.returncode == 0, errors.decode()

    written = 3 * 8 * 20
    async with database.read() as session:
        assert len(await session.scalar(select(Token.name)) or "") == written
        positions = (await session.scalars(select(Event.position).order_by(Event.position))).all()
        order = (await session.execute(select(Event.message, Event.data).order_by(Event.position).offset(1))).all()
    assert list(positions) == list(range(1, written + 2))
    for name in {message for message, _ in order}:
        numbers = [data["number"] for message, data in order if message == name]
        assert numbers == sorted(numbers)


async def test_a_transaction_that_is_not_committed_leaves_nothing(database: Database) -> None:
    async with database.write() as session:
        await session.execute(update(Journal).values(position=99))

    async with database.write() as session:
        assert await session.commit_with(NewEvent(type="a", message="a", actor="a")) == 1


async def test_several_events_of_one_transaction_have_neighbouring_positions(database: Database) -> None:
    events = [NewEvent(type=name, message=name, actor="test") for name in ("a", "b", "c")]

    async with database.write() as session:
        last = await session.commit_with(*events)

    async with database.read() as session:
        found = (await session.execute(select(Event.position, Event.type).order_by(Event.position))).all()
    assert last == 3
    assert [tuple(row) for row in found] == [(1, "a"), (2, "b"), (3, "c")]
