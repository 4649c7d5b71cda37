"""Masked language modelling: an encoder learns to guess hidden tokens, from plain text to the saved
adapter or model."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import torch
from accelerate import PartialState
from transformers import DataCollatorForLanguageModeling, TrainerCallback, TrainingArguments

from core.config import RunConfig
from core.data.record import DatasetInfo, Part
from core.data.rowfile import read_slice
from core.language import _
from core.progress import Tell
from core.worker.models.masked import guesses, hidden, load_masked, masking, need_mask, text_pieces
from core.worker.training import ranks
from core.worker.training.adapters import with_head
from core.worker.training.beginning import Beginning
from core.worker.training.recipe import HeadedRecipe, arguments, data_seed
from core.worker.training.rows import IDS, Made, Rows, load_rows
from core.worker.training.samples import SampleAnswers
from core.worker.training.trainer import PaddedTrainer, grouped_lengths, same_randomness
from core.worker.training.vocabulary_extension import make_room_for_new_tokens

_WATCHED, _LOOKED_AT, _WATCHED_TOKENS = 3, 50, 40


class MLM(HeadedRecipe):
    """Pieces of texts with some of their tokens hidden."""

    def __init__(self, start: Beginning) -> None:
        super().__init__(start)
        need_mask(start.tokenizer, self.config.model.model_name_or_path)
        self.masks = masking(start.tokenizer, self.config)

    def open_headed(self) -> tuple[Any, list[str]]:
        start, precision = self.start, self.config.training.precision
        model, new = load_masked(self.config, start.base, device=start.place, precision=precision)
        make_room_for_new_tokens(model, start)
        if new:
            self._tell(
                _(
                    "The base comes without {modules} of the head that guesses hidden tokens: they "
                    "are drawn at random and learned with the rest, so the loss begins high.",
                    modules=", ".join(new),
                ),
                "warning",
            )
        return model, new

    def _tell(self, message: str, level: str = "info") -> None:
        self.start.reporter.events.write("log", level=level, message=message)

    def load(self, part: Part, limit: int | None) -> Rows:
        """The first `limit` texts of a part in pieces of at most max_length tokens, with the
        tokenizer's marks. Held-out pieces have their hidden tokens drawn once (labels), so that
        evaluations can be compared."""
        start, config = self.start, self.config
        rows = pieces_of_texts(
            start.info, part, start.tokenizer, config, limit=limit, tell=start.reporter.tell
        )
        total = min(limit or sys.maxsize, getattr(start.info.counts, part))
        texts, pieces = total - len(rows.left_out), len(rows.lengths)
        if part == "train" and texts < pieces:
            self._tell(
                _(
                    "{texts:,} train texts make {rows:,} rows of at most {length} tokens: "
                    "longer ones go on in the next row.",
                    texts=texts,
                    rows=pieces,
                    length=config.training.max_length,
                )
            )
        return rows

    @staticmethod
    def own_arguments(config: RunConfig) -> dict[str, Any]:
        return {"remove_unused_columns": False, "label_names": ["labels"]}

    def make_trainer(self) -> MaskedTrainer:
        start, config = self.start, self.config
        return MaskedTrainer(
            lengths=grouped_lengths(config, self.rows.lengths),
            model=with_head(self.model, self.drawn, config, "FEATURE_EXTRACTION"),
            args=TrainingArguments(**self.own_arguments(config) | arguments(config, start.run)),
            train_dataset=self.rows.dataset,
            eval_dataset=self.held_out.dataset if self.held_out else None,
            processing_class=start.tokenizer,
            data_collator=Hiding(self.masks, data_seed(config)),
        )

    def callbacks(self, trainer: MaskedTrainer) -> list[TrainerCallback]:
        samples = SampleAnswers(GapSampler(trainer, self.start), trainer, starts_as_base=False)
        return [GoOnHiding(trainer.data_collator), samples]


def pieces_of_texts(
    info: DatasetInfo,
    part: Part,
    tokenizer: Any,
    config: RunConfig,
    *,
    limit: int | None = None,
    tell: Tell | None = None,
) -> Rows:
    """The first `limit` texts of a part in pieces; held-out ones have their hidden tokens drawn
    (labels). Raises as `load_rows` does."""
    masks, drawn = masking(tokenizer, config), 0
    names = ["input_ids", "special_tokens_mask"]
    if config.text.whole_word_mask:
        names.append("offset_mapping")
    schema = pa.schema([(one, _COLUMNS[one]) for one in names])
    if part == "eval":
        schema = pa.schema([("input_ids", IDS), ("labels", IDS)])

    def make(rows: list[dict[str, Any]]) -> Iterator[Made]:
        nonlocal drawn
        batch = [row.get("text") or "" for row in rows]
        for found in text_pieces(tokenizer, batch, config.training.max_length):
            made = []
            for piece in found:
                if part == "eval":
                    ids, labels = hidden(piece, masks, drawn)
                    piece = {"input_ids": ids, "labels": labels}
                made.append(tuple(piece[name] for name in schema.names))
                drawn += 1
            yield made or _("Its text is empty.")

    return load_rows(info, part, config, schema, make, limit=limit, tell=tell, columns=["text"])


_COLUMNS = {
    "input_ids": IDS,
    "labels": IDS,
    "special_tokens_mask": IDS,
    "offset_mapping": pa.list_(IDS),
}


class MaskedTrainer(PaddedTrainer):
    """transformers' trainer on pieces of texts; an evaluation hides the same tokens each time.

    The loss is a mean over all hidden tokens of a step or an evaluation, whatever the batch size.
    """

    def __init__(self, **given: Any) -> None:
        super().__init__(compute_loss_func=mean_loss, **given)
        # The loss is made here, from labels that no model gets to see.
        self.can_return_loss = True

    @property
    def loss_is_entropy(self) -> bool:
        return bool(self.args.label_smoothing_factor == 0)

    def evaluation_loop(self, *given: Any, **options: Any) -> Any:
        self._sums = [0.0, 0]
        output = super().evaluation_loop(*given, **options)
        prefix = options.get("metric_key_prefix", "eval")
        loss, tokens = ranks.summed(self._sums)
        if tokens:
            output.metrics[f"{prefix}_loss"] = loss / tokens
        return output

    def prediction_step(self, model: Any, inputs: Any, *given: Any, **options: Any) -> Any:
        tokens = int((inputs["labels"] != -100).sum())
        result = super().prediction_step(model, inputs, *given, **options)
        if not self.is_spare:
            self._sums = [self._sums[0] + float(result[0]) * tokens, self._sums[1] + tokens]
        return result


def mean_loss(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
    """Mean of -ln p over the hidden tokens: of the batch, or of all batches of a step."""
    logits = outputs.logits.float().flatten(0, 1)
    summed = torch.nn.functional.cross_entropy(
        logits, labels.flatten(), ignore_index=-100, reduction="sum"
    )
    count = (labels != -100).sum() if num_items_in_batch is None else num_items_in_batch
    return summed / max(int(count), 1)


@dataclass
class Hiding:
    """A batch with some tokens hidden, others each time. Rows that have labels are as they are.

    What is hidden follows from the seed and the number of the batch, so that a resumed run hides
    what it would have hidden.
    """

    masks: DataCollatorForLanguageModeling
    seed: int
    drawn: int = field(default=0)

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        if rows[0].get("labels"):
            return self._padded(rows)
        # As one process counts its batches, which several take by turns.
        place = self.drawn * PartialState().num_processes + PartialState().process_index
        self.masks.generator = torch.Generator().manual_seed(self.seed * 1_000_003 + place)
        self.drawn += 1
        pad = self.masks.tokenizer.pad_token_id
        width = max(len(row["input_ids"]) for row in rows)
        batch = dict(self.masks([_filled(row, width, pad) for row in rows]))
        batch["attention_mask"] = _mask(rows, width)
        return batch

    def _padded(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        width = max(len(row["input_ids"]) for row in rows)
        pad = self.masks.tokenizer.pad_token_id
        return {
            "input_ids": torch.tensor([_wide(row["input_ids"], width, pad) for row in rows]),
            "attention_mask": _mask(rows, width),
            "labels": torch.tensor([_wide(row["labels"], width, -100) for row in rows]),
        }


def _filled(row: dict[str, Any], width: int, pad: int) -> dict[str, Any]:
    """A row as wide as the batch; its padding is never hidden."""
    filled = {
        "input_ids": _wide(row["input_ids"], width, pad),
        "special_tokens_mask": _wide(row["special_tokens_mask"], width, 1),
    }
    if "offset_mapping" in row:
        filled["offset_mapping"] = _wide(row["offset_mapping"], width, [0, 0])
    return filled


def _wide(values: list[Any], width: int, fill: Any) -> list[Any]:
    return [*values, *[fill] * (width - len(values))]


def _mask(rows: list[dict[str, Any]], width: int) -> torch.Tensor:
    return torch.tensor([_wide([1] * len(row["input_ids"]), width, 0) for row in rows])


class GoOnHiding(TrainerCallback):
    """Counts the batches by steps, as often as an epoch begins or a run is resumed: of the last
    step of an epoch some may be missing."""

    def __init__(self, hiding: Hiding) -> None:
        self._hiding = hiding

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._hiding.drawn = state.global_step * args.gradient_accumulation_steps


class GapSampler:
    """Writes a `sample` event for each watched text: what the model puts in its gap."""

    def __init__(self, trainer: MaskedTrainer, start: Beginning) -> None:
        self._tokenizer, self._events = start.tokenizer, start.reporter.events
        self._longest = start.config.training.max_length
        self._texts = gapped_texts(start)

    def write(self, model: Any, step: int, autocast: Any, *, as_base: bool = False) -> None:
        """The guesses at `step`. The model, its mode and all random states stay as they were."""
        was_training = model.training
        with same_randomness(), autocast:
            model.eval()
            try:
                answers = [
                    guesses(model, self._tokenizer, text, self._longest) for text, _ in self._texts
                ]
            finally:
                model.train(was_training)
        for index, ((text, expected), found) in enumerate(zip(self._texts, answers, strict=True)):
            self._events.write(
                "sample",
                step=step,
                index=index,
                prompt=[{"role": "user", "content": text}],
                answer=", ".join(f"{word} {100 * chance:.0f} %" for word, chance in found[0]),
                expected=expected,
            )


def gapped_texts(start: Beginning) -> list[tuple[str, str | None]]:
    """(a text with one mask, the word that stood there): the prompts of the config that have one,
    else the beginnings of held-out texts with a word in their middle hidden."""
    tokenizer = start.tokenizer
    mask = tokenizer.mask_token
    given = start.config.evaluation.sample_prompts
    if given:
        return [(text, None) for text in given if mask in text]
    part: Part = "eval" if start.info.counts.eval else "train"
    found: list[tuple[str, str | None]] = []
    for row in read_slice(start.info.rows_path(part), 0, _LOOKED_AT):
        words = str(row.get("text") or "").split()[:_WATCHED_TOKENS]
        place = len(words) // 2
        if len(words) < 3 or mask in words:
            continue
        text = " ".join([*words[:place], mask, *words[place + 1 :]])
        ids = tokenizer(text, verbose=False)["input_ids"]
        if len(ids) <= start.config.training.max_length:
            found.append((text, words[place]))
        if len(found) == _WATCHED:
            break
    return found
