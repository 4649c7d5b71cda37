"""Whole runs on a tiny model, from config.yaml to the saved adapter."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from core.data.prepare import import_dataset
from core.errors import DataError, TrainingError
from core.language import PSEUDO, speaking
from core.rules import load_config
from core.worker.training.advice import advise
from core.worker.training.attention import other_attention
from core.worker.training.row_trainer import RowTrainer
from core.worker.training.run import run_training
from core.workspace import RunFolder
from tests.tiny_model import TinyWorld, colour_rows
from tests.training.conftest import SETTINGS, events, losses

Train = Callable[..., RunFolder]
EVALUATING = {
    "evaluation.eval_strategy": "steps",
    "evaluation.eval_steps": 3,
    "tracking.save_strategy": "steps",
    "tracking.save_steps": 3,
}


def logits(model: Any, tokenizer: Any) -> torch.Tensor:
    return model(**tokenizer("a red cup", return_tensors="pt")).logits.detach()


def test_a_run_learns_and_its_adapter_opens_elsewhere(train: Train, world: TinyWorld) -> None:
    """A finished run would have learned nothing, or nothing that can be opened."""
    run = train("learns", **{"training.num_train_epochs": 6.0})
    found = losses(run)
    assert len(found) == 18 and found[-1] < 0.3 * found[0]
    base = AutoModelForCausalLM.from_pretrained(world.base)
    tokenizer = AutoTokenizer.from_pretrained(run.adapter)
    plain = logits(base, tokenizer)
    model = PeftModel.from_pretrained(base, str(run.adapter)).eval()
    assert (logits(model, tokenizer) - plain).abs().max() > 0.1
    settings = json.loads((run.adapter / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == "tiny"
    assert not list(run.root.glob(".adapter.making"))


def test_the_saved_adapter_answers_as_the_trained_model_did(
    train: Train, world: TinyWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model in Chat would be another than the one that was trained."""
    kept: list[Any] = []
    before = RowTrainer.train

    def keep(self: RowTrainer, **options: Any) -> Any:
        result = before(self, **options)
        kept.append(self.model)
        return result

    monkeypatch.setattr(RowTrainer, "train", keep)
    run = train("same", **{"training.precision": "fp32"})
    tokenizer = AutoTokenizer.from_pretrained(run.adapter)
    base = AutoModelForCausalLM.from_pretrained(world.base)
    loaded = PeftModel.from_pretrained(base, str(run.adapter)).eval()
    with other_attention(kept[0].get_base_model()):
        expected = logits(kept[0].eval(), tokenizer)
    torch.testing.assert_close(logits(loaded, tokenizer), expected)


def test_what_was_chosen_is_written_down_and_told(train: Train) -> None:
    """Nobody could say later how the run was made, and a resumed one would choose anew."""
    run = train("auto", **{"training.per_device_train_batch_size": "auto"})
    packs = train(
        "packs",
        **{"training.per_device_train_batch_size": "auto", "training.packing": True},
    )
    assert load_config(packs.config).training.per_device_train_batch_size == 5  # 300 of 64 tokens
    config = load_config(run.config)
    assert "auto" not in (
        config.training.device,
        config.training.precision,
        config.training.per_device_train_batch_size,
        config.training.gradient_checkpointing,
    )
    assert len(config.data.dataset_fingerprint) == 64
    told = {event["choice"]["field"]: event for event in events(run, "log") if "choice" in event}
    assert told["training.per_device_train_batch_size"]["choice"]["value"] == 8
    assert all(event["choice"]["reason"] in event["message"] for event in told.values())


def test_events_let_one_follow_the_run(train: Train) -> None:
    """The page would show no curve, no time left and no end."""
    run = train("events", **EVALUATING)
    metrics = events(run, "metrics")
    first = next(event for event in metrics if "loss" in event)
    wanted = {"step", "epoch", "loss", "grad_norm", "learning_rate", "mean_token_accuracy"}
    assert wanted | {"tokens_per_second", "memory_bytes"} <= first.keys()
    assert [event["step"] for event in metrics if "eval_loss" in event] == [3, 6]
    progress = [event for event in events(run, "progress") if "step" in event]
    assert progress[0]["step"] == 0 and progress[0]["max_steps"] == 6
    assert progress[-1]["step"] == 6 and progress[-1]["eta_seconds"] == pytest.approx(0, abs=1)
    assert all(event["eta_seconds"] is not None for event in progress[1:])


