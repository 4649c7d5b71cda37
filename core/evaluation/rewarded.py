"""A run that learned from rewards, on held-out prompts: the mean reward of its answers and of its
base's, by the run's own reward functions.

Both models answer with their most probable words (greedy), so that the numbers are the same again.
Only workers import this.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.data.prompted import Prompted, prompted
from core.data.record import DatasetInfo
from core.errors import DataError, ModelError
from core.evaluation.compare import estimate
from core.evaluation.intervals import Estimate, mean, share
from core.evaluation.measure import too_long, write_answers
from core.evaluation.rows import held_out, row_count
from core.jobs.task import Task
from core.models.inference import (
    free_memory,
    open_before,
    open_trained,
    pick_device,
    pick_dtype,
    resolve_base,
    without_adapter,
)
from core.models.prompts import prompt_ids
from core.models.trained import TrainedModel
from core.rewards.build import RewardFunction, reward_functions
from core.rewards.specs import RewardSpec, parse_rewards
from core.workspace import Workspace

Array = NDArray[np.float64]

_MOST_SHOWN = 200
_FEW_ROWS = 20


@dataclass(frozen=True)
class _Prompts:
    """Prompts with their place in their part, and what a reader of the numbers must know."""

    info: DatasetInfo
    part: str
    indices: list[int]
    rows: list[Prompted]
    ids: list[list[int]]
    notes: list[str]


@dataclass(frozen=True)
class _Side:
    """One model's answers and what each function gave them: (rows, functions), NaN for none."""

    answers: list[str]
    rewards: Array

    def totals(self, weights: Array) -> Array:
        """(rows,): the weighted sum, NaN where no function applies."""
        found: Array = np.nansum(self.rewards * weights, axis=1)
        found[np.isnan(self.rewards).all(axis=1)] = np.nan
        return found


def evaluate_rewarded(
    task: Task, workspace: Workspace, trained: TrainedModel
) -> tuple[dict[str, Any], str]:
    """(the result, all answers with their rewards as JSON lines). Raises TunesmithError.

    Parameters (job.json): checkpoint ("final"), max_rows (all), max_new_tokens (the run's longest
    answer), compare_base (true).
    """
    begun = time.time()
    config = trained.config
    specs = parse_rewards(config.reinforcement.rewards)
    device = pick_device()
    dtype = pick_dtype(config.training.precision, device)
    base_path = resolve_base(trained.base, workspace)
    model, tokenizer = open_trained(trained, base_path, device=device, dtype=dtype)
    functions = reward_functions(specs, workspace, tokenizer, device)
    limit = int(task.params.get("max_new_tokens") or config.reinforcement.max_completion_length)
    found = _prompts(workspace, trained, tokenizer, task.params.get("max_rows"))
    unread = too_long(model, found.ids, limit)
    if unread:
        found.notes.append(
            f"Too long for the model to read and answer with {limit} tokens, and counted with an "
            f"empty answer: {row_count(len(unread))}."
        )

    def side(asked: Any, which: str, begin: float, end: float) -> _Side:
        tell = task.part(begin, end)
        answers = write_answers(
            asked,
            tokenizer,
            found.ids,
            max_new_tokens=limit,
            tell=lambda done: tell(done, f"Answers of the {which} model"),
        )
        return _Side(answers, _rewards(functions, found, answers))

    compare = bool(task.params.get("compare_base", True))
    sides = {"tuned": side(model, "tuned", 0.05, 0.5 if compare else 0.98)}
    if compare and trained.shares_base:
        with without_adapter(model):
            sides["base"] = side(model, "base", 0.5, 0.98)
    elif compare:
        del model
        free_memory()
        model = open_before(trained, base_path, device=device, dtype=dtype)
        sides["base"] = side(model, "base", 0.5, 0.98)
    result = _result(trained, found, specs, sides)
    result["settings"] = {
        "device": device,
        "dtype": str(dtype).removeprefix("torch."),
        "quantization": config.adapter.quantization,
        "max_new_tokens": limit,
        "max_length": config.training.max_length,
    }
    result["seconds"] = round(time.time() - begun, 1)
    return result, _lines(found, specs, sides)


def _prompts(
    workspace: Workspace, trained: TrainedModel, tokenizer: Any, max_rows: int | None
) -> _Prompts:
    """The held-out prompts; those of the training where there are none, with a note."""
    found = held_out(workspace, trained.config, max_rows)
    info, notes = found.info, found.notes
    kept: list[tuple[int, Prompted, list[int]]] = []
    reasons: list[str] = []
    for index, raw in zip(found.indices, found.rows, strict=True):
        try:
            row = prompted(raw, trained.config.data.system_prompt)
            kept.append((index, row, prompt_ids(row.prompt, tokenizer, tools=row.tools)))
        except (DataError, ModelError) as error:
            reasons.append(str(error))
    if reasons:
        notes.append(f"{row_count(len(reasons))} cannot be measured; the first: {reasons[0]}")
    if not kept:
        why = reasons[0] if reasons else "it is empty"
        raise DataError(f"No row of {info.name} can be measured: {why}", "Look at its preview.")
    places, rows, ids = (list(column) for column in zip(*kept, strict=True))
    return _Prompts(info, found.part, places, rows, ids, notes)


def _rewards(functions: list[RewardFunction], found: _Prompts, answers: list[str]) -> Array:
    """(rows, functions): what each gave, NaN where it does not apply."""
    prompts = [row.prompt for row in found.rows]
    completions = [[{"role": "assistant", "content": answer}] for answer in answers]
    columns = {
        "answer": [row.answer for row in found.rows],
        "row": [index + 1 for index in found.indices],
    }
    given = [function(prompts, completions, **columns) for function in functions]
    return np.array([[np.nan if v is None else v for v in one] for one in given], dtype=float).T


