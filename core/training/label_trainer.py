"""transformers' trainer for labels: its loss, what each evaluation measures, what is shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from core.config import RunConfig
from core.data.record import DatasetInfo
from core.data.rowfile import read_slice
from core.evaluation.label_scores import by_label, confusion, means, truth_of
from core.jobs.events import EventWriter
from core.models.classifier import given, in_words, label_logits, probabilities, text_ids
from core.models.labels import Labels
from core.training.row_order import PaddedTrainer
from core.training.watched import same_randomness

_ROWS, _LOOKED_AT = 3, 200
# With more labels than this the numbers of each are left to the report of an evaluation.
_MOST_LABELS = 100


class LabelTrainer(PaddedTrainer):
    """Learns labels with `loss`; each checkpoint has the label mapping beside its weights."""

    def __init__(self, *, labels: Labels, loss: Callable[..., Any], **arguments: Any) -> None:
        self.labels = labels
        self.measured: tuple[Any, Any] | None = None
        super().__init__(compute_loss_func=loss, compute_metrics=self._metrics, **arguments)
        # The loss is made here, from labels that no model gets to see.
        self.can_return_loss = True

    def _metrics(self, seen: Any) -> dict[str, float]:
        logits = seen.predictions[0] if isinstance(seen.predictions, tuple) else seen.predictions
        chances = probabilities(torch.as_tensor(logits).float(), self.labels)
        said = given(chances, self.labels).numpy()
        truth = truth_of(seen.label_ids, self.labels)
        self.measured = said, truth
        return means(said, truth)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        super()._save(output_dir, state_dict)
        if self.args.should_save:
            self.labels.save(Path(output_dir or self.args.output_dir))


class ReportLabels(TrainerCallback):
    """Writes after each evaluation how each label does and what was taken for what."""

    def __init__(self, trainer: LabelTrainer, events: EventWriter) -> None:
        self._trainer = trainer
        self._events = events

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._trainer.measured is None:
            return
        said, truth = self._trainer.measured
        labels = self._trainer.labels
        if len(labels.names) > _MOST_LABELS:
            return
        numbers = by_label(said, truth, labels)
        occurring = [label for label in numbers if label["rows"]]
        if not occurring:
            return
        worst = min(occurring, key=lambda label: label["f1"])
        self._events.write(
            "log",
            level="info",
            message=f"Step {state.global_step}: the label with the lowest F1 is {worst['label']} "
            f"({worst['f1']:.2f}).",
            step=state.global_step,
            by_label=numbers,
            confusion=confusion(said, truth, labels),
        )


@dataclass(frozen=True)
class _Watched:
    text: str
    expected: str | None
    ids: list[int]


class LabelSampler:
    """Writes a `sample` event for each watched text: the labels it is given, and its own."""

    def __init__(
        self,
        texts: Sequence[tuple[str, str | None]],
        tokenizer: Any,
        labels: Labels,
        events: EventWriter,
        longest: int,
    ) -> None:
        self._tokenizer, self._labels, self._events = tokenizer, labels, events
        tokens = text_ids(tokenizer, [text for text, _ in texts], longest)
        self._watched = [
            _Watched(text, expected, ids)
            for (text, expected), ids in zip(texts, tokens, strict=True)
            if ids
        ]

    def write(self, model: Any, step: int, autocast: Any, *, as_base: bool = False) -> None:
        """The labels at `step`. The model, its mode and all random states stay as they were."""
        if not self._watched:
            return
        was_training = model.training
        with same_randomness(), autocast:
            model.eval()
            try:
                logits = label_logits(model, self._tokenizer, [one.ids for one in self._watched])
            finally:
                model.train(was_training)
        chances = probabilities(logits, self._labels)
        for index, one in enumerate(self._watched):
            self._events.write(
                "sample",
                step=step,
                index=index,
                prompt=[{"role": "user", "content": one.text}],
                answer=in_words(chances[index], self._labels, most=3),
                expected=one.expected,
            )


def watched_texts(config: RunConfig, info: DatasetInfo) -> list[tuple[str, str | None]]:
    """(text, its labels if known): those of the config, else some held-out rows (else of the
    others), of different labels where there are."""
    evaluation = config.evaluation
    if evaluation.sample_max_new_tokens == 0:
        return []
    if evaluation.sample_prompts:
        return [(text, None) for text in evaluation.sample_prompts]
    part = "eval" if info.counts.eval else "train"
    rows = read_slice(info.rows_path(part), 0, _LOOKED_AT)
    pairs: list[tuple[str, str | None]] = [
        (row.get("text") or "", ", ".join(row.get("labels") or ()) or "none")
        for row in rows
    ]
    first = {expected: (text, expected) for text, expected in reversed(pairs)}
    chosen = [pair for pair in pairs if first[pair[1]] == pair][:_ROWS]
    return chosen + [pair for pair in pairs if pair not in chosen][: _ROWS - len(chosen)]
