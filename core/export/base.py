"""The base of an exported model, as whoever gets it can find it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import yaml

from core.models.origin import maker_of, own_base, read_origin
from core.models.starter import STARTER_MODELS, StarterModel
from core.models.trained import TrainedModel

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Base:
    """The base model as the world knows it.

    `is_public` says that `name` is a Hub id; else it is the name of a folder on the machine that
    trained. `license` is an SPDX id in lower case, "" where it is not known. `is_copy` says that
    the weights in use came from a quantized copy, not from the Hub. `made_of` names the first base
    where this one was made of it by other runs.
    """

    name: str
    is_public: bool
    license: str = ""
    is_copy: bool = False
    made_of: str = ""


def base_of_run(trained: TrainedModel, loaded_from: str) -> Base:
    """The base of a run; one that another run made is known by that run's id."""
    origin, first = read_origin(trained.run), trained.config.model.model_name_or_path
    if origin is None or own_base(trained.run) is None:
        return describe_base(first, loaded_from)
    known = describe_base(first, first)
    return Base(maker_of(origin).run, False, known.license, made_of=known.name)


def describe_base(name: str, loaded_from: str) -> Base:
    """The base that a run calls `name` and that was loaded from a folder or the Hub."""
    starter = _starter(name)
    if starter is not None:
        # A model's folder from the Hub lies in its cache, named by commit.
        from_wheel = Path(loaded_from).name == starter.name
        is_copy = from_wheel and starter.source.member.endswith(".gguf")
        return Base(starter.hub_id, True, starter.license.lower(), is_copy)
    folder = Path(loaded_from)
    if folder.is_dir():
        return Base(folder.name, False, _license_in(folder / "README.md"))
    return Base(name, bool(HUB_ID.fullmatch(name)))


def _starter(name: str) -> StarterModel | None:
    return next((m for m in STARTER_MODELS.values() if name in (m.name, m.hub_id)), None)


def _license_in(readme: Path) -> str:
    """The licence that a model card's front matter names."""
    try:
        text = readme.read_text(encoding="utf-8", errors="replace")
        values = yaml.safe_load(text.split("---")[1]) if text.startswith("---") else None
    except (OSError, IndexError, yaml.YAMLError):
        return ""
    return str(values.get("license") or "").lower() if isinstance(values, dict) else ""
