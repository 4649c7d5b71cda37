"""Models and data sets on the Hub, and models on ModelScope, found by words: those alone that can
be used here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core.hub.answers import client, endpoint, not_the_hub, told_plainly
from core.models import modelscope

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
# ModelScope says these in names and tags alone; it gives so many at once.
_NOT_TRAINED = frozenset({"gguf", "mlx", "gptq", "awq", "lora"})
_MOST_OF_MODELSCOPE = 50
_FORMATS = frozenset(
    f"format:{name}" for name in ("parquet", "optimized-parquet", "json", "csv", "arrow", "text")
)


@dataclass(frozen=True)
class Found:
    """A repository; `size_bytes` is that of a model's weights or of all files of a data set or on
    ModelScope, None where nobody says. `gated`: its owner gives access on request, at `url`."""

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
    from huggingface_hub import get_session
    from huggingface_hub.utils._headers import build_hf_headers
    from huggingface_hub.utils._http import hf_raise_for_status

    own = ["library_name", "pipeline_tag", "safetensors"] if kind == MODEL else ["mainSize"]
    asked: dict[str, Any] = {
        "search": words.strip(),
        "filter": "safetensors" if kind == MODEL else "modality:text",
        "expand": ["downloads", "gated", "tags", *own],
        "sort": "downloads",
        "limit": _LOOKED_AT,
    }
    client()  # sets the limits of time, which its own search does without
    try:
        with told_plainly():
            headers = build_hf_headers()
            answer = get_session().get(f"{endpoint()}/api/{kind}s", params=asked, headers=headers)
            hf_raise_for_status(answer)
            usable = [one for one in answer.json() if _is_usable(one, kind)]
    except (AttributeError, TypeError) as error:  # it is no list of repositories
        raise not_the_hub() from error
    return [_found(one, kind) for one in usable[:MOST]]


def search_modelscope(words: str) -> list[Found]:
    """The same of models on ModelScope, by the names that they have here. It does not say which
    have safetensors. Raises ModelError, and SetupError without its package."""
    found = []
    for one in modelscope.search(words, _MOST_OF_MODELSCOPE):
        name = f"{modelscope.PREFIX}{one.get('id')}"
        tags = {*map(str, one.get("tags") or ())}
        marks = {*re.split(r"[^a-z0-9]+", f"{name} {' '.join(tags)}".lower())}
        tasks = {*(one.get("tasks") or ())}
        if tasks and not tasks & _TASKS or marks & _NOT_TRAINED:
            continue
        found.append(
            Found(
                repo_id=name,
                kind=MODEL,
                size_bytes=one.get("file_size") or None,
                parameters=one.get("params") or None,
                licence=str(one.get("license") or "").lower(),
                downloads=one.get("downloads") or 0,
                gated=bool(one.get("gated")),
                url=modelscope.page_of(name),
            )
        )
    return found[:MOST]


def page_of(repo_id: str, kind: str = MODEL) -> str:
    """The page of a repository, where access to a gated one is asked for."""
    return f"{endpoint()}/{'datasets/' if kind == DATASET else ''}{repo_id}"


def _is_usable(one: Mapping[str, Any], kind: str) -> bool:
    tags = {*(one.get("tags") or ())}
    if kind == DATASET:
        return bool(tags & _FORMATS)
    library = one.get("library_name")
    return (
        one.get("pipeline_tag") in _TASKS
        and bool({library, *tags} & _LIBRARIES)
        and library != "peft"
        and not tags & _UNUSABLE
        and not any(tag.startswith("base_model:adapter:") for tag in tags)
    )


def _found(one: Mapping[str, Any], kind: str) -> Found:
    weights = one.get("safetensors") or {}
    size = one.get("mainSize") if kind == DATASET else _bytes(weights.get("parameters") or {})
    licences = (tag[8:] for tag in one.get("tags") or () if tag.startswith("license:"))
    return Found(
        repo_id=one["id"],
        kind=kind,
        size_bytes=size,
        parameters=weights.get("total"),
        licence=next(licences, ""),
        downloads=one.get("downloads") or 0,
        gated=bool(one.get("gated")),
        url=page_of(one["id"], kind),
    )


def _bytes(parameters: Mapping[str, int]) -> int | None:
    """What weights take, by the bits of their types: BF16, F8_E4M3, BOOL."""
    size = sum(
        count * int(bits[0] if (bits := re.search(r"\d+", name)) else 8)
        for name, count in parameters.items()
    )
    return size // 8 or None
