"""Where rows come from: files, a path on this machine, a data set on the Hub; and what is shown of
them before they are imported, what they are taken for and what they become."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr
from markupsafe import Markup

from core.data.conversion import convert_all
from core.data.forms import FORMS
from core.data.inspection import SourceReport, inspect_source
from core.data.read.files import KINDS, TEXT_KINDS, kind_of_name
from core.data.read.sources import PREFIX, HubSource
from core.data.turn_keys import unused_text
from core.errors import DataError, TunesmithError
from core.jobs.isolated import call_isolated
from core.language import N_, _, n_
from core.models.hub import way_round
from core.workspace import Workspace
from webui import background, messages
from webui.data import row_cards
from webui.html import html

# So many of the first rows are kept while the columns are chosen.
KEPT_ROWS = 50
# A text file up to this size is looked at in a moment; anything else is another process's work.
_QUICK_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Found:
    """What was brought: the sources, a report on the first, and what is wrong with the others."""

    sources: list[str]
    report: SourceReport
    total_rows: int | None
    wrong: list[tuple[str, str]]
    """(source, reason)"""

    @property
    def name(self) -> str:
        """What a data set of these may be called."""
        first = self.sources[0]
        if first.startswith(PREFIX):
            return first.removeprefix(PREFIX).partition("?")[0].rpartition("/")[2]
        name = Path(first).name
        return Path(name.removesuffix(".gz")).stem or name


class Sources:
    """The components; what was chosen goes to the import's own handlers."""

    def __init__(self) -> None:
        with gr.Row(elem_classes="bring", equal_height=True):
            self.drop = gr.File(
                label=_("{kinds}; also in .zip or .gz", kinds=KINDS),
                file_count="multiple",
                elem_id="drop",
                height=136,
                scale=3,
                min_width=300,
            )
            with gr.Column(scale=2, min_width=280):
                self.path = gr.Textbox(
                    label=_("or a file or folder on this machine"),
                    placeholder="data/tickets.jsonl",
                    max_lines=1,
                    submit_btn=_("Look"),
                )
                self.sample = gr.Button(_("Use the sample: support tickets"))
        with gr.Accordion(_("From the Hugging Face Hub"), open=False, elem_classes="fold"):
            self._build_hub()

    def _build_hub(self) -> None:
        about = _(
            "Rows come from the Hugging Face Hub (or {endpoint}). A private or gated data set "
            "needs a token: log in once in Export or with {login}, or start this program with "
            "{token} set."
        )
        named = {"endpoint": "HF_ENDPOINT", "login": "hub login", "token": "HF_TOKEN"}
        codes = {name: html.plain.code(word) for name, word in named.items()}
        told = html.import_sources.about_hub(Markup(about).format(**codes), way_round())
        gr.HTML(told, apply_default_css=False)
        with gr.Row():
            self.hub_id = gr.Textbox(
                label=_("Data set"), placeholder="owner/name", max_lines=1, min_width=220, scale=2
            )
            self.config = gr.Textbox(
                label=_("Config"), placeholder=_("the only one"), max_lines=1, min_width=120
            )
            self.split = gr.Textbox("train", label=_("Split"), max_lines=1, min_width=120)
            self.revision = gr.Textbox("main", label=_("Revision"), max_lines=1, min_width=120)
        with gr.Row(equal_height=True):
            self.share = gr.Number(
                1.0,
                label=_("Share of its rows"),
                step=0.05,
                min_width=160,
                info=_("1 takes all; 0.1 the first tenth, or a random one without streaming."),
            )
            self.streaming = gr.Checkbox(
                True,
                label=_("Streaming"),
                min_width=160,
                info=_("Downloads only the rows that are wanted."),
            )
            self.look = gr.Button(_("Look at it"), scale=0, min_width=140)

    @property
    def hub_fields(self) -> list[gr.components.Component]:
        """The inputs of `hub_source`, in its order."""
        return [self.hub_id, self.config, self.split, self.revision, self.share, self.streaming]


