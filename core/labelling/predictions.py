"""A classifier's labels of texts, as a job of its run; which of them to look at, what a person says
of them, and the rows that follow."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.data.jobs import submit_steps
from core.data.registry import load_dataset_info
from core.data.steps import parse_step, with_step
from core.data.versions import recorded_steps
from core.errors import DataError, ModelError
from core.jobs.job import Job, read_record
from core.jobs.kinds import KINDS
from core.jobs.queue import enqueue, new_folder
from core.jobs.store import Store
from core.jobs.task import read_result
from core.labelling.files import columns_learned, text_column
from core.language import N_, _, n_
from core.models.trained import FINAL, find_trained
from core.runs.records import run_job
from core.workspace import RunFolder, Workspace, read_json_lines, write_atomic

PREDICTIONS, LABELS = "predictions.jsonl", "labels.json"
FORMS = ("text", "labelled-text", "prompt-only")
"""What texts are taken from."""


def submit_prediction(
    workspace: Workspace,
    store: Store,
    run_id: str,
    source: str | Path,
    checkpoint: str = FINAL,
) -> Job:
    """Puts the labelling of the texts of a data set, or of a file, in the queue; the job keeps a
    copy of the file. Raises ModelError where the run's model gives no labels, DataError where the
    rows are no texts, WorkspaceError for a file that may not be read."""
    run = run_job(store, run_id)
    trained = find_trained(workspace.run(run_id), checkpoint)
    if trained.config.training_method.makes != "classifier":
        raise ModelError(
            _("{name} gives no labels.", name=run.name), _("Choose a run of classification.")
        )
    file = workspace.confine(source) if isinstance(source, Path) else None
    if file is not None:
        text_column(file, columns_learned(workspace, trained.config))
        name, params = file.name, {"file": f"texts{''.join(file.suffixes)}", "name": file.name}
    else:
        info = load_dataset_info(workspace, str(source))
        if info.form not in FORMS:
            raise DataError(
                _("{name} holds {form} rows, which are no texts.", name=info.name, form=info.form),
                _("Import the texts as text or as labelled text."),
            )
        name, params = info.name, {"dataset": info.id}
    kind = KINDS["predict"]
    job_id, folder = new_folder(store, workspace.run(run_id).root / kind.folder)
    if file is not None:
        shutil.copyfile(file, folder / params["file"])
    job = Job(
        id=job_id,
        kind=kind.name,
        run_id=run_id,
        folder=folder.relative_to(workspace.root).as_posix(),
        name=name,
        model=run.model,
        dataset=params.get("dataset", ""),
        params={"checkpoint": checkpoint, **params},
    )
    return enqueue(workspace, store, job)


@dataclass(frozen=True)
class Prediction:
    """`probabilities` of each label by its name; `row` has the other columns of a file's row."""

    index: int
    text: str
    labels: list[str]
    probabilities: dict[str, float]
    row: dict[str, Any] = field(default_factory=dict)

    @property
    def top(self) -> float:
        return max(self.probabilities.values())

    @property
    def margin(self) -> float:
        """By how much the most probable label is before the next."""
        first, *rest = sorted(self.probabilities.values(), reverse=True)
        return first - (rest[0] if rest else 0.0)

    @property
    def entropy(self) -> float:
        """Of the probabilities, in nats."""
        return -sum(p * math.log(p) for p in self.probabilities.values() if p > 0)


@dataclass(frozen=True)
class Predicted:
    """A finished labelling of texts; `dataset` is the id of their data set, or a file's name."""

    id: str
    folder: Path
    dataset: str
    labels: list[str]
    created_at: float
    left_out: int = 0


def list_predictions(run: RunFolder) -> list[Predicted]:
    """Those of a run that came to their end, newest first."""
    found = []
    for folder in (run.root / KINDS["predict"].folder).glob("[!.]*/"):
        result, record = read_result(folder), read_record(folder)
        if result is not None:
            created = float(record.get("created_at") or 0.0)
            params = record.get("params") or {}
            dataset = str(params.get("dataset") or params.get("name", ""))
            left_out = int(result.get("left_out", 0))
            labels = result["labels"]
            found.append(Predicted(folder.name, folder, dataset, labels, created, left_out))
    return sorted(found, key=lambda one: one.created_at, reverse=True)


