"""Encoders that fill gaps in a text: opened for training and for asking, their texts as tokens.

Weights come from safetensors alone and no code of a model's repository is run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForMaskedLM, DataCollatorForLanguageModeling
from transformers.utils import logging as transformers_logging

from core.config import RunConfig
from core.errors import ModelError
from core.language import _
from core.models.trainable import freeze
from core.models.trained import TrainedModel
from core.worker.models.loading import (
    DTYPES,
    first_line,
    keep_unpacked,
    plain_config,
    quantization_config,
    tokenizer_of,
    with_adapter,
)

# What the heads of the families that transformers has are made of; never quantized.
_NOT_QUANTIZED = ["cls", "lm_head", "head", "decoder", "predictions", "vocab_transform"]
_ROWS_AT_ONCE, _TOKENS_AT_ONCE = 32, 4096


def load_masked(
    config: RunConfig, path: str | Path, *, device: str, precision: str
) -> tuple[Any, list[str]]:
    """(an encoder with a head that guesses hidden tokens, the modules of it that the base's files
    have no weights for). Such modules are drawn from the run's seed.

    A frozen base is held in the run's precision or quantized, one trained in full in 32 bits.
    Raises ModelError.
    """
    quantization = quantization_config(config, precision)
    if quantization is not None:
        quantization.llm_int8_skip_modules = list(_NOT_QUANTIZED)
    model, new = _load(
        path,
        seed=config.training.seed,
        revision=config.model.model_revision,
        dtype=DTYPES[precision if config.adapter.is_adapter else "fp32"],
        device_map=None if device == "cpu" and quantization is None else {"": device},
        quantization_config=quantization,
    )
    if config.adapter.method == "freeze":
        freeze(model, config.adapter, also=new)
    return keep_unpacked(model), new


def open_masked_base(
    config: RunConfig, path: str | Path, *, device: str, dtype: torch.dtype
) -> Any:
    """The base of a run as the run had it, with the same head; quantized when the run's was."""
    if config.adapter.quantization == "none":
        revision, seed = config.model.model_revision, config.training.seed
        return open_masked(path, device=device, dtype=dtype, revision=revision, seed=seed)
    precision = next(name for name, known in DTYPES.items() if known == dtype)
    return load_masked(config, path, device=device, precision=precision)[0].eval()


def open_masked(
    path: str | Path, *, device: str, dtype: torch.dtype, revision: str = "main", seed: int = 0
) -> Any:
    """An encoder with its head, ready to be asked. Raises ModelError when it cannot be loaded."""
    model, _ = _load(path, seed=seed, revision=revision, dtype=dtype)
    return model.to(device).eval()


def open_trained_masked(
    trained: TrainedModel, base_path: str, *, device: str, dtype: torch.dtype
) -> tuple[Any, Any]:
    """(model, tokenizer) of a checkpoint of a run that learned to fill gaps. Raises ModelError."""
    tokenizer = tokenizer_of(trained, base_path)
    if trained.adapter is None:
        return open_masked(trained.folder, device=device, dtype=dtype), tokenizer
    model = open_masked_base(trained.config, base_path, device=device, dtype=dtype)
    return with_adapter(model, trained.adapter), tokenizer


def _load(path: str | Path, *, seed: int, **options: Any) -> tuple[Any, list[str]]:
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # it would warn that the head is new
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model, told = AutoModelForMaskedLM.from_pretrained(
                path,
                config=plain_config(path, options.get("revision", "main")),
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
                **options,
            )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelError(
            _(
                "The model {name} cannot be loaded to fill gaps: {reason}.",
                name=Path(path).name,
                reason=first_line(error),
            ),
            _("It must be an encoder such as BERT or ModernBERT, with its weights as safetensors."),
        ) from error
    finally:
        transformers_logging.set_verbosity(verbosity)
    return model, _drawn(model, told["missing_keys"])


