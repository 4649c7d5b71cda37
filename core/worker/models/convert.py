"""Turns SmolLM2's GGUF file into a folder with safetensors and a tokenizer.

It is run as a process of its own: python -m core.worker.models.convert FILE.gguf FOLDER

Prints a line `fraction message` for each stage on standard output.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

from core.language import N_

# Fills a batch up. Not the end-of-turn token, which has to be learned as an answer's end.
PAD_TOKEN = "<|endoftext|>"


def convert(gguf: Path, folder: Path) -> None:
    """Writes `gguf`, dequantized to bfloat16, into `folder` as transformers loads it."""
    report(0.0, N_("loading torch"))
    import gguf as library
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    # transformers reads the file three times, and asks for the same names at each tensor.
    for name in ("GGUFReader", "get_tensor_name_map"):
        setattr(library, name, lru_cache(getattr(library, name)))
    report(0.2, N_("reading the weights"))
    loaded = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16
    )
    config = loaded.config
    # The weights are no longer quantized, and a quantized model refuses to be saved.
    for attribute in ("quantization_config", "_model_name_or_path"):
        if hasattr(config, attribute):
            delattr(config, attribute)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    prepare_tokenizer(tokenizer, config.max_position_embeddings)
    config.pad_token_id = tokenizer.pad_token_id

    report(0.6, N_("writing safetensors"))
    model = type(loaded)(config).to(torch.bfloat16)
    model.load_state_dict(loaded.state_dict())
    model.tie_weights()
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    report(1.0, N_("done"))


def prepare_tokenizer(tokenizer: Any, max_length: int) -> None:
    """What transformers' GGUF reader leaves out of the tokenizer.

    SmolLM2 splits numbers into single digits before anything else (`smollm` in the file), so that
    "a  12" has the tokens it had in training.
    """
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence

    tokenizer.backend_tokenizer.pre_tokenizer = Sequence(
        [Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]
    )
    tokenizer.model_max_length = max_length
    tokenizer.pad_token = PAD_TOKEN


def report(fraction: float, message: str) -> None:
    print(f"{fraction:.2f} {message}", flush=True)


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
