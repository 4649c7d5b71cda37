"""The summary card of Configure: what a run will be, told before it starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from core.config import SPEC_BY_PATH, RunConfig, nest, parse_config
from core.errors import ConfigError, Problem
from core.summary import Summary, summarize
from webui import messages
from webui.context import App
from webui.lens import Lens, count_tokens


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


def card(app: App, config: RunConfig | None, problems: Sequence[Problem] = ()) -> str:
    """The card's HTML: figures, what needs attention; with problems, what to mend."""
    if config is None:
        return _wrong(problems)
    counting = count_tokens(app, config.data.dataset, Lens.of(config))
    counts = _finished(counting)
    summary = summarize(app.workspace, config, counts)
    waiting = counting is not None and not counting.done()
    rows = {
        "Base model": summary.base,
        "Parameters": _parameters(summary),
        "Trained": _trained(summary),
        "Data set": config.data.dataset,
        "Rows": _rows(summary),
        "Tokens": "counting" if waiting else messages.count(summary.tokens),
        "Steps": _steps(summary, config),
    }
    warnings = "".join(_line(problem) for problem in summary.warnings)
    return (
        '<div class="card summary"><h2>This run</h2>'
        f'{messages.facts(rows)}<ul class="warnings">{warnings}</ul></div>'
    )


def _finished(counting: Future[dict[str, Any]] | None) -> dict[str, Any] | None:
    """The result, if there is one; a count that failed shows no number."""
    if counting is None or not counting.done() or counting.exception() is not None:
        return None
    return counting.result()


def _wrong(problems: Sequence[Problem]) -> str:
    count = len(problems)
    title = "One setting needs mending" if count == 1 else f"{count} settings need mending"
    lines = "".join(_line(problem) for problem in problems)
    return (
        f'<div class="card summary"><h2>This run</h2><div class="notice notice-failed" '
        f'role="alert"><strong>{title}</strong></div><ul class="warnings">{lines}</ul></div>'
    )


def _line(problem: Problem) -> str:
    spec = SPEC_BY_PATH.get(problem.field)
    label = spec.label if spec else problem.field
    return f"<li><b>{messages.escape(label)}</b> {messages.escape(problem.message)}</li>"


def _parameters(summary: Summary) -> str:
    if summary.parameters is None:
        return "known once fetched"
    about = "" if summary.parameters_exact else "about "
    return about + messages.short(summary.parameters)


def _trained(summary: Summary) -> str:
    if summary.trainable is None:
        return "-"
    share = summary.trainable_share
    percent = "" if share is None else f" ({100 * share:.2g} %)"
    return f"{messages.short(summary.trainable)}{percent}"


def _rows(summary: Summary) -> str:
    if summary.train_rows is None:
        return "-"
    held_out = summary.eval_rows or 0
    return f"{messages.count(summary.train_rows)} to learn, {messages.count(held_out)} held out"


def _steps(summary: Summary, config: RunConfig) -> str:
    if summary.steps is None:
        return "known when the batch size is"
    epochs = config.training.num_train_epochs
    if config.training.max_steps > 0:
        return messages.count(summary.steps)
    return f"{messages.count(summary.steps)} in {epochs:g} epochs"
