"""Drafts as HTML: what a task came to, its rows as cards, and one row as it is edited."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from core.data.drafts.rows import plain_row
from core.data.drafts.tasks import Draft, DraftTask
from core.errors import DataError
from core.remote.endpoint import endpoint_host
from webui import messages
from webui.data import row_cards

# Where an endpoint's address and key may stand; the first that is set counts.
VARIABLES = (
    ("TUNESMITH_OPENAI_BASE_URL", "TUNESMITH_OPENAI_API_KEY"),
    ("OPENAI_BASE_URL", "OPENAI_API_KEY"),
)
KINDS = {
    "more_like": "More like these",
    "paraphrase": "In other words",
    "answer_prompts": "Answers to prompts",
    "preference_pairs": "Preference pairs",
}
SHOWN = {
    "new": "To decide",
    "accepted": "Accepted",
    "rejected": "Rejected",
    "taken": "Added",
    "all": "All",
}

NO_DRAFTS = messages.empty(
    "No drafts yet",
    "A model can write more rows like these, say them in other words, answer prompts, or judge "
    "pairs. Nothing gets into the data set before you accept it.",
)

# In the browser, at once: the server's answer could come when the panel was opened again.
CLOSE = """() => {
  const gone = { __type__: "update", visible: false };
  return [gone, "", "", 0];
}"""

# A button on a draft, with what the fields of the open one hold.
CLICKS = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-act]');
  if (!button) return;
  const card = button.closest('[data-draft]');
  const values = {};
  for (const field of element.querySelectorAll('textarea')) values[field.name] = field.value;
  trigger('select', {act: button.dataset.act, draft: Number(card.dataset.draft), values});
});
"""
_STATES = {"working": "running", "stopped": "stopped", "finished": "finished", "failed": "failed"}
_TONES = {"new": "queued", "accepted": "finished", "rejected": "stopped"}
_WORDS = {"new": "To decide", "accepted": "Accepted", "rejected": "Rejected"}


def endpoint_note(environment: Mapping[str, str] | None = None) -> str:
    """Which endpoint would be asked, and which variables say so; never an address or a key."""
    given = os.environ if environment is None else environment
    names = [name for pair in VARIABLES for name in pair]
    found = "".join(
        f"<li><code>{name}</code> {'is set' if given.get(name, '').strip() else 'is not set'}</li>"
        for name in names
    )
    host = endpoint_host()
    told = (
        f"An endpoint gets the example rows at <b>{messages.escape(host)}</b>."
        if host
        else "No endpoint is set. Set its address, and its key if it needs one, in the environment "
        "that Tunesmith is started from, and start it again. Or let a local model write."
    )
    return (
        f'<p class="aside">{told}</p><details class="which"><summary>Where that comes from'
        f'</summary><ul class="variables">{found}</ul></details>'
    )


def choice(task: DraftTask) -> tuple[str, str]:
    """How a task is named in a list, and its id."""
    kind = KINDS[task.settings.kind]
    drafts = "1 draft" if task.tally.drafts == 1 else f"{task.tally.drafts:,} drafts"
    return f"{kind}, by {task.settings.model}: {drafts} ({task.id})", task.id


def summary(task: DraftTask, working: bool) -> str:
    """State, counts, cost so far, and why it ended."""
    tally, settings = task.tally, task.settings
    state = "working" if working else task.state
    begun = bool(tally.requests) or state != "stopped"
    word = {"working": "Writing", "stopped": "Stopped" if begun else "Not started"}.get(state)
    badge = f'<span class="badge badge-{_STATES[state]}">{word or state.capitalize()}</span>'
    where = f"at {task.host}" if task.host else "on this machine"
    head = (
        f'<div class="headline"><h3>{messages.escape(KINDS[settings.kind])}</h3>{badge}'
        f'<span class="made-of">{messages.escape(f"{settings.model} {where}")}</span></div>'
    )
    unusable = sum(tally.unusable.values())
    told = "about " if tally.estimated else ""
    figures = messages.figures(
        [
            ("Drafts", f"{tally.drafts:,} of {settings.rows:,}"),
            ("To decide", messages.count(tally.new)),
            ("Accepted", messages.count(tally.accepted), "Not in the data set yet"),
            ("Rejected", messages.count(tally.rejected)),
            ("In the data set", messages.count(tally.taken)),
            ("Left out", messages.count(tally.duplicates + unusable), "Repeated, or no usable row"),
            ("Tokens", f"{told}{tally.tokens:,}", "Read and written together"),
            ("Cost", _cost(tally.cost), "By the prices in the settings"),
        ]
    )
    reason = ""
    if task.reason and not working and begun:
        reason = messages.note(task.reason, "failed" if state == "failed" else "plain")
    return f"{head}{figures}{reason}{_left_out(task)}"


def _cost(cost: float | None) -> str:
    return "not known" if cost is None else f"{cost:.4g}"


