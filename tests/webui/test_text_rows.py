"""Rows as a run on plain text sees them: nothing is cut off, and the page says so."""

from __future__ import annotations

from typing import Any

import pytest

from core.estimate.summary import rows_of_trainer
from core.rules import parse_config
from core.tokens.lens import Lens
from webui.data import row_cards

LONG: dict[str, Any] = {
    "title": "",
    "tokens": [["Once", 5, True, False], [" upon", 6, True, False]],
    "cut_tokens": [[" a", 7, True, False]],
    "length": 2,
    "full_length": 3,
    "loss_tokens": 2,
    "error": None,
}
SEEN = {**LONG, "sides": [LONG], "label": "", "answer": None, "notes": []}


@pytest.mark.parametrize(("method", "words"), [("cpt", "next one"), ("mlm", "is hidden")])
def test_what_is_behind_a_row_is_learned_too(method: str, words: str) -> None:
    """A person would think that the ends of long texts are lost, and cut them up by hand."""
    page = row_cards.tokens([SEEN], [0], 2, "text", method)
    assert " has 2: 1 token more" in page and "not seen" not in page
    assert "behind the cut" not in page
    assert words in row_cards.legend("tiny", "its own template", 2, method)
    page = row_cards.tokens([SEEN], [0], 2, "text")
    assert "cut at 2: 1 token not seen" in page and "1 behind the cut" in page


def test_tokens_of_texts_that_go_on_are_counted_whole() -> None:
    """The summary would speak of rows that lose their end."""
    assert Lens.of(parse_config({"method": "cpt"})).whole.max_length is None
    assert Lens.of(parse_config({})).whole.max_length == 512
    lens = Lens.of(parse_config({"method": "mlm"}))
    assert Lens.read(lens.write()) == lens and lens.goes_on


def test_steps_count_blocks_and_not_texts() -> None:
    """The plan would promise a fifth of the steps, or five times as many."""
    counts = {"train_tokens": 4100, "train_rows": 20, "longest": 700}
    cpt = parse_config({"method": "cpt", "training.max_length": 512})
    assert rows_of_trainer(cpt, 20, counts) == 9
    assert rows_of_trainer(cpt, 10, counts) == 5  # with max_train_samples
    assert rows_of_trainer(cpt, 20, None) is None
    mlm = parse_config({"method": "mlm", "training.max_length": 512})
    assert rows_of_trainer(mlm, 20, counts) is None  # how many pieces is not known
    assert rows_of_trainer(mlm, 20, {**counts, "longest": 512}) == 20
    assert rows_of_trainer(parse_config({}), 20, counts) == 20
