"""Masked language modelling: what is hidden, and whole runs on a tiny encoder."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import BertModel

from core.chat.settings import Column
from core.errors import ModelError
from core.models.trained import find_trained
from core.rules import parse_config
from core.worker.chat.loaded import Models
from core.worker.models.masked import hidden, load_masked, masking, text_pieces
from core.worker.training.mlm import GoOnHiding, Hiding
from core.worker.training.run import run_training
from tests.training.conftest import events, losses
from tests.training.labelled import tiny_bert_tokenizer
from tests.training.reading import SENTENCES, TextWorld, plain_texts, text_world
from tests.training.test_cpt import stop_at


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> TextWorld:
    return text_world(tmp_path_factory.mktemp("mlm"))


# What stands before "pear" or at such a place in a text.
WORDS = {word for sentence in SENTENCES for word in sentence.split()}


def config(**changes: Any) -> Any:
    return parse_config({"method": "mlm", **changes})


def test_long_texts_are_parted_and_nothing_of_them_is_lost() -> None:
    """Of a long text only the beginning would be learned."""
    tokenizer = tiny_bert_tokenizer()
    texts = [*plain_texts(5), ""]
    pieces = text_pieces(tokenizer, texts, 10)
    for text, parts in zip(texts, pieces, strict=True):
        words = [
            token
            for part in parts
            for token, special in zip(part["input_ids"], part["special_tokens_mask"], strict=True)
            if not special
        ]
        assert words == tokenizer(text, add_special_tokens=False)["input_ids"]
        assert all(len(part["input_ids"]) <= 10 for part in parts)
    assert pieces[-1] == []


@pytest.mark.parametrize("whole_words", [False, True])
def test_what_is_hidden_follows_from_the_seed_and_the_share(whole_words: bool) -> None:
    """Two evaluations could not be compared, or the model would see what it has to guess."""
    tokenizer = tiny_bert_tokenizer()
    given = config(**{"text.mlm_probability": 0.3, "text.whole_word_mask": whole_words})
    masks = masking(tokenizer, given)
    piece = text_pieces(tokenizer, [" ".join(plain_texts(60))], 2000)[0][0]
    ids, labels = hidden(piece, masks, 7)
    assert (ids, labels) == hidden(piece, masks, 7) != hidden(piece, masks, 8)
    drawn = [place for place, label in enumerate(labels) if label != -100]
    assert len(drawn) / len(ids) == pytest.approx(0.3, abs=0.06)
    assert all(labels[place] == piece["input_ids"][place] for place in drawn)
    shown = sum(ids[place] == tokenizer.mask_token_id for place in drawn) / len(drawn)
    assert shown == 1.0 if whole_words else shown == pytest.approx(0.8, abs=0.1)
    short = text_pieces(tokenizer, ["fish"], 10)[0][0]
    assert all(any(label != -100 for label in hidden(short, masks, n)[1]) for n in range(20))


def test_padding_is_never_hidden_and_each_batch_hides_other_tokens() -> None:
    """The model would learn to guess padding, or learn one draw of gaps by heart."""
    tokenizer = tiny_bert_tokenizer()
    pieces = [part for parts in text_pieces(tokenizer, plain_texts(8), 64) for part in parts]
    for given in (config(), config(**{"text.whole_word_mask": True})):
        rows = [dict(piece) for piece in pieces]
        hiding = Hiding(masking(tokenizer, given), seed=3)
        first, second = hiding(rows), hiding(rows)
        assert not torch.equal(first["labels"], second["labels"])
        assert (first["labels"][first["attention_mask"] == 0] == -100).all()
        again = Hiding(masking(tokenizer, given), seed=3, drawn=1)(rows)
        assert torch.equal(second["input_ids"], again["input_ids"])


def test_what_is_hidden_hangs_on_the_step_alone() -> None:
    """An epoch whose last step lacks a batch, on one device or several, or after a resume, would
    shift all that is hidden after it."""
    hiding = Hiding(masking(tiny_bert_tokenizer(), config()), seed=3, drawn=15)
    begin = {"args": SimpleNamespace(gradient_accumulation_steps=2), "control": None}
    GoOnHiding(hiding).on_epoch_begin(state=SimpleNamespace(global_step=8), **begin)
    assert hiding.drawn == 16


@pytest.mark.parametrize(
    "changes",
    [
        {"training.gradient_accumulation_steps": 2, "training.per_device_train_batch_size": 4},
        {"adapter.method": "none", "text.whole_word_mask": True},
    ],
    ids=["adapter", "full"],
)
def test_held_out_perplexity_falls_and_gaps_are_filled(
    world: TextWorld, request: pytest.FixtureRequest, changes: dict[str, Any]
) -> None:
    """An encoder would learn nothing of a field, or what it learned could not be used."""
    name = request.node.callspec.id
    run = world.train(name, "mlm", "plain", **{"training.num_train_epochs": 4.0, **changes})
    measured = [event for event in events(run, "metrics") if "eval_loss" in event]
    assert measured[-1]["eval_loss"] < losses(run)[0] - 0.5
    last = measured[-1]
    assert last["eval_perplexity"] == pytest.approx(math.exp(last["eval_loss"]))
    result = world.measure(run)
    assert result["tuned"]["perplexity"]["high"] < result["base"]["perplexity"]["low"]
    assert result["tuned"]["eval_loss"]["value"] == pytest.approx(last["eval_loss"], rel=0.01)
    sample = events(run, "sample")[-1]
    assert "[MASK]" in sample["prompt"][0]["content"] and "%" in sample["answer"]
    exported = world.export(run, "merged")
    assert "pipeline_tag: fill-mask" in (exported / "README.md").read_text()
    base = str(world.workspace.models / "tiny-bert")
    models = Models(world.workspace)
    models.load([Column(run_id=name), Column(base=base)], [base, base], lambda *_: None)
    tuned, before = models.voices
    asked = [{"role": "user", "content": "here is [MASK] pear"}]
    assert tuned.answer(asked).partition(":")[0] in WORDS and before.answer(asked)
    with pytest.raises(ModelError, match="has no .MASK."):
        tuned.answer([{"role": "user", "content": "here is"}])


def test_a_resumed_run_ends_as_one_that_was_not_stopped(
    world: TextWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that was stopped would have hidden other tokens."""
    short = {
        "evaluation.eval_strategy": "no",
        "training.max_steps": 6,
        "training.gradient_accumulation_steps": 2,
        "training.per_device_train_batch_size": 4,
    }
    whole = world.train("whole", "mlm", "plain", **short)
    parts = world.run("parts", "mlm", "plain", **short)
    with monkeypatch.context() as patch:
        stop_at(4, patch)
        assert run_training(parts.root, world.workspace.root, None) == "stopped"
    parts.stop_request.unlink()
    checkpoint = parts.checkpoints / "checkpoint-4"
    assert run_training(parts.root, world.workspace.root, checkpoint) == "finished"
    name = "adapter_model.safetensors"
    found, expected = load_file(parts.adapter / name), load_file(whole.adapter / name)
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_what_was_learned_is_merged_for_the_next_run(world: TextWorld) -> None:
    """A classifier of a field's texts would begin with an encoder that does not know them."""
    first = world.train("first", "mlm", "plain", **{"evaluation.eval_strategy": "no"})
    second = world.train(
        "second",
        "mlm",
        "plain",
        **{"model.start_from": "merge", "model.from_run": "first", "training.max_steps": 1},
    )
    assert losses(second)[0] < losses(first)[0] - 0.5