def _result(
    trained: TrainedModel, found: _Prompts, specs: list[RewardSpec], sides: dict[str, _Side]
) -> dict[str, Any]:
    weights = np.array([spec.weight for spec in specs])
    totals = {name: side.totals(weights) for name, side in sides.items()}
    known = ~np.isnan(totals["tuned"])
    notes = list(found.notes)
    if not known.all():
        notes.append(
            "No function applies, as where a reference answer is missing, and they are left out: "
            f"{row_count(int((~known).sum()))}."
        )
    if not known.any():
        raise DataError(
            "No reward function applies to any of the rows.",
            "Give the data set reference answers, or train with another function.",
        )
    base = totals.get("base")
    both = known & ~np.isnan(base) if base is not None else known
    result: dict[str, Any] = {
        "method": trained.config.method,
        "rows": int(known.sum()),
        "part": found.part,
        "checkpoint": trained.checkpoint,
        "model": trained.base_name,
        "dataset": {
            "id": found.info.id,
            "name": found.info.name,
            "fingerprint": found.info.fingerprint,
        },
        "tokens": sum(map(len, found.ids)),
        "rules": [],
        "base": _numbers(base, sides["base"], specs) if base is not None else None,
        "tuned": _numbers(totals["tuned"], sides["tuned"], specs),
        "difference": None
        if base is None
        else {"reward": mean(totals["tuned"][both] - base[both]).as_dict()},
        "notes": notes,
        "differences": _shown(found, sides, totals),
    }
    result["verdict"] = _verdict(result)
    return result


def _numbers(totals: Array, side: _Side, specs: list[RewardSpec]) -> dict[str, Any]:
    """The numbers of one model, each {"value", "low", "high"}."""
    numbers: dict[str, Any] = {"reward": _mean(totals[~np.isnan(totals)]).as_dict()}
    if len(specs) > 1:
        columns = ((spec, side.rewards[:, place]) for place, spec in enumerate(specs))
        numbers["rewards"] = {
            spec.name: _mean(values[~np.isnan(values)]).as_dict()
            for spec, values in columns
            if not np.isnan(values).all()
        }
    return numbers


def _mean(values: Array) -> Estimate:
    """The mean with its interval, which stays open where every answer is right, or none."""
    if np.isin(values, (0.0, 1.0)).all():
        return share(float(values.sum()), len(values))
    return mean(values)


def _shown(
    found: _Prompts, sides: dict[str, _Side], totals: dict[str, Array]
) -> list[dict[str, Any]]:
    """The rows whose tuned answer is rewarded least first; at most 200."""
    order = sorted(
        np.flatnonzero(~np.isnan(totals["tuned"])),
        key=lambda place: (totals["tuned"][place], found.indices[place]),
    )
    return [
        {
            "index": found.indices[place],
            "prompt": found.rows[place].prompt,
            "expected": found.rows[place].answer,
            **{name: side.answers[place] for name, side in sides.items()},
            **{f"{name}_reward": _plain(totals[name][place]) for name in sides},
        }
        for place in order[:_MOST_SHOWN]
    ]


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 4)


def _verdict(result: dict[str, Any]) -> str:
    """The result in plain sentences, which claim no more than the rows show."""
    tuned, base = estimate(result["tuned"], "reward"), result["base"]
    sentence = f"The answers of the tuned model get a mean reward of {_said(tuned)}"
    parts = [f"{sentence}."]
    if base is not None:
        parts = [f"{sentence}, those of the base {_said(estimate(base, 'reward'))}."]
        parts.append(_judgement(estimate(result["difference"], "reward")))
    if result["rows"] < _FEW_ROWS:
        parts.append(f"With {row_count(result['rows'])} this is a hint, not a proof.")
    if result["part"] == "train":
        parts.append("These are prompts that it was trained on.")
    return " ".join(parts)


def _judgement(apart: Estimate) -> str:
    if apart.low is None or apart.high is None:
        return "One row says nothing about others."
    between = f" ({apart.low:+.2f} to {apart.high:+.2f})"
    if apart.value == 0 and apart.low == apart.high:
        return "There is no difference on these rows."
    if apart.low <= 0 <= apart.high:
        return f"The difference of {abs(apart.value):.2f} is within chance{between}."
    if apart.value > 0:
        return f"That is better by {apart.value:.2f}{between}."
    return (
        f"That is worse by {abs(apart.value):.2f}{between}: the training did harm. Try a lower "
        "learning rate, or a higher reinforcement.kl_beta."
    )


def _said(number: Estimate) -> str:
    interval = ""
    if number.low is not None and number.high is not None:
        interval = f" ({number.low:.2f} to {number.high:.2f})"
    return f"{number.value:.2f}{interval}"


def _lines(found: _Prompts, specs: list[RewardSpec], sides: dict[str, _Side]) -> str:
    lines = []
    for place, row in enumerate(found.rows):
        line: dict[str, Any] = {"index": found.indices[place], "expected": row.answer}
        for name, side in sides.items():
            line[name] = side.answers[place]
            given = zip(specs, side.rewards[place], strict=True)
            line[f"{name}_rewards"] = {spec.name: _plain(value) for spec, value in given}
        lines.append(json.dumps(line, ensure_ascii=False))
    return "\n".join(lines) + "\n"