def _drawn(model: Any, missing: Sequence[str]) -> list[str]:
    """The modules whose weights were drawn at random. Biases begin at 0 and those of the output
    layer are often the embeddings': both are the same at the next load without being saved."""
    output = model.get_output_embeddings()
    modules = {
        name.rpartition(".")[0]
        for name in missing
        if name.endswith(".weight") and model.get_submodule(name.rpartition(".")[0]) is not output
    }
    return sorted(modules)


def need_mask(tokenizer: Any, name: str) -> None:
    """Raises ModelError when a tokenizer has no mask to put in a token's place."""
    if tokenizer.mask_token_id is None:
        raise ModelError(
            _("The tokenizer of {name} has no mask token.", name=name),
            _("Choose an encoder that was trained to fill gaps, such as a BERT or ModernBERT."),
        )


def text_pieces(tokenizer: Any, texts: Sequence[str], longest: int) -> list[list[dict[str, Any]]]:
    """For each text its pieces of at most `longest` tokens, each with the tokenizer's own marks:
    input_ids, special_tokens_mask, and of a fast tokenizer offset_mapping. Nothing is cut off."""
    found: list[list[dict[str, Any]]] = [[] for _ in texts]
    if not texts:
        return found
    if not tokenizer.is_fast:
        return [_slow_pieces(tokenizer, text, longest) for text in texts]
    encoded = tokenizer(
        list(texts),
        truncation=True,
        max_length=longest,
        return_overflowing_tokens=True,
        return_special_tokens_mask=True,
        return_offsets_mapping=True,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )
    for place, text in enumerate(encoded["overflow_to_sample_mapping"]):
        special = list(encoded["special_tokens_mask"][place])
        if all(special):
            continue  # an empty text
        found[text].append(
            {
                "input_ids": list(encoded["input_ids"][place]),
                "special_tokens_mask": special,
                "offset_mapping": [list(pair) for pair in encoded["offset_mapping"][place]],
            }
        )
    return found


def _slow_pieces(tokenizer: Any, text: str, longest: int) -> list[dict[str, Any]]:
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    room = longest - tokenizer.num_special_tokens_to_add()
    pieces = []
    for start in range(0, len(ids), max(1, room)):
        whole = tokenizer.build_inputs_with_special_tokens(ids[start : start + room])
        special = tokenizer.get_special_tokens_mask(whole, already_has_special_tokens=True)
        pieces.append({"input_ids": list(whole), "special_tokens_mask": list(special)})
    return pieces


def masking(tokenizer: Any, config: RunConfig) -> DataCollatorForLanguageModeling:
    """What hides tokens, as the run's section `text` says."""
    section = config.text
    # Of hidden tokens one in ten stays, and one in ten becomes another; whole words all become
    # the mask.
    replaced, random = (1.0, 0.0) if section.whole_word_mask else (0.8, 0.1)
    return DataCollatorForLanguageModeling(
        tokenizer,
        mlm_probability=section.mlm_probability,
        whole_word_mask=section.whole_word_mask,
        mask_replace_prob=replaced,
        random_replace_prob=random,
    )


def hidden(piece: dict[str, Any], masks: DataCollatorForLanguageModeling, seed: int) -> Any:
    """(input_ids, labels) of a piece with some of its tokens hidden: the same ones for the same
    seed, and at least one."""
    masks.generator = torch.Generator().manual_seed(seed)
    batch = masks([dict(piece)])
    ids, labels = batch["input_ids"][0].tolist(), batch["labels"][0].tolist()
    if all(label == -100 for label in labels):
        free = [i for i, special in enumerate(piece["special_tokens_mask"]) if not special]
        place = free[seed % len(free)]
        labels[place] = piece["input_ids"][place]
        ids[place] = masks.tokenizer.mask_token_id
    return ids, labels


