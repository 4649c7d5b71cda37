"""Drafts as HTML: what a task came to, its rows as cards, and one row as it is edited."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from core.data.drafts.rows import plain_row
from core.data.drafts.tasks import Draft, DraftTask
from core.errors import DataError
from core.language import N_, _, n_
from core.remote.endpoint import endpoint_host
from webui import messages
from webui.data import row_cards
from webui.html import html

# Where an endpoint's address and key may stand; the first that is set counts.
VARIABLES = (
    ("TUNESMITH_OPENAI_BASE_URL", "TUNESMITH_OPENAI_API_KEY"),
    ("OPENAI_BASE_URL", "OPENAI_API_KEY"),
)
KINDS = {
    "more_like": N_("More like these"),
    "paraphrase": N_("In other words"),
    "answer_prompts": N_("Answers to prompts"),
    "preference_pairs": N_("Preference pairs"),
}
SHOWN = {
    "new": N_("To decide"),
    "accepted": N_("Accepted"),
    "rejected": N_("Declined"),
    "taken": N_("Added"),
    "all": N_("All"),
}

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


def no_drafts() -> Markup:
    """What the drafts of a data set are, while there are none."""
    about = _(
        "A model can write more rows like these, say them in other words, answer prompts, or judge "
        "pairs. Nothing gets into the data set before you accept it."
    )
    return messages.empty(_("No drafts yet"), about)


def endpoint_note(environment: Mapping[str, str] | None = None) -> Markup:
    """Which endpoint would be asked, and which variables say so; never an address or a key."""
    given = os.environ if environment is None else environment
    variables = [(name, bool(given.get(name, "").strip())) for names in VARIABLES for name in names]
    return html.draft_cards.endpoint(endpoint_host(), variables)


def choice(task: DraftTask) -> tuple[str, str]:
    """How a task is named in a list, and its id."""
    told = n_(
        "{kind}, by {model}: {n} draft ({task})",
        "{kind}, by {model}: {n:,} drafts ({task})",
        task.tally.drafts,
        kind=KINDS[task.settings.kind],
        model=task.settings.model,
        task=task.id,
    )
    return told, task.id


def summary(task: DraftTask, working: bool) -> Markup:
    """State, counts, cost so far, and why it ended."""
    tally, settings = task.tally, task.settings
    state = "working" if working else task.state
    begun = bool(tally.requests) or state != "stopped"
    word = messages.STATE_WORDS.get(state) if begun else _("Not started")
    badge = html.messages.badge(_STATES[state], word or _("Writing"))
    made_of = _("{model} on this machine", model=settings.model)
    if task.host:
        made_of = _("{model} at {host}", model=settings.model, host=task.host)
    unusable = sum(tally.unusable.values())
    tokens = f"{tally.tokens:,}"
    figures = messages.figures(
        [
            (_("Drafts"), _("{drafts:,} of {rows:,}", drafts=tally.drafts, rows=settings.rows)),
            (_("To decide"), messages.count(tally.new)),
            (_("Accepted"), messages.count(tally.accepted), _("Not in the data set yet")),
            (_("Declined"), messages.count(tally.rejected)),
            (_("In the data set"), messages.count(tally.taken)),
            (
                _("Left out"),
                messages.count(tally.duplicates + unusable),
                _("Repeated, or no usable row"),
            ),
            (
                _("Tokens"),
                _("about {n}", n=tokens) if tally.estimated else tokens,
                _("Read and written together"),
            ),
            (_("Cost"), _cost(tally.cost), _("By the prices in the settings")),
        ]
    )
    reason = Markup()
    if task.reason and not working and begun:
        reason = messages.note(task.reason, "failed" if state == "failed" else "plain")
    return html.draft_cards.summary(
        _(KINDS[settings.kind]), badge, made_of, figures, reason, _left_out(task)
    )


def _cost(cost: float | None) -> str:
    return _("not known") if cost is None else f"{cost:.4g}"


def _left_out(task: DraftTask) -> dict[str, int]:
    """Why rows were left out, with how many."""
    tally = task.tally
    reasons = dict(tally.unusable)
    if tally.duplicates:
        reasons[_("the row was there already")] = tally.duplicates
    return reasons


def drafts(
    found: Sequence[Draft],
    total: int,
    shown: str,
    editing: int = 0,
    typed: Mapping[str, str] | None = None,
    error: DataError | None = None,
) -> Markup:
    """Drafts as cards; `editing` is the number of the one that is open, with what was typed."""
    if not found:
        return Markup() if total else messages.empty(*_NOTHING.get(shown, _NOTHING["all"]))
    cards = [
        _editor(draft, typed, error) if draft.id == editing else _draft(draft, not editing)
        for draft in found
    ]
    return html.draft_cards.drafts(cards)


_NOTHING = {
    "new": (
        N_("Nothing to decide"),
        N_("Drafts that you have neither accepted nor rejected stand here."),
    ),
    "accepted": (N_("Nothing accepted"), N_("What you accept waits here until you add it.")),
    "rejected": (N_("Nothing rejected"), N_("What you reject stays here and is never added.")),
    "taken": (N_("Nothing added yet"), N_("Accept drafts, then add them to the data set.")),
    "all": (N_("No drafts yet"), N_("They appear here as they are written.")),
}


# A draft, its badge, what stands in its card, and its buttons: (act, class, word, label).
_Card = tuple[Draft, Markup, Markup, Sequence[tuple[str, str, str, str]]]


def _draft(draft: Draft, may_edit: bool) -> _Card:
    number = draft.id
    offered = [
        ("accept", _("Accept"), _("Accept draft {n}", n=number)),
        ("reject", _("Reject"), _("Reject draft {n}", n=number)),
    ]
    if may_edit:  # one at a time: what was typed in another one would be lost
        offered.insert(0, ("edit", _("Edit"), _("Edit draft {n}", n=number)))
    done = {"accepted": "accept", "rejected": "reject"}.get(draft.status)
    buttons = [(act, f" is-{act}", word, label) for act, word, label in offered if act != done]
    judged = row_cards.judgement(draft.row["label"]) if "label" in draft.row else Markup()
    body = judged + row_cards.body(draft.row)
    return draft, _badge(draft), body, [] if draft.taken else buttons


def _badge(draft: Draft) -> Markup:
    if draft.taken:
        return html.messages.badge("finished", _("In the data set"))
    return html.messages.badge(_TONES[draft.status], _(SHOWN[draft.status]))


def _editor(draft: Draft, typed: Mapping[str, str] | None, error: DataError | None) -> _Card:
    texts = {**editable(draft), **(typed or {})}
    # A sentence about a field begins with its name.
    named = (name for name in texts if error and error.message.startswith(name))
    wrong = next(named, next(iter(texts), "")) if error else None
    fields = [(name, text, _lines(text)) for name, text in texts.items()]
    buttons = [("save", " is-accept", _("Save"), ""), ("cancel", "", _("Cancel"), "")]
    return draft, _badge(draft), html.draft_cards.editor(fields, wrong, error), buttons


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
            text = _("{name}: is not JSON: {error}.", name=name, error=error)
            raise DataError(text, _("Mend it, or cancel.")) from error
    return row


def where(first: int, count: int, total: int) -> Markup:
    told = _("{first} to {last} of {total:,}", first=first + 1, last=first + count, total=total)
    return html.plain.aside(told) if count else Markup()
