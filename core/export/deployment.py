"""What whoever runs an exported classifier has to know of it, in one file for programs."""

from __future__ import annotations

import json
from pathlib import Path

from core.config import RunConfig
from core.models.labels import read_labels

FILE = "deployment_config.json"


def write_deployment(folder: Path, config: RunConfig, device: str) -> None:
    """Writes deployment_config.json beside a classifier's config and labels. `device` is where it
    is meant to run: cpu, or auto for a GPU where there is one.

    `max_length` is in tokens: training cut texts there. With several labels a text `thresholds`
    holds the probability from which on each is given.
    """
    model = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    labels = read_labels(folder)
    values = {
        "model_type": model["model_type"],
        "task": "text-classification",
        "num_labels": len(labels.names),
        "max_length": config.training.max_length,
        "device": device,
        "problem_type": labels.problem_type,
    }
    if labels.multi:
        values["thresholds"] = dict.fromkeys(labels.names, labels.threshold)
    text = json.dumps(values, indent=2, ensure_ascii=False)
    (folder / FILE).write_text(text + "\n", encoding="utf-8")
