"""How rows look to the model that is chosen in Configure: its tokenizer, the cut, the loss."""

from __future__ import annotations

import json
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

# How many counts are remembered; each is a few numbers.
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
    path = local_model(app, lens.model)
    if path is None:
        return None
    try:
        info = load_dataset_info(app.workspace, dataset)
    except TunesmithError:
        return None
    key = (info.fingerprint, str(path), *list(asdict(lens).values())[1:])
    if key not in app.counts:
        while len(app.counts) >= REMEMBERED:
            app.counts.pop(next(iter(app.counts)))
        app.counts[key] = app.pool.submit(
            dataset_token_counts, app.workspace.root, info.id, *key[1:]
        )
    return app.counts[key]


def finished(counting: Future[dict[str, Any]] | None) -> dict[str, Any] | None:
    """The result, if there is one; a count that failed shows no number."""
    if counting is None or not counting.done() or counting.exception() is not None:
        return None
    return counting.result()


def view_rows(
    app: App, dataset: str, part: str, indices: list[int], lens: Lens
) -> Future[list[dict[str, Any]]] | None:
    """The rows as the model sees them, from a worker; None without the model on this machine."""
    path = local_model(app, lens.model)
    if path is None:
        return None
    return app.pool.submit(
        preview_rows,
        app.workspace.root,
        dataset,
        part,
        indices,
        str(path),
        lens.max_length,
        lens.assistant_only_loss,
        lens.system_prompt,
    )