def read_predictions(folder: Path) -> list[Prediction]:
    return [Prediction(**line) for line in read_json_lines(folder / PREDICTIONS)]


ENDINGS = (".jsonl", ".csv")


def labelled(folder: Path, ending: str) -> str:
    """What was predicted: as .jsonl with all there is, as .csv with columns for the labels, the
    highest probability and each label's. Raises DataError for another ending."""
    if ending not in ENDINGS:
        raise DataError(
            _("Labels cannot be written as {ending}.", ending=ending or "?"),
            _("Take {names}.", names=", ".join(ENDINGS)),
        )
    if ending == ".jsonl":
        return (folder / PREDICTIONS).read_text(encoding="utf-8")
    found = read_predictions(folder)
    columns = list(dict.fromkeys(name for one in found for name in one.row))
    names = list(found[0].probabilities) if found else []
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["text", *columns, "predicted", "probability", *(f"p({one})" for one in names)])
    for one in found:
        cells = [_cell(one.row.get(name)) for name in columns]
        shares = [one.probabilities[name] for name in names]
        writer.writerow([one.text, *cells, ", ".join(one.labels), one.top, *shares])
    return text.getvalue()


def left_out_rows(count: int) -> str:
    return n_(
        "{n} row without a text was left out.", "{n} rows without a text were left out.", count
    )


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value


WAYS = {
    "range": N_("Top probability in a range"),
    "margin": N_("Least margin between the first two"),
    "entropy": N_("Highest entropy"),
}
"""How the texts to look at are chosen (uncertainty sampling; Settles 2009)."""


def uncertain(
    found: Sequence[Prediction], way: str, low: float = 0.4, high: float = 0.6, most: int = 50
) -> list[Prediction]:
    """The texts that a label tells most of, at most so many, the least sure first."""
    if way == "range":
        kept = [one for one in found if low <= one.top <= high]
        return sorted(kept, key=lambda one: (abs(one.top - (low + high) / 2), one.index))[:most]
    if way == "margin":
        return sorted(found, key=lambda one: (one.margin, one.index))[:most]
    return sorted(found, key=lambda one: (-one.entropy, one.index))[:most]


def read_labels(folder: Path) -> dict[int, str]:
    """What a person said of the texts, by their index."""
    try:
        found = json.loads((folder / LABELS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {int(index): str(label) for index, label in found.items()}


def give_label(folder: Path, index: int, label: str) -> None:
    """Labels a text; the same label again takes it away."""
    labels = read_labels(folder)
    if labels.get(index) == label:
        del labels[index]
    else:
        labels[index] = label
    write_atomic(folder / LABELS, json.dumps(labels, ensure_ascii=False, indent=1) + "\n")


def add_labelled(workspace: Workspace, store: Store, folder: Path, dataset_id: str) -> Job:
    """The labelled texts become rows to learn of a data set, as a version of it that can be undone.

    Raises DataError where nothing was labelled, and for a data set of another form.
    """
    labels = read_labels(folder)
    info = load_dataset_info(workspace, dataset_id)
    if not labels:
        raise DataError(_("No text was labelled."), _("Give some labels first."))
    if info.form != "labelled-text":
        raise DataError(
            _("{name} holds {form} rows.", name=info.name, form=info.form),
            _("Add them to the data set that the run learned from."),
        )
    run_id = folder.parents[1].name
    rows = [
        {"text": one.text, "labels": [labels[one.index]], "meta": {"labelled_after": run_id}}
        for one in read_predictions(folder)
        if one.index in labels
    ]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    digest = hashlib.sha256(text.encode()).hexdigest()
    file = info.folder / "labelled" / f"labelled-{digest[:12]}.jsonl"
    file.parent.mkdir(exist_ok=True)
    write_atomic(file, text)
    step: dict[str, Any] = {"op": "add_rows", "file": f"labelled/{file.name}", "sha256": digest}
    title = n_("Adding {n} labelled text", "Adding {n} labelled texts", len(rows))
    steps = with_step(recorded_steps(info), parse_step(step))
    note = n_("{n} text labelled by hand", "{n} texts labelled by hand", len(rows))
    return submit_steps(workspace, store, dataset_id, steps, title=title, note=note)
