"""What follows from the settings of a run, by arithmetic alone."""

from __future__ import annotations

from typing import Any

from core.config.run import RunConfig

_QUICK_BATCH = 8


def continues(config: RunConfig) -> bool:
    """Whether the run begins with what another run made."""
    return bool(config.model.start_from != "base" and config.model.from_run)


def run_and_checkpoint(config: RunConfig) -> tuple[str, str]:
    """(id of the run to begin with, its checkpoint): `quiet-otter@checkpoint-40` has both."""
    run_id, _, checkpoint = config.model.from_run.partition("@")
    return run_id, checkpoint or "final"


def answers_a_step(config: RunConfig, batch: int) -> int:
    """How many answers are written at once with `batch` rows at once."""
    batches = config.reinforcement.steps_per_generation
    return batch * (config.training.gradient_accumulation_steps if batches is None else batches)


def nearest_batch(config: RunConfig, batch: int) -> int:
    """The batch size nearest to `batch` with which a step has whole groups of answers."""
    group = config.reinforcement.num_generations
    least = next(n for n in range(1, group + 1) if answers_a_step(config, n) % group == 0)
    return max(least, round(batch / least) * least)


def batches_an_epoch(config: RunConfig, rows: int, batch: int) -> int:
    """How many batches an epoch has: prompts that fill no whole step are left out of it."""
    prompts = max(1, answers_a_step(config, batch) // config.reinforcement.num_generations)
    times = answers_a_step(config, batch) // batch * config.reinforcement.num_iterations
    return rows // prompts * times


def quick_settings(config: RunConfig) -> dict[str, Any]:
    """What a quick trial changes, by dotted path; empty without one. No rule is broken by it."""
    if config.training_method.makes != "classifier" or not config.classification.quick:
        return {}
    batch = config.training.per_device_train_batch_size
    wanted: dict[str, Any] = {
        "training.num_train_epochs": min(1.0, config.training.num_train_epochs),
        "training.per_device_train_batch_size": batch
        if isinstance(batch, int) and batch < _QUICK_BATCH
        else _QUICK_BATCH,
        "training.gradient_accumulation_steps": 1,
        "evaluation.eval_strategy": "no",
        "evaluation.load_best_model_at_end": False,
        "evaluation.early_stopping_patience": None,
    }
    if config.training.lr_scheduler_type == "reduce_lr_on_plateau":  # it needs evaluations
        wanted["training.lr_scheduler_type"] = "constant"
    values = config.values()
    return {path: value for path, value in wanted.items() if values[path] != value}


def as_run(config: RunConfig) -> RunConfig:
    """The config as the run will take it: with what a quick trial changes."""
    changed = config.model_copy(deep=True)
    for path, value in quick_settings(config).items():
        section, _, name = path.partition(".")
        # At once: each alone could break a bound that all together keep.
        setattr(getattr(changed, section), name, value)
    return changed
