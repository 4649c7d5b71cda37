"""Learning from rewards: GRPO and RLOO. How answers are written and rewarded, and what is told of
them: answers to read, and that nothing is learned from them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import pyarrow as pa
import torch
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer
from trl.models.utils import disable_gradient_checkpointing
from trl.trainer.utils import add_fused_lm_head

from core.config import RunConfig
from core.config.run import answers_a_step, nearest_batch
from core.data.record import Part
from core.errors import DataError, ModelError
from core.jobs.events import EventWriter
from core.language import _
from core.models.origin import own_adapter
from core.rewards.build import reward_functions
from core.rewards.specs import RewardSpec, parse_rewards
from core.tokens.prompts import prompt_ids, prompted
from core.tokens.tool_turns import answer_text
from core.worker.rewards import reward_model
from core.worker.training.adapters import peft_config
from core.worker.training.beginning import Beginning
from core.worker.training.recipe import Recipe, arguments, sample_answers
from core.worker.training.resolve import Choice
from core.worker.training.rows import IDS, Made, Rows, load_rows
from core.worker.training.trainer import RowMeanTrainer

PROMPTS = pa.schema(
    [("prompt", pa.string()), ("answer", pa.string()), ("row", pa.int64()), ("prompt_ids", IDS)]
)
"""A prompt (messages as JSON), the reference answer or None, its place in the part from 1."""

_MOST_TIMES = 100
"""So often in a run answers are written down."""
_ANSWERS = 4
_STEPS_WITHOUT = 10


class Reinforcement(Recipe):
    """What both methods share. `reference` is a model of its own; None where there is none, or
    where the model with its adapter switched off is the reference."""

    reference: Any | None = None

    def __init__(self, start: Beginning) -> None:
        super().__init__(start)
        self.specs = parse_rewards(self.config.reinforcement.rewards)

    def load(self, part: Part, limit: int | None) -> Rows:
        """The first `limit` rows of a part as PROMPTS.

        Left out, with the reason, is a row without a prompt, whose prompt is longer than
        max_length, or that has no reference answer although every reward needs one.
        """
        start, numbers = self.start, count(1)

        def make(rows: list[dict[str, Any]]) -> list[Made]:
            return [self._prompt(row, next(numbers)) for row in rows]

        rows = load_rows(
            start.info, part, self.config, PROMPTS, make, limit=limit, tell=start.reporter.tell
        )
        rows.dataset.set_transform(_with_messages)
        return rows

    def _prompt(self, row: dict[str, Any], number: int) -> Made:
        tokenizer, config = self.start.tokenizer, self.config
        try:
            made = prompted(row, config.data.system_prompt)
            if self._needs_answer and not (made.answer or "").strip():
                return _("It has no reference answer to compare with. Map a column to answer.")
            ids = prompt_ids(made.prompt, tokenizer, tools=made.tools)
        except (DataError, ModelError) as error:
            return str(error)
        if len(ids) > config.training.max_length:
            return _(
                "Its prompt has {tokens} tokens, more than max_length {most}. Raise "
                "training.max_length or shorten the prompt.",
                tokens=len(ids),
                most=config.training.max_length,
            )
        return [(json.dumps(made.prompt, ensure_ascii=False), made.answer, number, ids)]

    @property
    def _needs_answer(self) -> bool:
        return all(spec.options.needs_answer for spec in self.specs)

    def open_model(self) -> None:
        super().open_model()
        _need_room(self.model, self.rows, self.held_out, self.config)
        self.reference = self._reference()

    def _reference(self) -> Any | None:
        """The reference where it is a model of its own, in evaluation mode and frozen."""
        beta = self.config.reinforcement.kl_beta
        if beta == 0:
            return None
        switches_off = self.config.adapter.is_adapter and own_adapter(self.start.run) is None
        how = (
            _("the reference is the model with its adapter switched off")
            if switches_off
            else _("a second copy of the model, as it began, is the reference")
        )
        self.start.reporter.note("reinforcement.kl_beta", beta, how)
        return None if switches_off else self.frozen_copy()

    def lengths(self) -> list[int]:
        answer = self.config.reinforcement.max_completion_length
        return [length + answer for length in self.rows.lengths]

    def choose_batch(self) -> None:
        super().choose_batch()
        _need_prompts(self.config, self.rows)

    def fitted(self, choice: Choice) -> Choice:
        return _whole_groups(choice, self.config, self.rows)

    def make_trainer(self) -> RewardedTrainer:
        start = self.start
        start.reporter.doing(_("Preparing the reward functions"))
        trainer = self.trainer(
            model=self.model,
            reward_funcs=reward_functions(
                self.specs, start.workspace, start.tokenizer, start.device, reward_model
            ),
            train_dataset=self.rows.dataset,
            eval_dataset=self.held_out.dataset if self.held_out else None,
            processing_class=start.tokenizer,
            peft_config=peft_config(self.config),
        )
        if self.reference is not None:
            add_fused_lm_head(self.reference, temperature=trainer.temperature)
            prepare = trainer.accelerator.prepare_model
            trainer.ref_model = prepare(self.reference, evaluation_mode=True)
            trainer.beta = self.config.reinforcement.kl_beta
        return trainer

    def trainer(self, **given: Any) -> RewardedTrainer:
        """The method's own, with what both have in common."""
        raise NotImplementedError

    def arguments(self, *names: str) -> dict[str, Any]:
        """What TRL's config of both methods takes; `names` are further fields of the section
        `reinforcement` that it has under the same name."""
        section = self.config.reinforcement
        same_names = (
            "num_generations max_completion_length temperature top_p top_k epsilon epsilon_high "
            "num_iterations steps_per_generation mask_truncated_completions num_generations_eval"
        ).split()
        return {
            # So that one sees from where the reward rises.
            "eval_on_start": self.evaluates and self.start.resume_from is None,
            # A reference of its own is handed over afterwards; TRL would load one by the model's
            # name.
            "beta": 0.0 if self.reference is not None else section.kl_beta,
            "reward_weights": [spec.weight for spec in self.specs],
            **{name: getattr(section, name) for name in [*same_names, *names]},
            **arguments(self.config, self.start.run),
        }

    def callbacks(self, trainer: RewardedTrainer) -> list[TrainerCallback]:
        group = self.config.reinforcement.num_generations
        told = ReportCompletions(self.start.reporter.events, trainer, self.specs, group)
        return [told, sample_answers(trainer, self.start)]


