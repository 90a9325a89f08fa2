"""Repositories of the fake Hub: files with their digests, commits, branches and tags.

Big files stay on disk and are read in pieces; each is hashed once in a process.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

from tests.fakes.hub_contents import card_of, config_digest, safetensors_counts

LFS_SUFFIXES = (".safetensors", ".bin", ".gguf", ".pt", ".onnx", ".h5")
LFS_MIN_BYTES = 1024 * 1024
FIRST_COMMIT_AT = datetime(2026, 1, 1, tzinfo=UTC)

Source = bytes | Path
Gate = Literal[False, "auto", "manual"]


@dataclass(frozen=True)
class StoredFile:
    """One file of one commit: where its bytes are and the digests the Hub tells of them."""

    path: str
    source: Source
    size_bytes: int
    oid: str
    """The git blob sha1; of the pointer text when the file is in LFS."""
    sha256: str | None
    """The digest of the content when the file is in LFS, else None."""

    @property
    def etag(self) -> str:
        """The digest that identifies the content: 64 hex digits for LFS, else 40."""
        return self.sha256 or self.oid

    @property
    def pointer(self) -> bytes | None:
        """What git itself stores for an LFS file."""
        return None if self.sha256 is None else lfs_pointer(self.sha256, self.size_bytes)

    def read(self, offset: int, length: int) -> bytes:
        """Return up to `length` bytes from `offset` on."""
        if isinstance(self.source, bytes):
            return self.source[offset : offset + length]
        with self.source.open("rb") as stream:
            stream.seek(offset)
            return stream.read(length)


def stored_file(path: str, source: Source) -> StoredFile:
    """Measure and hash a file as the Hub would on upload."""
    size = len(source) if isinstance(source, bytes) else source.stat().st_size
    if size < LFS_MIN_BYTES and not path.endswith(LFS_SUFFIXES):
        content = source if isinstance(source, bytes) else source.read_bytes()
        return StoredFile(path, source, size, git_blob_sha1(content), None)
    sha256 = _sha256_of(source)
    return StoredFile(path, source, size, git_blob_sha1(lfs_pointer(sha256, size)), sha256)


def git_blob_sha1(content: bytes) -> str:
    """Return the name git gives to a blob with this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def lfs_pointer(sha256: str, size_bytes: int) -> bytes:
    """Return the pointer text git stores in place of an LFS file."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size_bytes}\n".encode()


def _sha256_of(source: Source) -> str:
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    status = source.stat()
    return _sha256_of_path(source, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=1024)
def _sha256_of_path(path: Path, _size_bytes: int, _modified_ns: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@dataclass(frozen=True)
class Commit:
    """One state of a repository; what is read from its files is read once."""

    sha: str
    title: str
    committed_at: datetime
    files: Mapping[str, StoredFile]

    @cached_property
    def card(self) -> dict[str, Any]:
        """The front matter of README.md."""
        return card_of(self._text("README.md"))

    @cached_property
    def config(self) -> dict[str, Any]:
        """The part of config.json that the Hub repeats."""
        return config_digest(self._text("config.json"))

    @cached_property
    def parameters(self) -> dict[str, int]:
        """Parameters by dtype over all safetensors files."""
        total: dict[str, int] = {}
        for path, file in self.files.items():
            if path.endswith(".safetensors"):
                for dtype, count in safetensors_counts(file.read).items():
                    total[dtype] = total.get(dtype, 0) + count
        return total

    def _text(self, path: str) -> str:
        file = self.files.get(path)
        return "" if file is None else file.read(0, file.size_bytes).decode(errors="replace")


@dataclass
class Repository:
    """One model repository with its history; `gated`, `private` and `disabled` may be changed while served."""

    repo_id: str
    gated: Gate = False
    private: bool = False
    disabled: bool = False
    metadata: dict[str, Any] = field(default_factory=dict)
    """Answers given as they stand in place of what would be derived (downloads, likes, gguf, tags, ...)."""
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)

    @property
    def object_id(self) -> str:
        """The 24 hex digits the Hub calls `_id`."""
        return hashlib.sha256(self.repo_id.encode()).hexdigest()[:24]

    @property
    def head(self) -> Commit:
        """The commit `main` is at."""
        return self.commits[self.branches["main"]]

    def resolve(self, revision: str) -> Commit | None:
        """Return the commit of a branch, a tag or a full commit hash."""
        name = revision.removeprefix("refs/heads/").removeprefix("refs/tags/")
        return self.commits.get(self.branches.get(name) or self.tags.get(name) or name)

    def commit(
        self, files: Mapping[str, Source | None], *, branch: str = "main", title: str = "Upload files"
    ) -> Commit:
        """Put changed files (None deletes) on top of a branch and move it; a new branch starts at `main`."""
        parent = self.resolve(branch) or self.resolve("main")
        merged = dict(parent.files) if parent else {}
        for path, source in files.items():
            if source is None:
                merged.pop(path, None)
            else:
                merged[path] = stored_file(path, source)
        made = self._commit_of(dict(sorted(merged.items())), parent=parent, title=title)
        # New dictionaries, not changed ones: requests may be looking at them.
        self.commits = {**self.commits, made.sha: made}
        self.branches = {**self.branches, branch: made.sha}
        return made

    def _commit_of(self, files: dict[str, StoredFile], *, parent: Commit | None, title: str) -> Commit:
        lines = [self.repo_id, parent.sha if parent else "", title]
        lines += [f"{file.etag} {path}" for path, file in files.items()]
        sha = hashlib.sha1("\n".join(lines).encode(), usedforsecurity=False).hexdigest()
        return Commit(sha, title, FIRST_COMMIT_AT + timedelta(hours=len(self.commits)), files)


def files_under(directory: Path) -> dict[str, Source]:
    """Return every file below a directory, keyed by its path inside a repository."""
    found = (path for path in sorted(directory.rglob("*")) if path.is_file())
    return {path.relative_to(directory).as_posix(): path for path in found}
