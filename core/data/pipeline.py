"""Steps over rows on disk: passes, decisions, and what each step did.

Steps that look at one row at a time share a pass: rows are read, go through all of them and are
written once. A step that must have seen all rows ends its pass; what it decides is then done to
the file in whole tables, without looking into rows. Memory holds a group of rows and small keys.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from core.data.read.row import Row
from core.data.record import LISTED_DROPS, PARTS, Part, StepChange, StepDrop, StepResult
from core.data.rowfile import RowWriter, TableWriter, count_rows, iter_rows, reorder, tables
from core.data.rowtext import row_text
from core.data.steps.base import Decision, RowWork, Setting, Step, Unusable, WholeWork
from core.data.values import APART, BOTH, counted, joined
from core.errors import DataError
from core.language import N_, Text, _
from core.progress import Tell

Files = dict[Part, Path]

_SHOWN_CHANGES = 20
_SHOWN_CHARS = 240
_KINDS_OF_REASONS = 50
_REASON_CHARS = 300
# So many rows are tried before the progress is told again.
_TRIED_AT_ONCE = 200
_NUMBERS = re.compile(r"\d+(?:[.,]\d+)*")
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"|\([^()]*\)")
_LEFTOVER = N_("other reasons")
# Of a pass that ends in a decision, reading the rows takes about so much.
_READ_SHARE = 0.8


@dataclass
class Watched:
    """A step at work, and the tally of what it does."""

    step: Step
    work: RowWork | WholeWork
    result: StepResult
    listed: int = LISTED_DROPS
    _places: Counter[Part] = field(default_factory=Counter)

    @classmethod
    def begin(cls, step: Step, setting: Setting) -> Watched:
        """Raises DataError when the step does not fit the data."""
        if step.forms and setting.form not in step.forms:
            raise DataError(
                _(
                    "The step {op} is for {forms}; this data set is {form}.",
                    op=step.op,
                    forms=joined(BOTH, step.forms),
                    form=setting.form,
                ),
                _("Leave the step out, or import the files in another form."),
            )
        return cls(step, step.start(setting), StepResult(step=step.spec(), title=step.title))

    def feed(self, rows: Sequence[Row]) -> list[Row]:
        """What a step that looks at single rows makes of these, which are of one part."""
        work = self.work
        assert isinstance(work, RowWork)
        out: list[Row] = []
        for row in rows:
            part: Part = row["part"]
            index = self._places[part]
            self._places[part] += 1
            try:
                made = list(work.feed(row))
            except Unusable as error:
                self.drop(part, index, error.reason, row)
                continue
            if len(made) == 1 and made[0] is not row:
                self._change(part, index, row, made[0])
            out += made
        self.result.rows_in += len(rows)
        self.result.rows_out += len(out)
        return out

    def finish(self) -> list[Row]:
        assert isinstance(self.work, RowWork)
        out = list(self.work.finish())
        self.result.rows_out += len(out)
        return out

    def drop(self, part: Part, index: int, reason: str, row: Row | None) -> None:
        result = self.result
        result.dropped += 1
        reason = reason if len(reason) <= _REASON_CHARS else reason[:_REASON_CHARS]
        kind = _kind(reason)
        if kind not in result.reasons and len(result.reasons) >= _KINDS_OF_REASONS:
            kind = _LEFTOVER
        result.reasons[kind] = result.reasons.get(kind, 0) + 1
        if len(result.listed) < self.listed:
            text = row_text(row)[:_SHOWN_CHARS] if row else ""
            result.listed.append(StepDrop(part=part, index=index, reason=reason, text=text))

    def _change(self, part: Part, index: int, before: Row, after: Row) -> None:
        self.result.changed += 1
        if len(self.result.shown) < _SHOWN_CHANGES:
            old, new = _shown(before), _shown(after)
            if old != new:
                self.result.shown.append(
                    StepChange(part=part, index=index, before=old[:500], after=new[:500])
                )


def _kind(reason: Any) -> Any:
    """A reason without what differs from row to row: its numbers, and what stands in quotes."""
    if isinstance(reason, Text):
        values = {name: _kind(value) for name, value in reason.values.items()}
        with suppress(ValueError):  # of a number that is to be written in some way
            return Text(reason.template, reason.many, reason.n, values, None)
    return _NUMBERS.sub("N", _QUOTED.sub("...", str(reason)))


def _shown(row: Row) -> str:
    labels = row.get("labels")
    return (f"[{', '.join(labels)}] " if labels else "") + row_text(row)


@dataclass
class Pipeline:
    """Runs steps over the files of a data set's parts. `scratch` is a folder of its own."""

    form: str
    steps: Sequence[Step]
    setting: Setting
    scratch: Path
    progress: Tell | None = None
    results: list[StepResult] = field(default_factory=list)
    _pass: int = 0
    _passes: int = 1
    _span: tuple[float, float] = (0.0, 1.0)
    """Which share of its pass is at work."""

    def run(self, files: Mapping[Part, Path]) -> Files:
        """The files of each part after all steps; those of `files` stay as they are.

        Raises DataError when a step does not fit or leaves no row to learn from.
        """
        groups = list(_passes(self.steps))
        self._passes = max(len(groups), 1)
        current: Files = dict(files)
        for self._pass, group in enumerate(groups):
            watched = [Watched.begin(step, self.setting) for step in group]
            current = self._through(current, watched)
            self.results += [one.result for one in watched]
            if "train" not in current:
                raise _nothing_left(max(watched, key=lambda one: one.result.dropped).result)
        return current

    def _through(self, current: Files, watched: list[Watched]) -> Files:
        rows = [one for one in watched if isinstance(one.work, RowWork)]
        whole = next((one for one in watched if isinstance(one.work, WholeWork)), None)
        self._span = (0.0, _READ_SHARE if whole else 1.0)
        if rows:
            current = self._rewritten(current, rows, whole)
        elif whole:
            self._note_all(current, whole)
        if not whole:
            return current
        assert isinstance(whole.work, WholeWork)
        self._span = (_READ_SHARE, 1.0)
        self._say(0.0, whole.step.title)
        return self._decided(current, whole, whole.work.decide())

    def _rewritten(self, current: Files, rows: list[Watched], whole: Watched | None) -> Files:
        """One pass through all steps that look at single rows; the last one takes notes."""
        made: Files = {}
        total = max(sum(count_rows(path) for path in current.values()), 1)
        done = 0
        for part in PARTS:
            if part not in current:
                continue
            path = self.scratch / f"pass-{self._pass}-{part}.parquet"
            with RowWriter(path, self.form) as writer:
                for batch in iter_rows(current[part]):
                    done += len(batch)
                    out = [_with_part(row, part) for row in batch]
                    for one in rows:
                        out = one.feed(out)
                    _write(out, writer, whole)
                    self._say(done / total, rows[-1].step.title)
                for number, one in enumerate(rows):
                    out = one.finish()
                    for later in rows[number + 1 :]:
                        out = later.feed(out)
                    _write(out, writer, whole)
            if writer.count:
                made[part] = path
        return made

    def _note_all(self, current: Files, whole: Watched) -> None:
        work = whole.work
        assert isinstance(work, WholeWork)
        counts = {part: count_rows(current[part]) for part in PARTS if part in current}
        total, done = max(sum(counts.values()), 1), 0
        for part, count in counts.items():
            if work.columns == ():
                for _row in range(count):
                    work.note({"part": part})
                continue
            for batch in iter_rows(current[part], columns=work.columns):
                for row in batch:
                    work.note(_with_part(row, part))
                done += len(batch)
                self._say(done / total, whole.step.title)

    def _decided(self, current: Files, whole: Watched, decision: Decision) -> Files:
        """The files as a decision wants them, table by table."""
        title = whole.step.title
        total = sum(count_rows(path) for path in current.values())
        writers = {
            part: TableWriter(self.scratch / f"decided-{self._pass}-{part}.parquet")
            for part in PARTS
        }
        start = 0
        kept_places: dict[Part, list[int]] = {part: [] for part in PARTS}
        try:
            for part in (part for part in PARTS if part in current):
                first = start
                for table in tables(current[part]):
                    self._note_drops(whole, decision, table, part, start, first)
                    targets = _targets(decision, part, start, len(table))
                    start += len(table)
                    for target in PARTS:
                        keep = [name == target for name in targets]
                        if any(keep):
                            writers[target].add(table.filter(pa.array(keep, pa.bool_())))
                        if decision.order is not None:
                            base = start - len(table)
                            kept_places[target] += [base + i for i, k in enumerate(keep) if k]
                    self._say(start / max(total, 1), title)
        finally:
            for writer in writers.values():
                writer.close()
        whole.result.rows_in = total
        whole.result.remark = decision.remark
        whole.result.rows_out = sum(writer.count for writer in writers.values())
        if decision.parts is not None:
            whole.result.parts = {part: writer.count for part, writer in writers.items()}
        made: Files = {
            part: self.scratch / f"decided-{self._pass}-{part}.parquet"
            for part, writer in writers.items()
            if writer.count
        }
        return made if decision.order is None else self._ordered(made, decision, kept_places)

    def _note_drops(
        self, whole: Watched, decision: Decision, table: Any, part: Part, start: int, first: int
    ) -> None:
        if not decision.drop:
            return
        here = [i for i in range(start, start + len(table)) if i in decision.drop]
        room = max(whole.listed - len(whole.result.listed), 0)
        read = _rows_of(table, [i - start for i in here[:room]])
        for index in here:
            whole.drop(part, index - first, decision.drop[index], next(read, None))

    def _ordered(self, made: Files, decision: Decision, kept: dict[Part, list[int]]) -> Files:
        wanted = np.asarray(decision.order, np.int64)
        rank = np.empty(len(wanted), np.int64)
        rank[wanted] = np.arange(len(wanted))
        for part, path in made.items():
            order = np.argsort(rank[np.asarray(kept[part], np.int64)])
            target = path.with_name(f"ordered-{self._pass}-{part}.parquet")
            reorder(path, order, target)
            made[part] = target
        return made

    def _say(self, fraction: float, message: str) -> None:
        if self.progress:
            begin, end = self._span
            share = begin + (end - begin) * min(fraction, 1.0)
            self.progress((self._pass + share) / self._passes, message)


