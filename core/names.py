"""What may be called what: repositories, revisions, sets, paths inside a repository, glob patterns.

Names are checked and never rewritten: rewriting one name into another deletes the wrong thing some day.
Source: the Hub's repository rules; domain rules of the weights volume.
"""

import re
import unicodedata

from core.errors import DomainError, ErrorCode
from core.repository import Digest, DigestKind

SEGMENT = re.compile(r"[A-Za-z0-9._-]{1,96}")
REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+-]{0,254}")
COMMIT = re.compile(r"[0-9a-f]{40}")
DIGESTS = {DigestKind.SHA256: re.compile(r"[0-9a-f]{64}"), DigestKind.GIT_SHA1: re.compile(r"[0-9a-f]{40}")}
RESERVED_FIRST_SEGMENTS = frozenset({"modules", "lost+found"})
MAX_SEGMENTS = 4
MAX_PATTERNS = 50
MAX_PATTERN_LENGTH = 256
MAX_SEARCH_LENGTH = 200
MAX_TOKEN_NAME_LENGTH = 64
MAX_PATH_BYTES = 1024
MAX_PATH_SEGMENTS = 32
MAX_SEGMENT_BYTES = 255
MANIFEST_NAME = ".model-manager.json"
NAMES_OF_OURS = (".model-manager", "..model-manager")


def check_repo_id(value: str, *, path: tuple[str, ...] = ("input", "repoId")) -> str:
    """Return a Hub repository id, `owner/name` or a legacy one-word id.

    Raises: DomainError INVALID.
    """
    parts = value.split("/")
    well_formed = len(parts) <= 2 and all(SEGMENT.fullmatch(part) for part in parts)
    if not well_formed or any(_is_odd(part) for part in parts):
        raise DomainError(
            ErrorCode.INVALID,
            "A repository id is owner/name: letters, digits, '-', '_' and '.', at most 96 of them on each side,"
            " beginning and ending with a letter, digit or '_'",
            path=path,
        )
    return value


def _is_odd(segment: str) -> bool:
    """Tell what the Hub refuses in a segment: dots and dashes at its ends or doubled, and `.git` behind it."""
    return segment[0] in "-." or segment[-1] in "-." or ".." in segment or "--" in segment or segment.endswith(".git")


def check_revision(value: str, *, path: tuple[str, ...] = ("input", "revision")) -> str:
    """Return a branch, tag or commit.

    Raises: DomainError INVALID.
    """
    if not REVISION.fullmatch(value) or ".." in value or "//" in value or value.endswith(("/", ".lock")):
        raise DomainError(ErrorCode.INVALID, "A revision is a branch, a tag or a 40-digit commit, e.g. main", path=path)
    return value


def check_set_name(value: str, *, path: tuple[str, ...] = ("input", "name")) -> str:
    """Return the name of a weight set: a directory relative to the volume, at most 4 segments.

    Raises: DomainError INVALID.
    """
    parts = value.split("/")
    allowed = len(parts) <= MAX_SEGMENTS and all(SEGMENT.fullmatch(p) and p[0] not in ".-" for p in parts)
    if not allowed:
        raise DomainError(
            ErrorCode.INVALID,
            f"A name has 1 to {MAX_SEGMENTS} segments separated by '/', each of 1 to 96 letters, digits,"
            " '.', '_' or '-', not beginning with '.' or '-'",
            path=path,
        )
    if parts[0] in RESERVED_FIRST_SEGMENTS:
        raise DomainError(ErrorCode.INVALID, f"{parts[0]!r} is a name that the volume itself uses", path=path)
    return value


def check_patterns(values: list[str] | None, *, path: tuple[str, ...]) -> tuple[str, ...] | None:
    """Return glob patterns as given; None stays None.

    Raises: DomainError INVALID.
    """
    if values is None:
        return None
    if len(values) > MAX_PATTERNS:
        raise DomainError(ErrorCode.INVALID, f"At most {MAX_PATTERNS} patterns are taken", path=path)
    for value in values:
        if not value or len(value) > MAX_PATTERN_LENGTH or not is_plain_text(value):
            raise DomainError(
                ErrorCode.INVALID,
                f"A pattern is a glob of 1 to {MAX_PATTERN_LENGTH} printable characters, e.g. *.safetensors",
                path=path,
            )
    return tuple(values)


def check_search(value: str | None, *, path: tuple[str, ...]) -> str | None:
    """Return a text to search for; None stays None.

    Raises: DomainError INVALID.
    """
    if value is not None and (len(value) > MAX_SEARCH_LENGTH or not is_plain_text(value)):
        raise DomainError(
            ErrorCode.INVALID, f"A search is a text of at most {MAX_SEARCH_LENGTH} printable characters", path=path
        )
    return value


def check_token_name(value: str, *, path: tuple[str, ...] = ("input", "name")) -> str:
    """Return the name of a token, by which the journal says who did something.

    Raises: DomainError INVALID.
    """
    if not 1 <= len(value) <= MAX_TOKEN_NAME_LENGTH or not is_plain_text(value) or value != value.strip():
        raise DomainError(
            ErrorCode.INVALID,
            f"A token's name has 1 to {MAX_TOKEN_NAME_LENGTH} printable characters and no space at its ends, e.g. ci",
            path=path,
        )
    return value


def is_plain_text(value: str) -> bool:
    """Tell whether a text has no control, format (bidi, zero-width), surrogate, unassigned or line-breaking signs."""
    categories = [unicodedata.category(character) for character in value]
    return all(category[0] != "C" and category not in {"Zl", "Zp"} for category in categories)


def is_digest(digest: Digest) -> bool:
    """Tell whether a digest is written as its kind demands."""
    return DIGESTS[digest.kind].fullmatch(digest.value) is not None


def is_safe_file_path(value: str) -> bool:
    """Tell whether a path that a repository names can be written below a directory of ours as it stands.

    Names of ours (the manifest, the marker of earlier sets, and what the manifest is called while it is written)
    are not a repository's to take.
    """
    parts = value.split("/")
    return (
        len(value) <= MAX_PATH_BYTES
        and is_plain_text(value)
        and len(value.encode()) <= MAX_PATH_BYTES
        and "\\" not in value
        and len(parts) <= MAX_PATH_SEGMENTS
        and all(part not in {"", ".", ".."} and len(part.encode()) <= MAX_SEGMENT_BYTES for part in parts)
        and not parts[0].startswith(NAMES_OF_OURS)
    )
