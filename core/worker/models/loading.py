"""Models in memory: for training and for asking, on which device, in which type, which adapter, and
whether saved weights are those of the model at all.

A base that is a stack is another base with adapters merged into it. Virtual tokens (prompt and
prefix tuning) stand before the text, and rows for new tokens behind the vocabulary.
"""

from __future__ import annotations

import gc
import logging
import os
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, PeftType, get_peft_model_state_dict
from safetensors import safe_open
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedConfig,
)

from core.config import RunConfig
from core.errors import ModelError
from core.language import _
from core.models.hardware import CpuFlags, auto_precision
from core.models.kinds import Kind, kind_of, need_kind
from core.models.location import ensure_model
from core.models.origin import read_stack, workspace_of
from core.models.trainable import freeze
from core.models.trained import NewTokens, TrainedModel, adapter_settings, read_new_tokens
from core.tokens.chat_templates import use_runs_own
from core.workspace import Workspace

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def load_base(config: RunConfig, model_path: str | Path, *, device: str, precision: str) -> Any:
    """The causal language model of a run on `device` ("cpu", "cuda", "cuda:1", "mps").

    A frozen base is held in the run's precision ("fp32", "fp16", "bf16") or quantized. A model
    trained in full is held in 32 bits, so that small steps are not lost; autocast does the rest.
    Raises ModelError.
    """

    def load_one(path: str | Path) -> Any:
        return _load(config, path, device=device, precision=precision)

    return open_stacked(model_path, load_one, with_adapter)


def _load(config: RunConfig, model_path: str | Path, *, device: str, precision: str) -> Any:
    quantization = quantization_config(config, precision)
    # Plain weights are on the CPU once they are read; all others go straight to their place.
    place = None if device == "cpu" and quantization is None else {"": device}
    try:
        model = AutoModelForCausalLM.from_pretrained(
            model_path,
            config=plain_config(model_path, config.model.model_revision),
            revision=config.model.model_revision,
            dtype=DTYPES[precision if config.adapter.is_adapter else "fp32"],
            device_map=place,
            quantization_config=quantization,
            trust_remote_code=False,
            use_safetensors=True,
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelError(
            _(
                "The model {name} cannot be loaded: {reason}.",
                name=str(model_path),
                reason=first_line(error),
            ),
            _("It must be a causal language model with its weights as safetensors."),
        ) from error
    if model.config.is_encoder_decoder:
        raise ModelError(
            _(
                "{name} is an encoder-decoder model, not a causal language model.",
                name=str(model_path),
            ),
            _("Choose one that writes on from a text, such as SmolLM2-135M-Instruct."),
        )
    need_kind(model.config.to_dict(), config)
    if config.adapter.method == "freeze":
        freeze(model, config.adapter)
    return keep_unpacked(model)


def plain_config(path: str | Path, revision: str = "main", **changes: Any) -> Any:
    """The config of a model without the attention and the experts that it asks for: how a model is
    computed is for the settings to say, not for whoever published it. Raises what transformers
    raises."""
    config = AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=False, **changes)
    config._attn_implementation = None
    config._experts_implementation = None
    return config


def attention_asked_for(path: str | Path, revision: str = "main") -> str | None:
    """The attention that a model's config asks for, which `plain_config` passes over."""
    try:
        config, _ = PreTrainedConfig.get_config_dict(path, revision=revision)
    except (OSError, ValueError):
        return None
    found = config.get("attn_implementation") or config.get("_attn_implementation")
    return str(found) if found else None


def keep_unpacked(model: Any) -> Any:
    """The model, whose 4-bit layers stay as they are when they are evaluated on a CPU.

    bitsandbytes would repack them at the first evaluation for a product without a gradient, and
    from then on nothing below such a layer would learn.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model


def quantization_config(config: RunConfig, precision: str) -> Any | None:
    """How bitsandbytes holds the base in fewer bits; None when it stays as it is."""
    adapter = config.adapter
    if adapter.quantization == "none":
        return None
    if adapter.quantization == "int8":
        # It says at each layer of each step that it computes in fp16.
        logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
        return BitsAndBytesConfig(load_in_8bit=True)
    compute = adapter.bnb_4bit_compute_dtype
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=adapter.quantization,
        bnb_4bit_use_double_quant=adapter.bnb_4bit_use_double_quant,
        bnb_4bit_compute_dtype=DTYPES[precision] if compute == "auto" else getattr(torch, compute),
    )


def virtual_tokens(model: Any) -> int:
    """How many of the model's positions its virtual tokens take."""
    return int(model.active_peft_config.num_virtual_tokens) if _is_prompted(model) else 0


