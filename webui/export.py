"""Export: what was trained in a form to take away, proved before it is offered; and the exports
there are: what each is, what was checked and measured, where it lies, a link to get it."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import gradio as gr
from gradio.components import Component
from markupsafe import Markup

from core.errors import ConfigError, TunesmithError
from core.export.format import Option
from core.export.formats import formats
from core.export.reports import Export, list_exports
from core.export.unfinished import delete_unfinished, unfinished_bytes
from core.language import _
from core.rules import load_config
from core.runs.submit import submit_export
from core.setup.extras import Extra, missing
from core.workspace import RunFolder
from webui import messages, push
from webui.beginning import Beginning
from webui.choice import Radio
from webui.cloud import CloudView
from webui.combine import Combining
from webui.context import QUIET, App, Shared
from webui.extras import ExtrasView
from webui.html import html
from webui.job_progress import JobProgress
from webui.run_choice import find_run, run_picker, trained_runs


def build(app: App, shared: Shared) -> None:
    tab = _Export(app, shared)
    tab.wire()
    push.build(app, shared, tab.listed)
    CloudView(app, shared).wire(tab.listed)


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
            self.kind = Radio(
                _formats(app, ""), value=first, label=_("Format"), elem_id="export-format"
            )
            self.meaning = gr.HTML(apply_default_css=False)
            self.options = {
                option: _option(option)
                for option in dict.fromkeys(o for form in formats().values() for o in form.options)
            }
            self.combining = Combining(app)
            self.extras = ExtrasView(app, "export-extras", lambda data: _missing(data[self.kind]))
            with gr.Row(elem_classes="actions"):
                self.start = gr.Button(_("Export"), variant="primary", elem_id="export-start")
        self.said = gr.HTML(elem_id="export-said", apply_default_css=False)
        self.jobs = JobProgress(
            app, ("export",), elem_id="export-status", of="run_id", stop_id="export-stop"
        )
        self.listed = gr.HTML(elem_id="export-list", apply_default_css=False)
        with gr.Row(elem_classes="actions"):
            self.left = gr.Button(visible=False, size="sm", scale=0, elem_id="export-left")
        self.left_bytes = gr.State(0)

    # -- handlers

    def open(self, data: dict[Component, Any]) -> dict[Component, Any]:
        """What the selected run can be exported as, and what was exported already."""
        run_id = data[self.shared.run]
        is_empty = not trained_runs(self.app)
        shown = dict(zip(self.beginning.outputs, self.beginning.show(is_empty), strict=True))
        if is_empty:
            hidden = {self.form: gr.Column(visible=False), self.left: gr.Button(visible=False)}
            return {**shown, **hidden, self.listed: ""}
        choices = _formats(self.app, run_id)
        chosen = data[self.kind]
        if chosen not in [name for _title, name in choices]:
            chosen = choices[0][1]
        return {
            **shown,
            self.form: gr.Column(visible=True),
            self.kind: gr.Radio(choices, value=chosen),
            self.listed: self.show(run_id),
            **self.show_left(run_id),
            **self.combining.offer(run_id),
            **self.explain(chosen),
        }

    def explain(self, chosen: str) -> dict[Component, Any]:
        """What one gets, what can be chosen of it, and what has to be installed for it."""
        form, missing = formats()[chosen], _missing(chosen)
        return {
            self.meaning: html.plain.aside(_(form.meaning)),
            **{
                field: field.__class__(visible=option in form.options)
                for option, field in self.options.items()
            },
            **self.extras.follow(missing),
            self.start: gr.Button(interactive=not missing),
        }

    def begin(self, data: dict[Component, Any]) -> dict[Component, Any]:
        chosen = data[self.kind]
        params = {"format": chosen, "checkpoint": data[self.checkpoint]}
        params |= {one.name: data[self.options[one]] for one in formats()[chosen].options}
        try:
            params["combination"] = self.combining.read(data)
            submit_export(self.app.workspace, self.app.store, data[self.shared.run], params)
        except ConfigError as problem:
            return {self.said: "", **self.combining.marks(data, problem.problems)}
        except TunesmithError as problem:
            return {self.said: messages.error(problem), **self.combining.marks(data)}
        return {self.said: "", **self.combining.marks(data)}

    def show(self, run_id: str) -> Markup:
        run = find_run(self.app, run_id)
        return exports(run.folder) if run else Markup()

    def show_left(self, run_id: str) -> dict[Component, Any]:
        """What unfinished exports take, on the button that deletes them."""
        run = find_run(self.app, run_id)
        size = unfinished_bytes(run.folder.root) if run else 0
        told = _("Delete unfinished exports ({size})", size=messages.size(size))
        return {self.left: gr.Button(told, visible=bool(size)), self.left_bytes: size}

    def refresh(self, data: dict[Component, Any]) -> dict[Component, Any]:
        run_id, fresh = data[self.shared.run], self.show(data[self.shared.run])
        left = self.show_left(run_id)
        found: dict[Component, Any] = {} if fresh == data[self.listed] else {self.listed: fresh}
        if left[self.left_bytes] != data[self.left_bytes]:
            found |= left
        return found or {self.listed: gr.skip()}

    def delete_left(self, run_id: str) -> dict[Component, Any]:
        run = find_run(self.app, run_id)
        if run:
            delete_unfinished(run.folder.root)
        return self.show_left(run_id)

    # -- wiring

    def wire(self) -> None:
        shared, run = self.shared, self.shared.run
        quiet = QUIET
        explained = {self.meaning, *self.options.values(), self.start, *self.extras.outputs}
        opened = {*self.beginning.outputs, self.form, self.kind, self.listed, *explained}
        opened |= {self.left, self.left_bytes, *self.combining.outputs}
        shared.on_show("export", self.open, {run, self.kind}, opened)
        self.kind.change(self.explain, self.kind, explained, **quiet)
        installed = self.extras.wire({self.kind})
        installed.then(self.explain, self.kind, explained, **quiet)
        chosen = {run, self.checkpoint, self.kind, *self.options.values(), *self.combining.inputs}
        told = {self.said, self.combining.form.marks}
        begun = self.start.click(self.begin, chosen, told, **quiet)
        self.combining.wire()
        self.jobs.wire(shared, "export", run, self.start, begun)
        left = {self.left, self.left_bytes}
        self.left.click(self.delete_left, run, left, **quiet)
        shared.on_tick(self.refresh, {run, self.listed, self.left_bytes}, {self.listed, *left})


def _option(option: Option) -> gr.Radio | gr.CheckboxGroup:
    """What can be chosen of a form, as its field."""
    shared = {
        "label": _(option.title),
        "info": _(option.help),
        "visible": False,
        "elem_id": f"export-{option.name}",
    }
    choices = [(_(title), name) for name, title in option.choices]
    if option.several:
        return gr.CheckboxGroup(choices, value=list(option.default), elem_classes="pills", **shared)
    return gr.Radio(choices, value=option.default[0], **shared)


def _missing(chosen: str) -> list[Extra]:
    """The packages that a form needs and that are not there."""
    extra = formats()[chosen].extra
    return missing([extra] if extra else [])


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


def exports(run: RunFolder) -> Markup:
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
    return html.export.exports(messages.folded(cards, OPEN_EXPORTS))


def _card(item: Export) -> Markup:
    known = formats().get(item.format)
    title = known.title if known else item.format
    told = Markup(_("{model}, {when}, {size}. Folder: {place}")).format(
        model=messages.checkpoint(item.checkpoint),
        when=messages.moment(item.created_at),
        size=messages.size(item.size_bytes),
        place=html.export.code(item.path or _("not there any more")),
    )
    link = f"tunesmith/exports/{quote(item.folder.parents[1].name)}/{quote(item.id)}"
    return html.export.card(
        title=title,
        told=told,
        combined=_combined(item),
        table=_table(item, title),
        checks=item.checks,
        is_folded=len(item.parts) > 1,
        link=link if item.path else "",
        file=f"{item.path.name}.zip" if item.path else "",
    )


def _combined(item: Export) -> str:
    """Whose adapters are in it beside the run's own."""
    if item.combination is None:
        return ""
    way = item.combination.way
    return _(
        "Its adapter ({weight:g}) combined by {kind} with: {others}",
        weight=way.weight,
        kind=way.combination_type,
        others=", ".join(
            f"{one.run} {messages.checkpoint(one.checkpoint)} ({one.weight:g})"
            for one in item.combination.others
        ),
    )


def _table(item: Export, title: str) -> Markup:
    """What was measured of each model in an export of a format with this title, under the trained
    one and its base."""
    if not item.parts:
        return Markup()
    parts = [
        (
            one.precision if one.file else title,
            messages.size(one.size_bytes),
            one,
        )
        for one in item.parts
    ]
    trained: list[tuple[str, float | None]] = []
    if item.perplexity is not None:
        trained = [(_("Trained model"), item.perplexity), (_("Its base"), item.base_perplexity)]
    has_fields = any(one.fields_right is not None for one in item.parts)
    return html.export.table(parts, trained, has_fields)
