"""Access tokens: what they are, and how they are made and ended."""

from __future__ import annotations

from datetime import datetime

import strawberry

from core.ids import NodeType, global_id
from db.tables import Token as TokenRow
from graph.enums import Scope
from graph.errors import UserError
from graph.relay import Node


@strawberry.type(description="An access token. Its secret was shown once and is not kept.")
class ApiToken(Node):
    """An access token."""

    name: str = strawberry.field(description="What the journal calls whoever uses it.")
    prefix: str = strawberry.field(description="The part behind `mm_` by which it is recognised, 8 characters.")
    scope: Scope = strawberry.field(description="What it may do.")
    created_at: datetime = strawberry.field(description="When it was made.")
    created_by: str | None = strawberry.field(description="The token or process that made it.")
    expires_at: datetime | None = strawberry.field(description="When it ends by itself; null when it does not.")
    last_used_at: datetime | None = strawberry.field(
        description="When it was last used, to the minute; null when it never was."
    )
    revoked_at: datetime | None = strawberry.field(description="When it was ended; null when it was not.")

    @classmethod
    def from_row(cls, row: TokenRow) -> ApiToken:
        """Show a row."""
        return cls(
            id=strawberry.ID(global_id(NodeType.API_TOKEN, row.id)),
            name=row.name,
            prefix=row.prefix,
            scope=row.scope,
            created_at=row.created_at,
            created_by=row.created_by,
            expires_at=row.expires_at,
            last_used_at=row.last_used_at,
            revoked_at=row.revoked_at,
        )


@strawberry.input(description="A token to make.")
class CreateTokenInput:
    """A token to make."""

    name: str = strawberry.field(description="What the journal will call whoever uses it; 1 to 64 characters.")
    scope: Scope = strawberry.field(description="What it may do.")
    expires_in_days: int | None = strawberry.field(
        default=None, description="After how many days it ends, 1 to 3650; left out: never."
    )


@strawberry.type(description="What came of createToken.")
class CreateTokenPayload:
    """What came of createToken."""

    token: ApiToken | None = strawberry.field(default=None, description="The token; null when refused.")
    secret: str | None = strawberry.field(
        default=None, description="The whole token, `mm_…`: shown this once. Null when refused."
    )
    user_errors: list[UserError] = strawberry.field(
        default_factory=list, description="Why it was refused; empty when it was not; at most 10."
    )


@strawberry.input(description="Which token to end.")
class RevokeTokenInput:
    """Which token to end."""

    token_id: strawberry.ID = strawberry.field(description="The token's id.")


@strawberry.type(description="What came of revokeToken.")
class RevokeTokenPayload:
    """What came of revokeToken."""

    token: ApiToken | None = strawberry.field(default=None, description="The token, revoked; null when refused.")
    user_errors: list[UserError] = strawberry.field(
        default_factory=list, description="Why it was refused; empty when it was not; at most 10."
    )
