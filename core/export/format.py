"""What a form of export says of itself. No torch: what a worker writes with is handed in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Protocol

from core.config import RunConfig
from core.export.base import Base
from core.methods import Makes
from core.models.trained import TrainedModel


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
