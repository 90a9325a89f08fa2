"""Who is asking, and whether they may."""

from collections.abc import Collection
from uuid import UUID

from core.errors import ForbiddenError, UnauthenticatedError
from core.token import Scope, Viewer, is_same
from db import tokens
from resolvers.context import Context, Services


async def viewer_of(services: Services, token: str | None) -> Viewer:
    """Find who a bearer token belongs to.

    Raises: UnauthenticatedError.
    """
    if not token:
        raise UnauthenticatedError("Every operation needs a token: send `Authorization: Bearer mm_…`")
    setting = services.settings.admin_token
    if setting is not None and is_same(setting.get_secret_value(), token):
        return Viewer(name="admin", scope=Scope.ADMIN)
    viewer = await tokens.viewer_of(services.database, token)
    if viewer is None:
        raise UnauthenticatedError("This token is unknown, revoked or expired")
    return viewer


async def still_good(services: Services, token_ids: Collection[UUID | None]) -> set[UUID | None]:
    """Find which tokens still are what they were; None, the one that is a setting, lives as long as the process."""
    rows = [token_id for token_id in token_ids if token_id is not None]
    good = await tokens.still_good(services.database, rows) if rows else set()
    return {None, *good}


def require(ctx: Context, scope: Scope) -> None:
    """Refuse what the viewer's scope does not reach.

    Raises: ForbiddenError.
    """
    if ctx.viewer.scope < scope:
        raise ForbiddenError(f"This needs a token with scope {scope.name}; yours has {ctx.viewer.scope.name}")
