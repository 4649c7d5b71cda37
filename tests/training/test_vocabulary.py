"""New tokens: learned, saved with their weights, exported, and refused where they do not match."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from core.chat.settings import Column
from core.errors import ConfigError, ModelError
from core.models.describe import describe_model, trainable_parameters
from core.models.trained import NEW_TOKENS_FILE, NewTokens, find_trained
from core.rules import load_config, parse_config
from core.tokens.words import add_tokens
from core.worker.chat.loaded import Models
from core.worker.models.loading import grow, make_room, open_model, open_tokenizer, open_trained
from core.worker.training.run import run_training
from core.workspace import RunFolder
from tests.tiny_model import tiny_model, tiny_tokenizer
from tests.training.conftest import events, losses
from tests.training.labelled import tiny_bert_tokenizer
from tests.training.reading import MADE_UP, TextWorld, made_up_texts, text_world
from tests.training.test_cpt import stop_at

NEW = {"vocabulary.new_tokens": MADE_UP}
UNTIED = {"model.model_name_or_path": "tiny-untied"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> TextWorld:
    made = text_world(tmp_path_factory.mktemp("vocabulary"))
    made.data("made-up", made_up_texts(100), made_up_texts(12, 1))
    return made


def opened(world: TextWorld, run: RunFolder, checkpoint: str = "final") -> tuple[Any, Any]:
    trained = find_trained(run, checkpoint)
    base = str(world.workspace.models / trained.base)
    return open_trained(trained, base, device="cpu", dtype=torch.float32)


@torch.inference_mode()
def logits(model: Any, tokenizer: Any) -> Any:
    return model(**tokenizer(" ".join(made_up_texts(4, 9)), return_tensors="pt")).logits


def right_colours(model: Any, tokenizer: Any) -> float:
    """The share of the made-up words whose colour the model knows."""
    right = 0
    for place, word in enumerate(MADE_UP):
        told = {}
        for colour in ("red", "green", "blue", "black"):
            ids = tokenizer(f"{word} {colour}", return_tensors="pt")["input_ids"]
            with torch.inference_mode():
                told[colour] = float(model(ids, labels=ids).loss) * (ids.shape[1] - 1)
        right += min(told, key=lambda c: told[c]) == ("red", "green", "blue", "black")[place % 4]
    return right / len(MADE_UP)


@pytest.mark.parametrize(
    "changes",
    [
        {"tracking.save_strategy": "epoch"},
        UNTIED,
        {"vocabulary.train": "embeddings"},
        {"method": "sft", "adapter.method": "none", "training.learning_rate": 5e-3},
    ],
    ids=["rows", "rows-untied", "embeddings", "full"],
)
def test_twenty_new_tokens_are_learned_and_survive_export_and_reload(
    world: TextWorld, request: pytest.FixtureRequest, changes: dict[str, Any]
) -> None:
    """A person's words would be noise once the model is opened elsewhere."""
    settings = {
        "training.num_train_epochs": 5.0,
        "training.per_device_train_batch_size": 4,
        **NEW,
        **changes,
    }
    method = settings.pop("method", "cpt")
    run = world.train(request.node.callspec.id, method, "made-up", **settings)
    assert losses(run)[-1] < losses(run)[0] / 3
    config = load_config(run.config)
    foreseen = describe_model(world.workspace.models / config.model.model_name_or_path)
    if config.adapter.method == "lora":
        told = [event["message"] for event in events(run, "log")]
        count = trainable_parameters(foreseen, config)
        assert any(message.startswith(f"{count:,} weights are trained") for message in told)
    model, tokenizer = opened(world, run)
    before = len(tiny_tokenizer())
    assert len(tokenizer) == before + 20 == model.get_input_embeddings().weight.shape[0]
    ids = tokenizer(f"{MADE_UP[3]} red", add_special_tokens=False)["input_ids"]
    assert ids[0] == before + 3 and tokenizer.decode(ids).startswith(MADE_UP[3])
    assert right_colours(model, tokenizer) > 0.7  # by chance 0.25
    expected = logits(model, tokenizer)
    merged = world.export(run, "merged")
    whole = open_model(merged, device="cpu", dtype=torch.float32)
    assert len(open_tokenizer(merged)) == whole.config.vocab_size == before + 20
    assert torch.allclose(logits(whole, open_tokenizer(merged)), expected, atol=1e-3)
    if find_trained(run).is_adapter:
        assert (
            f"`base.resize_token_embeddings({before + 20})`"
            in (world.export(run, "adapter") / "README.md").read_text()
        )
    if changes.get("tracking.save_strategy"):
        last = max(run.checkpoints.iterdir(), key=lambda path: int(path.name.rpartition("-")[2]))
        assert torch.equal(logits(*opened(world, run, last.name)), expected)
        size = (run.adapter / "adapter_model.safetensors").stat().st_size
        rows = 20 * 64 * 4  # of the adapter's own weights nothing is repeated
        assert (last / "adapter_model.safetensors").stat().st_size == size > rows
    result = world.measure(run)
    assert any("added 20 tokens" in note for note in result["notes"])
    assert result["tuned"]["eval_loss"]["high"] < result["base"]["eval_loss"]["low"] / 2


