"""Clean and shape without a browser: what is shown of steps, and what their controls mean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from core.data.prepare import import_dataset
from core.data.record import DatasetInfo, StepChange, StepDrop, StepResult
from core.data.registry import load_dataset_info
from core.data.steps import known_steps, parse_steps
from core.data.steps.labels import merging
from core.data.versions import apply_steps, try_in_order
from core.errors import ConfigError
from core.workspace import Workspace
from tests.webui.fakes import fake_app
from tests.webui.fakes import held as held_by
from webui.data import step_cards, step_form
from webui.data import step_form as label_table
from webui.data.step_form import StepForms

LABELS = ["law", "math", "computer science", "law", "law"]


@pytest.fixture
def labelled(tmp_path: Path) -> tuple[Workspace, DatasetInfo]:
    workspace = Workspace.open(tmp_path / "workspace")
    path = workspace.root / "rows.jsonl"
    rows = [{"text": f"Question {n}?", "label": label} for n, label in enumerate(LABELS)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return workspace, import_dataset(workspace, [path], form="labelled-text", eval_fraction=0.0)


@pytest.fixture(scope="module")
def forms(tmp_path_factory: pytest.TempPathFactory) -> StepForms:
    with gr.Blocks():
        return StepForms(fake_app(tmp_path_factory.mktemp("forms") / "workspace"))


def held(forms: StepForms, op: str, **typed: Any) -> dict[Any, Any]:
    """What the controls hold when a step was just chosen and these were typed."""
    return held_by(forms.form, {f"{op}.{name}": value for name, value in typed.items()})


def marked(forms: StepForms, op: str, data: dict[Any, Any], *problems: Any) -> dict[str, Any]:
    """What a data set of texts shows for a step that was filled in like this."""
    info = DatasetInfo(id="d", name="d", form="text")
    marks: dict[str, Any] = forms.read_marks(op, info, data, False, *problems)[forms.form.marks]
    return marks


@pytest.mark.parametrize("op", sorted(set(known_steps()) - step_form.MADE_ELSEWHERE))
def test_untouched_controls_give_the_step_with_its_defaults(forms: StepForms, op: str) -> None:
    """A setting that changed on its way through the page would change rows unasked."""
    assert forms.read(op, held(forms, op)) == [known_steps()[op]()]


def test_a_number_may_have_its_thousands_apart_but_no_decimal_comma(forms: StepForms) -> None:
    [step] = forms.read("cap_per_class", held(forms, "cap_per_class", most="1,000"))
    assert step.most == 1000  # type: ignore[attr-defined]
    with pytest.raises(ConfigError) as caught:
        forms.read("split", held(forms, "split", eval_fraction="0,2"))
    assert [problem.field for problem in caught.value.problems] == ["split.eval_fraction"]
    assert "'0,2'" in str(caught.value)


def test_a_wrong_value_is_named_at_its_field_and_so_is_the_cap(forms: StepForms) -> None:
    data = held(forms, "rename_labels", names='{"law": "legal"}', cap="many")
    with pytest.raises(ConfigError) as caught:
        forms.read("rename_labels", data)
    marks = marked(forms, "rename_labels", data, caught.value.problems)
    assert list(marks["errors"]) == [step_form.CAP]


def test_a_field_that_does_not_matter_is_hidden(forms: StepForms) -> None:
    """Of the step that is filled in; of the other steps everything is."""
    marks = marked(forms, "drop_length", held(forms, "drop_length", unit="words"))
    own = {spec.path for spec in forms.specs["drop_length"]}
    assert own & set(marks["hidden"]) == {"drop_length.model"}
    assert set(marks["hidden"]) >= set(forms.form.specs) - own


def test_a_mix_of_labels_is_offered_where_there_are_labels(forms: StepForms) -> None:
    for form, shown in (("text", False), ("labelled-text", True)):
        answer = forms.show("split", DatasetInfo(id="d", name="d", form=form))
        assert ("split.stratify" not in answer[forms.form.marks]["hidden"]) is shown


def test_renaming_with_a_cap_makes_both_steps(forms: StepForms) -> None:
    data = held(forms, "rename_labels", names='{"computer science": "code"}', cap="2")
    steps = forms.read("rename_labels", data)
    assert [step.spec() for step in steps] == [
        {"op": "rename_labels", "names": {"computer science": "code"}},
        {"op": "cap_per_class", "most": 2},
    ]


def test_labels_stand_in_the_table_with_their_rows_and_cannot_become_markup() -> None:
    table = label_table.render({'<b>"law"</b>': 3}, {'<B>"law"</B>': "legal"}, "field")
    assert "<b>" not in table and 'data-rows="3"' in table
    assert 'value="legal"' in table


def test_editing_a_renaming_shows_the_labels_that_it_was_made_for(
    forms: StepForms, labelled: tuple[Workspace, DatasetInfo]
) -> None:
    workspace, info = labelled
    steps = parse_steps([{"op": "rename_labels", "names": {"computer science": "code"}}])
    info = apply_steps(workspace, info.id, steps)
    table = forms.show("rename_labels", info, info.steps[0].step)[forms.labels]
    assert 'data-label="computer science" data-rows="1"' in table
    assert 'data-label="code"' not in table


def test_counts_of_a_step_are_shown_even_when_they_are_nothing() -> None:
    """Nothing is dropped unseen: that nothing was dropped is said, too."""
    quiet = StepResult(step={"op": "shuffle"}, title="Shuffle", rows_in=1200, rows_out=1200)
    flow = step_cards.flow(quiet)
    assert "1,200 → 1,200 rows" in flow and "0 dropped" in flow and "0 changed" in flow
    split = quiet.model_copy(update={"parts": {"train": 1100, "eval": 100, "test": 0}})
    assert "1,100 to learn" in step_cards.flow(split) and "100 held out" in step_cards.flow(split)


def test_dropped_rows_are_told_with_reasons_and_hostile_text_stays_text() -> None:
    drops = [
        StepDrop(part="eval", index=n, reason="too <b>long", text="<script>") for n in range(30)
    ]
    result = StepResult(
        step={"op": "drop_empty"}, dropped=30, reasons={"too <b>long": 30}, listed=drops
    )
    shown = step_cards.details(result)
    assert "<script>" not in shown and "<b>" not in shown
    assert "Held out, row 1: too &lt;b&gt;long" in shown
    assert f"and {30 - step_cards.LISTED} more" in shown


def test_a_step_that_could_do_nothing_says_why_before_and_after(
    forms: StepForms, labelled: tuple[Workspace, DatasetInfo]
) -> None:
    """Without held-out rows there is nothing that could leak: 0 dropped would be no good news."""
    workspace, info = labelled
    assert "Nothing is held out yet" in forms.about("drop_leaks", info)
    assert "Nothing is held out yet" not in forms.about("drop_duplicates", info)
    [tried] = try_in_order(workspace, info.id, parse_steps([{"op": "drop_leaks"}]))
    assert "Put this step after a split" in step_cards.trial([tried], 100, 5)
    info = apply_steps(workspace, info.id, parse_steps([{"op": "drop_leaks"}]))
    assert "Put this step after a split" in step_cards.steps(info)
    steps = parse_steps([{"op": "split", "eval_fraction": 0.4}, {"op": "drop_leaks"}])
    info = apply_steps(workspace, info.id, steps)
    assert "Nothing is held out" not in step_cards.steps(info) + forms.about("drop_leaks", info)


def test_a_change_marks_only_what_differs_and_shortens_the_rest() -> None:
    same = "word " * 200
    before, after = step_cards.differences(f"{same}me@x.org", f"{same}[EMAIL]")
    assert after.endswith("<ins>[EMAIL]</ins>") and "<del>me@x.org</del>" in before
    assert len(after) < 200


def test_what_a_cut_made_is_not_set_against_another_row() -> None:
    change = StepChange(part="train", index=3, before="one document", after="a block")
    result = StepResult(step={"op": "cut_text"}, changed=1, shown=[change])
    assert "a block" in step_cards.details(result)
    assert "one document" not in step_cards.details(result)


def test_a_trial_changes_nothing_and_an_edit_is_tried_on_the_imported_rows(
    labelled: tuple[Workspace, DatasetInfo],
) -> None:
    workspace, info = labelled
    first = parse_steps([{"op": "select_rows", "condition": 'label == "law"'}])
    apply_steps(workspace, info.id, first)
    other = parse_steps([{"op": "select_rows", "condition": 'label == "math"'}])
    assert try_in_order(workspace, info.id, other)[0].rows_in == 3
    tried = try_in_order(workspace, info.id, other, imported=True)[0]
    assert (tried.rows_in, tried.rows_out) == (5, 1)
    assert load_dataset_info(workspace, info.id).version == 2


def test_the_recipe_is_in_the_page_and_can_be_read_again(
    labelled: tuple[Workspace, DatasetInfo],
) -> None:
    workspace, info = labelled
    info = apply_steps(workspace, info.id, parse_steps([{"op": "shuffle"}]))
    link = step_cards.recipe_link(info)
    assert 'download="rows-recipe.yaml"' in link and "op%3A%20shuffle" in link


def test_alike_labels_are_merged_where_the_steps_are(tmp_path: Path) -> None:
    """The remark must go with what it is about."""
    workspace = Workspace.open(tmp_path / "workspace")
    path = workspace.root / "rows.jsonl"
    rows = [{"text": f"Question {n}?", "label": label} for n, label in enumerate(["Law", "law"])]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    info = import_dataset(workspace, [path], form="labelled-text", eval_fraction=0.0)
    shown = step_cards.steps(info)
    assert "differ only in case" in shown and 'data-act="merge"' in shown
    step = merging(info.labels)
    assert step is not None
    merged = apply_steps(workspace, info.id, [step])
    assert merged.labels == {"Law": 2} and 'data-act="merge"' not in step_cards.steps(merged)


@pytest.mark.parametrize("record", [{"op": "split", "eval_fraction": 0.0}, {"op": "shuffle"}])
def test_a_setting_of_zero_is_shown(record: dict[str, Any]) -> None:
    assert ">0" in step_cards.settings({"seed": 0, **record})
