"""A model that writes, asked tasks of lm-eval: lm-eval asks and counts, what it says is told."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from core.data.record import DatasetInfo
from core.errors import DataError, ModelError, disk_full
from core.evaluation.intervals import Estimate
from core.evaluation.lm_eval_tasks import check_include, check_names, check_tasks
from core.evaluation.metrics import Parts, Tasked
from core.evaluation.paired import compared
from core.evaluation.report import Note, Row, TaskNumbers, note
from core.language import N_, _
from core.progress import Tell
from core.worker.evaluation.evaluator import Evaluator, sides_of
from core.worker.evaluation.kept import Answers
from core.worker.evaluation.rows import OTHER_ROWS, HeldOut
from core.worker.models.loading import open_trained

_ROWS_AT_ONCE = 4  # on a CPU; lm-eval keeps the logits of all tokens of all of them
_RESAMPLES = 1000  # where lm-eval has no formula for the standard error
_Z = 1.959963984540054  # the normal quantile of 97.5 %
# What a task is told by, where it counts several things.
_FIRST = ("acc_norm", "acc", "exact_match", "f1")
_ASKED = {"tuned": N_("Tasks for the tuned model"), "base": N_("Tasks for the base model")}


def task_names(folder: str | None = None) -> list[str]:
    """Every task and group of tasks of lm-eval, or of a folder of one's own."""
    return list(_manager(include_path=folder, include_defaults=folder is None).all_tasks)


def _manager(**asked: Any) -> Any:
    # A pool of processes forked from one with a GPU in use may hang.
    os.environ["DISABLE_MULTIPROC"] = "1"
    from lm_eval.tasks import TaskManager

    return TaskManager(**asked)


def _manager_for(names: list[str], include: str | None) -> Any:
    """One that knows these tasks: lm-eval's own list takes long to read, and is left out where a
    folder has them all. (A group of that folder may be of tasks of lm-eval.)"""
    if include:
        own = _manager(include_path=include, include_defaults=False)
        if not own.all_groups and {*names} <= {*own.all_tasks}:
            return own
    return _manager(include_path=include)


class Tasks(Evaluator[Tasked]):
    """tasks: names of lm-eval's; include: a folder with more of them; max_rows of each; num_fewshot
    (each task's own) and apply_chat_template (false), as lm-eval has them."""

    kind = "tasks"

    def open(self) -> Any:
        self._load()
        model, self.tokenizer = open_trained(
            self.trained, self.base_path, device=self.device, dtype=self.dtype
        )
        return model

    def _load(self) -> None:
        """The tasks with their data. Raises TunesmithError, which names the task."""
        params = self.task.params
        check_tasks(params, self.workspace)
        include = params.get("include") or None
        self.task.tell(0.0, _("Reading lm-eval's list of tasks"))
        names: list[str] = params["tasks"]
        folder = str(check_include(include, self.workspace)) if include else None
        manager = _manager_for(names, folder)
        check_names(names, manager.all_tasks)
        self.specs: list[Any] = []
        for name in names:
            self.task.tell(0.0, _("Fetching the data of {task}", task=name))
            loaded = _loaded(name, partial(manager.load, [name]))
            groups = loaded.get("groups") or {}
            self.specs += [groups[name]] if name in groups else list(loaded["tasks"].values())
        both = _loaded(", ".join(names), partial(manager.load, self.specs))
        self.tasks: dict[str, Any] = both["tasks"]
        for name, one in self.tasks.items():
            _check_task(name, one)

    def prepare(self, model: Any) -> HeldOut[Any]:
        name = ", ".join(self.task.params["tasks"])
        info = DatasetInfo(id="", name=name, form="prompt-completion", fingerprint="")
        chat = [note("chat_template")] if self.task.params.get("apply_chat_template") else []
        return HeldOut(info, OTHER_ROWS, [], [], chat)

    def measure(self, model: Any, tell: Tell, which: str) -> Tasked:
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM

        at_once = "auto" if self.device.startswith("cuda") else _ROWS_AT_ONCE
        asked = HFLM(pretrained=model, tokenizer=self.tokenizer, batch_size=at_once)
        told = Told(tell, list(self.tasks.values()), _(_ASKED[which]))
        asked.set_cache_hook(told)
        for kind in ("loglikelihood", "loglikelihood_rolling", "generate_until"):
            kept = partial(self.kept.answers, [*self.who(which), kind], most=0)
            setattr(asked, kind, partial(told.ask_rest, getattr(asked, kind), kept))
        plain = model.get_base_model() if hasattr(model, "get_base_model") else model
        handle = plain.register_forward_pre_hook(lambda *_given: told.tell())
        try:
            found = simple_evaluate(
                asked,
                tasks=self.specs,
                num_fewshot=self.task.params.get("num_fewshot"),
                limit=self.max_rows,
                bootstrap_iters=_RESAMPLES,
                apply_chat_template=bool(self.task.params.get("apply_chat_template")),
            )
        finally:
            handle.remove()
        if which == "tuned":
            self.shares = _shares(found["samples"])
        return _counted(found, self.shares)

    def notes(self, tuned: Tasked) -> list[Note]:
        notes = []
        measured, total = (sum(counts) for counts in zip(*tuned.rows.values(), strict=True))
        if measured < total:
            notes.append(note("first_rows", measured=measured, total=total))
        if any(tuned.shots.values()):
            shots = ", ".join(f"{name} {number}" for name, number in tuned.shots.items() if number)
            notes.append(note("shots", shots=shots))
        return notes

    def rows_measured(self, tuned: Tasked) -> int:
        asked = sum(measured for measured, _total in tuned.rows.values())
        return len(tuned.scores) or asked  # what the verdict tells of

    def differing(self, tuned: Tasked, base: Tasked | None) -> list[Row]:
        return []  # answers.jsonl has them

    def more(self, tuned: Tasked, base: Tasked | None) -> dict[str, Any]:
        tasks = []
        for name, scores in tuned.by_task().items():
            other = base.by_task().get(name) if base else None
            tasks.append(
                TaskNumbers(
                    name=name,
                    metric=tuned.main[name],
                    rows=len(scores),
                    compared=None if other is None else compared(scores, other),
                )
            )
        more: dict[str, Any] = {"tasks": tasks}
        if base is not None and len(tuned.scores):
            more["compared"] = compared(tuned.scores, base.scores)
        return more

    def answers(self, tuned: Tasked, base: Tasked | None) -> Iterator[dict[str, Any]]:
        several = len(tuned.main) > 1
        for place, (name, sample) in enumerate(tuned.samples):
            rendered = str(sample["arguments"][0][0])
            asked = self.tasks[name].doc_to_text(sample["doc"])
            line: dict[str, Any] = {
                "index": place,
                "prompt": [
                    {"role": "user", "content": asked if isinstance(asked, str) else rendered}
                ],
                "rendered": rendered,
                "expected": _expected(sample),
                "meta": {"task": name} if several else {},
            }
            for side_name, side in sides_of(tuned, base).items():
                line[side_name] = _given(side.samples[place][1], tuned.main[name])
                line[f"{side_name}_score"] = float(side.scores[place])
            yield line


