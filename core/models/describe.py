"""What a model is, read from its config.json and the headers of its safetensors: no torch, no
weights. A 7B model's headers are some kilobytes.

A base comes without a head for labels: transformers draws it at random, and each run trains all of
it. Its size is that of the family's `...ForSequenceClassification`.
"""

from __future__ import annotations

import json
import math
import re
import struct
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from core.config import RunConfig
from core.config.adapter import AdapterSection
from core.errors import ModelError, reason_of
from core.language import _
from core.models.trainable import (
    is_chosen_layer,
    module_parameters,
    prompt_parameters,
    trained_names,
)

Shape = tuple[int, ...]

# A longer header than this is no safetensors file (bytes; the format's own limit).
_LONGEST_HEADER = 100_000_000
# Two-dimensional weights that are looked up, not multiplied: no linear layers.
_LOOKUP = re.compile(r"embed|(^|\.)(wte|wpe|shared|relative_attention_bias)$")
_OUTPUT = re.compile(r"(^|\.)(lm_head|embed_out|output|score|classifier)$")
_INPUT = re.compile(r"(^|\.)(embed_tokens|wte|embed_in|word_embeddings)\.weight$")
# The experts of a mixture, which transformers fuses into other parameters as it loads them.
_EXPERT = re.compile(r"\.experts\.")
# These keep their linear weights as (in, out).
_TRANSPOSED = ("GPT2", "OpenAIGPT")


@dataclass(frozen=True)
class ModelFacts:
    """A model as its files describe it; None where they do not say.

    `shapes` has the shape of every parameter by its full name. `exact` is False when there are no
    safetensors and shapes were worked out from config.json instead. `key_value_size` is the width
    of all keys of a layer, and of all values.
    """

    name: str
    architecture: str
    parameters: int | None
    hidden_size: int | None
    num_layers: int | None
    vocab_size: int | None
    dtype: str
    linear_modules: list[str]
    max_position_embeddings: int | None
    has_chat_template: bool
    key_value_size: int | None = None
    exact: bool = True
    shapes: dict[str, Shape] = field(default_factory=dict, repr=False, compare=False)

    @property
    def is_transposed(self) -> bool:
        """Whether its linear layers keep their weights as (in, out), as GPT-2's Conv1D does."""
        return self.architecture.startswith(_TRANSPOSED)

    @property
    def is_mixture(self) -> bool:
        """Whether it has experts, which transformers fuses into other parameters."""
        return any(_EXPERT.search(name) for name in self.shapes)

    @property
    def module_names(self) -> set[str]:
        """The last part of every module's name: what target_modules may name."""
        return {name.rpartition(".")[0].rpartition(".")[2] for name in self.shapes}


def describe_model(path: str | Path) -> ModelFacts:
    """The facts of the model in a folder. Raises ModelError if it holds none."""
    folder = Path(path)
    config = _read_json(folder / "config.json")
    shapes, dtype = _header_shapes(folder)
    exact = bool(shapes) and "quantization_config" not in config
    if not exact:
        shapes = _config_shapes(config, config.get("text_config") or config)
    facts = facts_of(folder.name, config, shapes, dtype)
    return replace(facts, exact=exact, has_chat_template=_has_chat_template(folder))


def facts_of(name: str, config: dict[str, Any], shapes: dict[str, Shape], dtype: str) -> ModelFacts:
    """The facts of a model by its config.json and the shapes of its parameters; `dtype` is that of
    most of them, for a config that does not say."""
    text = config.get("text_config") or config
    if _tied(config, text):
        shapes = {name: shape for name, shape in shapes.items() if not _is_output(name)}
    return ModelFacts(
        name=name,
        architecture=str((config.get("architectures") or ["unknown"])[0]),
        parameters=sum(math.prod(shape) for shape in shapes.values()) or None,
        hidden_size=_number(text, "hidden_size", "n_embd", "d_model", "dim"),
        num_layers=_number(text, "num_hidden_layers", "n_layer", "num_layers", "n_layers"),
        vocab_size=_number(text, "vocab_size"),
        dtype=str(config.get("dtype") or config.get("torch_dtype") or dtype or "float32"),
        linear_modules=_linear_modules(shapes),
        max_position_embeddings=_number(text, "max_position_embeddings", "n_positions"),
        has_chat_template=False,
        key_value_size=_key_value_size(text),
        shapes=shapes,
    )


