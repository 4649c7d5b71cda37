"""How well a model knows held-out texts: its perplexity before and after a run that read plain text
on (cpt) or learned to guess hidden tokens (mlm).

Each text counts whole: one that is longer than the run's max_length is read in pieces. Of a model
that guesses, the same tokens are hidden for both models and at each evaluation. Only workers
import this.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.data.record import DatasetInfo
from core.data.tokenize import NO_LOSS, TokenizedRow, tokenize_all
from core.errors import DataError
from core.evaluation.compare import Measured, difference, summarize_side
from core.evaluation.measure import Share, answer_losses
from core.evaluation.rows import held_out, new_tokens_note, row_count
from core.evaluation.verdict_texts import text_verdict
from core.jobs.task import Task
from core.models.inference import (
    free_memory,
    open_before,
    open_trained,
    pick_device,
    pick_dtype,
    resolve_base,
    without_adapter,
)
from core.models.masked import (
    hidden,
    hidden_losses,
    masking,
    open_masked_base,
    open_trained_masked,
    text_pieces,
)
from core.models.trained import TrainedModel
from core.models.vocabulary import grow
from core.workspace import Workspace

_SHOWN_TEXTS, _SHOWN_CHARACTERS = 20, 300


@dataclass(frozen=True)
class _Texts:
    """Texts with their places in their part, and what a reader of the numbers must know."""

    info: DatasetInfo
    part: str
    indices: list[int]
    texts: list[str]
    notes: list[str]


def evaluate_texts(
    task: Task, workspace: Workspace, trained: TrainedModel
) -> tuple[dict[str, Any], str]:
    """(the result, every text's loss as JSON lines). Raises TunesmithError.

    Parameters (job.json): checkpoint ("final"), max_rows (all), compare_base (true).
    """
    begun = time.time()
    device = pick_device()
    dtype = pick_dtype(trained.config.training.precision, device)
    base_path = resolve_base(trained.base, workspace)
    opening = {"device": device, "dtype": dtype}
    fills_gaps = trained.config.training_method.makes == "filler"
    open_it = open_trained_masked if fills_gaps else open_trained
    model, tokenizer = open_it(trained, base_path, **opening)
    found = _texts(workspace, trained, task.params.get("max_rows"))
    compare = bool(task.params.get("compare_base", True))
    measure = _Measure(trained, tokenizer, found.texts)
    kept = [place for place, count in enumerate(measure.counts) if count]
    if not kept:
        raise DataError(f"No text of {found.info.name} can be measured.", "Look at its preview.")
    tell = task.part(0.1, 0.5 if compare else 0.98)
    sides = {"tuned": measure.of(model, lambda done: tell(done, "Loss of the tuned model"))}
    if compare:
        tell = task.part(0.5, 0.98)

        def told(done: float) -> None:
            tell(done, "Loss of the base model")

        if trained.shares_base:
            with without_adapter(model):
                sides["base"] = measure.of(model, told)
        else:
            del model
            free_memory()
            sides["base"] = measure.of(_before(trained, base_path, **opening), told)
    result = _result(trained, found, kept, measure.counts, sides)
    result["settings"] = {
        "device": device,
        "dtype": str(dtype).removeprefix("torch."),
        "quantization": trained.config.adapter.quantization,
        "max_new_tokens": 0,
        "max_length": trained.config.training.max_length,
    }
    result["seconds"] = round(time.time() - begun, 1)
    return result, _lines(found, kept, measure.counts, sides)


def _before(trained: TrainedModel, base_path: str, *, device: str, dtype: Any) -> Any:
    """The model as it was when the run began."""
    if trained.config.training_method.makes != "filler":
        return open_before(trained, base_path, device=device, dtype=dtype)
    model = open_masked_base(trained.config, base_path, device=device, dtype=dtype)
    if trained.new_tokens is not None:
        grow(model, trained.new_tokens)
    return model


class _Measure:
    """The summed loss of each text, in nats; `counts` has how many of its tokens carry loss."""

    def __init__(self, trained: TrainedModel, tokenizer: Any, texts: Sequence[str]) -> None:
        config = trained.config
        self._tokenizer = tokenizer
        self._is_masked = config.training_method.makes == "filler"
        longest = config.training.max_length
        self._owner: list[int] = []  # of each piece, the place of its text
        self._pieces: list[Any] = []
        if self._is_masked:
            masks = masking(tokenizer, config)
            for place, pieces in enumerate(text_pieces(tokenizer, texts, longest)):
                for one in pieces:
                    self._add(place, hidden(one, masks, len(self._pieces)))
        else:
            rows = [{"text": text} for text in texts]
            whole = tokenize_all(rows, tokenizer, max_length=None, assistant_only_loss=False)
            for place, row in enumerate(whole):
                if isinstance(row, TokenizedRow):
                    for piece in in_pieces(row, longest):
                        self._add(place, piece)
        self.counts = np.zeros(len(texts))
        for owner, piece in zip(self._owner, self._pieces, strict=True):
            labels = piece[1] if self._is_masked else piece.labels
            self.counts[owner] += sum(label != NO_LOSS for label in labels)

    def _add(self, place: int, piece: Any) -> None:
        self._owner.append(place)
        self._pieces.append(piece)

    def of(self, model: Any, tell: Share) -> Any:
        if self._is_masked:
            losses = hidden_losses(model, self._tokenizer, self._pieces, tell)
        else:
            losses = answer_losses(model, self._pieces, tell).sums.tolist()
        sums = np.zeros(len(self.counts))
        for owner, loss in zip(self._owner, losses, strict=True):
            sums[owner] += loss
        return sums


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


def _texts(workspace: Workspace, trained: TrainedModel, max_rows: int | None) -> _Texts:
    """The held-out texts; training texts where there are none, with a note."""
    found = held_out(workspace, trained.config, max_rows, forms=["text", "labelled-text"])
    texts = [str(row.get("text") or "") for row in found.rows]
    return _Texts(found.info, found.part, found.indices, texts, found.notes)


def _result(
    trained: TrainedModel, found: _Texts, kept: list[int], counts: Any, sides: dict[str, Any]
) -> dict[str, Any]:
    measured = {name: Measured(sums[kept], counts[kept], None) for name, sums in sides.items()}
    base, tuned = measured.get("base"), measured["tuned"]
    notes = list(found.notes)
    if len(kept) < len(found.texts):
        notes.append(f"{row_count(len(found.texts) - len(kept))} without a text left out.")
    if trained.new_tokens is not None:
        notes.append(new_tokens_note(trained.new_tokens))
    if trained.config.training_method.makes == "filler":
        notes.append(
            f"{100 * trained.config.text.mlm_probability:.0f} % of the tokens were hidden, the "
            "same ones for both models; the perplexity is that of guessing them."
        )
    result: dict[str, Any] = {
        "method": trained.config.method,
        "rows": len(kept),
        "part": found.part,
        "checkpoint": trained.checkpoint,
        "model": trained.base_name,
        "dataset": {
            "id": found.info.id,
            "name": found.info.name,
            "fingerprint": found.info.fingerprint,
        },
        "tokens": int(tuned.tokens.sum()),
        "rules": [],
        "base": summarize_side(base, None, []) if base else None,
        "tuned": summarize_side(tuned, None, []),
        "difference": difference(base, tuned, None, None) if base else None,
        "notes": notes,
        "differences": [],
        "texts": _shown(found, kept, counts, sides),
    }
    result["verdict"] = text_verdict(result)
    return result


def _shown(
    found: _Texts, kept: list[int], counts: Any, sides: dict[str, Any]
) -> list[dict[str, Any]]:
    """The texts that the tuned model knows least, at most 20: their beginning and perplexities."""
    shown: list[dict[str, Any]] = [
        {
            "index": found.indices[place],
            "text": found.texts[place][:_SHOWN_CHARACTERS],
            "tokens": int(counts[place]),
            **{name: _perplexity(sums[place], counts[place]) for name, sums in sides.items()},
        }
        for place in kept
    ]
    return sorted(shown, key=lambda text: -float(text["tuned"]))[:_SHOWN_TEXTS]


def _perplexity(summed: float, count: float) -> float:
    return math.exp(min(summed / count, 50.0))


def _lines(found: _Texts, kept: list[int], counts: Any, sides: dict[str, Any]) -> str:
    """Each text's loss, as JSON lines."""
    lines = []
    for place in kept:
        line: dict[str, Any] = {"index": found.indices[place], "tokens": int(counts[place])}
        for name, sums in sides.items():
            line[f"{name}_loss"] = float(sums[place] / counts[place])
        lines.append(json.dumps(line, ensure_ascii=False))
    return "\n".join(lines) + "\n"
