"""Access tokens: making, finding and counting them."""

from collections.abc import Collection
from uuid import UUID

from sqlalchemy import func, insert, select, update

from core.event import EventType
from core.ids import new_id
from core.token import NewToken, Scope, Viewer, digest_of, is_same, make_token, split_token
from db.engine import Database, NewEvent
from db.tables import Token
from db.types import db_now

USE_NOTED_EVERY_SECONDS = 60.0


async def create(database: Database, *, name: str, scope: Scope, created_by: str) -> NewToken:
    """Make a token and keep its digest."""
    made = make_token()
    async with database.write() as session:
        await session.execute(
            insert(Token).values(
                id=new_id(),
                name=name,
                prefix=made.prefix,
                digest=made.digest,
                scope=scope,
                created_by=created_by,
                created_at=db_now(),
            )
        )
        await session.commit_with(
            NewEvent(
                type=EventType.TOKEN_CREATED,
                actor=created_by,
                message=f"Token {name} with scope {scope.name} made",
                data={"name": name, "prefix": made.prefix, "scope": scope.name},
            )
        )
    return made


async def exists_admin(database: Database) -> bool:
    """Tell whether any token that is good has scope ADMIN."""
    async with database.read() as session:
        statement = select(func.count()).where(
            Token.scope == Scope.ADMIN,
            Token.revoked_at.is_(None),
            (Token.expires_at.is_(None)) | (Token.expires_at > db_now()),
        )
        return bool(await session.scalar(statement))


async def viewer_of(database: Database, secret: str) -> Viewer | None:
    """Find who a token belongs to; None when it is not good (any more)."""
    parts = split_token(secret)
    if parts is None:
        return None
    prefix, body = parts
    async with database.read() as session:
        statement = select(Token, Token.last_used_at < db_now(plus_seconds=-USE_NOTED_EVERY_SECONDS)).where(
            Token.prefix == prefix,
            Token.revoked_at.is_(None),
            (Token.expires_at.is_(None)) | (Token.expires_at > db_now()),
        )
        found = (await session.execute(statement)).first()
    if found is None or not is_same(found[0].digest, digest_of(body)):
        return None
    token, is_note_old = found
    if token.last_used_at is None or is_note_old:
        await _note_use(database, token)
    return Viewer(name=token.name, scope=token.scope, expires_at=token.expires_at, token_id=token.id)


async def still_good(database: Database, token_ids: Collection[UUID]) -> set[UUID]:
    """Find which tokens are neither revoked nor expired nor gone, in one statement."""
    async with database.read() as session:
        statement = select(Token.id).where(
            Token.id.in_(token_ids),
            Token.revoked_at.is_(None),
            (Token.expires_at.is_(None)) | (Token.expires_at > db_now()),
        )
        return set(await session.scalars(statement))


async def _note_use(database: Database, token: Token) -> None:
    """Write down that a token was used; once a minute is enough."""
    async with database.write() as session:
        await session.execute(update(Token).where(Token.id == token.id).values(last_used_at=db_now()))
        await session.commit()