def hub_source(
    name: str, config: str, split: str, revision: str, share: float | None, streaming: bool
) -> str:
    """The text of a Hub data set as a source. Raises DataError for what cannot be one."""
    return str(
        HubSource(
            id=(name or "").strip().removeprefix(PREFIX).strip("/"),
            config=(config or "").strip(),
            split=(split or "").strip() or "train",
            revision=(revision or "").strip() or "main",
            fraction=1.0 if share is None else share,
            streaming=bool(streaming),
        )
    )


def look_at(
    workspace: Workspace,
    sources: Sequence[str],
    task: background.Task,
    form: str | None = None,
    mapping: dict[str, str] | None = None,
) -> Found:
    """Looks at all sources without importing them; `form` and `mapping` as in `inspect_source`.

    Raises what `inspect_source` raises for the first; what is wrong with others is noted.
    """
    first = _inspect(workspace, sources[0], task, form, mapping)
    totals, wrong = [first.total_rows], []
    for source in sources[1:]:
        try:
            # As the import reads them: all by the columns of the first.
            report = _inspect(
                workspace, source, task, form or first.form, mapping or first.mapping or None
            )
        except TunesmithError as error:
            wrong.append((Path(source).name, f"{error.message} {error.hint}"))
        else:
            totals.append(report.total_rows)
            first = _joined(first, report)
    known = [total for total in totals if total is not None]
    return Found(list(sources), first, sum(known) if len(known) == len(totals) else None, wrong)


def look_at_held_out(
    workspace: Workspace, source: str, task: background.Task, form: str, mapping: dict[str, str]
) -> SourceReport:
    """Looks at the file with the held-out rows as an import reads it: as the training rows, or in
    its own way to the same form. Raises what `inspect_source` raises."""
    try:
        return _inspect(workspace, source, task, form, mapping)
    except DataError:
        own = _inspect(workspace, source, task, None, None)
    wanted = FORMS[form]
    if own.form is None or FORMS[own.form].standard != wanted.standard:
        held = FORMS[own.form].title if own.form else _("something unknown")
        raise DataError(
            _(
                "{name} holds {held}; the training rows are {title}.",
                name=Path(source).name,
                held=held,
                title=wanted.title,
            ),
            _("Bring both in the same form."),
        )
    return own


def _joined(first: SourceReport, more: SourceReport) -> SourceReport:
    """The first report with the files and the rows to drop of another."""
    return replace(
        first,
        problems=[*first.problems, *more.problems],
        problem_count=first.problem_count + more.problem_count,
        unused_keys=dict(Counter(first.unused_keys) + Counter(more.unused_keys)),
        files=[*first.files, *more.files],
        skipped=[*first.skipped, *more.skipped],
    )


def _inspect(
    workspace: Workspace,
    source: str,
    task: background.Task,
    form: str | None,
    mapping: dict[str, str] | None,
) -> SourceReport:
    how: dict[str, Any] = {
        "form": form,
        "mapping": mapping,
        "limit": KEPT_ROWS,
        "workspace": workspace,
    }
    if _is_quick(source):
        return inspect_source(source, **how)
    report: SourceReport = call_isolated(inspect_source, source, tell=task.tell, **how)
    return report


def _is_quick(source: str) -> bool:
    """Whether a look takes a moment and little memory, so that it needs no other process."""
    path = Path(source).expanduser()
    if source.startswith(PREFIX) or path.is_dir():
        return False
    if not path.is_file():
        return True  # it is refused at once
    packed = path.suffix.lower() in (".gz", ".zip")
    small = path.stat().st_size <= _QUICK_BYTES
    return small and not packed and kind_of_name(path.name) in TEXT_KINDS


SHOWN_ROWS = 3
# Longest text of one cell of a raw row, in characters.
_CELL = 400
_LISTED = 20


