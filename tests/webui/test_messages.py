"""Rows, answers, names and errors are written by files and models: none of it may become HTML."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from core.data.inspection import inspect_source
from core.data.record import Counts, DatasetInfo, DroppedRow, SourceFile
from core.data.rowfile import SCHEMAS
from core.errors import DataError, Problem
from core.jobs.store import Store
from core.tokens.chat_templates import TemplateProblem
from core.workspace import Workspace
from tests.webui.fakes import fake_app
from tests.webui.made_runs import HOSTILE, make_run
from webui import header, messages, train
from webui.configure import plan
from webui.data import import_sources, row_cards
from webui.data import row_cards as token_view
from webui.data import tab as data_view
from webui.data.import_sources import Found
from webui.live import LiveRuns
from webui.template_choice import problem_at


class Tags(HTMLParser):
    """Every tag and attribute name of an HTML text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.text = ""
        self.feed(str(html))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found |= {tag, *(name for name, _ in attributes)}

    def handle_data(self, data: str) -> None:
        self.text += data


def assert_harmless(html: str) -> None:
    tags = Tags(html)
    assert not tags.found & {"script", "img", "onerror", "onclick", "iframe", "style "}
    assert "onerror" in tags.text, "the hostile text itself must still be readable"


def hostile_row(shape: str) -> dict[str, Any]:
    turns = [{"role": HOSTILE, "content": HOSTILE}, {"role": "assistant", "content": HOSTILE}]
    call = {"type": "function", "function": {"name": HOSTILE, "arguments": {HOSTILE: HOSTILE}}}
    tool = {"name": HOSTILE, "description": HOSTILE, "parameters": {"properties": {HOSTILE: 1}}}
    calling = [
        {"role": "assistant", "content": "", "tool_calls": json.dumps([call])},
        {"role": "tool", "name": HOSTILE, "content": json.dumps({HOSTILE: HOSTILE})},
    ]
    row = {
        "text": {"text": HOSTILE},
        "messages": {"messages": [*turns, *calling], "tools": json.dumps([tool])},
        "prompt-completion": {"prompt": turns[:1], "completion": turns[1:]},
        "preference": {"prompt": turns[:1], "chosen": turns[1:], "rejected": turns[1:]},
        "unpaired-preference": {"prompt": turns[:1], "completion": turns[1:], "label": False},
        "prompt-only": {"prompt": turns[:1], "answer": HOSTILE},
        "labelled-text": {"text": HOSTILE, "labels": [HOSTILE]},
    }[shape]
    return {**row, "meta": {HOSTILE: HOSTILE}}


@pytest.mark.parametrize("shape", SCHEMAS)
def test_rows_are_shown_as_text(shape: str) -> None:
    assert_harmless(row_cards.rows([hostile_row(shape)], [0]))
    assert_harmless(row_cards.rows([hostile_row(shape)], [0], "error"))


def test_raw_rows_and_their_columns_are_shown_as_text() -> None:
    assert_harmless(import_sources.raw_rows([{HOSTILE: HOSTILE, "other": [HOSTILE]}]))


def test_tokens_are_shown_as_text() -> None:
    side = {
        "title": "Text",
        "tokens": [[HOSTILE, 1, False, False], [f"\n{HOSTILE}\t", 2, True, True]],
        "cut_tokens": [[HOSTILE, 3, False, False]],
        "length": 2,
        "full_length": 9,
        "loss_tokens": 1,
        "error": HOSTILE,
    }
    row = {
        **side,
        "sides": [side],
        "notes": [HOSTILE],
        "label": HOSTILE,
        "answer": HOSTILE,
    }
    html = token_view.tokens([row], [0], 2)
    assert_harmless(html)
    assert 'class="t loss special"' in html
    assert "cut at 2: 7 tokens not seen" in html
    assert_harmless(token_view.legend(HOSTILE, HOSTILE, 2))
    assert_harmless(problem_at(HOSTILE, TemplateProblem(1, HOSTILE)))


def test_a_file_is_described_as_text(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "fine", "<img src=x onerror=a>": 1}\n{"text": ""}\n')
    report = inspect_source(path)
    found = Found([str(path)], report, 2, [(HOSTILE, HOSTILE)])
    assert_harmless(import_sources.recognised(found))
    assert "1 row would be dropped" in import_sources.would_drop(report)


def test_a_data_set_is_described_as_text() -> None:
    info = DatasetInfo(
        id="a",
        name=HOSTILE,
        description=HOSTILE,
        form="text",
        form_reason=HOSTILE,
        sources=[SourceFile(file=HOSTILE, sha256="", rows=1)],
        counts=Counts(read=3, train=2, dropped=1),
        dropped=[DroppedRow(line=3, part="train", reason=HOSTILE, file=HOSTILE)],
    )
    assert_harmless(data_view.about_html(info))
    counts = {"train_tokens": 5, "longest": 5, "cut_rows": 0, "rows_without_loss": 1}
    assert_harmless(data_view.numbers_html(info, {**counts, "first_reason": HOSTILE}, False))


@pytest.mark.parametrize("state", ["failed", "died", "running", "stopped"])
def test_a_run_is_shown_as_text(workspace: Path, state: str) -> None:
    place = Workspace.open(workspace)
    job = make_run(
        place, Store.open(place), state=state, name=HOSTILE, error=HOSTILE, advice=HOSTILE
    )
    live = LiveRuns(place).get(job.id)
    live.folder.log.write_text(HOSTILE)
    news = train.news_of(job, live, True, {"log_open": True})
    assert news is not None
    assert_harmless("".join(news.texts.values()))
    assert_harmless(news.texts["samples"])
    assert_harmless(news.texts["log"])


def test_the_header_shows_a_name_as_text(workspace: Path) -> None:
    app = fake_app(workspace)
    make_run(app.workspace, app.store, state="running", name=HOSTILE)
    tags = Tags(header.render(app))
    assert not tags.found & {"script", "img", "onerror"}
    assert HOSTILE in tags.text


def test_problems_and_errors_are_shown_as_text(workspace: Path) -> None:
    app = fake_app(workspace)
    assert_harmless(plan.card(app, None, [Problem(HOSTILE, HOSTILE)]))
    assert_harmless(messages.error(DataError(HOSTILE, HOSTILE)))
    assert_harmless(messages.progress(0.5, HOSTILE))
    assert_harmless(messages.figures([(HOSTILE, HOSTILE, HOSTILE)]))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0, "0 s"),
        (59.6, "1 min 00 s"),
        (75, "1 min 15 s"),
        (1800, "30 min"),
        (3700, "1 h 01 min"),
    ],
)
def test_durations_are_rounded_to_what_is_meant(seconds: float | None, text: str) -> None:
    assert messages.duration(seconds) == text


def test_numbers_carry_their_units() -> None:
    assert messages.size(1536) == "1.5 KiB"
    assert messages.size(3 * 2**30) == "3.0 GiB"
    assert messages.short(134_515_008) == "134.5 M"
    assert messages.count(12345) == "12,345"


def test_a_state_has_its_word_beside_its_colour() -> None:
    """Colour alone tells nothing to who cannot see it."""
    for state, word in messages.STATE_WORDS.items():
        assert word in messages.badge(state)
    assert "signal 9" in messages.badge("died", 9)
