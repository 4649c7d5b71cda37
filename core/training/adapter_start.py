"""What an adapter needs between the trainer's making and its first step: initial weights that ask
the run's own rows, words or base, an optimizer with two rates, and ranks that are taken away."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import PeftModel, get_peft_model_state_dict, initialize_lora_eva_weights
from peft.optimizers import create_loraplus_optimizer
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from core.config.adapter import FROM_BASE
from core.errors import TrainingError
from core.models.origin import own_adapter
from core.training.adapter_ranks import AllocateRanks
from core.training.attention import other_attention
from core.training.watched import same_randomness

if TYPE_CHECKING:
    from core.training.setup import Beginning

# The columns in which a prepared data set holds a whole text's tokens, and their labels.
_COLUMNS = (("input_ids", "labels"), ("chosen_input_ids", "chosen_labels"))
# EVA reads so many tokens at once, at least; more for high ranks, whose directions it compares.
_EVA_TOKENS = 512
# It has long found its directions by then.
_EVA_BATCHES = 2000


def start_adapter(trainer: Any, start: Beginning) -> list[TrainerCallback]:
    """Readies the adapter of a trainer that was just made; the callbacks that its kind needs.

    Raises Stopped or a TunesmithError.
    """
    adapter, model = start.config.adapter, trainer.model
    if not isinstance(model, PeftModel):
        return []
    if adapter.method != "lora":
        _in_full_precision(model)
    goes_on = own_adapter(start.run) is not None  # its weights come from another run
    if adapter.method == "lora" and adapter.init_lora_weights == "eva" and not goes_on:
        _look_at_rows(trainer, start)
    if adapter.method == "lora" and adapter.init_lora_weights in FROM_BASE:
        _keep_beginning(model, start)
    if adapter.method == "prompt_tuning" and adapter.prompt_tuning_init == "TEXT" and not goes_on:
        _begin_with_words(model, start)
    if adapter.method == "lora" and adapter.loraplus_lr_ratio is not None:
        trainer.optimizer = _two_rates(trainer, adapter.loraplus_lr_ratio)
    return [AllocateRanks(model)] if adapter.method == "adalora" else []


def _in_full_precision(model: Any) -> None:
    """TRL puts what is trained on a quantized base into bf16, as QLoRA's paper has it. Other kinds
    than LoRA were not made for it: their layers mix the types, or round their steps away."""
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.is_floating_point():
            parameter.data = parameter.data.float()


def beginning_of(start: Beginning) -> Path:
    """Where an adapter that took a part out of the base is kept as it began."""
    return start.run.root / "adapter_beginning"


def _keep_beginning(model: Any, start: Beginning) -> None:
    """Keeps the adapter as it begins: what it took out of the base has to be told at the end.

    A run that goes on finds it kept already; its weights are those of a fresh beginning.
    """
    place = beginning_of(start)
    if place.is_dir():
        return
    making = place.with_name(f".{place.name}.making")
    shutil.rmtree(making, ignore_errors=True)
    settings = model.peft_config["default"]
    begin = settings.init_lora_weights
    settings.init_lora_weights = True  # to be laid on the base as it is, without a second cut
    try:
        model.save_pretrained(str(making), save_embedding_layers=False)
    finally:
        settings.init_lora_weights = begin
    making.rename(place)


def _look_at_rows(trainer: Any, start: Beginning) -> None:
    """EVA: each adapter begins with the directions in which the run's rows differ most at its
    layer (Paischer et al. 2024)."""
    start.reporter.doing("Looking at the rows for EVA")
    settings = trainer.model.peft_config["default"]
    ranks = [settings.r, *settings.rank_pattern.values()]
    most = max(_EVA_TOKENS, int(4 * max(ranks) * settings.eva_config.rho))
    batches = list(_eva_batches(trainer.train_dataset, start.tokenizer.pad_token_id or 0, most))
    tokens = sum(int(batch["attention_mask"].sum()) for batch in batches)
    if tokens < most // 2:
        raise TrainingError(
            f"EVA needs about {most} tokens to find {max(ranks)} directions; the rows have "
            f"{tokens}.",
            "Lower adapter.r, take more rows, or set adapter.init_lora_weights to default.",
        )
    seen = 0

    def forward(model: Any, inputs: Any) -> Any:
        nonlocal seen
        seen += 1
        start.reporter.check_stop()
        if seen > _EVA_BATCHES:
            raise TrainingError(
                f"EVA found no steady directions in {_EVA_BATCHES} batches.",
                "Lower adapter.r, or set adapter.init_lora_weights to default.",
            )
        given = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        with trainer.accelerator.autocast():
            return model(**given)

    causal = trainer.model.get_base_model()
    with same_randomness(), other_attention(causal):
        torch.manual_seed(start.config.training.seed)
        initialize_lora_eva_weights(
            trainer.model, batches, forward_fn=forward, show_progress_bar=False
        )
    start.reporter.note(
        "adapter.init_lora_weights", "eva", f"directions of {tokens} tokens, found in {seen} looks"
    )


def _eva_batches(rows: Any, pad: int, tokens: int) -> Iterator[dict[str, torch.Tensor]]:
    """Batches of the prepared rows, padded on the right, each of at least so many tokens (the last
    joins the one before), up to 64 of them."""
    names = next((pair for pair in _COLUMNS if pair[0] in rows.column_names), None)
    if names is None:
        raise TrainingError(
            "EVA needs rows that are tokenized before the training, which this method has not.",
            "Set adapter.init_lora_weights to default.",
        )
    batch: list[tuple[list[int], list[int]]] = []
    batches: list[list[tuple[list[int], list[int]]]] = []
    for row in rows:
        ids = list(row[names[0]])
        labels = row.get(names[1])
        # A classifier's labels are those of the text, not of its tokens.
        of_tokens = isinstance(labels, list) and len(labels) == len(ids)
        batch.append((ids, list(labels) if of_tokens else ids))
        if sum(len(one) for one, _ in batch) >= tokens:
            batches.append(batch)
            batch = []
        if len(batches) == 64:
            break
    if batch:
        batches = [*batches[:-1], [*batches[-1], *batch]] if batches else [batch]
    for part in batches:
        width = max(len(ids) for ids, _ in part)
        filled = {"input_ids": pad, "attention_mask": 0, "labels": -100}
        made = {name: torch.full((len(part), width), value) for name, value in filled.items()}
        for place, (ids, labels) in enumerate(part):
            made["input_ids"][place, : len(ids)] = torch.tensor(ids)
            made["attention_mask"][place, : len(ids)] = 1
            made["labels"][place, : len(ids)] = torch.tensor(labels)
        yield made


def _begin_with_words(model: Any, start: Beginning) -> None:
    """Virtual tokens begin as the words of the text, repeated or cut to their number."""
    adapter = start.config.adapter
    ids = start.tokenizer(adapter.prompt_tuning_init_text, add_special_tokens=False)["input_ids"]
    if not ids:
        raise TrainingError(
            "The text that the virtual tokens begin with has no tokens.",
            "Write a text in adapter.prompt_tuning_init_text.",
        )
    wanted = (list(ids) * -(-adapter.num_virtual_tokens // len(ids)))[: adapter.num_virtual_tokens]
    place = model.prompt_encoder["default"].embedding.weight
    with torch.no_grad():
        words = model.word_embeddings(torch.tensor(wanted, device=place.device))
        place.copy_(words.to(place.dtype))


def _two_rates(trainer: Any, ratio: float) -> Any:
    """LoRA+: the run's optimizer, with a higher rate for each second matrix (Hayou et al. 2024)."""
    args = trainer.args
    made, options = trainer.get_optimizer_cls_and_kwargs(args, trainer.model)
    options.pop("params", None)
    return create_loraplus_optimizer(
        trainer.model,
        made,
        loraplus_lr_ratio=ratio,
        loraplus_weight_decay=args.weight_decay,
        loraplus_lr_embedding=args.learning_rate,
        **{**options, "lr": args.learning_rate},
    )


def save_adapter(model: Any, folder: Path, start: Beginning, *, embeddings: bool) -> None:
    """Writes the adapter so that it fits the base as others have it.

    One that began with a part of the base is written as the difference from how it began: a plain
    LoRA of twice the rank. What LoftQ's rounding of the base lost beside that stays lost.
    """
    options: dict[str, Any] = {"save_embedding_layers": embeddings}
    beginning = beginning_of(start)
    if not beginning.is_dir():
        model.save_pretrained(str(folder), **options)
        return
    model.save_pretrained(
        str(folder), path_initial_model_for_weight_conversion=str(beginning), **options
    )
    # PEFT writes the difference alone, without what was trained beside the adapter.
    file = folder / SAFETENSORS_WEIGHTS_NAME
    difference = load_file(file)
    beside = {
        name: value.contiguous()
        for name, value in get_peft_model_state_dict(model, **options).items()
        if "lora_A" not in name and "lora_B" not in name
    }
    save_file({**beside, **difference}, file, metadata={"format": "pt"})
