"""A model that gives labels as the engine: a plain route of its own, and what it makes of texts."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from starlette.responses import JSONResponse, Response

from core.language import _
from core.serve.front import CLASSIFY, EMBEDDINGS, Refused, ServedModel
from core.worker.models.classifier import (
    given,
    label_logits,
    longest_input,
    open_classifier,
    probabilities,
    text_ids,
)
from core.worker.models.loading import pick_device, pick_dtype
from core.worker.serve.asked import Asked
from core.worker.serve.embeddings import embeddings


class LabelEngine:
    """One checkpoint of a classifier, asked for one request after the other."""

    name = "transformers"
    why = ""
    routes = (CLASSIFY, EMBEDDINGS)

    def __init__(self, asked: Asked) -> None:
        asked.tell(0.2, _("Loading the model"))
        trained, device = asked.first, pick_device()
        training = trained.config.training
        dtype = pick_dtype(training.precision, device)
        found = open_classifier(trained, str(asked.base), device=device, dtype=dtype)
        self._model, self._tokenizer, self._labels = found
        self._longest = longest_input(self._model, self._tokenizer, training.max_length)
        self.models = [asked.served(trained)]
        self._pool = ThreadPoolExecutor(1)

    async def answer(self, route: str, model: ServedModel, body: dict[str, Any]) -> Response:
        loop = asyncio.get_running_loop()
        if route == EMBEDDINGS:
            given = model.id, self._model, self._tokenizer, body, self._longest
            return JSONResponse(await loop.run_in_executor(self._pool, embeddings, *given))
        texts = body.get("input")
        texts = [texts] if isinstance(texts, str) else texts
        if not isinstance(texts, list) or not all(isinstance(one, str) for one in texts):
            raise Refused("input must be a text or a list of texts.", param="input")
        working = loop.run_in_executor(self._pool, self._labelled, texts)
        return JSONResponse({"object": "list", "model": model.id, "data": await working})

    def check(self) -> None:
        """It lives as long as this process."""

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _labelled(self, texts: list[str]) -> list[dict[str, Any]]:
        """Of each text the labels that it is given, and how probable each label is."""
        rows = text_ids(self._tokenizer, texts, self._longest)
        chances = probabilities(label_logits(self._model, self._tokenizer, rows), self._labels)
        named = self._labels.names
        return [
            {
                "index": place,
                "labels": [name for name, one in zip(named, chosen, strict=True) if one],
                "probabilities": {
                    name: round(float(chance), 6) for name, chance in zip(named, row, strict=True)
                },
            }
            for place, (row, chosen) in enumerate(
                zip(chances, given(chances, self._labels), strict=True)
            )
        ]
