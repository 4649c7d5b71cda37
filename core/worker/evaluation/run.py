"""An evaluation, from its folder to its report: what the tuned model does, then its base where that
can do the same, then the numbers of both."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from core.errors import ModelError
from core.evaluation.judge import MOST_TOKENS, SCHEMA, Pair, Reply, is_readable, judge, judge_of
from core.evaluation.metrics import Chosen, Written, difference_of, numbers_of
from core.evaluation.paired import compared
from core.evaluation.report import (
    ANSWERS,
    GENERAL,
    JUDGED,
    DatasetName,
    Judged,
    Note,
    Other,
    Report,
    asked_kind,
    has_base,
    kind_of,
    note,
)
from core.evaluation.targets import Target, parse_target
from core.jobs.task import Task
from core.language import _
from core.models.fingerprint import base_changed
from core.models.trained import find_trained
from core.progress import Stopped, Tell
from core.tokens.tokenize import TokenizedRow
from core.worker.evaluation.classifier import Classifier
from core.worker.evaluation.evaluator import Evaluator
from core.worker.evaluation.harness import Tasks
from core.worker.evaluation.kept import Kept
from core.worker.evaluation.questions import Questions
from core.worker.evaluation.rewarded import RewardedWriter
from core.worker.evaluation.rows import EvalRow
from core.worker.evaluation.scorer import PairScorer
from core.worker.evaluation.targets import ASKED
from core.worker.evaluation.texts import Texts
from core.worker.evaluation.writer import Writer
from core.worker.models.loading import free_memory, without_adapter
from core.workspace import Workspace, write_atomic

EVALUATORS: dict[str, type[Evaluator[Any]]] = {
    evaluator.kind: evaluator
    for evaluator in (Writer, Texts, Classifier, PairScorer, RewardedWriter, Questions, Tasks)
}

# What a judge is asked carries no loss.
_NOTHING = TokenizedRow([], [], 0)


def run_evaluation(folder: Path, workspace_root: Path) -> str:
    """Measures a run's checkpoint and its base; "finished", or "stopped" with nothing written but
    the answers so far, which the next evaluation of the run takes over.

    Parameters (job.json) are those of `Evaluator`. Raises TunesmithError.
    """
    task = Task(Path(folder))
    try:
        report, files, kept = _evaluate(task, Workspace.open(workspace_root))
        task.check_stop()
    except Stopped:
        return "stopped"
    for name, lines in files.items():
        write_atomic(task.folder / name, lines)
    task.finish(report.model_dump(mode="json"))
    kept.forget()
    return "finished"


def _evaluate(task: Task, workspace: Workspace) -> tuple[Report, dict[str, str], Kept]:
    """(the report, files of JSON lines by name: what each row and general prompt was answered, and
    what was kept of it so far)."""
    task.tell(0.0, _("Loading the model"))
    trained = find_trained(task.run, str(task.params.get("checkpoint") or "final"))
    kind = asked_kind(task.params) or kind_of(trained.config.method)
    with closing(EVALUATORS[kind](task, workspace, trained)) as evaluator:
        return _measured(evaluator)


def _measured(evaluator: Evaluator[Any]) -> tuple[Report, dict[str, str], Kept]:
    begun = time.time()
    task, trained, kind = evaluator.task, evaluator.trained, evaluator.kind
    if changed := base_changed(trained, evaluator.base_path):
        task.log(changed, level="warning")
    compare = has_base(kind) and bool(task.params.get("compare_base", True))
    targets, judges = _checked_targets(evaluator, compare)
    model = evaluator.open()
    found = evaluator.found = evaluator.prepare(model)
    if isinstance(evaluator, Writer) and not evaluator.is_asked and (targets or judges):
        raise _nothing_asked(bool(targets))
    judging = 0.2 if judges else 0.0
    each = (0.93 - judging) / (1 + compare + len(targets))
    tuned = evaluator.measure(model, task.part(0.05, 0.05 + each), "tuned")
    base = None
    if compare:
        tell = task.part(0.05 + each, 0.05 + 2 * each)
        if trained.shares_base:
            with without_adapter(model):
                base = evaluator.measure(model, tell, "base")
        else:
            model = None
            free_memory()
            base = evaluator.measure(evaluator.open_before(), tell, "base")
    model = None
    evaluator.close()
    free_memory()
    others = []
    for place, target in enumerate(targets):
        begin = 0.98 - judging - each * (len(targets) - place)
        others.append(_other(evaluator, target, tuned, task.part(begin, begin + each)))
    told = task.part(0.98 - judging, 0.98)
    judged, verdicts = _judge(evaluator, judges[0], tuned, base, told) if judges else (None, [])
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
        others=others,
        judged=judged,
        notes=[*found.notes, *filter(None, [changed]), *evaluator.notes(tuned), *_taken(evaluator)],
        differences=evaluator.differing(tuned, base),
        settings=evaluator.settings(),
        **evaluator.more(tuned, base),
    )
    report.seconds = round(time.time() - begun, 1)
    return report, _files(evaluator, tuned, base, verdicts), evaluator.kept


def _checked_targets(evaluator: Evaluator[Any], compare: bool) -> tuple[list[Target], list[Target]]:
    """(the other models, the judge if one is asked for), once it is known that they can answer:
    nobody waits for answers that nobody compares. Raises TunesmithError."""
    params = evaluator.task.params
    targets = [parse_target(text) for text in params.get("against") or []]
    judges = [judge_of(params["judge"])] if params.get("judge") else []
    if judges and not (compare or targets):
        raise _nothing_asked(False)
    for target in [*targets, *judges]:
        is_asked = isinstance(evaluator, Questions) and target not in judges
        if not isinstance(evaluator, Writer) and not is_asked:
            raise _nothing_asked(bool(targets))
        ASKED[target.kind](target, evaluator, MOST_TOKENS).check()
    return targets, judges


def _nothing_asked(of_others: bool) -> ModelError:
    if of_others:
        return ModelError(
            _("Other models can be asked rows with a question and an answer only."),
            _("Leave them out."),
        )
    return ModelError(
        _("A judge compares the answers of two models to rows with a question."),
        _("Compare with the base or another model, or leave the judge out."),
    )


def _taken(evaluator: Evaluator[Any]) -> list[Note]:
    taken = evaluator.kept.taken
    return [note("taken_over", answers=taken)] if taken else []


def _files(
    evaluator: Evaluator[Any], tuned: Any, base: Any, verdicts: list[dict[str, Any]]
) -> dict[str, str]:
    files = {ANSWERS: _lines(evaluator.answers(tuned, base))}
    if isinstance(evaluator, Writer) and evaluator.general:
        files[GENERAL] = _lines(evaluator.general_answers())
    if verdicts:
        files[JUDGED] = _lines(verdicts)
    return files


def _judge(
    evaluator: Evaluator[Any], target: Target, tuned: Any, base: Any, tell: Tell
) -> tuple[Judged, list[dict[str, Any]]]:
    """What a judge says of the tuned answers beside those of the base, or of the first other
    model."""
    assert isinstance(evaluator, Writer), "it was checked"
    other: Any = base if base is not None else next(iter(evaluator.others.values()))
    pairs = [
        Pair(
            row.index,
            "\n\n".join(str(turn["content"]) for turn in row.prompt),
            tuned.scored.answers[place],
            other.scored.answers[place],
            row.expected or "",
        )
        for place, row in enumerate(evaluator.found.rows)
    ]
    asked = ASKED[target.kind](target, evaluator, MOST_TOKENS)
    asked.schema = SCHEMA

    def replies(messages: Sequence[list[dict[str, str]]]) -> list[Reply]:
        rows = [EvalRow(at, one, None, _NOTHING) for at, one in enumerate(messages)]
        kept = evaluator.kept.answers([*asked.who, "judge"], messages, MOST_TOKENS)
        known = {at: text for at, text in kept.known.items() if is_readable(text)}
        kept = replace(kept, known=known)  # of the others it is asked anew
        said = _("The judge {model}", model=asked.title)
        asked.why_not.clear()
        texts = asked.answers(rows, kept, lambda done: tell(done, said))
        return [Reply(text, asked.why_not.get(at, "")) for at, text in enumerate(texts)]

    return judge(pairs, asked.title, str(evaluator.task.params.get("rubric") or ""), replies)


def _other(evaluator: Evaluator[Any], target: Target, tuned: Written | Chosen, tell: Tell) -> Other:
    """Another model on the same rows."""
    assert isinstance(evaluator, Writer | Questions), "it was checked"
    title, measured = evaluator.measure_other(target, tell)
    free_memory()
    others: dict[str, Any] = evaluator.others
    others[f"other{len(others) + 1}"] = measured
    return Other(
        target=str(target),
        title=title,
        numbers=numbers_of(measured),
        difference=difference_of(tuned, measured),
        compared=compared(_scores(tuned), _scores(measured)),
    )


def _scores(measured: Written | Chosen) -> Any:
    """Of each row, what models are compared by."""
    if isinstance(measured, Chosen):
        return measured.right
    assert measured.scored, "it was asked"
    return measured.scored.scores


def _lines(lines: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
