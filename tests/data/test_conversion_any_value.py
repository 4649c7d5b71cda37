"""Whatever stands in a row: it becomes a row that can be kept, or says why it cannot."""

from __future__ import annotations

import copy
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.data.conversion import convert
from core.data.forms import FORMS, LONGEST_META, meta_of
from core.data.rowfile import META, SCHEMAS, RowWriter, read_slice
from core.data.values import Unusable

# Lone surrogates are in, as a file with broken escapes has them.
anything = st.text(st.characters(), max_size=6)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | anything
    | st.sampled_from(["", " ", "a", "b", "good", "true", "{", "[", "a|b"])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(anything, inner, max_size=3),
    max_leaves=5,
)
words = st.sampled_from(["a", "b", "Zürich\n", '{"x": 1}'])
call = st.fixed_dictionaries(
    {"function": st.fixed_dictionaries({"name": words, "arguments": st.just({"x": [1]})})},
    optional={"id": words},
)
called = st.tuples(
    st.fixed_dictionaries(
        {"role": st.just("assistant"), "tool_calls": st.lists(call, min_size=1, max_size=2)},
        optional={"content": st.none() | words},
    ),
    st.fixed_dictionaries(
        {"role": st.just("tool"), "content": words}, optional={"tool_call_id": words, "name": words}
    ),
    st.fixed_dictionaries({"role": st.just("assistant"), "content": words}),
)
told = st.tuples(st.fixed_dictionaries({"from": st.just("gpt"), "value": words}))
asked = st.tuples(st.fixed_dictionaries({"role": st.just("user"), "content": words}))
answers = (told | called).map(list)
question = st.tuples(st.just([]) | st.just([{"role": "system", "content": "S"}]), asked).map(
    lambda parts: [*parts[0], *parts[1]]
)
talks = st.tuples(
    question, answers, st.just([]) | st.tuples(asked, answers).map(lambda p: [*p[0], *p[1]])
).map(lambda parts: [turn for part in parts for turn in part])
SOUND: dict[str, st.SearchStrategy[Any]] = {
    "prompt": words | question | question.map(json.dumps),
    "completion": words | answers,
    "chosen": words | answers,
    "rejected": words.map(lambda text: text + "!"),
    "messages": talks | talks.map(json.dumps),
    "conversations": talks,
    "label": st.sampled_from([True, 0, "good", "false", 1.0]),
    "answer": words | st.integers() | st.lists(words, max_size=2),
    "history": st.lists(st.lists(words, min_size=2, max_size=2), max_size=2),
    "tools": st.lists(call, max_size=2) | st.just('[{"name": "find", "parameters": {}}]'),
}
"""What a field should hold; texts where nothing is said."""

others = st.dictionaries(anything, values, max_size=2)


@st.composite
def rows_of(draw: st.DrawFn, form: str) -> dict[str, Any]:
    """A row with all that it needs, in most cases with a value anywhere in it replaced."""
    fields = FORMS[form]
    row: dict[str, Any] = draw(others)
    row |= {name: draw(SOUND.get(name, words)) for name in fields.required}
    row |= {name: draw(SOUND.get(name, words)) for name in fields.optional if draw(st.booleans())}
    for _ in range(draw(st.integers(0, 2))):
        spoil(draw, row)
    return row


def spoil(draw: st.DrawFn, part: Any) -> None:
    """Puts any value, or nothing, in a place somewhere inside."""
    places = list(part) if isinstance(part, dict) else list(range(len(part)))
    if not places:
        return
    place = draw(st.sampled_from(places))
    if isinstance(part[place], (dict, list)) and draw(st.booleans()):
        part[place] = copy.deepcopy(part[place])
        spoil(draw, part[place])
    elif draw(st.booleans()):
        part[place] = draw(values)
    else:
        del part[place]


def mapping_of(data: st.DataObject, form: str) -> dict[str, str]:
    """Each field in the column of its name; some fields of text by a template."""
    mapping = {name: name for name in FORMS[form].fields}
    if data.draw(st.booleans()):
        for name in ("text", "completion", "output", "answer", "system"):
            if name in mapping:
                mapping[name] = f"{{{name}}} {{{FORMS[form].required[0]}}} {{{{x}}}}"
    if FORMS[form].settings:
        mapping["separator"] = data.draw(st.sampled_from(["|", ",", ""]))
    return mapping


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_row_is_kept_as_it_was_understood_or_has_a_reason(form: str, data: st.DataObject) -> None:
    """A single strange cell must not end an import of a million rows, and no row may change
    between what was converted and what is read back for training."""
    batch = data.draw(st.lists(rows_of(form), min_size=5, max_size=10))
    mapping = mapping_of(data, form)
    system_prompt = data.draw(st.sampled_from(["", "S"]))
    standard = FORMS[form].standard
    kept: list[dict[str, Any]] = []
    for row in batch:
        before = copy.deepcopy(row)
        try:
            result = convert(row, form, mapping, system_prompt)
        except Unusable as reason:
            assert str(reason).strip()
            str(reason).encode()  # it is shown, and written into the record
            continue
        assert row == before
        meta = meta_of(row, mapping)
        json.dumps(meta, allow_nan=False).encode()
        kept.append(result | ({META: meta} if meta else {}))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.parquet"
        with RowWriter(path, standard) as writer:
            for row in kept:
                assert set(row) <= set(SCHEMAS[standard].names)
                writer.add(row)
        assert read_slice(path, 0, len(kept) + 1) == kept


@pytest.mark.parametrize("form", FORMS)
def test_a_number_that_python_does_not_write_is_a_reason(form: str) -> None:
    huge = 10**5000
    mapping = {field: "x" for field in FORMS[form].required}
    for value in (huge, [huge], [{"role": "tool", "content": huge}], {"role": huge}):
        with pytest.raises(Unusable):
            convert({"x": value}, form, mapping)


def test_meta_keeps_what_the_mapping_leaves() -> None:
    """A person splits by a group or filters by a source that is no part of what is learned."""
    row = {
        "question": "q",
        "options": ["x"],
        "category": "math",
        "id": 7,
        "weight": 0.5,
        "checked": False,
        "note": "n" * (LONGEST_META + 1),
        "none": None,
        "nan": float("nan"),
        "inf": float("inf"),
        "huge": 2**80,
        "broken": "\ud800",
    }
    mapping = {"text": "{question} {options}", "label": "category"}
    assert meta_of(row, mapping) == {
        "question": "q",
        "id": 7,
        "weight": 0.5,
        "checked": False,
    }
    assert "question" not in meta_of(row, {"text": "question"})
