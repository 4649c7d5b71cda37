"""A run that adds tokens: its tokenizer before the rows are read, its model before it is wrapped,
the adapter that trains the new rows, and what stands beside each checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftConfig
from transformers import TrainerCallback

from core.errors import TrainingError
from core.language import _
from core.models.origin import own_adapter
from core.models.trained import NewTokens, read_new_tokens
from core.tokens.words import add_tokens
from core.worker.models.loading import grow, make_room
from core.worker.training.beginning import Beginning


def add_new_tokens(start: Beginning) -> None:
    """Adds the run's new tokens to its tokenizer and says so."""
    wanted, events = start.config.vocabulary.new_tokens, start.reporter.events
    pieces = start.new_pieces = add_tokens(start.tokenizer, wanted)
    known = [token for token in wanted if token not in pieces]
    if known:
        message = _("The tokenizer has these already: {tokens}.", tokens=", ".join(known[:10]))
        events.write("log", level="warning", message=message)
    if pieces:
        most = max(pieces, key=lambda token: len(pieces[token]))
        message = _(
            "{count} new tokens, such as {token}, which was {pieces} tokens before. Each "
            "begins at the mean of its former pieces.",
            count=len(pieces),
            token=most,
            pieces=len(pieces[most]),
        )
        events.write("log", level="info", message=message)


def make_room_for_new_tokens(model: Any, start: Beginning) -> None:
    """Gives the model rows for the run's new tokens, or for those of the adapter that it trains
    further."""
    begun = own_adapter(start.run)
    earlier = read_new_tokens(begun) if begun else None
    if earlier is not None:
        if start.new_pieces:
            raise TrainingError(
                _(
                    "The adapter that is trained further has new tokens of its own, and no more "
                    "can be added to it."
                ),
                _("Let the run begin with the other one merged, or take the new tokens out."),
            )
        grow(model, earlier)
        start.new_tokens = earlier
        return
    if not start.new_pieces:
        return
    before = int(model.get_input_embeddings().weight.shape[0])
    found = start.new_tokens = make_room(model, start.tokenizer, start.new_pieces)
    message = (
        _("The embeddings grew from {before:,} to {rows:,} rows.", before=before, rows=found.rows)
        if found.rows > before
        else _("The embeddings have room for them: they keep their {before:,} rows.", before=before)
    )
    start.reporter.events.write("log", level="info", message=message)


def with_new_tokens(adapter: PeftConfig | None, model: Any, start: Beginning) -> PeftConfig | None:
    """The adapter's config, which also trains the new rows, or the whole embeddings.

    Raises TrainingError for a model whose output layer it cannot train alone.
    """
    tokens = start.new_tokens
    if tokens is None or adapter is None:
        return adapter
    assert isinstance(adapter, LoraConfig), "the rules let no other kind through"
    output = model.get_output_embeddings()
    source = model.get_input_embeddings()
    tied = output is None or output.weight.data_ptr() == source.weight.data_ptr()
    names = [_name(model, source)] if tied else [_name(model, source), _name(model, output)]
    if start.config.vocabulary.train == "embeddings":
        adapter.modules_to_save = [*(adapter.modules_to_save or []), *names]
        adapter.ensure_weight_tying = tied
        return adapter
    if getattr(output, "bias", None) is not None:
        raise TrainingError(
            _(
                "The output layer of this model has a bias, which PEFT would leave out while it "
                "trains the new tokens' rows alone."
            ),
            _("Set vocabulary.train to embeddings."),
        )
    adapter.trainable_token_indices = {name: list(tokens.ids.values()) for name in names}
    return adapter


def _name(model: Any, layer: Any) -> str:
    return str(next(name for name, module in model.named_modules() if module is layer))


class KeepNewTokens(TrainerCallback):
    """Puts what the run knows of its new tokens beside each checkpoint's weights."""

    def __init__(self, tokens: NewTokens) -> None:
        self._tokens = tokens

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        # PEFT would compare the vocabulary with that of this base, and save all embeddings with
        # each checkpoint because it has grown.
        for adapter in getattr(given["model"], "peft_config", {}).values():
            adapter.base_model_name_or_path = ""

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if folder.is_dir() and args.should_save:
            self._tokens.save(folder)