class GRPO(Reinforcement):
    """Group relative policy optimization."""

    def trainer(self, **given: Any) -> GroupTrainer:
        loss = {"loss_type": self.config.reinforcement.grpo_loss_type}
        own = self.arguments("scale_rewards", "importance_sampling_level")
        return GroupTrainer(args=GRPOConfig(**loss | own), **given)


class RLOO(Reinforcement):
    """REINFORCE leave-one-out."""

    def trainer(self, **given: Any) -> LeaveOneOutTrainer:
        args = RLOOConfig(**self.arguments("normalize_advantages"))
        return LeaveOneOutTrainer(args=args, **given)


def _with_messages(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Messages differ in what they hold (calls of tools), so they rest as text."""
    return {**batch, "prompt": [json.loads(text) for text in batch["prompt"]]}


def _need_room(model: Any, rows: Rows, held_out: Rows | None, config: RunConfig) -> None:
    """Raises ModelError when the longest prompt leaves no room for an answer."""
    most = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    longest = max([*rows.lengths, *(held_out.lengths if held_out else [])])
    answer = config.reinforcement.max_completion_length
    if most is not None and longest + answer > most:
        raise ModelError(
            _(
                "A prompt of {longest} tokens and an answer of {answer} are more than the {most} "
                "tokens that the model was made for.",
                longest=longest,
                answer=answer,
                most=most,
            ),
            _(
                "Lower reinforcement.max_completion_length to {most} or less, or "
                "training.max_length, which leaves long prompts out.",
                most=most - longest,
            )
            if most > longest
            else _("Lower training.max_length, which leaves long prompts out."),
        )


def _whole_groups(choice: Choice, config: RunConfig, rows: Rows) -> Choice:
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
        reason=_(
            "whole groups of {group} answers to a prompt; {reason}",
            group=section.num_generations,
            reason=choice.reason,
        ),
    )


def _need_prompts(config: RunConfig, rows: Rows) -> None:
    """Raises DataError when there are fewer prompts than a step takes: TRL would do no step."""
    batch = config.training.per_device_train_batch_size
    assert isinstance(batch, int), "chosen before"
    wanted = answers_a_step(config, batch) // config.reinforcement.num_generations
    if wanted > len(rows.lengths):
        raise DataError(
            _(
                "A step takes {wanted} different prompts, and there are {rows} train rows.",
                wanted=wanted,
                rows=len(rows.lengths),
            ),
            _(
                "Lower training.per_device_train_batch_size or "
                "training.gradient_accumulation_steps, or raise reinforcement.num_generations."
            ),
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


class RewardedTrainer(RowMeanTrainer):
    """To stand before GRPOTrainer or RLOOTrainer, on PROMPTS.

    Prompts are read as chat and evaluation read them. Answers are written without dropout and with
    the cache. What an evaluation measures is a mean over its prompts and depends on the seed
    alone. `written` is what the last step of training wrote.
    """

    nan_is_unknown = True

    def __init__(self, **given: Any) -> None:
        self.written: Written | None = None
        self._prompt_ids: list[list[int]] = []
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
        torch.manual_seed(self.args.seed)  # within `evaluate`, which leaves the training's own
        return super().evaluation_loop(*given, **options)


class GroupTrainer(RewardedTrainer, GRPOTrainer):
    """GRPOTrainer on PROMPTS."""


class LeaveOneOutTrainer(RewardedTrainer, RLOOTrainer):
    """RLOOTrainer on PROMPTS."""


class ReportCompletions(TrainerCallback):
    """At logs a `sample` event for some answers to one prompt, each with its rewards; and a warning
    when for long no answer was better than another."""

    def __init__(
        self, events: EventWriter, trainer: RewardedTrainer, specs: list[RewardSpec], group: int
    ) -> None:
        self.events = events
        self._trainer = trainer
        self._specs = specs
        self._group = group
        self._told = 0
        self._last_signal: int | None = None
        self._last_end: int | None = None
        self._warned: set[str] = set()

    def on_log(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        logs: dict[str, Any] = given.get("logs") or {}
        if "reward" not in logs or "loss" not in logs:
            return
        step = state.global_step
        self._watch_signal(step, logs)
        self._watch_ends(step, logs)
        every = max(1, state.max_steps // _MOST_TIMES)
        if self._trainer.written is not None and (step - self._told >= every or not self._told):
            self._told = step
            self._write(step, self._trainer.written)

    def _write(self, step: int, written: Written) -> None:
        weights = torch.tensor([spec.weight for spec in self._specs])
        totals = (written.rewards * weights).nansum(dim=1)
        for index, place in enumerate(chosen_answers(totals, self._group)):
            rewards = {
                spec.name: None if math.isnan(value) else round(value, 4)
                for spec, value in zip(self._specs, written.rewards[place].tolist(), strict=True)
            }
            completion = written.completions[place]
            text = completion if isinstance(completion, str) else answer_text(completion[-1])
            self.events.write(
                "sample",
                step=step,
                index=index,
                row=written.rows[place],
                prompt=written.prompts[place],
                answer=text,
                expected=written.answers[place],
                reward=round(float(totals[place]), 4),
                rewards=rewards,
            )

    def _watch_signal(self, step: int, logs: dict[str, Any]) -> None:
        """Where all answers to a prompt are rewarded alike, none is better than the mean."""
        if self._last_signal is None or logs.get("frac_reward_zero_std", 0.0) < 1.0:
            self._last_signal = step
        elif step - self._last_signal >= _STEPS_WITHOUT:
            self._warn(
                "signal",
                _(
                    "For {steps} steps all answers to each prompt got the same reward (mean "
                    "{reward:.3g}): nothing is learned from them. If it is low, add a function "
                    "that rewards a part of what is wanted, begin with a run of supervised "
                    "fine-tuning, or raise reinforcement.num_generations or temperature. If it is "
                    "high, the task is learned: stop the run.",
                    steps=step - self._last_signal,
                    reward=logs["reward"],
                ),
            )

    def _watch_ends(self, step: int, logs: dict[str, Any]) -> None:
        if self._last_end is None or logs.get("completions/clipped_ratio", 0.0) < 1.0:
            self._last_end = step
        elif step - self._last_end >= _STEPS_WITHOUT:
            self._warn(
                "ends",
                _(
                    "For {steps} steps every answer was cut at "
                    "reinforcement.max_completion_length. Raise it, ask for short answers in "
                    "data.system_prompt, or add a reward for length.",
                    steps=step - self._last_end,
                ),
            )

    def _warn(self, what: str, message: str) -> None:
        if what not in self._warned:
            self._warned.add(what)
            self.events.write("log", level="warning", message=message)


def chosen_answers(totals: torch.Tensor, group: int) -> list[int]:
    """The places of some answers to one prompt, best first: of the prompt whose answers differ most
    in reward. `totals` is (answers,), with `group` answers to each prompt behind each other."""
    groups = totals.view(-1, group)
    spread = groups.max(dim=1).values - groups.min(dim=1).values
    first = int(spread.argmax())
    order = groups[first].argsort(descending=True, stable=True).tolist()
    most = min(_ANSWERS, len(order))
    places = [round(rank * (len(order) - 1) / max(1, most - 1)) for rank in range(most)]
    return [first * group + order[place] for place in places]
