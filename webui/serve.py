"""A server of the selected run in Chat: for programs that speak to OpenAI's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gradio as gr
from gradio.components import Component
from markupsafe import Markup

from core.errors import ConfigError, TunesmithError
from core.language import _
from core.serve.examples import KEY_VARIABLE, curl, python, vllm_command
from core.serve.servers import Server, endpoint_key, servers, submit_server
from core.serve.settings import ServeSettings, serve_settings
from webui import messages
from webui.context import QUIET, App, Shared
from webui.data.step_form import first_values, groups, marks, read_fields, section_specs
from webui.forms import Form
from webui.html import html
from webui.job_progress import JobProgress
from webui.run_choice import find_run

_SPECS = section_specs(ServeSettings, "serve")


def build(app: App, shared: Shared) -> None:
    _Serve(app, shared).wire()


class _Serve:
    def __init__(self, app: App, shared: Shared) -> None:
        self.app, self.shared = app, shared
        self.form = Form("serve", first_values(_SPECS))
        with gr.Accordion(
            _("Serve to your own programs"), open=False, elem_classes="fold", elem_id="serve"
        ):
            self.meaning = gr.HTML(_meaning(), apply_default_css=False)
            self.form.part(groups(_SPECS, _("More settings"), "serve-more"))
            with gr.Row(elem_classes="actions"):
                self.start = gr.Button(_("Start the server"), elem_id="serve-start")
            self.said = gr.HTML(elem_id="serve-said", apply_default_css=False)
            with gr.Column(visible=False) as self.answering:
                self.facts = gr.HTML(elem_id="serve-facts", apply_default_css=False)
                self.key = gr.Textbox(
                    label=_("Key"),
                    type="password",
                    interactive=False,
                    buttons=["copy"],
                    elem_id="serve-key",
                )
                self.codes = [
                    gr.Code(
                        label=label,
                        language=language,
                        lines=1,
                        interactive=False,
                        show_line_numbers=False,
                        buttons=["copy"],
                        elem_id=f"serve-{language}",
                        visible=False,
                    )
                    for label, language in ((_("In Python"), "python"), (_("In a shell"), "shell"))
                ]
        # Not in a fold: it tells that a server is at work, and stops it.
        self.jobs = JobProgress(
            app, ("serve",), elem_id="serve-status", of="run_id", stop_id="serve-stop"
        )
        self.form.marks.render()
        self.shown = {self.answering, self.facts, self.key, *self.codes}

    # -- handlers

    def begin(self, data: dict[Component, Any]) -> dict[Component, Any]:
        try:
            run = find_run(self.app, data[self.shared.run])
            if run is None:
                raise TunesmithError(
                    _("No run is selected. What stands above the columns is talked to here alone."),
                    _("Choose the run to serve in Runs."),
                )
            settings = serve_settings(read_fields(_SPECS, self.form.held(data)))
            submit_server(self.app.workspace, self.app.store, run.id, settings)
        except ConfigError as problem:
            named = tuple(replace(one, field=f"serve.{one.field}") for one in problem.problems)
            return {self.said: "", **marks(self.form, _SPECS, {}, named)}
        except TunesmithError as problem:
            return {self.said: messages.error(problem), **marks(self.form, _SPECS, {})}
        return {self.said: "", **marks(self.form, _SPECS, {})}

    def open(self, run_id: str) -> dict[Any, Any]:
        return {self.said: "", **self._show(self._newest(run_id))}

    def refresh(self, run_id: str, drawn: str) -> Any:
        """Where the run's server answers, once it does."""
        server = self._newest(run_id)
        if (drawn or "") == self._facts(server):
            return {self.facts: gr.skip()}
        return self._show(server)

    def _newest(self, run_id: str) -> Server | None:
        found = servers(self.app.workspace, self.app.store, run_id) if run_id else []
        return found[0] if found else None

    def _show(self, server: Server | None) -> dict[Any, Any]:
        if server is None:
            empty = {self.key: "", **dict.fromkeys(self.codes, "")}
            return {self.answering: gr.Column(visible=False), self.facts: "", **empty}
        said = (gr.Code(text, visible=True) for text in (python(server), curl(server)))
        texts = dict(zip(self.codes, said, strict=True))
        return {
            self.answering: gr.Column(visible=True),
            self.facts: self._facts(server),
            self.key: endpoint_key(self.app.workspace),
            **texts,
        }

    def _facts(self, server: Server | None) -> Markup:
        if server is None:
            return Markup()
        facts: dict[str, str] = {
            _("Address"): f"{server.address}/v1",
            _("Engine"): server.engine,
            _("Models"): ", ".join(server.models),
            _("Key"): _(
                "{variable} in the examples; {file} in the workspace holds it",
                variable=KEY_VARIABLE,
                file=self.app.workspace.endpoint_key.name,
            ),
        }
        devices = [device.label for device in self.app.hardware.devices]
        faster = vllm_command(self.app.workspace, server, devices)
        if faster:
            facts[_("Faster on this GPU")] = faster
        why = messages.note(_("Not llama.cpp: {why}", why=server.why)) if server.why else Markup()
        return messages.facts(facts) + why

    # -- wiring

    def wire(self) -> None:
        shared, run = self.shared, self.shared.run
        shared.on_show("chat", self.open, [run], {self.said, *self.shown})
        begun = self.start.click(
            self.begin, {run, *self.form.parts}, {self.said, self.form.marks}, **QUIET
        )
        self.jobs.wire(shared, "chat", run, self.start, begun)
        shared.on_tick(self.refresh, [run, self.facts], self.shown)


def _meaning() -> Markup:
    told = _(
        "An endpoint on this machine that answers as OpenAI's do, in editors, scripts and other "
        "programs: the selected run, its checkpoints and its base, each by its name. It goes on "
        "when this page is closed."
    )
    return html.plain.aside(told)
