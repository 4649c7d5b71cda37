"""The slim line on top of every tab: mark, device, the active run, light or dark."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gradio as gr

from webui import messages, theme
from webui.context import QUIET, App, Shared

if TYPE_CHECKING:
    from core.jobs.job import Job

# How often the GPU's memory is looked at, in seconds: nvidia-smi takes a moment.
GPU_SECONDS = 10

_CLICKS = """
element.addEventListener('click', (event) => {
  const run = event.target.closest('[data-run]');
  if (run) trigger('open', {run: run.dataset.run});
  if (event.target.closest('[data-theme-toggle]')) tunesmith.toggleTheme();
});
"""


def build(app: App, shared: Shared) -> None:
    header = gr.HTML(
        render(app), elem_id="header", js_on_load=_CLICKS, apply_default_css=False, show_label=False
    )
    poll = gr.Timer(2)
    if app.hardware.gpus:
        gr.Timer(GPU_SECONDS).tick(app.probe_again, **QUIET)

    def refresh(shown: str):
        """Only what is new: the browser hands back what it shows."""
        fresh = render(app)
        return gr.skip() if fresh == shown else fresh

    def open_run(event: gr.EventData):
        return event.run, shared.go("train")

    poll.tick(refresh, header, header, **QUIET, concurrency_limit=None)
    header.open(open_run, None, [shared.run, shared.tabs], **QUIET)


def render(app: App) -> str:
    """The header's HTML, with how things stand now."""
    return (
        '<div class="head"><a class="mark" href="./" aria-label="Tunesmith, start">'
        f"{theme.LOGO.read_text(encoding='utf-8')}<span>Tunesmith</span></a>"
        f'<span class="device" title="Where runs are trained">{messages.escape(device(app))}</span>'
        f"{active_run(app)}"
        '<button type="button" class="icon" data-theme-toggle aria-label="Light or dark" '
        'title="Light or dark"></button></div>'
    )


def device(app: App) -> str:
    """The accelerators with the memory used of the first, or the CPU with its cores."""
    hardware = app.hardware
    if not hardware.gpus:
        cores = hardware.cpu_count
        return f"CPU, {cores} core{'' if cores == 1 else 's'}"
    first = hardware.gpus[0]
    used = messages.size(first.memory_total_bytes - first.memory_free_bytes)
    more = f" (+{len(hardware.gpus) - 1})" if len(hardware.gpus) > 1 else ""
    return f"{first.name}{more}, {used} of {messages.size(first.memory_total_bytes)}"


def active_run(app: App) -> str:
    """The run that is at work, or the number waiting, as a button that opens it."""
    jobs = [job for job in app.store.list(kind="train") if job.state in _AT_WORK]
    if not jobs:
        return '<span class="active-run idle">No run at work</span>'
    job = min(jobs, key=lambda job: (_AT_WORK.index(job.state), job.created_at))
    others = f" <small>+{len(jobs) - 1}</small>" if len(jobs) > 1 else ""
    return (
        f'<button type="button" class="active-run" data-run="{messages.escape(job.id)}" '
        f'title="Open this run in Train"><b>{messages.escape(job.name or job.id)}</b>'
        f"{messages.badge(job.state)}<span class='num'>{messages.escape(_pace(app, job))}</span>"
        f"{others}</button>"
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
    tail = "" if left is None else f", {messages.duration(left)} left"
    return f"{100 * step / total:.0f} %{tail}"
