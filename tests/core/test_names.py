"""What may be called what: names are taken as they are or refused in words, whatever comes."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import DomainError, ErrorCode
from core.names import (
    MAX_PATTERN_LENGTH,
    MAX_PATTERNS,
    check_patterns,
    check_repo_id,
    check_revision,
    check_set_name,
    is_digest,
    is_plain_text,
    is_safe_file_path,
)
from core.repository import Digest, DigestKind

NFC, NFD = "caf\u00e9", "cafe\u0301"
NEVER = [
    "",
    " ",
    ".",
    "..",
    "../etc",
    "acme/..",
    "acme/../../etc",
    "/etc/passwd",
    "acme/",
    "/acme",
    "acme//small",
    "acme\\small",
    "..\\..\\windows",
    "C:\\windows",
    "%2e%2e/etc",
    "acme%2fsmall",
    "acme\x00",
    "\x00",
    "acme\n",
    "acme/small\n",
    "acme\t",
    "acme small",
    "\ud800",
    "acme/\udfff",
    "acme/\u202elatot",
    "acme/\u200bsmall",
    "\ufeffacme",
    "acme/\u2028small",
    NFC,
    NFD,
    "аcme",  # noqa: RUF001 - a Cyrillic letter that looks like a Latin one
    "acme/small#main",
    "acme/small?x=1",
    "acme/small:main",
    "acme/*",
    "$(id)",
    "a" * 97,
    "a" * 1_000_000,
    "a/" * 500_000,
    "-acme",
]


@pytest.mark.parametrize("value", NEVER, ids=lambda value: ascii(value)[:30])
def test_what_is_no_name_of_a_repository_is_refused(value: str) -> None:
    with pytest.raises(DomainError, match="A repository id is owner/name") as refused:
        check_repo_id(value)

    assert (refused.value.code, refused.value.path) == (ErrorCode.INVALID, ("input", "repoId"))


@pytest.mark.parametrize(
    "value", ["a/b/c", "acme/.hidden", "acme/-x", "acme/x-", "acme/x.", "a--b/c", "a..b/c", "acme/small.git"]
)
def test_what_the_hub_does_not_take_is_refused(value: str) -> None:
    with pytest.raises(DomainError):
        check_repo_id(value)


@pytest.mark.parametrize("value", ["gpt2", "Qwen/Qwen2.5-1.5B-Instruct", "a/b", "_a/b_", "a" * 96 + "/" + "b" * 96])
def test_a_repository_id_is_taken_as_it_is(value: str) -> None:
    assert check_repo_id(value) == value


@pytest.mark.parametrize("value", [each for each in NEVER if each != "a" * 97], ids=lambda value: ascii(value)[:30])
def test_what_is_no_revision_is_refused(value: str) -> None:
    with pytest.raises(DomainError, match="A revision is a branch, a tag or a 40-digit commit") as refused:
        check_revision(value)

    assert (refused.value.code, refused.value.path) == (ErrorCode.INVALID, ("input", "revision"))


@pytest.mark.parametrize("value", ["main", "v1.0", "refs/pr/7", "feature/x", "c" * 40, "a" * 255])
def test_a_revision_is_taken_as_it_is(value: str) -> None:
    assert check_revision(value) == value


@pytest.mark.parametrize("value", ["a" * 256, "main.lock", "a//b", "a/../b", "-x", "refs/"])
def test_what_git_does_not_take_as_a_revision_is_refused(value: str) -> None:
    with pytest.raises(DomainError):
        check_revision(value)


@pytest.mark.parametrize("value", NEVER, ids=lambda value: ascii(value)[:30])
def test_what_is_no_name_of_a_set_is_refused(value: str) -> None:
    with pytest.raises(DomainError, match="A name has 1 to 4 segments") as refused:
        check_set_name(value)

    assert (refused.value.code, refused.value.path) == (ErrorCode.INVALID, ("input", "name"))


@pytest.mark.parametrize("value", [".hidden", ".model-manager", "acme/.model-manager.json", "acme/-x", "a/b/c/d/e"])
def test_hidden_names_and_deep_ones_are_refused(value: str) -> None:
    with pytest.raises(DomainError, match="A name has 1 to 4 segments"):
        check_set_name(value)


def test_names_that_the_volume_uses_are_refused_at_its_root_alone() -> None:
    with pytest.raises(DomainError, match="'modules' is a name that the volume itself uses"):
        check_set_name("modules/x")

    assert check_set_name("acme/modules") == "acme/modules"


@pytest.mark.parametrize(
    "value", ["a", "a/b/c/d", "Qwen/Qwen2.5-1.5B", "a..b", "a-", "A_b.c", "/".join(["x" * 96] * 4)]
)
def test_a_set_name_is_taken_as_it_is(value: str) -> None:
    assert check_set_name(value) == value


@given(st.text() | st.text(st.characters(categories=["Cs", "Cc", "Cf", "Lu"])))
def test_any_text_is_taken_as_it_is_or_refused_as_invalid(value: str) -> None:
    for check in (check_repo_id, check_revision, check_set_name):
        try:
            assert check(value) == value
        except DomainError as error:
            assert error.code is ErrorCode.INVALID  # noqa: PT017 - not every text is refused
            str(error).encode()


# ---------------------------------------------------------------- patterns


@pytest.mark.parametrize(
    "value",
    [
        "",
        "a\x00",
        "a\n",
        "\ud800",
        "*\u202e",
        "\u200b*",
        "a\u2028b",
        "a\u2029b",
        "x" * (MAX_PATTERN_LENGTH + 1),
        "\x7f",
    ],
    ids=lambda value: ascii(value)[:20],
)
def test_a_pattern_that_cannot_be_read_is_refused(value: str) -> None:
    with pytest.raises(DomainError, match="A pattern is a glob of 1 to 256 printable characters") as refused:
        check_patterns(["*.json", value], path=("input", "include"))

    assert (refused.value.code, refused.value.path) == (ErrorCode.INVALID, ("input", "include"))


def test_too_many_patterns_are_refused() -> None:
    with pytest.raises(DomainError, match="At most 50 patterns are taken"):
        check_patterns(["*"] * (MAX_PATTERNS + 1), path=("input", "exclude"))


def test_patterns_are_taken_as_they_are_and_none_stays_none() -> None:
    patterns = ["*.safetensors", "[a-b]?/**", NFC, "日本/*", "x" * MAX_PATTERN_LENGTH]

    assert check_patterns(patterns, path=()) == tuple(patterns)
    assert check_patterns([], path=()) == ()
    assert check_patterns(None, path=()) is None


# ---------------------------------------------------------------- paths of a repository


@pytest.mark.parametrize(
    "value",
    [
        *["", ".", "..", "/x", "x/", "a//b", "a/./b", "a/../b", "../x", "..", "a\\b", "\\\\host\\x"],
        *["a\x00b", "a\nb", "\ud800", "a/\udcff", "a\u202eb", "a\u200bb", "a\u2028b", "a\x7f"],
        *[".model-manager.json", ".model-manager", ".model-manager/x", "..model-manager.json.new"],
        *["é" * 128, "a" * 256, "a/" * 600 + "b", "日" * 342, "/".join("x" * 33)],
        "a" * 1_000_000,
    ],
    ids=lambda value: ascii(value)[:30],
)
def test_a_path_that_cannot_be_written_safely_is_told(value: str) -> None:
    assert not is_safe_file_path(value)


@pytest.mark.parametrize(
    "value",
    [
        *["config.json", "a/b/c.txt", ".gitattributes", "a b.txt", "...", "a..b", "%2e%2e/x", "日本.txt", NFC, NFD],
        *["a" * 255, "é" * 127, "sub/.model-manager.json", "model-manager.json", "C:x", "/".join("x" * 32), "-rf"],
    ],
    ids=lambda value: ascii(value)[:30],
)
def test_a_path_that_can_be_written_is_told(value: str) -> None:
    assert is_safe_file_path(value)


@given(st.text() | st.text("./\\a\x00\ud800é", max_size=12))
def test_a_safe_path_stays_below_its_directory(value: str) -> None:
    if is_safe_file_path(value):
        assert os.path.normpath(f"/volume/{value}") == f"/volume/{value}"
        assert value.encode().decode() == value


def test_twins_in_other_normal_forms_are_two_names() -> None:
    assert NFC != NFD
    assert is_safe_file_path(NFC)
    assert is_safe_file_path(NFD)


@pytest.mark.parametrize(
    ("kind", "value", "is_good"),
    [
        (DigestKind.SHA256, "a" * 64, True),
        (DigestKind.SHA256, "A" * 64, False),
        (DigestKind.SHA256, "a" * 40, False),
        (DigestKind.SHA256, "a" * 64 + "\n", False),
        (DigestKind.GIT_SHA1, "0" * 40, True),
        (DigestKind.GIT_SHA1, "g" * 40, False),
        (DigestKind.GIT_SHA1, "", False),
    ],
)
def test_a_digest_is_lower_case_hex_of_its_length(kind: DigestKind, value: str, *, is_good: bool) -> None:
    assert is_digest(Digest(kind, value)) is is_good


def test_plain_text_has_nothing_that_does_not_show() -> None:
    assert is_plain_text("Hello, wörld 日本 🙂")
    for sign in "\x00\x1b\x85\u200e\u202e\u2066\ufeff\u2028\u2029\ue000\ud800\U000e0041":
        assert not is_plain_text(f"a{sign}b")
