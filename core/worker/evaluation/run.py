"""An evaluation, from its folder to its report: what the tuned model does, then its base where that
can do the same, then the numbers of both."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from core.evaluation.metrics import difference_of, numbers_of
from core.evaluation.report import DatasetName, Report, has_base, kind_of
from core.jobs.task import Task
from core.language import _
from core.models.fingerprint import base_changed
from core.models.trained import find_trained
from core.progress import Stopped
from core.worker.evaluation.classifier import Classifier
from core.worker.evaluation.evaluator import Evaluator
from core.worker.evaluation.rewarded import RewardedWriter
from core.worker.evaluation.scorer import PairScorer
from core.worker.evaluation.texts import Texts
from core.worker.evaluation.writer import Writer
from core.worker.models.loading import free_memory, without_adapter
from core.workspace import Workspace, write_atomic

ANSWERS = "answers.jsonl"
EVALUATORS: dict[str, type[Evaluator[Any]]] = {
    evaluator.kind: evaluator
    for evaluator in (Writer, Texts, Classifier, PairScorer, RewardedWriter)
}


def run_evaluation(folder: Path, workspace_root: Path) -> str:
    """Measures a run's checkpoint and its base; "finished", or "stopped" with nothing written.

    Parameters (job.json) are those of `Evaluator`. Raises TunesmithError.
    """
    task = Task(Path(folder))
    try:
        report, answers = _evaluate(task, Workspace.open(workspace_root))
        task.check_stop()
    except Stopped:
        return "stopped"
    write_atomic(task.folder / ANSWERS, answers)
    task.finish(report.model_dump(mode="json"))
    return "finished"


def _evaluate(task: Task, workspace: Workspace) -> tuple[Report, str]:
    """(the report, what each row was answered as JSON lines)."""
    begun = time.time()
    task.tell(0.0, _("Loading the model"))
    trained = find_trained(task.run, str(task.params.get("checkpoint") or "final"))
    kind = kind_of(trained.config.method)
    evaluator = EVALUATORS[kind](task, workspace, trained)
    if changed := base_changed(trained, evaluator.base_path):
        task.log(changed, level="warning")
    model = evaluator.open()
    found = evaluator.found = evaluator.prepare(model)
    compare = has_base(kind) and bool(task.params.get("compare_base", True))
    tuned = evaluator.measure(model, task.part(0.05, 0.5 if compare else 0.98), "tuned")
    base = None
    if compare:
        tell = task.part(0.5, 0.98)
        if trained.shares_base:
            with without_adapter(model):
                base = evaluator.measure(model, tell, "base")
        else:
            del model
            free_memory()
            base = evaluator.measure(evaluator.open_before(), tell, "base")
    task.tell(0.98, _("Counting"))
    info = found.info
    report = Report(
        measured=kind,
        method=trained.config.method,
        rows=evaluator.rows_measured(tuned),
        part=found.part,
        checkpoint=trained.checkpoint,
        model=trained.base_name,
        dataset=DatasetName(id=info.id, name=info.name, fingerprint=info.fingerprint),
        tokens=evaluator.tokens,
        base=None if base is None else numbers_of(base),
        tuned=numbers_of(tuned),
        difference=None if base is None else difference_of(tuned, base),
        notes=[*found.notes, *filter(None, [changed]), *evaluator.notes(tuned)],
        differences=evaluator.differing(tuned, base),
        settings=evaluator.settings(),
        **evaluator.more(tuned, base),
    )
    report.seconds = round(time.time() - begun, 1)
    lines = (json.dumps(line, ensure_ascii=False) for line in evaluator.answers(tuned, base))
    return report, "\n".join(lines) + "\n"
