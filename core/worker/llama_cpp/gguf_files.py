"""GGUF: a model or an adapter written for llama.cpp, and made smaller."""

from __future__ import annotations

import json
import math
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from core.errors import ExportError
from core.export.precision import PRECISIONS
from core.language import _
from core.models.trained import adapter_settings
from core.worker.llama_cpp.process import end, start


def convert(whole: Path, file: Path, outtype: str, name: str) -> None:
    """Writes the model in a folder as GGUF, called `name` in it. Raises ExportError for a model
    that llama.cpp's converter does not know."""
    import gguf

    kind = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "bf16": "MOSTLY_BF16", "q8_0": "MOSTLY_Q8_0"}
    model = _converter(whole, file, gguf.LlamaFileType[kind[outtype]], name)
    with torch.inference_mode():
        _named(model, model.write)


def convert_adapter(whole: Path, adapter: Path, file: Path) -> None:
    """Writes a LoRA as GGUF; `whole` is a folder with its base's config, tokenizer and weights.

    A layer's B takes the order of rows that the converter gives the layer's weights, and the
    adapter's scale. Raises ExportError where the converter does more than that to a layer.
    """
    import gguf

    model = _converter(whole, file, gguf.LlamaFileType.ALL_F32, file.stem)
    settings, weights = adapter_settings(adapter), load_file(adapter / "adapter_model.safetensors")
    scales = _scales(settings)
    writer = gguf.GGUFWriter(file, gguf.MODEL_ARCH_NAMES[model.model_arch])
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    # 0: the scale is in B already, since it may differ from layer to layer.
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, 0.0)
    for key, a in sorted(weights.items()):
        module, found, _suffix = key.removeprefix("base_model.model.").partition(".lora_A.weight")
        if not found:
            continue
        b = weights[key.replace("lora_A", "lora_B")].float() * scales(module, a.shape[0])
        number = next((int(part) for part in module.split(".") if part.isdecimal()), None)
        changed = list(model.modify_tensors(b, f"{module}.weight", number))
        if len(changed) != 1 or changed[0][1].shape != b.shape:
            raise ExportError(
                _("llama.cpp stores {module} in another form: no adapter fits it.", module=module),
                _("Export it as GGUF."),
            )
        name, b = changed[0]
        writer.add_tensor(f"{name}.lora_a", a.float().contiguous().numpy())
        writer.add_tensor(f"{name}.lora_b", b.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def quantize(source: Path, file: Path, kind: str, check_stop: Callable[[], None]) -> None:
    """Writes a GGUF file again in one of the kinds that llama.cpp's quantizer makes. Raises
    ExportError, and what `check_stop` raises."""
    process = start("quantize", source, file, PRECISIONS[kind].ftype, stdin=subprocess.DEVNULL)
    try:
        while process.poll() is None:
            check_stop()
            time.sleep(0.1)
    finally:
        end(process)
    if process.returncode or not file.is_file():
        raise ExportError(
            _("llama.cpp's quantizer could not make {kind}.", kind=kind),
            _("Its output is in the export's worker.log. q8_0 needs no quantizer."),
        )


def _converter(whole: Path, file: Path, file_type: Any, called: str) -> Any:
    """llama.cpp's own class for the model in a folder."""
    from conversion import ModelBase, ModelType, get_model_architecture, get_model_class

    hparams = ModelBase.load_hparams(whole, False)
    name = get_model_architecture(hparams, ModelType.TEXT)
    try:
        kind = get_model_class(name)
    except NotImplementedError as error:
        raise ExportError(
            _("llama.cpp has no form for {architecture} models.", architecture=name),
            _("Export it as a merged model."),
        ) from error

    class WithItsTokenizer(kind):  # type: ignore[misc, valid-type]
        model_arch = kind.model_arch

        def get_vocab_base_pre(self, tokenizer: Any) -> str:
            try:
                return str(super().get_vocab_base_pre(tokenizer))
            except NotImplementedError:
                # The check compares its tokens with the tokenizer's.
                return splitting_of(self.dir_model)

    return _named(name, lambda: WithItsTokenizer(whole, file_type, file, model_name=called))


def splitting_of(folder: Path) -> str:
    """llama.cpp's name for the way in which a byte-level tokenizer that its converter does not
    know splits texts before anything else. Raises ExportError."""
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    splitter = tokenizer.get("pre_tokenizer") or {}
    steps = splitter.get("pretokenizers") or [splitter]
    kinds = [step.get("type") for step in steps]
    if kinds == ["ByteLevel"] and steps[0].get("use_regex", True):
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and steps[0].get("individual_digits"):
        return "smollm"
    raise ExportError(
        _("llama.cpp does not know the way in which this model's tokenizer splits texts."),
        _("Export it as a merged model."),
    )


def _named(model: Any, work: Callable[[], Any]) -> Any:
    """What the converter's `work` gives; what it raises tells of the model."""
    try:
        return work()
    except (NotImplementedError, ValueError, KeyError, TypeError, AttributeError) as error:
        name = model if isinstance(model, str) else model.hparams.get("architectures", ["?"])[0]
        raise ExportError(
            _(
                "llama.cpp's converter cannot write this {architecture} model: {reason}.",
                architecture=name,
                reason=str(error).strip() or type(error).__name__,
            ),
            _("Export it as a merged model."),
        ) from error


def _scales(settings: dict[str, Any]) -> Callable[[str, int], float]:
    """By how much the product of a module's two matrices, of a rank, is multiplied."""

    def of(pattern: str, module: str, otherwise: float) -> float:
        found = settings.get(pattern) or {}
        named = (v for k, v in found.items() if module == k or module.endswith(f".{k}"))
        return float(next(named, otherwise))

    def scale(module: str, rank: int) -> float:
        alpha = of("alpha_pattern", module, settings["lora_alpha"])
        return alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)

    return scale
