"""Learning to write text: supervised fine-tuning (SFT) on rows of their own, continued pre-training
(CPT) on texts in full blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset
from datasets.table import InMemoryTable
from numpy.typing import NDArray
from transformers import TrainerCallback
from trl import SFTConfig, pack_dataset

from core.config import RunConfig
from core.data.record import DatasetInfo, Part
from core.errors import DataError
from core.language import _
from core.progress import Tell
from core.tokens.learn import Learn
from core.tokens.tokenize import NO_LOSS, need_sft_form, tokenize_all
from core.worker.training import resolve
from core.worker.training.adapters import peft_config
from core.worker.training.attention import choose_attention, other_attention
from core.worker.training.recipe import Recipe, arguments, sample_answers
from core.worker.training.row_trainer import RowTrainer
from core.worker.training.rows import IDS, LEARNED, Made, Rows, learned, load_rows
from core.worker.training.vocabulary_extension import make_room_for_new_tokens, with_new_tokens


class Text(Recipe):
    """What both methods share. `no_padding`: rows stand behind each other, unpadded."""

    no_padding: bool

    def open_model(self) -> None:
        super().open_model()
        make_room_for_new_tokens(self.model, self.start)
        self.no_padding = choose_attention(self.model, self.config, self.start.reporter)

    def make_trainer(self) -> RowTrainer:
        start = self.start
        args = SFTConfig(
            # The rows are tokenized and cut already.
            max_length=None,
            padding_free=self.no_padding,
            dataset_kwargs={"skip_prepare_dataset": True},
            **self.own_arguments(self.config),
            **arguments(self.config, start.run),
        )
        return RowTrainer(
            model=self.model,
            args=args,
            train_dataset=self.train_dataset(),
            eval_dataset=self.held_out.dataset if self.held_out else None,
            processing_class=start.tokenizer,
            peft_config=with_new_tokens(peft_config(self.config), self.model, start),
        )

    def train_dataset(self) -> Dataset:
        return self.rows.dataset

    def callbacks(self, trainer: Any) -> list[TrainerCallback]:
        prompts = self.config.evaluation.sample_prompts
        is_text = self.start.info.form == "text" and not prompts
        return [sample_answers(trainer, self.start, is_text=is_text)]

    def save(self, trainer: Any) -> None:
        trained = trainer.accelerator.unwrap_model(trainer.model)
        is_adapter = self.config.adapter.is_adapter
        with other_attention(trained.get_base_model() if is_adapter else trained):
            super().save(trainer)


class SFT(Text):
    """Supervised fine-tuning: loss on the answers of each row, or on all of it."""

    def load(self, part: Part, limit: int | None) -> Rows:
        start = self.start
        return sft_rows(
            start.info, part, start.tokenizer, self.config, limit=limit, tell=start.reporter.tell
        )

    def lengths(self) -> list[int]:
        """Packed rows are nearly full."""
        if not self.config.training.packing:
            return self.rows.lengths
        full = self.config.training.max_length
        return [full] * -(-self.rows.tokens // full)

    @staticmethod
    def own_arguments(config: RunConfig) -> dict[str, Any]:
        return {"loss_type": config.training.sft_loss_type}

    def train_dataset(self) -> Dataset:
        training = self.config.training
        if not training.packing:
            return self.rows.dataset
        if training.packing_strategy == "bfd" and not self.no_padding:
            raise DataError(
                _(
                    "training.packing needs an attention that keeps packed rows apart, which this "
                    "model does not have with model.attn_implementation {name}.",
                    name=self.config.model.attn_implementation,
                ),
                _(
                    "Turn packing off, set attn_implementation to auto, or "
                    "training.packing_strategy to wrapped."
                ),
            )
        return packed(self.rows, training.max_length, training.packing_strategy)


def sft_rows(
    info: DatasetInfo,
    part: Part,
    tokenizer: Any,
    config: RunConfig,
    *,
    limit: int | None = None,
    tell: Tell | None = None,
) -> Rows:
    """The first `limit` rows of a part as LEARNED, cut at max_length. Raises as `load_rows`
    does."""
    found = _("The data set {name} holds {form} data", name=info.name, form=info.form)
    need_sft_form(info.form, found)

    def make(rows: list[dict[str, Any]]) -> list[Made]:
        tokenized = tokenize_all(
            rows,
            tokenizer,
            max_length=config.training.max_length,
            learn=Learn.of(config),
            system_prompt=config.data.system_prompt,
        )
        return [learned(row) for row in tokenized]

    return load_rows(info, part, config, LEARNED, make, limit=limit, tell=tell)


def packed(rows: Rows, max_length: int, strategy: str = "bfd") -> Dataset:
    """Rows put together until each is nearly `max_length` long (bfd: whole, with `seq_lengths`
    beside them; wrapped: cut where one is full)."""
    return pack_dataset(rows.dataset, max_length, strategy)


class CPT(Text):
    """Continued pre-training: every text with its end token, one behind the other, cut into blocks
    of max_length tokens."""

    def load(self, part: Part, limit: int | None) -> Rows:
        """The texts, whole; `open_model` cuts them."""
        start = self.start
        return whole_texts(
            start.info, part, start.tokenizer, self.config, limit=limit, tell=start.reporter.tell
        )

    def open_model(self) -> None:
        super().open_model()
        self._keep_apart_or_join()
        texts, longest = self.rows, self.config.training.max_length
        apart = self.config.text.documents == "apart"
        self.rows = in_blocks(texts, longest, apart=apart)
        counts = {"texts": len(texts.lengths), "blocks": len(self.rows.lengths), "length": longest}
        message = _("{texts:,} train texts make {blocks:,} blocks of {length} tokens.", **counts)
        if self.held_out:
            self.held_out = in_blocks(self.held_out, longest, apart=apart)
            message = _(
                "{texts:,} train texts make {blocks:,} blocks of {length} tokens; {held_out:,} "
                "blocks are held out.",
                **counts,
                held_out=len(self.held_out.lengths),
            )
        events = self.start.reporter.events
        if self.start.tokenizer.eos_token_id is None:
            warning = _("The tokenizer has no end token: texts follow each other without a mark.")
            events.write("log", level="warning", message=warning)
        events.write("log", level="info", message=message)

    def _keep_apart_or_join(self) -> None:
        """Chooses what becomes of several texts in one block."""
        if self.config.text.documents == "apart" and not self.no_padding:
            raise DataError(
                _(
                    "text.documents apart needs an attention that keeps texts apart, which this "
                    "model does not have with model.attn_implementation {name}.",
                    name=self.config.model.attn_implementation,
                ),
                _("Set text.documents to auto or joined, or attn_implementation to auto."),
            )
        choice = resolve.Choice(
            "text.documents",
            "apart" if self.no_padding else "joined",
            _("no text sees the one before it")
            if self.no_padding
            else _("this attention sees whole blocks"),
        )
        self.start.config = self.start.reporter.chosen(self.config, [choice])


def whole_texts(
    info: DatasetInfo,
    part: Part,
    tokenizer: Any,
    config: RunConfig,
    *,
    limit: int | None = None,
    tell: Tell | None = None,
) -> Rows:
    """The first `limit` texts of a part (input_ids), each with its end token. Raises as
    `load_rows` does."""

    def make(rows: list[dict[str, Any]]) -> list[Made]:
        made = [learned(row) for row in tokenize_all(rows, tokenizer, max_length=None)]
        return [one if isinstance(one, str) else [(one[0][0],)] for one in made]

    schema = pa.schema([("input_ids", IDS)])
    return load_rows(info, part, config, schema, make, limit=limit, tell=tell, columns=["text"])


def in_blocks(texts: Rows, max_length: int, *, apart: bool) -> Rows:
    """Texts (input_ids) behind each other, cut into blocks: rows of input_ids and labels, and with
    `apart` seq_lengths. No token is lost; the last block may be shorter.

    A label is the token itself, but -100 where nothing before it is seen: at a block's first
    token and, apart, at that of each text. Joined, a text is read after the one before it.
    """
    column = texts.dataset.data.table["input_ids"]
    ids = np.concatenate([chunk.flatten().to_numpy() for chunk in column.chunks])
    total = len(ids)
    starts = np.cumsum([0, *texts.lengths[:-1]])
    blocks = np.arange(0, total, max_length)
    if total - blocks[-1] == 1 and len(blocks) > 1:
        blocks[-1] -= 1  # a block of one token would teach nothing
    breaks = np.union1d(blocks, starts) if apart else blocks
    labels = ids.copy()
    labels[breaks] = NO_LOSS
    offsets = np.append(blocks, total)
    columns = {"input_ids": _lists(ids, offsets), "labels": _lists(labels, offsets)}
    if apart:
        lengths = np.diff(np.append(breaks, total)).astype(np.int32)
        columns["seq_lengths"] = _lists(lengths, np.searchsorted(breaks, blocks), len(breaks))
    return Rows(texts.part, Dataset(InMemoryTable(pa.table(columns))), texts.left_out)


def _lists(values: NDArray[np.int32], offsets: NDArray[Any], end: int | None = None) -> pa.Array:
    """A column of lists: the values from each offset to the next (the last one to `end`)."""
    bounds = offsets if end is None else np.append(offsets, end)
    return pa.ListArray.from_arrays(pa.array(bounds.astype(np.int32)), pa.array(values))
