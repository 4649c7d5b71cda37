"""llama.cpp's server as the engine: the base once, each adapter chosen by a request."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import shutil
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx2 as httpx
import torch
from starlette.responses import JSONResponse, Response, StreamingResponse

from core.errors import ExportError, ModelError
from core.export.formats import formats
from core.language import _
from core.models.describe import describe_model
from core.models.origin import read_stack
from core.models.trained import TrainedModel
from core.serve.answers import broken_off
from core.serve.front import CHAT, COMPLETIONS, EMBEDDINGS, Refused, ServedModel
from core.tokens.prompts import end_of_answer_ids, prompt_ids
from core.worker.llama_cpp import gguf_files
from core.worker.llama_cpp.kept import kept_adapter, kept_base, kept_whole
from core.worker.llama_cpp.memory import slots
from core.worker.llama_cpp.process import ALIAS, EACH_ITS_OWN, end, open_server
from core.worker.models.loading import open_trained, tokenizer_of
from core.worker.serve.asked import Asked

_AT_ONCE = 4
_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
# Turns on lines of their own, as core.tokens.prompts has them where there is no template.
_NO_TEMPLATE = (
    "{% for m in messages %}{{ m['content'] }}"
    "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n' }}{% endfor %}"
)
_PROBE = [{"role": "user", "content": "Hello, who are you?"}]
_ENDED = "The model's server was stopped."


class LlamaEngine:
    """One process of llama.cpp. Raises ExportError where it cannot answer as the run's model, and
    ModelError where the memory holds not even one conversation."""

    routes = (CHAT, COMPLETIONS, EMBEDDINGS)
    why = ""

    def __init__(self, asked: Asked) -> None:
        kind = asked.settings.quantization
        self.name = f"llama.cpp ({kind})"
        file, adapters = self._files(asked, kind)
        asked.tell(0.8, _("Loading the model"))
        tokenizer = tokenizer_of(asked.first, str(asked.base))
        known = describe_model(asked.base)
        longest = asked.settings.context
        context = min(longest, known.max_position_embeddings or longest)
        width = (known.key_value_size or 0) * (known.num_layers or 0)
        try:
            at_once = slots(file, width, context, _AT_ONCE)
        except ExportError as error:  # transformers needs more
            hint = _("Set a shorter longest conversation, take q8_0, or end other programs.")
            raise ModelError(error.message, hint) from error
        key = secrets.token_hex(16)
        self._process, address = open_server(
            file,
            adapters,
            key=key,
            applied=False,
            context=context,
            at_once=at_once,
            template=tokenizer.chat_template or _NO_TEMPLATE,
            beside_others=True,
            embeddings=True,
        )
        how: dict[str, Any] = {
            "base_url": address,
            "headers": {"Authorization": f"Bearer {key}"},
            "timeout": None,
            "limits": httpx.Limits(**EACH_ITS_OWN),
        }
        self._client, self._turn = httpx.AsyncClient(**how), asyncio.Lock()
        try:
            with httpx.Client(**how) as client:
                _check_reading(client, tokenizer)
        except BaseException:
            end(self._process)
            raise

    async def answer(self, route: str, model: ServedModel, body: dict[str, Any]) -> Response:
        on = [one.checkpoint for one in self.models if one.checkpoint] if self._lays else []
        scales = [{"id": i, "scale": float(on[i] == model.checkpoint)} for i in range(len(on))]
        asked = {**body, "model": ALIAS, "lora": scales}
        if route == EMBEDDINGS:
            return await self._embeddings(model, asked)
        request = self._client.build_request("POST", route, json=asked)
        try:
            answer = await self._client.send(request, stream=True)
            kind = answer.headers.get("content-type", "")
            if kind.startswith("text/event-stream"):
                return StreamingResponse(_events(answer, model.id), media_type=kind)
            try:
                text = (await answer.aread()).decode()
            finally:
                await answer.aclose()
        except httpx.HTTPError as error:
            raise Refused(_ENDED, 503) from error
        return Response(_called(text, model.id), answer.status_code, media_type=kind)

    async def _embeddings(self, model: ServedModel, body: dict[str, Any]) -> Response:
        """One text at a time: llama.cpp takes the mean of a part alone of a text beside a shorter
        one, and knows no adapter of one request, only that of all."""
        texts: Any = body.get("input")
        if not isinstance(texts, list) or all(isinstance(one, int) for one in texts):
            texts = [texts]
        data: list[dict[str, Any]] = []
        tokens = 0
        async with self._turn:
            try:
                if body["lora"]:
                    await self._client.post("/lora-adapters", json=body["lora"])
                for text in texts:
                    answer = await self._client.post(EMBEDDINGS, json={**body, "input": text})
                    told = answer.json()
                    if "error" in told:  # too long for it, or no text at all
                        raise _refused(len(data), told["error"]["message"])
                    data.append({**told["data"][0], "index": len(data)})
                    tokens += told["usage"]["prompt_tokens"]
            except httpx.HTTPError as error:
                raise Refused(_ENDED, 503) from error
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        found = {"object": "list", "model": model.id, "data": data, "usage": usage}
        return JSONResponse(found)

    def check(self) -> None:
        if (code := self._process.poll()) is not None:
            raise ModelError(
                _("llama.cpp's process ended (code {code}).", code=code),
                _("Start the server again, with a shorter conversation if memory was short."),
            )

    def close(self) -> None:
        end(self._process)

    def _files(self, asked: Asked, kind: str) -> tuple[Path, list[Path]]:
        """(the model as GGUF, the adapters on it)."""
        first = asked.first
        self._lays = (
            first.adapter is not None
            and formats()["gguf_adapter"].why_not(first.config) is None
            and read_stack(asked.base) is None
        )
        asked.tell(0.1, _("Converting the model for llama.cpp"))
        if not self._lays:
            self.models = [asked.served(first)]
            write = partial(_write_whole, asked, kind)
            return kept_whole(first, asked.base, kind, write), []
        self.models = [asked.served(one) for one in asked.trained]
        self.models.append(ServedModel(asked.base_name, None))
        base = kept_base(asked.workspace, asked.base, kind)
        asked.tell(0.6, _("Converting the adapters for llama.cpp"))
        return base, [kept_adapter(one, asked.base) for one in asked.trained]


def _refused(place: int, message: str) -> Refused:
    """A text that llama.cpp does not embed; it speaks of its own settings where one is too long."""
    if found := re.search(r"\((\d+) tokens\).*\(current batch size: (\d+)\)", message):
        told = f"Text {place} has {found[1]} tokens; the model reads 1 to {found[2]}."
        return Refused(told, code="context_length_exceeded", param="input")
    return Refused(message, param="input")


def _write_whole(asked: Asked, kind: str, file: Path) -> None:
    """What a run trained, with its base, as one GGUF."""
    trained: TrainedModel = asked.first
    if trained.adapter is None:
        gguf_files.convert(trained.folder, file, kind, trained.run.root.name)
        return
    why_not = formats()["gguf"].why_not(trained.config)
    if why_not:
        raise ExportError(*why_not)
    dtype = _DTYPES.get(describe_model(asked.base).dtype, torch.float32)
    merged = file.with_suffix(".merged")
    try:
        model, tokenizer = open_trained(trained, str(asked.base), device="cpu", dtype=dtype)
        model.merge_and_unload(safe_merge=True).save_pretrained(merged)
        tokenizer.save_pretrained(merged)
        del model
        gguf_files.convert(merged, file, kind, trained.run.root.name)
    finally:
        shutil.rmtree(merged, ignore_errors=True)


def _check_reading(client: httpx.Client, tokenizer: Any) -> None:
    """Raises ExportError unless llama.cpp reads a conversation as the model did in training, and
    ends an answer where the model does."""
    rendered = client.post("/apply-template", json={"messages": _PROBE}).json()
    asked = {"content": rendered.get("prompt"), "add_special": True, "parse_special": True}
    found = client.post("/tokenize", json=asked).json()
    if found.get("tokens") != prompt_ids(_PROBE, tokenizer):
        raise ExportError(_("llama.cpp reads conversations in another way than the training did."))
    for end_id in end_of_answer_ids(None, tokenizer):
        asked = {"prompt": found["tokens"], "n_predict": 2, "logit_bias": [[end_id, 1e4]]}
        if client.post("/completion", json=asked).json().get("stop_type") != "eos":
            raise ExportError(_("llama.cpp does not know where this model's answers end."))


async def _events(answer: httpx.Response, name: str) -> AsyncIterator[str]:
    """A stream as it comes. Nobody takes it any more: it is closed, and llama.cpp stops writing."""
    try:
        async for line in answer.aiter_lines():
            yield _called(line, name) + "\n"
    except httpx.HTTPError:
        yield broken_off(_ENDED)
    finally:
        await answer.aclose()


def _called(text: str, name: str) -> str:
    """An answer with the model's own name in it."""
    return text.replace(f'"model":"{ALIAS}"', f'"model":{json.dumps(name)}')