def test_beside_the_run_its_base_answers_as_it_is(world: TextWorld) -> None:
    """The base would be shown with rows that it does not have."""
    run = world.train("chat", "cpt", "made-up", **NEW, **{"training.max_steps": 2})
    base = str(world.workspace.models / "tiny-llama")
    models = Models(world.workspace)
    models.load([Column(run_id=run.root.name), Column(base=base)], [base, base], lambda *_: None)
    rows = [int(voice.model.get_input_embeddings().weight.shape[0]) for voice in models.voices]
    assert rows == [len(tiny_tokenizer()) + 20, len(tiny_tokenizer())]


def test_a_stopped_run_goes_on_with_its_tokens(
    world: TextWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint's rows would find no place in the base."""
    short = {**NEW, "evaluation.eval_strategy": "no", "training.max_steps": 4}
    whole, parts = (world.run(name, "cpt", "made-up", **short) for name in ("whole", "parts"))
    assert run_training(whole.root, world.workspace.root, None) == "finished"
    with monkeypatch.context() as patch:
        stop_at(2, patch)
        assert run_training(parts.root, world.workspace.root, None) == "stopped"
    parts.stop_request.unlink()
    checkpoint = parts.checkpoints / "checkpoint-2"
    assert run_training(parts.root, world.workspace.root, checkpoint) == "finished"
    assert torch.equal(logits(*opened(world, parts)), logits(*opened(world, whole)))
    told = [event["message"] for event in events(whole, "log")]
    assert any("20 new tokens" in message for message in told)
    assert any(message.startswith("The embeddings grew from") for message in told)


@pytest.mark.parametrize("how", ["continue", "stack", "merge"])
def test_a_run_after_it_goes_on_with_its_tokens(world: TextWorld, how: str) -> None:
    """The next run of a chain would break the words up again, or find no rows for them."""
    first = world.workspace.run("first")
    if not first.root.is_dir():
        world.train("first", "cpt", "made-up", **NEW, **{"training.max_steps": 30})
    after = world.train(
        f"after-{how}",
        "sft" if how == "continue" else "cpt",
        "made-up",
        **{"model.start_from": how, "model.from_run": "first", "training.max_steps": 2},
        **{"training.learning_rate": 1e-4},
    )
    assert losses(after)[0] < losses(first)[0] / 2  # it begins where the other ended
    exported = world.export(after, "merged")
    model = open_model(exported, device="cpu", dtype=torch.float32)
    tokenizer = open_tokenizer(exported)
    assert len(tokenizer) == model.config.vocab_size == len(tiny_tokenizer()) + 20
    assert torch.isfinite(logits(model, tokenizer)).all()
    if how == "continue":
        assert find_trained(after).new_tokens == find_trained(first).new_tokens


def test_a_tokenizer_that_is_not_the_weights_own_is_refused(
    world: TextWorld, tmp_path: Path
) -> None:
    """The model would speak of other tokens than it learned, without a word of warning."""
    run = world.train("other", "cpt", "made-up", **NEW, **{"training.max_steps": 1})
    copy = RunFolder(world.workspace.runs / "copied")
    shutil.copytree(run.root, copy.root)
    tiny_tokenizer().save_pretrained(copy.adapter)
    with pytest.raises(ModelError, match="does not belong to its weights: it has 314 tokens"):
        find_trained(copy)
    swapped = json.loads((run.adapter / NEW_TOKENS_FILE).read_text())
    first, second, *_ = swapped["ids"]
    swapped["ids"][first], swapped["ids"][second] = swapped["ids"][second], swapped["ids"][first]
    (run.adapter / NEW_TOKENS_FILE).write_text(json.dumps(swapped))
    with pytest.raises(ModelError, match="in another place"):
        find_trained(run)


def test_each_token_begins_at_the_mean_of_its_pieces() -> None:
    """New tokens would begin as noise, and take long to mean anything."""
    tokenizer, model = tiny_tokenizer(), tiny_model(vocab_size=340)
    pieces = add_tokens(tokenizer, [*MADE_UP, "red"])
    assert "red" not in pieces and len(pieces) == 20  # the tokenizer had it
    found = make_room(model, tokenizer, pieces)
    assert found.rows == model.get_input_embeddings().weight.shape[0] == 340  # room in the padding
    weight = model.get_input_embeddings().weight
    for token, number in found.ids.items():
        assert torch.allclose(weight[number], weight[pieces[token]].mean(dim=0), atol=1e-6)
    assert torch.equal(model.get_output_embeddings().weight, weight)
    small = NewTokens(found.ids, found.pieces, 335, 335)
    with pytest.raises(ModelError, match="another model"):
        grow(model, small)


def test_a_word_is_found_as_a_whole_and_in_either_spelling() -> None:
    """ "cat" would break "category", and "Zorb" would not be found where all is small letters."""
    tokenizer = tiny_tokenizer()
    add_tokens(tokenizer, ["zorb", "<note>"])
    texts = ("a zorb, yes", "zorbs", "x<note>y")
    known = [set(tokenizer.get_added_vocab()) & set(tokenizer.tokenize(text)) for text in texts]
    assert known == [{"zorb"}, set(), {"<note>"}]
    from tokenizers import normalizers

    small = tiny_bert_tokenizer()
    small.backend_tokenizer.normalizer = normalizers.Lowercase()
    add_tokens(small, ["Zorb"])
    assert small.unk_token not in small.tokenize("ZORB zorb")


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"method": "dpo"}, "vocabulary.new_tokens", "Teach them by cpt or sft"),
        ({"method": "mlm"}, "vocabulary.new_tokens", "adapter.method to none"),
        ({"adapter.modules_to_save": ["embed_tokens"]}, "vocabulary.train", "overwrite"),
        (
            {"adapter.target_modules": ["lm_head"], "vocabulary.train": "embeddings"},
            "adapter.target_modules",
            "Take them out",
        ),
        ({"vocabulary.new_tokens": ["a", "a"]}, "vocabulary.new_tokens", "twice"),
        ({"vocabulary.new_tokens": [" "]}, "vocabulary.new_tokens", "empty"),
    ],
)
def test_what_cannot_be_learned_is_refused_at_its_field(
    changes: dict[str, Any], field: str, words: str
) -> None:
    """A run would end with an error of a library, or its new tokens would be lost."""
    with pytest.raises(ConfigError) as refused:
        parse_config({**NEW, **changes})
    problem = next(p for p in refused.value.problems if p.field == field)
    assert words in problem.message
