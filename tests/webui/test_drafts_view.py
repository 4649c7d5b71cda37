"""More rows without a browser: drafts as cards, what was typed into them, and the settings."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from core.data.drafts import review
from core.data.drafts.settings import DraftSettings, draft_settings
from core.data.drafts.tasks import Draft, DraftTask, Tally, append, begin
from core.data.jobs import submit_drafts
from core.data.prepare import import_dataset
from core.data.record import DatasetInfo
from core.errors import DataError
from tests.webui.fakes import fake_app, held, owner_of
from webui.app import build
from webui.data import draft_cards
from webui.data.draft_form import DraftForm
from webui.data.drafts import DraftPages, DraftsView

SECRET = "sk-very-secret"
TOLD = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Good day."}]


def draft(row: dict[str, Any], **known: Any) -> Draft:
    return Draft(7, row, **known)


def pair() -> dict[str, Any]:
    return {"prompt": [TOLD[0]], "completion": [TOLD[1]]}


@pytest.fixture(scope="module")
def form(tmp_path_factory: pytest.TempPathFactory) -> DraftForm:
    with gr.Blocks():
        return DraftForm(fake_app(tmp_path_factory.mktemp("drafts") / "workspace"))


def test_the_endpoint_is_named_by_its_host_and_no_key_is_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for base, key in draft_cards.VARIABLES:
        monkeypatch.delenv(base, raising=False)
        monkeypatch.delenv(key, raising=False)
    assert "No endpoint is set" in draft_cards.endpoint_note()
    for base, key in draft_cards.VARIABLES:
        monkeypatch.setenv(base, "http://me:pass@rows.example:8080/v1")
        monkeypatch.setenv(key, SECRET)
        note = draft_cards.endpoint_note()
        assert "rows.example" in note and f"<code>{base}</code> is set" in note
        assert SECRET not in note and "pass" not in note and "8080" not in note
        monkeypatch.delenv(base)


@pytest.mark.parametrize(
    "row",
    [
        pair(),
        {"messages": TOLD},
        {"text": "Some text", "labels": ["law"]},
        {"text": "Some text", "labels": ["law", "math"]},
        {**pair(), "label": True},
    ],
)
def test_a_draft_that_is_saved_as_it_was_says_the_same(row: dict[str, Any]) -> None:
    from core.data.drafts.rows import checked_row

    form = (
        "messages"
        if "messages" in row
        else "labelled-text"
        if "text" in row
        else "unpaired-preference"
        if "label" in row
        else "prompt-completion"
    )
    one = draft(row)
    assert checked_row(draft_cards.typed_row(one, draft_cards.editable(one)), form) == row


def test_json_that_is_none_is_told_at_its_field_with_what_was_typed() -> None:
    one = draft({"messages": TOLD})
    with pytest.raises(DataError) as caught:
        draft_cards.typed_row(one, {"messages": "[{"})
    card = draft_cards.drafts([one], 1, "new", 7, {"messages": "[{"}, caught.value)
    assert "aria-invalid" in card and "is not JSON" in card and "\n[{</textarea>" in card


def test_what_a_model_wrote_cannot_become_markup() -> None:
    hostile = "</textarea><script>alert(1)</script>"
    one = draft({"prompt": [{"role": "user", "content": hostile}], "completion": [TOLD[1]]})
    for editing in (0, 7):
        assert "<script>" not in draft_cards.drafts([one], 1, "new", editing)


def test_a_draft_in_the_data_set_offers_no_decision() -> None:
    taken = draft_cards.drafts([draft(pair(), status="accepted", taken=True)], 1, "taken")
    assert "In the data set" in taken and "data-act" not in taken
    accepted = draft_cards.drafts([draft(pair(), status="accepted")], 1, "accepted")
    assert 'data-act="reject"' in accepted and 'data-act="accept"' not in accepted


def test_a_task_tells_what_it_cost_and_why_it_ended() -> None:
    settings = DraftSettings(model="m<b>", input_price=1.0, output_price=2.0)
    tally = Tally(requests=3, drafts=4, input_tokens=10, unusable={"cut": 2}, cost=0.5)
    task = DraftTask(
        id="20260101-0000-a-b",
        dataset="d",
        created_at="",
        settings=settings,
        form="text",
        drafts_form="text",
        state="failed",
        reason="It <broke.",
        tally=tally,
    )
    told = draft_cards.summary(task, working=False)
    assert "m&lt;b&gt;" in told and "It &lt;broke." in told and "Failed" in told
    assert ">0.5<" in told and "4 of 20" in told and "cut</li>" in told
    assert "Writing" in draft_cards.summary(task, working=True)


def test_untouched_settings_are_the_defaults(form: DraftForm) -> None:
    data = held(form.form, {"drafts.model": "some-model"})
    assert draft_settings(form.read(data)) == DraftSettings(model="some-model")


def test_only_kinds_that_fit_the_rows_are_offered(form: DraftForm) -> None:
    text = DatasetInfo(id="d", name="d", form="text")
    offered = json.loads(form.show(text)[form.form.filled])["choices"]["drafts.kind"]
    assert [kind for _, kind in offered] == ["more_like", "paraphrase"]
    hidden = form.show(text)[form.form.marks]["hidden"]
    assert "drafts.only_label" in hidden
    labelled = DatasetInfo(id="d", name="d", form="labelled-text", labels={"law": 2})
    assert "drafts.only_label" not in form.show(labelled)[form.form.marks]["hidden"]


def test_text_to_edit_is_plain_and_everything_else_is_json() -> None:
    shown = draft_cards.editable(draft({**pair(), "label": False}))
    assert shown == {"prompt": "Hello?", "completion": "Good day.", "label": "false"}
    assert json.loads(draft_cards.editable(draft({"messages": TOLD}))["messages"]) == TOLD


class Drafted:
    """A data set with a task that has written three drafts, on a page of its own."""

    def __init__(self, root: Path) -> None:
        self.app = fake_app(root / "workspace")
        path = self.app.workspace.root / "rows.jsonl"
        path.write_text("".join(json.dumps(pair()) + "\n" for _ in range(3)))
        info = import_dataset(self.app.workspace, [path], name="towns", eval_fraction=0.0)
        self.task = begin(self.app.workspace, info.id, DraftSettings(source="local", model="m"))
        append(self.task.log, {"request": 0, "seeds": [0], "rows": [pair()] * 3})
        self.blocks = build(self.app)
        owners = [owner_of(one) for one in self.blocks.fns.values()]
        self.view = next(one for one in owners if type(one).__name__ == "DraftsView")
        self.desk = copy.deepcopy(self.view.desk.value)
        self.page = (info.id, self.task.id, "new", 0, self.desk)

    def click(self, act: str, number: int, **values: str) -> str:
        event = SimpleNamespace(act=act, draft=number, values=values)
        return self.view.pages.decide(*self.page, event)[self.view.pages.cards]


@pytest.fixture(scope="module")
def drafted(tmp_path_factory: pytest.TempPathFactory) -> Drafted:
    return Drafted(tmp_path_factory.mktemp("drafted"))


def test_a_draft_that_was_opened_is_not_closed_by_what_is_drawn_later(drafted: Drafted) -> None:
    assert "<textarea" in drafted.click("edit", 1)
    assert drafted.view.pages.show(*drafted.page) == [gr.skip()] * 3
    assert "<textarea" not in drafted.click("cancel", 1)
    assert "Edit draft 1" in drafted.view.pages.show(*drafted.page)[0]


def test_answers_come_in_the_order_of_the_clicks(drafted: Drafted) -> None:
    """A late one would show what was there before."""
    owned = [
        one
        for one in drafted.blocks.fns.values()
        if isinstance(owner_of(one), (DraftsView, DraftPages))
    ]
    apart = {one.name for one in owned if one.concurrency_id != "drafts"}
    assert apart == set() and len(owned) > 12


def test_what_is_typed_in_one_draft_stays_while_others_are_decided(drafted: Drafted) -> None:
    drafted.click("edit", 1)
    shown = drafted.click("reject", 2, prompt="Typed, not saved")
    assert "Typed, not saved" in shown and "Edit draft" not in shown
    told = drafted.view.pages.decide_all("accept", *drafted.page)
    assert "Draft 1 is open" in told
    drafts = review.read_drafts(drafted.app.workspace, *drafted.page[:2], 0, 9)[0]
    assert [one.status for one in drafts] == ["new", "rejected", "new"]
    shown = drafted.click("save", 1, prompt="Typed and saved", completion="")
    assert "completion, turn 1: is empty" in shown.partition("<span>completion</span>")[2]
    shown = drafted.click("save", 1, prompt="Typed and saved", completion="Yes.")
    assert "Typed and saved" in shown and "<textarea" not in shown and "Edit draft 3" in shown


def test_what_is_deleted_is_not_open_any_more(tmp_path: Path) -> None:
    drafted = Drafted(tmp_path)
    drafted.click("edit", 1)
    view = drafted.view
    told = view.forget(dict(zip(view.page, drafted.page, strict=True)))
    assert "deleted" in told[view.said] and told[view.task].value is None
    assert "Draft 1" not in drafted.view.pages.show(*drafted.page)[0]


def test_what_is_being_written_is_there_after_a_reload_and_only_at_its_data_set(
    drafted: Drafted,
) -> None:
    dataset, app, view = drafted.page[0], drafted.app, drafted.view
    job = submit_drafts(app.workspace, app.store, dataset, drafted.task.id)
    app.store.transition(job.id, {"queued"}, "running")
    reloaded = {one: None for one in (*view.watched[0], view.shared.dataset)}
    reloaded |= {view.jobs.known: set(), view.shared.dataset: dataset}
    shown = view.news(reloaded)
    assert "More like these" in shown[view.summary]
    assert "Writing drafts" in shown[view.jobs.shown]
    elsewhere = view.news({**reloaded, view.shared.dataset: "sample"})
    assert view.jobs.shown not in elsewhere
    app.store.transition(job.id, {"running"}, "finished", ended_at=1.0)
    drawn = reloaded | {view.jobs.shown: shown[view.jobs.shown]}
    assert view.news(drawn)[view.jobs.shown] == "", "the task itself says how it ended"
