"""Models and data sets on the Hub, found by words: those alone that can be used here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from core.hub.answers import client, endpoint, not_the_hub, told_plainly

MODEL, DATASET = "model", "dataset"
MOST = 12

# Of the answers to the words, how many are looked at for those that can be used.
_LOOKED_AT = 100
# What a model is for, as the Hub calls it: models that write, that fill in, and encoders.
_TASKS = frozenset(
    {
        "text-generation",
        "fill-mask",
        "feature-extraction",
        "sentence-similarity",
        "text-classification",
        "token-classification",
    }
)
_LIBRARIES = frozenset({"transformers", "sentence-transformers"})
# Code of their own is never run, adapters are no models, and weights for other programs or of these
# quantizations cannot be trained.
_UNUSABLE = frozenset({"custom_code", "mlx", "gptq", "awq", "compressed-tensors"})
_FORMATS = frozenset(
    f"format:{name}" for name in ("parquet", "optimized-parquet", "json", "csv", "arrow", "text")
)


@dataclass(frozen=True)
class Found:
    """A repository; `size_bytes` is that of a model's weights or of a data set's files, None where
    the Hub does not say. `gated`: its owner gives access on request, at `url`."""

    repo_id: str
    kind: str
    size_bytes: int | None
    parameters: int | None
    licence: str
    downloads: int
    gated: bool
    url: str


def search(words: str, kind: str = MODEL) -> list[Found]:
    """The repositories that have the words in their name, those that are downloaded most first; at
    most 12. Raises HubError when the Hub refuses or does not answer."""
    asked: dict[str, Any] = {"search": words.strip(), "sort": "downloads", "limit": _LOOKED_AT}
    told: list[Any] = ["downloads", "gated", "tags"]
    try:
        with told_plainly():
            if kind == DATASET:
                found: Iterable[Any] = client().list_datasets(
                    filter="modality:text", expand=[*told, "mainSize"], **asked
                )
            else:
                found = client().list_models(
                    filter="safetensors",
                    expand=[*told, "library_name", "pipeline_tag", "safetensors"],
                    **asked,
                )
            usable = [one for one in found if _is_usable(one, kind)]
    except (AttributeError, KeyError, TypeError) as error:  # it is no list of repositories
        raise not_the_hub() from error
    return [_found(one, kind) for one in usable[:MOST]]


def page_of(repo_id: str, kind: str = MODEL) -> str:
    """The page of a repository, where access to a gated one is asked for."""
    return f"{endpoint()}/{'datasets/' if kind == DATASET else ''}{repo_id}"


def _is_usable(one: Any, kind: str) -> bool:
    tags = {*(one.tags or ())}
    if kind == DATASET:
        return bool(tags & _FORMATS)
    return (
        one.pipeline_tag in _TASKS
        and bool({one.library_name, *tags} & _LIBRARIES)
        and one.library_name != "peft"
        and not tags & _UNUSABLE
        and not any(tag.startswith("base_model:adapter:") for tag in tags)
    )


def _found(one: Any, kind: str) -> Found:
    weights = one.safetensors if kind == MODEL else None
    tags = one.tags or ()
    return Found(
        repo_id=one.id,
        kind=kind,
        size_bytes=one.main_size if kind == DATASET else _bytes(weights),
        parameters=weights.total if weights else None,
        licence=next((tag[8:] for tag in tags if tag.startswith("license:")), ""),
        downloads=one.downloads or 0,
        gated=bool(one.gated),
        url=page_of(one.id, kind),
    )


def _bytes(weights: Any) -> int | None:
    """What the weights take, by the bits of their types: BF16, F8_E4M3, BOOL."""
    counts: Mapping[str, int] = weights.parameters if weights else {}
    bits = {name: re.search(r"\d+", name) for name in counts}
    size = sum(n * (int(bit[0]) if (bit := bits[name]) else 8) for name, n in counts.items())
    return size // 8 or None