def _left_out(task: DraftTask) -> str:
    tally = task.tally
    reasons = dict(tally.unusable)
    if tally.duplicates:
        reasons["the row was there already"] = tally.duplicates
    if not reasons:
        return ""
    rows = "".join(
        f'<li><span class="num">{count:,}</span> {messages.escape(reason)}</li>'
        for reason, count in sorted(reasons.items(), key=lambda item: -item[1])
    )
    return (
        '<details class="which"><summary>What was left out, and why</summary>'
        f'<ul class="reasons">{rows}</ul></details>'
    )


def drafts(
    found: Sequence[Draft],
    total: int,
    shown: str,
    editing: int = 0,
    typed: Mapping[str, str] | None = None,
    error: DataError | None = None,
) -> str:
    """Drafts as cards; `editing` is the number of the one that is open, with what was typed."""
    if not found:
        return messages.empty(*_NOTHING.get(shown, _NOTHING["all"])) if not total else ""
    cards = "".join(
        _editor(draft, typed, error) if draft.id == editing else _draft(draft, not editing)
        for draft in found
    )
    return f'<div class="rows drafts">{cards}</div>'


_NOTHING = {
    "new": ("Nothing to decide", "Drafts that you have neither accepted nor rejected stand here."),
    "accepted": ("Nothing accepted", "What you accept waits here until you add it."),
    "rejected": ("Nothing rejected", "What you reject stays here and is never added."),
    "taken": ("Nothing added yet", "Accept drafts, then add them to the data set."),
    "all": ("No drafts yet", "They appear here as they are written."),
}


def _draft(draft: Draft, may_edit: bool) -> str:
    offered = [("accept", "Accept"), ("reject", "Reject")]
    if may_edit:  # one at a time: what was typed in another one would be lost
        offered.insert(0, ("edit", "Edit"))
    done = {"accepted": "accept", "rejected": "reject"}.get(draft.status)
    buttons = "".join(
        f'<button type="button" class="small is-{act}" data-act="{act}" '
        f'aria-label="{word} draft {draft.id}">{word}</button>'
        for act, word in offered
        if act != done
    )
    judged = row_cards.judgement(draft.row["label"]) if "label" in draft.row else ""
    return _card(draft, judged + row_cards.body(draft.row), "" if draft.taken else buttons)


def _card(draft: Draft, body: str, buttons: str) -> str:
    tone = "finished" if draft.taken else _TONES[draft.status]
    word = "In the data set" if draft.taken else _WORDS[draft.status]
    edited = " · edited" if draft.edited else ""
    return (
        f'<article class="row-card draft" data-draft="{draft.id}"><header><span>Draft {draft.id}'
        f'{edited}</span><span class="badge badge-{tone}">{word}</span></header>{body}'
        f'<div class="draft-buttons">{buttons}</div></article>'
    )


def _editor(draft: Draft, typed: Mapping[str, str] | None, error: DataError | None) -> str:
    texts = {**editable(draft), **(typed or {})}
    wrong = re.split("[:.,]", error.message)[0] if error else ""
    place = wrong if wrong in texts else next(iter(texts), "")
    fields = "".join(
        f'<label><span>{messages.escape(name)}</span><textarea name="{messages.escape(name)}" '
        f'rows="{_lines(text)}" {"aria-invalid=true" if error and name == place else ""}>\n'
        f"{messages.escape(text)}</textarea>"
        + (
            f'<span class="field-error">{messages.escape(error)}</span>'
            if error and name == place
            else ""
        )
        + "</label>"
        for name, text in texts.items()
    )
    buttons = (
        '<button type="button" class="small is-accept" data-act="save">Save</button>'
        '<button type="button" class="small" data-act="cancel">Cancel</button>'
    )
    return _card(draft, f'<div class="draft-fields">{fields}</div>', buttons)


def _lines(text: str) -> int:
    return min(max(sum(1 + len(line) // 90 for line in text.splitlines()), 2), 16)


def editable(draft: Draft) -> dict[str, str]:
    """A draft's row by column, as text to edit: a text as it is, anything else as JSON."""
    return {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=1)
        for name, value in plain_row(draft.row).items()
    }


def typed_row(draft: Draft, typed: Mapping[str, str]) -> dict[str, Any]:
    """The row that was typed. Raises DataError for what should be JSON and is not."""
    row: dict[str, Any] = {}
    for name, before in plain_row(draft.row).items():
        text = typed.get(name, "")
        if isinstance(before, str):
            row[name] = text
            continue
        try:
            row[name] = json.loads(text)
        except ValueError as error:
            raise DataError(f"{name}: is not JSON: {error}.", "Mend it, or cancel.") from error
    return row


def where(first: int, count: int, total: int) -> str:
    return f'<p class="aside">{first + 1} to {first + count} of {total:,}</p>' if count else ""
