"""Access tokens: how they look, what they may do, and how they are kept. Pure.

A token is `mm_<8 id>_<43 base64url>`: the id finds the row, the rest is 256 random bits, and only its SHA-256 is
stored. A fast hash is right for random secrets; it would not be for passwords.
"""

import hashlib
import hmac
import re
import secrets
import string
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum
from uuid import UUID

TOKEN = re.compile(r"mm_([a-z0-9]{8})_([A-Za-z0-9_-]{43})")
ID_ALPHABET = string.ascii_lowercase + string.digits


class Scope(IntEnum):
    """What a token may do; each includes the ones before it."""

    READ = 1
    OPERATE = 2
    ADMIN = 3


@dataclass(frozen=True)
class Viewer:
    """Who is asking: a token's name and scope.

    expires_at: None means never. token_id: the token's row; None for the one that is a setting.
    """

    name: str
    scope: Scope
    expires_at: datetime | None = None
    token_id: UUID | None = field(default=None, compare=False)


@dataclass(frozen=True)
class NewToken:
    """A token that was just made; `secret` is the whole token and is shown this once."""

    prefix: str
    digest: str
    secret: str


def make_token() -> NewToken:
    """Make a token with 256 random bits."""
    prefix = "".join(secrets.choice(ID_ALPHABET) for _ in range(8))
    body = secrets.token_urlsafe(32)
    return NewToken(prefix=prefix, digest=digest_of(body), secret=f"mm_{prefix}_{body}")


def digest_of(body: str) -> str:
    """Return the hex SHA-256 that is stored."""
    return hashlib.sha256(body.encode()).hexdigest()


def split_token(token: str) -> tuple[str, str] | None:
    """Return a token's id and body; None when it does not look like one of ours."""
    match = TOKEN.fullmatch(token)
    return (match[1], match[2]) if match else None


def is_same(left: str, right: str) -> bool:
    """Compare two secrets in constant time."""
    return hmac.compare_digest(left.encode("utf-8", "surrogatepass"), right.encode("utf-8", "surrogatepass"))