def scored_virtual_tokens(model: Any) -> int:
    """How many scores the model gives before those of the text: prompt tuning's virtual tokens
    are scored like words, a prefix is not."""
    if not _is_prompted(model) or _is_prefix(model):
        return 0
    return virtual_tokens(model)


def after_virtual_tokens(model: Any) -> tuple[Any, Any]:
    """(what to ask, its cache to begin with) for an answer of one row, token by token: PEFT would
    put the virtual tokens before each of them. Other models come back with no cache."""
    if not _is_prompted(model):
        return model, None
    plain = model.get_base_model()
    if _is_prefix(model):
        return plain, model.get_prompt(batch_size=1)
    words = model.get_prompt(batch_size=1).to(plain.dtype)
    return plain, plain(inputs_embeds=words, use_cache=True).past_key_values


def _is_prompted(model: Any) -> bool:
    return isinstance(model, PeftModel) and bool(model.active_peft_config.is_prompt_learning)


def _is_prefix(model: Any) -> bool:
    return bool(model.active_peft_config.peft_type == PeftType.PREFIX_TUNING)


# Rows for new tokens in a model.


def make_room(model: Any, tokenizer: Any, pieces: dict[str, list[int]]) -> NewTokens:
    """Gives a model rows for the tokens that were added to its tokenizer. Each begins at the mean
    of its former pieces, in the input's embeddings and in the output layer.

    The embeddings grow only when their padding has no room.
    """
    ids = {token: int(tokenizer.convert_tokens_to_ids(token)) for token in pieces}
    rows = max(int(model.get_input_embeddings().weight.shape[0]), len(tokenizer))
    found = NewTokens(ids, dict(pieces), rows, len(tokenizer))
    grow(model, found)
    return found


@torch.no_grad()
def grow(model: Any, tokens: NewTokens) -> None:
    """Makes a base as it was when the tokens had been added and not yet learned.

    Raises ModelError when it has more rows than the run's base had.
    """
    rows = int(model.get_input_embeddings().weight.shape[0])
    if rows > tokens.rows:
        raise ModelError(
            _(
                "The base has {rows} rows of embeddings, and the run's had {wanted} with its new "
                "tokens: it is another model.",
                rows=rows,
                wanted=tokens.rows,
            ),
            _("Choose the base that the run was trained from."),
        )
    if rows < tokens.rows:
        model.resize_token_embeddings(tokens.rows, mean_resizing=False)
    layers = [model.get_input_embeddings(), model.get_output_embeddings()]
    if layers[1] is None or layers[1].weight.data_ptr() == layers[0].weight.data_ptr():
        layers.pop()
    for layer in layers:
        for token, number in tokens.ids.items():
            if tokens.pieces[token]:
                layer.weight[number] = layer.weight[tokens.pieces[token]].float().mean(dim=0)
    bias = getattr(model.get_output_embeddings(), "bias", None)
    if bias is not None:
        for token, number in tokens.ids.items():
            if tokens.pieces[token]:
                bias[number] = bias[tokens.pieces[token]].float().mean()


# A base that is a stack: another base with adapters merged into it.


def open_stacked(
    path: str | Path,
    open_one: Callable[[str | Path], Any],
    add_adapter: Callable[[Any, Path], Any],
) -> Any:
    """The model in `path` as `open_one` opens it; of a stack the base, with the adapters merged
    into it in their order. Raises ModelError, also when the base is no longer to be had."""
    stack = read_stack(path)
    if stack is None:
        return open_one(path)
    beneath: str | Path = Path(path) / stack.model
    if not Path(beneath).is_dir():
        beneath = ensure_model(stack.model, workspace_of(path))
    model = open_one(beneath)
    trained = {name: one.requires_grad for name, one in model.named_parameters()}
    for adapter in stack.adapters:
        model = add_adapter(model, adapter).merge_and_unload(safe_merge=True)
    for name, one in model.named_parameters():  # PEFT froze them all
        one.requires_grad_(trained.get(name, True))
    return model


# Models for asking, not for training.


