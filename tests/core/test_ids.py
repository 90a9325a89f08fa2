"""Ids of the API: what is one, of which type, and words for what is none."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import DomainError, ErrorCode
from core.ids import NodeType, global_id, job_key, key_of, new_id, parse_global_id

KEY = "01930f6e-8c9e-7d3a-b1f2-0123456789ab"


def test_new_ids_are_version_7_and_sort_by_age() -> None:
    made = [new_id() for _ in range(1_000)]

    assert {each.version for each in made} == {7}
    assert sorted(made) == made
    assert len(set(made)) == 1_000


@pytest.mark.parametrize("key", ["acme/small", "a:b", KEY, "日本"])
def test_an_id_is_read_back_as_it_was_written(key: str) -> None:
    written = global_id(NodeType.WEIGHT_SET, key)

    assert written == f"WeightSet:{key}"
    assert parse_global_id(written, path=("id",)) == (NodeType.WEIGHT_SET, key)


@pytest.mark.parametrize(
    "value",
    [
        *[
            "",
            ":",
            "Job",
            "Job:",
            ":x",
            "job:x",
            "Pod:x",
            " Job:x",
            "JOB:x",
            "Job\uff1ax",
            "\x00",
            "\ud800",
            "x" * 1_000_000,
        ],
        *["WeightSet:\x00", "WeightSet:a\ud800", "WeightSet:a\u202eb", "WeightSet:a\nb"],
    ],
    ids=lambda value: ascii(value)[:20],
)
def test_what_is_no_id_is_refused_in_words(value: str) -> None:
    with pytest.raises(
        DomainError, match="This is not an id of this server; ids look like Job:…, WeightSet:…"
    ) as refused:
        parse_global_id(value, path=("id",))

    assert (refused.value.code, refused.value.path) == (ErrorCode.INVALID, ("id",))


def test_an_id_of_another_type_is_refused_by_name() -> None:
    with pytest.raises(DomainError, match="This is the id of a Job; a WeightSet id is needed"):
        key_of(f"Job:{KEY}", NodeType.WEIGHT_SET, path=("id",))


def test_a_jobs_key_is_its_uuid() -> None:
    assert job_key(f"Job:{KEY}", path=("id",)) == UUID(KEY)


@pytest.mark.parametrize(
    "key",
    ["x", KEY.upper(), KEY.replace("-", ""), f"{{{KEY}}}", f"urn:uuid:{KEY}", f" {KEY}", f"{KEY} ", "१" * 32, "-1"],
)
def test_a_jobs_key_is_written_in_one_way_only(key: str) -> None:
    with pytest.raises(DomainError, match="A job's id looks like Job:01930f6e-…") as refused:
        job_key(f"Job:{key}", path=("id",))

    assert refused.value.code is ErrorCode.INVALID


@given(st.text() | st.text().map("Job:{}".format) | st.text(st.characters(categories=["Cs"])).map("Job:{}".format))
def test_any_text_is_an_id_or_is_refused_as_invalid(value: str) -> None:
    try:
        assert str(job_key(value, path=("id",))) == value.removeprefix("Job:")
    except DomainError as error:
        assert error.code is ErrorCode.INVALID  # noqa: PT017 - not every text is refused
