"""Which files are installed: by default what a server reads, in one format; else what the patterns say."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.repository import Digest, DigestKind, RepositoryFile
from core.selection import FileFormat, format_of, select_files

SERVED = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "chat_template.jinja",
    "LICENSE",
]


def files(paths: list[str]) -> list[RepositoryFile]:
    return [RepositoryFile(path, 1, Digest(DigestKind.GIT_SHA1, "0" * 40)) for path in paths]


def chosen(paths: list[str], *, include: list[str] | None = None, exclude: list[str] | None = None) -> list[str]:
    return [file.path for file in select_files(files(paths), include=include, exclude=exclude or [])]


@pytest.mark.parametrize(
    ("weights", "kept"),
    [
        (["model.safetensors", "pytorch_model.bin", "m.gguf"], ["model.safetensors"]),
        (["m-Q4.gguf", "m-Q8.gguf", "pytorch_model.bin"], ["m-Q4.gguf", "m-Q8.gguf"]),
        (["pytorch_model.bin", "consolidated.00.pth"], ["pytorch_model.bin", "consolidated.00.pth"]),
        (
            ["a.safetensors", "model.safetensors.index.json", "b.bin", "pytorch_model.bin.index.json"],
            ["a.safetensors", "model.safetensors.index.json"],
        ),
        ([], []),
    ],
    ids=["safetensors", "gguf", "pickle", "indices", "none"],
)
def test_one_weight_format_is_chosen_and_all_else_that_a_server_reads(weights: list[str], kept: list[str]) -> None:
    assert chosen(SERVED + weights) == SERVED + kept


@pytest.mark.parametrize(
    "path",
    [
        *["original/consolidated.00.pth", "metal/model.bin", "onnx/model.onnx", "openvino/x.xml", "coreml/x.mlmodel"],
        *[
            "runs/a/b",
            "checkpoint-500/model.safetensors",
            "model.onnx",
            "flax_model.msgpack",
            "tf_model.h5",
            "rust_model.ot",
        ],
        *["training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state_0.pth", "trainer_state.json"],
        *["events.out.tfevents.1", "logo.png", "LOGO.PNG", "docs/Figure.JPG", ".gitattributes"],
    ],
)
def test_what_no_server_reads_is_left_out(path: str) -> None:
    assert chosen(["config.json", path, "model.safetensors"]) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize(
    "path",
    ["checkpoint-best.safetensors", "original.safetensors", "onnxruntime.json", "runs.txt", "sub/original/x.txt"],
)
def test_a_name_that_only_looks_like_a_left_out_directory_is_kept(path: str) -> None:
    assert chosen([path]) == [path]


def test_left_out_weights_do_not_decide_the_format() -> None:
    assert chosen(["original/model.safetensors", "pytorch_model.bin"]) == ["pytorch_model.bin"]


def test_patterns_choose_exactly_and_keep_the_repositorys_order() -> None:
    paths = ["b.json", "a.json", "onnx/model.onnx", "sub/c.json", "x.bin"]

    assert chosen(paths, include=["*.json"]) == ["b.json", "a.json", "sub/c.json"]
    assert chosen(paths, include=["onnx/"]) == ["onnx/model.onnx"]
    assert chosen(paths, include=["x.bin", "a.json"]) == ["a.json", "x.bin"]
    assert chosen(paths, include=[]) == []
    assert chosen(paths, include=["*.JSON"]) == []


def test_exclude_takes_away_from_the_default_and_from_patterns() -> None:
    paths = ["config.json", "m-Q4.gguf", "m-Q8.gguf"]

    assert chosen(paths, exclude=["*Q8*"]) == ["config.json", "m-Q4.gguf"]
    assert chosen(paths, include=["*.gguf"], exclude=["*Q8*"]) == ["m-Q4.gguf"]
    assert chosen(paths, exclude=["*"]) == []


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("a/b/Model.SafeTensors", FileFormat.SAFETENSORS),
        ("m.gguf", FileFormat.GGUF),
        ("m.bin", FileFormat.PICKLE),
        ("m.ckpt", FileFormat.PICKLE),
        ("m.onnx", FileFormat.ONNX),
        ("config.json", FileFormat.CONFIG),
        ("vocab.json", FileFormat.TOKENIZER),
        ("merges.txt", FileFormat.TOKENIZER),
        ("README.md", FileFormat.TEXT),
        ("LICENSE", FileFormat.TEXT),
        (".bin", FileFormat.OTHER),
        ("model", FileFormat.OTHER),
        ("", FileFormat.OTHER),
    ],
)
def test_a_format_is_told_by_the_name(path: str, form: FileFormat) -> None:
    assert format_of(path) is form


def test_a_cruel_pattern_is_answered_in_time() -> None:
    began = time.monotonic()

    chosen(["a" * 1_000] * 50, include=["*a" * 127 + "b", "?*" * 128, "[" * 256, "[!" + "]" * 254])

    assert time.monotonic() - began < 2.0


@given(
    pattern=st.text(min_size=1, max_size=20) | st.text("*?[]!-a/\\", min_size=1, max_size=30), path=st.text(max_size=20)
)
def test_any_pattern_that_is_accepted_can_be_matched(pattern: str, path: str) -> None:
    found = chosen([path], include=[pattern])

    assert found in ([], [path])
    if pattern == path and not set(pattern) & set("*?[]/"):
        assert found == [path]


@given(
    st.lists(
        st.sampled_from(["a.safetensors", "b.bin", "c.gguf", "d.json", "onnx/e.onnx", "f.bin.index.json"]), unique=True
    )
)
def test_the_default_choice_has_at_most_one_weight_format(paths: list[str]) -> None:
    kept = chosen(paths)

    formats = {format_of(path) for path in kept} & {FileFormat.SAFETENSORS, FileFormat.GGUF, FileFormat.PICKLE}
    assert len(formats) <= 1
    assert [path for path in paths if path in kept] == kept
