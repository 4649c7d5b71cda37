"""What a step is: one recorded change of a data set, its settings, and how it works on rows.

A step is a `Section`: its fields carry their own labels, bounds and help, so that the page, the
shell and a YAML file of steps come from the same declaration. `start` gives the work of one pass:

- `RowWork.feed(row)` yields what becomes of a row (itself, a changed one, several) or raises
  `Unusable` with the reason why it is dropped; `finish` yields what was held back. Rows come in
  their order: those of train, then eval, then test. Memory must not grow with the rows, but for
  small keys.
- `WholeWork.note(row)` sees each row and keeps a small key; `decide` then says for all of them
  which go, which part each belongs to, and in which order they stand.

A row is a dict of its form's columns (`core.data.rowfile.SCHEMAS`), with `meta` as a dict and
`part` as "train", "eval" or "test". A step never changes the row it was given: it yields a new one.
The same rows and settings give the same result: chance comes from a `seed` field.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from core.config.fields import Section
from core.data.read.row import Row
from core.data.values import Unusable
from core.language import Said, _
from core.workspace import Workspace

__all__ = ["Decision", "RowWork", "Setting", "Step", "Unusable", "WholeWork"]


@dataclass(frozen=True)
class Setting:
    """Where a step works: the data set's form and folder, and the workspace for models."""

    workspace: Workspace
    form: str
    folder: Path
    """The folder of the data set, for files that a step names (accepted drafts)."""
    columns: tuple[str, ...] = ()
    """Names that `rowtext.value_of` knows in these rows."""


class RowWork(ABC):
    """A pass that looks at one row at a time."""

    @abstractmethod
    def feed(self, row: Row) -> Iterable[Row]:
        """What becomes of a row. Raises Unusable with the reason why it is dropped."""

    def finish(self) -> Iterable[Row]:
        """What was held back until the last row of a part had come; called at each part's end."""
        return ()


@dataclass(frozen=True)
class Decision:
    """What becomes of rows by their index: dropped with a reason, moved to a part, reordered.

    `parts` has one entry for each row ("train", "eval" or "test") or is None; `order` is a
    permutation of all indices or None. `remark` says why nothing was done where a person would
    take that for a good sign.
    """

    drop: dict[int, str] = field(default_factory=dict)
    parts: Sequence[str] | None = None
    order: Sequence[int] | None = None
    remark: str = ""


class WholeWork(ABC):
    """A pass that must have seen all rows before it can say what becomes of one.

    `columns` are those of the form that `note` reads, besides `part`; None means all of them and
    `meta`, and an empty one that it only counts, which spares reading the rows.
    """

    columns: Sequence[str] | None = None

    @abstractmethod
    def note(self, row: Row) -> None:
        """Keeps what is needed of a row."""

    @abstractmethod
    def decide(self) -> Decision:
        """What becomes of the rows that were noted, by the order in which they came."""


class Step(Section, ABC):
    """One change of a data set. `op` is its name in YAML and in the shell."""

    op: ClassVar[str]
    title: ClassVar[Said]
    kind: ClassVar[Literal["quality", "shape"]]
    forms: ClassVar[tuple[str, ...]] = ()
    """The standard forms it is for; none named means all."""
    after_split: ClassVar[bool] = False
    """Whether it only makes sense when the parts are apart."""
    single_rows: ClassVar[bool] = True
    """Whether `start` gives RowWork; False for WholeWork, which ends a pass."""

    @classmethod
    def about(cls) -> str:
        """What it does, in a sentence: what stands under its class."""
        return _(" ".join((cls.__doc__ or "").split()))

    @abstractmethod
    def start(self, setting: Setting) -> RowWork | WholeWork:
        """The work of one pass. Raises DataError when the settings do not fit the data."""

    def spec(self) -> dict[str, Any]:
        """The step as it is recorded: its name and what differs from the defaults."""
        return {"op": self.op, **self.model_dump(mode="json", exclude_defaults=True)}


@dataclass
class EachRow(RowWork):
    """A pass that gives each row to one function: it returns the row or raises Unusable."""

    change: Callable[[Row], Row]

    def feed(self, row: Row) -> Iterable[Row]:
        yield self.change(row)
