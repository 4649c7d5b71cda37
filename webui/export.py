"""Export: an adapter or a merged model to take away, proved before it is offered; and the exports
there are: what each is, what was checked, where it lies, a link to get it."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import gradio as gr

from core.errors import TunesmithError
from core.export.formats import formats
from core.export.reports import Export, list_exports
from core.language import _
from core.rules import load_config
from core.runs.submit import submit_export
from core.workspace import RunFolder
from webui import messages, push
from webui.beginning import Beginning
from webui.context import QUIET, App, Shared
from webui.job_progress import JobProgress
from webui.run_choice import find_run, run_picker, trained_runs


def build(app: App, shared: Shared) -> None:
    _Export(app, shared).wire()
    push.build(app, shared)


class _Export:
    def __init__(self, app: App, shared: Shared) -> None:
        self.app, self.shared = app, shared
        self.beginning = Beginning(
            app,
            shared,
            _("Nothing to export yet"),
            _("Train a model first. It can then be taken away from here."),
        )
        with gr.Column(visible=False, elem_id="export-form") as self.form:
            _run, self.checkpoint = run_picker(app, shared, "export")
            first = next(iter(formats()))
            self.kind = gr.Radio(
                _formats(app, ""), value=first, label=_("Format"), elem_id="export-format"
            )
            self.meaning = gr.HTML(self.explain(first), apply_default_css=False)
            with gr.Row(elem_classes="actions"):
                self.start = gr.Button(_("Export"), variant="primary", elem_id="export-start")
        self.said = gr.HTML(elem_id="export-said", apply_default_css=False)
        self.jobs = JobProgress(
            app, ("export",), elem_id="export-status", of="run_id", stop_id="export-stop"
        )
        self.listed = gr.HTML(elem_id="export-list", apply_default_css=False)

    # -- handlers

    def open(self, run_id: str):
        """What the selected run can be exported as, and what was exported already."""
        if not trained_runs(self.app):
            return *self.beginning.show(True), gr.Column(visible=False), gr.skip(), ""
        choices = _formats(self.app, run_id)
        kind = gr.Radio(choices, value=choices[0][1])
        shown = gr.Column(visible=True)
        return *self.beginning.show(False), shown, kind, self.show(run_id)

    def explain(self, chosen: str) -> str:
        return f"<p class='aside'>{messages.escape(formats()[chosen].meaning)}</p>"

    def begin(self, run_id: str, name: str, chosen: str):
        try:
            params = {"format": chosen, "checkpoint": name}
            submit_export(self.app.workspace, self.app.store, run_id, params)
        except TunesmithError as problem:
            return messages.error(problem)
        return ""

    def show(self, run_id: str) -> str:
        run = find_run(self.app, run_id)
        return exports(run.folder) if run else ""

    def refresh(self, run_id: str, drawn: str):
        fresh = self.show(run_id)
        return gr.skip() if fresh == drawn else fresh

    # -- wiring

    def wire(self) -> None:
        shared, run = self.shared, self.shared.run
        quiet = QUIET
        opened = [*self.beginning.outputs, self.form, self.kind, self.listed]
        shared.on_show("export", self.open, [run], opened)
        self.kind.change(self.explain, self.kind, self.meaning, **quiet)
        begun = self.start.click(self.begin, [run, self.checkpoint, self.kind], self.said, **quiet)
        self.jobs.wire(shared, "export", run, self.start, begun)
        shared.ticker.tick(self.refresh, [run, self.listed], self.listed, **quiet)


def _formats(app: App, run_id: str) -> list[tuple[str, str]]:
    """(title, name) of what there is to take away."""
    run = find_run(app, run_id)
    config = load_config(run.folder.config) if run else None
    return [
        (_(form.title), name)
        for name, form in formats().items()
        if config is None or not form.why_not(config)
    ]


# Of many exports the others open at a click.
OPEN_EXPORTS = 8


def exports(run: RunFolder) -> str:
    """Every finished export of a run, newest first."""
    cards = [_card(item) for item in list_exports(run.root) if item.state == "finished"]
    if not cards:
        return messages.empty(
            _("No export yet"),
            _(
                "An export is loaded again and compared with the trained model before it is "
                "offered."
            ),
        )
    return f"<h3>{_('Exports')}</h3>{messages.folded(cards, OPEN_EXPORTS)}"


def _card(item: Export) -> str:
    known = formats().get(item.format)
    title = known.title if known else item.format
    checks = "".join(_check(check) for check in item.checks)
    place = messages.escape(item.path) if item.path else _("not there any more")
    told = _(
        "{model}, {when}, {size}. Folder: {place}",
        model=messages.escape(messages.checkpoint(item.checkpoint)),
        when=messages.moment(item.created_at),
        size=messages.size(item.size_bytes),
        place=f"<code>{place}</code>",
    )
    return (
        f'<article class="card export"><div><h4>{messages.escape(title)}</h4>'
        f'<p class="soft">{told}</p>'
        f"<ul class='checks'>{checks}</ul></div>{_link(item)}</article>"
    )


def _link(item: Export) -> str:
    if item.zip is None:
        return f'<span class="soft">{_("The zip is not there any more.")}</span>'
    place = f"tunesmith/exports/{quote(item.folder.parents[1].name)}/{quote(item.id)}"
    told = _("Download zip ({size})", size=messages.size(item.zip.stat().st_size))
    return (
        f'<a class="button" href="{place}" download="{messages.escape(item.zip.name)}">{told}</a>'
    )


def _check(check: dict[str, Any]) -> str:
    word = _("Passed") if check["ok"] else _("Failed")
    state = "finished" if check["ok"] else "failed"
    return (
        f'<li><span class="badge badge-{state}">{word}</span> {messages.escape(check["name"])}'
        f"<small>{messages.escape(check.get('detail', ''))}</small></li>"
    )
