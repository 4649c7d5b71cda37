"""Cutting long text: if this fails, text of a document is lost, or training cuts it off again."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from core.config.fields import field_specs
from core.data.steps.cut import CutText
from core.errors import DataError
from core.tokens.tokenize import tokenize_row
from tests.data.steps.stage import Outcome, play, setting, text
from tests.tokens.conftest import build_tokenizer

SENTENCE = "The cat sat on the mat and looked at the moon. "


def cut(rows: list[dict[str, Any]], folder: Path, **fields: Any) -> Outcome:
    return play(CutText(**fields), rows, "text", folder)


def words_of(outcome: Outcome) -> list[str]:
    return " ".join(row["text"] for row in outcome.rows).split()


@pytest.fixture(scope="session")
def byte_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level tokenizer, for which a sign can be several tokens."""
    folder = tmp_path_factory.mktemp("models") / "bytes"
    build_tokenizer(None).save_pretrained(str(folder))
    return folder


def test_each_field_says_what_it_is_and_what_it_does() -> None:
    for spec in field_specs(CutText):
        assert spec.help.endswith("."), spec.path


def test_pages_of_a_file_are_joined_and_each_block_says_whence_it_is(tmp_path: Path) -> None:
    rows = [text(SENTENCE * 3, file="a.pdf", page=page, title="A") for page in (1, 2, 3)]
    rows += [text(SENTENCE, file="b.txt")]
    outcome = cut(rows, tmp_path, unit="characters", size=200)
    assert outcome.dropped == []
    metas = [row["meta"] for row in outcome.rows]
    assert metas[0] == {"file": "a.pdf", "page": [1, 2], "title": "A", "block": 1}
    assert [meta["block"] for meta in metas] == [1, 2, 3, 1]
    assert metas[-1] == {"file": "b.txt", "block": 1}
    assert words_of(outcome) == (SENTENCE * 10).split()
    assert all(row["text"].endswith(".") for row in outcome.rows)


def test_a_block_ends_with_a_paragraph_rather_than_a_sentence(tmp_path: Path) -> None:
    words = SENTENCE * 3 + "\n\n" + SENTENCE * 3
    outcome = cut([text(words)], tmp_path, unit="characters", size=180)
    assert outcome.rows[0]["text"] == (SENTENCE * 3).strip()


def test_rows_without_a_file_are_joined_only_when_all_are(tmp_path: Path) -> None:
    rows = [text("one two"), text("three four"), text("five", part="eval")]
    assert [row["text"] for row in cut(rows, tmp_path, unit="characters").rows] == [
        "one two",
        "three four",
        "five",
    ]
    outcome = cut(rows, tmp_path, unit="characters", join="all", separator=" | ")
    assert [(row["text"], row["part"]) for row in outcome.rows] == [
        ("one two | three four", "train"),
        ("five", "eval"),
    ]


def test_joined_documents_have_the_models_end_of_text_between_them(
    word_model: Path, tmp_path: Path
) -> None:
    rows = [text("one"), text("two")]
    outcome = cut(rows, tmp_path, model=str(word_model), join="all")
    assert outcome.rows[0]["text"] == "one</s>two"


def test_a_block_and_its_end_of_text_token_fit_into_its_size(
    byte_model: Path, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(byte_model))
    rng = random.Random(3)
    letters = "abc déß 日本語\n. "
    documents = [
        text("".join(rng.choice(letters) for _ in range(rng.randrange(900)))) for _ in range(12)
    ]
    documents.append(text("日本語" * 200))
    for exact in (False, True):
        outcome = cut(
            documents,
            tmp_path,
            model=str(byte_model),
            size=64,
            whole_sentences=not exact,
            join="all",
            separator="\n\n",
        )
        assert len(outcome.rows) > 30
        for row in outcome.rows:
            tokens = tokenize_row(row, tokenizer, max_length=64)
            assert not tokens.is_cut, row["text"]
        joined = "".join("".join(row["text"] for row in outcome.rows).split())
        given_words = [
            d["text"]
            for i, d in enumerate(documents)
            if ("train", i) not in {(p, j) for p, j, _ in outcome.dropped}
        ]
        assert joined == "".join("".join(given_words).split())


