"""Batches, padding and sorting must not change a number or an answer."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from core.tokens.prompts import end_of_answer_ids, prompt_ids
from core.tokens.tokenize import NO_LOSS, TokenizedRow, tokenize_row
from core.worker.evaluation import measure
from core.worker.evaluation.measure import answer_losses, choice_losses, write_answers
from tests.tiny_model import colour_rows, teach, tiny_adapter, tiny_model, tiny_tokenizer

QUESTIONS = ["a red cup", "hi", "what is the colour of the green hat on the door, please", "b"]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    torch.set_num_threads(1)
    return tiny_tokenizer()


def conversations() -> list[dict[str, Any]]:
    """Rows of very different lengths, one of them with two turns."""
    rows: list[dict[str, Any]] = [
        {
            "messages": [
                {"role": "user", "content": question},
                {"role": "assistant", "content": question[::-1] * (place + 1)},
            ]
        }
        for place, question in enumerate(QUESTIONS)
    ]
    rows[0]["messages"] += rows[1]["messages"]
    return rows


@pytest.mark.parametrize("batch_tokens", [4096, 60])
@pytest.mark.parametrize("adapted", [False, True])
def test_loss_is_that_of_each_row_alone(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch, batch_tokens: int, adapted: bool
) -> None:
    """By hand: -ln p of each answer token given all before it, one row at a time."""
    monkeypatch.setitem(measure._BATCH_TOKENS, "cpu", batch_tokens)
    model = tiny_adapter(tiny_model()) if adapted else tiny_model()
    rows = [tokenize_row(row, tokenizer, max_length=None) for row in conversations()]
    shares: list[float] = []
    found = answer_losses(model, rows, shares.append)
    for place, row in enumerate(rows):
        with torch.no_grad():
            logits = model(torch.tensor([row.input_ids])).logits[0].double()
        odds = logits.log_softmax(dim=-1)
        by_hand = -sum(
            float(odds[t - 1, label]) for t, label in enumerate(row.labels) if label != -100
        )
        assert found.sums[place] == pytest.approx(by_hand, rel=1e-5)
        assert found.tokens[place] == row.loss_tokens
    assert shares[-1] == 1.0


@pytest.mark.parametrize("logit_bytes", [measure.LOGIT_BYTES, 4 * 330 * 20])
def test_choices_behind_one_question_lose_what_each_does_alone(
    tokenizer: Any, logit_bytes: int
) -> None:
    """Read behind a question that is read once, all together or a few at a time."""
    model = tiny_adapter(tiny_model())
    before = prompt_ids([{"role": "user", "content": QUESTIONS[2]}], tokenizer)
    rows = []
    for choice in ["a", "green", "the hat is blue", "red"]:
        ids = tokenizer(choice, add_special_tokens=False)["input_ids"]
        labels = [NO_LOSS] * len(before) + ids
        rows.append(TokenizedRow(before + ids, labels, len(labels)))
    alone = answer_losses(model, rows, lambda share: None).sums
    assert choice_losses(model, rows, logit_bytes) == pytest.approx(alone, rel=1e-4)


@pytest.mark.parametrize("rows_at_once", [64, 3])
def test_batched_answers_are_those_of_each_prompt_alone(tokenizer: Any, rows_at_once: int) -> None:
    """Wrong left padding would show at once: the prompts differ in length."""
    model = tiny_model()
    asked = [prompt_ids([{"role": "user", "content": q}], tokenizer) for q in QUESTIONS]
    found = write_answers(
        model,
        tokenizer,
        asked,
        max_new_tokens=12,
        tell=lambda share: None,
        lengths=[9, 1, 5, 3],
        most_rows=rows_at_once,
    )
    ends = end_of_answer_ids(model, tokenizer)
    for answer, ids in zip(found, asked, strict=True):
        now = list(ids)
        with torch.no_grad():
            while len(now) < len(ids) + 12:
                now.append(int(model(torch.tensor([now])).logits[0, -1].argmax()))
                if now[-1] in ends:
                    break
        alone = tokenizer.decode(now[len(ids) :], skip_special_tokens=True).strip()
        assert answer == alone
        assert answer


def test_an_answer_stops_at_its_end_and_nothing_of_the_batch_hangs_on(tokenizer: Any) -> None:
    model = tiny_adapter(tiny_model(), size=0.0)
    assert teach(model, tokenizer, colour_rows()) < 0.1
    asked = [prompt_ids(row["messages"][:1], tokenizer) for row in colour_rows()]
    found = write_answers(model, tokenizer, asked, max_new_tokens=40, tell=lambda share: None)
    assert found == [row["messages"][1]["content"] for row in colour_rows()]


def test_a_stop_is_honoured_at_the_next_token(tokenizer: Any) -> None:
    class Enough(Exception):
        pass

    told: list[float] = []

    def tell(share: float) -> None:
        told.append(share)
        if len(told) == 4:
            raise Enough

    asked = [prompt_ids([{"role": "user", "content": "hi"}], tokenizer)]
    model = tiny_model()
    model.generation_config.eos_token_id = None
    with pytest.raises(Enough):
        write_answers(model, tokenizer, asked, max_new_tokens=200, tell=tell)
    assert told == sorted(told)
    assert told[-1] <= 0.05
