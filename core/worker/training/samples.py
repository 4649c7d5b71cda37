"""Answers to fixed prompts while a model learns, so that one watches it learn."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from transformers import TrainerCallback

from core.config import RunConfig
from core.data.record import DatasetInfo
from core.data.rowfile import read_slice
from core.errors import ModelError
from core.jobs.events import EventWriter
from core.language import _
from core.progress import Stopped
from core.tokens.learn import last_good_answer
from core.tokens.prompts import prompt_ids
from core.tokens.tokenize import answer_wanted
from core.tokens.tool_turns import answer_text
from core.worker.evaluation.measure import write_answers
from core.worker.training.attention import other_attention
from core.worker.training.trainer import WatchedTrainer, same_randomness

_ROWS = 3
# Of a text without turns, so many characters are the prompt.
_TEXT_CHARACTERS = 120


@dataclass(frozen=True)
class SamplePrompt:
    """A conversation that ends with a question, and the answer that is expected, if known."""

    messages: list[dict[str, Any]]
    expected: str | None
    tools: Any = None


def sample_prompts(config: RunConfig, info: DatasetInfo) -> list[SamplePrompt]:
    """The prompts of the config, else the first rows that are held out (else of the others)."""
    system = config.data.system_prompt
    given = config.evaluation.sample_prompts
    if given:
        found = [SamplePrompt([{"role": "user", "content": text}], None) for text in given]
    else:
        part = "eval" if info.counts.eval else "train"
        rows = read_slice(info.rows_path(part), 0, _ROWS)
        found = [prompt for row in rows if (prompt := _of_row(row)) is not None]
    if not system or info.form == "text" and not given:
        return found
    return [_with_system(prompt, system) for prompt in found]


def _of_row(row: dict[str, Any]) -> SamplePrompt | None:
    if "text" in row:
        text = row["text"][: min(_TEXT_CHARACTERS, max(1, len(row["text"]) // 2))]
        return SamplePrompt([{"role": "user", "content": text}], None)
    tools = row.get("tools")
    if "prompt" in row:
        wanted = answer_wanted(row)
        expected = answer_text(wanted[-1]) if wanted else None
        return SamplePrompt(list(row["prompt"]), expected, tools)
    turns = list(row["messages"])
    last = last_good_answer(turns)
    return SamplePrompt(turns[:last], answer_text(turns[last]), tools) if last else None


def _with_system(prompt: SamplePrompt, system: str) -> SamplePrompt:
    if any(message["role"] == "system" for message in prompt.messages):
        return prompt
    return replace(prompt, messages=[{"role": "system", "content": system}, *prompt.messages])


class Sampler:
    """Writes a `sample` event for each prompt: step, index, prompt, answer, expected."""

    def __init__(
        self,
        prompts: Sequence[SamplePrompt],
        tokenizer: Any,
        events: EventWriter,
        stop_request: Path,
        *,
        max_new_tokens: int,
        is_text: bool,
    ) -> None:
        self.events = events
        self.stop_request = stop_request
        self.max_new_tokens = max_new_tokens
        self._tokenizer = tokenizer
        self._prompts: list[tuple[int, SamplePrompt, list[int]]] = []
        for index, prompt in enumerate(prompts):
            try:
                ids = prompt_ids(
                    prompt.messages, tokenizer, continue_text=is_text, tools=prompt.tools
                )
            except ModelError as error:
                message = _(
                    "Prompt {number} is not watched: {error}", number=index + 1, error=str(error)
                )
                events.write("log", level="warning", message=message)
                continue
            self._prompts.append((index, prompt, ids))

    def write(self, model: Any, step: int, autocast: Any, *, as_base: bool = False) -> None:
        """The answers (greedy) at `step`; `as_base` switches the adapter off.

        The model, its mode and all random states are afterwards as they were. Stops early,
        without events, when a stop is asked for.
        """
        if not self._prompts or self.max_new_tokens == 0:
            return
        causal = model.get_base_model() if hasattr(model, "get_base_model") else model
        was_training = model.training
        with ExitStack() as stack:
            stack.enter_context(same_randomness())
            stack.enter_context(other_attention(causal))
            stack.enter_context(autocast)
            if as_base and model is not causal:
                stack.enter_context(model.disable_adapter())
            model.eval()
            try:
                answers = write_answers(
                    model,
                    self._tokenizer,
                    [ids for _index, _prompt, ids in self._prompts],
                    max_new_tokens=self.max_new_tokens,
                    tell=self._check_stop,
                )
            except Stopped:
                return
            finally:
                model.train(was_training)
        for (index, prompt, _ids), answer in zip(self._prompts, answers, strict=True):
            self.events.write(
                "sample",
                step=step,
                index=index,
                prompt=prompt.messages,
                answer=answer,
                expected=prompt.expected,
            )

    def _check_stop(self, _: float) -> None:
        if self.stop_request.exists():
            raise Stopped


class Samples(Protocol):
    """Writes what the model says at a step; `as_base` with its adapter off."""

    def write(self, model: Any, step: int, autocast: Any, *, as_base: bool = False) -> None: ...


class SampleAnswers(TrainerCallback):
    """Sample answers of the untrained model, at each evaluation, and at the end."""

    def __init__(self, sampler: Samples, trainer: WatchedTrainer, *, starts_as_base: bool) -> None:
        self.sampler = sampler
        self._trainer = trainer
        self._starts_as_base = starts_as_base
        self._first_is_due = False
        self._last = -1

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step > 0:
            return  # resumed
        self._first_is_due = True
        if not self._starts_as_base:
            self._first()

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        # With the adapter off the model is still what it was at step 0; so nobody has to wait
        # for these answers before the first step.
        if state.global_step > 0 and self._first_is_due:
            self._first()

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._write(state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._last != state.global_step:
            self._write(state.global_step)

    def _first(self) -> None:
        self._first_is_due = False
        self._write(0, as_base=self._starts_as_base)

    def _write(self, step: int, *, as_base: bool = False) -> None:
        if self._first_is_due:
            self._first()
            if step == 0:
                return
        self._last = step
        autocast = self._trainer.accelerator.autocast()
        self.sampler.write(self._trainer.model, step, autocast, as_base=as_base)
