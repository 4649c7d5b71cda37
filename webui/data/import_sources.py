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

from core.data.conversion import convert_all
from core.data.forms import FORMS
from core.data.inspection import SourceReport, inspect_source
from core.data.read.files import KINDS, TEXT_KINDS, kind_of_name
from core.data.read.sources import PREFIX, HubSource
from core.data.turn_keys import unused_text
from core.errors import DataError, TunesmithError
from core.jobs.isolated import call_isolated
from core.workspace import Workspace
from webui import background, messages
from webui.data import row_cards

# So many of the first rows are kept while the columns are chosen.
KEPT_ROWS = 50
# A text file up to this size is looked at in a moment; anything else is another process's work.
_QUICK_BYTES = 16 * 2**20
_HUB = (
    "<p class='aside'>Rows come from the Hugging Face Hub (or <code>HF_ENDPOINT</code>). A "
    "private or gated data set needs a token: log in once with <code>hf auth login</code>, or "
    "start this program with <code>HF_TOKEN</code> set. The page neither asks for a token nor "
    "keeps one.</p>"
)


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
                label=f"{KINDS}; also in .zip or .gz",
                file_count="multiple",
                elem_id="drop",
                height=136,
                scale=3,
                min_width=300,
            )
            with gr.Column(scale=2, min_width=280):
                self.path = gr.Textbox(
                    label="or a file or folder on this machine",
                    placeholder="data/tickets.jsonl",
                    max_lines=1,
                    submit_btn="Look",
                )
                self.sample = gr.Button("Use the sample: support tickets")
        with gr.Accordion("From the Hugging Face Hub", open=False, elem_classes="fold"):
            self._build_hub()

    def _build_hub(self) -> None:
        gr.HTML(_HUB, apply_default_css=False)
        with gr.Row():
            self.hub_id = gr.Textbox(
                label="Data set", placeholder="owner/name", max_lines=1, min_width=220, scale=2
            )
            self.config = gr.Textbox(
                label="Config", placeholder="the only one", max_lines=1, min_width=120
            )
            self.split = gr.Textbox("train", label="Split", max_lines=1, min_width=120)
            self.revision = gr.Textbox("main", label="Revision", max_lines=1, min_width=120)
        with gr.Row(equal_height=True):
            self.share = gr.Number(
                1.0,
                label="Share of its rows",
                step=0.05,
                min_width=160,
                info="1 takes all; 0.1 the first tenth, or a random one without streaming.",
            )
            self.streaming = gr.Checkbox(
                True,
                label="Streaming",
                min_width=160,
                info="Downloads only the rows that are wanted.",
            )
            self.look = gr.Button("Look at it", scale=0, min_width=140)

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
            report = _inspect(workspace, source, task, form or first.form, mapping)
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
        held = FORMS[own.form].title if own.form else "something unknown"
        raise DataError(
            f"{Path(source).name} holds {held}; the training rows are {wanted.title}.",
            "Bring both in the same form.",
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
    return call_isolated(inspect_source, source, tell=task.tell, **how)


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


def recognised(found: Found) -> str:
    """What the first source is, and why; what else was brought."""
    report = found.report
    title = FORMS[report.form].title if report.form else "Not recognised"
    facts = [_kind(report), _rows(found.total_rows), _columns(report.columns)]
    name = messages.escape(found.sources[0] if report.container == "hub" else report.path.name)
    return (
        f'<div class="recognised"><h3>{name}: {messages.escape(title)}</h3>'
        f"<p>{messages.escape(report.form_reason)} {messages.escape(report.hint)}</p>"
        f"<p class='soft'>{messages.escape('; '.join(facts))}</p></div>"
        + _files(report)
        + _wrong(found)
    )


def _kind(report: SourceReport) -> str:
    inside = {"gzip": " in gzip", "zip": " in a zip archive", "folder": " in a folder"}
    encoding = f", {report.encoding}" if report.encoding else ""
    if report.container == "hub":
        return "data set of the Hub"
    return report.format + inside.get(report.container, "") + encoding


def _rows(total: int | None) -> str:
    if total is None:
        return "rows not counted yet, only the beginning was looked at"
    return "1 row" if total == 1 else f"{total:,} rows"


def _columns(columns: Sequence[str]) -> str:
    named = ", ".join(columns[:_LISTED])
    return f"columns {named}" + (" and more" if len(columns) > _LISTED else "")


def _files(report: SourceReport) -> str:
    if len(report.files) < 2 and not report.skipped:
        return ""
    count = "1 file" if len(report.files) == 1 else f"{len(report.files):,} files"
    left = f", {len(report.skipped):,} left out" if report.skipped else ""
    items = [f"<li>{messages.escape(name)}</li>" for name in report.files[:_LISTED]]
    items += [f"<li>Left out: {messages.escape(name)}</li>" for name in report.skipped[:_LISTED]]
    return (
        f'<details class="dropped files"><summary>{count}{left}</summary>'
        f"<ul>{''.join(items)}</ul></details>"
    )


def _wrong(found: Found) -> str:
    return "".join(messages.error(f"{name}: {reason}") for name, reason in found.wrong)


def would_drop(report: SourceReport) -> str:
    """The rows that cannot be learned from with this mapping, each with its reason, and the keys
    of turns that are not kept."""
    unused = unused_text(report.unused_keys)
    told = messages.note(unused, "stopped") if unused else ""
    if not report.problem_count:
        return told
    several = len(report.files) > 1
    lines = [
        (
            f"{problem['file']} line {problem['line']}" if several else f"line {problem['line']}",
            problem["reason"],
        )
        for problem in report.problems
    ]
    items = "".join(
        f"<li><b>{messages.escape(where)}</b> {messages.escape(reason)}</li>"
        for where, reason in lines
    )
    left = report.problem_count - len(lines)
    more = f"<li>and {left:,} more</li>" if left > 0 else ""
    rows = "1 row" if report.problem_count == 1 else f"{report.problem_count:,} rows"
    return (
        f'<details class="dropped"><summary>{rows} would be dropped: which and why</summary>'
        f"<ul>{items}{more}</ul></details>{told}"
    )


def first_rows(
    rows: Sequence[Mapping[str, Any]], form: str, mapping: Mapping[str, str], system_prompt: str
) -> str:
    """The first rows as they stand in the file, and beside each what is learned from it."""
    pairs = "".join(
        _pair(place, row, form, mapping, system_prompt)
        for place, row in enumerate(rows[:SHOWN_ROWS])
    )
    return (
        '<div class="pairs"><div class="pair-heads"><h4>In the file</h4>'
        f"<h4>As it will be kept</h4></div>{pairs}</div>"
    )


def raw_rows(rows: Sequence[Mapping[str, Any]]) -> str:
    """The first rows as they stand in the file, while nothing can be made of them."""
    cards = "".join(f'<article class="row-card">{_raw(row)}</article>' for row in rows[:SHOWN_ROWS])
    return f'<div class="rows">{cards}</div>'


def _pair(
    place: int,
    row: Mapping[str, Any],
    form: str,
    mapping: Mapping[str, str],
    system_prompt: str,
) -> str:
    made, reasons, _ = convert_all(dict(row), form, mapping, system_prompt)
    kept = row_cards.rows(made, [place] * len(made)) if made else ""
    kept += "".join(messages.note(f"Would be dropped: {why}.", "stopped") for why in reasons)
    return f'<article class="pair"><div>{_raw(row)}</div><div>{kept}</div></article>'


def _raw(row: Mapping[str, Any]) -> str:
    cells = "".join(
        f"<div><dt>{messages.escape(name)}</dt><dd>{messages.escape(_cut(value))}</dd></div>"
        for name, value in row.items()
    )
    return f'<dl class="cells">{cells}</dl>'


def _cut(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _CELL else f"{text[:_CELL]} ... ({len(text):,} characters)"