def trainable_parameters(facts: ModelFacts, config: RunConfig) -> int | None:
    """How many parameters the run changes; None where the files do not tell, or the rows decide
    (EVA gives each layer a rank of its own where it may)."""
    adapter = config.adapter
    if adapter.method == "none":
        return facts.parameters
    if adapter.is_prompt:
        keys = facts.key_value_size
        return prompt_parameters(adapter, facts.hidden_size, facts.num_layers, keys)
    if adapter.method == "freeze":
        return _unfrozen(facts, adapter)
    if adapter.method == "lora" and adapter.init_lora_weights == "eva" and adapter.eva_rho > 1:
        return None
    if not facts.shapes or facts.is_mixture:
        return None
    count = 0
    bias = adapter.bias if adapter.method in ("lora", "adalora") else "none"
    if "lm_head" in adapter.modules_to_save and "lm_head.weight" not in facts.shapes:
        count += (facts.vocab_size or 0) * (facts.hidden_size or 0)  # its weights stood elsewhere
    for name, (out_features, in_features) in adapted_modules(facts, config).items():
        count += module_parameters(adapter, name, out_features, in_features)
        if bias == "lora_only":
            count += math.prod(facts.shapes.get(f"{name}.bias", (0,)))
    if bias == "all":
        count += sum(math.prod(s) for name, s in facts.shapes.items() if name.endswith(".bias"))
    for name, shape in facts.shapes.items():
        module = name.rpartition(".")[0]
        is_whole = any(_names(module, target) for target in adapter.modules_to_save)
        # Biases of such a module were counted already when all of them are trained.
        if is_whole and not (bias == "all" and name.endswith(".bias")):
            count += math.prod(shape)
    return count + _of_new_tokens(facts, config)


def _of_new_tokens(facts: ModelFacts, config: RunConfig) -> int:
    """What an adapter trains of the embeddings for new tokens: their own rows, or all of them."""
    new = len(config.vocabulary.new_tokens)
    tables = [
        shape
        for name, shape in facts.shapes.items()
        if len(shape) == 2 and shape[0] == facts.vocab_size and shape[1] == facts.hidden_size
    ]
    if not new:
        return 0
    everything = config.vocabulary.train == "embeddings"
    return sum(((rows if everything else 0) + new) * width for rows, width in tables)


def unknown_modules(facts: ModelFacts, names: list[str]) -> list[str]:
    """Those of `names` that no module of the model ends in, so that nothing would be trained."""
    modules = {name.rpartition(".")[0] for name in facts.shapes} | {"lm_head"}
    # The files of a model that was saved without its head leave the first part of each name out.
    return [
        name
        for name in names
        if not any(_names(module, name) or _names(name, module) for module in modules)
    ]


def _unfrozen(facts: ModelFacts, adapter: AdapterSection) -> int | None:
    if not facts.shapes:
        return None
    names = trained_names(adapter, facts.shapes)
    if "lm_head" in adapter.freeze_extra_modules:
        output = {name for name in facts.shapes if _is_output(name)}
        # Where it has no weights of its own, it is the input's.
        names |= output or {name for name in facts.shapes if _INPUT.search(name)}
    return sum(math.prod(facts.shapes[name]) for name in names)


def adapted_modules(facts: ModelFacts, config: RunConfig) -> dict[str, tuple[int, int]]:
    """(out, in) of each module that gets an adapter, by the module's full name."""
    adapter = config.adapter
    targets, without = adapter.target_modules, adapter.exclude_modules
    if adapter.method == "vera":  # PEFT's VeRA leaves none out
        without = []
    found: dict[str, tuple[int, int]] = {}
    for name, shape in facts.shapes.items():
        module = name.removesuffix(".weight")
        if len(shape) != 2 or module == name:
            continue
        if any(_names(module, left) for left in [*adapter.modules_to_save, *without]):
            continue
        if not is_chosen_layer(adapter, module):
            continue
        if isinstance(targets, str):
            wanted = _is_linear(module)
        else:
            wanted = any(_names(module, target) for target in targets)
        if wanted:
            found[module] = (shape[1], shape[0]) if facts.is_transposed else (shape[0], shape[1])
    return found


