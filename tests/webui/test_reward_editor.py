"""The editor of reward functions: what it puts into the field is what the run gets."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from core.config import SPEC_BY_PATH, RunConfig
from core.jobs.process import named
from core.rewards.kinds import KINDS
from core.rewards.specs import FIELD, parse_rewards
from core.workspace import Workspace
from tests.webui.fakes import filled, held
from webui import forms
from webui.configure.rewards import RewardEditor, entries_in, listing


class Here:
    """Stands for the pool of processes: calls at once, in this one."""

    def submit(self, function: str, *args: Any, within: Any = None) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(named(function)(*args))
        except Exception as error:
            future.set_exception(error)
        return future


class Bench:
    """The editor with what a browser would hold."""

    def __init__(self, root: Path) -> None:
        app: Any = SimpleNamespace(workspace=Workspace.open(root), pool=Here())
        with gr.Blocks():
            self.run = forms.Form("run", RunConfig().values())
            self.run.part(forms.in_folds())
            self.run.part([forms.basics()])
            self.editor = RewardEditor(app, self.run)
            self.editor.wire()
        self.held = {one: getattr(one, "value", None) for one in self.editor.inputs}
        self.forms = (self.run, self.editor.form)

    def set(self, name: str, value: Any) -> None:
        path = (
            name
            if name in self.editor.form.specs
            else (f"reward.{self.held[self.editor.kind]}.{name}")
        )
        self.take(self.editor.form, {path: value})

    def take(self, form: forms.Form, values: dict[str, Any]) -> None:
        before = form.held(self.held)
        self.held |= held(form, before | values)

    def do(self, handler: Any) -> dict[Any, Any]:
        updates: dict[Any, Any] = handler(self.held)
        for one, update in updates.items():
            if one in self.held and not isinstance(update, gr.blocks.Block):
                self.held[one] = update["value"] if isinstance(update, dict) else update
        for form in self.forms:
            if form.filled in updates:
                self.take(form, filled(form, updates))
        return updates

    def choose(self, kind: str) -> None:
        self.held[self.editor.kind] = kind
        self.do(self.editor.choose_kind)

    @property
    def text(self) -> str:
        return str(self.run.held(self.held)[FIELD])


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_functions_are_added_changed_and_removed(bench: Bench) -> None:
    editor = bench.editor
    bench.do(editor.add)
    bench.choose("regex")
    bench.set("pattern", "a, b\\d")
    bench.set("reward.weight", "0.5")
    bench.do(editor.add)
    entries, problem = entries_in(bench.text)
    assert problem == "" and entries == [
        {"kind": "json_valid", "weight": 1.0},
        {"kind": "regex", "weight": 0.5, "pattern": "a, b\\d"},
    ]
    assert forms.read(SPEC_BY_PATH[FIELD], bench.text) == entries
    bench.held[editor.entry] = "1"
    bench.do(editor.choose_entry)
    assert bench.held[editor.kind] == "json_valid"
    bench.set("reward.weight", "3")
    bench.do(editor.add)
    assert [one["weight"] for one in entries_in(bench.text)[0]] == [3.0, 0.5]
    bench.held[editor.entry] = "2"
    bench.do(editor.choose_entry)
    bench.do(editor.take_out)
    assert [spec.kind for spec in parse_rewards(entries_in(bench.text)[0])] == ["json_valid"]


def test_a_wrong_option_is_marked_at_its_control(bench: Bench) -> None:
    bench.choose("regex")
    marks = bench.do(bench.editor.add)[bench.editor.form.marks]
    assert "Must not be empty." in marks["errors"]["reward.regex.pattern"]
    bench.choose("length")
    said = bench.do(bench.editor.add)[bench.editor.said]
    assert "Give a target, or a minimum" in said and bench.text == ""
    bench.set("reward.weight", "heavy")
    marks = bench.do(bench.editor.add)[bench.editor.form.marks]
    assert "Must be a number" in marks["errors"]["reward.weight"]


def test_a_function_is_tried_before_the_run(bench: Bench) -> None:
    editor = bench.editor
    bench.choose("numeric_answer")
    bench.held |= {editor.completion: "It is 72.", editor.answer: "#### 72"}
    assert "Reward 1" in bench.do(editor.try_it)[editor.tried]
    bench.held[editor.answer] = ""
    assert "does not apply" in bench.do(editor.try_it)[editor.tried]
    bench.choose("own")
    bench.set("file", "gone.py")
    bench.set("function", "reward")
    assert "There is no file gone.py" in bench.do(editor.try_it)[editor.tried]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_panel_with_its_options(bench: Bench, kind: str) -> None:
    own = {f"reward.{kind}.{n}" for n in KINDS[kind].model_fields if n not in ("weight", "name")}
    bench.choose(kind)
    marks = bench.do(bench.editor.change)[bench.editor.form.marks]
    assert {spec.path for spec in bench.editor.specs[kind]} == own
    assert not {path for path in bench.editor.form.specs if path.startswith("reward.")} - (
        own | set(marks["hidden"]) | {"reward.weight", "reward.name"}
    )


def test_what_is_typed_by_hand_is_listed_with_what_is_wrong() -> None:
    entries, problem = entries_in('json_valid\n{"kind": "length"}')
    assert problem == "" and len(entries) == 2
    shown = listing(entries, problem)
    assert "1 if the answer is JSON" in shown and "give a target" in shown
    entries, problem = entries_in('{"kind": ')
    assert entries == [] and "cannot be read" in listing(entries, problem)


def test_it_is_shown_with_methods_that_learn_from_rewards(bench: Bench) -> None:
    editor = bench.editor
    for method, shown in (("sft", False), ("grpo", True)):
        assert editor.follow({"method": method, FIELD: ""})[editor.box].visible is shown
