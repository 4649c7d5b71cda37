"""The list of data sets: what it says, and the files that it gives away."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import gradio as gr
import pyarrow.parquet as pq
import pytest
import yaml

from core.data.prepare import import_dataset
from core.data.record import DatasetInfo
from core.data.registry import damaged_datasets, list_datasets, load_dataset_info
from core.workspace import Workspace
from tests.webui.fakes import fake_app
from tests.webui.made_runs import make_run
from webui import background
from webui.app import _shared
from webui.context import App, stamp
from webui.data import library as library_table
from webui.data.library import Library, link, write_recipe_file, write_rows

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    app = fake_app(tmp_path / "workspace")
    yield app
    app.close()


def imported(workspace: Workspace, name: str, rows: int = 8) -> DatasetInfo:
    source = workspace.root / f"{name[:5].strip('<')}.jsonl"
    row = {"prompt": "a question", "completion": "an answer", "topic": "law"}
    source.write_text("".join(json.dumps(row | {"n": n}) + "\n" for n in range(rows)))
    return import_dataset(workspace, [source], name=name)


def library(app: App) -> Library:
    """The components with the page's own selection."""
    with gr.Blocks():
        return Library(app, _shared())


def test_the_table_names_each_set_and_lets_no_name_become_html(app: App) -> None:
    info = imported(app.workspace, HOSTILE)
    broken = app.workspace.datasets / "broken"
    broken.mkdir()
    (broken / "dataset.json").write_text("{")
    shown = library_table.render(
        list_datasets(app.workspace),
        damaged_datasets(app.workspace),
        by="rows",
        descending=True,
        first=0,
        ticked=[info.id],
        selected=info.id,
    )
    assert "&lt;script&gt;" in shown and "<script>" not in shown
    assert "Prompt and answer" in shown and f'data-tick="{info.id}" checked' in shown
    assert 'data-act="delete" data-id="broken"' in shown and "damaged" in shown


@pytest.mark.parametrize(("kind", "part", "rows"), [("jsonl", "", 8), ("parquet", "train", 7)])
def test_rows_can_be_taken_away_as_a_file(app: App, kind: str, part: str, rows: int) -> None:
    info = imported(app.workspace, "tickets: all/any")
    path = write_rows(app.workspace, info.id, kind, part, background.Task())
    assert path.is_relative_to(app.workspace.uploads) and path.suffix == f".{kind}"
    if kind == "jsonl":
        found = [json.loads(line) for line in path.read_text().splitlines()]
        assert {row["part"] for row in found} == {"train", "eval"}
        assert {row["topic"] for row in found} == {"law"}
    else:
        found = pq.read_table(path).to_pylist()
    assert len(found) == rows
    assert path.name in link(path)


def test_a_recipe_file_makes_the_same_kind_of_set_of_another_file(app: App) -> None:
    info = imported(app.workspace, "tickets")
    recipe = yaml.safe_load(write_recipe_file(app.workspace, info.id).read_text())
    assert recipe["form"] == "prompt-completion"
    assert recipe["mapping"] == {"prompt": "prompt", "completion": "completion"}
    assert [step["op"] for step in recipe["steps"]] == ["split"]


def test_a_set_that_a_run_needs_stays(app: App) -> None:
    """Deleted, the run would fail when it goes on, perhaps at night."""
    info = imported(app.workspace, "needed")
    view = library(app)
    make_run(app.workspace, app.store, state="running", name="tonight", dataset=info.id)
    asked, confirm, note = view.ask_delete(info.id)
    assert asked == info.id and confirm.visible and "cannot be undone" in note
    _, told, _, _ = view.delete_now(info.id, info.id)
    assert "is needed by tonight" in told
    assert load_dataset_info(app.workspace, info.id).counts.train == 7


def test_a_deleted_set_is_gone_and_the_selection_moves_on(app: App) -> None:
    info, view = imported(app.workspace, "old"), library(app)
    chosen, told, confirm, ticked = view.delete_now(info.id, info.id)
    assert (chosen, ticked, confirm.visible) == ("", [], False) and "Deleted" in told
    assert list_datasets(app.workspace) == []


def test_another_name_reaches_every_list_of_the_page(app: App) -> None:
    info, view = imported(app.workspace, "old"), library(app)
    told, changed = view.rename(info.id, "new", "what it is")
    fresh = load_dataset_info(app.workspace, info.id)
    assert (fresh.name, fresh.description) == ("new", "what it is")
    assert changed == stamp(fresh) != stamp(info)
    told, changed = view.rename(info.id, " ", "")
    assert "needs a name" in told and changed == gr.skip()


def test_what_was_typed_and_asked_of_a_set_stays_while_it_is_shown_again(app: App) -> None:
    """A late refresh takes away neither what is being typed nor a button about to be pressed."""
    info, view = imported(app.workspace, "old"), library(app)
    again = view.detail(info.id, info.id)
    assert "old" in again[0] and again[1] == again[2] == again[-1] == gr.skip()
    other = view.detail(info.id, "another")
    assert other[1] == "old" and other[-1].visible is False