def test_a_head_that_the_base_has_not_is_saved_with_the_adapter(world: TextWorld) -> None:
    """Drawn anew at each load, the guesses would be noise."""
    folder = world.workspace.models / "headless"
    BertModel.from_pretrained(world.workspace.models / "tiny-bert").save_pretrained(folder)
    tiny_bert_tokenizer().save_pretrained(folder)
    changes = {"model.model_name_or_path": "headless", "training.num_train_epochs": 1.0}
    run = world.train("headless", "mlm", "plain", **changes)
    names = load_file(find_trained(run).folder / "adapter_model.safetensors").keys()
    assert any(name.endswith("predictions.transform.dense.weight") for name in names)
    told = [event["message"] for event in events(run, "log") if event["level"] == "warning"]
    assert any("drawn at random" in message for message in told)
    again = [load_masked(config(), folder, device="cpu", precision="fp32")[0] for _ in range(2)]
    states = [model.state_dict() for model in again]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    result = world.measure(run)
    assert result["tuned"]["perplexity"]["value"] < result["base"]["perplexity"]["value"]


def test_a_model_that_writes_is_refused(world: TextWorld) -> None:
    """The failure would speak of a class of transformers'."""
    run = world.run("writer", "mlm", "plain", **{"model.model_name_or_path": "tiny-llama"})
    with pytest.raises(ModelError, match="no mask"):
        run_training(run.root, world.workspace.root, None)
