"""`model-manager token create`, and the first token of a new installation."""

import asyncio
import sys

from core.errors import DomainError
from core.names import check_token_name
from core.settings import Settings
from core.token import Scope
from db import tokens
from db.engine import Database


def create(settings: Settings, *, name: str, scope: str) -> int:
    """Make a token and print it, this once."""
    try:
        check_token_name(name)
    except DomainError as refusal:
        print(refusal, file=sys.stderr)
        return 2
    print(asyncio.run(_create(settings, name=name, scope=Scope[scope])))
    print("Keep it: it is not shown again.", file=sys.stderr)
    return 0


def ensure_first_admin_token(settings: Settings) -> str | None:
    """Make the first ADMIN token; None when there is one, or a setting names one."""
    if settings.admin_token is not None:
        return None
    return asyncio.run(_first(settings))


async def _first(settings: Settings) -> str | None:
    """Look, then make."""
    database = Database(settings.database)
    try:
        if await tokens.exists_admin(database):
            return None
        made = await tokens.create(database, name="admin", scope=Scope.ADMIN, created_by="serve")
        return made.secret
    finally:
        await database.close()


async def _create(settings: Settings, *, name: str, scope: Scope) -> str:
    """Make one."""
    database = Database(settings.database)
    try:
        await database.check()
        return (await tokens.create(database, name=name, scope=scope, created_by="command line")).secret
    finally:
        await database.close()
