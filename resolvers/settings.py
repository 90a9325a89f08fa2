"""What the fields about settings do."""

from collections.abc import Mapping

from core import runtime_settings as rules
from core.errors import DomainError, ErrorCode
from core.runtime_settings import RuntimeSettings, SettingName
from core.settings import PREFIX
from db import runtime_settings
from resolvers.context import Context


async def get(ctx: Context) -> RuntimeSettings:
    """Read what holds now."""
    async with ctx.services.database.read() as session:
        return await runtime_settings.read(session, defaults=rules.defaults_of(ctx.services.settings))


async def update(ctx: Context, *, changes: Mapping[SettingName, object]) -> RuntimeSettings:
    """Change settings, all of them or none. None goes back to the default.

    Raises: Refusals with every bad value; DomainError POLICY_DENIED where they are locked.
    """
    if ctx.services.settings.lock_settings:
        raise DomainError(
            ErrorCode.POLICY_DENIED,
            f"The settings are locked by {PREFIX}LOCK_SETTINGS: change the environment and start anew",
        )
    rules.check(changes)
    changed = await runtime_settings.change(
        ctx.services.database,
        changes,
        defaults=rules.defaults_of(ctx.services.settings),
        actor=ctx.viewer.name,
    )
    ctx.services.wake_dispatcher()
    return changed
