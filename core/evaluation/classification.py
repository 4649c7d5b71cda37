"""A classifier on held-out rows: how many labels are right, by label, and what was taken for what.

There is no base to compare with, whose head would be drawn at random; what the labels are held
against is always giving the most frequent one. Only workers import this.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.data.record import DatasetInfo
from core.errors import DataError
from core.evaluation.intervals import share
from core.evaluation.label_scores import (
    Flags,
    Truth,
    by_label,
    confusion,
    macro_f1,
    means,
    right_rows,
    truth_of,
)
from core.evaluation.rows import held_out, row_count
from core.jobs.task import Task
from core.models.classifier import (
    given,
    label_logits,
    longest_input,
    open_classifier,
    probabilities,
    text_ids,
)
from core.models.inference import pick_device, pick_dtype, resolve_base
from core.models.labels import Labels
from core.models.trained import TrainedModel
from core.workspace import Workspace

_MOST_WRONG = 200


@dataclass(frozen=True)
class _Rows:
    """Rows with their place in their part, and what a reader of the numbers must know."""

    info: DatasetInfo
    part: str
    indices: list[int]
    rows: list[dict[str, Any]]
    notes: list[str]


def evaluate_classifier(
    task: Task, workspace: Workspace, trained: TrainedModel
) -> tuple[dict[str, Any], str]:
    """(the result, every row's labels as JSON lines). Raises TunesmithError.

    Parameters (job.json): checkpoint ("final"), max_rows (all).
    """
    begun = time.time()
    device = pick_device()
    dtype = pick_dtype(trained.config.training.precision, device)
    base_path = resolve_base(trained.base, workspace)
    model, tokenizer, labels = open_classifier(trained, base_path, device=device, dtype=dtype)
    found = _rows(workspace, trained, task.params.get("max_rows"))
    longest = longest_input(model, tokenizer, trained.config.training.max_length)
    ids = text_ids(tokenizer, [row["text"] for row in found.rows], longest)
    tell = task.part(0.1, 0.95)
    logits = label_logits(model, tokenizer, ids, lambda done: tell(done, "Giving labels"))
    chances = probabilities(logits, labels).numpy()
    said = given(probabilities(logits, labels), labels).numpy()
    truth = truth_of([labels.ids_of(row["labels"]) for row in found.rows], labels)
    task.tell(0.95, "Counting")
    result = _result(trained, found, labels, said, truth)
    result["tokens"] = sum(map(len, ids))
    result["differences"] = _wrong(found, labels, said, truth, chances)
    result["settings"] = {
        "device": device,
        "dtype": str(dtype).removeprefix("torch."),
        "quantization": trained.config.adapter.quantization,
        "max_new_tokens": 0,
        "max_length": longest,
    }
    result["seconds"] = round(time.time() - begun, 1)
    return result, _lines(found, labels, said, chances)


def _rows(workspace: Workspace, trained: TrainedModel, max_rows: int | None) -> _Rows:
    """The held-out rows; training rows where there are none, with a note."""
    found = held_out(workspace, trained.config, max_rows, forms=["labelled-text"])
    rows = [
        {"text": row.get("text") or "", "labels": list(row.get("labels") or ())}
        for row in found.rows
    ]
    if not rows:
        raise DataError(f"There is no row of {found.info.name} to measure.", "Look at its preview.")
    return _Rows(found.info, found.part, found.indices, rows, found.notes)


def _result(
    trained: TrainedModel, found: _Rows, labels: Labels, said: Flags, truth: Truth
) -> dict[str, Any]:
    right = right_rows(said, truth)
    numbers = means(said, truth)
    tuned: dict[str, Any] = {
        "accuracy": share(float(right.sum()), len(right)).as_dict(),
        "f1_macro": macro_f1(said, truth).as_dict(),
    }
    for name in ("precision_macro", "recall_macro", "f1_weighted"):
        tuned[name] = {"value": numbers[name], "low": None, "high": None}
    notes = list(found.notes)
    if truth.unseen.any():
        notes.append(
            f"Carry a label that training never saw, and count as wrong: "
            f"{row_count(int(truth.unseen.sum()))}."
        )
    usual = _majority(found.info, labels, truth)
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
        "majority": usual,
        "by_label": by_label(said, truth, labels),
        "confusion": confusion(said, truth, labels),
        "labels": list(labels.names),
        "notes": notes,
    }
    result["verdict"] = _verdict(result, labels)
    return result


def _majority(info: DatasetInfo, labels: Labels, truth: Truth) -> dict[str, Any]:
    """What always giving the most frequent label (with several: those of most rows) would get."""
    counts = [info.labels.get(name, 0) for name in labels.names]
    guess = np.zeros(len(labels.names), dtype=bool)
    if labels.multi:
        guess |= np.array(counts) * 2 > info.counts.train
    else:
        guess[int(np.argmax(counts))] = True
    always = np.tile(guess, (len(truth.flags), 1))
    numbers = means(always, truth)
    names = [name for name, chosen in zip(labels.names, guess, strict=True) if chosen]
    return {"labels": names, "accuracy": numbers["accuracy"], "f1_macro": numbers["f1_macro"]}


def _verdict(result: dict[str, Any], labels: Labels) -> str:
    """The result in plain sentences, which claim no more than the rows show."""
    accuracy, usual = result["tuned"]["accuracy"], result["majority"]
    low, high = accuracy["low"], accuracy["high"]
    what = "all labels of" if labels.multi else "the label of"
    guess = ", ".join(usual["labels"]) or "no label"
    parts = [
        f"The model gives {what} {100 * accuracy['value']:.0f} % of rows right "
        f"({100 * low:.0f} to {100 * high:.0f} %), with a macro F1 of "
        f"{result['tuned']['f1_macro']['value']:.2f}.",
        f"Always saying {guess} would get {100 * usual['accuracy']:.0f} %.",
    ]
    if low > usual["accuracy"]:
        parts.append("It has learned to tell them apart.")
    elif high < usual["accuracy"]:
        parts.append("That is worse than guessing: look at the labels and the learning rate.")
    else:
        parts.append("That is within chance: it may have learned nothing.")
    occurring = [label for label in result["by_label"] if label["rows"]]
    if len(occurring) > 1:
        worst = min(occurring, key=lambda label: label["f1"])
        parts.append(f"Hardest is {worst['label']} (F1 {worst['f1']:.2f}).")
    if result["rows"] < 20:
        parts.append(f"With {row_count(result['rows'])} this is a hint, not a proof.")
    if result["part"] == "train":
        parts.append("These are rows that it was trained on.")
    return " ".join(parts)


def _wrong(
    found: _Rows, labels: Labels, said: Flags, truth: Truth, chances: Any
) -> list[dict[str, Any]]:
    """The rows that are wrong, the surest mistakes first; at most 200."""
    wrong: list[dict[str, Any]] = []
    for place in np.flatnonzero(~right_rows(said, truth)):
        row = found.rows[place]
        wrong.append(
            {
                "index": found.indices[place],
                "prompt": [{"role": "user", "content": row["text"]}],
                "expected": ", ".join(row["labels"]) or "none",
                "base": None,
                "tuned": _said(labels, said[place], chances[place]),
                "base_fields_right": None,
                "tuned_fields_right": None,
                "base_score": None,
                "tuned_score": 0.0,
                "sureness": float(chances[place].max()),
            }
        )
    wrong.sort(key=lambda row: (-row["sureness"], row["index"]))
    return wrong[:_MOST_WRONG]


def _said(labels: Labels, said: Any, chances: Any) -> str:
    names = [f"{labels.names[i]} ({100 * chances[i]:.0f} %)" for i in np.flatnonzero(said)]
    return ", ".join(names) or "none"


def _lines(found: _Rows, labels: Labels, said: Flags, chances: Any) -> str:
    lines = []
    for place, row in enumerate(found.rows):
        line = {
            "index": found.indices[place],
            "expected": row["labels"],
            "tuned": [labels.names[i] for i in np.flatnonzero(said[place])],
            "probabilities": {
                name: round(float(chances[place][i]), 6) for i, name in enumerate(labels.names)
            },
        }
        lines.append(json.dumps(line, ensure_ascii=False))
    return "\n".join(lines) + "\n"