class Told:
    """Told by lm-eval of each request that was answered, in place of its cache, and by the model of
    each time that it is asked: so the work is seen to go on, a stop is seen, and what was answered
    before it is not asked again."""

    def __init__(self, tell: Tell, tasks: Sequence[Any], said: str) -> None:
        self._tell, self._tasks, self._said = tell, tasks, said
        self._done = 0
        self._kept, self._places = Answers(), dict[str, int]()

    def ask_rest(
        self, ask: Callable[..., list[Any]], kept: Callable[..., Answers], requests: list[Any]
    ) -> list[Any]:
        """What lm-eval's `ask` gives for its requests, of one kind, or has given before."""
        asked = [list(request.args) for request in requests]
        self._kept = kept(asked=asked)
        found = {
            place: _answer(json.loads(text))
            for place, text in self._kept.known.items()
            if not _is_drawn(asked[place])
        }
        self._done += len(found)
        left = [place for place in range(len(asked)) if place not in found]
        self._places = {json.dumps(asked[place]): place for place in left}
        given = ask([requests[place] for place in left]) if left else []
        found.update(zip(left, given, strict=True))
        return [found[place] for place in range(len(asked))]

    def add_partial(self, attr: str, req: Any, res: Any) -> None:
        place = self._places.get(json.dumps(list(req)))
        if place is not None:
            self._kept.wrote(place, json.dumps(res))
        self._done += 1
        self.tell()

    def tell(self) -> None:
        total = sum(one.repeats for task in self._tasks for one in task.instances or [])
        self._tell(min(1.0, self._done / max(1, total)), self._said)


def _answer(kept: Any) -> Any:
    """What JSON has made a list was a pair: the logarithm of a probability, and whether the model
    would have written that."""
    return tuple(kept) if isinstance(kept, list) else kept


def _is_drawn(asked: Sequence[Any]) -> bool:
    """Whether the answer is another one each time."""
    return isinstance(asked[-1], dict) and bool(asked[-1].get("do_sample"))


def _loaded(name: str, load: Callable[[], Any]) -> Any:
    """What lm-eval makes of a task. Raises TunesmithError, which names it."""
    try:
        return load()
    except ImportError as error:
        raise ModelError(
            _("The task {task} needs a package: {reason}.", task=name, reason=_line(error)),
            _("Install it into Tunesmith's environment, or take another task."),
        ) from error
    except Exception as error:  # whatever a data set, a template or a function of a task may raise
        if disk_full(error):
            raise
        if isinstance(error, OSError):
            raise DataError(
                _(
                    "The data set of the task {task} cannot be fetched: {reason}.",
                    task=name,
                    reason=_line(error),
                ),
                _("Check the network, or take a task whose data are on this machine."),
            ) from error
        raise DataError(
            _("The task {task} cannot be asked: {reason}.", task=name, reason=_line(error)),
            _("Take another one."),
        ) from error


def _line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].removesuffix(".")


