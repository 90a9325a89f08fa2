"""What a repository on the Hub holds at one commit, as plain values. Pure."""

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class DigestKind(StrEnum):
    """How a file's content is named upstream: sha256 for LFS files, git's blob sha1 for small ones."""

    SHA256 = "sha256"
    GIT_SHA1 = "git-sha1"


class Hasher(Protocol):
    """The part of hashlib's objects that is used here."""

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        """Take in the next bytes."""

    def hexdigest(self) -> str:
        """Return the digest of what was taken in."""


@dataclass(frozen=True)
class Digest:
    """The name of a content: lower-case hex, 64 digits for sha256, 40 for git-sha1."""

    kind: DigestKind
    value: str

    def hasher(self, *, size_bytes: int) -> Hasher:
        r"""Start a computation that ends in this digest when the content is right.

        Source: git hashes a blob as sha1("blob <length>\0" + content).
        """
        if self.kind is DigestKind.SHA256:
            return hashlib.sha256()
        return hashlib.sha1(b"blob %d\0" % size_bytes, usedforsecurity=False)


@dataclass(frozen=True)
class RepositoryFile:
    """One file of a commit."""

    path: str
    size_bytes: int
    digest: Digest


@dataclass(frozen=True)
class Snapshot:
    """A repository at one commit: the 40-hex commit and all its files, as the Hub lists them."""

    repo_id: str
    commit: str
    is_gated: bool
    files: tuple[RepositoryFile, ...]
