"""Rows as tokens of the model that is chosen in Configure: what a worker says of them, what it
said, and a button that brings that model to this machine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import asdict, replace
from typing import Any

import gradio as gr

from core.data.registry import load_dataset_info
from core.errors import TunesmithError, WorkspaceError
from core.language import _
from core.models.location import fetch_model, local_model
from core.tokens.lens import Lens
from webui import background, messages
from webui.context import QUIET, App, Shared

# How many answers are remembered: counts, and pages of a few rows.
REMEMBERED = 64


def count_tokens(app: App, dataset: str, lens: Lens) -> Future[dict[str, Any]] | None:
    """The count of a data set's tokens (core.tokens.counts), begun in a worker or remembered.

    None without the model on this machine, the data set or the chat template.
    """
    try:
        return _asked(app, dataset, lens.whole, "estimated_token_counts")
    except WorkspaceError:
        return None  # what the model and the data set are for says why


def view_rows(
    app: App, dataset: str, part: str, places: Sequence[int], lens: Lens, draft: str = ""
) -> Future[list[dict[str, Any]]] | None:
    """The rows as the model sees them, from a worker or remembered; None as in `count_tokens`.

    `draft` is the text of a chat template that is being written; it goes before the lens's.
    Raises WorkspaceError for a model's folder that may not be read.
    """
    return _asked(app, dataset, lens, "preview_rows", part, list(places), draft)


def sample_statistics(app: App, dataset: str, lens: Lens) -> Future[dict[str, Any]] | None:
    """Statistics of some rows (core.tokens.counts), begun in a worker or remembered.

    Without the model on this machine, those that need no tokenizer. None without the data set or
    the chat template. Raises WorkspaceError for a model's folder that may not be read.
    """
    return _asked(app, dataset, lens.whole, "sampled_statistics", needs_model=False)


def finished(asked: Future[Any] | None) -> Any | None:
    """The result, if there is one already; what failed has none."""
    if asked is None or not asked.done() or asked.exception() is not None:
        return None
    return asked.result()


def _asked(
    app: App, dataset: str, lens: Lens, question: str, *more: Any, needs_model: bool = True
) -> Future[Any] | None:
    """The answer to a question of `core.worker.tokenizers`."""
    path = local_model(app.workspace, lens.model)
    if path is None:
        if needs_model:
            return None
        lens = replace(lens, model="")
    try:
        info = load_dataset_info(app.workspace, dataset)
        template = template_print(app, lens)
    except TunesmithError:
        return None
    through = {**asdict(lens), "method": None}  # makes no other tokens
    key = (question, info.id, info.fingerprint, template, f"{path} {through} {more}")
    known = app.answers.get(key)
    if known is None or known.done() and known.exception() is not None:
        while len(app.answers) >= REMEMBERED:
            app.answers.pop(next(iter(app.answers)))
        asked = f"core.worker.tokenizers:{question}", app.workspace, info.id, lens, *more
        app.answers[key] = app.pool.submit(*asked)
    return app.answers[key]


def template_print(app: App, lens: Lens) -> str:
    """Tells a template from what it was before it was edited. Raises DataError without it."""
    return hashlib.sha256(lens.template(app.workspace).encode()).hexdigest()


class ModelFetch:
    """`offer` and `hide` are what a handler gives for `button`."""

    def __init__(self, app: App, shared: Shared) -> None:
        self.app, self.shared = app, shared
        self.fetching = background.Tasks()
        self.button = gr.Button(_("Fetch the model"), visible=False, scale=0)
        self.stop = gr.Button(_("Stop the download"), visible=False, scale=0)
        self.progress = gr.HTML(apply_default_css=False)

    @staticmethod
    def offer(wanted: bool = True) -> Any:
        return gr.Button(visible=wanted)

    # -- handlers

    def fetch(self, lens_text: str, request: gr.Request) -> Iterator[Any]:
        """Brings the model here, and says how far that is."""
        name, workspace = Lens.read(lens_text).model, self.app.workspace
        task = background.begin(
            lambda task: fetch_model(name, workspace, task.tell), _("Looking for the model")
        )
        for glance in self.fetching.watch(request.session_hash, task):
            yield messages.progress(glance.fraction, glance.message), gr.Button(visible=True)
        yield messages.error(task.error) if task.error else "", gr.Button(visible=False)

    def end(self, request: gr.Request) -> None:
        self.fetching.stop(request.session_hash)

    # -- wiring

    def wire(self) -> Any:
        """The event after which the model is there, or it was said why it is not."""
        quiet = {**QUIET, "concurrency_limit": None}
        self.stop.click(self.end, None, None, **quiet)
        return self.button.click(self.fetch, self.shared.lens, [self.progress, self.stop], **quiet)
