"""Access tokens: how they look, what is none, and how secrets are compared."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.token import Scope, digest_of, is_same, make_token, split_token


def test_a_token_is_taken_apart_as_it_was_made() -> None:
    made = make_token()

    assert split_token(made.secret) == (made.prefix, made.secret[12:])
    assert len(made.secret) == 3 + 8 + 1 + 43
    assert made.digest == hashlib.sha256(made.secret[12:].encode()).hexdigest() == digest_of(made.secret[12:])


def test_no_two_tokens_are_alike_and_none_shows_its_secret_in_what_is_kept() -> None:
    made = [make_token() for _ in range(200)]

    assert len({each.secret for each in made}) == len({each.prefix for each in made}) == 200
    assert not any(each.secret[12:] in each.digest + each.prefix for each in made)


@pytest.mark.parametrize(
    "value",
    [
        *["", "mm_", "mm_abcdefgh_", "hf_abcdefgh_" + "a" * 43, "mm_abcdefgh_" + "a" * 42, "mm_abcdefgh_" + "a" * 44],
        *["mm_ABCDEFGH_" + "a" * 43, "mm_abcdefgh_" + "a" * 43 + "\n", " mm_abcdefgh_" + "a" * 43],
        *["mm_abcdefgh_" + "a" * 42 + "\x00", "mm_abcdefgh_" + "a" * 42 + "\ud800", "mm_abcdefgh_" + "é" * 43],
        "mm_abcdefgh_" + "a" * 1_000_000,
    ],
    ids=lambda value: ascii(value)[:30],
)
def test_what_does_not_look_like_a_token_is_none(value: str) -> None:
    assert split_token(value) is None


@given(st.text(), st.text(st.characters()))
def test_only_equal_secrets_are_the_same(left: str, right: str) -> None:
    assert is_same(left, right) is (left == right)
    assert is_same(left, left)


def test_a_lone_surrogate_is_no_question_mark() -> None:
    assert not is_same("secret?", "secret\ud800")
    assert is_same("secret\ud800", "secret\ud800")


def test_scopes_include_the_ones_before() -> None:
    assert Scope.READ < Scope.OPERATE < Scope.ADMIN
