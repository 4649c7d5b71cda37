"""Embeddings of texts by a model in this process, in OpenAI's form: the mean of its last hidden
states over a text's tokens, of length 1, as llama.cpp gives it. An encoder that gives nothing else
is an engine of its own."""

from __future__ import annotations

import asyncio
import base64
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from peft import PeftModel
from starlette.responses import JSONResponse, Response

from core.language import _
from core.serve.front import EMBEDDINGS, Refused, ServedModel
from core.worker.models.classifier import longest_input
from core.worker.models.loading import pick_device, pick_dtype
from core.worker.models.masked import open_trained_masked
from core.worker.serve.asked import Asked


def embeddings(
    name: str, model: Any, tokenizer: Any, body: dict[str, Any], longest: int
) -> dict[str, Any]:
    """The answer to a request of /v1/embeddings. Raises Refused."""
    texts = body.get("input")
    texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(texts, list) or not texts or not all(isinstance(t, str) for t in texts):
        raise Refused("input must be a text or a list of texts.", param="input")
    rows = [list(ids) for ids in tokenizer(texts, verbose=False)["input_ids"]]
    for place, ids in enumerate(rows):
        if not 0 < len(ids) <= longest:
            told = f"Text {place} has {len(ids)} tokens; the model reads 1 to {longest}."
            raise Refused(told, code="context_length_exceeded", param="input")
    found = [_embedded(model, ids) for ids in rows]
    as_base64 = body.get("encoding_format") == "base64"
    count = sum(map(len, rows))
    return {
        "object": "list",
        "model": name,
        "data": [
            {
                "object": "embedding",
                "index": place,
                "embedding": _base64(one) if as_base64 else one.tolist(),
            }
            for place, one in enumerate(found)
        ],
        "usage": {"prompt_tokens": count, "total_tokens": count},
    }


@torch.inference_mode()
def _embedded(model: Any, ids: list[int]) -> Any:
    """(width,), float32: one text at a time, as its neighbours would change the last digits."""
    whole = model.get_base_model() if isinstance(model, PeftModel) else model
    asked = torch.tensor([ids], device=model.device)
    states = whole.base_model(asked, attention_mask=torch.ones_like(asked)).last_hidden_state
    return torch.nn.functional.normalize(states[0].float().mean(dim=0), dim=0).cpu()


def _base64(vector: Any) -> str:
    return base64.b64encode(vector.numpy().astype("<f4").tobytes()).decode()


class EmbeddingEngine:
    """One checkpoint of an encoder, asked for one request after the other."""

    name = "transformers"
    why = ""
    routes = (EMBEDDINGS,)

    def __init__(self, asked: Asked) -> None:
        asked.tell(0.2, _("Loading the model"))
        trained, device = asked.first, pick_device()
        dtype = pick_dtype(trained.config.training.precision, device)
        found = open_trained_masked(trained, str(asked.base), device=device, dtype=dtype)
        self._model, self._tokenizer = found
        self._longest = longest_input(self._model, self._tokenizer, 1_000_000)
        self.models = [asked.served(trained)]
        self._pool = ThreadPoolExecutor(1)

    async def answer(self, route: str, model: ServedModel, body: dict[str, Any]) -> Response:
        given = model.id, self._model, self._tokenizer, body, self._longest
        loop = asyncio.get_running_loop()
        return JSONResponse(await loop.run_in_executor(self._pool, embeddings, *given))

    def check(self) -> None:
        """It lives as long as this process."""

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