def _names(module: str, target: str) -> bool:
    """Whether PEFT would take `target` to mean this module."""
    return module == target or module.endswith(f".{target}")


def _is_linear(module: str) -> bool:
    return not (_LOOKUP.search(module) or _OUTPUT.search(module) or _EXPERT.search(module))


def _is_output(name: str) -> bool:
    return name in ("lm_head.weight", "embed_out.weight")


def _linear_modules(shapes: dict[str, Shape]) -> list[str]:
    """The names that LoRA can target, such as q_proj, in the order of the model."""
    names: dict[str, None] = {}
    for name, shape in shapes.items():
        module = name.removesuffix(".weight")
        if len(shape) == 2 and module != name and _is_linear(module):
            names[module.rpartition(".")[2]] = None
    return list(names)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        is_adapter = (path.parent / "adapter_config.json").is_file()
        raise ModelError(
            _("{name} is an adapter, not a base model.", name=path.parent.name)
            if is_adapter
            else _("{folder} holds no model: config.json is missing.", folder=path.parent),
            _("Choose the folder or the Hub name of a base model."),
        ) from error
    except (OSError, ValueError) as error:
        raise ModelError(
            _("{name} cannot be read: {reason}.", name=path, reason=reason_of(error)),
            _("Fetch the model again."),
        ) from error
    if not isinstance(data, dict):
        raise ModelError(
            _("{path} is not a model's config.", path=path), _("Fetch the model again.")
        )
    return data


