"""What a form of export says of itself, and the base of an exported model, as whoever gets it can
find it. No torch: what a worker writes with is handed in."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import yaml

from core.config import RunConfig
from core.methods import Makes
from core.models.origin import maker_of, own_base, read_origin
from core.models.starter import STARTER_MODELS, StarterModel
from core.models.trained import TrainedModel


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


class Exporting(Protocol):
    """An export at work: `folder` is where it is written, `dtype` that of its weights."""

    folder: Path
    trained: TrainedModel
    base: Base
    dtype: Any

    def tell(self, share: float, message: str) -> None: ...

    def open(self, path: str | Path) -> Any:
        """The model in a folder."""

    def on_base(self, adapter: Path) -> Any:
        """The base, loaded afresh, with an adapter on it."""


class Format(ABC):
    """One form of export; `core.export.formats` finds those that there are.

    `meaning` says what one gets, in a sentence or two. With `is_whole` it needs no base beside it
    and its weights have a type that can be chosen.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    meaning: ClassVar[str]
    place: ClassVar[int]  # in the order in which a person is offered them
    is_whole: ClassVar[bool]
    library: ClassVar[str]  # that loads it, and how the Hub calls its relation to the base
    relation: ClassVar[str]

    @abstractmethod
    def why_not(self, config: RunConfig) -> tuple[str, str] | None:
        """(why what such a run trained has no such form, what to do); None where it has."""

    @abstractmethod
    def size_bytes(self, trained: TrainedModel, whole_bytes: int) -> int:
        """How much it will take on the disk; `whole_bytes` is the size of the whole model."""

    @abstractmethod
    def write(self, work: Exporting, model: Any) -> None:
        """Writes the trained `model`, which may be changed; tokenizer and labels come after."""

    @abstractmethod
    def load(self, work: Exporting) -> Any:
        """The export as whoever gets it would load it."""

    def tags(self, config: RunConfig) -> list[str]:
        """What the card is tagged with beside the method."""
        return []

    @abstractmethod
    def what(self, of: str, data: str, config: RunConfig, dtype: str) -> str:
        """What it is, for the card: trained `of` a base on `data`."""

    @abstractmethod
    def loading(self, base: Base, makes: Makes) -> str:
        """How to load it, for the card: Markdown with code."""

    def needs(self, trained: TrainedModel) -> list[str]:
        """What else must be done before it is loaded, for the card."""
        return []


def auto_class(makes: Makes) -> str:
    """The class of transformers that opens a model that writes or fills gaps."""
    return "AutoModelForMaskedLM" if makes == "filler" else "AutoModelForCausalLM"


def scorer_code(model: str, more: str = "", peft: str = "") -> str:
    """Code that scores an answer with the model that the expression `model` loads; `more` lines
    come after it, imports of `peft` before everything."""
    return (
        f"{peft}from transformers import AutoModelForSequenceClassification, AutoTokenizer\n\n"
        'tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")\n'
        f"model = {model}{more}\n"
        "model.config.pad_token_id = tokenizer.pad_token_id\n"
        "turns = [\n"
        '    {"role": "user", "content": "A question"},\n'
        '    {"role": "assistant", "content": "An answer"},\n'
        "]\n"
        "text = tokenizer.apply_chat_template(turns, tokenize=False)\n"
        'inputs = tokenizer(text, add_special_tokens=False, return_tensors="pt")\n'
        "print(model.eval()(**inputs).logits.item())  # higher is better"
    )


HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


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
