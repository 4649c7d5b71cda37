"""What a form of export says of itself, and the base of an exported model, as whoever gets it can
find it. No torch: what a worker writes with is handed in."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import yaml

from core.config import RunConfig
from core.errors import ExportError
from core.language import N_, _
from core.methods import Makes
from core.models import modelscope
from core.models.origin import maker_of, own_base, read_origin
from core.models.starter import STARTER_MODELS, StarterModel
from core.models.trained import TrainedModel


@dataclass(frozen=True)
class Base:
    """The base model as the world knows it.

    `is_public` says that `name` is a Hub id; else it is one on ModelScope with `modelscope:` before
    it, or the name of a folder on the machine that trained. `license` is an SPDX id in lower case,
    "" where it is not known. `is_copy` says that the weights in use came from a quantized copy, not
    from the Hub. `made_of` names the first base where this one was made of it by other runs.
    """

    name: str
    is_public: bool
    license: str = ""
    is_copy: bool = False
    made_of: str = ""

    @property
    def is_of_modelscope(self) -> bool:
        return modelscope.is_named(self.name)

    @property
    def path(self) -> str:
        """What code for the card opens: the Hub id, or a place for a folder of one's own."""
        return self.name if self.is_public else f"path/to/{self.name.rpartition('/')[2]}"


@dataclass(frozen=True)
class Option:
    """What can be chosen of a form: one of `choices`, or with `several` one or more of them. Each
    is a name, a title and, where there is more to say, a sentence."""

    name: str
    title: str
    help: str
    choices: tuple[tuple[str, str], ...]
    default: tuple[str, ...]
    several: bool = False

    def read(self, given: Any) -> list[str]:
        """The names in what was chosen: a name, some of them, or None for the default. Raises
        ExportError for what there is not, and for none of them."""
        asked = (
            [given] if isinstance(given, str) else list(self.default if given is None else given)
        )
        if not asked:
            raise ExportError(_("Choose at least one."))
        known = [name for name, _title in self.choices]
        for name in asked:
            if name not in known:
                raise ExportError(
                    _("{name!r} is no choice for {option}.", name=name, option=self.name),
                    _("Take {names}.", names=", ".join(known)),
                )
        if len(asked) > 1 and not self.several:
            raise ExportError(_("Choose one {option}.", option=self.name))
        return [name for name in known if name in asked]


DTYPE = Option(
    "dtype",
    N_("Type of the weights"),
    N_("auto is the type of the base's weights."),
    (
        ("auto", "auto"),
        ("float32", "float32"),
        ("bfloat16", "bfloat16"),
        ("float16", "float16"),
    ),
    ("auto",),
)


@dataclass(frozen=True)
class Part:
    """One model in an export, checked and measured by itself: the file `file` in its folder, or
    the whole folder. `precision` names how its weights are held, and so how far its answers may be
    off (core.worker.export.check)."""

    file: str
    precision: str


class Exporting(Protocol):
    """An export at work: `folder` is where it is written, `dtype` that of a whole model's weights,
    `working_dtype` that in which models are compared; `chosen` holds what was chosen of each
    option."""

    folder: Path
    trained: TrainedModel
    base: Base
    tokenizer: Any
    chosen: dict[str, list[str]]

    @property
    def dtype(self) -> str: ...

    @property
    def working_dtype(self) -> str: ...

    def tell(self, share: float, message: str) -> None: ...

    def open(self, path: str | Path) -> Any:
        """The model in a folder."""

    def on_base(self, adapter: Path) -> Any:
        """The base, loaded afresh, with an adapter on it."""

    def add_tokenizer(self, folder: Path) -> None:
        """Writes the tokenizer and the labels."""

    def save_merged(self, model: Any, folder: Path) -> None:
        """Writes the trained `model` whole, with its tokenizer and labels; it is changed and must
        not be used again."""

    def save_in_bits(self, whole: Path, folder: Path, bits: str) -> None:
        """Writes the whole model in a folder again, its weights as "nf4", "int8",
        "torchao_int8" or "torchao_fp8"."""

    def open_in_bits(self, folder: Path) -> Any:
        """The model with such weights in a folder."""

    def convert(self, whole: Path, file: Path, outtype: str) -> None:
        """Writes the whole model in a folder as GGUF; `outtype` as llama.cpp's converter has it."""

    def quantize(self, source: Path, file: Path, kind: str) -> None:
        """Writes a GGUF file again with smaller weights, by llama.cpp's own quantizer."""

    def convert_adapter(self, whole: Path, file: Path) -> None:
        """Writes the adapter as GGUF; `whole` is a folder with its base's config and tokenizer."""

    def write_onnx(self, model: Any, files: dict[str, Path]) -> None:
        """Writes the trained `model`, a classifier, as ONNX, in the file of each kind (fp32, int8);
        it is changed and must not be used again."""

    def write_script(self, folder: Path) -> None:
        """Writes the run as a script with its rows and tokenizer. Raises ExportError when the data
        set is no longer there."""

    def in_onnxruntime(self, file: Path) -> Any:
        """The classifier in an ONNX file, opened by onnxruntime."""

    def in_llama_cpp(self, file: Path, adapter: Path | None = None) -> Any:
        """The model in a GGUF file, opened by llama.cpp."""


