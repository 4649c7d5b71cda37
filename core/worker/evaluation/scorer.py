"""A reward model on held-out pairs: how often the better answer gets the higher score.

There is no base to compare with, whose head would be drawn at random: what it is held against is
chance, which is right in half of the pairs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from core.evaluation.metrics import Paired
from core.evaluation.report import Note, Row, note
from core.language import _
from core.progress import Tell
from core.tokens.sides import sides_of_rows
from core.tokens.tokenize import TokenizedRow
from core.tokens.tool_turns import answer_text
from core.worker.evaluation.evaluator import MOST_SHOWN, Evaluator
from core.worker.evaluation.rows import HeldOut
from core.worker.models.scores import open_scorer


class PairScorer(Evaluator[Paired]):
    kind = "pairs"
    forms = ("preference",)
    found: HeldOut[dict[str, Any]]

    def open(self) -> Any:
        self.scorer = open_scorer(
            self.trained, self.base_path, device=self.device, dtype=self.dtype
        )
        self.max_length = self.scorer.longest
        return self.scorer.model

    def prepare(self, model: Any) -> HeldOut[dict[str, Any]]:
        found, scorer = self.held_out(), self.scorer
        both = sides_of_rows(
            found.rows,
            scorer.tokenizer,
            max_length=scorer.longest,
            system_prompt=scorer.system_prompt,
        )
        self.ids: list[list[int]] = []  # of the better answer and of the worse one, by turns
        kept, reasons = [], []
        for place, sides in enumerate(both):
            tokens = [side.tokens for side in sides]
            texts = [one.input_ids for one in tokens if isinstance(one, TokenizedRow)]
            if len(texts) == 2 and texts[0] != texts[1]:
                kept.append((place, found.rows[place]))
                self.ids += texts
            else:
                told = [str(one) for one in tokens if not isinstance(one, TokenizedRow)]
                reasons.append(
                    told[0] if told else _("both answers are the same where they are cut.")
                )
        self.tokens = sum(map(len, self.ids))
        return found.measurable(kept, reasons)

    def measure(self, model: Any, tell: Tell, which: str) -> Paired:
        told = self.scorer.scores_of(self.ids, lambda done: tell(done, _("Scoring answers")))
        scores = np.array(told)
        return Paired(scores[0::2], scores[1::2])

    def notes(self, tuned: Paired) -> list[Note]:
        ties = int((tuned.better == tuned.worse).sum())
        return [note("ties", rows=ties)] if ties else []

    def more(self, tuned: Paired, base: Paired | None) -> dict[str, Any]:
        """What a judge of nothing but length would get."""
        lengths = np.array([len(ids) for ids in self.ids])
        longer = (lengths[0::2] > lengths[1::2]) + 0.5 * (lengths[0::2] == lengths[1::2])
        return {"longer_is_right": float(np.mean(longer))}

    def differing(self, tuned: Paired, base: Paired | None) -> list[Row]:
        """The pairs whose worse answer scores as high or higher, the surest mistakes first."""
        margin = tuned.better - tuned.worse
        places = np.flatnonzero(margin <= 0)
        places = places[np.argsort(margin[places], kind="stable")]
        return [
            Row(
                index=self.found.indices[place],
                prompt=list(self.found.rows[place]["prompt"]),
                expected=_scored(self.found.rows[place]["chosen"], tuned.better[place]),
                tuned=_scored(self.found.rows[place]["rejected"], tuned.worse[place]),
                tuned_score=0.0,
            )
            for place in places[:MOST_SHOWN]
        ]

    def answers(self, tuned: Paired, base: Paired | None) -> Iterator[dict[str, Any]]:
        rows = zip(self.found.indices, tuned.better, tuned.worse, strict=True)
        for index, better, worse in rows:
            yield {
                "index": index,
                "chosen": round(float(better), 6),
                "rejected": round(float(worse), 6),
            }


def _scored(turns: list[dict[str, Any]], score: float) -> str:
    return f"{score:.2f}: {answer_text(turns[-1])}"
