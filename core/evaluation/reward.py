"""A reward model on held-out pairs: how often the better answer gets the higher score.

There is no base to compare with, whose head would be drawn at random: what it is held against is
chance, which is right in half of the pairs. Only workers import this.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.data.record import DatasetInfo
from core.data.sides import sides_of_rows
from core.data.tokenize import TokenizedRow
from core.data.tool_turns import answer_text
from core.errors import DataError
from core.evaluation.intervals import mean, share
from core.evaluation.rows import held_out, row_count
from core.jobs.task import Task
from core.models.inference import pick_device, pick_dtype, resolve_base
from core.models.scores import Scorer, open_scorer
from core.models.trained import TrainedModel
from core.workspace import Workspace

CHANCE = 0.5
_MOST_WRONG = 200
_FEW_ROWS = 20


@dataclass(frozen=True)
class _Pairs:
    """Pairs with their place in their part and the tokens of both answers."""

    info: DatasetInfo
    part: str
    indices: list[int]
    rows: list[dict[str, Any]]
    ids: list[list[int]]  # of the better answer and of the worse one, by turns
    notes: list[str]


def evaluate_reward(
    task: Task, workspace: Workspace, trained: TrainedModel
) -> tuple[dict[str, Any], str]:
    """(the result, every pair's scores as JSON lines). Raises TunesmithError.

    Parameters (job.json): checkpoint ("final"), max_rows (all).
    """
    begun = time.time()
    device = pick_device()
    dtype = pick_dtype(trained.config.training.precision, device)
    base_path = resolve_base(trained.base, workspace)
    scorer = open_scorer(trained, base_path, device=device, dtype=dtype)
    found = _pairs(workspace, trained, scorer, task.params.get("max_rows"))
    tell = task.part(0.1, 0.95)
    scores = np.array(scorer.scores_of(found.ids, lambda done: tell(done, "Scoring answers")))
    better, worse = scores[0::2], scores[1::2]
    task.tell(0.95, "Counting")
    result = _result(trained, found, better, worse)
    result["tokens"] = sum(map(len, found.ids))
    result["settings"] = {
        "device": device,
        "dtype": scorer.dtype,
        "quantization": trained.config.adapter.quantization,
        "max_new_tokens": 0,
        "max_length": scorer.longest,
    }
    result["seconds"] = round(time.time() - begun, 1)
    return result, _lines(found, better, worse)


def _pairs(
    workspace: Workspace, trained: TrainedModel, scorer: Scorer, max_rows: int | None
) -> _Pairs:
    """The held-out pairs; pairs of the training where there are none, with a note."""
    found = held_out(workspace, trained.config, max_rows, forms=["preference"])
    info, indices, rows, notes = found.info, found.indices, found.rows, found.notes
    both = sides_of_rows(
        rows, scorer.tokenizer, max_length=scorer.longest, system_prompt=scorer.system_prompt
    )
    kept, ids, reasons = [], [], []
    for place, sides in enumerate(both):
        texts = [side.tokens.input_ids for side in sides if isinstance(side.tokens, TokenizedRow)]
        if len(texts) == 2 and texts[0] != texts[1]:
            kept.append(place)
            ids += texts
        else:
            told = [str(side.tokens) for side in sides if not isinstance(side.tokens, TokenizedRow)]
            reasons.append(told[0] if told else "both answers are the same where they are cut.")
    if reasons:
        notes.append(f"{row_count(len(reasons))} cannot be measured; the first: {reasons[0]}")
    if not kept:
        why = reasons[0] if reasons else "it is empty"
        raise DataError(f"No row of {info.name} can be measured: {why}", "Look at its preview.")
    return _Pairs(info, found.part, [indices[i] for i in kept], [rows[i] for i in kept], ids, notes)


def _result(trained: TrainedModel, found: _Pairs, better: Any, worse: Any) -> dict[str, Any]:
    right = better > worse
    tuned = {
        "pair_accuracy": share(float(right.sum()), len(right)).as_dict(),
        "margin": mean(better - worse).as_dict(),
        "score_chosen": mean(better).as_dict(),
        "score_rejected": mean(worse).as_dict(),
    }
    notes = list(found.notes)
    ties = int((better == worse).sum())
    if ties:
        notes.append(f"Both answers score the same, and count as wrong: {row_count(ties)}.")
    result: dict[str, Any] = {
        "method": trained.config.method,
        "rows": len(found.rows),
        "part": found.part,
        "checkpoint": trained.checkpoint,
        "model": trained.base_name,
        "dataset": {
            "id": found.info.id,
            "name": found.info.name,
            "fingerprint": found.info.fingerprint,
        },
        "rules": [],
        "base": None,
        "tuned": tuned,
        "difference": None,
        "chance": CHANCE,
        "longer_is_right": _longer(found),
        "notes": notes,
        "differences": _wrong(found, better, worse),
    }
    result["verdict"] = _verdict(result)
    return result


def _longer(found: _Pairs) -> float:
    """The share of pairs whose better answer is the longer one: what a judge of nothing but length
    would get."""
    lengths = np.array([len(ids) for ids in found.ids])
    longer = (lengths[0::2] > lengths[1::2]) + 0.5 * (lengths[0::2] == lengths[1::2])
    return float(np.mean(longer))


def _verdict(result: dict[str, Any]) -> str:
    """The result in plain sentences, which claim no more than the pairs show."""
    right, margin = result["tuned"]["pair_accuracy"], result["tuned"]["margin"]
    parts = [
        f"The better answer gets the higher score in {100 * right['value']:.0f} % of pairs "
        f"({100 * right['low']:.0f} to {100 * right['high']:.0f} %), by {margin['value']:.2f} on "
        "average; chance is 50 %."
    ]
    length = result["longer_is_right"]
    always = max(length, 1 - length)
    which = "longer" if length >= 0.5 else "shorter"
    parts.append(f"Always taking the {which} answer would get {100 * always:.0f} %.")
    if right["low"] > CHANCE:
        parts.append("It has learned to tell them apart.")
        if right["value"] <= always:
            parts.append("Whether it sees more than the length is not shown by these pairs.")
    elif right["high"] < CHANCE:
        parts.append("That is worse than guessing: are the columns chosen and rejected swapped?")
    else:
        parts.append("That is within chance: it may have learned nothing.")
    if result["rows"] < _FEW_ROWS:
        parts.append(f"With {row_count(result['rows'])} this is a hint, not a proof.")
    if result["part"] == "train":
        parts.append("These are rows that it was trained on.")
    return " ".join(parts)


def _wrong(found: _Pairs, better: Any, worse: Any) -> list[dict[str, Any]]:
    """The pairs whose worse answer scores as high or higher, the surest mistakes first; at most
    200."""
    places = np.flatnonzero(better <= worse)
    order = places[np.argsort((better - worse)[places], kind="stable")]
    return [
        {
            "index": found.indices[place],
            "prompt": list(found.rows[place]["prompt"]),
            "expected": _said(found.rows[place]["chosen"], better[place]),
            "base": None,
            "tuned": _said(found.rows[place]["rejected"], worse[place]),
            "base_fields_right": None,
            "tuned_fields_right": None,
            "base_score": None,
            "tuned_score": 0.0,
        }
        for place in order[:_MOST_WRONG]
    ]


def _said(turns: list[dict[str, Any]], score: float) -> str:
    return f"{score:.2f}: {answer_text(turns[-1])}"


def _lines(found: _Pairs, better: Any, worse: Any) -> str:
    lines = [
        json.dumps({"index": index, "chosen": round(float(b), 6), "rejected": round(float(w), 6)})
        for index, b, w in zip(found.indices, better, worse, strict=True)
    ]
    return "\n".join(lines) + "\n"
