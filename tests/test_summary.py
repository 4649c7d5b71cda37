"""What a person is told before the start has to be what then happens."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from core.config import RunConfig
from core.data.prepare import import_dataset
from core.estimate.summary import Summary, optimizer_steps, summarize
from core.rules import parse_config
from core.workspace import Workspace

ROWS = "\n".join(f'{{"prompt": "What is {n}?", "completion": "It is {n}."}}' for n in range(20))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """With the sets `rows` (18 rows, 2 held out) and `all-train`, and the model `tiny`."""
    transformers = pytest.importorskip("transformers")
    root = tmp_path_factory.mktemp("workspace")
    workspace = Workspace.open(root, [root])
    file = root / "rows.jsonl"
    file.write_text(ROWS, encoding="utf-8")
    import_dataset(workspace, [file], name="rows")
    import_dataset(workspace, [file], name="all-train", eval_fraction=0.0)
    config = transformers.LlamaConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=100,
        max_position_embeddings=256,
    )
    model = transformers.AutoModelForCausalLM.from_config(config)
    model.save_pretrained(workspace.models / "tiny")
    return workspace


def config(**changes: Any) -> RunConfig:
    values = {
        "model.model_name_or_path": "tiny",
        "data.dataset": "rows",
        "data.chat_template": "chatml",
        "training.per_device_train_batch_size": 4,
        "training.max_length": 128,
        "evaluation.eval_steps": 5,
        "tracking.save_steps": 5,
    }
    return parse_config({**values, **{k.replace("__", "."): v for k, v in changes.items()}})


def warnings(summary: Summary) -> dict[str, str]:
    return {warning.field: warning.message for warning in (*summary.warnings, *summary.refused)}


def test_base_trained_share_rows_and_steps_are_told(workspace: Workspace) -> None:
    summary = summarize(workspace, config())
    assert summary.base == "tiny"
    assert summary.parameters == 24992
    assert summary.trainable == 16384
    assert summary.trainable_share == pytest.approx(16384 / (24992 + 16384))
    assert (summary.train_rows, summary.eval_rows) == (18, 2)
    assert summary.steps == 15  # 3 epochs of ceil(18 / 4)
    assert summary.tokens is None
    assert summary.warnings == []
    # Their place is kept, and no number is made up.
    assert (summary.memory_bytes, summary.seconds) == (None, None)


def test_full_fine_tuning_trains_everything(workspace: Workspace) -> None:
    summary = summarize(workspace, config(adapter__method="none"))
    assert (summary.trainable, summary.trainable_share) == (24992, 1.0)


@pytest.mark.parametrize("rows", [1, 7, 8, 9, 18])
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("epochs", [0.5, 1, 2.5])
def test_steps_are_those_that_the_trainer_will_make(
    rows: int, batch: int, accumulation: int, epochs: float, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    import torch
    from torch.utils.data import DataLoader

    values = {
        "training.per_device_train_batch_size": batch,
        "training.gradient_accumulation_steps": accumulation,
        "training.num_train_epochs": epochs,
    }
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path),
        use_cpu=True,
        report_to="none",
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
        num_train_epochs=epochs,
    )
    trainer = transformers.Trainer(torch.nn.Linear(1, 1), arguments)
    loader = DataLoader([{"x": 1}] * rows, batch_size=batch)
    real = trainer.set_initial_training_values(arguments, loader)[-1]
    assert optimizer_steps(parse_config(values), rows) == real


def test_a_limit_of_steps_or_rows_counts(workspace: Workspace) -> None:
    assert summarize(workspace, config(training__max_steps=7)).steps == 7
    limited = summarize(workspace, config(data__max_train_samples=5))
    assert (limited.train_rows, limited.steps) == (5, 6)


@pytest.mark.parametrize(
    "changes", [{"training__per_device_train_batch_size": "auto"}, {"training__packing": True}]
)
def test_steps_that_are_not_known_are_not_made_up(
    workspace: Workspace, changes: dict[str, Any]
) -> None:
    assert summarize(workspace, config(**changes)).steps is None


def test_packed_rows_make_about_as_many_steps_as_their_tokens_fill(workspace: Workspace) -> None:
    """The page would ask for a batch size that is set."""
    packed = config(training__packing=True, training__max_length=100)
    rows = summarize(workspace, packed).train_rows
    summary = summarize(workspace, packed, {"train_rows": rows, "train_tokens": 1_000})
    batch = packed.training.per_device_train_batch_size
    assert isinstance(batch, int) and summary.steps is not None and not summary.steps_exact
    assert summary.steps == math.ceil(10 / batch) * packed.training.num_train_epochs
    assert summarize(workspace, config(training__packing=True, training__max_steps=7)).steps_exact


def test_counted_tokens_and_lost_rows_are_told(workspace: Workspace) -> None:
    counts = {
        "train_tokens": 500,
        "longest": 300,
        "cut_rows": 3,
        "rows_without_loss": 2,
        "unusable_rows": 1,
        "first_reason": "Nothing is left of the answer.",
    }
    summary = summarize(workspace, config(), counts)
    assert summary.tokens == 500
    assert "3 rows" in warnings(summary)["training.max_length"]
    assert "300 tokens" in warnings(summary)["training.max_length"]
    assert warnings(summary)["data.dataset"].startswith("3 rows are left out")


def test_a_module_that_the_model_lacks_is_named_with_the_nearest(workspace: Workspace) -> None:
    summary = summarize(workspace, config(adapter__target_modules=["q_prj", "v_proj"]))
    assert summary.refused[0].field == "adapter.target_modules"
    assert "no module q_prj. Did you mean q_proj" in summary.refused[0].message
    assert summary.trainable == 2 * 16 * (32 + 16)  # what is left: v_proj of two layers


@pytest.mark.parametrize(
    ("changes", "field", "says"),
    [
        ({"training__max_length": 512}, "training.max_length", "256 tokens"),
        ({"evaluation__eval_steps": 50}, "evaluation.eval_steps", "never evaluated"),
        ({"tracking__save_steps": 50}, "tracking.save_steps", "no checkpoint"),
        ({"training__max_steps": 1}, "training.warmup_steps", "learning rate is 0"),
        ({"adapter__rank_pattern": {"q_prj": 4}}, "adapter.rank_pattern", "mean q_proj"),
        ({"data__dataset": "all-train"}, "evaluation.eval_strategy", "needs held-out rows"),
        ({"data__dataset": "nothing"}, "data.dataset", "nothing"),
        ({"model__model_name_or_path": "org/nothing"}, "model.model_name_or_path", "not on this"),
        ({"model__model_name_or_path": "/etc"}, "model.model_name_or_path", "outside"),
    ],
)
def test_what_looks_wrong_is_said_at_its_field(
    workspace: Workspace, changes: dict[str, Any], field: str, says: str
) -> None:
    assert says in warnings(summarize(workspace, config(**changes)))[field]


def test_a_base_without_a_chat_template_is_said_at_the_field_that_mends_it(
    workspace: Workspace,
) -> None:
    """Else the model learns conversations in which nobody knows who speaks."""
    own = {"data__chat_template": "model"}
    found = warnings(summarize(workspace, config(**own)))
    assert "tiny has no chat template of its own" in found["data.chat_template"]
    for mended in ({"data__chat_template": "chatml"}, {"method": "classification"}):
        told = warnings(summarize(workspace, config(**{**own, **mended})))
        assert "data.chat_template" not in told
