"""A model on this machine that writes rows: a starter model, a folder, a Hub id, or a run's.

Torch is imported inside the functions: only the process that does the work loads it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from core.data.drafts.settings import DraftSettings
from core.errors import ModelError, WorkspaceError
from core.language import _
from core.remote.endpoint import Message, Refused, Reply
from core.workspace import Workspace


class LocalModel:
    """Answers one request after the other. Use as `async with`."""

    def __init__(self, workspace: Workspace, settings: DraftSettings) -> None:
        """Loads the model. Raises ModelError when it cannot be loaded."""
        from core.tokens.prompts import end_of_answer_ids

        self.settings = settings
        self._model, self._tokenizer = _open(workspace, settings.model)
        self._ends = end_of_answer_ids(self._model, self._tokenizer)
        self._asked = 0

    async def __aenter__(self) -> LocalModel:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        from core.worker.models.loading import free_memory

        self._model = None
        free_memory()

    async def ask(self, messages: Sequence[Message]) -> Reply:
        """The model's answer. Gives way after each token, so that it can be stopped.

        Raises Refused when the model cannot read so long a request.
        """
        from core.chat.settings import ChatSettings
        from core.tokens.prompts import prompt_ids
        from core.worker.chat.decode import next_tokens, room_for_answer

        self._asked += 1
        try:
            prompt = prompt_ids(messages, self._tokenizer)
            most = room_for_answer(self._model, prompt, self.settings.max_new_tokens)
        except ModelError as error:
            raise Refused(_short(error)) from error
        how = ChatSettings(
            temperature=self.settings.temperature,
            top_p=0.95,
            # Another seed for each request: the same rows asked twice give other words.
            seed=(self.settings.seed + self._asked) % 2**63,
        )
        ids: list[int] = []
        for token in next_tokens(self._model, prompt, how, self._ends, most):
            if token is not None:
                ids.append(token)
            await asyncio.sleep(0)
        text = self._tokenizer.decode(ids, skip_special_tokens=True)
        return Reply(str(text), len(prompt), len(ids), cut=len(ids) >= most)


def _open(workspace: Workspace, name: str) -> tuple[Any, Any]:
    from core.models.trained import find_trained
    from core.worker.models.loading import (
        open_model,
        open_tokenizer,
        open_trained,
        pick_device,
        pick_dtype,
        resolve_base,
    )

    device = pick_device()
    try:
        run = workspace.run(name)
    except WorkspaceError:  # no id, so no run's
        run = None
    if run is not None and run.config.is_file():
        trained = find_trained(run)
        dtype = pick_dtype(trained.config.training.precision, device)
        base = resolve_base(trained.base, workspace)
        return open_trained(trained, base, device=device, dtype=dtype)
    path = resolve_base(name, workspace)
    model = open_model(path, device=device, dtype=pick_dtype("auto", device))
    return model, open_tokenizer(path)


def _short(error: ModelError) -> str:
    from core.worker.chat.decode import TooLong

    if isinstance(error, TooLong):
        return _("the request has more tokens than the model reads; show it fewer example rows")
    return error.message
