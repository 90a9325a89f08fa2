"""Settings that were changed while the server ran: one row each, the rest are defaults."""

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from core.event import EventType
from core.runtime_settings import RuntimeSettings, SettingName, to_json, with_stored
from db.engine import Database, NewEvent
from db.tables import QueueState, Setting
from db.types import db_now


async def read(session: AsyncSession, *, defaults: RuntimeSettings) -> RuntimeSettings:
    """Read what holds now."""
    rows = await session.execute(select(Setting.name, Setting.value))
    return with_stored(defaults, {row.name: row.value for row in rows})


async def now(session: AsyncSession) -> datetime:
    """Read the database's clock, by which windows open and close for every process at once."""
    found: datetime | None = await session.scalar(select(db_now()))
    assert found is not None
    return found


async def change(
    database: Database, changes: Mapping[SettingName, object], *, defaults: RuntimeSettings, actor: str
) -> RuntimeSettings:
    """Write new values, each of them good; None goes back to the default. Return what holds then.

    Order: under the queue's lock, so that two who change at once tell the journal what they really found.
    """
    async with database.write() as session:
        await session.execute(select(QueueState.id).where(QueueState.id == 1).with_for_update())
        before = await read(session, defaults=defaults)
        await session.execute(delete(Setting).where(Setting.name.in_([name.value for name in changes])))
        for name, value in changes.items():
            if value is not None:
                row = {"name": name.value, "value": value, "changed_by": actor, "changed_at": db_now()}
                await session.execute(insert(Setting).values(**row))
        after = await read(session, defaults=defaults)
        events = [
            _event_of(name, old=to_json(before, name), new=to_json(after, name), actor=actor)
            for name in changes
            if to_json(before, name) != to_json(after, name)
        ]
        if events:
            await session.commit_with(*events)
        else:
            await session.commit()
    return after


def _event_of(name: SettingName, *, old: object, new: object, actor: str) -> NewEvent:
    """Describe a change for the journal."""
    return NewEvent(
        type=EventType.SETTINGS_CHANGED,
        actor=actor,
        message=f"Setting {name} changed",
        data={"name": name.value, "old": old, "new": new},
    )
