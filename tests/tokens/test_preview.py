"""What the page shows of a row is what the trainer gets."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.data.prepare import import_dataset
from core.data.record import Counts, DatasetInfo
from core.data.registry import load_dataset_info, read_rows
from core.data.rowfile import RowWriter
from core.errors import ModelError
from core.tokens.counts import token_counts
from core.tokens.learn import EVERYTHING
from core.tokens.lens import Lens
from core.tokens.tokenize import NO_LOSS, tokenize_rows
from core.worker.tokenizers import open_tokenizer, preview_rows
from core.workspace import Workspace
from tests.tokens.conftest import CHATML
from tests.tokens.template_rows import TOOLS, call, tokenizer_with_marks

MAX_LENGTH = 60
TOOL_CALLS = json.dumps([call("weather", city="Paris")])


def count(workspace: Workspace, dataset: str, lens: Lens, **how: Any) -> dict[str, Any]:
    info = load_dataset_info(workspace, dataset)
    return token_counts(info, open_tokenizer(workspace, lens), lens, **how)


@pytest.fixture
def model(tmp_path: Path, tokenizer_for: Callable[[str | None], Any]) -> str:
    tokenizer_for(CHATML).save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


@pytest.fixture
def dataset(open_workspace: Workspace, tmp_path: Path) -> str:
    rows = [{"prompt": f"What is {n}?", "answer": f"It is {n}."} for n in range(1, 1201)]
    rows[3]["answer"] = "It is long. " * 40
    rows[5]["prompt"] = "Is it long? " * 40
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return import_dataset(open_workspace, [path], eval_fraction=0.0).id


def test_the_preview_shows_what_is_trained(
    open_workspace: Workspace, dataset: str, model: str, tokenizer_for: Callable[[str], Any]
) -> None:
    lens = Lens(model, MAX_LENGTH, system_prompt="Short.")
    shown = preview_rows(open_workspace, dataset, lens, "train", [0, 3, 5, 5000])
    assert json.loads(json.dumps(shown)) == shown
    trained, _ = tokenize_rows(
        read_rows(open_workspace, dataset, limit=1),
        tokenizer_for(CHATML),
        max_length=MAX_LENGTH,
        system_prompt="Short.",
    )
    assert [token for _, token, *_ in shown[0]["tokens"]] == trained[0].input_ids
    assert [loss for _, _, loss, _ in shown[0]["tokens"]] == [
        label != NO_LOSS for label in trained[0].labels
    ]
    assert shown[0]["loss_tokens"] == trained[0].loss_tokens and shown[0]["error"] is None
    assert shown[1]["length"] == MAX_LENGTH < shown[1]["full_length"]
    assert "max_length" in shown[2]["error"] and shown[2]["tokens"]
    assert "no row 5000" in shown[3]["error"]


def test_counts_are_those_of_all_rows(
    open_workspace: Workspace, dataset: str, model: str, tokenizer_for: Callable[[str], Any]
) -> None:
    """Steps and cost are planned with these numbers."""
    heard: list[float] = []
    counts = count(open_workspace, dataset, Lens(model, MAX_LENGTH), progress=heard.append)
    usable, unusable = tokenize_rows(
        read_rows(open_workspace, dataset, limit=1200),
        tokenizer_for(CHATML),
        max_length=MAX_LENGTH,
    )
    assert [index for index, _ in unusable] == [5]
    assert counts["train_rows"] == 1200 and counts["eval_rows"] == counts["eval_tokens"] == 0
    assert counts["train_tokens"] == sum(row.length for row in usable)
    assert counts["loss_tokens"] == sum(row.loss_tokens for row in usable)
    assert counts["rows_without_loss"] == 1 and counts["unusable_rows"] == 0
    assert counts["cut_rows"] == 2 and counts["longest"] > MAX_LENGTH
    assert "max_length" in counts["first_reason"]
    assert heard[-1] == 1.0
    some = count(open_workspace, dataset, Lens(model, MAX_LENGTH), max_rows=3)
    assert some["train_rows"] == 3 and some["cut_rows"] == 0


def test_rows_that_the_template_refuses_are_counted(
    open_workspace: Workspace,
    dataset: str,
    tmp_path: Path,
    tokenizer_for: Callable[[str], Any],
) -> None:
    refusing = "{{ raise_exception('Not for you') }}"
    tokenizer_for(refusing).save_pretrained(tmp_path / "refusing")
    path = str(tmp_path / "refusing")
    counts = count(open_workspace, dataset, Lens(path, None), max_rows=4)
    assert counts["unusable_rows"] == counts["train_rows"] == 4
    assert "Not for you" in counts["first_reason"]
    shown = preview_rows(open_workspace, dataset, Lens(path, None), "train", [0])
    assert "Not for you" in shown[0]["error"] and shown[0]["tokens"] == []


def test_a_model_without_a_tokenizer_says_so(
    open_workspace: Workspace, dataset: str, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="tokenizer of empty cannot be loaded") as caught:
        preview_rows(open_workspace, dataset, Lens(str(tmp_path / "empty"), 8), "train", [0])
    assert caught.value.hint


ASKED, ANSWERED = {"role": "user", "content": "What is one?"}, "It is one."


def turns(words: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": words}]


@pytest.fixture
def see(open_workspace: Workspace, model: str) -> Callable[..., dict[str, Any]]:
    """What the preview says of one row of a form."""

    def go(form: Any, row: dict[str, Any], **settings: Any) -> dict[str, Any]:
        folder = open_workspace.dataset("one")
        folder.mkdir()
        with RowWriter(folder / "train.parquet", form) as writer:
            writer.add(row)
        info = DatasetInfo(id="one", name="one", form=form, counts=Counts(train=1))
        info.folder = folder
        info.save()
        given: dict[str, Any] = {"max_length": 200} | settings
        draft = given.pop("template_draft", "")
        (seen,) = preview_rows(open_workspace, "one", Lens(model, **given), "train", [0], draft)
        counts = count(open_workspace, "one", Lens(model, given["max_length"]))
        left_out = counts["rows_without_loss"] + counts["unusable_rows"]
        assert left_out == (seen["error"] is not None) or settings.keys() - {"max_length"}
        assert json.loads(json.dumps(seen)) == seen
        return seen

    return go


def words(side: dict[str, Any], *, learned: bool = False) -> str:
    return "".join(text for text, _, loss, _ in side["tokens"] if loss or not learned)


def test_both_answers_of_a_preference_are_shown_with_their_loss(see: Callable[..., Any]) -> None:
    seen = see(
        "preference",
        {"prompt": [ASKED], "chosen": turns(ANSWERED), "rejected": turns("Two.")},
        learn=EVERYTHING,
    )
    assert [side["title"] for side in seen["sides"]] == ["Chosen", "Rejected"]
    chosen, rejected = seen["sides"]
    assert words(chosen, learned=True) == f"{ANSWERED}<|im_end|>"
    assert words(rejected, learned=True) == "Two.<|im_end|>"
    assert words(rejected).startswith("<|im_start|>user\nWhat is one?<|im_end|>")
    assert seen["tokens"] == chosen["tokens"] and seen["error"] is None


def test_a_side_whose_answer_is_cut_off_is_named(see: Callable[..., Any]) -> None:
    long = {"role": "user", "content": "one " * 300}
    row = {"prompt": [long], "chosen": turns(ANSWERED), "rejected": turns("Two.")}
    seen = see("preference", row)
    assert "Chosen: No answer is left" in seen["error"]
    assert "Rejected: No answer is left" in seen["error"]


def test_a_judged_answer_shows_its_judgement(see: Callable[..., Any]) -> None:
    row = {"prompt": [ASKED], "completion": turns(ANSWERED), "label": False}
    seen = see("unpaired-preference", row)
    assert seen["label"] == "undesirable"
    assert words(seen, learned=True) == f"{ANSWERED}<|im_end|>"


def test_a_prompt_ends_where_the_model_is_to_write(see: Callable[..., Any]) -> None:
    """Nothing of it is learned, and that is no defect."""
    seen = see("prompt-only", {"prompt": [ASKED], "answer": "one"}, system_prompt="Short.")
    assert words(seen).startswith("<|im_start|>system\nShort.<|im_end|>")
    assert words(seen).endswith("<|im_start|>assistant\n")
    assert (seen["loss_tokens"], seen["error"], seen["answer"]) == (0, None, "one")


def test_a_labelled_text_shows_its_labels_and_the_encoders_marks(
    see: Callable[..., Any], model: str
) -> None:
    tokenizer_with_marks(CHATML).save_pretrained(model)
    seen = see("labelled-text", {"text": "I am well", "labels": ["good", "short"]})
    assert words(seen) == "<s>I am well" and seen["label"] == "good, short"
    assert seen["tokens"][0][3] is True and seen["tokens"][1][3] is False
    assert (seen["loss_tokens"], seen["error"]) == (0, None)


def test_what_is_cut_off_is_shown_and_special_tokens_are_told_apart(
    see: Callable[..., Any],
) -> None:
    row = {"prompt": [ASKED], "completion": turns("one " * 400)}
    seen = see("prompt-completion", row, max_length=30)
    assert (seen["length"], len(seen["tokens"]), len(seen["cut_tokens"])) == (30, 30, 200)
    assert seen["full_length"] > 230
    both = "".join(token[0] for token in [*seen["tokens"], *seen["cut_tokens"]])
    assert "assistant\none one one" in both
    special = [text for text, _, _, is_special in seen["tokens"] if is_special]
    assert special == ["<|im_start|>", "<|im_end|>", "<|im_start|>"]


def test_another_template_shows_by_name_or_as_it_is_written(see: Callable[..., Any]) -> None:
    row = {"prompt": [ASKED], "completion": turns(ANSWERED)}
    seen = see(
        "prompt-completion",
        row,
        template_draft="{% for m in messages %}{{ m.content }}</s>{% endfor %}",
    )
    assert words(seen) == f"What is one?</s>{ANSWERED}</s>"
    assert words(seen, learned=True) == f"{ANSWERED}</s>"


def test_notes_say_what_the_tokens_do_not(see: Callable[..., Any]) -> None:
    """A template of another family looks fine and is spelled letter by letter."""
    prompt = [{"role": "user", "content": "What is <|im_end|>?"}]
    called = {"role": "assistant", "content": "", "tool_calls": TOOL_CALLS}
    row = {"prompt": prompt, "completion": [called], "tools": TOOLS}
    seen = see("prompt-completion", row, max_length=None)
    notes = " ".join(seen["notes"])
    assert "contain <|im_end|>" in notes
    assert "knows no tools" in notes and "no calls of tools" in notes
    assert "<tool_call>" in words(seen, learned=True) and "<tools>" in words(seen)


def test_marks_of_another_family_are_noted(see: Callable[..., Any]) -> None:
    row = {"prompt": [ASKED], "completion": turns(ANSWERED)}
    (note,) = see("prompt-completion", row, chat_template="llama3")["notes"]
    assert "<|eot_id|> is" in note and "tokens for this model" in note
