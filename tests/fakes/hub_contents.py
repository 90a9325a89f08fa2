"""What the fake Hub reads out of a repository's own files: the model card and the safetensors headers."""

import json
import math
import struct
from collections.abc import Callable
from typing import Any

import yaml  # type: ignore[import-untyped]

LARGEST_HEADER_BYTES = 25_000_000


def card_of(readme: str) -> dict[str, Any]:
    """Return the YAML front matter of a README, or nothing when there is none."""
    lines = readme.splitlines()
    if not lines or lines[0].strip() != "---" or "---" not in lines[1:]:
        return {}
    front_matter = "\n".join(lines[1 : lines.index("---", 1)])
    try:
        card = yaml.safe_load(front_matter)
    except yaml.YAMLError:
        return {}
    return card if isinstance(card, dict) else {}


def config_digest(config_text: str) -> dict[str, Any]:
    """Return the few keys of config.json that the Hub repeats on the model itself."""
    try:
        config = json.loads(config_text)
    except ValueError:
        return {}
    if not isinstance(config, dict):
        return {}
    kept = ("architectures", "model_type", "quantization_config", "auto_map")
    return {key: config[key] for key in kept if key in config}


def safetensors_counts(read: Callable[[int, int], bytes]) -> dict[str, int]:
    """Count the parameters of one safetensors file by dtype, reading only its header."""
    head = read(0, 8)
    if len(head) < 8:
        return {}
    (header_bytes,) = struct.unpack("<Q", head)
    if header_bytes > LARGEST_HEADER_BYTES:
        return {}
    try:
        header = json.loads(read(8, header_bytes))
    except ValueError:
        return {}
    return _counts_by_dtype(header) if isinstance(header, dict) else {}


def _counts_by_dtype(header: dict[str, Any]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name, tensor in header.items():
        if name != "__metadata__":
            counts[tensor["dtype"]] = counts.get(tensor["dtype"], 0) + math.prod(tensor["shape"])
    return counts
