"""How rows look to the model that is chosen in Configure: its tokenizer, the cut, the loss."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from core.config import RunConfig
from core.data.chat_templates import MODELS_OWN, load_template
from core.data.estimate import estimated_token_counts, sampled_statistics
from core.data.preview import preview_rows
from core.data.registry import load_dataset_info
from core.errors import TunesmithError, WorkspaceError
from core.methods import METHODS
from core.models.location import local_model

if TYPE_CHECKING:
    from webui.context import App

# How many answers are remembered: counts, and pages of a few rows.
REMEMBERED = 64


@dataclass(frozen=True)
class Lens:
    """The settings that decide how a row becomes tokens."""

    model: str
    max_length: int | None
    assistant_only_loss: bool
    system_prompt: str
    chat_template: str = MODELS_OWN
    method: str = RunConfig().method

    @property
    def goes_on(self) -> bool:
        """Whether a text that is longer than max_length goes on in the next row of the trainer."""
        return METHODS[self.method].section == "text"

    @property
    def whole(self) -> Lens:
        """These settings for counting: nothing is cut of texts that go on."""
        return replace(self, max_length=None) if self.goes_on else self

    @classmethod
    def of(cls, config: RunConfig) -> Lens:
        return cls(
            model=config.model.model_name_or_path,
            max_length=config.training.max_length,
            assistant_only_loss=config.data.assistant_only_loss,
            system_prompt=config.data.system_prompt,
            chat_template=config.data.chat_template,
            method=config.method,
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


def count_tokens(app: App, dataset: str, lens: Lens) -> Future[dict[str, Any]] | None:
    """The count of a data set's tokens (core.data.estimate), begun in a worker or remembered.

    None without the model on this machine, the data set or the chat template.
    """
    try:
        return _asked(app, dataset, lens.whole, estimated_token_counts)
    except WorkspaceError:
        return None  # what the model and the data set are for says why


def view_rows(
    app: App, dataset: str, part: str, places: Sequence[int], lens: Lens, draft: str = ""
) -> Future[list[dict[str, Any]]] | None:
    """The rows as the model sees them, from a worker or remembered; None as in `count_tokens`.

    `draft` is the text of a chat template that is being written; it goes before the lens's.
    Raises WorkspaceError for a model's folder that may not be read.
    """
    return _asked(app, dataset, lens, preview_rows, [part, list(places)], [draft])


def sample_statistics(app: App, dataset: str, lens: Lens) -> Future[dict[str, Any]] | None:
    """Statistics of some rows (core.data.estimate), begun in a worker or remembered.

    Without the model on this machine, those that need no tokenizer. None without the data set or
    the chat template. Raises WorkspaceError for a model's folder that may not be read.
    """
    return _asked(app, dataset, lens.whole, sampled_statistics, needs_model=False)


def finished(asked: Future[Any] | None) -> Any | None:
    """The result, if there is one already; what failed has none."""
    if asked is None or not asked.done() or asked.exception() is not None:
        return None
    return asked.result()


def _asked(
    app: App,
    dataset: str,
    lens: Lens,
    question: Callable[..., Any],
    before: Sequence[Any] = (),
    after: Sequence[Any] = (),
    needs_model: bool = True,
) -> Future[Any] | None:
    """The worker's answer to `question(root, data set, *before, how rows become tokens, *after)`.
    """
    path = local_model(app.workspace, lens.model)
    if path is None and needs_model:
        return None
    try:
        info = load_dataset_info(app.workspace, dataset)
        template = template_print(app, lens)
    except TunesmithError:
        return None
    how = (
        str(path or ""),
        lens.max_length,
        lens.assistant_only_loss,
        lens.system_prompt,
        lens.chat_template,
    )
    asked = (*before, *how, *after)
    key = (question.__name__, info.id, info.fingerprint, template, str(asked))
    known = app.answers.get(key)
    if known is None or known.done() and known.exception() is not None:
        while len(app.answers) >= REMEMBERED:
            app.answers.pop(next(iter(app.answers)))
        app.answers[key] = app.pool.submit(question, app.workspace.root, info.id, *asked)
    return app.answers[key]


def template_print(app: App, lens: Lens) -> str:
    """Tells a template from what it was before it was edited. Raises DataError without it."""
    if lens.chat_template == MODELS_OWN:
        return ""
    text = load_template(lens.chat_template, app.workspace)
    return hashlib.sha256(text.encode()).hexdigest()
