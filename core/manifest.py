"""The manifest of a set, `.model-manager.json`: written last, so that what has one is whole. Pure.

Readers look only at manifests; a directory without one is not (yet) a set of ours.
"""

from dataclasses import dataclass
from datetime import datetime

import orjson

from core.names import COMMIT, is_digest, is_safe_file_path
from core.repository import Digest, DigestKind, RepositoryFile

FORMAT_VERSION = 1
MAX_MANIFEST_BYTES = 64 << 20


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What was installed.

    requested_revision: what the caller named; commit: what it was at that time, 40 hex digits.
    version: ours, that wrote it.
    """

    repo_id: str
    requested_revision: str
    commit: str
    files: tuple[RepositoryFile, ...]
    installed_at: datetime
    version: str

    @property
    def size_bytes(self) -> int:
        """The sum of the files' sizes."""
        return sum(file.size_bytes for file in self.files)


def encode(manifest: Manifest) -> bytes:
    """Write a manifest as JSON."""
    record = {
        "format": FORMAT_VERSION,
        "repoId": manifest.repo_id,
        "requestedRevision": manifest.requested_revision,
        "commit": manifest.commit,
        "installedAt": manifest.installed_at,
        "version": manifest.version,
        "files": [
            {"path": file.path, "sizeBytes": file.size_bytes, "digest": f"{file.digest.kind}:{file.digest.value}"}
            for file in manifest.files
        ],
    }
    return orjson.dumps(record, option=orjson.OPT_INDENT_2)


def decode(data: bytes) -> Manifest:
    """Read a manifest.

    Raises: ValueError when it is not one: whoever can write to the volume can have put anything there.
    """
    try:
        record = orjson.loads(data)
        if record["format"] != FORMAT_VERSION:
            raise ValueError(f"a manifest of format {record['format']!r}; {FORMAT_VERSION} is known")
        return Manifest(
            repo_id=_text(record["repoId"]),
            requested_revision=_text(record["requestedRevision"]),
            commit=_commit(record["commit"]),
            files=tuple(_file(entry) for entry in record["files"]),
            installed_at=_time(record["installedAt"]),
            version=_text(record["version"]),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a manifest: {error!r}") from error


def _file(entry: dict[str, object]) -> RepositoryFile:
    """Read one file's line."""
    path, size = _text(entry["path"]), entry["sizeBytes"]
    kind, _, value = _text(entry["digest"]).partition(":")
    digest = Digest(DigestKind(kind), value)
    if type(size) is not int or size < 0 or not is_safe_file_path(path) or not is_digest(digest):
        raise ValueError(f"not a file of a set: {path!r}")
    return RepositoryFile(path=path, size_bytes=size, digest=digest)


def _text(value: object) -> str:
    """Take a text and nothing else."""
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _commit(value: object) -> str:
    """Take a 40-hex commit."""
    if not COMMIT.fullmatch(_text(value)):
        raise ValueError(f"{value!r} is no commit")
    return _text(value)


def _time(value: object) -> datetime:
    """Take a time that says where it is."""
    time = datetime.fromisoformat(_text(value))
    if time.tzinfo is None:
        raise ValueError(f"{value!r} has no time zone")
    return time
