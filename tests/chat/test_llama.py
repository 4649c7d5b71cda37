"""What llama.cpp answers in a chat is what the model would have answered."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from core.chat.settings import ChatSettings, Column
from core.errors import ModelError
from core.worker.chat import llama
from core.worker.chat.loaded import Models, Voice
from tests.tiny_model import (
    TinyWorld,
    colour_rows,
    teach,
    tiny_adapter,
    tiny_model,
    tiny_tokenizer,
)

GREEDY = ChatSettings(temperature=0, max_new_tokens=40)
ASKED, ANSWER = (turn["content"] for turn in colour_rows()[0]["messages"])


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models as small as those of tests, too."""
    monkeypatch.setenv("TUNESMITH_DEVICE", "cpu")
    monkeypatch.setattr(llama, "LEAST_BYTES", 0)


@pytest.fixture
def opened() -> Iterator[list[Models]]:
    models: list[Models] = []
    yield models
    for one in models:
        for voice in one.voices:
            if isinstance(voice, llama.LlamaVoice):
                voice.server.close()


def load(opened: list[Models], world: TinyWorld, *columns: Column) -> Models:
    models = Models(world.workspace)
    opened.append(models)
    models.load(list(columns), [str(world.base)] * len(columns), lambda share, message: None)
    return models


def answer(
    voice: llama.LlamaVoice | Voice, settings: ChatSettings = GREEDY, asked: str = ASKED
) -> str:
    prompt = voice.prompt([{"role": "user", "content": asked}])
    tokens = voice.tokens(prompt, settings, voice.room(prompt, settings.max_new_tokens))
    return str(voice.tokenizer.decode([one for one in tokens if one is not None]))


def test_what_the_base_read_is_not_taken_for_what_an_adapter_reads(
    world: TinyWorld, opened: list[Models]
) -> None:
    """llama.cpp kept what it had read for earlier requests, whichever adapter had read it: of long
    prompts the tuned model answered the second and all after it from what its base made of them."""
    chance = random.Random(0)
    words = "red green blue black cup door hat box the what is it".split()
    asked = [" ".join(chance.choices(words, k=60)) for _ in range(4)]
    (alone,) = load(opened, world, Column("tuned-run")).voices
    base, tuned = load(opened, world, Column(base="tiny"), Column("tuned-run")).voices
    own = [answer(alone, asked=text) for text in asked]
    of_base = [answer(base, asked=text) for text in asked]
    assert [answer(tuned, asked=text) for text in asked] == own != of_base


def test_one_process_answers_for_a_base_and_each_adapter_on_it(
    world: TinyWorld, opened: list[Models]
) -> None:
    columns = [Column("tuned-run"), Column(base="tiny"), Column("other-run"), Column("tuned-run")]
    models = load(opened, world, *columns)
    assert all(isinstance(voice, llama.LlamaVoice) for voice in models.voices)
    assert len({id(voice.server) for voice in models.voices}) == 1
    tuned, base, other, again = map(answer, models.voices)
    assert tuned == again == ANSWER
    assert len({tuned, base, other}) == 3
    assert models.notes == []

    voice = models.voices[0]
    prompt = voice.prompt([{"role": "user", "content": ASKED}])
    begun = voice.tokens(prompt, GREEDY, 40)
    assert next(begun) is not None
    begun.close()  # stopped in the middle: the next question is answered as before
    assert answer(voice) == ANSWER
    drawn = GREEDY.model_copy(update={"temperature": 1.5, "seed": 7, "top_p": 1.0})
    assert answer(models.voices[1], drawn) == answer(models.voices[1], drawn)
    with pytest.raises(ModelError, match="reads at most"):
        voice.room([1] * 100_000, 10)


def test_a_model_trained_as_a_whole_has_a_process_of_its_own(
    world: TinyWorld, opened: list[Models]
) -> None:
    """And without a tokenizer beside it there is nothing to convert."""
    run = world.run("whole-llama", {"adapter.method": "none"})
    tiny_model(seed=9).save_pretrained(run.model)
    tiny_tokenizer().save_pretrained(run.model)
    columns = [Column("whole-llama"), Column(base="tiny"), Column("whole-run")]
    models = load(opened, world, *columns)
    whole, base, bare = models.voices
    assert isinstance(whole, llama.LlamaVoice) and isinstance(base, llama.LlamaVoice)
    assert whole.server is not base.server
    assert answer(whole) != answer(base)
    assert isinstance(bare, Voice)
    assert any("transformers answers" in note for note in models.notes)


def test_what_llama_cpp_cannot_lay_on_is_answered_by_transformers(
    world: TinyWorld, opened: list[Models]
) -> None:
    run = world.run("dora-run", {"adapter.use_dora": True})
    model = tiny_adapter(tiny_model(), use_dora=True)
    teach(model, tiny_tokenizer(), colour_rows(), 80)
    model.save_pretrained(run.adapter)
    tiny_tokenizer().save_pretrained(run.adapter)
    dora, base = load(opened, world, Column("dora-run"), Column(base="tiny")).voices
    assert isinstance(dora, Voice) and isinstance(base, llama.LlamaVoice)
    assert answer(dora) == ANSWER


def test_a_small_model_is_not_converted(
    world: TinyWorld, opened: list[Models], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llama, "LEAST_BYTES", 10**9)
    (voice,) = load(opened, world, Column("tuned-run")).voices
    assert isinstance(voice, Voice)
