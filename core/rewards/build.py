"""From the reward functions of a config to what a trainer calls: each checked, each with a name."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any, cast

from core.errors import TrainingError, TunesmithError, ended, reason_of
from core.language import _
from core.rewards.functions import PLAIN, length, read_part, schema_problem
from core.rewards.kinds import JsonSchema, Judge, Length, Own, RewardModel
from core.rewards.own import Batch, RowError, at_row, own_function, rewards_file
from core.rewards.specs import RewardSpec
from core.rewards.texts import prompt_text, text_of
from core.workspace import Workspace

_SHOWN_CHARS = 80


OpenModel = Callable[[RewardModel, Workspace, str], Batch]
"""Opens a reward model onto a device; `core.worker.rewards` has it."""


def reward_functions(
    specs: Sequence[RewardSpec],
    workspace: Workspace,
    tokenizer: Any,
    device: str,
    open_model: OpenModel | None = None,
) -> list[RewardFunction]:
    """The functions as TRL calls them; models are loaded here, once, onto `device`.

    `tokenizer` counts tokens (a length in tokens needs it, nothing else does), `open_model` is
    for reward models. Raises a TunesmithError naming the function when one cannot be made.
    """
    made = []
    for spec in specs:
        try:
            batch = _batch(spec, workspace, tokenizer, device, open_model)
            made.append(RewardFunction(spec, batch))
        except TunesmithError as error:
            raise TrainingError(
                _("Reward function {name}: {problem}", name=spec.name, problem=error.message),
                error.hint,
            ) from error
    return made


class RewardFunction:
    """A reward function with TRL's signature: (prompts, completions, **columns) -> one number an
    answer, or None where it does not apply.

    Whatever goes wrong in it ends the run with a TrainingError that names it and the answer.
    """

    def __init__(self, spec: RewardSpec, batch: Batch) -> None:
        self.spec = spec
        self.__name__ = spec.name
        self._batch = batch

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any
    ) -> list[float | None]:
        try:
            values = self._batch(prompts, completions, columns)
        except RowError as error:
            place = _place(error.index, prompts, columns)
            raise self._failed(error.error.message, error.error.hint, place) from error
        except TunesmithError as error:
            raise self._failed(error.message, error.hint) from error
        if not isinstance(values, Sequence) or isinstance(values, str):
            values = self._listed(values)
        if len(values) != len(completions):
            raise self._failed(
                _(
                    "it gave {values} values for {answers} answers.",
                    values=len(values),
                    answers=len(completions),
                ),
                _("It has to give one number for each."),
            )
        return [self._checked(value, index, prompts, columns) for index, value in enumerate(values)]

    def _listed(self, values: Any) -> list[Any]:
        """The values of an array or a tensor."""
        try:
            return list(values.tolist())
        except (AttributeError, TypeError):
            raise self._failed(
                _("it gave {type}, not a list of numbers.", type=type(values).__name__),
                _("It has to give one number for each answer."),
            ) from None

    def _checked(
        self, value: Any, index: int, prompts: Sequence[Any], columns: dict[str, Any]
    ) -> float | None:
        if value is None:
            return None
        try:
            number = None if isinstance(value, str) else float(value)
        except (TypeError, ValueError, OverflowError):
            number = None
        if number is None or not math.isfinite(number):
            shown = repr(value)
            shown = shown if len(shown) <= _SHOWN_CHARS else shown[:77] + "..."
            raise self._failed(
                _("it gave {value}.", value=shown),
                _("It has to give a finite number, or None where it does not apply."),
                _place(index, prompts, columns),
            )
        return number

    def _failed(self, what: str, hint: str, place: str = "") -> TrainingError:
        name, what = self.__name__, ended(what)
        if not place:
            said = _("The reward function {name} failed: {what}", name=name, what=what)
        else:
            said = _(
                "The reward function {name} failed at {place}: {what}",
                name=name,
                place=place,
                what=what,
            )
        return TrainingError(said, hint)


def _place(index: int, prompts: Sequence[Any], columns: dict[str, Any]) -> str:
    """Which answer, in words: its number, the row where that is known, and how the prompt ends."""
    rows = columns.get("row")
    text = " ".join(prompt_text(prompts[index]).split())
    shown = text if len(text) <= _SHOWN_CHARS else "..." + text[3 - _SHOWN_CHARS :]
    place = _(
        "answer {number} of {count} (prompt {prompt})",
        number=index + 1,
        count=len(prompts),
        prompt=repr(shown),
    )
    if not isinstance(rows, list):
        return place
    return _("row {row}, {place}", row=rows[index], place=place)


def _batch(
    spec: RewardSpec,
    workspace: Workspace,
    tokenizer: Any,
    device: str,
    open_model: OpenModel | None,
) -> Batch:
    """What scores all answers of a step."""
    options = spec.options
    if isinstance(options, Own):
        return own_function(options, workspace)
    if isinstance(options, Judge):
        return _judge(options)
    if isinstance(options, RewardModel):
        if open_model is None:
            raise TrainingError(
                _("no model can be loaded here."), _("Take another reward function.")
            )
        return open_model(options, workspace, device)
    if isinstance(options, JsonSchema):
        options = _with_schema(options, workspace)
    if isinstance(options, Length):
        return _length(options, tokenizer)
    score = PLAIN[spec.kind]

    def batch(
        _prompts: Sequence[Any], completions: Sequence[Any], columns: dict[str, Any]
    ) -> list[Any]:
        found = []
        answers = columns.get("answer") or [None] * len(completions)
        for index, completion in enumerate(completions):
            with at_row(index):
                text = read_part(options, text_of(completion))
                found.append(score(options, text, answers[index]))
        return found

    return batch


def _length(options: Length, tokenizer: Any) -> Batch:
    if options.unit == "tokens" and tokenizer is None:
        raise TrainingError(
            _("no tokenizer is there to count with."), _("Name a model, or count words.")
        )

    def count(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False))

    return lambda _prompts, completions, _columns: [
        length(options, read_part(options, text_of(completion)), count)
        for completion in completions
    ]


def _judge(options: Judge) -> Batch:
    from core.rewards.judge import EndpointJudge

    judge = EndpointJudge(options)

    def batch(
        prompts: Sequence[Any], completions: Sequence[Any], columns: dict[str, Any]
    ) -> list[Any]:
        answers = columns.get("answer") or [None] * len(completions)
        asked = [
            (prompt_text(prompt), read_part(options, text_of(completion)), answer)
            for prompt, completion, answer in zip(prompts, completions, answers, strict=True)
        ]
        log = cast(Callable[[str, float], None] | None, columns.get("log_metric"))
        return judge.scores(asked, lambda n: log("judge_failures", float(n)) if log else None)

    return batch


def _with_schema(options: JsonSchema, workspace: Workspace) -> JsonSchema:
    """The options with the schema of their file. Raises TrainingError when it is none."""
    if not options.schema_file:
        return options
    path = rewards_file(workspace, options.schema_file)
    try:
        schema = json.loads(path.read_text(encoding="utf-8"))
        problem = schema_problem(schema) if isinstance(schema, dict) else _("it is no JSON object")
    except (OSError, ValueError) as error:
        problem = reason_of(error)
    if problem:
        raise TrainingError(
            _(
                "{name} is no JSON Schema: {problem}.",
                name=options.schema_file,
                problem=problem,
            ),
            _("Mend the file."),
        )
    return options.model_copy(update={"json_schema": schema, "schema_file": ""})
