"""The manifest of a set: read back as it was written; anything else that stands in its place is told apart."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.manifest import Manifest, decode, encode
from core.names import is_safe_file_path
from core.repository import Digest, DigestKind, RepositoryFile

FILES = (
    RepositoryFile("config.json", 2, Digest(DigestKind.GIT_SHA1, "1" * 40)),
    RepositoryFile("sub/日本.safetensors", 5_000_000_000, Digest(DigestKind.SHA256, "a" * 64)),
)
MANIFEST = Manifest(
    repo_id="acme/small",
    requested_revision="main",
    commit="c" * 40,
    files=FILES,
    installed_at=datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC),
    version="1.2.3",
)


def record(**changes: Any) -> bytes:
    return orjson.dumps(orjson.loads(encode(MANIFEST)) | changes)


def test_a_manifest_is_written_in_words_that_others_can_read() -> None:
    assert orjson.loads(encode(MANIFEST)) == {
        "format": 1,
        "repoId": "acme/small",
        "requestedRevision": "main",
        "commit": "c" * 40,
        "installedAt": "2026-01-02T03:04:05.000678+00:00",
        "version": "1.2.3",
        "files": [
            {"path": "config.json", "sizeBytes": 2, "digest": f"git-sha1:{'1' * 40}"},
            {"path": "sub/日本.safetensors", "sizeBytes": 5_000_000_000, "digest": f"sha256:{'a' * 64}"},
        ],
    }


def test_a_manifest_is_read_back_as_it_was_written() -> None:
    assert decode(encode(MANIFEST)) == MANIFEST
    assert MANIFEST.size_bytes == 5_000_000_002


def test_what_a_newer_version_adds_is_left_alone() -> None:
    assert decode(record(notes="new")) == MANIFEST


def test_a_time_in_another_zone_is_the_same_time() -> None:
    elsewhere = MANIFEST.installed_at.astimezone(timezone(timedelta(hours=9)))

    assert decode(record(installedAt=elsewhere.isoformat())).installed_at == MANIFEST.installed_at


@pytest.mark.parametrize(
    "data",
    [b"", b"null", b"[]", b"{}", b'"text"', b"5", b"\x00\xff", b"{", b"[" * 100_000, encode(MANIFEST)[:-1], b"NaN"],
    ids=lambda data: repr(data)[:12],
)
def test_what_is_no_manifest_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        decode(data)


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 2},
        {"format": None},
        {"repoId": None},
        {"repoId": ["a"]},
        {"requestedRevision": 5},
        {"commit": "main"},
        {"commit": "C" * 40},
        {"commit": None},
        {"installedAt": "yesterday"},
        {"installedAt": "2026-01-02T03:04:05"},
        {"installedAt": 1_700_000_000},
        {"version": 1},
        {"files": None},
        {"files": "abc"},
        {"files": [5]},
        {"files": {"a": 1}},
    ],
    ids=str,
)
def test_a_manifest_with_a_field_that_is_wrong_is_a_value_error(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        decode(record(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"path": "../../etc/passwd"},
        {"path": "/etc/passwd"},
        {"path": ".model-manager.json"},
        {"path": ""},
        {"path": None},
        {"sizeBytes": -1},
        {"sizeBytes": True},
        {"sizeBytes": 1.5},
        {"sizeBytes": "5"},
        {"digest": "md5:" + "a" * 32},
        {"digest": "sha256:"},
        {"digest": "sha256:" + "A" * 64},
        {"digest": "a" * 64},
        {"digest": None},
    ],
    ids=str,
)
def test_a_manifest_with_a_file_that_is_wrong_is_a_value_error(changes: dict[str, Any]) -> None:
    entry = {"path": "a.txt", "sizeBytes": 1, "digest": f"sha256:{'a' * 64}"}

    assert len(decode(record(files=[entry])).files) == 1
    with pytest.raises(ValueError, match=r".+"):
        decode(record(files=[entry | changes]))


@given(
    st.builds(
        Manifest,
        repo_id=st.text(st.characters(exclude_categories=["Cs"])),
        requested_revision=st.text(st.characters(exclude_categories=["Cs"])),
        commit=st.from_regex(r"[0-9a-f]{40}", fullmatch=True),
        files=st.lists(
            st.builds(
                RepositoryFile,
                path=st.text(min_size=1).filter(is_safe_file_path),
                size_bytes=st.integers(0, 2**63 - 1),
                digest=st.from_regex(r"[0-9a-f]{64}", fullmatch=True).map(
                    lambda value: Digest(DigestKind.SHA256, value)
                ),
            )
        ).map(tuple),
        installed_at=st.datetimes(timezones=st.just(UTC)),
        version=st.just("1.0"),
    )
)
def test_any_manifest_is_read_back_as_it_was_written(manifest: Manifest) -> None:
    assert decode(encode(manifest)) == manifest


@given(st.binary() | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(repr).map(str.encode))
def test_any_bytes_are_a_manifest_or_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        decode(data)
