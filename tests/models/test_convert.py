"""SmolLM2's GGUF as a folder that transformers loads: else there is no starter model to train."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.models import tiny

PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, np.ndarray], str]:
    """The folder, the weights that went in, and what the process printed."""
    folder = tmp_path_factory.mktemp("convert")
    weights = tiny.make_gguf(folder / "tiny.gguf")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "core.worker.models.convert",
            folder / "tiny.gguf",
            folder / "model",
        ],
        env={**os.environ, "PYTHONPATH": str(PROJECT), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder / "model", weights, done.stdout


def test_the_weights_are_those_of_the_file_in_bfloat16(converted) -> None:
    """A wrong conversion would train noise and still look like a model."""
    import torch
    from safetensors.torch import load_file

    folder, weights, _ = converted
    saved = load_file(folder / "model.safetensors")
    for ours, theirs in (
        ("model.embed_tokens.weight", "token_embd.weight"),
        ("model.layers.0.self_attn.v_proj.weight", "blk.0.attn_v.weight"),
        ("model.layers.0.mlp.down_proj.weight", "blk.0.ffn_down.weight"),
    ):
        assert torch.equal(saved[ours], torch.from_numpy(weights[theirs]).bfloat16()), ours
    assert {weight.dtype for weight in saved.values()} == {torch.bfloat16}


def test_the_model_generates(converted) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(converted[0])
    model = AutoModelForCausalLM.from_pretrained(converted[0])
    prompt = tokenizer("in", return_tensors="pt")
    answer = model.generate(**prompt, max_new_tokens=3, do_sample=False)
    assert answer.shape[1] > prompt["input_ids"].shape[1]
    assert not hasattr(model.config, "quantization_config")
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id == 2


def test_the_end_of_an_answer_is_not_padding(converted) -> None:
    """With one token for both, masking the padding would unlearn where an answer ends."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(converted[0])
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
    assert tokenizer.model_max_length == 256
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "in"}], tokenize=False)
    assert chat == "<|im_start|>user\nin<|im_end|>\n"


def test_numbers_are_split_as_in_the_models_own_training(converted) -> None:
    """Without it, spaces before a number become other tokens than the model knows."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(converted[0])
    assert tokenizer.tokenize("a  12") == ["a", "ĠĠ", "1", "2"]


def test_the_stages_are_told(converted) -> None:
    """They move the progress bar of the first start."""
    stages = [line.split(" ", 1) for line in converted[2].splitlines()]
    assert [float(share) for share, _ in stages] == sorted(float(share) for share, _ in stages)
    assert stages[-1] == ["1.00", "done"]