def test_overlap_repeats_the_end_of_a_block(word_model: Path, tmp_path: Path) -> None:
    words = " ".join(f"w{n}" for n in range(100))
    outcome = cut(
        [text(words)], tmp_path, model=str(word_model), size=21, overlap=5, whole_sentences=False
    )
    blocks = [row["text"].split() for row in outcome.rows]
    assert [len(block) for block in blocks[:-1]] == [20] * (len(blocks) - 1)
    for block, following in zip(blocks, blocks[1:], strict=False):
        assert following[:5] == block[-5:]
    assert [*blocks[0], *(word for block in blocks[1:] for word in block[5:])] == words.split()


def test_what_is_cut_does_not_depend_on_how_a_document_came(tmp_path: Path) -> None:
    """A file read page by page must give the blocks it gives as one row."""
    pages = [(SENTENCE * 7).strip() for _ in range(40)]
    as_pages = [text(page, file="a") for page in pages]
    fields: dict[str, Any] = {"unit": "characters", "size": 300}
    whole = cut([text("\n\n".join(pages), file="a")], tmp_path, **fields)
    assert cut(as_pages, tmp_path, **fields).rows == whole.rows
    assert len(whole.rows) > 20


@given(
    documents=st.lists(st.text("ab .\n\u00e9\u4f60", max_size=120), max_size=6),
    size=st.integers(16, 40),
    overlap=st.integers(0, 8),
    join=st.sampled_from(["file", "all", "no"]),
)
@settings(deadline=None, max_examples=80)
def test_exact_blocks_are_never_too_long_and_put_together_are_the_text(
    documents: list[str],
    size: int,
    overlap: int,
    join: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    rows = [text(words, file="f") for words in documents]
    outcome = cut(
        rows,
        tmp_path_factory.getbasetemp(),
        unit="characters",
        size=size,
        overlap=overlap,
        join=join,
        whole_sentences=False,
    )
    assert all(0 < len(row["text"]) <= size for row in outcome.rows)
    lost = {index for _, index, _ in outcome.dropped}
    assert lost == {i for i, words in enumerate(documents) if not words.strip()}
    kept = [words for words in documents if words.strip()]
    if join != "no" and overlap == 0:
        together = "".join(row["text"] for row in outcome.rows)
        assert "".join(together.split()) == "".join("".join(kept).split())


@given(documents=st.lists(st.text("ab .\n\u00e9\u4f60", max_size=200), max_size=5))
@settings(deadline=None, max_examples=60)
def test_blocks_at_sentences_lose_nothing_but_white_space(
    documents: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    rows = [text(words, file="f") for words in documents]
    outcome = cut(rows, tmp_path_factory.getbasetemp(), unit="characters", size=24)
    together = "".join(row["text"] for row in outcome.rows)
    assert "".join(together.split()) == "".join("".join(documents).split())
    assert all(len(row["text"]) <= 24 for row in outcome.rows)


def test_a_long_document_is_cut_in_time(tmp_path: Path) -> None:
    outcome = cut([text(SENTENCE * 60_000)], tmp_path, unit="characters", size=2000)
    assert len(words_of(outcome)) == 60_000 * len(SENTENCE.split())


def test_settings_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="more than half"):
        CutText(unit="characters", size=100, overlap=60).start(setting("text", tmp_path))
    with pytest.raises(DataError, match="not on this machine"):
        CutText(model="nowhere").start(setting("text", tmp_path))
    folder = tmp_path / "model"
    folder.mkdir()
    with pytest.raises(DataError, match="no tokenizer.json"):
        CutText(model=str(folder)).start(setting("text", tmp_path))


def test_a_model_without_an_end_of_text_token_gets_a_blank_line(
    word_model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "plain"
    folder.mkdir()
    Tokenizer.from_file(str(word_model / "tokenizer.json")).save(str(folder / "tokenizer.json"))
    rows = [text("one"), text("two")]
    assert cut(rows, tmp_path, model=str(folder), join="all").rows[0]["text"] == "one\n\ntwo"
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<e>"}))
    assert cut(rows, tmp_path, model=str(folder), join="all").rows[0]["text"] == "one<e>two"
