"""Whether an exported reward model scores as the trained one. Imports torch: only workers use
it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from core.errors import ExportError
from core.export.check import Check
from core.export.check_labels import check_distance


def check_same_scores(exported: Any, trained: Any, dtype: Any) -> list[Check]:
    """That the scores are the trained model's and put the answers in the same order. Raises
    ExportError if not. `dtype` is the type of the exported weights; scores are (texts, 1), two
    texts of a pair after each other."""
    apart = check_distance(exported, trained, dtype)
    pairs = [
        (scores[0::2] - scores[1::2])[: len(scores) // 2] > 0 for scores in (exported, trained)
    ]
    same = int((pairs[0] == pairs[1]).sum())
    total = len(pairs[0])
    return [apart, Check("Prefers the same answers", same == total, f"in {same} of {total} pairs")]


def check_one_score(folder: Path, *, merged: bool) -> Check:
    """That a whole model says in its config that it gives one score; for an adapter, that its head
    is saved with it. Raises ExportError."""
    if merged:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if len(config.get("id2label") or {}) != 1:
            raise ExportError("The export has lost its head.", "Export it again, or report this.")
        return Check("Gives one score", True, "its config says so")
    settings = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    saved = settings.get("modules_to_save") or []
    if not saved:
        raise ExportError(
            "The adapter has no head: the scores would be drawn at random.",
            "Export it as a merged model, or report this.",
        )
    return Check("Gives one score", True, f"its head is saved with it ({', '.join(saved)})")
