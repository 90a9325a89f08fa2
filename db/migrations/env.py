"""How Alembic runs here: on the connection that `db/migrate.py` hands over."""

from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlalchemy import Enum

from db.tables import Base
from db.types import Json, Ranks, RisingId, UtcDateTime


def render(kind: str, item: Any, _context: AutogenContext) -> str | Literal[False]:
    """Write columns into migrations as what the database sees, so that a migration never changes with the code."""
    if kind != "type":
        return False
    if isinstance(item, Enum):
        return f"sa.String({item.length})"
    if isinstance(item, Ranks):
        return "sa.SmallInteger()"
    if isinstance(item, UtcDateTime):
        return "sa.DateTime(timezone=True)"
    named = {id(Json): "db.types.Json", id(RisingId): "db.types.RisingId"}
    return named.get(id(item), False)


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
    render_item=render,
    compare_type=True,
    compare_server_default=True,
)
with context.begin_transaction():
    context.run_migrations()
