"""Access tokens: only their digest is kept, and only good ones open anything."""

from sqlalchemy import select, update

from core.token import Scope, Viewer
from db import tokens
from db.engine import Database
from db.tables import Event, Token
from db.types import db_now


async def test_a_token_is_found_by_its_secret_and_the_secret_is_stored_nowhere(database: Database) -> None:
    made = await tokens.create(database, name="ci", scope=Scope.OPERATE, created_by="anna")

    viewer = await tokens.viewer_of(database, made.secret)

    assert viewer == Viewer(name="ci", scope=Scope.OPERATE)
    body = made.secret.rpartition("_")[2]
    async with database.read() as session:
        row = (await session.scalars(select(Token))).one()
        event = (await session.scalars(select(Event))).one()
    assert body not in repr(vars(row))
    assert body not in repr(vars(event))
    assert (event.type, event.actor) == ("token.created", "anna")


async def test_a_token_with_one_wrong_character_is_not_found(database: Database) -> None:
    made = await tokens.create(database, name="ci", scope=Scope.READ, created_by="anna")
    last = "A" if made.secret[-1] != "A" else "B"

    for wrong in (made.secret[:-1] + last, made.secret[:-1], made.secret + "A", "mm_", "", "\x00"):
        assert await tokens.viewer_of(database, wrong) is None


async def test_a_revoked_or_expired_token_opens_nothing(database: Database) -> None:
    for column in ("revoked_at", "expires_at"):
        made = await tokens.create(database, name=column, scope=Scope.ADMIN, created_by="anna")
        async with database.write() as session:
            past = {column: db_now(plus_seconds=-1)}
            await session.execute(update(Token).where(Token.id == made.row.id).values(**past))
            await session.commit()

        assert await tokens.viewer_of(database, made.secret) is None

    assert not await tokens.exists_admin(database)


async def test_the_use_of_a_token_is_noted(database: Database) -> None:
    made = await tokens.create(database, name="ci", scope=Scope.ADMIN, created_by="anna")

    await tokens.viewer_of(database, made.secret)

    async with database.read() as session:
        assert await session.scalar(select(Token.last_used_at)) is not None
    assert await tokens.exists_admin(database)
