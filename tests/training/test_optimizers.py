"""Each optimizer that runs on a CPU learns, and goes on after a resume as if nothing had been."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from core.config.optimizers import OPTIMIZERS
from core.config.schedules import SCHEDULES
from core.rules import parse_config
from core.setup.extras import is_installed
from core.worker.training.optimizers import OptimizedTrainer, optimizer_arguments
from core.worker.training.trainer import WatchedTrainer

STEPS = 4
# RAdam stands still for its first five steps.
LONGER = {"schedule_free_radam": 12}
RATES = {
    "sgd": 0.5,
    "lomo": 0.5,
    "adalomo": 0.05,
    "schedule_free_sgd": 1.0,
    "schedule_free_radam": 0.1,
    "lion": 1e-3,
}
# What compiles itself takes a minute; what needs another package or device is told before a start.
ON_CPU = [
    name
    for name, optimizer in OPTIMIZERS.items()
    if not optimizer.module and not optimizer.compiles and optimizer.devices != ("cuda",)
]
# On a CPU these are what others are too, but for their names.
SAME_THERE = [name for name in ON_CPU if "paged" in name]
SAME_THERE += ["adamw_bnb_8bit", "rmsprop_bnb_32bit"]
# Given, they are read by the library; a text where it wants a number ends the run at its start.
GIVEN: dict[str, dict[str, Any]] = {
    "sgd": {"momentum": 0.9, "nesterov": True},
    "adagrad": {"lr_decay": 1e-3},
    "rmsprop": {"alpha": 0.95, "centered": True},
    "rmsprop_bnb_8bit": {"alpha": 0.95, "momentum": 0.5},
    "ademamix_8bit": {"beta3": 0.99, "t_alpha": 10, "t_beta3": 10},
    "stable_adamw": {"kahan_sum": False},
    "galore_adamw": {"rank": 4, "proj_type": "right"},
    "apollo_adamw": {"rank": 1, "scale": 128.0, "scale_type": "tensor"},
    "apollo_adamw_layerwise": {"rank": 4, "update_proj_gap": 2},
    "schedule_free_adamw": {"r": 0.5},
    "grokadamw": {"lamb": 1.0},
}


class Told(OptimizedTrainer, Trainer):
    """A trainer as ours are, without what TRL adds."""

    def losses(self) -> list[float]:
        return [log["loss"] for log in self.state.log_history if "loss" in log]


def make(folder: Path, name: str, **changes: Any) -> Told:
    """A trainer on eight short rows with a model of one narrow layer."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=96,
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=1,
            num_attention_heads=2,
            tie_word_embeddings=True,
        )
    )
    rows = torch.randint(0, 96, (8, 12), generator=torch.Generator().manual_seed(1))
    rate = next((RATES[key] for key in RATES if name.startswith(key)), 3e-3)
    optimizer = OPTIMIZERS[name]
    settings: dict[str, Any] = {
        "adapter.method": "none",
        "training.optim": name,
        "training.optim_args": GIVEN.get(name, {}),
        "training.learning_rate": rate,
        "training.lr_scheduler_type": "constant" if optimizer.schedule_free else "linear",
    }
    config = parse_config({**settings, **changes})
    measured = SCHEDULES[config.training.lr_scheduler_type].measured
    steps = LONGER.get(name, STEPS)
    arguments = TrainingArguments(
        output_dir=str(folder),
        learning_rate=config.training.learning_rate,
        warmup_steps=config.training.warmup_steps,
        max_steps=steps,
        save_steps=steps // 2,
        eval_strategy="steps" if measured else "no",
        logging_steps=1,
        per_device_train_batch_size=4,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        **optimizer_arguments(config),
    )
    data = [{"input_ids": row, "labels": row} for row in rows]
    trainer = Told(model=model, args=arguments, train_dataset=data, eval_dataset=data)
    trainer.remove_callback(PrinterCallback)
    return trainer


def learns(folder: Path, name: str) -> Told:
    trainer = make(folder, name)
    trainer.train()
    losses = trainer.losses()
    assert min(losses[1:]) < losses[0] - 0.05, losses
    return trainer


def resumes(folder: Path, name: str, losses: list[float]) -> None:
    half = len(losses) // 2
    again = make(folder, name)
    again.train(resume_from_checkpoint=str(folder / f"checkpoint-{half}"))
    assert again.losses()[half:] == pytest.approx(losses[half:], abs=1e-3)


