"""An evaluation's report as it is stored: numbers and keys, of which sentences are made when it is
shown. And the evaluations of a run, as their folders tell."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, PlainSerializer, ValidationError, model_validator

from core.evaluation.intervals import Estimate
from core.evaluation.label_curves import Bin, LabelCurves
from core.evaluation.metrics import Numbers, Parts
from core.evaluation.scoring import FieldRule
from core.jobs.job import read_record
from core.jobs.task import read_result
from core.language import pack
from core.methods import METHODS
from core.sentence import Sentence
from core.workspace import RunFolder

log = logging.getLogger(__name__)

VERSION = 1
# Beside result.json: what each row, and each general prompt, was answered; what the judge said.
ANSWERS, GENERAL, JUDGED = "answers.jsonl", "general.jsonl", "judged.jsonl"

Kind = Literal["answers", "texts", "labels", "pairs", "rewards", "questions", "tasks"]
"""What was measured: answers and their loss, how well texts are known, labels, the order of pairs,
the rewards of answers, the questions of a benchmark, or tasks of lm-eval."""


# Numbers without which a report of this kind says nothing.
_NEEDED: dict[Kind, tuple[str, ...]] = {
    "answers": ("eval_loss",),
    "texts": ("eval_loss", "perplexity"),
    "labels": ("accuracy", "f1_macro"),
    "pairs": ("pair_accuracy", "margin"),
    "rewards": ("reward",),
    "questions": ("acc_norm",),
    "tasks": (),
}


def kind_of(method: str) -> Kind:
    """What is measured of a model that learned by this method."""
    known = METHODS.get(method)
    if known is None:
        return "answers"
    if known.has_head:
        return "labels" if known.makes == "classifier" else "pairs"
    if known.generates:
        return "rewards"
    return "texts" if known.section == "text" else "answers"


def asked_kind(params: Mapping[str, Any]) -> Kind | None:
    """What an evaluation was asked to measure in place of what the run's method is measured by."""
    if params.get("benchmark"):
        return "questions"
    return "tasks" if params.get("tasks") else None


def has_base(kind: Kind) -> bool:
    """Whether the model can be compared with its base; one with a new head cannot, for the base's
    would be drawn at random."""
    return kind not in ("labels", "pairs")


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore")


class Note(_Part):
    """Something that a reader of the numbers must know: the key of its sentence in
    `core.evaluation.verdict`, and the values in it."""

    key: str
    values: Annotated[dict[str, Any], PlainSerializer(pack, when_used="json")] = {}


def note(key: str, **values: Any) -> Note:
    return Note(key=key, values=values)


class DatasetName(_Part):
    id: str = ""
    name: str = ""
    fingerprint: str = ""


class Settings(_Part):
    """How it was measured. `max_new_tokens` is 0 where no answer was asked for."""

    device: str = ""
    dtype: str = ""
    quantization: str = "none"
    max_new_tokens: int = 0
    max_length: int | None = None


class Row(_Part):
    """A row that is shown: the answers of both models, and how good they are.

    `index` is its place in its part of the data set. Of a pair, `expected` is the better answer and
    `tuned` the worse one, each behind its score.
    """

    index: int
    prompt: list[dict[str, Any]] | None = None
    expected: Sentence | None = None
    base: str | None = None
    tuned: Sentence | None = None
    base_fields_right: list[str] | None = None
    tuned_fields_right: list[str] | None = None
    base_score: float | None = None
    tuned_score: float | None = None
    base_reward: float | None = None
    tuned_reward: float | None = None
    sureness: float | None = None


class LabelNumbers(_Part):
    """How one label was given. `rows` have it, `given` were given it."""

    label: str
    precision: float
    recall: float
    f1: float
    rows: int
    given: int


class Speed(_Part):
    """How fast a classifier is: seconds for one text alone, after a warm-up, and texts a second in
    batches and one by one."""

    mean: float
    p50: float
    p95: float
    p99: float
    batched: float
    alone: float


class Usual(_Part):
    """What always giving the most frequent label would get, or with several those of most rows."""

    labels: list[str]
    accuracy: float
    f1_macro: float


class Compared(_Part):
    """How the tuned model did beside another one, row by row (`core.evaluation.paired`)."""

    wins: int
    losses: int
    ties: int
    p_value: float
    needed: int | None = None


class Other(_Part):
    """Another model that answered the same rows. `target` is how it was asked for; `difference`
    is tuned minus this one."""

    target: str
    title: Sentence
    numbers: Numbers = {}
    difference: Parts | None = None
    compared: Compared | None = None


class Judged(_Part):
    """What a judge said of the tuned answers beside the other ones (`core.evaluation.judge`).
    `unread` rows have no verdict, the first of them for the reason `why_not`; at `turned` ones it
    went with the order of the answers."""

    model: str
    rubric: str
    wins: int
    losses: int
    ties: int
    unread: int = 0
    why_not: Sentence = ""
    turned: int = 0
    p_value: float


