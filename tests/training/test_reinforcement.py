"""Learning from rewards on a tiny model: the reward rises, what is logged and can be read, what is
left, and what stops a run that could not learn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from core.errors import DataError, ModelError, TrainingError
from core.jobs.events import EventWriter, read_events
from core.models.trained import find_trained
from core.rewards.specs import parse_rewards
from core.worker.evaluation.run import run_evaluation
from core.worker.models.loading import open_trained
from core.worker.training.reinforcement import ReportCompletions, chosen_answers
from core.worker.training.run import run_training
from core.workspace import RunFolder
from tests.tiny_model import TinyWorld, shown_report
from tests.training.conftest import events

Train = Callable[..., RunFolder]
# Sixteen answers of at most eight tokens a step; an `e` is in about every third at first.
SETTINGS: dict[str, Any] = {
    "method": "grpo",
    "training.per_device_train_batch_size": 16,
    "training.lr_scheduler_type": "constant",
    "training.warmup_steps": 0,
    "training.max_steps": 16,
    "reinforcement.rewards": [{"kind": "regex", "pattern": "e"}],
    "reinforcement.num_generations": 4,
    "reinforcement.max_completion_length": 8,
}


def rewards(run: RunFolder) -> list[float]:
    """The mean reward at each step."""
    return [event["reward"] for event in events(run, "metrics") if "reward" in event]


@contextmanager
def rewards_file(world: TinyWorld, text: str) -> Iterator[str]:
    """A file of the owner's reward functions in the workspace."""
    folder = world.root / "rewards"
    folder.mkdir(exist_ok=True)
    path = folder / "mine.py"
    path.write_text(text)
    try:
        yield path.name
    finally:
        path.unlink()


@pytest.fixture(scope="module")
def rewarded(world: TinyWorld) -> RunFolder:
    """A run of GRPO with LoRA and two functions, that evaluates and checkpoints on the way."""
    settings = {
        **SETTINGS,
        "training.learning_rate": 1e-2,
        "training.max_length": 64,
        "adapter.lora_dropout": 0.1,
        "training.gradient_checkpointing": True,
        "reinforcement.kl_beta": 0.01,
        "reinforcement.rewards": [
            {"kind": "regex", "pattern": "e", "name": "has_e"},
            {"kind": "length", "unit": "characters", "maximum": 8, "weight": 0.5},
        ],
        "evaluation.eval_strategy": "steps",
        "evaluation.eval_steps": 8,
        "evaluation.sample_max_new_tokens": 2,
        "tracking.save_strategy": "steps",
        "tracking.save_steps": 8,
    }
    run = world.run("rewarded", settings)
    assert run_training(run.root, world.root, None) == "finished"
    return run


def test_grpo_raises_the_reward_and_logs_what_its_curves_need(rewarded: RunFolder) -> None:
    found = rewards(rewarded)
    assert len(found) == 16
    assert fmean(found[-4:]) > fmean(found[:4]) + 0.2
    last = [event for event in events(rewarded, "metrics") if "reward" in event][-1]
    assert last["reward"] == pytest.approx(
        last["rewards/has_e/mean"] + 0.5 * last["rewards/length/mean"], abs=1e-4
    )
    assert last["kl"] > 0 and 0 < last["completions/mean_length"] <= 8
    assert {"reward_std", "frac_reward_zero_std", "entropy", "clip_ratio/region_mean"} <= set(last)
    assert last["tokens_per_second"] > 0 and last["num_tokens"] > 0


def test_held_out_prompts_are_measured_before_and_after(rewarded: RunFolder) -> None:
    found = [event for event in events(rewarded, "metrics") if "eval_reward" in event]
    measured = {event["step"]: event["eval_reward"] for event in found}
    assert sorted(measured) == [0, 8, 16]
    assert measured[16] > measured[0]


def test_answers_can_be_read_with_their_rewards(rewarded: RunFolder) -> None:
    found = [event for event in events(rewarded, "sample") if "rewards" in event]
    assert {event["step"] for event in found} == set(range(1, 17))
    first = [event for event in found if event["step"] == 1]
    assert len(first) == 4 and first[0]["reward"] >= first[-1]["reward"]
    for event in found:
        has_e = event["rewards"]["has_e"]
        assert has_e == float("e" in event["answer"])
        assert event["reward"] == pytest.approx(has_e + 0.5 * event["rewards"]["length"], abs=1e-3)
        assert event["prompt"][-1]["role"] == "user"
        assert event["expected"].startswith('{"colour"')  # the row's own answer
    watched = [event for event in events(rewarded, "sample") if "rewards" not in event]
    assert watched, "the fixed prompts are watched as with other methods"


def test_a_run_is_measured_against_its_base_by_its_own_functions(
    rewarded: RunFolder, world: TinyWorld
) -> None:
    folder = world.task(rewarded, "evaluate", "one", {})
    assert run_evaluation(folder, world.root) == "finished"
    result = shown_report(folder)
    tuned, base = result["tuned"], result["base"]
    assert result["rows"] == 4
    assert tuned["reward"]["low"] <= tuned["reward"]["value"] <= tuned["reward"]["high"]
    parts = tuned["rewards"]
    weighted = parts["has_e"]["value"] + 0.5 * parts["length"]["value"]
    assert tuned["reward"]["value"] == pytest.approx(weighted)
    apart = result["difference"]["reward"]["value"]
    assert apart == pytest.approx(tuned["reward"]["value"] - base["reward"]["value"])
    assert "mean reward" in result["verdict"]
    assert len(result["differences"]) == 4 and result["differences"][0]["tuned_reward"] is not None


