"""Each kind of adapter learns, comes back from disk as it was, trains what was told before the
start, and becomes part of its base where it can."""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean
from typing import Any

import pytest
import torch

from core.chat.settings import ChatSettings
from core.config.adapter import TUNERS
from core.export.formats import formats
from core.models.describe import describe_model, trainable_parameters
from core.models.trained import find_trained
from core.rules import load_config
from core.tokens.prompts import end_of_answer_ids
from core.worker.chat.decode import next_tokens
from core.worker.evaluation.measure import answer_losses, write_answers
from core.worker.evaluation.rows import load_eval_set
from core.worker.models.loading import open_trained
from core.workspace import RunFolder
from tests.tiny_model import TinyWorld
from tests.training.conftest import events, losses

Train = Callable[..., RunFolder]

RATE = "training.learning_rate"
# By the name of the case: what of `adapter` is set, and how fast it learns.
KINDS: dict[str, tuple[float, dict[str, Any]]] = {
    "rslora-and-patterns": (
        1e-2,
        {
            "use_rslora": True,
            "rank_pattern": {"down_proj": 4},
            "alpha_pattern": {"q_proj": 8},
            "target_modules": ["q_proj", "k_proj", "down_proj"],
            "exclude_modules": ["k_proj"],
            "layers_to_transform": [1],
        },
    ),
    "dora": (1e-2, {"use_dora": True}),
    "pissa": (1e-2, {"init_lora_weights": "pissa", "r": 4}),
    "olora": (1e-2, {"init_lora_weights": "olora", "r": 4, "use_rslora": True}),
    "eva": (1e-2, {"init_lora_weights": "eva", "r": 4}),
    "eva-ranks": (1e-2, {"init_lora_weights": "eva", "r": 4, "eva_rho": 2.0}),
    "loraplus": (1e-3, {"loraplus_lr_ratio": 16.0}),
    "adalora": (0.1, {"method": "adalora", "init_r": 8, "target_r": 4, "tinit": 2, "tfinal": 2}),
    "loha": (1e-2, {"method": "loha"}),
    "lokr": (3e-2, {"method": "lokr", "decompose_both": True, "r": 2}),
    "vera": (0.3, {"method": "vera", "r": 64}),
    "oft": (1e-2, {"method": "oft", "oft_block_size": 24}),
    "ia3": (0.1, {"method": "ia3"}),
    "prompt": (0.1, {"method": "prompt_tuning", "prompt_tuning_init": "SAMPLE_VOCAB"}),
    "prompt-text": (
        0.1,
        {
            "method": "prompt_tuning",
            "prompt_tuning_init": "TEXT",
            "prompt_tuning_init_text": "Name the colour and the thing.",
        },
    ),
    "prefix": (0.3, {"method": "prefix_tuning"}),
    "prefix-network": (1e-2, {"method": "prefix_tuning", "prefix_projection": True}),
    "freeze": (1e-2, {"method": "freeze", "freeze_trainable_layers": 1}),
    "freeze-modules": (
        1e-2,
        {
            "method": "freeze",
            "freeze_trainable_layers": -2,
            "freeze_trainable_modules": ["mlp"],
            "freeze_extra_modules": ["lm_head", "norm"],
        },
    ),
}


def told_weights(run: RunFolder) -> int:
    """How many weights the worker said that it trains."""
    told = [e["message"] for e in events(run, "log") if "weights are trained" in e["message"]]
    return int(told[0].split(" ")[0].replace(",", ""))


def last_eval_loss(run: RunFolder) -> float:
    return [float(e["eval_loss"]) for e in events(run, "metrics") if "eval_loss" in e][-1]


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_and_comes_back(train: Train, world: TinyWorld, kind: str) -> None:
    """An adapter that does not learn, or answers otherwise once it was saved, is worth nothing."""
    rate, settings = KINDS[kind]
    run = train(
        kind,
        **{f"adapter.{name}": value for name, value in settings.items()},
        **{RATE: rate, "training.num_train_epochs": 4.0, "evaluation.eval_strategy": "epoch"},
        **{"evaluation.sample_max_new_tokens": 2},
    )
    curve = losses(run)
    assert fmean(curve[-3:]) < fmean(curve[:3]) - 0.15
    samples = [e["step"] for e in events(run, "sample")]
    assert min(samples) == 0 and max(samples) == len(curve)

    config = load_config(run.config)
    told = trainable_parameters(describe_model(world.base), config)
    assert told == (None if kind == "eva-ranks" else told_weights(run))

    trained = find_trained(run)
    assert trained.is_adapter == config.adapter.is_adapter
    model, tokenizer = open_trained(trained, str(world.base), device="cpu", dtype=torch.float32)
    rows = load_eval_set(world.workspace, config, tokenizer, None).rows
    measured = answer_losses(model, [row.tokens for row in rows], lambda share: None)
    again = measured.sums.sum() / measured.tokens.sum()
    assert again == pytest.approx(last_eval_loss(run), rel=1e-4)

    # Token by token as in a chat, and in a batch as in an evaluation.
    prompt = tokenizer("a red cup")["input_ids"]
    ends = end_of_answer_ids(model, tokenizer)
    greedy = ChatSettings(temperature=0)
    chat = [token for token in next_tokens(model, prompt, greedy, ends, 6) if token is not None]
    (batch,) = write_answers(model, tokenizer, [prompt], max_new_tokens=6, tell=lambda share: None)
    assert tokenizer.decode(chat, skip_special_tokens=True).strip() == batch

    assert bool(formats()["merged"].why_not(config)) == config.adapter.is_prompt
    if config.adapter.method in TUNERS:
        ids = torch.tensor([prompt])
        with torch.inference_mode():
            apart = model(ids).logits
            merged = model.merge_and_unload(safe_merge=True)(ids).logits
        assert torch.allclose(merged, apart, atol=2e-4)
