"""One question, one answer; and what a run's model expects to be told first. No torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from core.chat.session import ChatSession, ChatSettings, Column
from core.config import load_config
from core.data.registry import read_rows
from core.errors import DataError
from core.models.prompts import Message
from core.workspace import Workspace

_ROWS_LOOKED_AT = 50


def chat_once(
    where: Path | str | Workspace | ChatSession,
    run_id: str | None,
    checkpoint: str | None,
    prompt: str,
    settings: ChatSettings | None = None,
    *,
    base: str | None = None,
    system_prompt: str | None = None,
    on_text: Callable[[str], None] | None = None,
) -> str:
    """The answer of a run's checkpoint, or of the model `base`, to one prompt.

    `system_prompt` None takes the one that the run was trained with, "" none. `on_text` gets the
    answer bit by bit. `where` is a workspace, or a session of one; its models are unloaded at
    the end. Raises TunesmithError.
    """
    with where if isinstance(where, ChatSession) else ChatSession(where) as session:
        if system_prompt is None:
            system_prompt = trained_system_prompt(session.workspace, run_id) if run_id else ""
        session.start([Column(run_id, checkpoint, base)])
        answer = ""
        messages = conversation(prompt, system_prompt)
        for piece in session.stream(0, messages, settings or ChatSettings()):
            answer += piece.text
            if on_text and piece.text:
                on_text(piece.text)
        return answer


def conversation(prompt: str, system_prompt: str = "") -> list[Message]:
    """A conversation that begins with this prompt."""
    system = [{"role": "system", "content": system_prompt}] if system_prompt else []
    return [*system, {"role": "user", "content": prompt}]


def trained_system_prompt(workspace: Workspace, run_id: str) -> str:
    """The system prompt that the run's rows began with most often; "" when they had none.

    A model tuned with one answers best when it gets the same one in chat.
    """
    config = load_config(workspace.run(run_id).config)
    try:
        rows = read_rows(
            workspace,
            config.data.dataset,
            limit=_ROWS_LOOKED_AT,
            fingerprint=config.data.dataset_fingerprint,
        )
    except DataError:  # the data set was deleted since
        return config.data.system_prompt
    found = Counter(_system_prompt(row) or config.data.system_prompt for row in rows)
    return found.most_common(1)[0][0] if found else config.data.system_prompt


def _system_prompt(row: dict[str, Any]) -> str:
    messages = row.get("prompt") or row.get("messages") or []
    return next((str(m["content"]) for m in messages if m["role"] == "system"), "")
