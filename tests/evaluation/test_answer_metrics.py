"""Numbers counted from answers, each against what its definition or its library says."""

from __future__ import annotations

import json

import pytest
from sacrebleu.metrics.bleu import BLEU

from core.errors import DataError
from core.evaluation.answers import answer_metrics
from core.evaluation.answers.metric import Answered
from core.evaluation.answers.regex_match import check_pattern
from core.evaluation.answers.rouge_l import longest_common
from core.evaluation.answers.tool_calls import calls_in
from core.evaluation.metrics import METRICS, Written, numbers_of
from core.evaluation.scoring import score_answers

TEXTS = [
    "The cat sat on the mat today",
    "A dog ran over the green hill",
    "Rain fell all night long",
]


def value(key: str, answers: list[str], expected: list[str], pattern: str = "") -> float:
    rows = Answered(answers, expected, pattern=pattern)
    metric = answer_metrics()[key]
    assert metric.fits(rows)
    return metric.count(rows).value


def fits(key: str, expected: list[str], **how: object) -> bool:
    return answer_metrics()[key].fits(Answered([""] * len(expected), expected, **how))


def test_what_does_not_matter_is_no_difference() -> None:
    same = ["The cat, sat!", "ＡＢＣ １２", "yes"]
    assert value("normalized_match", same, ["cat sat", "abc 12", "no"]) == pytest.approx(2 / 3)


def test_bleu_and_chrf_are_those_of_sacrebleu() -> None:
    answers = ["The cat sat on a mat today", *TEXTS[1:]]
    known = BLEU(tokenize="13a").corpus_score(answers, [TEXTS]).score / 100
    assert value("bleu", answers, TEXTS) == pytest.approx(known)
    assert value("bleu", TEXTS, TEXTS) == pytest.approx(1)
    assert value("chrf", TEXTS, TEXTS) == pytest.approx(1)
    assert 0 < value("chrf", ["something else"] * 3, TEXTS) < 0.3


def test_chinese_is_split_into_characters() -> None:
    """With the splitting of European languages a Chinese sentence is one word: 0 or 1, no more."""
    expected = ["今天的天气非常好，我们去公园。", "他昨天买了一本关于历史的书。"]
    answers = ["今天的天气非常好，我们去学校。", "他昨天买了一本关于科学的书。"]
    assert 0.5 < value("bleu", answers, expected) < 1
    assert 0.7 < value("rouge_l", answers, expected) < 1
    assert value("rouge_l", expected, expected) == 1


def test_rouge_l_is_the_longest_common_subsequence() -> None:
    assert longest_common(list("abcde"), list("xaybzd")) == 3
    assert value("rouge_l", ["police kill the gunman"] * 2, ["police killed the gunman"] * 2) == (
        pytest.approx(0.75)
    )


def test_intervals_hold_their_number_and_are_the_same_again() -> None:
    answers = ["The cat sat", *TEXTS[1:]]
    for key, metric in answer_metrics().items():
        rows = Answered(answers, TEXTS, pattern="cat")
        if not metric.fits(rows):
            continue
        first, again = metric.count(rows), metric.count(rows)
        assert first == again, key
        assert first.low is not None and first.high is not None, key
        assert first.low <= first.high, key


def test_numbers_are_taken_from_the_end() -> None:
    expected = ["It is 12.", "#### 1,200", "50 %"]
    assert value("numeric_match", ["7 + 5 = 12", "1200", "about 49"], expected) == (
        pytest.approx(2 / 3)
    )
    assert not fits("numeric_match", TEXTS)


def test_formulas_are_compared_by_what_they_come_to() -> None:
    expected = [r"\frac{3}{2}", r"So it is \boxed{12}.", "$(x+1)^2$", "所以是 3/4。"]
    right = ["It is 1.5.", "12", "$x^2 + 2x + 1$", "答案是 0.75。"]
    assert fits("numeric_match", expected)
    assert value("numeric_match", right, expected) == 1.0
    assert value("numeric_match", ["2", "13", "$x^2 + 1$", ""], expected) == 0.0


def test_a_pattern_is_looked_for() -> None:
    assert value("regex_match", ["order 12", "none"], ["", "x"], r"\d+") == 0.5
    assert not fits("regex_match", TEXTS)
    check_pattern(r"\d+")
    with pytest.raises(DataError, match="no regular expression"):
        check_pattern("(")


def test_calls_are_compared_as_json() -> None:
    call = {"name": "weather", "arguments": {"city": "Rome", "days": 2}}
    marked = f"<tool_call>\n{json.dumps(call)}\n</tool_call>"
    turned = {"function": {"arguments": '{"days": 2, "city": "Rome"}', "name": "weather"}}
    assert calls_in(json.dumps(turned)) == calls_in(marked)
    wrong = marked.replace("Rome", "Oslo")
    answers = [json.dumps(turned), wrong, "It is warm.", f"{marked}{marked}"]
    assert value("tool_calls", answers, [marked] * 4) == 0.25
    assert calls_in("<tool_call>{broken") == calls_in("[1, 2]") == calls_in("null") == []
    assert not fits("tool_calls", TEXTS)


def test_how_answers_go_wrong() -> None:
    loop = "the same four words " * 8
    assert value("repetitive", [loop, TEXTS[0]], TEXTS[:2]) == 0.5
    assert value("empty", [" ", "x"], TEXTS[:2]) == 0.5
    assert value("length_ratio", [loop, ""], ["one two", "one two"]) == pytest.approx(8)


@pytest.mark.parametrize("key", ["bleu", "chrf", "rouge_l"])
def test_labels_and_json_have_no_n_grams(key: str) -> None:
    assert not fits(key, ["yes", "no", "no"])
    assert not fits(key, ['{"a": "a long sentence of words"}'] * 3, by_fields=True)
    assert fits(key, TEXTS)


def test_a_writer_has_the_numbers_that_fit_and_no_others() -> None:
    scored = score_answers(TEXTS, TEXTS, [])
    found = numbers_of(Written(None, None, scored, (), TEXTS, "", 12.5))
    assert found["tokens_per_second"].value == 12.5
    assert {"bleu", "chrf", "rouge_l", "exact_match", "empty"} <= found.keys()
    assert not {"eval_loss", "numeric_match", "regex_match", "tool_calls"} & found.keys()
    assert list(found) == [key for key in METRICS if key in found]


def test_every_number_can_be_written_as_json() -> None:
    """numpy's own cannot: an evaluation of sentences would fail at its very end."""
    answers = ["The cat sat on a mat today", *TEXTS[1:]]
    found = numbers_of(Written(None, None, score_answers(answers, TEXTS, []), (), TEXTS, "", 1.0))
    ends = [end for one in found.values() for end in (one.value, one.low, one.high)]
    assert {type(end) for end in ends} <= {float, type(None)}


def test_strange_answers_break_nothing() -> None:
    strange = ["", "\x00", "\ud83d\ude00" * 50, "<script>", '{"name": [}', "((((", "٣٤"]
    rows = Answered(strange, strange, pattern=".")
    for metric in answer_metrics().values():
        metric.count(rows)
    METRICS["bleu"].title  # noqa: B018 - it can be said
