"""The Hugging Face Hub in Export: who is logged in, what a push would do, and pushing an export."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import gradio as gr
from gradio.components import Component
from markupsafe import Markup

from core.errors import ConfigError, TunesmithError
from core.export.card import CardText, read_card, save_card
from core.export.formats import formats
from core.export.reports import Export, list_exports
from core.hub.account import Account, log_in, log_out, who_am_i
from core.hub.answers import token_page
from core.hub.plan import LOOKED, SAME, STATES, Plan, PushSettings, parse_settings
from core.hub.push import export_to_push, plan_push, pushes, submit_push
from core.language import N_, _, n_
from webui import background, messages
from webui.choice import Dropdown
from webui.context import CHOICE, QUIET, App, Shared
from webui.data.step_form import first_values, groups, marks, read_fields, section_specs
from webui.forms import Form, Group
from webui.html import html
from webui.job_progress import JobProgress
from webui.run_choice import find_run

_SPECS = section_specs(PushSettings, "push")
_CARD = section_specs(CardText, "push")
_NEWEST = N_("The newest export")


def build(app: App, shared: Shared, exported: gr.HTML) -> None:
    """`exported` changes when there is another export."""
    _Push(app, shared, exported).wire()


class _Push:
    def __init__(self, app: App, shared: Shared, exported: gr.HTML) -> None:
        self.app, self.shared, self.exported = app, shared, exported
        self.looks = background.Watches()
        # What was public once cannot be taken back: who wants that takes the tick away.
        self.form = Form("push", {**first_values([*_SPECS, *_CARD]), "push.private": True})
        with gr.Accordion(
            _("Hugging Face Hub"), open=False, visible=False, elem_classes="fold", elem_id="push"
        ) as self.fold:
            self.who = gr.HTML(
                messages.note(_("Asking the Hub who you are")),
                elem_id="push-who",
                apply_default_css=False,
            )
            self.token = gr.Textbox(
                label=_("Token"),
                type="password",
                max_lines=1,
                visible=False,
                submit_btn=_("Log in"),
                html_attributes=gr.InputHTMLAttributes(autocomplete="off"),
                elem_id="push-token",
            )
            self.logout = gr.Button(
                _("Log out"), visible=False, size="sm", scale=0, elem_id="push-logout"
            )
            self.export = Dropdown(
                [(_(_NEWEST), "")], value="", label=_("Export"), elem_id="push-export"
            )
            self.form.part(groups(_SPECS, "", ""))
            self.form.part([Group(_CARD, _("Model card"), "fold-push-card")])
            self.carded = gr.State("")  # the export whose card is shown
            with gr.Row(elem_classes="actions"):
                self.look = gr.Button(_("Show what would be uploaded"), elem_id="push-look")
                self.start = gr.Button(_("Push"), variant="primary", elem_id="push-start")
            self.said = gr.HTML(elem_id="push-said", apply_default_css=False)
        # Not in what is shown and hidden: Gradio would show what is hidden in it.
        self.jobs = JobProgress(
            app, ("push",), elem_id="push-status", of="run_id", stop_id="push-stop"
        )
        self.there = gr.HTML(elem_id="push-there", apply_default_css=False)
        self.form.render()

    # -- handlers

    def open(self, run_id: str, carded: str) -> dict[Component, Any]:
        """What of the selected run can be pushed, and where it was pushed already."""
        offered = self.offer(run_id, "", carded)
        return {**offered, self.there: self.pushed(run_id), self.said: ""}

    def offer(self, run_id: str, chosen: str, carded: str) -> dict[Component, Any]:
        """The exports that there are now; the chosen one stays so, and the card with it."""
        run = find_run(self.app, run_id)
        found = [one for one in list_exports(run.folder.root) if one.path] if run else []
        choices = [(_(_NEWEST), ""), *((_title(one), one.id) for one in found)]
        return {
            self.fold: gr.Accordion(visible=bool(found)),
            self.export: gr.Dropdown(choices, value=chosen),
            **self.show_card(run_id, chosen, carded),
        }

    def show_card(self, run_id: str, chosen: str, carded: str) -> dict[Component, Any]:
        """The card of the chosen export, unless it is shown already and perhaps being edited."""
        run = find_run(self.app, run_id)
        found = [one for one in list_exports(run.folder.root) if one.path] if run else []
        export = next((one for one in found if chosen in ("", one.id)), None)
        if export is None or export.path is None or export.id == carded:
            return {}
        card = read_card(export.path)
        return {self.carded: export.id, **self.form.fill({"push.card": card}), **self._marks()}

    def identify(self) -> dict[Component, Any]:
        try:
            return self._show_who(who_am_i())
        except TunesmithError as problem:
            return {**self._show_who(None), self.who: messages.error(problem)}

    def enter(self, token: str) -> dict[Component, Any]:
        """Logs in; the token is taken out of the page, whatever comes of it."""
        try:
            return self._show_who(log_in(token))
        except TunesmithError as problem:
            return {self.token: "", self.who: messages.error(problem)}

    def leave(self) -> dict[Component, Any]:
        try:
            log_out()
        except TunesmithError as problem:
            return {self.who: messages.error(problem)}
        return self._show_who(None)

    def plan(self, data: dict[Component, Any], request: gr.Request) -> Iterator[Any]:
        """What a push would do. Files of many gigabytes are read for it: the page goes on."""
        try:
            settings, export = self._asked(data)
        except TunesmithError as problem:
            yield self._wrong(problem)
            return
        task = background.begin(
            lambda task: plan_push(self.app.workspace, settings, export=export, tell=task.tell),
            _("Looking at what is there"),
        )
        try:
            with self.looks.watch(request.session_hash or "", task) as watch:
                for _glance in watch.glances():
                    share = None if task.fraction is None else min(task.fraction / LOOKED, 1.0)
                    yield {self.said: messages.progress(share, task.message)}
                if not watch.wanted:
                    yield gr.skip()
                elif task.error:
                    yield self._wrong(task.error)
                else:
                    yield {self.said: _planned(task.result), **self._marks()}
        finally:
            task.stop()  # nobody waits for it any more

    def begin(self, data: dict[Component, Any], request: gr.Request) -> dict[Component, Any]:
        self.looks.leave(request.session_hash or "")
        try:
            settings, export = self._asked(data)
            submit_push(self.app.workspace, self.app.store, settings, export=export)
        except TunesmithError as problem:
            return self._wrong(problem)
        return {self.said: "", **self._marks()}

    def pushed(self, run_id: str) -> Markup:
        """Where what of this run lies on the Hub."""
        run = find_run(self.app, run_id)
        found = pushes(self.app.workspace, run_id) if run else []
        return html.push.pushed(
            [
                (one, messages.moment(one.at))
                for one in found
                if one.url.startswith(("https://", "http://"))
            ]
        )

    def refresh(self, run_id: str, drawn: str) -> Any:
        fresh = self.pushed(run_id)
        return gr.skip() if fresh == drawn else fresh

    def _asked(self, data: Mapping[Component, Any]) -> tuple[PushSettings, Export]:
        """What is to be pushed; its card is kept as it was edited."""
        held = self.form.held(data)
        settings = parse_settings(read_fields(_SPECS, held))
        run_id, chosen = data[self.shared.run], data[self.export] or ""
        export = export_to_push(self.app.workspace, run_id, chosen)
        if export.path is not None and export.id == data[self.carded]:
            save_card(export.path, held["push.card"])
        return settings, export

    def _wrong(self, problem: TunesmithError) -> dict[Component, Any]:
        """What is wrong, at its field where it has one."""
        if isinstance(problem, ConfigError):
            return {self.said: "", **self._marks(problem)}
        return {self.said: messages.error(problem), **self._marks()}

    def _marks(self, error: ConfigError | None = None) -> dict[Component, Any]:
        found = error.problems if error else ()
        named = tuple(replace(one, field=f"push.{one.field}") for one in found)
        return marks(self.form, [*_SPECS, *_CARD], {}, named)

    def _show_who(self, account: Account | None) -> dict[Component, Any]:
        return {
            self.who: _who(account),
            self.token: gr.Textbox("", visible=account is None),
            self.logout: gr.Button(visible=bool(account and not account.from_environment)),
        }

    # -- wiring

    def wire(self) -> None:
        shared, run = self.shared, self.shared.run
        here = {run, self.export, self.carded, *self.form.parts}
        known = {self.who, self.token, self.logout}
        card = {self.carded, self.form.filled, self.form.marks}
        offered = {self.fold, self.export, *card}
        now = [run, self.export, self.carded]
        shared.on_show("export", self.open, [run, self.carded], {*offered, self.there, self.said})
        self.exported.change(self.offer, now, offered, **CHOICE)
        self.export.change(self.show_card, now, card, **CHOICE)
        self.form.wire()
        self.fold.expand(self.identify, None, known, **QUIET)
        self.token.submit(self.enter, self.token, known, **QUIET)
        self.logout.click(self.leave, None, known, **QUIET)
        told = {self.said, self.form.marks}
        self.look.click(self.plan, here, told, concurrency_limit=None, **CHOICE)
        begun = self.start.click(self.begin, here, told, **QUIET)
        self.jobs.wire(shared, "export", run, self.start, begun)
        shared.on_tick(self.refresh, [run, self.there], [self.there])


def _title(export: Export) -> str:
    known = formats().get(export.format)
    return _(
        "{format}, {model}, {when}",
        format=_(known.title) if known else export.format,
        model=messages.checkpoint(export.checkpoint),
        when=messages.moment(export.created_at),
    )


def _who(account: Account | None) -> Markup:
    if account is None:
        told = _(
            "Nobody is logged in. {link}Make a token that may write{end}, and log in with it. It "
            "is kept by huggingface_hub on the machine that runs Tunesmith, and whoever "
            "can open this page pushes with it."
        )
        ends = {"link": html.push.opened_link(token_page()), "end": html.push.closed_link()}
        return html.plain.aside(Markup(told).format(**ends))
    told = _("Logged in as {name}. The token {may}.")
    name = html.plain.strong(account.name)
    return html.plain.aside(Markup(told).format(name=name, may=account.may()))


def _planned(plan: Plan) -> Markup:
    """What a push would do, as HTML."""
    kind = _("private") if plan.private else _("public")
    state = _("is there, {kind}", kind=kind) if plan.exists else _("is made, {kind}", kind=kind)
    branch = plan.branch if plan.branch_exists else _("{name} (new)", name=plan.branch)
    facts: dict[str, str] = {
        _("Repository"): f"{plan.repo_id} ({state})",
        _("Goes to"): _("a pull request to main") if plan.create_pr else branch,
        _("To send"): n_(
            "{n} file, {size}",
            "{n} files, {size}",
            len(plan.to_send),
            size=messages.size(plan.bytes_to_send),
        ),
    }
    if same := sum(one.state == SAME for one in plan.files):
        facts[_("There already")] = n_("{n} file", "{n} files", same)
    if plan.others:
        facts[_("Only there, and stays")] = n_("{n} file", "{n} files", plan.others)
    files = [(one.path, messages.size(one.size_bytes), _(STATES[one.state])) for one in plan.files]
    return html.push.planned(messages.facts(facts), files)
