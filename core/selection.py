"""Which files of a repository a server needs. Pure.

By default everything a server reads and one weight format: safetensors when there are any, else GGUF, else
pickle. Taking all siblings multiplies a download by three.
"""

from collections.abc import Iterable, Sequence
from enum import StrEnum
from fnmatch import fnmatchcase

from core.repository import RepositoryFile

LEFT_OUT_DIRECTORIES = ("original/*", "metal/*", "onnx/*", "openvino/*", "coreml/*", "runs/*", "checkpoint-*/*")
LEFT_OUT_PATTERNS = (
    "*.msgpack",
    "*.h5",
    "*.ot",
    "*.onnx",
    "*.onnx_data",
    "*.tflite",
    "*.mlmodel",
    "*.mlpackage/*",
    "rust_model.*",
    "flax_model*",
    "tf_model*",
    "optimizer.*",
    "scheduler.*",
    "scaler.*",
    "rng_state*",
    "trainer_state.json",
    "training_args.bin",
    "events.out.tfevents*",
    "*.png",
    "*.jpg",
    "*.jpeg",
    "*.gif",
    "*.mp4",
    "*.webp",
    ".gitattributes",
    ".gitignore",
)


class FileFormat(StrEnum):
    """What a file is for, told by its name."""

    SAFETENSORS = "SAFETENSORS"
    GGUF = "GGUF"
    PICKLE = "PICKLE"
    ONNX = "ONNX"
    CONFIG = "CONFIG"
    TOKENIZER = "TOKENIZER"
    TEXT = "TEXT"
    OTHER = "OTHER"


WEIGHT_FORMATS = (FileFormat.SAFETENSORS, FileFormat.GGUF, FileFormat.PICKLE)
SUFFIX_FORMATS = {
    ".safetensors": FileFormat.SAFETENSORS,
    ".gguf": FileFormat.GGUF,
    ".bin": FileFormat.PICKLE,
    ".pt": FileFormat.PICKLE,
    ".pth": FileFormat.PICKLE,
    ".ckpt": FileFormat.PICKLE,
    ".pkl": FileFormat.PICKLE,
    ".onnx": FileFormat.ONNX,
    ".json": FileFormat.CONFIG,
    ".yaml": FileFormat.CONFIG,
    ".model": FileFormat.TOKENIZER,
    ".tiktoken": FileFormat.TOKENIZER,
    ".md": FileFormat.TEXT,
    ".txt": FileFormat.TEXT,
    ".jinja": FileFormat.TEXT,
}
TOKENIZER_NAMES = ("tokenizer", "vocab", "merges", "special_tokens", "added_tokens", "sentencepiece", "spiece")


def format_of(path: str) -> FileFormat:
    """Tell a file's format by its name."""
    name = path.rsplit("/", 1)[-1].lower()
    if name.startswith(TOKENIZER_NAMES):
        return FileFormat.TOKENIZER
    if name.startswith(("licence", "license", "readme", "notice")):
        return FileFormat.TEXT
    dot = name.rfind(".")
    return SUFFIX_FORMATS.get(name[dot:], FileFormat.OTHER) if dot > 0 else FileFormat.OTHER


def select_files(
    files: Iterable[RepositoryFile], *, include: Sequence[str] | None, exclude: Sequence[str]
) -> list[RepositoryFile]:
    """Choose the files to install, in the repository's order.

    include: glob patterns; None means the default choice. exclude: taken away from either.
    """
    chosen = _default_choice(list(files)) if include is None else _matching(files, include)
    return [file for file in chosen if not _matches(file.path, exclude)]


def _matching(files: Iterable[RepositoryFile], patterns: Sequence[str]) -> list[RepositoryFile]:
    """Keep what matches one of the patterns."""
    return [file for file in files if _matches(file.path, patterns)]


def _matches(path: str, patterns: Sequence[str]) -> bool:
    """Tell whether a path matches a glob; a pattern that ends in `/` means all below it, as in the Hub's tools."""
    return any(fnmatchcase(path, pattern + "*" if pattern.endswith("/") else pattern) for pattern in patterns)


def _default_choice(files: list[RepositoryFile]) -> list[RepositoryFile]:
    """Keep what a server reads, with one weight format."""
    wanted = [file for file in files if not _is_left_out(file.path)]
    present = {format_of(file.path) for file in wanted}
    chosen = next((form for form in WEIGHT_FORMATS if form in present), None)
    dropped = {form for form in WEIGHT_FORMATS if form != chosen}
    return [file for file in wanted if not _belongs_to(file.path, dropped)]


def _is_left_out(path: str) -> bool:
    """Tell whether a file is of no use to a server: other frameworks, training leftovers, pictures."""
    return _matches(path, LEFT_OUT_DIRECTORIES) or _matches(path.rsplit("/", 1)[-1].lower(), LEFT_OUT_PATTERNS)


def _belongs_to(path: str, formats: set[FileFormat]) -> bool:
    """Tell whether a file is a weight of these formats, or the index of one."""
    if format_of(path) in formats:
        return True
    if not path.endswith(".index.json"):
        return False
    return format_of(path.removesuffix(".index.json")) in formats
