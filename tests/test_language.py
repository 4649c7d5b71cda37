"""What a person reads is in their language: `core.language`, and the catalogues."""

from __future__ import annotations

import ast
import json
import pickle
import threading
from pathlib import Path

import pytest
from jinja2 import Environment, nodes
from pydantic import BaseModel

from core.config import RunConfig, field_specs
from core.data.steps import known_steps
from core.errors import ConfigError, DataError, Problem
from core.jobs.events import EventWriter, read_events
from core.jobs.job import Job
from core.jobs.store import Store
from core.language import (
    LANGUAGES,
    LOCALE,
    N_,
    Said,
    Text,
    _,
    known_language,
    language_accepted,
    language_of_shell,
    n_,
    pack,
    speaking,
    unpack,
)
from core.rewards.kinds import KINDS
from core.rules.presets import list_presets
from core.sentence import Sentence
from tests import catalogues
from tests.test_architecture import ROOT, sources, templates

KNOWN = "No run at work"  # a text that is translated


def test_a_sentence_is_said_in_the_language_in_use() -> None:
    text = n_("CPU, {n} core", "CPU, {n} cores", 2)
    with speaking("zh"):
        assert str(text) == f"{text}" == _(text) != text
        assert "2" in str(text) and "核" in str(text)
    assert text == str(text) == "CPU, 2 cores"
    assert n_("CPU, {n} core", "CPU, {n} cores", 1) == "CPU, 1 core"


def test_what_is_declared_at_import_is_said_when_it_is_shown() -> None:
    declared = N_(KNOWN)
    with speaking("zh"):
        assert declared == KNOWN
        assert _(declared) == str(declared) != KNOWN

    class Thing:
        title: Said = Said()

        def __init__(self, title: str) -> None:
            self.title = title  # type: ignore[assignment]

    thing = Thing(declared)
    with speaking("zh"):
        assert thing.title == _(KNOWN) != KNOWN
    assert thing.title == KNOWN


def test_what_is_stored_is_a_template_and_its_values(tmp_path: Path) -> None:
    inner = _(KNOWN)
    text = _("{done}, {time} left", done="5 %", time=inner)
    packed = json.loads(json.dumps(pack({"why": [text], "rows": 3})))
    assert packed["why"][0] == {
        "_": "{done}, {time} left",
        "with": {"done": "5 %", "time": {"_": KNOWN}},
    }
    with speaking("zh"):
        assert str(unpack(packed)["why"][0]) == str(text) != text
    assert unpack(packed) == {"why": ["5 %, No run at work left"], "rows": 3}

    EventWriter(tmp_path / "events.jsonl").write("log", message=text)
    with speaking("zh"):
        assert read_events(tmp_path / "events.jsonl")[0]["message"] == str(text)

    store = Store(tmp_path / "tunesmith.db")
    job = store.add(Job(id="one", kind="train", run_id="one", folder="runs/one", error=text))
    assert job.error == text and isinstance(job.error, Text)
    with speaking("zh"):
        assert store.get("one").error == str(text)
    store.close()

    class Kept(BaseModel):
        why: Sentence

    kept = Kept(why=text).model_dump_json()
    with speaking("zh"):
        assert Kept.model_validate_json(kept).why == str(text)
    assert Kept(why="written before").why == "written before"


@pytest.mark.parametrize(
    "stored",
    [
        {"_": "{a.__class__}", "with": {"a": 1}},
        {"_": "{a:999999999}", "with": {"a": 1}},
        {"_": "{a", "with": {"a": 1}},
        {"_": "{a}", "with": {}, "n": 3},
    ],
)
def test_a_template_that_somebody_else_wrote_does_nothing(stored: dict[str, object]) -> None:
    assert unpack(stored) == stored["_"]


def test_rows_that_look_like_a_sentence_are_left_alone() -> None:
    row = {"_": "x", "other": 1}
    assert unpack({"row": row, "n": {"_": 3}}) == {"row": row, "n": {"_": 3}}


def test_an_error_crosses_processes_with_its_sentence() -> None:
    error = DataError(_("{done}, {time} left", done="5 %", time="1 s"), _(KNOWN))
    other = pickle.loads(pickle.dumps(error))
    with speaking("zh"):
        assert str(other) == str(error) != "5 %, 1 s left No run at work"


def test_what_is_wrong_with_settings_crosses_processes_and_is_stored() -> None:
    error = ConfigError([Problem("a", _(KNOWN)), Problem("b", "as it is")])
    assert str(error) == "a: No run at work. b: as it is. Change the fields named."
    other = pickle.loads(pickle.dumps(error))
    stored = json.loads(json.dumps(pack(error.message)))
    with speaking("zh"):
        assert all(_(KNOWN) in str(said) for said in (error, other, unpack(stored)))


