"""Models that give labels: opened for training and for asking.

Weights come from safetensors alone and no code of a model's repository is run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification
from transformers.utils import logging as transformers_logging

from core.config import RunConfig
from core.errors import ModelError
from core.language import _, n_
from core.models.labels import Labels, labels_of
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

# PEFT trains and saves these in any case.
HEADS = ("classifier", "score")
# What a head is made of in the families that transformers has; never quantized.
_NOT_QUANTIZED = [*HEADS, "pooler", "pre_classifier", "head", "out_proj"]
_ROWS_AT_ONCE, _TOKENS_AT_ONCE = 32, 8192


def load_classifier(
    config: RunConfig, path: str | Path, labels: Labels, tokenizer: Any, *, device: str
) -> tuple[Any, list[str]]:
    """(a model with a head for these labels, the modules that the base's files have no weights
    for). A new head is drawn from the run's seed.

    A frozen base is held in the run's precision or quantized, one trained in full in 32 bits.
    Raises ModelError.
    """
    precision = config.training.precision
    quantization = quantization_config(config, precision)
    if quantization is not None:
        quantization.llm_int8_skip_modules = list(_NOT_QUANTIZED)
    model, new = _load(
        path,
        labels,
        seed=config.training.seed,
        revision=config.model.model_revision,
        dtype=DTYPES[precision if config.adapter.is_adapter else "fp32"],
        device_map=None if device == "cpu" and quantization is None else {"": device},
        quantization_config=quantization,
    )
    pad_alike(model, tokenizer)
    if config.adapter.method == "freeze":
        freeze(model, config.adapter, also=[*HEADS, *new])
    return keep_unpacked(model), new


def open_classifier(
    trained: TrainedModel, base_path: str, *, device: str, dtype: torch.dtype
) -> tuple[Any, Any, Labels]:
    """(model, tokenizer, labels) of a run's checkpoint, ready to be asked: of one that gives labels
    or, as a reward model, a score. Raises ModelError."""
    labels = labels_of(trained.config.method, trained.folder)
    assert labels is not None, "asked of models that give labels or scores"
    tokenizer = tokenizer_of(trained, base_path)
    if trained.adapter is None:
        model = open_with_head(trained.folder, labels, device=device, dtype=dtype)
    else:
        model = open_base_classifier(trained.config, base_path, labels, device=device, dtype=dtype)
    pad_alike(model, tokenizer)
    if trained.adapter is not None:
        model = with_adapter(model, trained.adapter)
    return model, tokenizer, labels


def open_base_classifier(
    config: RunConfig, path: str | Path, labels: Labels, *, device: str, dtype: torch.dtype
) -> Any:
    """The base of a run with a fresh head, quantized when the run's was."""
    precision = next(name for name, known in DTYPES.items() if known == dtype)
    quantization = quantization_config(config, precision)
    if quantization is None:
        revision, seed = config.model.model_revision, config.training.seed
        return open_with_head(
            path, labels, device=device, dtype=dtype, revision=revision, seed=seed
        )
    quantization.llm_int8_skip_modules = list(_NOT_QUANTIZED)
    model, _ = _load(
        path,
        labels,
        seed=config.training.seed,
        revision=config.model.model_revision,
        dtype=dtype,
        device_map={"": device},
        quantization_config=quantization,
    )
    return model.eval()


def open_with_head(
    path: str | Path,
    labels: Labels,
    *,
    device: str,
    dtype: torch.dtype,
    revision: str = "main",
    seed: int = 0,
) -> Any:
    """A model with a head for these labels: its own, or where it has none one from the seed."""
    model, _ = _load(path, labels, seed=seed, revision=revision, dtype=dtype)
    return model.to(device).eval()


def _load(path: str | Path, labels: Labels, *, seed: int, **options: Any) -> tuple[Any, list[str]]:
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # it would warn that the head is new
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model, told = AutoModelForSequenceClassification.from_pretrained(
                path,
                config=plain_config(path, options.get("revision", "main"), **labels.model_config()),
                trust_remote_code=False,
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # a base that gave other labels gets a new head
                output_loading_info=True,
                **options,
            )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelError(
            _(
                "The model {name} cannot be loaded to give labels: {reason}.",
                name=Path(path).name,
                reason=first_line(error),
            ),
            _(
                "It must be an encoder or a decoder that transformers can classify with, with "
                "its weights as safetensors."
            ),
        ) from error
    finally:
        transformers_logging.set_verbosity(verbosity)
    names = [*told["missing_keys"], *(str(item[0]) for item in told["mismatched_keys"])]
    return model, _modules(sorted(names))


