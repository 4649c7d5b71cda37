"""Labels for the texts of a data set, from a run's classifier."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from core.data.registry import load_dataset_info
from core.data.rowfile import iter_rows
from core.errors import DataError
from core.jobs.task import Task
from core.labelling.files import columns_learned, read_texts
from core.labelling.predictions import PREDICTIONS
from core.language import _
from core.models.trained import FINAL, find_trained
from core.progress import Stopped
from core.tokens.prompts import prompted
from core.worker.models.classifier import (
    given,
    label_logits,
    longest_input,
    open_classifier,
    probabilities,
    text_ids,
)
from core.worker.models.loading import pick_device, pick_dtype, resolve_base
from core.workspace import Workspace, write_atomic


def run_predict(folder: Path, workspace_root: Path) -> str:
    """Labels every text (parameters: dataset, or file in the job's folder; checkpoint);
    "finished", or "stopped" with nothing written. Raises TunesmithError."""
    task = Task(Path(folder))
    try:
        lines, result = _labelled(task, Workspace.open(workspace_root))
    except Stopped:
        return "stopped"
    write_atomic(task.folder / PREDICTIONS, lines)
    task.finish(result)
    return "finished"


def _labelled(task: Task, workspace: Workspace) -> tuple[str, dict[str, Any]]:
    task.tell(0.0, _("Loading the model"))
    trained = find_trained(task.run, str(task.params.get("checkpoint") or FINAL))
    name = task.params.get("file")
    if name:
        learned = columns_learned(workspace, trained.config)
        rows, left_out = read_texts(task.folder / name, learned)
        if not rows:
            raise DataError(
                _("There is no text in {name}.", name=task.params["name"]),
                _("Choose a file with rows in it, or mend this one."),
            )
    else:
        rows = [(text, {}) for text in _texts(workspace, str(task.params["dataset"]))]
        left_out = 0
    texts = [text for text, _others in rows]
    device = pick_device()
    dtype = pick_dtype(trained.config.training.precision, device)
    base = resolve_base(trained.base, workspace)
    model, tokenizer, labels = open_classifier(trained, base, device=device, dtype=dtype)
    longest = longest_input(model, tokenizer, trained.config.training.max_length)
    tell, said = task.part(0.1, 0.98), _("Giving labels")
    ids = text_ids(tokenizer, texts, longest)
    logits = label_logits(model, tokenizer, ids, lambda done: tell(done, said))
    chances = probabilities(logits, labels)
    flags = given(chances, labels)
    lines = []
    for index, text in enumerate(texts):
        named = zip(labels.names, chances[index].tolist(), flags[index].tolist(), strict=True)
        shares = [(name, round(chance, 6), is_given) for name, chance, is_given in named]
        line = {
            "index": index,
            "text": text,
            "labels": [name for name, _chance, is_given in shares if is_given],
            "probabilities": {name: chance for name, chance, _given in shares},
        }
        if others := rows[index][1]:
            line["row"] = others
        lines.append(json.dumps(line, ensure_ascii=False, default=str) + "\n")
    counts = {"rows": len(texts), "left_out": left_out}
    return "".join(lines), {**counts, "labels": list(labels.names)}


def _texts(workspace: Workspace, dataset: str) -> list[str]:
    """The texts of all parts of a data set. Raises DataError when there is none."""
    info = load_dataset_info(workspace, dataset)
    files = (info.rows_path(part) for part in info.parts)
    rows = [row for file in files for batch in iter_rows(file) for row in batch]
    if info.form == "prompt-only":
        texts = [str(prompted(row, "").prompt[-1]["content"]) for row in rows]
    else:
        texts = [str(row.get("text") or "") for row in rows]
    if not texts:
        raise DataError(_("There is no text in {name}.", name=info.name), _("Look at its preview."))
    return texts