def _check_task(name: str, task: Any) -> None:
    if getattr(task, "UNSAFE_CODE", False):
        raise ModelError(
            _("The task {task} runs the code that a model writes.", task=name),
            _("Take another one: here nothing keeps such code from doing harm."),
        )
    if getattr(task, "MULTIMODAL", False):
        raise ModelError(
            _("The task {task} shows pictures or plays sounds.", task=name),
            _("Take one of text."),
        )


# What lm-eval says, as it is stored.


def _counted(found: Mapping[str, Any], shares: Mapping[str, list[str]]) -> Tasked:
    """`shares`: the metrics of each task that are shares."""
    results, groups = found["results"], found.get("group_subtasks") or {}
    below: set[str] = set()
    for name in groups:
        if any(True for _one in _metrics(results[name])):
            below |= _all_below(name, groups)
    main = {name: _main(metrics) for name, metrics in shares.items() if metrics}
    samples, scores = [], []
    for name, metric in main.items():
        rows = found["samples"][name]
        for row in rows:
            if row["filter"] == rows[0]["filter"] and metric in row:
                samples.append((name, row))
                scores.append(float(row[metric]))
    known = {metric for metrics in shares.values() for metric in metrics}
    asked: Parts = {}
    parts: Parts = {}
    others: Parts = {}
    for name, values in results.items():
        for metric, which, number in _metrics(values):
            is_share = metric in (known if name in groups else shares[name])
            title = f"{name} ({metric})" if which == "none" else f"{name} ({metric}, {which})"
            kind = others if not is_share else parts if name in below else asked
            kind[title] = _clipped(number) if is_share else number
    counts = found["n-samples"]
    return Tasked(
        asked,
        parts,
        others,
        np.array(scores, dtype=np.float64),
        samples,
        main,
        {name: (one["effective"], one["original"]) for name, one in counts.items()},
        {name: int(found["n-shot"].get(name) or 0) for name in counts},
    )


def _all_below(name: str, groups: Mapping[str, Sequence[str]]) -> set[str]:
    found = set(groups.get(name, ()))
    return found.union(*(_all_below(one, groups) for one in groups.get(name, ())))


def _metrics(values: Mapping[str, Any]) -> Iterator[tuple[str, str, Estimate]]:
    """(metric, filter, its number with the interval of its standard error)."""
    for key, value in values.items():
        metric, comma, which = key.partition(",")
        if not comma or metric.endswith("_stderr") or not _is_number(value):
            continue
        error = values.get(f"{metric}_stderr,{which}")
        # With every answer right, or none, the formula gives no error at all.
        half = _Z * float(error) if _is_number(error) and error else None
        ends = (None, None) if half is None else (float(value) - half, float(value) + half)
        yield metric, which, Estimate(float(value), *ends)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and math.isfinite(value)


def _clipped(number: Estimate) -> Estimate:
    if number.low is None or number.high is None:
        return number
    return Estimate(number.value, max(0.0, number.low), min(1.0, number.high))


def _shares(samples: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, list[str]]:
    """Of each task the metrics that say of each question how right its answer is, from 0 to 1."""
    found: dict[str, list[str]] = {}
    for name, rows in samples.items():
        values: dict[str, list[Any]] = {}
        for row in rows:
            for metric in row["metrics"]:
                values.setdefault(metric, []).append(row[metric])
        found[name] = [
            metric
            for metric, given in values.items()
            if all(_is_number(one) and 0 <= one <= 1 for one in given)
        ]
    return found


def _main(metrics: Sequence[str]) -> str:
    return next((name for name in _FIRST if name in metrics), metrics[0])


def _choices(sample: Mapping[str, Any]) -> list[str]:
    """The choices of a question, of one that asks for the more probable text the texts."""
    continued = [str(one[1]) for one in sample["arguments"]]
    if len(set(continued)) < len(continued):
        continued = [str(one[0]) for one in sample["arguments"]]
    return [one.strip() for one in continued]


def _is_choice(sample: Mapping[str, Any]) -> bool:
    return len(sample["arguments"]) > 1 and isinstance(sample["filtered_resps"][0], tuple | list)


def _expected(sample: Mapping[str, Any]) -> str:
    target = sample["target"]
    if _is_choice(sample):
        choices = _choices(sample)
        if isinstance(target, int) and 0 <= target < len(choices):
            return choices[target]
    return str(target[0] if isinstance(target, list) and target else target).strip()


def _given(sample: Mapping[str, Any], metric: str) -> str:
    """What a model answered: its text, the choice that it finds most probable, or the words that it
    was to go on with, if it would have."""
    said = sample["filtered_resps"]
    if _is_choice(sample):
        choices = _choices(sample)
        lengths = [max(1, len(one)) if metric == "acc_norm" else 1 for one in choices]
        sums = [float(one[0]) / size for one, size in zip(said, lengths, strict=True)]
        return choices[int(np.argmax(sums))]
    first = said[0]
    if isinstance(first, tuple | list) and len(first) == 2 and isinstance(first[1], bool):
        return str(sample["arguments"][0][1]).strip() if first[1] else ""
    return str(first[0] if isinstance(first, list | tuple) and first else first).strip()
