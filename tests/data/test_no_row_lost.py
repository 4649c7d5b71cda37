"""Whatever a file holds: read = train + eval + dropped, and every good row is kept."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from core.data.forms import FORMS
from core.data.prepare import import_dataset
from core.data.record import DatasetInfo
from core.data.registry import read_rows
from core.workspace import Workspace

MAPPINGS = {
    "text": {"text": "q"},
    "prompt-completion": {"prompt": "q", "completion": "a"},
    "instruction": {"instruction": "q", "output": "a"},
    "messages": {"messages": "m"},
    "sharegpt": {"conversations": "m"},
    "preference": {"prompt": "q", "chosen": "a", "rejected": "r"},
    "unpaired-preference": {"prompt": "q", "completion": "a", "label": "l"},
    "prompt-only": {"prompt": "q", "answer": "a"},
    "labelled-text": {"text": "{q} {a}", "label": "l"},
}
GOOD: dict[str, Any] = {"q": "good question", "a": "good answer", "r": "bad answer", "l": True}
GOOD["m"] = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]

texts = st.text(st.characters(codec="utf-8"), max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
cells = {name: values | st.just(good) for name, good in GOOD.items()}
rows = st.fixed_dictionaries({}, optional={**cells, "other": values})
lines = st.one_of(
    rows.map(lambda row: json.dumps(row).encode()),
    rows.map(lambda row: json.dumps(row, ensure_ascii=False).encode()),
    st.just(json.dumps(GOOD).encode()),
    values.map(lambda value: json.dumps(value).encode()),
    st.binary(max_size=12).map(lambda raw: raw.replace(b"\n", b"")),
    st.just(b'{"q": "torn'),
)


def imported(
    name: str,
    content: bytes,
    fraction: float,
    check: Callable[[Workspace, DatasetInfo], None],
    form: str = "prompt-completion",
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        workspace = Workspace.open(Path(folder) / "workspace", allowed=[folder])
        info = import_dataset(
            workspace, [path], form=form, mapping=MAPPINGS[form], eval_fraction=fraction
        )
        check(workspace, info)


def check_counts(workspace: Workspace, info: DatasetInfo, read: int) -> None:
    """`read` are the lines; one with several answers becomes as many pairs."""
    counts = info.counts
    pairs = info.form == "preference" and counts.read > read
    assert counts.read == counts.train + counts.eval + counts.dropped
    assert counts.read == read or pairs
    assert len(info.dropped) == counts.dropped
    for part, expected in (("train", counts.train), ("eval", counts.eval)):
        if expected:
            assert len(read_rows(workspace, info.id, part, limit=1000)) == expected
    lost = [drop.line for drop in info.dropped]
    assert lost == (sorted(lost) if pairs else sorted(set(lost))), "each row has its own line"


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=12, deadline=None)
@example(body=[json.dumps({"q": "one", "a": ["", "0"], "r": "worse"}).encode()], fraction=0.1)
@given(body=st.lists(lines, max_size=12), fraction=st.sampled_from([0.0, 0.1, 0.5]))
def test_json_lines(form: str, body: list[bytes], fraction: float) -> None:
    """A person with half-broken exports must be told of every row that is not used."""
    body = [json.dumps(GOOD).encode(), *body, json.dumps(GOOD).encode()]
    expected = sum(bool(line.strip(b" \t\r\n")) for line in body)
    good = sum(line == json.dumps(GOOD).encode() for line in body)

    def check(workspace: Workspace, info: DatasetInfo) -> None:
        check_counts(workspace, info, expected)
        assert info.counts.train + info.counts.eval >= good

    imported("t.jsonl", b"\n".join(body), fraction, check, form)


@settings(max_examples=30, deadline=None)
@given(body=st.lists(values | rows, max_size=12), indent=st.sampled_from([None, 2]))
def test_json_arrays(body: list[Any], indent: int | None) -> None:
    document = json.dumps([GOOD, *body], indent=indent, ensure_ascii=False).encode()
    imported("t.json", document, 0.2, lambda w, info: check_counts(w, info, len(body) + 1))


@settings(max_examples=30, deadline=None)
@given(body=st.lists(st.lists(texts, min_size=1, max_size=4), max_size=12))
def test_csv(body: list[list[str]]) -> None:
    """Ragged rows and line breaks in cells included."""
    body = [[cell.replace("\x00", "") for cell in row] for row in body]
    file = io.StringIO(newline="")
    writer = csv.writer(file, quoting=csv.QUOTE_ALL)
    writer.writerows([["q", "a"], ["good", "row"], *body])
    content = file.getvalue().encode()
    imported("t.csv", content, 0.2, lambda w, info: check_counts(w, info, len(body) + 1))
