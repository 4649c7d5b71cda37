"""Statistics: if these fail, a person picks a max_length that cuts the answers off, or waits for a
count that was made before."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.config.sections import LearnedTurns
from core.data.record import Counts, DatasetInfo
from core.data.rowfile import RowWriter
from core.tokens.lens import Lens
from core.tokens.statistics import (
    Tally,
    distribution,
    read_statistics,
    suggested_max_length,
    summarize,
)
from core.worker import tokenizers as tokens_worker
from core.workspace import Workspace
from tests.tokens.conftest import CHATML, build_tokenizer

SET = "20260101-0000-small-set"


def statistics(
    root: Path, model: Path, max_length: int | None, learn: LearnedTurns = "answers", **how: Any
) -> dict[str, Any]:
    """What a worker says of the data set."""
    lens = Lens(str(model), max_length, learn)
    return tokens_worker.dataset_statistics(Workspace(root, (model,)), SET, lens, **how)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "chat"
    build_tokenizer(CHATML).save_pretrained(str(folder))
    (folder / "config.json").write_text(json.dumps({"max_position_embeddings": 4096}))
    return folder


def turns(*contents: str) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": words} for i, words in enumerate(contents)]


def answer(words: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": words}]


def prepared(root: Path, form: str, rows: list[dict[str, Any]]) -> DatasetInfo:
    """A data set of one version on disk."""
    folder = Workspace.open(root).datasets / SET
    (folder / "versions" / "1").mkdir(parents=True)
    with RowWriter(folder / "versions" / "1" / "train.parquet", form) as writer:
        for row in rows:
            writer.add(row)
    info = DatasetInfo(
        id=SET,
        name="small",
        form=form,
        version=1,
        fingerprint="f" * 64,  # type: ignore[arg-type]
        counts=Counts(read=len(rows), train=len(rows)),
    )
    info.save(folder)
    info.folder = folder
    return info


QUESTION, SHORT, LONG = "What is the capital?", "Paris.", "The capital of France is Paris. " * 20


def test_prompt_and_answer_are_counted_with_the_models_own_tokenizer(
    workspace: Path, model: Path
) -> None:
    rows = [
        {"messages": turns(QUESTION, SHORT)},
        {"messages": turns(QUESTION, SHORT, "And?", LONG)},
        {"messages": turns(QUESTION, SHORT)},
    ]
    info = prepared(workspace, "messages", rows)
    found = statistics(workspace, model, 64)
    tokenizer = build_tokenizer(CHATML)
    whole = [
        len(tokenizer.apply_chat_template(r["messages"], tokenize=True)["input_ids"]) for r in rows
    ]
    lengths = found["lengths"]
    assert lengths["total"]["percentiles"]["max"] == max(whole)
    assert lengths["total"]["percentiles"]["50"] == sorted(whole)[1]
    assert found["cut_rows"] == sum(length > 64 for length in whole) == 1
    assert found["cut_tokens"] == max(whole) - 64
    assert found["epoch"]["tokens"] == sum(min(length, 64) for length in whole)
    assert found["epoch"]["packed_rows"] == -(-found["epoch"]["tokens"] // 64)
    assert lengths["prompt"]["mean"] + lengths["answer"]["mean"] == pytest.approx(
        lengths["total"]["mean"], abs=0.11
    )
    assert found["turns"] == [[2, 2], [4, 1]]
    assert found["duplicates"] == 1 and found["rows"] == 3 and found["complete"]
    assert found["model_limit"] == 4096
    assert info.parts == ("train",)


@pytest.mark.parametrize(
    ("form", "row", "names"),
    [
        ("text", {"text": LONG}, {"total"}),
        ("labelled-text", {"text": LONG, "labels": ["a", "b"]}, {"total"}),
        ("prompt-only", {"prompt": turns(QUESTION), "answer": "Paris"}, {"total"}),
        (
            "prompt-completion",
            {"prompt": turns(QUESTION), "completion": answer(LONG)},
            {"total", "prompt", "answer"},
        ),
        (
            "unpaired-preference",
            {"prompt": turns(QUESTION), "completion": answer(LONG), "label": False},
            {"total", "prompt", "answer"},
        ),
        (
            "preference",
            {"prompt": turns(QUESTION), "chosen": answer(LONG), "rejected": answer(SHORT)},
            {"total", "prompt", "chosen", "rejected"},
        ),
    ],
)
def test_every_form_is_counted(
    form: str, row: dict[str, Any], names: set[str], workspace: Path, model: Path
) -> None:
    prepared(workspace, form, [row] * 3)
    found = statistics(workspace, model, 128)
    assert set(found["lengths"]) == names
    assert all(sum(one["counts"]) == 3 for one in found["lengths"].values())
    assert found["duplicates"] == 2 and found["unusable_rows"] == 0
    assert found["suggested"]["value"] == (256 if "answer" not in row else 128)
    assert found["languages"] == [["en", 3]]
    if form == "labelled-text":
        assert found["labels"] == [["a", 3], ["b", 3]]
    if form == "unpaired-preference":
        assert found["labels"] == [["undesirable", 3]]
    if form == "preference":
        chosen, rejected = (found["lengths"][name]["mean"] for name in ("chosen", "rejected"))
        assert chosen > 10 * rejected
        assert found["cut_rows"] == 3
    json.dumps(found)


def test_rows_whose_answer_is_cut_away_are_counted_as_teaching_nothing(
    workspace: Path, model: Path
) -> None:
    rows = [
        {"prompt": turns(LONG), "completion": answer(SHORT)},
        {"prompt": turns(QUESTION), "completion": answer(LONG)},
    ]
    prepared(workspace, "prompt-completion", rows)
    assert statistics(workspace, model, 64)["rows_without_loss"] == 1
    assert statistics(workspace, model, None)["rows_without_loss"] == 0
    assert statistics(workspace, model, 64, "everything")["rows_without_loss"] == 0


def test_what_was_counted_is_read_again_without_a_tokenizer_at_any_max_length(
    workspace: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = prepared(workspace, "text", [{"text": LONG}] * 4)
    place = Workspace.open(workspace)
    assert read_statistics(place, info, Lens("", 64), str(model)) is None
    at_64 = statistics(workspace, model, 64)
    at_32 = statistics(workspace, model, 32)
    assert len(list(info.version_folder.glob("statistics-*.json"))) == 1
    (info.version_folder / "train.parquet").unlink()
    assert read_statistics(place, info, Lens("", 64), str(model)) == at_64
    assert read_statistics(place, info, Lens("", 32), str(model)) == at_32
    assert at_32["cut_tokens"] == at_64["cut_tokens"] + 4 * 32
    assert read_statistics(place, info, Lens("", 64, chat_template="chatml"), str(model)) is None


def test_a_damaged_file_of_counts_is_counted_anew(workspace: Path, model: Path) -> None:
    info = prepared(workspace, "text", [{"text": SHORT}])
    first = statistics(workspace, model, 64)
    (path,) = info.version_folder.glob("statistics-*.json")
    path.write_text('{"form": "text", "rows": ')
    assert statistics(workspace, model, 64) == first


def test_a_first_look_takes_rows_from_the_whole_set_and_is_not_kept(
    workspace: Path, model: Path
) -> None:
    rows = [{"text": f"row {n} " + ("long " * 50 if n >= 2500 else "")} for n in range(5000)]
    info = prepared(workspace, "text", rows)
    told: list[float] = []
    found = statistics(workspace, model, 512, max_rows=2000, progress=told.append)
    assert found["rows"] == 2000 and found["rows_total"] == 5000 and not found["complete"]
    assert told == sorted(told) and told[-1] == 1.0
    assert found["lengths"]["total"]["percentiles"]["max"] > 50, "the long half is seen too"
    assert not list(info.version_folder.glob("statistics-*.json"))
    full = statistics(workspace, model, 512)
    assert full["complete"]
    assert found["epoch"]["tokens"] == pytest.approx(full["epoch"]["tokens"], rel=0.05)


def test_rows_that_a_template_refuses_are_counted_with_the_reason(
    workspace: Path, model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "strict"
    template = "{% if messages|length > 2 %}{{ raise_exception('too many') }}{% endif %}" + CHATML
    build_tokenizer(template).save_pretrained(str(folder))
    rows = [{"messages": turns(QUESTION, SHORT)}, {"messages": turns("a", "b", "c", "d")}]
    prepared(workspace, "messages", rows)
    found = statistics(workspace, folder, 64)
    assert found["unusable_rows"] == 1 and "too many" in found["unusable_reason"]
    assert sum(found["lengths"]["total"]["counts"]) == 1


def tally(lengths: dict[int, int], form: str = "messages", limit: int | None = None) -> Tally:
    rows = sum(lengths.values())
    counts = Counter(lengths)
    return Tally(
        form=form, rows=rows, rows_total=rows, limit=limit, lengths={"total": counts}, sides=counts
    )


def test_the_suggested_max_length_keeps_nearly_all_and_never_passes_the_models_limit() -> None:
    suggested = suggested_max_length(tally({100: 999, 3000: 1}))
    assert suggested and suggested["value"] == 2048
    assert suggested["reason"] == "It keeps 99.9 % of the rows whole and 99.1 % of the tokens."
    suggested = suggested_max_length(tally({90: 10}))
    assert suggested and suggested["value"] == 128
    assert suggested["reason"] == "No row is longer than 90 tokens."
    suggested = suggested_max_length(tally({100: 50, 5000: 50}, limit=2000))
    assert suggested and suggested["value"] == 2000
    assert suggested["reason"].startswith("The model reads no more than 2,000 tokens; 50 %")
    assert suggested_max_length(tally({})) is None
    # What no length makes whole does not ask for the longest.
    suggested = suggested_max_length(tally({76: 30, 24000: 1}, limit=8192))
    assert suggested is not None and suggested["value"] == 128
    assert "8,192 tokens that the model reads" in suggested["reason"]


def test_of_plain_text_only_the_tokens_count() -> None:
    lengths = {100: 900, 300: 100}
    for form, value in (("messages", 512), ("text", 512)):
        suggested = suggested_max_length(tally(lengths, form))
        assert suggested and suggested["value"] == value
    lengths = {250: 950, 260: 50}
    for form, value in (("messages", 512), ("text", 256)):
        suggested = suggested_max_length(tally(lengths, form))
        assert suggested and suggested["value"] == value


@given(st.dictionaries(st.integers(0, 200_000), st.integers(1, 1000), min_size=1, max_size=60))
def test_a_histogram_holds_every_row_and_few_bins(lengths: dict[int, int]) -> None:
    counts = Counter(lengths)
    found = distribution(counts)
    edges, bins = found["edges"], found["counts"]
    assert len(edges) == len(bins) + 1 <= 40
    assert edges == sorted(set(edges))
    assert sum(bins) == counts.total()
    assert edges[-1] > max(counts)
    assert edges[0] <= max(min(counts), 1)
    figures = [found["percentiles"][name] for name in ("50", "90", "95", "99", "max")]
    assert figures == sorted(figures) and figures[-1] == max(counts)
    half = sum(n for length, n in counts.items() if length <= figures[0])
    assert half * 2 >= counts.total()


@given(
    st.dictionaries(st.integers(1, 5000), st.integers(1, 50), min_size=1, max_size=30),
    st.integers(1, 6000),
)
def test_tokens_after_the_cut_and_tokens_lost_are_all_tokens(
    lengths: dict[int, int], max_length: int
) -> None:
    found = summarize(tally(lengths), max_length)
    total = sum(length * n for length, n in lengths.items())
    assert found["epoch"]["tokens"] + found["cut_tokens"] == total
    assert found["cut_rows"] == sum(n for length, n in lengths.items() if length > max_length)