def test_sample_answers_show_the_base_first_and_then_the_learning(train: Train) -> None:
    """One could not watch the model learn, or the first answers would not be the base's."""
    run = train(
        "samples",
        **EVALUATING,
        **{"evaluation.sample_max_new_tokens": 16, "training.num_train_epochs": 12.0},
    )
    found = events(run, "sample")
    assert [event["step"] for event in found][:6] == [0, 0, 0, 3, 3, 3]
    assert found[-1]["step"] == 36 and len(found) == 3 * 13
    assert found[0]["prompt"] == [{"role": "user", "content": "a red cup"}]
    right = [event for event in found if event["answer"] == event["expected"]]
    assert right and min(event["step"] for event in right) > 0
    untrained = train(
        "untrained",
        **EVALUATING,
        **{
            "evaluation.sample_max_new_tokens": 16,
            "training.learning_rate": 1e-12,
        },
    )
    last = [event["answer"] for event in events(untrained, "sample")][-3:]
    assert [event["answer"] for event in found[:3]] == last


def test_own_prompts_are_watched_with_the_system_prompt(train: Train) -> None:
    """One would watch answers to other questions than one's own."""
    run = train(
        "prompts",
        **EVALUATING,
        **{
            "evaluation.sample_max_new_tokens": 2,
            "evaluation.sample_prompts": ["a blue hat"],
            "data.system_prompt": "Be brief.",
        },
    )
    prompt = events(run, "sample")[0]["prompt"]
    assert prompt == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "a blue hat"},
    ]


@pytest.mark.parametrize(
    "settings",
    [
        {"adapter.use_rslora": True, "adapter.lora_dropout": 0.1},
        {"adapter.bias": "all", "adapter.target_modules": ["q_proj", "v_proj"]},
        {"adapter.modules_to_save": ["lm_head"]},
        {
            "training.neftune_noise_alpha": 5.0,
            "training.packing": True,
            "training.packing_strategy": "wrapped",
        },
        {"model.attn_implementation": "eager"},
        {"training.gradient_checkpointing": True, "training.sft_loss_type": "dft"},
        {"training.precision": "bf16"},
    ],
    ids=lambda settings: "-".join(str(value) for value in settings.values()),
)
def test_with_these_settings_it_learns(train: Train, settings: dict[str, Any]) -> None:
    """A setting that the page offers would fail in the run, or train nothing."""
    run = train("kind", **{"training.num_train_epochs": 4.0, **settings})
    found = [e["mean_token_accuracy"] for e in events(run, "metrics") if "loss" in e]
    assert found[-1] > found[0] + 0.2
    assert (run.adapter / "adapter_model.safetensors").is_file()


def test_a_model_trained_in_full_is_saved_whole(train: Train, world: TinyWorld) -> None:
    """Full fine-tuning would leave a model that does not open, or the base."""
    run = train("full", **{"adapter.method": "none", "training.learning_rate": 3e-3})
    assert losses(run)[-1] < losses(run)[0] - 0.5
    model = AutoModelForCausalLM.from_pretrained(run.model)
    assert AutoTokenizer.from_pretrained(run.model).chat_template
    before = AutoModelForCausalLM.from_pretrained(world.base)
    assert not torch.equal(model.model.norm.weight, before.model.norm.weight)
    assert "rows" not in (run.model / "config.json").read_text()