class Format(ABC):
    """One form of export; `core.export.formats` finds those that there are.

    `meaning` says what one gets, in a sentence or two. `options` is what can be chosen. `extra`
    names what has to be installed (core.setup.extras). With `is_whole` it needs no base beside it;
    without `is_model` it holds no weights, and there is nothing to compare.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    meaning: ClassVar[str]
    place: ClassVar[int]  # in the order in which a person is offered them
    is_whole: ClassVar[bool]
    is_model: ClassVar[bool] = True
    library: ClassVar[str]  # that loads it, and how the Hub calls its relation to the base
    relation: ClassVar[str]
    options: ClassVar[tuple[Option, ...]] = ()
    extra: ClassVar[str] = ""

    @abstractmethod
    def why_not(self, config: RunConfig) -> tuple[str, str] | None:
        """(why what such a run trained has no such form, what to do); None where it has."""

    @abstractmethod
    def size_bytes(self, trained: TrainedModel, parameters: int, dtype_bytes: int) -> int:
        """How much it will take on the disk while it is made; the whole model has so many
        `parameters`, of `dtype_bytes` each."""

    @abstractmethod
    def write(self, work: Exporting, model: Any) -> None:
        """Writes the trained `model`, which may be changed; None for a form that is no model."""

    def parts(self, work: Exporting) -> list[Part]:
        """What there is to check in what was written."""
        return [Part("", work.dtype if self.is_whole else work.working_dtype)]

    @abstractmethod
    def load(self, work: Exporting, part: Part) -> Any:
        """A part as whoever gets it would load it."""

    def tags(self, config: RunConfig) -> list[str]:
        """What the card is tagged with beside the method."""
        return []

    @abstractmethod
    def what(self, of: str, data: str, config: RunConfig, dtype: str) -> str:
        """What it is, for the card: trained `of` a base on `data`."""

    @abstractmethod
    def loading(self, base: Base, makes: Makes, parts: Sequence[Part] = ()) -> str:
        """How to load it, for the card: Markdown with code."""

    def needs(self, trained: TrainedModel) -> list[str]:
        """What else must be done before it is loaded, for the card."""
        return []


def writers_only(config: RunConfig) -> tuple[str, str] | None:
    """Why a run has no form that is for models that write and whose weights stand alone."""
    if config.training_method.makes != "writer":
        why = _("This run trained a model that does not write text.")
        return why, _("Export it as a merged model.")
    return prompt_reason(config)


def prompt_reason(config: RunConfig) -> tuple[str, str] | None:
    """Why virtual tokens have no form without their base."""
    if not config.adapter.is_prompt:
        return None
    kind = config.adapter.method.replace("_", " ")
    why = _(
        "This run learned virtual tokens ({kind}), which stand before each text: no "
        "weights of the base can hold them.",
        kind=kind,
    )
    return why, _("Export it as an adapter.")


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
    if modelscope.is_named(name):
        return Base(name, False, _license_in(folder / "README.md"))
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