def _nothing_left(result: StepResult) -> DataError:
    common = sorted(result.reasons.items(), key=lambda item: -item[1])[:3]
    reasons = joined(APART, [counted(reason, count) for reason, count in common])
    told = _("After the step {title} no row is left to learn from.", title=result.title)
    if reasons:
        told = _(
            "After the step {title} no row is left to learn from: {reasons}.",
            title=result.title,
            reasons=reasons,
        )
    return DataError(told, _("Change its settings or leave it out."))


def try_steps(
    form: str,
    steps: Sequence[Step],
    setting: Setting,
    files: Mapping[Part, Path],
    rows: int,
    progress: Tell | None = None,
) -> list[StepResult]:
    """What steps would do to the first `rows` rows of each part; nothing is written."""
    watched = [Watched.begin(step, setting) for step in steps]
    batches = {
        part: [_with_part(row, part) for row in islice(_single(files[part]), rows)]
        for part in PARTS
        if part in files
    }
    for place, one in enumerate(watched):
        total, done = max(sum(map(len, batches.values())), 1), 0
        made: dict[Part, list[Row]] = {part: [] for part in batches}
        for part, batch in batches.items():
            for start in range(0, len(batch), _TRIED_AT_ONCE):
                if progress:
                    progress((place + (start + done) / total) / len(watched), one.step.title)
                made[part] += _looked_at(one, batch[start : start + _TRIED_AT_ONCE])
            done += len(batch)
            made[part] += one.finish() if isinstance(one.work, RowWork) else []
        if isinstance(one.work, WholeWork):
            flat = [row for batch in made.values() for row in batch]
            made = _tried(one, flat, one.work.decide())
        batches = made
    return [one.result for one in watched]


