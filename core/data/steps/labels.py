"""Steps for labelled text: other names for labels, and a cap on the rows of each."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, ClassVar

from core.config.fields import knob
from core.data.read.row import Row
from core.data.rowtext import value_of
from core.data.steps.base import Decision, EachRow, RowWork, Setting, Step, Unusable, WholeWork
from core.errors import DataError
from core.language import N_, Said, _

_SHOWN_GROUPS = 3


class RenameLabels(Step):
    """Gives labels other names; several may become one."""

    op = "rename_labels"
    title = Said(N_("Rename labels"))
    kind = "shape"
    forms = ("labelled-text",)

    names: dict[str, str] = knob({}, "New name of each label", level="basic")
    """One on each line, such as computer science: code. Labels with the same new name become
    one. An empty new name drops the rows of a label."""

    others: str = knob("", "Name for all other labels", level="basic")
    """Labels that are not named get this one. Empty keeps them as they are."""

    def start(self, setting: Setting) -> RowWork:
        if not self.names and not self.others.strip():
            raise DataError(_("No label is renamed."), _("Write at least one, such as law: legal."))
        names = {old.strip().lower(): new.strip() for old, new in self.names.items()}
        others = self.others.strip()

        def rename(row: Row) -> Row:
            old = row["labels"]
            new = [names.get(label.strip().lower(), others or label) for label in old]
            kept = list(dict.fromkeys(label for label in new if label))
            if not kept:
                raise Unusable(_("the label {label} is left out", label=", ".join(old)))
            return row if kept == old else {**row, "labels": kept}

        return EachRow(rename)


def alike_labels(labels: Mapping[str, int]) -> list[list[str]]:
    """Labels that differ only in case or in blanks, the most frequent of each group first."""
    groups: dict[str, list[str]] = defaultdict(list)
    for label in sorted(labels, key=lambda one: -labels[one]):
        groups[" ".join(label.split()).casefold()].append(label)
    return [group for group in groups.values() if len(group) > 1]


def merging(labels: Mapping[str, int]) -> RenameLabels | None:
    """The step that makes one label of each group of alike ones, or None where there is none."""
    names = {other: group[0] for group in alike_labels(labels) for other in group[1:]}
    return RenameLabels(names=names) if names else None


def about_alike(labels: Mapping[str, int]) -> str:
    """A remark on alike labels, or nothing."""
    groups = alike_labels(labels)
    if not groups:
        return ""
    shown = "; ".join(
        ", ".join(f"{label!r} ({labels[label]:,})" for label in group)
        for group in groups[:_SHOWN_GROUPS]
    )
    more = len(groups) - _SHOWN_GROUPS
    if more > 0:
        shown = _("{groups}; and {more} more", groups=shown, more=more)
    return _(
        "Labels differ only in case or in blanks: {groups}. Each is learned as a class of its own.",
        groups=shown,
    )


class CapPerClass(Step):
    """Keeps at most so many rows of each class, chosen by chance."""

    op = "cap_per_class"
    title = Said(N_("Cap the rows of each class"))
    kind = "shape"
    single_rows: ClassVar[bool] = False

    most: int = knob(1000, "Most rows of a class", level="basic", ge=1)
    """Evens out classes that have many more rows than others. Nothing is made up for the small
    ones."""

    column: str = knob("label", "Column that says the class", min_length=1)
    """The label, or any other column of the rows."""

    seed: int = knob(42, "Seed", ge=0)
    """The same seed keeps the same rows."""

    def start(self, setting: Setting) -> WholeWork:
        if self.column not in setting.columns:
            raise DataError(
                _("There is no column {column}.", column=self.column),
                _("There are {columns}.", columns=", ".join(setting.columns)),
            )
        return _Cap(self)


class _Cap(WholeWork):
    def __init__(self, step: CapPerClass) -> None:
        self._step = step
        self._places: dict[str, list[int]] = defaultdict(list)
        self._count = 0

    def note(self, row: Row) -> None:
        self._places[group_key(value_of(row, self._step.column))].append(self._count)
        self._count += 1

    def decide(self) -> Decision:
        chance = random.Random(self._step.seed)
        drop: dict[int, str] = {}
        for name, places in sorted(self._places.items()):
            if len(places) > self._step.most:
                reason = _(
                    "{label} has more than {most} rows", label=name, most=f"{self._step.most:,}"
                )
                drop |= dict.fromkeys(chance.sample(places, len(places) - self._step.most), reason)
        return Decision(drop=drop)


def group_key(value: Any) -> str:
    """What rows of one group share, as text: several labels are a group of their own."""
    if isinstance(value, list):
        return " + ".join(sorted(map(str, value)))
    return "(empty)" if value is None else str(value)


STEPS: tuple[type[Step], ...] = (RenameLabels, CapPerClass)
