"""Sharing a base saves its memory, and must not let one column answer with another's adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from core.chat.settings import ChatSettings, Column
from core.errors import ModelError
from core.worker.chat.loaded import Models, Voice
from core.worker.models.loading import open_model
from tests.tiny_model import TinyWorld, tiny_adapter, tiny_model, tiny_tokenizer, tiny_world

IDS = torch.tensor([[1, 9, 30, 42]])


@pytest.fixture(autouse=True)
def cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNESMITH_DEVICE", "cpu")


def load(world: TinyWorld, *columns: Column) -> list[Voice]:
    models = Models(world.workspace)
    models.load(list(columns), [str(world.base)] * len(columns), lambda share, message: None)
    return models.voices


def logits(voice: Voice) -> Any:
    voice.take_turn()
    with torch.inference_mode():
        return voice.model(IDS).logits


def alone(world: TinyWorld, run_id: str | None) -> Any:
    model = open_model(world.base, device="cpu", dtype=torch.float32)
    if run_id:
        model = PeftModel.from_pretrained(model, str(world.workspace.run(run_id).adapter))
    with torch.inference_mode():
        return model(IDS).logits


def test_columns_share_a_base_and_each_answers_as_itself(world: TinyWorld) -> None:
    runs = [None, "tuned-run", "other-run"]
    columns = [Column(run_id, base=None if run_id else "tiny") for run_id in runs]
    voices = load(world, *columns)
    assert len({id(voice.body) for voice in voices}) == 1
    # In every order of turns, twice, so that nothing of the last one's adapter is left on.
    for place in (0, 1, 2, 1, 0, 2, 0):
        assert torch.equal(logits(voices[place]), alone(world, runs[place]))


def test_thinking_is_switched_where_the_template_has_it(world: TinyWorld) -> None:
    template = (
        "{% for m in messages %}{{ m.content }}{% endfor %}"
        "{% if enable_thinking is defined and not enable_thinking %}no thoughts{% endif %}"
    )
    run = world.run("thinking-run")
    tiny_adapter(tiny_model()).save_pretrained(run.adapter)
    tiny_tokenizer(template).save_pretrained(run.adapter)
    thinking, plain = load(world, Column("thinking-run"), Column("tuned-run"))
    asked = [{"role": "user", "content": "a red cup"}]

    def prompt(voice: Voice, choice: str) -> str:
        settings = ChatSettings(enable_thinking=choice)  # type: ignore[arg-type]
        return str(voice.tokenizer.decode(voice.prompt(asked, **settings.variables())))

    assert "no thoughts" in prompt(thinking, "off")
    assert "no thoughts" not in prompt(thinking, "on") + prompt(thinking, "auto")
    assert prompt(plain, "off") == prompt(plain, "on") == prompt(plain, "auto")


def test_whole_models_stand_for_themselves(world: TinyWorld) -> None:
    whole, base = load(world, Column("whole-run"), Column(base="tiny"))
    assert whole.body is not base.body
    assert not torch.equal(logits(whole), logits(base))


def test_an_adapter_with_biases_does_not_share_the_base(tmp_path: Path) -> None:
    """Its biases stay on when it is switched off, and the base column would not be the base."""
    world = tiny_world(tmp_path / "ws")
    tiny_model(attention_bias=True).save_pretrained(world.base)
    run = world.run("bias-run")
    model = tiny_adapter(tiny_model(attention_bias=True), bias="all")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 3.0)
    model.save_pretrained(run.adapter)
    tuned, base = load(world, Column("bias-run"), Column(base="tiny"))
    assert tuned.body is not base.body
    assert torch.equal(logits(base), alone(world, None))
    assert torch.equal(logits(tuned), alone(world, "bias-run"))


def test_the_type_is_that_of_the_run(world: TinyWorld) -> None:
    run = world.run("half-run", {"training.precision": "bf16"})
    tiny_adapter(tiny_model()).save_pretrained(run.adapter)
    half, full = load(world, Column("half-run"), Column("tuned-run"))
    assert half.model.dtype == torch.bfloat16
    assert full.model.dtype == torch.float32


def test_text_is_continued_only_where_text_was_learned(tmp_path: Path) -> None:
    world = tiny_world(tmp_path / "ws", rows=[{"text": "Once upon a time"}])
    tiny_tokenizer(None).save_pretrained(world.base)
    (world.base / "chat_template.jinja").unlink()
    run = world.run("text-run")
    tiny_adapter(tiny_model()).save_pretrained(run.adapter)
    asked = [{"role": "user", "content": "Once"}]
    (voice,) = load(world, Column("text-run"))
    assert voice.tokenizer.decode(voice.prompt(asked)) == "Once"
    gone = world.run("gone-run", {"data.dataset": "gone"})
    tiny_adapter(tiny_model()).save_pretrained(gone.adapter)
    (voice,) = load(world, Column("gone-run"))
    assert voice.tokenizer.decode(voice.prompt(asked)) == "Once\n"


def test_an_adapter_of_another_model_is_refused(tmp_path: Path) -> None:
    world = tiny_world(tmp_path / "ws")
    run = world.run("odd-run")
    tiny_adapter(tiny_model(hidden_size=32)).save_pretrained(run.adapter)
    with pytest.raises(ModelError, match="does not fit its base"):
        load(world, Column("odd-run"))
