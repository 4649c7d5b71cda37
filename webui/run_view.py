"""The pieces of HTML that Train shows of a run: state, figures, samples, choices, log."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.jobs.store import Job
from core.runs.lineage import lineage_text
from core.runs.records import RESUMABLE
from core.workspace import RunFolder
from webui import messages
from webui.completion_view import completions
from webui.forms import setting_label, write_text
from webui.live import LiveRun, Sample

# How much of worker.log is shown, in bytes from its end.
LOG_BYTES = 16_384


def headline(job: Job, came: str = "") -> str:
    """Name, state and what the run is made of; `came` says which runs it comes from."""
    return (
        f'<div class="headline"><h2>{messages.escape(job.name or job.id)}</h2>'
        f"{messages.badge(job.state, job.signal)}"
        f'<span class="made-of">{messages.escape(job.model)} on {messages.escape(job.dataset)}'
        + (f" {messages.escape(came)}" if came else "")
        + "</span></div>"
    )


def noticed(live: LiveRun) -> str:
    """What the run warned of: rows that are left out, a checkpoint that could not be used."""
    lines = "".join(f"<li>{messages.escape(text)}</li>" for text in live.warnings)
    return f'<ul class="noticed">{lines}</ul>' if lines else ""


def outcome(job: Job, live: LiveRun, resumable: bool) -> str:
    """What a run that is not learning wants to be known: what it waits for, or why it ended."""
    if job.state == "queued":
        return messages.note("Waiting for its turn: the runs before it come first.")
    if job.state in ("starting", "running"):
        return _advance(live.progress)
    if job.state == "stopping":
        return messages.note("Stopping after this step; a checkpoint is being written.", "stopped")
    resume = "Resume goes on from the last checkpoint." if resumable else ""
    if job.state == "stopped":
        return messages.note(f"Stopped at step {job.step}. {resume}".strip(), "stopped")
    if job.state == "died":
        cause = f"by signal {job.signal}" if job.signal else "without a word"
        message = job.error or f"The worker was ended {cause}."
        return messages.error(message, f"{job.advice or ''} {resume}".strip())
    if job.state == "failed":
        message = job.error or "The run failed."
        return messages.error(message, f"{job.advice or ''} {resume}".strip())
    return ""


def _advance(progress: Mapping[str, Any]) -> str:
    """What the worker is doing, with a bar as far as that can be said."""
    step, total = progress.get("step"), progress.get("max_steps")
    doing = str(progress.get("message") or "")
    if step and total:
        return messages.progress(step / total, doing or "Training")
    return messages.progress(progress.get("fraction"), doing or "The worker is starting")


def resumable(job: Job, folder: RunFolder) -> bool:
    """Whether the run ended early and left a checkpoint."""
    return job.state in RESUMABLE and any(folder.checkpoints.glob("checkpoint-*/"))


def figures(job: Job, live: LiveRun) -> str:
    """The strip: step, epoch, loss, eval loss, tokens per second, time."""
    progress = live.progress
    step = progress.get("step", job.step)
    total = progress.get("max_steps") or job.max_steps
    epoch = progress.get("epoch")
    speed = live.last("tokens_per_second")
    left = progress.get("eta_seconds")
    items = [
        ("Step", f"{messages.count(step)} of {messages.count(total)}" if total else str(step)),
        ("Epoch", f"{epoch:.2f}" if isinstance(epoch, int | float) else "-"),
        ("Loss", messages.loss(live.last("loss")), "On the rows it is learning from"),
        ("Eval loss", messages.loss(live.last("eval_loss")), "On the held-out rows"),
        ("Tokens/s", messages.count(speed), "Real tokens, padding left out"),
    ]
    if job.active:
        items.append(("Time left", messages.duration(left)))
    else:
        items.append(("Took", messages.duration(job.seconds(time.time()))))
    return messages.figures(items)


def choices(live: LiveRun) -> str:
    """What `auto` became, each with its reason."""
    if not live.choices:
        return ""
    rows = "".join(
        f'<div><dt title="{messages.escape(choice["field"])}">'
        f"{messages.escape(setting_label(str(choice['field'])))}</dt>"
        f"<dd><b>{messages.escape(write_text(choice.get('value')))}</b> "
        f"<span>{messages.escape(choice.get('reason', ''))}</span></dd></div>"
        for choice in live.choices.values()
    )
    return f'<h3 class="section">Chosen automatically</h3><dl class="choices">{rows}</dl>'


def samples(live: LiveRun) -> str:
    """For each watched prompt its answers, the same prompt's under one another."""
    if not live.samples:
        return ""
    cards = "".join(_sample(live.samples[index]) for index in sorted(live.samples))
    return f'<h3 class="section">Sample answers</h3><div class="samples">{cards}</div>'


def _sample(sample: Sample) -> str:
    turns = [str(turn.get("content", "")) for turn in sample.prompt if turn.get("role") == "user"]
    rows = "".join(
        f'<div class="answer"><span class="num">step {step}</span>{_answer(text, sample.expected)}'
        "</div>"
        for step, text in sample.answers
    )
    if sample.expected is not None:
        rows += (
            '<div class="answer expected"><span>wanted</span>'
            f"<pre>{messages.escape(sample.expected)}</pre></div>"
        )
    prompt = messages.escape(turns[-1] if turns else "")
    return f'<article class="sample"><div class="prompt">{prompt}</div>{rows}</article>'


def _answer(text: str, expected: str | None) -> str:
    same = expected is not None and text.strip() == expected.strip()
    mark = '<span class="same">as wanted</span>' if same else ""
    return f"<pre>{messages.escape(text) or '<i>empty</i>'}{mark}</pre>"


def log_tail(path: Path) -> str:
    """The end of the worker's raw output."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LOG_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return '<p class="aside">The worker has written nothing yet.</p>'
    lines = [line.rsplit("\r", 1)[-1] for line in text.splitlines()]
    return f'<pre class="log" tabindex="0">{messages.escape(chr(10).join(lines[-200:]))}</pre>'


@dataclass(frozen=True)
class News:
    """What a browser lacks: texts by part (a part that is as shown is left out) and the drawing."""

    texts: dict[str, str]
    state_changed: bool
    drawing: dict[str, Any]


def news(job: Job, live: LiveRun, resumable: bool, cursor: Mapping[str, Any]) -> News | None:
    """What is new since `cursor`, the browser's word on what it shows; None when nothing is."""
    texts = {
        "headline": headline(job, lineage_text(live.folder)),
        "outcome": outcome(job, live, resumable) + noticed(live),
        "figures": figures(job, live),
        "samples": completions(live.rollouts) + samples(live),
        "choices": choices(live),
        "log": log_tail(live.folder.log) if cursor.get("log_open") else "",
    }
    digests = {name: zlib.crc32(text.encode()) for name, text in texts.items()}
    digests["state"] = zlib.crc32(f"{job.state} {resumable}".encode())
    seen = cursor.get("seen") if cursor.get("run") == job.id else None
    seen = seen if isinstance(seen, dict) else {}
    points = live.news(cursor)
    if points is None and seen == digests:
        return None
    fresh = {name: text for name, text in texts.items() if seen.get(name) != digests[name]}
    drawing = {**(points or {"run": job.id}), "seen": digests}
    return News(fresh, seen.get("state") != digests["state"], drawing)


def read_cursor(text: str) -> dict[str, Any]:
    """The browser's cursor; an unreadable one counts as none."""
    try:
        cursor = json.loads(text or "{}")
    except ValueError:
        return {}
    return cursor if isinstance(cursor, dict) else {}