def _looked_at(one: Watched, rows: list[Row]) -> list[Row]:
    """Rows after a step that looks at each, or noted by one that must see them all."""
    if isinstance(one.work, RowWork):
        return one.feed(rows)
    for row in rows:
        one.work.note(row)
    return rows


def _tried(one: Watched, flat: list[Row], decision: Decision) -> dict[Part, list[Row]]:
    """A decision over rows in memory."""
    kept: dict[Part, list[Row]] = {}
    places: Counter[Part] = Counter()
    order = decision.order if decision.order is not None else range(len(flat))
    for index, row in enumerate(flat):
        if index in decision.drop:
            one.drop(row["part"], places[row["part"]], decision.drop[index], row)
        places[row["part"]] += 1
    for index in order:
        if index not in decision.drop:
            row = flat[index]
            part: Any = decision.parts[index] if decision.parts is not None else row["part"]
            kept.setdefault(part, []).append({**row, "part": part})
    one.result.rows_in = len(flat)
    one.result.remark = decision.remark
    one.result.rows_out = sum(map(len, kept.values()))
    if decision.parts is not None:
        one.result.parts = {part: len(kept.get(part, ())) for part in PARTS}
    return {part: kept[part] for part in PARTS if part in kept}


def _passes(steps: Sequence[Step]) -> Iterator[list[Step]]:
    """Steps by the pass they share: any number that look at single rows, then at most one that
    must see them all. What a step is shows when it starts, so one that may be either ends its
    pass."""
    group: list[Step] = []
    for step in steps:
        group.append(step)
        if not step.single_rows:
            yield group
            group = []
    if group:
        yield group


def _with_part(row: Row, part: Part) -> Row:
    row["part"] = part
    return row


def _write(rows: Sequence[Row], writer: RowWriter, whole: Watched | None) -> None:
    for row in rows:
        writer.add(row)
        if whole is not None:
            assert isinstance(whole.work, WholeWork)
            whole.work.note(row)


def _targets(decision: Decision, part: Part, start: int, count: int) -> list[str | None]:
    parts = decision.parts
    return [
        None if i in decision.drop else parts[i] if parts is not None else part
        for i in range(start, start + count)
    ]


def _rows_of(table: Any, places: list[int]) -> Iterator[Row]:
    from core.data.rowfile import as_read

    if places:
        yield from (as_read(row) for row in table.take(places).to_pylist())


def _single(path: Path) -> Iterator[Row]:
    for batch in iter_rows(path):
        yield from batch