def test_a_loss_that_is_not_a_number_ends_the_run(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broken run would go on for hours, and its checkpoints would be broken too."""
    monkeypatch.setattr(
        RowTrainer,
        "compute_loss",
        _spoilt_at(RowTrainer.compute_loss, step=3),
    )
    with pytest.raises(TrainingError, match="step 3 is nan") as caught:
        train("nan", **{"tracking.save_strategy": "steps", "tracking.save_steps": 1})
    assert "learning_rate" in caught.value.hint


def _spoilt_at(compute: Any, step: int) -> Any:
    def spoilt(self: RowTrainer, *arguments: Any, **options: Any) -> Any:
        loss = compute(self, *arguments, **options)
        return loss * float("nan") if self.state.global_step + 1 == step else loss

    return spoilt


def test_a_gradient_that_is_not_a_number_never_reaches_the_weights(
    train: Train, monkeypatch: pytest.MonkeyPatch, world: TinyWorld
) -> None:
    """The checkpoint of that step would hold NaN, and resuming from it too."""
    step = RowTrainer.training_step

    def spoil(self: RowTrainer, *arguments: Any, **options: Any) -> Any:
        loss = step(self, *arguments, **options)
        if self.state.global_step == 1:
            next(p for p in self.model.parameters() if p.grad is not None).grad[0] = float("nan")
        return loss

    monkeypatch.setattr(RowTrainer, "training_step", spoil)
    with pytest.raises(TrainingError, match="gradient at step 2"):
        train("nan-grad", **{"tracking.save_strategy": "steps", "tracking.save_steps": 1})
    (run,) = world.workspace.runs.glob("*nan-grad")
    saved = list(RunFolder(run).checkpoints.glob("checkpoint-*"))
    assert [path.name for path in saved] == ["checkpoint-1"]
    weights = load_file(saved[0] / "adapter_model.safetensors")
    assert all(torch.isfinite(weight).all() for weight in weights.values())


def test_rows_that_teach_nothing_are_counted_and_named(train: Train, world: TinyWorld) -> None:
    """Rows would vanish without a word."""
    turns = [{"role": "user", "content": "a red cup " * 9}, {"role": "assistant", "content": "no"}]
    file = world.workspace.uploads / "mixed.jsonl"
    rows = [*colour_rows()[:4], {"messages": turns}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    mixed = import_dataset(world.workspace, [file], name="Mixed", eval_fraction=0.0)
    run = train("mixed", **{"data.dataset": mixed.id, "training.max_length": 25})
    (warning,) = [event for event in events(run, "log") if event["level"] == "warning"]
    assert "1 of 5 train rows are left out: row 5: No answer" in warning["message"]
    with speaking(PSEUDO):
        assert all("⟦" in event["message"] for event in events(run, "log"))
    with pytest.raises(DataError, match="Nothing can be learned"):
        train("none", **{"training.max_length": 8})


def test_no_more_rows_are_used_than_asked_for(train: Train) -> None:
    """A quick trial would take as long as the whole run."""
    run = train("few", **{"data.max_train_samples": 5, "training.num_train_epochs": 1.0})
    assert len(losses(run)) == 2
    assert any(event["message"].startswith("5 train rows") for event in events(run, "log"))


def test_a_stop_before_the_first_step_is_heeded(world: TinyWorld, tmp_path: Path) -> None:
    """Somebody who stops a run at once would wait for the model to load and train."""
    run = world.run(f"stopped-{tmp_path.name.replace('_', '-').lower()[:40]}", SETTINGS)
    run.stop_request.touch()
    assert run_training(run.root, world.root, None) == "stopped"
    assert not run.adapter.exists()


def test_modules_that_the_model_lacks_are_named(train: Train) -> None:
    """Somebody would search a library's traceback for the setting that is wrong."""
    with pytest.raises(ValueError) as caught:
        train("modules", **{"adapter.target_modules": ["wq_proj"]})
    advice = advise(caught.value)
    assert "wq_proj" in advice.message and "all-linear" in advice.hint


def test_a_stop_while_saving_does_not_lose_the_result(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that was trained to its end would keep nothing."""
    before = RowTrainer.train

    def stop_after(self: RowTrainer, **options: Any) -> Any:
        result = before(self, **options)
        RunFolder(Path(self.args.output_dir).parent).stop_request.touch()
        return result

    monkeypatch.setattr(RowTrainer, "train", stop_after)
    assert train("saving").adapter.is_dir()