class TaskNumbers(_Part):
    """A task of lm-eval: what its questions are compared by, and how the tuned model did beside its
    base on them."""

    name: str
    metric: str
    rows: int
    compared: Compared | None = None


class Skill(_Part):
    """How many of the general prompts of an area (of `core.evaluation.general`) each model answers
    well."""

    area: str
    language: str
    prompts: int
    base: int | None = None
    tuned: int


class KnownText(_Part):
    """The beginning of a text, and how many choices each model wavers between at its tokens."""

    index: int
    text: str
    tokens: int
    base: float | None = None
    tuned: float


class Report(_Part):
    """One evaluation: numbers of the tuned model and of its base, and the rows that tell most.

    Each number is an Estimate under the key of its metric, or one for each part. `difference` is
    tuned minus base on the same rows.
    """

    version: int = VERSION
    measured: Kind = "answers"
    method: str = ""
    rows: int
    part: str = "eval"
    checkpoint: str = "final"
    model: str = ""
    dataset: DatasetName = DatasetName()
    tokens: int = 0
    rules: list[FieldRule] = []
    base: Numbers | None = None
    tuned: Numbers
    difference: Parts | None = None
    compared: Compared | None = None
    others: list[Other] = []
    general: list[Skill] = []
    tasks: list[TaskNumbers] = []
    judged: Judged | None = None
    notes: list[Note | str] = []
    differences: list[Row] = []
    settings: Settings = Settings()
    seconds: float | None = None
    # Of a classifier.
    labels: list[str] = []
    majority: Usual | None = None
    by_label: list[LabelNumbers] = []
    confusion: list[list[int]] | None = None
    calibration: list[Bin] = []
    curves: LabelCurves | None = None
    speed: Speed | None = None
    # Of a reward model: the share of pairs whose better answer is the longer one.
    longer_is_right: float | None = None
    # Of a model that read or filled texts: those that it knows least.
    texts: list[KnownText] = []

    @model_validator(mode="before")
    @classmethod
    def _before_versions(cls, values: Any) -> Any:
        """Reports had neither version nor kind at first, and their sentences were stored: the
        verdict is made anew, and notes are shown as they were written."""
        if not isinstance(values, dict):
            return values
        if values.get("version", VERSION) > VERSION:
            raise ValueError("a later Tunesmith wrote this report")
        if "measured" in values or "version" in values:
            return values
        return {**values, "version": VERSION, "measured": kind_of(str(values.get("method", "")))}

    @model_validator(mode="after")
    def _has_its_numbers(self) -> Report:
        missing = [key for key in _NEEDED[self.measured] if key not in self.tuned]
        if missing:
            raise ValueError(f"it has no {missing[0]}")
        return self

    def number(self, key: str, side: Literal["tuned", "base"] = "tuned") -> Estimate | None:
        """The number of a metric; None where there is none."""
        found = (getattr(self, side) or {}).get(key)
        return found if isinstance(found, Estimate) else None

    def parts(self, key: str, side: Literal["tuned", "base"] = "tuned") -> Parts:
        """The numbers of a metric of parts; {} where there are none."""
        found = (getattr(self, side) or {}).get(key)
        return found if isinstance(found, dict) else {}


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of a run. `report` is None until it is finished, or where it cannot be read.

    `state` is the job's. Times are seconds since the epoch.
    """

    id: str
    folder: Path
    state: str
    checkpoint: str
    created_at: float
    report: Report | None = None
    params: dict[str, Any] = field(default_factory=dict)


def list_evaluations(run_folder: Path) -> list[Evaluation]:
    """Every evaluation of a run, newest first."""
    folders = sorted(RunFolder(run_folder).evaluations.glob("[!.]*/"))
    found = [load_evaluation(folder) for folder in folders]
    return sorted(found, key=lambda one: one.created_at, reverse=True)


def load_evaluation(folder: Path) -> Evaluation:
    """The evaluation in one folder."""
    record, report = read_record(folder), read_report(folder)
    params = dict(record.get("params") or {})
    return Evaluation(
        id=folder.name,
        folder=folder,
        state=str(record.get("state", "finished" if report else "queued")),
        checkpoint=report.checkpoint if report else str(params.get("checkpoint") or "final"),
        created_at=float(record.get("created_at") or 0.0),
        report=report,
        params=params,
    )


def read_report(folder: Path) -> Report | None:
    """The report that an evaluation left in its folder; None, with a warning in the log where there
    is one that cannot be read."""
    result = read_result(folder)
    if result is None:
        return None
    try:
        return Report.model_validate(result)
    except ValidationError as error:
        first = error.errors()[0]
        log.warning("The report in %s cannot be read: %s", folder, first["msg"])
        return None
