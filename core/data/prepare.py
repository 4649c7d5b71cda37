"""Files to a prepared data set: read, convert, drop what cannot be learned from, split, write.

All of it happens in a folder beside the data sets, which is renamed into place at the end:
a data set is there as a whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.data.build import Said, build_version, free_ids, publish, scratch
from core.data.conversion import convert_all, unused_turn_keys
from core.data.detection import Detection, columns_of
from core.data.forms import FORMS, meta_of, used_columns
from core.data.inspection import choose_together, read_heads, rows_of
from core.data.read.files import read_records
from core.data.read.row import Record, Row
from core.data.read.sources import Gathered, Source, gather
from core.data.read.text import opened
from core.data.record import (
    IMPORTED,
    LISTED_DROPS,
    SAMPLE_ID,
    Counts,
    DatasetInfo,
    DroppedRow,
    Part,
    SourceFile,
    read_record,
)
from core.data.record import Split as SplitRecord
from core.data.rowfile import META, RowWriter
from core.data.steps import with_step
from core.data.steps.base import Step
from core.data.steps.split import Split
from core.data.trees import chained
from core.data.turn_keys import note_keys
from core.data.values import APART, BEHIND, counted, joined
from core.errors import DataError
from core.language import N_, _, n_
from core.progress import Tell
from core.workspace import Workspace

_SAMPLE_FOLDER = Path(__file__).parents[2] / "assets" / "samples" / "support-tickets"
_FETCHED, _FETCHED_TOO = "fetched", "fetched-eval"
_READ_SHARE = 0.75  # of the whole time; the rest is for the steps
_ROWS_A_WORD = 1000
_MOST_COLUMNS = 200


def import_dataset(
    workspace: Workspace,
    sources: Sequence[Source],
    *,
    name: str | None = None,
    form: str | None = None,
    mapping: Mapping[str, str] | None = None,
    eval_source: Source | None = None,
    eval_fraction: float = 0.1,
    test_fraction: float = 0.0,
    seed: int = 42,
    system_prompt: str = "",
    steps: Sequence[Step] = (),
    progress: Tell | None = None,
    task: dict[str, Any] | None = None,
) -> DatasetInfo:
    """Imports files as one data set and returns its record.

    A source is a file, a folder, an archive or a Hub data set (see `core.data.read.sources`).
    `form` is a name in `forms.FORMS` (detected if None); `mapping` gives for its fields a column
    or a template. `steps` are done to the rows; without a split among them, `eval_fraction` and
    `test_fraction` of the rows are held out by `seed`, at least one if there are two.
    `eval_source` holds the held-out rows instead. `system_prompt` goes before each conversation
    without one. `progress` gets (fraction, message) and may raise to stop the import. Raises
    DataError, or WorkspaceError for a path that may not be read; then nothing is left behind.
    """
    if not sources:
        raise DataError(_("No file was given."), _("Choose at least one."))
    for what, share in (("eval", eval_fraction), ("test", test_fraction)):
        if not 0 <= share < 1:
            raise DataError(
                _("A {what} fraction of {share} is not possible.", what=what, share=share),
                _("Give a number from 0 to below 1, such as 0.1."),
            )
    planned = list(steps)
    if not any(step.op == "split" for step in planned) and (eval_fraction or test_fraction):
        share = 0.0 if eval_source else eval_fraction
        if share or test_fraction:
            split = Split(eval_fraction=share, test_fraction=test_fraction, seed=seed)
            planned = with_step(planned, split)
    with scratch(workspace) as folder:
        said = Said(progress)
        gathered = gather(workspace, sources, folder / _FETCHED, said.part(0.0, 0.1))
        held_out = (
            gather(workspace, [eval_source], folder / _FETCHED_TOO, None) if eval_source else []
        )
        found = choose_together(read_heads(gathered, mapping=mapping), form, mapping)
        standard = FORMS[found.form or ""].standard
        _check_system_prompt(system_prompt, standard)
        title = (name or _name_of(gathered[0])).strip() or "data"
        info = DatasetInfo(
            id="",
            name=title,
            form=standard,
            split=SplitRecord(seed=seed, eval_source=held_out[0].name if held_out else None),
            system_prompt=system_prompt,
            task=task,
        )
        work = _Import(workspace, folder, info, found, gathered, held_out, planned, said)
        return work.run(free_ids(title))


def _name_of(source: Gathered) -> str:
    """What a data set is called after the first thing it came from: a file without its endings,
    or the folder or archive that holds it."""
    first, _end, rest = source.name.partition("/")
    if "hub" in source.origin:  # owner/name on the Hub
        return rest
    if rest:
        return first.removesuffix(".zip")
    return Path(first.removesuffix(".gz")).stem


def _check_system_prompt(system_prompt: str, standard: str) -> None:
    if system_prompt.strip() and standard in ("text", "labelled-text"):
        raise DataError(
            _("Plain text has no place for a system prompt."),
            _("Leave the system prompt empty, or choose a form with turns."),
        )


def ensure_sample(workspace: Workspace) -> DatasetInfo:
    """The sample data set, imported from the project's assets on first need."""
    place = workspace.dataset(SAMPLE_ID)
    if (place / "dataset.json").is_file():
        return read_record(place)
    train, held_out = _SAMPLE_FOLDER / "train.jsonl", _SAMPLE_FOLDER / "eval.jsonl"
    try:
        task = json.loads((_SAMPLE_FOLDER / "task.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            _("The sample data set is missing or damaged (assets/samples/support-tickets)."),
            _("Get the project's assets folder again."),
        ) from error
    found = choose_together(read_heads([Gathered(train, train.name)]))
    info = DatasetInfo(
        id="",
        name=N_(task["title"]),
        description=N_(task["description"]),
        form=FORMS[found.form or ""].standard,
        split=SplitRecord(eval_source=held_out.name),
        task=task,
    )
    try:
        with scratch(workspace) as folder:
            sources = [Gathered(train, train.name)], [Gathered(held_out, held_out.name)]
            work = _Import(workspace, folder, info, found, *sources, [], Said(None))
            return work.run([SAMPLE_ID])
    except DataError:
        # Somebody else may have imported it at the same moment.
        if (place / "dataset.json").is_file():
            return read_record(place)
        raise


@dataclass
class _Several:
    """Rows with several answers, the pairs they became, and those that repeated another."""

    rows: int = 0
    pairs: int = 0
    repeated: int = 0

    def note(self, pairs: int, repeated: int) -> None:
        if pairs + repeated > 1:
            self.rows += 1
            self.pairs += pairs
            self.repeated += repeated


@dataclass
class _Import:
    """One import: what it was asked for, and what it has found so far."""

    workspace: Workspace
    folder: Path
    info: DatasetInfo
    found: Detection
    sources: list[Gathered]
    held_out: list[Gathered]
    steps: list[Step]
    said: Said
    counts: Counts = field(default_factory=Counts)
    reasons: Counter[str] = field(default_factory=Counter)
    columns: dict[str, None] = field(default_factory=dict)
    unused: Counter[str] = field(default_factory=Counter)
    several: _Several = field(default_factory=_Several)

    def run(self, ids: Iterable[str]) -> DatasetInfo:
        """Prepares in its folder and gives it the first free id."""
        ready = self.folder / "ready"
        imported = ready / IMPORTED
        imported.mkdir(parents=True)
        files: dict[Part, Path] = {"train": imported / "train.parquet"}
        self._read(files["train"], "train", self.sources, self.found)
        if self.held_out:
            files["eval"] = imported / "eval.parquet"
            self._read(files["eval"], "eval", self.held_out, self._eval_detection())
        info = self.info
        info.form_reason, info.mapping = self.found.reason, dict(self.found.mapping)
        info.source_form = self.found.form or ""
        info.warnings = [*self.found.warnings, *self._about_pairs()]
        info.counts = self.counts
        info.columns = list(self.columns)
        info.unused_keys = dict(self.unused.most_common())
        info.version = 1
        steps = list(map(_kept_together, self.steps)) if self.several.rows else self.steps
        build_version(self.workspace, info, files, steps, ready, self.said.part(_READ_SHARE, 0.99))
        info.remember(_("Imported"))
        return publish(self.workspace, info, ready, ids, self.said)

    def _eval_detection(self) -> Detection:
        """How to read the eval file: as the train file, or in its own way to the same form."""
        heads = read_heads(self.held_out, mapping=self.found.mapping)
        form = FORMS[self.found.form or ""]
        columns = columns_of(rows_of(heads))
        required = {name: self.found.mapping[name] for name in form.required}
        if used_columns(required, columns) <= set(columns):
            return self.found
        own = choose_together(heads)
        if FORMS[own.form or ""].standard != self.info.form:
            raise DataError(
                _(
                    "{name} holds {form} rows, the training file {other_form}.",
                    name=self.held_out[0].name,
                    form=own.form,
                    other_form=form.name,
                ),
                _("Bring both in the same form."),
            )
        return own

    def _read(self, target: Path, part: Part, sources: list[Gathered], found: Detection) -> None:
        total = max(sum(one.path.stat().st_size for one in (*self.sources, *self.held_out)), 1)
        before = 0 if part == "train" else total - sum(one.path.stat().st_size for one in sources)
        say = self.said.part(0.1, _READ_SHARE)
        with RowWriter(target, self.info.form) as writer:
            for source in sources:
                size, read = source.path.stat().st_size, 0
                message = _("Reading {name}", name=source.name)
                for record in chained(read_records(source.path), found.mapping):
                    read += 1
                    if record.row is None:
                        self._drop(record.line, part, record.problem, source.name)
                    else:
                        for made in self._made(record, part, source.name, found):
                            writer.add(made)
                    if read % _ROWS_A_WORD == 0:
                        say((before + record.done * size) / total, message)
                before += size
                say(before / total, message)
                self.counts.read += read
                self.info.sources.append(
                    SourceFile(
                        file=source.name,
                        sha256=_sha256(source.path),
                        rows=read,
                        origin=dict(source.origin),
                    )
                )
        self._require_rows(writer.count, sources)

    def _made(self, record: Record, part: Part, file: str, found: Detection) -> list[Row]:
        """The standard rows of a raw one; what cannot be used of it is dropped, and counted."""
        row, mapping = record.row or {}, found.mapping
        rows, reasons, repeated = convert_all(
            row, found.form or "", mapping, self.info.system_prompt
        )
        for reason in reasons:
            self._drop(record.line, part, reason, file)
        self.several.note(len(rows) + len(reasons), repeated)
        if rows:
            note_keys(self.unused, unused_turn_keys(row, mapping))
        meta = meta_of(row, mapping) if rows else {}
        if meta:
            self._note_columns(meta)
            for made in rows:
                made[META] = meta
        return rows

    def _about_pairs(self) -> list[str]:
        """What became of rows with several answers."""
        one = self.several
        self.counts.read += one.pairs - one.rows
        if not one.rows:
            return []
        pairs = n_("{n:,} pair", "{n:,} pairs", one.pairs)
        told = n_(
            "{n:,} row holds several better or worse answers and became {pairs}, each better "
            "answer with each worse one.",
            "{n:,} rows hold several better or worse answers and became {pairs}, each better "
            "answer with each worse one.",
            one.rows,
            pairs=pairs,
        )
        if not one.repeated:
            return [told]
        left = n_(
            "{n:,} pair that repeats another was left out.",
            "{n:,} pairs that repeat another were left out.",
            one.repeated,
        )
        return [joined(BEHIND, [told, left])]

    def _note_columns(self, meta: Mapping[str, Any]) -> None:
        if len(self.columns) < _MOST_COLUMNS:
            self.columns.update(dict.fromkeys(meta))

    def _drop(self, line: int, part: Part, reason: str, file: str) -> None:
        self.counts.dropped += 1
        if reason in self.reasons or len(self.reasons) < LISTED_DROPS:
            self.reasons[reason] += 1
        if len(self.info.dropped) < LISTED_DROPS:
            self.info.dropped.append(DroppedRow(line=line, part=part, reason=reason, file=file))

    def _require_rows(self, count: int, sources: list[Gathered]) -> None:
        if count:
            return
        names = ", ".join(one.name for one in sources)
        common = [counted(reason, n) for reason, n in self.reasons.most_common(3)]
        raise DataError(
            _(
                "No row of {names} can be learned from: {reasons}.",
                names=names,
                reasons=joined(APART, common),
            ),
            _("Choose another form or other columns, or mend the file."),
        )


def _kept_together(step: Step) -> Step:
    """A split that does not hold a pair out whose prompt is learned from another one."""
    if isinstance(step, Split) and not step.group_by:
        return step.model_copy(update={"group_by": "prompt"})
    return step


def _sha256(path: Path) -> str:
    with opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
