"""How many requests llama.cpp can hold at once: each keeps the keys and values of its tokens, in
float16, beside the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from core.errors import ExportError
from core.language import _
from core.models.hardware import probe

# The rest is left to llama.cpp's own work and to other programs.
_SHARE = 0.8
_NUMBER_BYTES = 2


def slots(weights: Path, key_value_size: int, context: int, most: int) -> int:
    """How many requests of `context` tokens each, `most` at most, the free memory holds beside the
    `weights`. `key_value_size` is the width of the keys of all layers together.

    Raises ExportError where it holds none.
    """
    free, size = probe().memory_available_bytes, weights.stat().st_size
    one = 2 * _NUMBER_BYTES * key_value_size * context
    room = _SHARE * free - size
    if room < one:
        raise ExportError(
            _(
                "To read {tokens:,} tokens with {file}, llama.cpp needs {needed:.1f} GB of memory; "
                "{free:.1f} GB are free.",
                tokens=context,
                file=weights.name,
                needed=(one + size) / _SHARE / 1e9,
                free=free / 1e9,
            ),
            _("End other programs, leave out the longest rows, or take a smaller model."),
        )
    return min(most, int(room // one)) if one else most


def read_tokens(file: Path) -> list[str]:
    """The tokens of a GGUF file, as its tokenizer writes them, by id."""
    from cyllama.llama.llama_cpp import GGUFContext

    return list(GGUFContext.from_file(str(file)).get_value("tokenizer.ggml.tokens"))


def read_sizes(file: Path) -> tuple[int, int]:
    """(how many tokens the model of a GGUF file reads, the width of the keys of all its layers).
    Raises ExportError for what is no such file."""
    from cyllama.llama.llama_cpp import GGUFContext

    try:
        told = GGUFContext.from_file(str(file))
        name = told.get_value("general.architecture")

        def value(key: str, otherwise: Any = None) -> Any:
            has_none = told.find_key(f"{name}.{key}") < 0 and otherwise is not None
            return otherwise if has_none else told.get_value(f"{name}.{key}")

        heads = value("attention.head_count")
        keys = value("attention.head_count_kv", heads)
        if not isinstance(keys, list):  # a number for each layer, or one for all
            keys = [keys] * int(value("block_count"))
        queries = heads[0] if isinstance(heads, list) else heads
        width = value("attention.key_length", value("embedding_length") // max(1, queries))
        return int(value("context_length")), int(width) * sum(keys)
    except (OSError, KeyError) as error:
        raise ExportError(
            _("{file} cannot be read as GGUF.", file=file.name),
            _("Choose another file, or make it again."),
        ) from error
