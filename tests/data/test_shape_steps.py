"""Rows chosen, changed, split and added by steps: what stays, what goes, and what is said of it."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.data.record import DatasetInfo, StepResult
from core.data.registry import load_dataset_info, read_rows
from core.data.rowfile import reorder
from core.data.steps import parse_steps, with_step
from core.data.versions import apply_steps, recorded_steps, try_in_order
from core.errors import DataError
from core.workspace import Workspace
from tests.data.shaping import bring, numbers, step


def test_values_beside_the_rows_are_kept_and_can_be_named(
    open_workspace: Workspace, questions: DatasetInfo
) -> None:
    assert questions.columns == ["topic", "n"]
    condition = 'topic in ("a", "b") and n < 20 and words(prompt) > 1'
    chosen = step(op="select_rows", condition=condition)
    info = apply_steps(open_workspace, questions.id, chosen)
    assert numbers(open_workspace, info) == [n for n in range(20) if n % 4 < 2]
    result = info.steps[0]
    assert (result.rows_in, result.rows_out, result.dropped) == (100, 10, 90)
    assert len(result.listed) == 90 and result.listed[0].text.startswith("Question 2")
    assert result.reasons == {"does not match": 90}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"condition": "topik == 'a'"}, "did you mean topic"),
        ({"condition": "topic =="}, "cannot be read"),
        ({"condition": "__import__('os').system('true')"}, "cannot use .system"),
        ({"condition": "open('/etc/passwd')"}, "names open"),
        ({"condition": "topic.__class__"}, "cannot use .__class__"),
        ({"rows": "9-3"}, "9-3 is no place"),
        ({}, "No rows are named"),
    ],
)
def test_a_condition_that_cannot_be_is_refused_and_changes_nothing(
    open_workspace: Workspace, questions: DatasetInfo, spec: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        apply_steps(open_workspace, questions.id, step(op="select_rows", **spec))
    assert caught.value.hint
    assert load_dataset_info(open_workspace, questions.id).version == 1
    left = sorted(path.name for path in questions.folder.iterdir() if path.name[0] != ".")
    assert left == ["dataset.json", "imported", "versions"]


def test_split_by_group_keeps_groups_together(open_workspace: Workspace, tmp_path: Path) -> None:
    """An evaluation on a customer who was learned from measures memory, not skill."""
    rows = [
        {"prompt": f"Q{n}", "answer": f"A{n}", "customer": f"c{n % 23}", "n": n} for n in range(300)
    ]
    info = bring(
        open_workspace,
        tmp_path,
        rows,
        steps=step(op="split", eval_fraction=0.2, test_fraction=0.1, group_by="customer"),
    )
    parts = {
        part: {n % 23 for n in numbers(open_workspace, info, part)}
        for part in ("train", "eval", "test")
    }
    assert not parts["train"] & parts["eval"] and not parts["eval"] & parts["test"]
    assert not parts["train"] & parts["test"]
    assert 40 <= info.counts.eval <= 60 and 15 <= info.counts.test <= 30
    counted = info.counts.model_dump(include={"train", "eval", "test"})
    assert info.steps[0].parts == counted
    assert _tried(open_workspace, info).parts == counted
    assert info.counts.train + info.counts.eval + info.counts.test == 300


def _tried(workspace: Workspace, info: DatasetInfo) -> StepResult:
    return try_in_order(workspace, info.id, recorded_steps(info), imported=True)[0]


def test_a_split_that_holds_nothing_out_says_why(open_workspace: Workspace, tmp_path: Path) -> None:
    """Who groups by the wrong column would believe that rows are held out, and train blindly."""
    rows = [{"text": f"Text {n}.", "shop": "one", "town": f"t{n % 2}", "n": n} for n in range(20)]
    info = bring(open_workspace, tmp_path, rows, eval_fraction=0.0)

    def said(**settings: Any) -> str:
        spec = step(op="split", **{"eval_fraction": 0.2, **settings})
        return apply_steps(open_workspace, info.id, spec).steps[0].remark

    assert said(group_by="shop") == (
        "Nothing was held out for evaluation: shop has only one value, and rows with the same one "
        "stay together."
    )
    assert "a test: town has only 2 values" in said(group_by="town", test_fraction=0.2)
    assert said(test_fraction=0.2) == ""


def test_a_stratified_split_keeps_the_mix_of_labels(
    open_workspace: Workspace, labelled: DatasetInfo
) -> None:
    info = apply_steps(
        open_workspace, labelled.id, step(op="split", eval_fraction=1 / 3, stratify=True)
    )
    held_out = read_rows(open_workspace, info.id, "eval", limit=1000)
    # One row of tea cannot be in both parts: it stays where it can be learned.
    assert Counter(row["labels"][0] for row in held_out) == {"law": 30, "art": 3}
    assert info.labels == {"law": 60, "art": 6, "tea": 1}


@pytest.mark.parametrize(
    ("rows", "fraction", "held_out"),
    [(1, 0.5, 0), (2, 0.01, 1), (2, 0.99, 1), (10, 0.25, 2), (10, 0.0, 0), (30, 0.1, 3)],
)
def test_one_row_at_least_is_held_out_and_one_stays(
    open_workspace: Workspace, tmp_path: Path, rows: int, fraction: float, held_out: int
) -> None:
    made = [{"prompt": f"Q{n}", "answer": "A"} for n in range(rows)]
    info = bring(open_workspace, tmp_path, made, eval_fraction=fraction)
    assert (info.counts.train, info.counts.eval) == (rows - held_out, held_out)


def test_labels_are_renamed_and_capped(open_workspace: Workspace, labelled: DatasetInfo) -> None:
    steps = parse_steps(
        [
            {"op": "rename_labels", "names": {"Law": "legal", "tea": ""}, "others": "general"},
            {"op": "cap_per_class", "most": 20},
        ]
    )
    info = apply_steps(open_workspace, labelled.id, steps)
    assert info.labels == {"legal": 20, "general": 9}
    renamed, capped = info.steps
    assert (renamed.dropped, renamed.changed) == (1, 99)
    assert renamed.listed[0].reason == "the label tea is left out"
    assert renamed.shown[0].before.startswith("[law]")
    assert renamed.shown[0].after.startswith("[legal]")
    assert (capped.dropped, capped.reasons) == (70, {"legal has more than N rows": 70})
    assert capped.listed[0].text.startswith("Text number")


def test_templates_write_texts_anew(open_workspace: Workspace, questions: DatasetInfo) -> None:
    info = apply_steps(
        open_workspace,
        questions.id,
        step(op="map_template", column="prompt", template="On {topic}: {{{prompt}}}"),
    )
    row = read_rows(open_workspace, info.id, limit=1)[0]
    assert row["prompt"][-1]["content"] == "On a: {Question 0}"
    assert info.steps[0].changed == 100
    with pytest.raises(DataError, match=r"did you mean topic"):
        apply_steps(
            open_workspace,
            questions.id,
            step(op="map_template", column="prompt", template="{topics}"),
        )


def test_shuffle_and_sample_are_the_same_for_the_same_seed(
    open_workspace: Workspace, questions: DatasetInfo
) -> None:
    steps = parse_steps([{"op": "shuffle", "seed": 1}, {"op": "sample", "rows": 30, "seed": 2}])
    first = apply_steps(open_workspace, questions.id, steps)
    order = numbers(open_workspace, first)
    assert len(order) == 30 and order != sorted(order)
    second = apply_steps(open_workspace, questions.id, steps)
    assert numbers(open_workspace, second) == order
    assert second.fingerprint == first.fingerprint != questions.fingerprint


def test_a_shuffle_of_many_rows_loses_none(tmp_path: Path) -> None:
    """More rows than are shuffled at once go through several files."""
    source, target = tmp_path / "rows.parquet", tmp_path / "shuffled.parquet"
    pq.write_table(pa.table({"text": [str(n) for n in range(2500)]}), source, row_group_size=1000)
    order = random.Random(1).sample(range(2500), 2500)
    reorder(source, order, target, at_once=700)
    assert pq.read_table(target)["text"].to_pylist() == [str(n) for n in order]


def test_accepted_rows_are_only_learned_from(
    open_workspace: Workspace, questions: DatasetInfo
) -> None:
    import hashlib

    made = [
        {
            "prompt": [{"role": "user", "content": "New?"}],
            "completion": [{"role": "assistant", "content": "Yes"}],
        }
    ]
    path = questions.folder / "drafts" / "accepted.jsonl"
    path.parent.mkdir()
    path.write_text("".join(json.dumps(row) + "\n" for row in made), encoding="utf-8")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    steps = parse_steps([{"op": "split", "eval_fraction": 0.5}])
    added = step(op="add_rows", file="drafts/accepted.jsonl", sha256=digest)
    info = apply_steps(open_workspace, questions.id, with_step(steps, *added))
    assert (info.counts.train, info.counts.eval) == (51, 50)
    assert (
        read_rows(open_workspace, info.id, offset=50, limit=1)[0]["completion"]
        == made[0]["completion"]
    )
    path.write_text("{}\n", encoding="utf-8")
    with pytest.raises(DataError, match="changed after they were accepted"):
        apply_steps(open_workspace, questions.id, with_step(steps, *added))
    outside = step(op="add_rows", file="../../secret.jsonl")
    with pytest.raises(DataError, match="not in the data set's folder"):
        apply_steps(open_workspace, questions.id, outside)