def _header_shapes(folder: Path) -> tuple[dict[str, Shape], str]:
    """Shape of each tensor in the folder's safetensors, and the dtype of most of them."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        files = sorted(set(_read_json(index).get("weight_map", {}).values()))
    else:
        files = ["model.safetensors"] if (folder / "model.safetensors").is_file() else []
    shapes: dict[str, Shape] = {}
    dtypes: dict[str, int] = {}
    for file in files:
        # Only the name counts: an index must not lead out of the model's folder.
        for name, (dtype, shape) in _header(folder / Path(str(file)).name).items():
            shapes[name] = shape
            dtypes[dtype] = dtypes.get(dtype, 0) + math.prod(shape)
    most = max(dtypes, key=lambda kind: dtypes[kind], default="")
    return shapes, {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}.get(most, most)


def _header(path: Path) -> dict[str, tuple[str, Shape]]:
    """Type and shape of each tensor in one safetensors file.

    Its header is a length in 8 bytes, little-endian, and then that much JSON.
    """
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > _LONGEST_HEADER:
                raise ValueError(_("its header is too long"))
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        return {name: (str(t["dtype"]), tuple(t["shape"])) for name, t in header.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise ModelError(
            _(
                "{path} is not a whole safetensors file: {reason}.",
                path=path,
                reason=reason_of(error),
            ),
            _("Fetch the model again."),
        ) from error


def _config_shapes(config: dict[str, Any], text: dict[str, Any]) -> dict[str, Shape]:
    """Shapes of a decoder with a gated MLP, as Llama, Mistral and Qwen have it; else none."""
    hidden, inner = _number(text, "hidden_size"), _number(text, "intermediate_size")
    layers, heads = _number(text, "num_hidden_layers"), _number(text, "num_attention_heads")
    vocabulary = _number(text, "vocab_size")
    is_decoder = str((config.get("architectures") or [""])[0]).endswith("ForCausalLM")
    if not (is_decoder and hidden and inner and layers and heads and vocabulary):
        return {}
    head = _number(text, "head_dim") or hidden // heads
    key_value = (_number(text, "num_key_value_heads") or heads) * head
    shapes: dict[str, Shape] = {"model.embed_tokens.weight": (vocabulary, hidden)}
    for layer in range(layers):
        for name, shape in {
            "self_attn.q_proj": (heads * head, hidden),
            "self_attn.k_proj": (key_value, hidden),
            "self_attn.v_proj": (key_value, hidden),
            "self_attn.o_proj": (hidden, heads * head),
            "mlp.gate_proj": (inner, hidden),
            "mlp.up_proj": (inner, hidden),
            "mlp.down_proj": (hidden, inner),
            "input_layernorm": (hidden,),
            "post_attention_layernorm": (hidden,),
        }.items():
            shapes[f"model.layers.{layer}.{name}.weight"] = shape
    shapes["model.norm.weight"] = (hidden,)
    shapes["lm_head.weight"] = (vocabulary, hidden)
    return shapes


def _key_value_size(text: dict[str, Any]) -> int | None:
    hidden = _number(text, "hidden_size", "n_embd", "d_model", "dim")
    heads = _number(text, "num_attention_heads", "n_head", "num_heads")
    keys = _number(text, "num_key_value_heads")
    if not hidden or not heads:
        return None
    return hidden if keys is None else keys * (_number(text, "head_dim") or hidden // heads)


def _tied(config: dict[str, Any], text: dict[str, Any]) -> bool:
    return bool(text.get("tie_word_embeddings", config.get("tie_word_embeddings", False)))


def _number(config: dict[str, Any], *names: str) -> int | None:
    """The first of `names` that the config has as a whole number."""
    return next((config[name] for name in names if isinstance(config.get(name), int)), None)


def _has_chat_template(folder: Path) -> bool:
    if (folder / "chat_template.jinja").is_file() or (folder / "chat_template.json").is_file():
        return True
    tokenizer = folder / "tokenizer_config.json"
    return tokenizer.is_file() and bool(_read_json(tokenizer).get("chat_template"))


# Families whose head has a dense layer (width x width, with a bias) before that of the labels, and
# what that layer is called where a base may bring it along.
_DENSE = {
    "Bert": "pooler.dense",
    "Roberta": "classifier.dense",
    "XLMRoberta": "classifier.dense",
    "Camembert": "classifier.dense",
    "Electra": "classifier.dense",
    "MPNet": "classifier.dense",
    "DistilBert": "pre_classifier",
    "DebertaV2": "pooler.dense",
    "Deberta": "pooler.dense",
}
_WRITES = ("ForCausalLM", "LMHeadModel")
_READS = ("ForMaskedLM", "ForPreTraining", "Model")
# The layers for guessing tokens that a classifier leaves behind.
_GUESSES = ("lm_head.", "cls.", "decoder.", "vocab_", "generator_", "embed_out.", "mask_pred")


def head_parameters(facts: ModelFacts, labels: int) -> int | None:
    """The parameters that a classifier of so many labels has and its base has not.

    None when the family is not known here.
    """
    width, family = facts.hidden_size, facts.architecture
    if not width or not labels:
        return None
    if family.endswith(_WRITES):
        return width * labels  # a matrix alone, on the last token
    for end in _READS:
        name = family.removesuffix(end)
        if name != family and name == "ModernBert":
            # Its dense layer and norm before the labels come from guessing tokens.
            brought = any(shape for key, shape in facts.shapes.items() if "head.dense" in key)
            return labels * (width + 1) + (0 if brought else width * (width + 1))
        if name != family and name in _DENSE:
            brought = any(_DENSE[name] in key for key in facts.shapes)
            return labels * (width + 1) + (0 if brought else width * (width + 1))
    return None


def with_head(
    facts: ModelFacts, config: RunConfig, labels: int | None
) -> tuple[int | None, int | None]:
    """(parameters of the model, those that the run changes), with the head for so many labels
    where the method has one; None where the files do not tell. What is saved beside the model, an
    adapter and the head with it, counts among those that the run changes alone."""
    if not config.training_method.has_head or facts.parameters is None:
        return facts.parameters, trainable_parameters(facts, config)
    head = head_parameters(facts, 1 if config.training_method.makes == "scorer" else labels or 0)
    parameters = facts.parameters - left_behind(facts)
    kept = {name: s for name, s in facts.shapes.items() if not name.startswith(_GUESSES)}
    trained = trainable_parameters(replace(facts, parameters=parameters, shapes=kept), config)
    if head is None:
        return parameters, trained
    trained = None if trained is None else trained + head
    if config.adapter.is_adapter:
        return parameters, trained
    parameters += head
    return parameters, parameters if config.adapter.method == "none" else trained


def left_behind(facts: ModelFacts) -> int:
    """The parameters for guessing tokens, which a classifier has not."""
    return sum(
        math.prod(shape) for name, shape in facts.shapes.items() if name.startswith(_GUESSES)
    )