def pick_device() -> str:
    """The device that the job was given, else the GPU with most free memory, else the CPU."""
    given = os.environ.get("TUNESMITH_DEVICE")
    if given:
        return given
    if torch.cuda.is_available():
        free = [torch.cuda.mem_get_info(i)[0] for i in range(torch.cuda.device_count())]
        return f"cuda:{free.index(max(free))}"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def pick_dtype(precision: str, device: str) -> torch.dtype:
    """The type of the weights for a run's precision. `auto` is bf16 where the device has it."""
    if precision == "auto" or (precision == "fp16" and device == "cpu"):
        precision, _ = precision_on(device)
    return DTYPES[precision]


def precision_on(device: str) -> tuple[str, str]:
    """(precision, reason) that `auto` becomes on a device, by what torch says of it."""
    kind = device.partition(":")[0]
    capability = None
    if kind == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        capability = float(f"{major}.{minor}")
    flags = CpuFlags(torch.cpu._is_avx512_bf16_supported(), torch.cpu._is_amx_tile_supported())
    return auto_precision(kind, capability, flags)


def resolve_base(name: str, workspace: Workspace) -> str:
    """The folder or Hub id to load for a base model's name. Fetches a starter model."""
    return str(ensure_model(name, workspace))


def open_kind(path: str | Path) -> Kind | None:
    """What the model in a folder or of a Hub id is; None where its config cannot be read, which
    whoever opens it says."""
    try:
        config, _ = PreTrainedConfig.get_config_dict(path)
    except (OSError, ValueError):
        return None
    return kind_of(config)


def open_tokenizer(path: str | Path, revision: str = "main") -> Any:
    """The tokenizer of a model, or the one saved with an adapter. Raises ModelError.

    One without a padding token pads with its end token.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, revision=revision, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        message = _(
            "The tokenizer of {name} cannot be loaded: {reason}.",
            name=Path(path).name,
            reason=first_line(error),
        )
        raise _unloadable(message) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    return tokenizer


def open_model(path: str | Path, *, device: str, dtype: torch.dtype, revision: str = "main") -> Any:
    """A causal language model ready to answer. Raises ModelError when it cannot be loaded."""

    def open_one(folder: str | Path) -> Any:
        try:
            return AutoModelForCausalLM.from_pretrained(
                folder,
                config=plain_config(folder, revision),
                revision=revision,
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=False,
            )
        except (OSError, ValueError, KeyError, ImportError) as error:
            message = _(
                "The model {name} cannot be loaded: {reason}.",
                name=Path(path).name,
                reason=first_line(error),
            )
            raise _unloadable(message) from error

    return open_stacked(path, open_one, with_adapter).to(device).eval()


def open_base(config: RunConfig, path: str, *, device: str, dtype: torch.dtype) -> Any:
    """The base of a run as the run had it: quantized when the run's was."""
    if config.adapter.quantization == "none":
        return open_model(path, device=device, dtype=dtype, revision=config.model.model_revision)
    precision = next(name for name, known in DTYPES.items() if known == dtype)
    return load_base(config, path, device=device, precision=precision).eval()


def open_before(trained: TrainedModel, base_path: str, *, device: str, dtype: torch.dtype) -> Any:
    """The model as it was when the run began: its base, with the adapter that it trained further
    if it did."""
    model = open_base(trained.config, base_path, device=device, dtype=dtype)
    if trained.begun:
        return with_adapter(model, trained.begun)
    if trained.new_tokens is not None:
        grow(model, trained.new_tokens)
    return model


def with_adapter(model: Any, adapter: Path, name: str = "default", *, exact: bool = False) -> Any:
    """`model` with an adapter from a run's folder on it, in the model's own type or, `exact`, in
    32 bits. It grows first where the adapter brings new tokens."""
    tokens = read_new_tokens(adapter)
    if tokens is not None and not isinstance(model, PeftModel):
        grow(model, tokens)
    try:
        if isinstance(model, PeftModel):
            model.load_adapter(str(adapter), adapter_name=name, autocast_adapter_dtype=exact)
        else:
            model = PeftModel.from_pretrained(
                model, str(adapter), adapter_name=name, autocast_adapter_dtype=exact
            )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise _unfit(adapter, str(error).splitlines()[0]) from error
    misfit = adapter_misfit(model, adapter, name)
    if misfit:  # PEFT passes over weights that have no place in the model
        raise _unfit(adapter, misfit)
    return model.eval()


