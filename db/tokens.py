"""Access tokens: making, finding, listing and ending them."""

from collections.abc import Collection
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import ColumnElement, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from core.event import EventType
from core.ids import NodeType, global_id, new_id
from core.token import Scope, Viewer, digest_of, is_same, make_token, split_token
from db.engine import Database, NewEvent
from db.paging import Keyset, Page, PageRequest, fetch_page
from db.tables import Token
from db.types import db_now

USE_NOTED_EVERY_SECONDS = 60.0
DAY_SECONDS = 86_400


@dataclass(frozen=True)
class CreatedToken:
    """A token that was just made. secret: the whole token, to be shown this once."""

    row: Token
    secret: str


class LastAdminError(Exception):
    """Without this token nobody could sign in with scope ADMIN."""


async def create(
    database: Database, *, name: str, scope: Scope, created_by: str, expires_in_days: int | None = None
) -> CreatedToken:
    """Make a token and keep its digest. expires_in_days: None means never."""
    made = make_token()
    expires_at = db_now(plus_seconds=expires_in_days * DAY_SECONDS) if expires_in_days is not None else None
    async with database.write() as session:
        row: Token | None = await session.scalar(
            insert(Token)
            .values(
                id=new_id(),
                name=name,
                prefix=made.prefix,
                digest=made.digest,
                scope=scope,
                created_by=created_by,
                created_at=db_now(),
                expires_at=expires_at,
            )
            .returning(Token)
        )
        assert row is not None
        message = f"Token {name} with scope {scope.name} made"
        await session.commit_with(_event_of(row, EventType.TOKEN_CREATED, actor=created_by, message=message))
    return CreatedToken(row, made.secret)


async def revoke(database: Database, token_id: UUID, *, actor: str, may_be_last_admin: bool) -> Token | None:
    """End a token for good, and return it; None when there is none. One that is revoked already stays as it is.

    Order: the good ADMIN tokens are locked first, so that two that are revoked at once are not each other's rest.
    Raises: LastAdminError, and nothing is changed then.
    """
    async with database.write() as session:
        statement = select(Token.id).where(Token.scope == Scope.ADMIN, *_is_good()).order_by(Token.id).with_for_update()
        admins = set(await session.scalars(statement))
        if admins == {token_id} and not may_be_last_admin:
            raise LastAdminError
        row: Token | None = await session.scalar(
            update(Token)
            .where(Token.id == token_id, Token.revoked_at.is_(None))
            .values(revoked_at=db_now())
            .returning(Token)
        )
        if row is None:
            return await session.get(Token, token_id)
        message = f"Token {row.name} revoked"
        await session.commit_with(_event_of(row, EventType.TOKEN_REVOKED, actor=actor, message=message))
    return row


async def get_many(session: AsyncSession, token_ids: Collection[UUID]) -> dict[UUID, Token]:
    """Read several tokens in one statement."""
    return {row.id: row for row in await session.scalars(select(Token).where(Token.id.in_(token_ids)))}


async def page(session: AsyncSession, request: PageRequest) -> Page[Token]:
    """Read a page of tokens, newest first."""
    keyset = Keyset(stream="tokens", columns=(Token.created_at, Token.id), descending=True)
    return await fetch_page(session, select(Token), keyset=keyset, request=request)


async def count(session: AsyncSession) -> int:
    """Count tokens."""
    return await session.scalar(select(func.count()).select_from(Token)) or 0


def _is_good() -> tuple[ColumnElement[bool], ...]:
    """The conditions under which a token opens anything."""
    return (Token.revoked_at.is_(None), (Token.expires_at.is_(None)) | (Token.expires_at > db_now()))


def _event_of(row: Token, event_type: EventType, *, actor: str, message: str) -> NewEvent:
    """Describe a change of a token for the journal, without its secret."""
    return NewEvent(
        type=event_type,
        subject_id=global_id(NodeType.API_TOKEN, row.id),
        actor=actor,
        message=message,
        data={"name": row.name, "prefix": row.prefix, "scope": row.scope.name},
    )


async def exists_admin(database: Database) -> bool:
    """Tell whether any token that is good has scope ADMIN."""
    async with database.read() as session:
        statement = select(func.count()).where(Token.scope == Scope.ADMIN, *_is_good())
        return bool(await session.scalar(statement))


async def viewer_of(database: Database, secret: str) -> Viewer | None:
    """Find who a token belongs to; None when it is not good (any more)."""
    parts = split_token(secret)
    if parts is None:
        return None
    prefix, body = parts
    async with database.read() as session:
        statement = select(Token, Token.last_used_at < db_now(plus_seconds=-USE_NOTED_EVERY_SECONDS)).where(
            Token.prefix == prefix, *_is_good()
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
