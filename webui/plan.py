"""The summary card of Configure: what a run will be, told before it starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from core.config import RunConfig, nest
from core.errors import ConfigError, Problem, TunesmithError
from core.estimate.auto import device_of
from core.estimate.plan import RunEstimate
from core.estimate.summary import Summary, optimizer_steps, rows_of_trainer, summarize
from core.models.hardware import Hardware
from core.rules import parse_config
from core.tokens.lens import Lens
from webui import messages
from webui.context import App
from webui.forms import setting_label
from webui.need_view import estimate_of, memory_html, time_text
from webui.token_answers import count_tokens, finished


def checked(
    values: Mapping[str, Any], problems: Sequence[Problem]
) -> tuple[RunConfig | None, tuple[Problem, ...]]:
    """The configuration of `values`, or None and every problem."""
    try:
        config = parse_config(nest(dict(values)))
    except ConfigError as error:
        unread = {problem.field for problem in problems}
        more = [problem for problem in error.problems if problem.field not in unread]
        return None, (*problems, *more)
    return (config, ()) if not problems else (None, tuple(problems))


def card(
    app: App,
    config: RunConfig | None,
    problems: Sequence[Problem] = (),
    trial: Mapping[str, Any] | None = None,
    refused: Sequence[Problem] = (),
) -> str:
    """The card's HTML: figures, memory, what needs attention; with problems, what to mend.

    `trial` is what two steps with these settings measured (core.estimate.trial); `refused` what
    keeps the run from starting although its settings can be read.
    """
    if config is None:
        return _wrong(problems)
    counting = count_tokens(app, config.data.dataset, Lens.of(config))
    counts = finished(counting)
    summary = summarize(app.workspace, config, counts, refused)
    estimate = estimate_of(app, config, summary.train_rows, counts)
    waiting = counting is not None and not counting.done()
    rows = {
        "Base model": summary.base,
        "Parameters": _parameters(summary),
        "Trained": _trained(summary),
        "Data set": config.data.dataset,
        "Rows": _rows(summary),
        "Tokens": "counting" if waiting else _tokens(summary, counts),
        "Steps": _steps(summary, estimate.config or config, counts),
    }
    time = f"<div><dt>Time</dt><dd>{time_text(app, estimate, counts, trial)}</dd></div>"
    figures = messages.facts(rows).removesuffix("</dl>") + time + "</dl>"
    warnings = "".join(_line(one) for one in summary.warnings)
    return (
        f'<div class="card summary"><h2>This run</h2>{_to_mend(refused) if refused else ""}'
        f"{figures}{memory_html(estimate)}{_automatic(config, app.hardware, estimate)}"
        f'<ul class="warnings">{warnings}</ul></div>'
    )


def foreseen(
    config: RunConfig, hardware: Hardware, estimate: RunEstimate | None = None
) -> list[tuple[str, str, str]]:
    """(field, value, reason) of what is on auto, as far as it can be told without torch.

    The worker decides; tests hold this against what it says (core.worker.training.resolve).
    """
    device = device_of(config, hardware)
    found = []
    if config.training.device == "auto":
        reason = "no accelerator was found" if device.kind == "cpu" else device.name
        found.append(("training.device", device.label, reason))
    if config.training.precision == "auto":
        found.append(("training.precision", *hardware.precision_on(device)))
    fields = ("training.per_device_train_batch_size", "training.gradient_checkpointing")
    values, chosen = config.values(), dict(estimate.chosen) if estimate else {}
    for path in fields:
        if values[path] != "auto":
            continue
        if path in chosen:
            value = {True: "on", False: "off"}.get(chosen[path], str(chosen[path]))
            found.append((path, value, "if as much memory is free when it starts"))
        else:
            found.append((path, "when it starts", "from the memory that is free then"))
    return found


def _automatic(config: RunConfig, hardware: Hardware, estimate: RunEstimate) -> str:
    rows = "".join(
        f'<div title="{messages.escape(reason)}"><dt>{messages.escape(setting_label(field))}</dt>'
        f"<dd>{messages.escape(value)}<small>{messages.escape(reason)}</small></dd></div>"
        for field, value, reason in foreseen(config, hardware, estimate)
    )
    return f'<h3>Chosen automatically</h3><dl class="facts">{rows}</dl>' if rows else ""


def _wrong(problems: Sequence[Problem]) -> str:
    return f'<div class="card summary"><h2>This run</h2>{_to_mend(problems)}</div>'


def _to_mend(problems: Sequence[Problem]) -> str:
    """What keeps the run from starting, by the names that the settings have in the form."""
    count = len({problem.field for problem in problems})
    title = "One setting needs mending" if count == 1 else f"{count} settings need mending"
    lines = "".join(_line(problem) for problem in problems)
    return (
        '<div class="notice notice-failed" role="alert">'
        f'<strong>{title}</strong></div><ul class="warnings wrong">{lines}</ul>'
    )


def not_started(error: TunesmithError | None) -> str:
    """Why a start did not come about, under its button."""
    if isinstance(error, ConfigError):
        return _to_mend(error.problems)
    return messages.error(error or "Not started.")


def _line(problem: Problem) -> str:
    label = messages.escape(setting_label(problem.field))
    return f"<li><b>{label}</b> {messages.escape(problem.message)}</li>"


def _parameters(summary: Summary) -> str:
    if summary.parameters is None:
        return "known once fetched"
    about = "" if summary.parameters_exact else "about "
    return about + messages.short(summary.parameters)


def _trained(summary: Summary) -> str:
    if summary.trainable is None:
        return "-"
    share = summary.trainable_share
    if share is None:
        return messages.short(summary.trainable)
    percent = 100 * share
    digits = 0 if percent >= 10 else 1 if percent >= 1 else 2
    return f"{messages.short(summary.trainable)} ({percent:.{digits}f} %)"


def _rows(summary: Summary) -> str:
    if summary.train_rows is None:
        return "-"
    held_out = summary.eval_rows or 0
    return f"{messages.count(summary.train_rows)} to learn, {messages.count(held_out)} held out"


def _tokens(summary: Summary, counts: Mapping[str, Any] | None) -> str:
    if counts and counts.get("estimated"):
        return f"about {messages.short(summary.tokens)}"
    return messages.count(summary.tokens)


def _steps(summary: Summary, config: RunConfig, counts: Mapping[str, Any] | None) -> str:
    """`config` has what auto becomes, as far as it is known."""
    about, steps = "" if summary.steps_exact else "about ", summary.steps
    if steps is None:
        rows = rows_of_trainer(config, summary.train_rows, counts)
        about, steps = "about ", optimizer_steps(config, rows)
        if rows is None and summary.train_rows:
            return "known when the tokens are"
    if steps is None:
        return "known when the batch size is"
    epochs = config.training.num_train_epochs
    if config.training.max_steps > 0:
        return messages.count(steps)
    unit = "epoch" if epochs == 1 else "epochs"
    return f"{about}{messages.count(steps)} in {epochs:g} {unit}"
