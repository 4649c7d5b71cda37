"""How well a model knows held-out texts: its perplexity before and after a run that read plain text
on (cpt) or learned to guess hidden tokens (mlm).

Each text counts whole: one that is longer than the run's max_length is read in pieces. Of a model
that guesses, the same tokens are hidden for both models and at each evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from core.errors import DataError
from core.evaluation.metrics import Written, perplexity
from core.evaluation.report import KnownText, Row, note
from core.language import _
from core.progress import Tell
from core.tokens.tokenize import NO_LOSS, TokenizedRow, tokenize_all
from core.worker.evaluation.evaluator import LOSS_OF, Evaluator, sides_of
from core.worker.evaluation.measure import answer_losses
from core.worker.evaluation.rows import HeldOut
from core.worker.models.loading import grow, open_trained
from core.worker.models.masked import (
    hidden,
    hidden_losses,
    masking,
    open_masked_base,
    open_trained_masked,
    text_pieces,
)

_SHOWN_TEXTS, _SHOWN_CHARACTERS = 20, 300


class Texts(Evaluator[Written]):
    kind = "texts"
    forms = ("text", "labelled-text")
    found: HeldOut[str]

    @property
    def is_masked(self) -> bool:
        return self.config.training_method.makes == "filler"

    def open(self) -> Any:
        open_it = open_trained_masked if self.is_masked else open_trained
        model, self.tokenizer = open_it(
            self.trained, self.base_path, device=self.device, dtype=self.dtype
        )
        return model

    def open_before(self) -> Any:
        if not self.is_masked:
            return super().open_before()
        model = open_masked_base(self.config, self.base_path, device=self.device, dtype=self.dtype)
        if self.trained.new_tokens is not None:
            grow(model, self.trained.new_tokens)
        return model

    def prepare(self, model: Any) -> HeldOut[str]:
        found = self.held_out()
        texts = [str(row.get("text") or "") for row in found.rows]
        pieces = self._pieces(texts)
        kept = [place for place, of_text in enumerate(pieces) if of_text]
        if not kept:
            raise DataError(
                _("No text of {name} can be measured.", name=found.info.name),
                _("Look at its preview."),
            )
        self.pieces = [piece for place in kept for piece in pieces[place]]
        # Of each piece the place of its text, and of each text its tokens that carry loss.
        self.owners = np.repeat(np.arange(len(kept)), [len(pieces[place]) for place in kept])
        labels = (piece[1] if self.is_masked else piece.labels for piece in self.pieces)
        counted = [sum(label != NO_LOSS for label in one) for one in labels]
        self.counts = np.bincount(self.owners, counted).astype(float)
        self.tokens = int(self.counts.sum())
        if len(kept) < len(texts):
            found.notes.append(note("empty_texts", rows=len(texts) - len(kept)))
        if self.trained.new_tokens is not None:
            found.notes.append(note("new_tokens", tokens=len(self.trained.new_tokens.ids)))
        if self.is_masked:
            percent = 100 * self.config.text.mlm_probability
            found.notes.append(note("hidden_tokens", percent=percent))
        return found.measurable([(place, texts[place]) for place in kept], [])

    def _pieces(self, texts: Sequence[str]) -> list[list[Any]]:
        """For each text what the model reads of it; [] where there is nothing to measure."""
        if self.is_masked:
            masks, seed = masking(self.tokenizer, self.config), iter(range(10**9))
            return [
                [hidden(piece, masks, next(seed)) for piece in pieces]
                for pieces in text_pieces(self.tokenizer, texts, self.max_length)
            ]
        rows = [{"text": text} for text in texts]
        whole = tokenize_all(rows, self.tokenizer, max_length=None)
        return [
            in_pieces(row, self.max_length) if isinstance(row, TokenizedRow) else []
            for row in whole
        ]

    def measure(self, model: Any, tell: Tell, which: str) -> Written:
        def told(done: float) -> None:
            tell(done, LOSS_OF[which])

        if self.is_masked:
            losses = hidden_losses(model, self.tokenizer, self.pieces, told)
        else:
            losses = answer_losses(model, self.pieces, told).sums.tolist()
        return Written(np.bincount(self.owners, losses).astype(float), self.counts)

    def differing(self, tuned: Written, base: Written | None) -> list[Row]:
        return []

    def more(self, tuned: Written, base: Written | None) -> dict[str, Any]:
        """The texts that the tuned model knows least: their beginning and perplexities."""
        losses = {n: one.sums / one.tokens for n, one in sides_of(tuned, base).items()}
        order = np.argsort(-losses["tuned"], kind="stable")[:_SHOWN_TEXTS]
        shown = [
            KnownText(
                index=self.found.indices[place],
                text=self.found.rows[place][:_SHOWN_CHARACTERS],
                tokens=int(self.counts[place]),
                **{name: perplexity(float(loss[place])) for name, loss in losses.items()},
            )
            for place in order
        ]
        return {"texts": shown}

    def answers(self, tuned: Written, base: Written | None) -> Iterator[dict[str, Any]]:
        for place, index in enumerate(self.found.indices):
            line: dict[str, Any] = {"index": index, "tokens": int(self.counts[place])}
            for name, side in sides_of(tuned, base).items():
                line[f"{name}_loss"] = float(side.sums[place] / side.tokens[place])
            yield line


def in_pieces(row: TokenizedRow, longest: int) -> list[TokenizedRow]:
    """A text in pieces of at most `longest` tokens that share one token with the piece before, so
    that each token but the text's first is predicted exactly once."""
    ids, step = row.input_ids, max(1, longest - 1)
    found = []
    for start in range(0, max(1, len(ids) - 1), step):
        part = ids[start : start + longest]
        if len(part) > 1:
            found.append(TokenizedRow(part, [NO_LOSS, *part[1:]], len(part)))
    return found
