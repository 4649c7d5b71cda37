"""Whatever steps a person takes: every row is kept or counted, the order of work changes nothing,
and every step can be gone back on."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.data.build import setting_of
from core.data.pipeline import Files, Pipeline
from core.data.prepare import import_dataset
from core.data.record import PARTS, DatasetInfo, StepResult
from core.data.registry import load_dataset_info, read_rows
from core.data.rowfile import fingerprint
from core.data.steps import parse_steps
from core.data.versions import apply_steps, imported_files, try_in_order, undo
from core.errors import DataError
from core.workspace import Workspace

WORDS = st.sampled_from(["tea", "law", "I cannot help with that", "mail me at a@b.org", "Ã¤", " "])
ROW = st.fixed_dictionaries(
    {
        "text": st.builds(
            lambda words, n: f"{' '.join(words)} {n}", st.lists(WORDS), st.integers(0, 9)
        ),
        "label": st.sampled_from("xyz"),
        "n": st.integers(0, 5),
    }
)
SEED = st.integers(0, 3)
FILTER = st.one_of(
    st.builds(lambda n: {"op": "select_rows", "condition": f"n < {n}"}, st.integers(1, 6)),
    st.builds(lambda n: {"op": "select_rows", "rows": f"1-{n}"}, st.integers(1, 30)),
    st.builds(lambda n: {"op": "drop_length", "unit": "words", "minimum": n}, st.integers(1, 3)),
    st.builds(lambda n, s: {"op": "sample", "rows": n, "seed": s}, st.integers(1, 20), SEED),
    st.builds(lambda n, s: {"op": "cap_per_class", "most": n, "seed": s}, st.integers(1, 9), SEED),
    st.sampled_from(
        [
            {"op": "drop_empty"},
            {"op": "drop_duplicates"},
            {"op": "drop_near_duplicates"},
            {"op": "drop_label_conflicts"},
            {"op": "broken_encoding", "action": "drop"},
            {"op": "personal_data", "action": "drop"},
            {"op": "drop_leaks"},
            {"op": "drop_leaks", "remove_from": "train", "near": False},
        ]
    ),
)
OTHER = st.one_of(
    st.builds(lambda s: {"op": "shuffle", "seed": s}, SEED),
    st.builds(lambda s: {"op": "split", "test_fraction": 0.2, "seed": s}, SEED),
    st.builds(lambda s: {"op": "split", "stratify": True, "seed": s}, SEED),
    st.sampled_from(
        [
            {"op": "split", "eval_fraction": 0.3, "group_by": "n"},
            {"op": "rename_labels", "names": {"x": "y"}},
            {"op": "map_template", "column": "text", "template": "{label}: {text}"},
            {"op": "broken_encoding", "action": "mend"},
            {"op": "personal_data", "action": "mask"},
            {"op": "select_columns", "columns": ["n"]},
        ]
    ),
)
ROWS = st.lists(ROW, min_size=1, max_size=40)
RECIPE = st.lists(st.one_of(FILTER, OTHER), min_size=1, max_size=4)
KEEPS_ALL = ("shuffle", "split", "rename_labels", "map_template", "select_columns")
QUICK = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@contextmanager
def data_set(rows: list[dict[str, Any]]) -> Iterator[tuple[Workspace, DatasetInfo]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        workspace = Workspace.open(Path(folder) / "workspace", allowed=[folder])
        mapping = {"text": "text", "label": "label"}
        yield (
            workspace,
            import_dataset(
                workspace, [path], form="labelled-text", mapping=mapping, eval_fraction=0
            ),
        )


def run(
    workspace: Workspace, info: DatasetInfo, files: Files, specs: list[Any]
) -> tuple[Files, list[StepResult]] | None:
    """The rows after some steps and what each did; None where none was left."""
    scratch = Path(tempfile.mkdtemp(dir=info.folder))
    pipeline = Pipeline(info.form, parse_steps(specs), setting_of(workspace, info), scratch)
    try:
        return pipeline.run(files), pipeline.results
    except DataError as error:
        assert "no row is left" in error.message
        return None


def print_of(info: DatasetInfo, files: Files) -> str:
    return fingerprint(info.form, [(part, files[part]) for part in PARTS if part in files])


@QUICK
@given(ROWS, RECIPE)
def test_steps_together_do_what_they_do_one_after_the_other(
    rows: list[dict[str, Any]], specs: list[Any]
) -> None:
    """Steps that share a pass over the rows must not get in each other's way, and what a trial
    says must be what comes."""
    with data_set(rows) as (workspace, info):
        together = run(workspace, info, imported_files(info), specs)
        files, results = imported_files(info), []
        for spec in specs:
            one = run(workspace, info, files, [spec])
            if one is None:
                assert together is None
                return
            files = one[0]
            results += one[1]
        assert together is not None
        assert print_of(info, together[0]) == print_of(info, files)
        assert together[1] == results
        tried = try_in_order(workspace, info.id, parse_steps(specs))
        numbers = {"rows_in", "rows_out", "dropped", "changed", "reasons"}
        assert [one.model_dump(include=numbers) for one in tried] == [
            one.model_dump(include=numbers) for one in results
        ]


@QUICK
@given(ROWS, RECIPE)
def test_each_row_is_kept_or_counted_and_every_version_comes_back(
    rows: list[dict[str, Any]], specs: list[Any]
) -> None:
    with data_set(rows) as (workspace, first):
        assert first.counts.train == len(rows)
        try:
            changed = apply_steps(workspace, first.id, parse_steps(specs))
        except DataError as error:
            assert "no row is left" in error.message
            assert load_dataset_info(workspace, first.id) == first
            return
        left = len(rows)
        for result in changed.steps:
            assert result.rows_in == left and len(result.listed) == result.dropped
            assert result.rows_in == result.rows_out + result.dropped == left
            assert sum(result.reasons.values()) == result.dropped
            assert result.step["op"] not in KEEPS_ALL or not result.dropped
            left = result.rows_out
        counts = changed.counts
        assert left == counts.train + counts.eval + counts.test
        for part in changed.parts:
            there = read_rows(workspace, first.id, part, limit=1000)
            assert len(there) == getattr(counts, part)
        assert undo(workspace, first.id).fingerprint == first.fingerprint
        again = apply_steps(workspace, first.id, parse_steps(specs))
        assert again.fingerprint == changed.fingerprint and again.version == 3
        assert undo(workspace, first.id).version == first.version
