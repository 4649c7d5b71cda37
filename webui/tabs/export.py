"""Export: an adapter or a merged model to take away, proved before it is offered."""

from __future__ import annotations

from typing import Any

import gradio as gr

from core.config import load_config
from core.errors import TunesmithError
from core.jobs.submit import stop_job, submit_export
from webui import messages
from webui.context import App, Shared
from webui.export_view import exports
from webui.pick import find_run, run_picker, trained_runs
from webui.task_view import latest_task, task_status

FORMATS = [("Merged model", "merged"), ("Adapter", "adapter")]
MEANING = {
    "merged": "One folder of safetensors that works wherever transformers works. As large as the "
    "base model.",
    "adapter": "Only what was learned: a few megabytes, to be loaded onto the base with PEFT.",
}


def build(app: App, shared: Shared) -> None:
    # Components
    nothing = gr.HTML(apply_default_css=False)
    with gr.Column(visible=False, elem_id="export-form") as form:
        _, checkpoint = run_picker(app, shared, "export")
        kind = gr.Radio(FORMATS, value="merged", label="Format", elem_id="export-format")
        meaning = gr.HTML(f"<p class='aside'>{MEANING['merged']}</p>", apply_default_css=False)
        with gr.Row(elem_classes="actions"):
            start = gr.Button("Export", variant="primary", elem_id="export-start")
            stop = gr.Button("Stop", visible=False, elem_id="export-stop")
    status = gr.HTML(elem_id="export-status", apply_default_css=False)
    listed = gr.HTML(elem_id="export-list", apply_default_css=False)

    # Handlers
    def open_tab(run_id: str):
        """What the selected run can be exported as, and what was exported already."""
        if not trained_runs(app):
            empty = messages.empty(
                "Nothing to export yet",
                "Train a model in Configure. It can then be taken away from here.",
            )
            return empty, gr.Column(visible=False), gr.skip(), ""
        whole = _trained_whole(app, run_id)
        choices = FORMATS[:1] if whole else FORMATS
        return "", gr.Column(visible=True), gr.Radio(choices, value="merged"), show(run_id)

    def explain(chosen: str) -> str:
        return f"<p class='aside'>{MEANING[chosen]}</p>"

    def begin(run_id: str, name: str, chosen: str):
        try:
            params = {"format": chosen, "checkpoint": name}
            submit_export(app.workspace, app.store, run_id, params)
        except TunesmithError as problem:
            return messages.error(problem), gr.skip(), gr.skip()
        return watch(run_id, "")

    def halt(run_id: str) -> None:
        job = latest_task(app, run_id, "export")
        if job is not None and not job.ended:
            stop_job(app.workspace, app.store, job.id)

    def watch(run_id: str, drawn: str):
        """How far the export is; nothing is sent when nothing is new."""
        text, busy = task_status(app, run_id, "export", "Export")
        if text == drawn:
            return gr.skip(), gr.skip(), gr.skip()
        return text, gr.Button(interactive=not busy), gr.Button(visible=busy)

    def show(run_id: str) -> str:
        run = find_run(app, run_id)
        return exports(run.folder) if run else ""

    def refresh(run_id: str, drawn: str):
        fresh = show(run_id)
        return gr.skip() if fresh == drawn else fresh

    # Wiring
    quiet: dict[str, Any] = {"show_progress": "hidden"}
    progress = [status, start, stop]
    shared.on_show("export", open_tab, [shared.run], [nothing, form, kind, listed])
    shared.on_show("export", watch, [shared.run, status], progress)
    kind.change(explain, kind, meaning, **quiet)
    start.click(begin, [shared.run, checkpoint, kind], progress, **quiet)
    stop.click(halt, shared.run, None, **quiet)
    shared.ticker.tick(watch, [shared.run, status], progress, **quiet)
    shared.ticker.tick(refresh, [shared.run, listed], listed, **quiet)


def _trained_whole(app: App, run_id: str) -> bool:
    """Whether the run trained every weight, so that there is no adapter to take away."""
    run = find_run(app, run_id)
    return run is not None and load_config(run.folder.config).adapter.method == "none"