def test_a_run_goes_on_from_its_checkpoint(rewarded: RunFolder, world: TinyWorld) -> None:
    before = len(rewards(rewarded))
    point = rewarded.checkpoints / "checkpoint-8"
    assert run_training(rewarded.root, world.root, point) == "finished"
    assert len(rewards(rewarded)) == before + 8
    counted = [e["num_tokens"] for e in events(rewarded, "metrics") if "num_tokens" in e]
    assert counted[-1] == pytest.approx(counted[before - 1], rel=0.2), "counted on, not from 0"


def test_a_run_that_goes_on_with_an_adapter_is_held_to_how_it_began(
    rewarded: RunFolder, train: Train
) -> None:
    """With the adapter off the model is the base, from which it has moved long before."""
    changes = {
        "model.start_from": "continue",
        "model.from_run": rewarded.root.name,
        "training.max_steps": 1,
        "reinforcement.kl_beta": 0.01,
    }
    run = train("further", **{**SETTINGS, **changes})
    (kl,) = [event["kl"] for event in events(run, "metrics") if "kl" in event]
    assert kl == pytest.approx(0, abs=1e-3)


def test_rloo_trains_every_weight_against_a_reference_of_its_own(
    train: Train, world: TinyWorld
) -> None:
    source = (
        "def score(completion, answer):\n    assert answer\n    return float('e' in completion)\n"
    )
    with rewards_file(world, source) as name:
        run = train(
            "rloo",
            **{
                **SETTINGS,
                "method": "rloo",
                "adapter.method": "none",
                "training.learning_rate": 3e-3,
                "reinforcement.kl_beta": 0.01,
                "reinforcement.rewards": [{"kind": "own", "file": name, "function": "score"}],
            },
        )
    found = rewards(run)
    assert fmean(found[-4:]) > fmean(found[:4]) + 0.3
    kl = [event["kl"] for event in events(run, "metrics") if "kl" in event]
    assert kl[0] == pytest.approx(0, abs=1e-3), "the reference begins as the model"
    assert kl[-1] > 0.1
    model, _ = open_trained(find_trained(run), str(world.base), device="cpu", dtype=torch.float32)
    assert all(torch.isfinite(weight).all() for weight in model.parameters())


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"training.per_device_train_batch_size": 64}, DataError, "16 different prompts"),
        ({"training.max_length": 8}, DataError, "more than max_length 8"),
        ({"reinforcement.max_completion_length": 250}, ModelError, "Lower reinforcement.max_compl"),
    ],
)
def test_a_run_that_could_not_begin_says_why(
    train: Train, settings: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error) as caught:
        train("wrong", **{**SETTINGS, **settings})
    assert says in str(caught.value)


@pytest.mark.parametrize("body", ["1 / 0", "float('nan')"])
def test_a_function_that_fails_stops_the_run_with_its_name(
    train: Train, world: TinyWorld, body: str
) -> None:
    source = f"def broken(completion):\n    return {body}\n"
    with rewards_file(world, source) as name, pytest.raises(TrainingError) as caught:
        train(
            "broken",
            **{
                **SETTINGS,
                "reinforcement.rewards": [{"kind": "own", "file": name, "function": "broken"}],
            },
        )
    assert "broken" in str(caught.value) and "row" in str(caught.value)


def test_auto_takes_whole_groups(train: Train) -> None:
    """A batch size that tears the answers to a prompt apart ends the run in TRL."""
    run = train(
        "auto",
        **{
            **SETTINGS,
            "training.per_device_train_batch_size": "auto",
            "training.max_steps": 1,
            "reinforcement.num_generations": 3,
        },
    )
    choices = [event["choice"] for event in events(run, "log") if "choice" in event]
    (batch,) = [c for c in choices if c["field"].endswith("per_device_train_batch_size")]
    assert batch["value"] == 6 and "whole groups of 3" in batch["reason"]
    assert len(rewards(run)) == 1


def test_answers_that_are_all_rewarded_alike_are_told_once(tmp_path: Path) -> None:
    """A run without a signal would take hours and learn nothing."""
    path = tmp_path / "events.jsonl"
    specs = parse_rewards([{"kind": "json_valid"}])
    trainer: Any = SimpleNamespace(written=None)
    told = ReportCompletions(EventWriter(path), trainer, specs, group=4)
    for step in range(1, 40):
        spread = 0.5 if step == 15 else 1.0
        logs = {
            "loss": 0.0,
            "reward": 0.0,
            "frac_reward_zero_std": spread,
            "completions/clipped_ratio": 0.2,
        }
        told.on_log(None, SimpleNamespace(global_step=step, max_steps=40), None, logs=logs)
    warnings = [event["message"] for event in read_events(path)]
    assert len(warnings) == 1 and "For 10 steps" in warnings[0]
    assert "nothing is learned" in warnings[0]


def test_the_answers_shown_are_those_of_the_prompt_they_differ_most_at() -> None:
    totals = torch.tensor([1.0, 1, 1, 1, 1, 1, 0, 0.2, 0.5, 3])
    assert chosen_answers(totals, 5) == [9, 5, 7, 6]
    assert chosen_answers(torch.zeros(4), 2) == [0, 1]