@torch.inference_mode()
def hidden_losses(
    model: Any,
    tokenizer: Any,
    rows: Sequence[tuple[list[int], list[int]]],
    tell: Callable[[float], None] = lambda share: None,
) -> list[float]:
    """The summed -ln p of the hidden tokens of each row of (input_ids, labels), in nats."""
    found = [0.0] * len(rows)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i][0]), reverse=True)
    done = 0
    while done < len(order):
        width = len(rows[order[done]][0])
        batch = order[done : done + max(1, min(_ROWS_AT_ONCE, _TOKENS_AT_ONCE // width))]
        logits, labels = _scored(model, tokenizer, [rows[i] for i in batch])
        losses = torch.nn.functional.cross_entropy(
            logits.transpose(1, 2), labels, ignore_index=-100, reduction="none"
        )
        for i, loss in zip(batch, losses.double().sum(dim=1).tolist(), strict=True):
            found[i] = loss
        done += len(batch)
        tell(done / len(order))
    return found


@torch.inference_mode()
def hidden_logits(model: Any, tokenizer: Any, rows: Sequence[tuple[list[int], list[int]]]) -> Any:
    """The scores at the hidden tokens of all rows, float32 on the CPU: (tokens, vocabulary)."""
    found = []
    for row in rows:
        logits, labels = _scored(model, tokenizer, [row])
        found.append(logits[labels != -100].cpu())
    return torch.cat(found)


def _scored(model: Any, tokenizer: Any, rows: Sequence[tuple[list[int], list[int]]]) -> Any:
    """(logits in 32 bits, labels) of a padded batch."""
    width = max(len(ids) for ids, _ in rows)
    batch = torch.full((len(rows), width), int(tokenizer.pad_token_id))
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    labels = torch.full((len(rows), width), -100)
    for place, (ids, wanted) in enumerate(rows):
        batch[place, : len(ids)] = torch.tensor(ids)
        mask[place, : len(ids)] = 1
        labels[place, : len(ids)] = torch.tensor(wanted)
    device = model.device
    logits = model(input_ids=batch.to(device), attention_mask=mask.to(device)).logits
    return logits.float(), labels.to(device)


@torch.inference_mode()
def guesses(model: Any, tokenizer: Any, text: str, longest: int, most: int = 5) -> list[list[Any]]:
    """For each mask in a text the most probable tokens: [[(token, probability), ...], ...].

    Raises ModelError when the text has no mask, or is too long.
    """
    ids = tokenizer(text, truncation=False, verbose=False)["input_ids"]
    places = [place for place, token in enumerate(ids) if token == tokenizer.mask_token_id]
    if not places:
        raise ModelError(
            _(
                "There is no gap to fill: the text has no {mask}.",
                mask=tokenizer.mask_token,
            ),
            _("Put {mask} where a word is to be guessed.", mask=tokenizer.mask_token),
        )
    if len(ids) > longest:
        raise ModelError(
            _(
                "The text has {tokens} tokens, and the model reads {longest}.",
                tokens=len(ids),
                longest=longest,
            ),
            _("Shorten it."),
        )
    rows = torch.tensor([ids], device=model.device)
    logits = model(input_ids=rows, attention_mask=torch.ones_like(rows)).logits[0, places]
    found = []
    for chances in logits.float().softmax(dim=-1):
        top = chances.topk(min(most, len(chances)))
        found.append(
            [
                (tokenizer.decode([token]).strip(), float(chance))
                for chance, token in zip(top.values, top.indices.tolist(), strict=True)
            ]
        )
    return found


def gap_rows(
    tokenizer: Any, config: RunConfig, texts: Sequence[str], longest: int, most: int = 16
) -> list[tuple[list[int], list[int]]]:
    """(input_ids, labels) of the first pieces of some texts, with some of their tokens hidden."""
    masks = masking(tokenizer, config)
    longest = min(longest, config.training.max_length)
    pieces = [piece for pieces in text_pieces(tokenizer, texts, longest) for piece in pieces]
    return [hidden(piece, masks, number) for number, piece in enumerate(pieces[:most])]
