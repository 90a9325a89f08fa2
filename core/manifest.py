"""The manifest of a set, `.model-manager.json`: written last, so that what has one is whole. Pure.

Readers look only at manifests; a directory without one is not (yet) a set of ours.
"""

from dataclasses import dataclass
from datetime import datetime

import orjson

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

    Raises: ValueError when it is not one.
    """
    try:
        record = orjson.loads(data)
        return Manifest(
            repo_id=str(record["repoId"]),
            requested_revision=str(record["requestedRevision"]),
            commit=str(record["commit"]),
            files=tuple(_file(entry) for entry in record["files"]),
            installed_at=datetime.fromisoformat(record["installedAt"]),
            version=str(record["version"]),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a manifest: {error!r}") from error


def _file(entry: dict[str, object]) -> RepositoryFile:
    """Read one file's line."""
    kind, _, value = str(entry["digest"]).partition(":")
    size = entry["sizeBytes"]
    if not isinstance(size, int):
        raise TypeError("sizeBytes is no integer")
    return RepositoryFile(path=str(entry["path"]), size_bytes=size, digest=Digest(DigestKind(kind), value))
