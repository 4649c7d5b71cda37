"""The slim line on top of every tab: mark, device, the active run, light or dark."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gradio as gr
from markupsafe import Markup

from core.language import HTML_LANGUAGES, LANGUAGES, _, language, n_
from webui import messages, theme
from webui.context import QUIET, App, Shared
from webui.html import html

if TYPE_CHECKING:
    from core.jobs.job import Job

# How often the GPU's memory is looked at, in seconds: nvidia-smi takes a moment.
GPU_SECONDS = 10

_SCRIPT = """
tunesmith.hears('header', trigger, 'tick');
element.addEventListener('click', (event) => {
  const run = event.target.closest('[data-run]');
  if (run) trigger('open', {run: run.dataset.run});
  if (event.target.closest('[data-theme-toggle]')) tunesmith.toggleTheme();
  const other = event.target.closest('[data-language]');
  if (other) tunesmith.setLanguage(other.dataset.language);
});
"""


def build(app: App, shared: Shared) -> None:
    header = gr.HTML(
        render(app), elem_id="header", js_on_load=_SCRIPT, apply_default_css=False, show_label=False
    )
    if app.hardware.gpus:
        gr.Timer(GPU_SECONDS).tick(app.probe_again, **QUIET)

    def refresh(shown: str) -> Any:
        """Only what is new: the browser hands back what it shows."""
        fresh = render(app)
        return gr.skip() if fresh == shown else fresh

    def open_run(event: gr.EventData) -> Any:
        return event.run, shared.go("train")

    header.tick(
        refresh, header, header, trigger_mode="always_last", concurrency_limit=None, **QUIET
    )
    header.open(open_run, None, [shared.run, shared.tabs], **QUIET)


def render(app: App) -> Markup:
    """The header's HTML, with how things stand now and a button that shows the page in the other
    language, in that language."""
    other = next(code for code in LANGUAGES if code != language())
    return html.header.header(
        logo=Markup(theme.LOGO.read_text(encoding="utf-8")),  # a file of ours
        device=device(app),
        run=active_run(app),
        code=other,
        lang=HTML_LANGUAGES[other],
        language=LANGUAGES[other],
    )


def device(app: App) -> str:
    """The accelerators with the memory used of the first, or the CPU with its cores."""
    hardware = app.hardware
    if not hardware.gpus:
        return n_("CPU, {n} core", "CPU, {n} cores", hardware.cpu_count)
    first = hardware.gpus[0]
    used = messages.size(first.memory_total_bytes - first.memory_free_bytes)
    more = f" (+{len(hardware.gpus) - 1})" if len(hardware.gpus) > 1 else ""
    total = messages.size(first.memory_total_bytes)
    return _("{name}, {used} of {total}", name=f"{first.name}{more}", used=used, total=total)


def active_run(app: App) -> Markup:
    """The run that is at work, or the number waiting, as a button that opens it."""
    jobs = [job for job in app.store.list(kind="train") if job.state in _AT_WORK]
    if not jobs:
        return html.header.no_run()
    job = min(jobs, key=lambda job: (_AT_WORK.index(job.state), job.created_at))
    return html.header.run(
        id=job.id,
        name=job.name or job.id,
        badge=messages.badge(job.state),
        pace=_pace(app, job),
        others=len(jobs) - 1,
    )


_AT_WORK = ("running", "stopping", "starting", "queued")


def _pace(app: App, job: Job) -> str:
    """Percent and time left, as far as they are known."""
    if job.state != "running":
        return ""
    progress = app.live.get(job.id).progress
    step, total = progress.get("step"), progress.get("max_steps")
    if not step or not total:
        return ""
    left = progress.get("eta_seconds")
    done = f"{100 * step / total:.0f} %"
    if left is None:
        return done
    return _("{done}, {time} left", done=done, time=messages.duration(left))
