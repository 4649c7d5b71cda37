"""What GRPO and RLOO share: how such a run begins, its reference model, how answers are written
and rewarded, and what is told of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from trl.models.utils import disable_gradient_checkpointing
from trl.trainer.utils import add_fused_lm_head

from core.config import RunConfig
from core.config.reinforcement import answers_a_step, nearest_batch
from core.errors import DataError, ModelError
from core.models.inference import with_adapter
from core.models.load import load_base
from core.models.origin import own_adapter
from core.rewards.build import reward_functions
from core.rewards.specs import RewardSpec, parse_rewards
from core.training import resolve
from core.training.prompted_rows import load_prompts
from core.training.rows import Rows
from core.training.setup import Beginning, arguments, begin
from core.training.watched import WatchedTrainer
from core.workspace import RunFolder, Workspace


@dataclass
class Prepared:
    """A run whose prompts, model and reward functions are there, and whose batch size is known.

    `reference` is a model of its own; None where there is none, or where the model with its
    adapter switched off is the reference.
    """

    start: Beginning
    resumed: bool
    rows: Rows
    held_out: Rows | None
    model: Any
    reference: Any | None
    specs: list[RewardSpec]
    functions: list[Any]


def prepare(
    run: RunFolder, workspace: Workspace, config: RunConfig, resume_from: Path | None
) -> Prepared:
    """Everything up to the trainer. Raises Stopped or a TunesmithError."""
    specs = parse_rewards(config.reinforcement.rewards)
    start = begin(run, workspace, config, resume_from)
    config, reporter, tokenizer = start.config, start.reporter, start.tokenizer
    limit = config.data.max_train_samples
    needs = all(spec.options.needs_answer for spec in specs)
    tell = reporter.tell
    rows = load_prompts(
        start.info, "train", tokenizer, config, needs_answer=needs, limit=limit, tell=tell
    )
    held_out = None
    if config.evaluation.eval_strategy != "no":
        held_out = load_prompts(
            start.info, "eval", tokenizer, config, needs_answer=needs, tell=tell
        )
    reporter.rows(rows, held_out)

    reporter.doing("Loading the model")
    model = load_base(config, start.base, device=start.device, precision=config.training.precision)
    _need_room(model, rows, held_out, config)
    reference = _reference(start)
    choices = resolve.choose_batch(
        config,
        resolve.estimate_need(model, config),
        [length + config.reinforcement.max_completion_length for length in rows.lengths],
        device=start.device,
        free=resolve.free_bytes(start.device),
    )
    start.config = reporter.chosen(config, [_whole_groups(one, config, rows) for one in choices])
    _need_prompts(start.config, rows)
    start.config.save(run.config)
    reporter.check_stop()
    reporter.doing("Preparing the reward functions")
    functions = reward_functions(specs, workspace, tokenizer, start.device)
    reporter.doing("Preparing the trainer")
    resumed = resume_from is not None
    return Prepared(start, resumed, rows, held_out, model, reference, specs, functions)


def reward_arguments(ready: Prepared, *names: str) -> dict[str, Any]:
    """What TRL's config of both methods takes; `names` are further fields of the section
    `reinforcement` that it has under the same name."""
    config = ready.start.config
    section = config.reinforcement
    same_names = (
        "num_generations max_completion_length temperature top_p top_k epsilon epsilon_high "
        "num_iterations steps_per_generation mask_truncated_completions num_generations_eval"
    ).split()
    return {
        # So that one sees from where the reward rises.
        "eval_on_start": config.evaluation.eval_strategy != "no" and not ready.resumed,
        # A reference of its own is handed over afterwards; TRL would load one by the model's name.
        "beta": 0.0 if ready.reference is not None else section.kl_beta,
        "reward_weights": [spec.weight for spec in ready.specs],
        **{name: getattr(section, name) for name in [*same_names, *names]},
        **arguments(config, ready.start.run),
    }


def hand_over_reference(trainer: Any, ready: Prepared) -> None:
    """Gives the trainer the reference model that is one of its own, if there is one."""
    if ready.reference is None:
        return
    add_fused_lm_head(ready.reference, temperature=trainer.temperature)
    trainer.ref_model = trainer.accelerator.prepare_model(ready.reference, evaluation_mode=True)
    trainer.beta = ready.start.config.reinforcement.kl_beta


def _need_room(model: Any, rows: Rows, held_out: Rows | None, config: RunConfig) -> None:
    """Raises ModelError when the longest prompt leaves no room for an answer."""
    most = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    longest = max([*rows.lengths, *(held_out.lengths if held_out else [])])
    answer = config.reinforcement.max_completion_length
    if most is not None and longest + answer > most:
        raise ModelError(
            f"A prompt of {longest} tokens and an answer of {answer} are more than the {most} "
            "tokens that the model was made for.",
            f"Lower reinforcement.max_completion_length to {most - longest} or less, or "
            "training.max_length, which leaves long prompts out."
            if most > longest
            else "Lower training.max_length, which leaves long prompts out.",
        )


def _reference(start: Beginning) -> Any | None:
    """The reference model where it is one of its own, in evaluation mode and frozen."""
    config, reporter = start.config, start.reporter
    if config.reinforcement.kl_beta == 0:
        return None
    begun = own_adapter(start.run)
    if config.adapter.is_adapter and begun is None:
        reporter.note(
            "reinforcement.kl_beta",
            config.reinforcement.kl_beta,
            "the reference is the model with its adapter switched off",
        )
        return None
    reporter.note(
        "reinforcement.kl_beta",
        config.reinforcement.kl_beta,
        "a second copy of the model, as it began, is the reference",
    )
    model = load_base(config, start.base, device=start.device, precision=config.training.precision)
    if begun is not None:
        model = with_adapter(model, begun).get_base_model()  # its adapter stays in the layers
    return model.requires_grad_(False).eval()


def _whole_groups(choice: resolve.Choice, config: RunConfig, rows: Rows) -> resolve.Choice:
    """A chosen batch size with which each step has all answers to its prompts, and enough rows."""
    if choice.field != "training.per_device_train_batch_size":
        return choice
    section = config.reinforcement
    least = nearest_batch(config, 1)
    most = max(
        1, len(rows.lengths) * section.num_generations * least // answers_a_step(config, least)
    )
    batch = max(least, min(choice.value, most) // least * least)
    return replace(
        choice,
        value=batch,
        reason=f"whole groups of {section.num_generations} answers to a prompt; {choice.reason}",
    )


def _need_prompts(config: RunConfig, rows: Rows) -> None:
    """Raises DataError when there are fewer prompts than a step takes: TRL would do no step."""
    batch = config.training.per_device_train_batch_size
    assert isinstance(batch, int), "chosen before"
    wanted = answers_a_step(config, batch) // config.reinforcement.num_generations
    if wanted > len(rows.lengths):
        raise DataError(
            f"A step takes {wanted} different prompts, and there are {len(rows.lengths)} train "
            "rows.",
            "Lower training.per_device_train_batch_size or training.gradient_accumulation_steps, "
            "or raise reinforcement.num_generations.",
        )


@dataclass(frozen=True)
class Written:
    """What the model wrote at a step, and how it was rewarded.

    `rewards` has one column for each function, NaN where it does not apply: (answers, functions).
    """

    prompts: Sequence[list[dict[str, Any]]]
    completions: Sequence[Any]
    answers: Sequence[str | None]
    rows: Sequence[int]
    rewards: torch.Tensor


class RewardedTrainer(WatchedTrainer):
    """To stand before GRPOTrainer or RLOOTrainer, on the rows of `load_prompts`.

    Prompts are read as chat and evaluation read them. Answers are written without dropout and with
    the cache. What an evaluation measures is a mean over its prompts and depends on the seed
    alone. `written` is what the last step of training wrote.
    """

    def __init__(self, **given: Any) -> None:
        self.written: Written | None = None
        self._prompt_ids: list[list[int]] = []
        self._rows_measured: list[int] = []
        super().__init__(**given)

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        self._prompt_ids = [list(row["prompt_ids"]) for row in inputs]
        result = super()._generate_and_score_completions(inputs)
        # Counted here: a batch is but prompts until its answers are written.
        if self.model.training:
            self.tokens_trained += int(
                result["prompt_mask"].sum() + result["completion_mask"].sum()
            )
        return result

    def _tokenize_prompts(self, prompts: list[Any]) -> tuple[list[list[int]], None, dict[str, Any]]:
        return self._prompt_ids, None, {}

    def _generate_single_turn(self, *given: Any, **options: Any) -> Any:
        model, was_training = self.model, self.model.training
        kwargs = self.args.gradient_checkpointing_kwargs
        # Weights of 16 bits are quicker without it: nothing has to be cast at each token.
        whole = next(model.parameters()).dtype == torch.float32
        cast = self.accelerator.autocast() if whole else nullcontext()
        model.eval()
        try:
            with cast, disable_gradient_checkpointing(model, kwargs):
                return super()._generate_single_turn(*given, **options)
        finally:
            model.train(was_training)

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, ids: Any) -> Any:
        asked = [{name: row[name] for name in row if name != "prompt_ids"} for row in inputs]
        rewards = super()._calculate_rewards(asked, prompts, completions, ids)
        if self.model.training:
            answers, rows = ([row[name] for row in inputs] for name in ("answer", "row"))
            self.written = Written(prompts, completions, answers, rows, rewards.detach().cpu())
        return rewards

    def evaluation_loop(self, *given: Any, **options: Any) -> Any:
        self._rows_measured = []
        self._metrics["eval"].clear()
        torch.manual_seed(self.args.seed)  # within `evaluate`, which leaves the training's own
        return super().evaluation_loop(*given, **options)

    def prediction_step(self, model: Any, inputs: Any, *given: Any, **options: Any) -> Any:
        self._rows_measured.append(len(inputs))
        return super().prediction_step(model, inputs, *given, **options)

    def log(self, logs: dict[str, float], *given: Any, **options: Any) -> None:
        if any(name.startswith("eval_") for name in logs):
            for name, found in self._metrics["eval"].items():
                if len(found) == len(self._rows_measured):
                    self._metrics["eval"][name] = [_weighted(found, self._rows_measured)]
        super().log(logs, *given, **options)


def _weighted(values: Sequence[float], weights: Sequence[int]) -> float:
    """The mean over rows of what was measured of batches; NaN says that it did not apply."""
    known = [(v, w) for v, w in zip(values, weights, strict=True) if not math.isnan(v)]
    total = sum(weight for _, weight in known)
    return sum(value * weight for value, weight in known) / total if total else math.nan
