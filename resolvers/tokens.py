"""What the fields about access tokens do."""

from core.errors import DomainError, ErrorCode
from core.ids import token_key
from core.names import check_token_name
from core.settings import PREFIX
from core.token import Scope
from db import tokens
from db.paging import Page, PageRequest
from db.tables import Token
from db.tokens import CreatedToken
from resolvers.context import Context

MAX_EXPIRY_DAYS = 3650


async def get(ctx: Context, *, token_id: str) -> Token | None:
    """Find a token by its id. Raises: DomainError INVALID."""
    key = token_key(token_id, path=("id",))
    async with ctx.services.database.read() as session:
        return (await tokens.get_many(session, [key])).get(key)


async def page(ctx: Context, *, request: PageRequest) -> Page[Token]:
    """Read a page of tokens, newest first."""
    async with ctx.services.database.read() as session:
        return await tokens.page(session, request)


async def count(ctx: Context) -> int:
    """Count tokens."""
    async with ctx.services.database.read() as session:
        return await tokens.count(session)


async def create(ctx: Context, *, name: str, scope: Scope, expires_in_days: int | None) -> CreatedToken:
    """Make a token. Raises: DomainError INVALID."""
    checked = check_token_name(name)
    if expires_in_days is not None and not 1 <= expires_in_days <= MAX_EXPIRY_DAYS:
        raise DomainError(
            ErrorCode.INVALID,
            f"A token ends after 1 to {MAX_EXPIRY_DAYS} days; left out, it does not end by itself",
            path=("input", "expiresInDays"),
        )
    return await tokens.create(
        ctx.services.database,
        name=checked,
        scope=scope,
        created_by=ctx.viewer.name,
        expires_in_days=expires_in_days,
    )


async def revoke(ctx: Context, *, token_id: str) -> Token:
    """End a token; one that is revoked already stays as it is.

    Raises: DomainError NOT_FOUND; CONFLICT when nobody could sign in as ADMIN afterwards.
    """
    path = ("input", "tokenId")
    has_other_admin = ctx.services.settings.admin_token is not None
    try:
        found = await tokens.revoke(
            ctx.services.database,
            token_key(token_id, path=path),
            actor=ctx.viewer.name,
            may_be_last_admin=has_other_admin,
        )
    except tokens.LastAdminError:
        raise DomainError(
            ErrorCode.CONFLICT,
            f"This is the last good token with scope ADMIN: make another one first, or set {PREFIX}ADMIN_TOKEN",
            path=path,
        ) from None
    if found is None:
        raise DomainError(ErrorCode.NOT_FOUND, f"There is no token {token_id}", path=path)
    return found
