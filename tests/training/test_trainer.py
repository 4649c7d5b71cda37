"""RowTrainer against TRL's bare SFTTrainer: the same batches in the same order, the same losses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM
from trl import SFTConfig, SFTTrainer

from core.data.registry import read_rows
from core.rules import parse_config
from core.tokens.lens import Lens
from core.tokens.preview import preview_rows
from core.tokens.tokenize import tokenize_rows
from core.worker.training.attention import use_row_attention
from core.worker.training.row_trainer import RowTrainer
from core.worker.training.text import packed, sft_rows
from tests.tiny_model import TinyWorld, colour_rows, tiny_model, tiny_tokenizer
from tests.tokens.test_learn import MARKED
from tests.tokens.test_statistics import prepared
from tests.training.conftest import SETTINGS

LORA = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}


def arguments(folder: Path, **changes: Any) -> SFTConfig:
    given: dict[str, Any] = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 4,
        "max_steps": 6,
        "learning_rate": 1e-2,
        "logging_steps": 1,
        "bf16": False,
        "use_cpu": True,
        "gradient_checkpointing": False,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "max_length": None,
    }
    return SFTConfig(**{**given, **changes})


def tokenized(world: TinyWorld) -> Dataset:
    rows, _ = tokenize_rows(
        read_rows(world.workspace, world.dataset.id),
        tiny_tokenizer(),
        max_length=64,
    )
    return Dataset.from_list([{"input_ids": r.input_ids, "labels": r.labels} for r in rows])


def ours(data: Dataset, folder: Path, *, lora: bool = True, **changes: Any) -> RowTrainer:
    model = tiny_model()
    assert use_row_attention(model)
    return RowTrainer(
        model=model,
        args=arguments(
            folder,
            padding_free=True,
            dataset_kwargs={"skip_prepare_dataset": True},
            **changes,
        ),
        train_dataset=data,
        processing_class=tiny_tokenizer(),
        peft_config=LoraConfig(**LORA) if lora else None,
    )


def bare(data: Dataset, folder: Path, *, lora: bool = True, **changes: Any) -> SFTTrainer:
    return SFTTrainer(
        model=tiny_model(),
        args=arguments(folder, **changes),
        train_dataset=data,
        processing_class=tiny_tokenizer(),
        peft_config=LoraConfig(**LORA) if lora else None,
    )


def history(trainer: SFTTrainer, name: str) -> list[float]:
    trainer.train()
    return logged(trainer, name)


def logged(trainer: SFTTrainer, name: str) -> list[float]:
    return [log[name] for log in trainer.state.log_history if name in log]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"gradient_accumulation_steps": 2, "max_steps": 3},
        {"gradient_checkpointing": True},
        {"lora": False, "learning_rate": 1e-3},
    ],
    ids=["lora", "accumulation", "checkpointing", "full"],
)
def test_losses_are_those_of_bare_trl(
    world: TinyWorld, tmp_path: Path, changes: dict[str, Any]
) -> None:
    """A run would learn something else than the same settings give elsewhere."""
    data = tokenized(world)
    mine, theirs = ours(data, tmp_path, **changes), bare(data, tmp_path, **changes)
    found, expected = history(mine, "loss"), history(theirs, "loss")
    assert found == pytest.approx(expected, abs=2e-5)
    assert found[-1] < found[0] - 0.5, "nothing was learned, so nothing was compared"
    weights = dict(theirs.model.named_parameters())
    for name, parameter in mine.model.named_parameters():
        torch.testing.assert_close(parameter, weights[name], rtol=1e-2, atol=2e-4)
    if changes:
        return
    # The curves would not compare with anybody else's.
    for name in ("mean_token_accuracy", "grad_norm", "num_tokens"):
        assert logged(mine, name) == pytest.approx(logged(theirs, name), rel=1e-3)
    # The speed shown would be higher than what is really learned from.
    assert mine.tokens_trained == 2 * sum(len(row["input_ids"]) for row in data)


def test_losses_of_dynamic_fine_tuning_are_those_of_bare_trl(
    world: TinyWorld, tmp_path: Path
) -> None:
    """DFT would weigh its tokens by something else; held-out rows keep the plain loss, in which
    a model that knows nothing does not look good."""
    data = tokenized(world)
    mine = ours(data, tmp_path, loss_type="dft")
    plain = ours(data, tmp_path).evaluate(data)["eval_loss"]
    assert mine.evaluate(data)["eval_loss"] == pytest.approx(plain)
    theirs = bare(data, tmp_path, loss_type="dft")
    found, expected = history(mine, "loss"), history(theirs, "loss")
    assert found == pytest.approx(expected, abs=2e-5)
    assert max(found) > 2 * min(found), "nothing changed, so nothing was compared"


def test_wrapped_rows_lose_no_token_and_waste_none(world: TinyWorld) -> None:
    rows = sft_rows(
        world.dataset, "train", tiny_tokenizer(), parse_config({"training.max_length": 64})
    )
    lengths = [len(ids) for ids in packed(rows, 64, "wrapped")["input_ids"]]
    assert sum(lengths) == rows.tokens
    assert lengths[:-1] == [64] * (len(lengths) - 1)


def test_the_first_loss_in_bf16_is_near_bare_trl_s(world: TinyWorld, tmp_path: Path) -> None:
    """The fast path would start from another place than the library does."""
    data = tokenized(world)
    expected = history(bare(data, tmp_path, bf16=True, max_steps=1), "loss")[0]
    assert history(ours(data, tmp_path, bf16=True, max_steps=1), "loss")[0] == pytest.approx(
        expected, abs=1e-2
    )


@pytest.mark.parametrize("thoughts", ["all", "none"])
@pytest.mark.parametrize("turns", ["answers", "last_answer", "marked", "everything"])
def test_a_batch_carries_loss_where_the_preview_says(
    world: TinyWorld, tmp_path: Path, turns: str, thoughts: str
) -> None:
    """The page would colour other tokens than those that are learned."""
    info = prepared(tmp_path, "messages", [*MARKED[:2], *colour_rows()[:2]])
    chosen = {"data.learn": turns, "data.learn_thoughts": thoughts, "training.max_length": 400}
    config = parse_config({**SETTINGS, **chosen, "data.dataset": info.id})
    rows = sft_rows(info, "train", tiny_tokenizer(), config)
    seen = preview_rows(info, "train", range(4), tiny_tokenizer(), Lens.of(config))
    shown = [row for row in seen if not row["error"]]
    assert len(rows.dataset) == len(shown) == (2 if turns == "marked" else 4)
    batch = ours(rows.dataset, tmp_path).data_collator(list(rows.dataset))
    tokens = [token for row in shown for token in row["tokens"]]
    assert batch["input_ids"][0].tolist() == [token for _, token, *_ in tokens]
    assert [label != -100 for label in batch["labels"][0].tolist()] == [
        carries for _, _, carries, _ in tokens
    ]
    assert batch["cu_seq_lens_q"].diff().tolist() == [row["length"] for row in shown]


def test_packed_documents_do_not_see_each_other(world: TinyWorld, tmp_path: Path) -> None:
    """With packing, an answer would be learned from another row's question."""
    config = parse_config({**SETTINGS, "data.dataset": world.dataset.id})
    rows = sft_rows(world.dataset, "train", tiny_tokenizer(), config)
    together = packed(rows, 64)
    assert len(together) < len(rows.lengths)
    trainer = ours(together, tmp_path, per_device_train_batch_size=2)
    batch = trainer.data_collator([together[0], together[1]])
    lengths = batch["cu_seq_lens_q"].diff().tolist()
    assert lengths == [*together[0]["seq_lengths"], *together[1]["seq_lengths"]]
    loss = trainer.compute_loss(trainer.model, dict(batch)).detach()
    singles = [
        (ids, labels)
        for ids, labels in zip(
            batch["input_ids"][0].split(lengths), batch["labels"][0].split(lengths), strict=True
        )
    ]
    summed, count = 0.0, 0
    plain = tiny_model()
    for ids, labels in singles:
        scores = plain(ids[None]).logits[0, :-1]
        learned = labels[1:] != -100
        summed += torch.nn.functional.cross_entropy(
            scores[learned], labels[1:][learned], reduction="sum"
        ).item()
        count += int(learned.sum())
    assert loss.item() == pytest.approx(summed / count, rel=1e-4)


def test_the_eval_loss_does_not_depend_on_the_batch_size(world: TinyWorld, tmp_path: Path) -> None:
    """Two runs with other batch sizes could not be compared, and the best one would be chance."""
    data = tokenized(world)
    found = []
    for size in (1, 3, 8):
        trainer = ours(data, tmp_path, per_device_eval_batch_size=size)
        found.append(trainer.evaluate(data)["eval_loss"])
    assert found == pytest.approx([found[0]] * 3, rel=1e-5)
    model = AutoModelForCausalLM.from_pretrained(world.base)
    summed = sum(
        torch.nn.functional.cross_entropy(
            model(torch.tensor([row["input_ids"]])).logits[0, :-1],
            torch.tensor(row["labels"][1:]),
            reduction="sum",
        ).item()
        for row in data
    )
    count = sum(label != -100 for row in data for label in row["labels"][1:])
    assert found[0] == pytest.approx(summed / count, rel=1e-4)