def recognised(found: Found) -> Markup:
    """What the first source is, and why; what else was brought."""
    report = found.report
    title = FORMS[report.form].title if report.form else _("Not recognised")
    facts = [_kind(report), _rows(found.total_rows), _columns(report.columns)]
    return html.import_sources.recognised(
        name=found.sources[0] if report.container == "hub" else report.path.name,
        title=title,
        reason=f"{report.form_reason} {report.hint}",
        facts="; ".join(facts),
        files=_files(report),
        wrong=[
            messages.error(_("{name}: {text}", name=name, text=reason))
            for name, reason in found.wrong
        ],
    )


def _kind(report: SourceReport) -> str:
    if report.container == "hub":
        return _("data set of the Hub")
    packed = {
        "gzip": N_("{format} in gzip"),
        "zip": N_("{format} in a zip archive"),
        "folder": N_("{format} in a folder"),
    }
    kind = _(packed.get(report.container, "{format}")).format(format=report.format)
    return _("{kind}, {encoding}", kind=kind, encoding=report.encoding) if report.encoding else kind


def _rows(total: int | None) -> str:
    if total is None:
        return _("rows not counted yet, only the beginning was looked at")
    return n_("{n} row", "{n:,} rows", total)


def _columns(columns: Sequence[str]) -> str:
    named = ", ".join(columns[:_LISTED])
    if len(columns) > _LISTED:
        return _("columns {names} and more", names=named)
    return _("columns {names}", names=named)


def _files(report: SourceReport) -> Markup:
    if len(report.files) < 2 and not report.skipped:
        return Markup()
    told = n_("{n} file", "{n:,} files", len(report.files))
    if report.skipped:
        told = _("{files}, {n:,} left out", files=told, n=len(report.skipped))
    items = [*report.files[:_LISTED]]
    items += [_("Left out: {name}", name=name) for name in report.skipped[:_LISTED]]
    return html.import_sources.files(told, items)


def would_drop(report: SourceReport) -> Markup:
    """The rows that cannot be learned from with this mapping, each with its reason, and the keys
    of turns that are not kept."""
    unused = unused_text(report.unused_keys)
    told = messages.note(unused, "stopped") if unused else Markup()
    if not report.problem_count:
        return told
    title = n_(
        "{n} row would be dropped: which and why",
        "{n:,} rows would be dropped: which and why",
        report.problem_count,
    )
    several = len(report.files) > 1
    lines = [
        (line_of(problem["file"] if several else "", problem["line"]), problem["reason"])
        for problem in report.problems
    ]
    return dropped(title, report.problem_count, lines) + told


def line_of(file: str, line: int) -> str:
    """Where a row stands; `file` is "" where there is only one."""
    return _("{file} line {n}", file=file, n=line) if file else _("line {n}", n=line)


def dropped(title: str, count: int, lines: Sequence[tuple[str, str]]) -> Markup:
    """A fold that lists `count` rows, or the first of them, with their reasons."""
    return html.import_sources.dropped(title, lines, count - len(lines))


def first_rows(
    rows: Sequence[Mapping[str, Any]], form: str, mapping: Mapping[str, str], system_prompt: str
) -> Markup:
    """The first rows as they stand in the file, and beside each what is learned from it."""
    pairs = []
    for place, row in enumerate(rows[:SHOWN_ROWS]):
        made, reasons, _unused = convert_all(dict(row), form, mapping, system_prompt)
        kept = [row_cards.rows(made, [place] * len(made))] if made else []
        told = (_("Would be dropped: {reason}.", reason=reason) for reason in reasons)
        kept += [messages.note(one, "stopped") for one in told]
        pairs.append((_raw(row), kept))
    return html.import_sources.pairs(pairs)


def raw_rows(rows: Sequence[Mapping[str, Any]]) -> Markup:
    """The first rows as they stand in the file, while nothing can be made of them."""
    return html.import_sources.raw([_raw(row) for row in rows[:SHOWN_ROWS]])


def _raw(row: Mapping[str, Any]) -> dict[str, str]:
    return {name: _cut(value) for name, value in row.items()}


def _cut(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if len(text) <= _CELL:
        return text
    return _("{text} ... ({n:,} characters)", text=text[:_CELL], n=len(text))
