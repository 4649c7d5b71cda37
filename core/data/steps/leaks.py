"""Rows that stand in train and in what it is measured with: the measure would be of memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

from core.config.fields import knob
from core.data.read.row import Row
from core.data.rowtext import TEXT_COLUMNS, TURN_COLUMNS
from core.data.steps.base import Decision, Setting, Step, WholeWork
from core.data.steps.duplicates import Places, compared_text, digest, folded
from core.language import N_, Said, _

_DIGEST_BYTES = 16
NOTHING_HELD_OUT = N_(
    "Nothing is held out here, so there was nothing to compare with. Put this step "
    "after a split, or import the held-out rows."
)


class DropLeaks(Step):
    """Drops eval and test rows that also stand in train, exactly or nearly."""

    op = "drop_leaks"
    title = Said(N_("Drop leaks between the parts"))
    kind = "quality"
    after_split: ClassVar[bool] = True
    single_rows: ClassVar[bool] = False

    remove_from: Literal["eval", "train"] = knob("eval", "Remove from", level="basic")
    """Eval removes the row from eval or test; train keeps these whole and removes it from train."""

    compare: Literal["row", "prompt"] = knob("row", "Compare", level="basic")
    """All words of a row, or those of its prompt: the same question with another answer leaks
    too. Capitals and white space never matter."""

    near: bool = knob(True, "Near ones too", level="basic")
    """Also finds rows that are nearly the same, which takes longer."""

    threshold: float = knob(0.85, "Alike from", when={"near": [True]}, ge=0.5, le=0.99)
    """The share of word runs two rows must have in common to count as the same."""

    shingle_size: int = knob(3, "Words in a run", when={"near": [True]}, ge=1, le=10)
    """Longer runs make rows with the same words in another order less alike."""

    def start(self, setting: Setting) -> WholeWork:
        return _Leaks(self, setting.folder)


class _Leaks(WholeWork):
    columns: Sequence[str] | None = (*TEXT_COLUMNS, *TURN_COLUMNS)

    def __init__(self, step: DropLeaks, folder: Path) -> None:
        self._step = step
        self._places = Places()
        self._keys = bytearray()
        self._train = 0
        """Rows of train; they come first."""
        self._texts = None
        if step.near:
            from core.data.steps.duplicates import NearTexts

            self._texts = NearTexts(step.threshold, step.shingle_size, folder)

    def note(self, row: Row) -> None:
        self._places.add(row["part"])
        self._train += row["part"] == "train"
        text = compared_text(row, self._step.compare)
        self._keys += digest(folded(text))
        if self._texts is not None:
            self._texts.add(text)

    def decide(self) -> Decision:
        if self._train == self._places.count:
            return Decision(remark=NOTHING_HELD_OUT)
        drop = self._exact()
        if self._texts is not None:
            self._near(drop)
        return Decision(drop=dict(sorted(drop.items())))

    def _exact(self) -> dict[int, str]:
        held_out: dict[bytes, list[int]] = {}
        for index in range(self._train, self._places.count):
            held_out.setdefault(self._key(index), []).append(index)
        drop: dict[int, str] = {}
        for index in range(self._train):
            for other in held_out.get(self._key(index), ()):
                if self._step.remove_from == "train":
                    drop.setdefault(index, _("also stands in {row}", row=self._places.name(other)))
                else:
                    drop.setdefault(other, _("also stands in {row}", row=self._places.name(index)))
        return drop

    def _near(self, drop: dict[int, str]) -> None:
        """Adds rows that are nearly the same as one of the other side."""
        assert self._texts is not None
        chains = self._texts.index()
        from_train = self._step.remove_from == "train"
        probes = []
        for index in chains.related:
            if (index < self._train) == from_train:
                probes.append(index)
            else:
                chains.keep(index)
        for index in probes:
            found = None if index in drop else chains.nearest(index)
            if found is not None:
                name = self._places.name(found[0])
                drop[index] = _(
                    "nearly stands in {row}, {share} alike", row=name, share=f"{found[1]:.2f}"
                )

    def _key(self, index: int) -> bytes:
        return bytes(self._keys[index * _DIGEST_BYTES : (index + 1) * _DIGEST_BYTES])


STEPS = (DropLeaks,)