def _modules(names: Sequence[str]) -> list[str]:
    """The modules of these parameters, those within PEFT's own heads left out."""
    modules = dict.fromkeys(name.rpartition(".")[0] for name in names)
    return [name for name in modules if name and not set(name.split(".")) & set(HEADS)]


def pad_alike(model: Any, tokenizer: Any) -> None:
    """Tells the model which token is padding: a decoder looks at the last one that is none."""
    if tokenizer.pad_token_id is None:
        raise ModelError(
            _("The model's tokenizer has no token to pad with."),
            _("Choose a model whose tokenizer has a padding, an end or an unknown token."),
        )
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    model.config.pad_token_id = tokenizer.pad_token_id


def longest_input(model: Any, tokenizer: Any, wanted: int) -> int:
    """How many tokens of a text the model gets: `wanted`, or fewer where it reads no more."""
    config = model.config.get_text_config()
    known = [
        number
        for number in (
            getattr(config, "max_position_embeddings", None),
            getattr(tokenizer, "model_max_length", None),
        )
        if isinstance(number, int) and 0 < number < 10**9
    ]
    return min([wanted, *known])


@torch.inference_mode()
def label_logits(
    model: Any,
    tokenizer: Any,
    rows: Sequence[list[int]],
    tell: Callable[[float], None] = lambda share: None,
) -> Any:
    """The scores of each tokenized text, float32 on the CPU: (rows, labels).

    Texts of like length go together, so that little of a batch is padding.
    """
    found = torch.zeros((len(rows), model.config.num_labels))
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]), reverse=True)
    done = 0
    while done < len(order):
        width = max(1, len(rows[order[done]]))
        batch = order[done : done + max(1, min(_ROWS_AT_ONCE, _TOKENS_AT_ONCE // width))]
        ids = torch.full((len(batch), width), int(tokenizer.pad_token_id))
        mask = torch.zeros((len(batch), width), dtype=torch.long)
        for place, i in enumerate(batch):
            ids[place, : len(rows[i])] = torch.tensor(rows[i])
            mask[place, : len(rows[i])] = 1
        output = model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device))
        found[batch] = output.logits.float().cpu()
        done += len(batch)
        tell(done / len(order))
    return found


def probabilities(logits: Any, labels: Labels) -> Any:
    """Of each label for each text: they add up to 1, or with several labels stand alone."""
    return logits.sigmoid() if labels.multi else logits.softmax(dim=-1)


def given(chances: Any, labels: Labels) -> Any:
    """Which labels each text is given, True or False: (texts, labels)."""
    if labels.multi:
        return chances >= labels.threshold
    return torch.nn.functional.one_hot(chances.argmax(dim=-1), len(labels.names)).bool()


def in_words(chances: Any, labels: Labels, most: int = 5) -> str:
    """The labels of one text with their probabilities, a line each, the most probable first.

    With several labels a text a first line says how many are given: those that come first.
    """
    order = chances.argsort(descending=True).tolist()
    lines: list[str] = [f"{labels.names[i]}: {100 * float(chances[i]):.1f} %" for i in order[:most]]
    if labels.multi:
        count = sum(float(chances[i]) >= labels.threshold for i in order)
        share = 100 * labels.threshold
        given = n_(
            "{n} label from {share:.0f} % on.",
            "{n} labels from {share:.0f} % on.",
            count,
            share=share,
        )
        lines.insert(0, given if count else _("No label from {share:.0f} % on.", share=share))
    if len(order) > most:
        lines.append(_("and {count} less probable", count=len(order) - most))
    return reduce(lambda told, line: _("{told}\n{line}", told=told, line=line), lines)


def text_ids(tokenizer: Any, texts: Sequence[str], longest: int) -> list[list[int]]:
    """The tokens of each text, its end cut off behind `longest`, with the tokenizer's own marks."""
    if not texts:
        return []
    encoded = tokenizer(list(texts), truncation=True, max_length=longest, verbose=False)
    return [list(ids) for ids in encoded["input_ids"]]
