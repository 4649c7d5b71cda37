"""How rows look to the model that is chosen in Configure: its tokenizer, the cut, the loss."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.config import RunConfig
from core.data.preview import dataset_token_counts, preview_rows
from core.data.registry import load_dataset_info
from core.errors import TunesmithError
from core.models.starter import find_local

if TYPE_CHECKING:
    from webui.context import App

# How many answers are remembered: counts, and pages of a few rows.
REMEMBERED = 64


@dataclass(frozen=True)
class Lens:
    """The settings that decide how a row becomes tokens."""

    model: str
    max_length: int
    assistant_only_loss: bool
    system_prompt: str

    @classmethod
    def of(cls, config: RunConfig) -> Lens:
        return cls(
            model=config.model.model_name_or_path,
            max_length=config.training.max_length,
            assistant_only_loss=config.data.assistant_only_loss,
            system_prompt=config.data.system_prompt,
        )

    @classmethod
    def read(cls, text: str) -> Lens:
        """From `write`'s text, which waits in the browser; the defaults if it is damaged."""
        try:
            return cls(**json.loads(text))
        except (ValueError, TypeError):
            return cls.of(RunConfig())

    def write(self) -> str:
        return json.dumps(asdict(self))


def local_model(app: App, name: str) -> Path | None:
    """Where the model lies on this machine; None while it must be fetched first."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder.resolve()
    return find_local(name, app.workspace.root)


def count_tokens(app: App, dataset: str, lens: Lens) -> Future[dict[str, Any]] | None:
    """The count of a data set's tokens, begun in a worker or remembered.

    None without the model on this machine or without the data set.
    """
    return _asked(app, dataset, lens, dataset_token_counts)


def view_rows(
    app: App, dataset: str, part: str, indices: tuple[int, ...], lens: Lens
) -> Future[list[dict[str, Any]]] | None:
    """The rows as the model sees them, from a worker or remembered; None as in `count_tokens`."""
    return _asked(app, dataset, lens, preview_rows, part, list(indices))


def finished(asked: Future[Any] | None) -> Any | None:
    """The result, if there is one already; what failed has none."""
    if asked is None or not asked.done() or asked.exception() is not None:
        return None
    return asked.result()


def _asked(
    app: App, dataset: str, lens: Lens, question: Callable[..., Any], *more: Any
) -> Future[Any] | None:
    """The worker's answer to `question(root, data set, *more, model, cut, loss, system)`."""
    path = local_model(app, lens.model)
    if path is None:
        return None
    try:
        info = load_dataset_info(app.workspace, dataset)
    except TunesmithError:
        return None
    how = (str(path), lens.max_length, lens.assistant_only_loss, lens.system_prompt)
    key = (question.__name__, info.id, info.fingerprint, str(more), *how)
    known = app.answers.get(key)
    if known is None or known.done() and known.exception() is not None:
        while len(app.answers) >= REMEMBERED:
            app.answers.pop(next(iter(app.answers)))
        app.answers[key] = app.pool.submit(question, app.workspace.root, info.id, *more, *how)
    return app.answers[key]