def open_trained(
    trained: TrainedModel, base_path: str, *, device: str, dtype: torch.dtype
) -> tuple[Any, Any]:
    """(model, tokenizer) of a run's checkpoint: base with adapter, or the whole model.

    Raises ModelError, also for a run whose model gives labels or scores.
    """
    method = trained.config.training_method
    if method.has_head:
        raise ModelError(
            _(
                "{name} was trained to give {outputs}: it writes no text.",
                name=trained.run.root.name,
                outputs=method.outputs,
            ),
            _("Choose a run or a model that writes."),
        )
    tokenizer = tokenizer_of(trained, base_path)
    if trained.adapter is None:
        return open_model(trained.folder, device=device, dtype=dtype), tokenizer
    model = open_base(trained.config, base_path, device=device, dtype=dtype)
    return with_adapter(model, trained.adapter), tokenizer


def tokenizer_of(trained: TrainedModel, base_path: str) -> Any:
    """The tokenizer that was saved with the weights, else the base's; either with the chat
    template that the run was trained with."""
    if trained.has_tokenizer:
        return open_tokenizer(trained.folder)
    tokenizer = open_tokenizer(base_path, trained.config.model.model_revision)
    return use_runs_own(tokenizer, trained.run.root)


def without_adapter(model: Any) -> AbstractContextManager[Any]:
    """While it lasts, the model answers as its base."""
    if isinstance(model, PeftModel):
        context: AbstractContextManager[Any] = model.disable_adapter()
        return context
    return nullcontext()


def free_memory() -> None:
    """Gives back what the models that were just let go held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def first_line(error: Exception) -> str:
    """The first line of what an error says, without its full stop."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def _unloadable(message: str) -> ModelError:
    return ModelError(
        message, _("Fetch or choose it again; models that bring code of their own are not run.")
    )


def _unfit(adapter: Path, reason: str) -> ModelError:
    return ModelError(
        _("The adapter {name} does not fit its base: {reason}", name=adapter.name, reason=reason),
        _("Was the base model changed since the run? Choose another checkpoint or run."),
    )


_TOLD = 3
_EMBEDDING = re.compile(r"(embed\w*|wte|lm_head|embeddings)(\.base_layer)?\.weight$")


def adapter_misfit(model: PeftModel, folder: Path, name: str = "default") -> str | None:
    """Why the adapter in `folder` is not one for this model's adapter `name`; None if it is.

    Raises ModelError when its settings cannot be read.
    """
    saved, own = adapter_settings(folder), model.peft_config[name]
    kind = str(getattr(own.peft_type, "value", own.peft_type))
    if saved.get("peft_type") != kind:
        return _("it is of the kind {kind}, not {own}.", kind=saved.get("peft_type"), own=kind)
    for field in ("r", "lora_alpha", "bias", "use_dora", "use_rslora"):
        here = getattr(own, field, None)
        if field in saved and here is not None and saved[field] != here:
            return _(
                "its {field} is {value}, not {own}.", field=field, value=saved[field], own=here
            )
    shapes = {
        key: tuple(value.shape)
        for key, value in get_peft_model_state_dict(
            model, adapter_name=name, save_embedding_layers=False
        ).items()
    }
    return _misfit(header_shapes(folder, "adapter_model"), shapes)


def weights_misfit(model: Any, folder: Path) -> str | None:
    """Why the whole model in `folder` is not `model`; None if it is."""
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    # Weights that are tied are saved once.
    return _misfit(header_shapes(folder, "model"), shapes, may_lack=True)


def header_shapes(folder: Path, name: str) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor in the files `name*.safetensors`."""
    found: dict[str, tuple[int, ...]] = {}
    for path in sorted(folder.glob(f"{name}*.safetensors")):
        with safe_open(path, framework="pt") as file:
            found |= {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    return found


def _misfit(
    saved: Mapping[str, tuple[int, ...]],
    own: Mapping[str, tuple[int, ...]],
    *,
    may_lack: bool = False,
) -> str | None:
    other = [key for key in saved if key in own and saved[key] != own[key]]
    if other:
        shapes = {"saved": _shape(saved[other[0]]), "own": _shape(own[other[0]])}
        return _("{names}: the first is {saved}, not {own}.", names=_some(other), **shapes)
    # Embeddings that were saved along with an adapter on them are the base's own.
    unknown = [key for key in saved if key not in own and not _EMBEDDING.search(key)]
    if unknown:
        return _("this model has no {names}.", names=_some(unknown))
    missing = [] if may_lack else [key for key in own if key not in saved]
    return _("it lacks {names}.", names=_some(missing)) if missing else None


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _some(texts: list[str]) -> str:
    more, told = len(texts) - _TOLD, ", ".join(texts[:_TOLD])
    return _("{names} and {more} more", names=told, more=more) if more > 0 else told
