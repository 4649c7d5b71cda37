"""A classifier on held-out rows: how many labels are right, by label, and what was taken for what.

There is no base to compare with, whose head would be drawn at random; what the labels are held
against is always giving the most frequent one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from core.errors import DataError
from core.evaluation.label_curves import bins, curves
from core.evaluation.label_scores import by_label, confusion, means, right_rows, truth_of
from core.evaluation.metrics import Labelled
from core.evaluation.report import Note, Row, Speed, Usual, note
from core.language import _
from core.progress import Tell
from core.worker.evaluation.evaluator import MOST_SHOWN, Evaluator
from core.worker.evaluation.rows import HeldOut
from core.worker.models.classifier import (
    given,
    label_logits,
    longest_input,
    open_classifier,
    probabilities,
    text_ids,
)

# Single texts are timed so often, after some that only warm up.
_WARM_UP, _TIMED = 5, 40


class Classifier(Evaluator[Labelled]):
    kind = "labels"
    forms = ("labelled-text",)
    found: HeldOut[dict[str, Any]]

    def open(self) -> Any:
        model, self.tokenizer, self.labels = open_classifier(
            self.trained, self.base_path, device=self.device, dtype=self.dtype
        )
        return model

    def prepare(self, model: Any) -> HeldOut[dict[str, Any]]:
        found = self.held_out()
        if not found.rows:
            raise DataError(
                _("There is no row of {name} to measure.", name=found.info.name),
                _("Look at its preview."),
            )
        self.max_length = longest_input(model, self.tokenizer, self.max_length)
        texts = [row.get("text") or "" for row in found.rows]
        self.names = [list(row.get("labels") or ()) for row in found.rows]
        self.ids = text_ids(self.tokenizer, texts, self.max_length)
        self.tokens = sum(map(len, self.ids))
        return found

    def measure(self, model: Any, tell: Tell, which: str) -> Labelled:
        begun = time.perf_counter()
        logits = label_logits(
            model, self.tokenizer, self.ids, lambda done: tell(0.8 * done, _("Giving labels"))
        )
        batched = len(self.ids) / (time.perf_counter() - begun)
        self.speed = self._speed(model, batched, lambda done: tell(done, _("Measuring the speed")))
        chances = probabilities(logits, self.labels)
        said = given(chances, self.labels).numpy()
        truth = truth_of([self.labels.ids_of(names) for names in self.names], self.labels)
        return Labelled(said, truth, chances.numpy())

    def _speed(self, model: Any, batched: float, tell: Callable[[float], None]) -> Speed:
        """Of texts one by one, those of the rows in turn."""
        seconds = []
        for number in range(_WARM_UP + _TIMED):
            ids = self.ids[number % len(self.ids)]
            begun = time.perf_counter()
            label_logits(model, self.tokenizer, [ids])
            seconds.append(time.perf_counter() - begun)
            tell(0.8 + 0.2 * number / (_WARM_UP + _TIMED))
        timed = np.array(seconds[_WARM_UP:])
        p50, p95, p99 = (float(one) for one in np.quantile(timed, [0.5, 0.95, 0.99]))
        mean = float(timed.mean())
        return Speed(mean=mean, p50=p50, p95=p95, p99=p99, batched=batched, alone=1 / mean)

    def notes(self, tuned: Labelled) -> list[Note]:
        unseen = int(tuned.truth.unseen.sum())
        return [note("unknown_labels", rows=unseen)] if unseen else []

    def more(self, tuned: Labelled, base: Labelled | None) -> dict[str, Any]:
        said, truth = tuned.given, tuned.truth
        return {
            "labels": list(self.labels.names),
            "majority": self._majority(tuned),
            "by_label": by_label(said, truth, self.labels),
            "confusion": confusion(said, truth, self.labels),
            "calibration": bins(said, tuned.chances, truth),
            "curves": None if self.labels.multi else curves(tuned.chances, truth),
            "speed": self.speed,
        }

    def _majority(self, tuned: Labelled) -> Usual:
        info, names = self.found.info, self.labels.names
        counts = np.array([info.labels.get(name, 0) for name in names])
        if self.labels.multi:
            guess = counts * 2 > info.counts.train
        else:
            guess = np.arange(len(names)) == np.argmax(counts)
        numbers = means(np.tile(guess, (len(tuned.given), 1)), tuned.truth)
        return Usual(
            labels=[names[i] for i in np.flatnonzero(guess)],
            accuracy=numbers["accuracy"],
            f1_macro=numbers["f1_macro"],
        )

    def differing(self, tuned: Labelled, base: Labelled | None) -> list[Row]:
        """The rows that are wrong, the surest mistakes first."""
        places = np.flatnonzero(~right_rows(tuned.given, tuned.truth))
        places = places[np.argsort(-tuned.chances[places].max(axis=1), kind="stable")]
        return [
            Row(
                index=self.found.indices[place],
                prompt=[{"role": "user", "content": self.found.rows[place].get("text") or ""}],
                expected=", ".join(self.names[place]) or _("none"),
                tuned=self._said(tuned, place),
                tuned_score=0.0,
                sureness=float(tuned.chances[place].max()),
            )
            for place in places[:MOST_SHOWN]
        ]

    def _said(self, tuned: Labelled, place: int) -> str:
        said, chances = tuned.given[place], tuned.chances[place]
        names = [f"{self.labels.names[i]} ({100 * chances[i]:.0f} %)" for i in np.flatnonzero(said)]
        return ", ".join(names) or _("none")

    def answers(self, tuned: Labelled, base: Labelled | None) -> Iterator[dict[str, Any]]:
        names, right = self.labels.names, right_rows(tuned.given, tuned.truth)
        for place, index in enumerate(self.found.indices):
            chances = zip(names, tuned.chances[place], strict=True)
            row = self.found.rows[place]
            yield {
                "index": index,
                "prompt": [{"role": "user", "content": row.get("text") or ""}],
                "meta": row.get("meta") or {},
                "expected": self.names[place],
                "tuned": [names[i] for i in np.flatnonzero(tuned.given[place])],
                "tuned_score": float(right[place]),
                "probabilities": {name: round(float(chance), 6) for name, chance in chances},
            }
