"""GGUF and llama.cpp: a model or an adapter written for it, made smaller, and asked there."""

from __future__ import annotations

import json
import math
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2 as httpx
import torch
from safetensors.torch import load_file

from core.errors import ExportError
from core.export.precision import PRECISIONS
from core.language import _
from core.models.trained import adapter_settings

# So many of the next token's probabilities are looked at; the rest is known by its sum.
_TOP = 256
_PROJECT = Path(__file__).resolve().parents[3]
Check = Callable[[], None]


@dataclass(frozen=True)
class TopLogits:
    """What llama.cpp says to places of texts: the logarithms of the most probable next tokens'
    probabilities, float32 (places, tokens), and which tokens those are, int64 of that shape."""

    logits: Any
    ids: Any

    def same_of(self, logits: Any) -> Any:
        """Of another model's logits (places, vocabulary) those of the same tokens."""
        return logits.gather(-1, self.ids)

    def log_probabilities(self, targets: Any, vocabulary: int) -> Any:
        """Of one token at each place; those that are not among the most probable share the rest
        equally."""
        rest = (1 - self.logits.exp().sum(dim=-1)).clamp(min=1e-12)
        rest = (rest / max(1, vocabulary - self.ids.shape[-1])).log()
        found = self.ids == targets[:, None]
        return torch.where(found.any(dim=-1), (self.logits * found).sum(dim=-1), rest)


# -- writing


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


def quantize(source: Path, file: Path, kind: str, check_stop: Check) -> None:
    """Writes a GGUF file again in one of the kinds that llama.cpp's quantizer makes. Raises
    ExportError, and what `check_stop` raises."""
    process = _start("quantize", source, file, PRECISIONS[kind].ftype, stdin=subprocess.DEVNULL)
    try:
        while process.poll() is None:
            check_stop()
            time.sleep(0.1)
    finally:
        _end(process)
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


# -- asking


class LlamaCpp:
    """A GGUF file opened by llama.cpp, with an adapter on it if one is given. To be closed."""

    def __init__(self, file: Path, adapter: Path | None, check_stop: Check) -> None:
        self._key = secrets.token_hex(16)
        self._check_stop = check_stop
        files = [file, *([adapter] if adapter else [])]
        self._process = _start(
            "serve", *files, stdin=subprocess.PIPE, stdout=subprocess.PIPE, key=self._key
        )
        try:
            assert self._process.stdout is not None
            address = self._process.stdout.readline().decode().strip()
            if not address:
                raise ExportError(
                    _("llama.cpp cannot open {file}.", file=file.name),
                    _("What it said is in the export's worker.log."),
                )
            headers = {"Authorization": f"Bearer {self._key}"}
            self._client = httpx.Client(base_url=address, headers=headers, timeout=None)
        except BaseException:
            _end(self._process)
            raise

    def close(self) -> None:
        self._client.close()
        _end(self._process)

    def top(self, rows: Sequence[list[int]], most: int) -> TopLogits:
        """Of the next token after each of the last `most` tokens of each row."""
        places = [row[: at + 1] for row in rows for at in range(len(row))[-most:]]
        logits = torch.empty((len(places), _TOP))
        ids = torch.empty((len(places), _TOP), dtype=torch.long)
        # It tells nothing of a token that ends the text or is half a character: what it writes is
        # always an a, which changes none of the probabilities that it tells.
        written = self._post("/tokenize", {"content": "a"})["tokens"][-1]
        for number, tokens in enumerate(places):
            answer = self._ask(tokens, n_predict=1, n_probs=_TOP, logit_bias=[[written, 1e4]])
            found = answer["completion_probabilities"][0]["top_logprobs"][:_TOP]
            logits[number] = torch.tensor([one["logprob"] for one in found])
            ids[number] = torch.tensor([one["id"] for one in found])
        return TopLogits(logits, ids)

    def stops_after(self, tokens: list[int]) -> bool:
        """Whether it ends its turn after these tokens."""
        return str(self._ask(tokens, n_predict=2)["stop_type"]) == "eos"

    def prompt_ids(self, messages: list[dict[str, str]]) -> list[int]:
        """The tokens of a conversation that waits for an answer, by the template in the file."""
        prompt = self._post("/apply-template", {"messages": messages})["prompt"]
        asked = {"content": prompt, "add_special": True, "parse_special": True}
        return list(self._post("/tokenize", asked)["tokens"])

    def chat(self, messages: list[dict[str, str]], most: int | None = None) -> str:
        """What it answers to a conversation, taking the most probable token each time, with `most`
        tokens at most."""
        asked = {"messages": messages, "temperature": 0.0, "max_tokens": most or -1}
        answer = self._post("/v1/chat/completions", asked)
        return str(answer["choices"][0]["message"]["content"])

    def tokens_per_second(self, tokens: list[int], count: int) -> float:
        """While it writes `count` tokens after these."""
        answer = self._ask(tokens, n_predict=count, ignore_eos=True)
        return float(answer["timings"]["predicted_per_second"])

    def _ask(self, tokens: list[int], **options: Any) -> dict[str, Any]:
        asked = {"prompt": tokens, "temperature": 0.0, "cache_prompt": True, **options}
        return self._post("/completion", asked)

    def _post(self, path: str, content: dict[str, Any]) -> dict[str, Any]:
        self._check_stop()
        try:
            answer = self._client.post(path, json=content)
            told = dict(answer.json())
        except (httpx.HTTPError, ValueError) as error:  # it has ended
            told = {"error": {"message": str(error)}}
        if "error" in told:
            raise ExportError(
                _("llama.cpp did not answer: {reason}.", reason=told["error"]["message"]),
                _("What it said is in the export's worker.log."),
            )
        return told


def _start(*arguments: object, key: str = "", **streams: Any) -> subprocess.Popen[bytes]:
    path = os.pathsep.join(filter(None, [str(_PROJECT), os.environ.get("PYTHONPATH", "")]))
    environment = {
        **os.environ,
        "PYTHONPATH": path,
        "OMP_WAIT_POLICY": "passive",
        "TUNESMITH_LLAMA_KEY": key,
    }
    command = [sys.executable, "-m", "core.worker.export.llama_process", *map(str, arguments)]
    return subprocess.Popen(command, env=environment, **streams)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a process if it is still there, and lets go of what joins it to this one."""
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