def test_threads_do_not_share_a_language() -> None:
    heard = []
    with speaking("zh"):
        thread = threading.Thread(target=lambda: heard.append(str(_(KNOWN))))
        thread.start()
        thread.join()
    assert heard == [KNOWN]


@pytest.mark.parametrize(
    ("environment", "language"),
    [
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": "C"}, "en"),
        ({"LANG": "en_GB", "LANGUAGE": "zh_TW:en"}, "zh"),
        ({"LANG": "zh_CN", "TUNESMITH_LANGUAGE": "en"}, "en"),
        ({"LANG": "fr_FR.UTF-8"}, "en"),
        ({}, "en"),
    ],
)
def test_the_shells_language(environment: dict[str, str], language: str) -> None:
    assert language_of_shell(environment) == language


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("fr,en;q=0.3,zh-TW;q=0.7", "zh"),
        ("en-US,en", "en"),
        ("zh;q=0, en;q=0.1", "en"),
        ("zh;q=lots", None),
        ("fr", None),
        ("pseudo", None),
        ("", None),
    ],
)
def test_the_browsers_language(header: str, language: str | None) -> None:
    assert language_accepted(header) == language


def test_names_of_languages() -> None:
    assert [known_language(name) for name in ("zh-Hans-CN", "EN", "de", "", None)] == [
        "zh",
        "en",
        None,
        None,
        None,
    ]


SOURCE = catalogues.extracted()


@pytest.mark.parametrize("language", sorted(set(LANGUAGES) - {"en"}))
def test_every_text_is_translated_and_has_its_values(language: str) -> None:
    theirs = catalogues.translated(language)
    assert list(catalogues.problems(SOURCE, theirs)) == []
    known = {catalogues.key(message) for message in SOURCE}
    assert [message.id for message in theirs if catalogues.key(message) not in known] == []
    compiled = LOCALE / language / "LC_MESSAGES" / "tunesmith.mo"
    assert compiled.read_bytes() == catalogues.compiled(theirs), "python -m tests.catalogues"


def test_what_settings_and_presets_say_of_themselves_is_in_the_catalogues() -> None:
    known = {catalogues.key(message)[0] for message in SOURCE}
    sections = [RunConfig, *KINDS.values(), *known_steps().values()]
    specs = [spec for section in sections for spec in field_specs(section)]
    said = {text for spec in specs for text in (spec.label, spec.help, spec.unit)}
    said |= {text for kind in KINDS.values() for text in (kind.title, kind.sentence())}
    said |= {text for one in list_presets() for text in (one.title, one.description, one.when)}
    assert said <= known


def test_a_template_has_no_values_but_those_of_its_call() -> None:
    wrong = []
    for path in sources("core", "webui"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = getattr(getattr(node, "func", None), "id", "")
            if not isinstance(node, ast.Call) or name not in ("_", "n_") or not node.keywords:
                continue
            given = {one.arg for one in node.keywords} | ({"n"} if name == "n_" else set())
            texts = [one.value for one in node.args[:2] if isinstance(one, ast.Constant)]
            if None not in given and any(catalogues._values(str(t)) - given for t in texts):
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert wrong == []


def test_a_template_of_html_gives_each_text_its_values() -> None:
    """Jinja2 says so only when somebody opens that part of the page."""
    wrong, texts = [], 0
    for path in templates():
        tree = Environment(autoescape=True).parse(path.read_text(encoding="utf-8"))
        for call in tree.find_all(nodes.Call):
            name = getattr(call.node, "name", "")
            if name not in ("_", "n_") or not isinstance(call.args[0], nodes.Const):
                continue  # `_(declared)` says anew what was declared elsewhere
            texts += 1
            given = {one.key for one in call.kwargs} | ({"n"} if name == "n_" else set())
            said = [one.value for one in call.args[:2] if isinstance(one, nodes.Const)]
            if call.kwargs and any(catalogues._values(str(text)) - given for text in said):
                wrong.append(f"{path.relative_to(ROOT)}:{call.lineno}")
    assert texts > 100 and wrong == []


def test_no_function_hides_gettext_behind_a_name() -> None:
    """`for _ in ...` in a function that calls `_()` makes that a local name."""
    hidden = []
    for path in sources("core", "webui"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                continue
            inside = list(ast.walk(node))
            binds = any(
                isinstance(one, ast.Name)
                and one.id == "_"
                and isinstance(one.ctx, ast.Store)
                or isinstance(one, ast.arg)
                and one.arg == "_"
                for one in inside
            )
            calls = any(
                isinstance(one, ast.Call) and getattr(one.func, "id", "") == "_" for one in inside
            )
            if binds and calls:
                hidden.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert hidden == []