@pytest.mark.parametrize("name", ON_CPU)
@pytest.mark.filterwarnings("ignore")
def test_it_learns_and_a_resumed_run_goes_on_exactly(tmp_path: Path, name: str) -> None:
    extra = OPTIMIZERS[name].extra
    if extra and not is_installed(extra):
        pytest.skip(f"{extra} is not installed")
    with torch.compiler.set_stance("force_eager"):  # compiling takes torchao's a minute
        _learns_and_goes_on(tmp_path, name)


def _learns_and_goes_on(tmp_path: Path, name: str) -> None:
    trainer = learns(tmp_path, name)
    norms = [log["grad_norm"] for log in trainer.state.log_history if "grad_norm" in log]
    # Where the gradients are gone before they could be measured, there is no norm, not one of 0.
    assert bool(norms) is not OPTIMIZERS[name].at_once and all(norms)
    if name not in SAME_THERE:
        resumes(tmp_path, name, trainer.losses())


@pytest.mark.filterwarnings("ignore")
def test_adalomo_keeps_its_sums_in_a_checkpoint(tmp_path: Path, monkeypatch) -> None:
    """It asks for CUDA by name; its sums lie beside the state that a checkpoint gets."""
    pytest.importorskip("lomo_optim")
    monkeypatch.setattr(torch.Tensor, "cuda", lambda self: self)
    resumes(tmp_path, "adalomo", learns(tmp_path, "adalomo").losses())


@pytest.mark.filterwarnings("ignore")
def test_a_schedule_free_run_leaves_the_average(tmp_path: Path) -> None:
    """The weights that are trained are not those that are good; and a warm-up that is a share of
    the steps must not multiply the first step by twenty."""
    pytest.importorskip("schedulefree")
    trainer = make(tmp_path, "schedule_free_adamw", **{"training.warmup_steps": 0.5})
    trainer.train()
    groups = trainer.optimizer.param_groups
    assert {group["warmup_steps"] for group in groups} == {STEPS // 2}
    assert not any(group["train_mode"] for group in groups)
    kept = [weight.detach().clone() for weight in trainer.model.parameters()]
    trainer.optimizer.train()
    assert any(not torch.equal(a, b) for a, b in zip(kept, trainer.model.parameters(), strict=True))
    saved = torch.load(tmp_path / f"checkpoint-{STEPS}" / "optimizer.pt", weights_only=True)
    assert not any(group["train_mode"] for group in saved["param_groups"])


def test_every_trainer_of_ours_makes_its_optimizer_so() -> None:
    assert issubclass(WatchedTrainer, OptimizedTrainer)


SCHEDULE_ARGUMENTS: dict[str, dict[str, Any]] = {
    "cosine": {"num_cycles": 1.5},
    "cosine_with_restarts": {"num_cycles": 2},
    "cosine_with_min_lr": {"min_lr_rate": 0.1},
    "cosine_warmup_with_min_lr": {"min_lr": 1e-5, "warmup_lr_rate": 0.1},
    "warmup_stable_decay": {"num_decay_steps": 2, "decay_type": "1-sqrt"},
    "polynomial": {"lr_end": 1e-6, "power": 2.0},
    "inverse_sqrt": {"timescale": 4},
    "reduce_lr_on_plateau": {"factor": 0.5, "patience": 1},
    "greedy": {"min_lr": 1e-5, "max_lr": 1e-2, "patience": 1, "smooth": True},
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_runs_with_its_arguments(tmp_path: Path, name: str) -> None:
    trainer = make(
        tmp_path,
        "adamw_torch",
        **{
            "training.lr_scheduler_type": name,
            "training.lr_scheduler_kwargs": SCHEDULE_ARGUMENTS.get(name, {}),
            "training.warmup_steps": 1.0,
        },
    )
    trainer.create_optimizer_and_scheduler(10)
    rates = []
    for step in range(10):
        trainer.optimizer.step()
        measured = (float(step),) if SCHEDULES[name].measured else ()
        trainer.lr_scheduler.step(*measured)
        rates.append(trainer.optimizer.param_groups[0]["lr"])
    still = {"constant", "constant_with_warmup"}
    assert (len(set(rates)) == 1) is (name in still)
    assert max(rates) <= 3e-3 * (1 + 1e-6) or name == "greedy"


def test_a_measured_schedule_waits_for_an_accuracy_to_rise(tmp_path: Path) -> None:
    """The library's own mode would lower the rate while the accuracy rises."""
    config = parse_config(
        {
            "training.lr_scheduler_type": "reduce_lr_on_plateau",
            "evaluation.greater_is_better": True,
            "evaluation.metric_for_best_model": "eval_accuracy",
        }
    )
    assert optimizer_arguments(config)["lr_scheduler_kwargs"] == {"mode": "max"}
