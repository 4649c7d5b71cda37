"""A run with a chat template of its choice: what is shown is what is learned, and the trained
model is asked in the same words ever after."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer
from trl import SFTConfig

from core.chat.settings import Column
from core.data.record import Counts, DatasetInfo
from core.data.rowfile import RowWriter
from core.errors import DataError
from core.models.trained import find_trained
from core.rules import parse_config
from core.tokens.chat_templates import load_template, save_template, use_template
from core.tokens.lens import Lens
from core.tokens.tokenize import NO_LOSS
from core.worker.chat.loaded import Models
from core.worker.models.loading import open_tokenizer, tokenizer_of
from core.worker.tokenizers import preview_rows
from core.worker.training.attention import use_row_attention
from core.worker.training.row_trainer import RowTrainer
from core.worker.training.text import sft_rows
from core.workspace import RunFolder, Workspace
from tests.tiny_model import TinyWorld, tiny_model
from tests.tokens.template_rows import ROWS, STARTER, TEMPLATES, expected, tokenizer_with_marks

NAMES = [*TEMPLATES, "starter"]
OWN = "{% for m in messages %}{{ m.role }}: {{ m.content }}<|im_end|>\n{% endfor %}"
USER = [{"role": "user", "content": "a red cup"}]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a model's tokenizer, an own template and a data set of every turn."""
    root = tmp_path_factory.mktemp("templates")
    workspace = Workspace.open(root / "ws")
    tokenizer_with_marks(None).save_pretrained(root / "model")
    save_template(workspace, "starter", STARTER)
    stored(workspace, "turns", "messages", list(ROWS.values()))
    return root


def stored(workspace: Workspace, name: str, form: Any, rows: list[dict[str, Any]]) -> DatasetInfo:
    folder = workspace.dataset(name)
    folder.mkdir()
    with RowWriter(folder / "train.parquet", form) as writer:
        for row in rows:
            writer.add(row)
    info = DatasetInfo(id=name, name=name, form=form, counts=Counts(train=len(rows)))
    info.folder = folder
    info.save()
    return info


@pytest.fixture(scope="module")
def collate(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """What the trainer makes of rows on their way into the model."""
    model = tiny_model()
    assert use_row_attention(model)

    def through(rows: Any, tokenizer: Any) -> Any:
        trainer = RowTrainer(
            model=model,
            args=SFTConfig(
                output_dir=str(tmp_path_factory.mktemp("out")),
                dataset_kwargs={"skip_prepare_dataset": True},
                padding_free=True,
                max_length=None,
                use_cpu=True,
                bf16=False,
                report_to=[],
            ),
            train_dataset=rows,
            processing_class=tokenizer,
        )
        return trainer.data_collator([rows[place] for place in range(len(rows))])

    return through


@pytest.mark.parametrize("name", NAMES)
def test_the_tokens_shown_with_loss_are_those_of_the_trainers_batch(
    place: Path, collate: Callable[..., Any], name: str
) -> None:
    """The page would colour other tokens than those that are learned."""
    workspace = Workspace.open(place / "ws")
    config = parse_config({"data.dataset": "turns", "training.max_length": 4096})
    tokenizer = use_template(open_tokenizer(place / "model"), load_template(name, workspace))
    info = DatasetInfo(id="turns", name="turns", form="messages", counts=Counts(train=len(ROWS)))
    info.folder = workspace.dataset("turns")
    rows = sft_rows(info, "train", tokenizer, config)
    assert rows.left_out == []
    batch = collate(rows.dataset, tokenizer)
    shown = preview_rows(
        Workspace(workspace.root, (place,)),
        "turns",
        Lens(str(place / "model"), config.training.max_length, chat_template=name),
        "train",
        list(range(len(ROWS))),
    )
    assert batch["input_ids"][0].tolist() == [token[1] for row in shown for token in row["tokens"]]
    learned = [label != NO_LOSS for label in batch["labels"][0].tolist()]
    assert learned == [token[2] for row in shown for token in row["tokens"]]
    for row, kind in zip(shown, ROWS, strict=True):
        words = "".join(text for text, _, loss, _ in row["tokens"] if loss)
        assert words == "".join(expected(name, kind)) and row["error"] is None


def test_a_form_for_another_method_is_refused_with_the_method(place: Path) -> None:
    """A preference set would otherwise train on nothing, row by row."""
    workspace = Workspace.open(place / "ws")
    turns = ROWS["single"]["messages"]
    row = {"prompt": turns[:1], "chosen": turns[1:], "rejected": turns[1:]}
    info = stored(workspace, "judged", "preference", [row])
    tokenizer = open_tokenizer(place / "model")
    with pytest.raises(DataError, match=r"judged holds preference data, .*DPO"):
        sft_rows(info, "train", tokenizer, parse_config({"data.dataset": "judged"}))


def test_a_trained_model_is_asked_with_the_template_of_its_run(
    train: Callable[..., RunFolder], world: TinyWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked in other words than it learned, a tuned model answers as if it were not tuned."""
    monkeypatch.setenv("TUNESMITH_DEVICE", "cpu")
    save_template(world.workspace, "mine", OWN)
    run = train("own", **{"data.chat_template": "mine"})
    save_template(world.workspace, "mine", OWN + "changed")
    saved = AutoTokenizer.from_pretrained(run.adapter)
    assert saved.chat_template == OWN
    models = Models(world.workspace)
    columns = [Column(base="tiny"), Column(run.root.name)]
    models.load(columns, [str(world.base)] * 2, lambda share, message: None)
    asked = [voice.tokenizer.decode(voice.prompt(USER)) for voice in models.voices]
    assert asked == ["user: a red cup<|im_end|>\n"] * 2
    # A checkpoint without a tokenizer of its own is asked like that too.
    for name in ("tokenizer_config.json", "tokenizer.json", "chat_template.jinja"):
        (run.adapter / name).unlink()
    trained = find_trained(run)
    assert not trained.has_tokenizer
    assert tokenizer_of(trained, str(world.base)).chat_template == OWN


def test_a_run_elsewhere_needs_no_template_of_this_workspace(
    train: Callable[..., RunFolder], world: TinyWorld, tmp_path: Path
) -> None:
    run = train("bundled", **{"data.chat_template": "alpaca", "training.max_length": 256})
    shutil.copytree(run.root, tmp_path / "elsewhere")
    text = (tmp_path / "elsewhere" / "chat_template.jinja").read_text(encoding="utf-8")
    assert text == load_template("alpaca", world.workspace)
    saved = AutoTokenizer.from_pretrained(tmp_path / "elsewhere" / "adapter")
    assert "### Response:" in saved.chat_template
