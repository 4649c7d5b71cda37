"""What a training on rewards says beside its numbers: answers to read, and that nothing is learned
from them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback

from core.jobs.events import EventWriter
from core.rewards.specs import RewardSpec
from core.tokens.tool_turns import answer_text

if TYPE_CHECKING:
    from core.training.reinforcement import RewardedTrainer, Written

_MOST_TIMES = 100
"""So often in a run answers are written down."""
_ANSWERS = 4
_STEPS_WITHOUT = 10


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
                f"For {step - self._last_signal} steps all answers to each prompt got the same "
                f"reward (mean {logs['reward']:.3g}): nothing is learned from them. If it is low, "
                "add a function that rewards a part of what is wanted, begin with a run of "
                "supervised fine-tuning, or raise reinforcement.num_generations or temperature. If "
                "it is high, the task is learned: stop the run.",
            )

    def _watch_ends(self, step: int, logs: dict[str, Any]) -> None:
        if self._last_end is None or logs.get("completions/clipped_ratio", 0.0) < 1.0:
            self._last_end = step
        elif step - self._last_end >= _STEPS_WITHOUT:
            self._warn(
                "ends",
                f"For {step - self._last_end} steps every answer was cut at "
                "reinforcement.max_completion_length. Raise it, ask for short answers in "
                "data.system_prompt, or add a reward for length.",
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
