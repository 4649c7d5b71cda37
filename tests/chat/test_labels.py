"""A classifier in Chat: it answers with labels, and its base says why it cannot."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from core.chat.session import chat_once, conversation
from core.chat.settings import Column
from core.errors import ModelError
from core.language import PSEUDO, speaking
from core.models.trained import find_trained
from core.worker.chat.loaded import Models
from core.worker.chat.voices import LabelVoice
from core.worker.models.loading import open_kind, open_trained
from tests.training.labelled import LabelWorld, label_world, labelled_rows


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> LabelWorld:
    torch.set_num_threads(1)
    made = label_world(tmp_path_factory.mktemp("chats"))
    made.data("rule", labelled_rows(240))
    made.train("learned", "rule", **{"evaluation.eval_strategy": "no"})
    return made


def bases(world: LabelWorld) -> list[str]:
    return [str(world.workspace.models / "tiny-bert")] * 2


def test_a_text_is_answered_with_its_labels(world: LabelWorld) -> None:
    """Nobody could try a classifier on words of their own."""
    text = chat_once(world.workspace, "learned", None, "here is dog and")
    first, *others = text.splitlines()
    assert first.startswith("animal: ") and first.endswith(" %")
    assert float(first.removeprefix("animal: ").removesuffix(" %")) > 50 and len(others) == 2


def test_it_says_why_not_in_the_language_of_who_asks(world: LabelWorld) -> None:
    with speaking(PSEUDO), pytest.raises(ModelError, match="⟦"):
        chat_once(world.workspace, "learned", None, " ")


def test_its_base_beside_it_says_why_it_cannot_answer(world: LabelWorld) -> None:
    """The base, taken for a model that writes, would answer with noise."""
    models = Models(world.workspace)
    columns = [Column("learned"), Column(base="tiny-bert")]
    models.load(columns, bases(world), lambda share, message: None)
    run, base = models.voices
    assert isinstance(run, LabelVoice) and "colour" in run.answer(conversation("a red today we"))
    assert not isinstance(base, LabelVoice)
    with pytest.raises(ModelError, match="encoder"):
        base.answer(conversation("a red today we"))  # type: ignore[union-attr]
    with pytest.raises(ModelError, match="Write a text"):
        run.answer(conversation("  "))
    assert open_kind(world.workspace.models / "tiny-bert") == "encoder"
    assert open_kind(world.workspace.models / "tiny-llama") == "decoder"


def test_a_classifier_is_not_asked_to_write(world: LabelWorld) -> None:
    """Synthetic rows from a classifier would be noise."""
    trained = find_trained(world.workspace.run("learned"))
    with pytest.raises(ModelError, match="writes no text"):
        open_trained(trained, str(Path(bases(world)[0])), device="cpu", dtype=torch.float32)
