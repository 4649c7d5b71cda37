"""The step that says which rows are learned and which are held out."""

from __future__ import annotations

import random
from collections import defaultdict
from typing import ClassVar

from core.config.fields import knob
from core.data.read.row import Row
from core.data.rowtext import value_of
from core.data.steps.base import Decision, Setting, Step, WholeWork
from core.data.steps.labels import group_key
from core.errors import DataError
from core.language import N_, Said, _, n_

_PURPOSES = {
    ("eval",): N_("evaluation"),
    ("test",): N_("a test"),
    ("eval", "test"): N_("evaluation and a test"),
}


class Split(Step):
    """Holds rows out for evaluation while training, and for a test at the end."""

    op = "split"
    title = Said(N_("Split"))
    kind = "shape"
    single_rows: ClassVar[bool] = False

    eval_fraction: float = knob(0.1, "Share held out for evaluation", level="basic", ge=0, lt=1)
    """Never trained on: it shows when the model stops learning and starts memorising."""

    test_fraction: float = knob(0.0, "Share held out for a test", level="basic", ge=0, lt=1)
    """Rows that nothing looks at until the end. 0 makes no test part."""

    stratify: bool = knob(False, "Same mix of labels in each part", level="basic")
    """Each part gets its share of every label, so that rare ones are not missed."""

    group_by: str = knob("", "Keep together by column", level="basic")
    """Rows with the same value, such as one customer or document, land in one part, so that
    evaluation does not see what was learned."""

    seed: int = knob(42, "Seed", ge=0)
    """The same rows and seed give the same parts."""

    def start(self, setting: Setting) -> WholeWork:
        if self.eval_fraction + self.test_fraction >= 1:
            raise DataError(
                _("Nothing is left to learn: both shares together are 1 or more."), _("Lower one.")
            )
        if self.stratify and setting.form != "labelled-text":
            raise DataError(
                _("Only labelled text has labels to keep the mix of."),
                _("Switch `same mix of labels` off, or group by a column."),
            )
        if self.group_by and self.group_by not in setting.columns:
            raise DataError(
                _("There is no column {column}.", column=self.group_by),
                _("There are {columns}.", columns=", ".join(setting.columns)),
            )
        return _Parts(self)


class _Parts(WholeWork):
    def __init__(self, step: Split) -> None:
        self._step = step
        # Without labels or groups there is nothing to read of a row.
        self.columns = None if step.stratify or step.group_by else ()
        self._keys: dict[tuple[str, str], list[int]] = defaultdict(list)
        self._parts: list[str] = []

    def note(self, row: Row) -> None:
        if row["part"] == "train":
            label = group_key(value_of(row, "label")) if self._step.stratify else ""
            group = group_key(value_of(row, self._step.group_by)) if self._step.group_by else ""
            self._keys[label, group].append(len(self._parts))
        self._parts.append(row["part"])

    def decide(self) -> Decision:
        chance = random.Random(self._step.seed)
        if self._step.group_by:
            groups: dict[str, list[int]] = defaultdict(list)
            for (_, group), places in self._keys.items():
                groups[group] += places
            units = list(groups.values())
            chance.shuffle(units)
            total = sum(map(len, units))
            for part, fraction in self._shares():
                units = self._take(units, part, _wanted(total, fraction))
            return Decision(parts=self._parts, remark=self._remark(len(groups)))
        for _, places in sorted(self._keys.items()):
            chance.shuffle(places)
            start = 0
            for part, fraction in self._shares():
                end = start + _wanted(len(places), fraction)
                for place in places[start : min(end, len(places) - 1)]:
                    self._parts[place] = part
                start = end
        return Decision(parts=self._parts, remark=self._remark())

    def _remark(self, groups: int = 0) -> str:
        """Which part was asked for and has got no row, and why."""
        empty = tuple(part for part, share in self._shares() if share and part not in self._parts)
        if not empty:
            return ""
        if groups:
            why = n_(
                "{column} has only one value, and rows with the same one stay together",
                "{column} has only {n} values, and rows with the same one stay together",
                groups,
                column=self._step.group_by,
            )
        elif self._step.stratify:
            why = _("every label has too few rows")
        else:
            why = _("there are too few rows")
        purpose = _PURPOSES[empty]
        return _("Nothing was held out for {purpose}: {why}.", purpose=purpose, why=why)

    def _shares(self) -> tuple[tuple[str, float], ...]:
        return ("eval", self._step.eval_fraction), ("test", self._step.test_fraction)

    def _take(self, units: list[list[int]], part: str, wanted: int) -> list[list[int]]:
        """Moves whole units to a part as long as they fit, at least one if there are two; gives
        the units that stay."""
        stay: list[list[int]] = []
        taken = 0
        for unit in units:
            if taken + len(unit) <= wanted:
                taken += self._move(unit, part)
            else:
                stay.append(unit)
        if wanted and not taken and len(stay) > 1:
            smallest = min(stay, key=len)
            stay.remove(smallest)
            self._move(smallest, part)
        return stay

    def _move(self, unit: list[int], part: str) -> int:
        for place in unit:
            self._parts[place] = part
        return len(unit)


def _wanted(total: int, fraction: float) -> int:
    """round(total * fraction), at least one row of two."""
    if fraction <= 0 or total < 2:
        return 0
    return min(max(round(total * fraction), 1), total - 1)


STEPS: tuple[type[Step], ...] = (Split,)
