"""What auto becomes, and that the reason is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from psutil import virtual_memory

from core.config import RunConfig
from core.estimate.plan import estimate_run
from core.models.hardware import probe
from core.rules import parse_config
from core.worker.training.attention import NAME as ROW_ATTENTION
from core.worker.training.resolve import (
    choose_batch,
    choose_device,
    choose_precision,
    estimate_need,
    free_bytes,
    with_choices,
)
from tests.tiny_model import tiny_model

GB = 10**9
SETTLED = {"training.precision": "fp32", "training.device": "cpu"}


def choices(free: int, lengths: list[int], **settings: object) -> dict[str, object]:
    """With a model of which eight rows of 500 tokens need 2.0 GB, checkpointed 1.0 GB."""
    config = parse_config({**SETTLED, **settings})
    need = estimate_need(tiny_model(hidden_size=384, intermediate_size=1536), config)
    need = replace(need, shape=replace(need.shape, layers=24))
    found = choose_batch(config, need, lengths, device="cpu", free=free)
    return {choice.field.partition(".")[2]: choice.value for choice in found}


def test_a_device_and_precision_are_chosen_with_a_reason() -> None:
    """Somebody would wonder for what reason a run is slow."""
    config = RunConfig()
    device = choose_device(config)
    assert device.value in ("cpu", "cuda", "mps") and device.reason
    precision = choose_precision(config, "cpu")[0]
    has_bf16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    assert precision.value == ("bf16" if has_bf16 else "fp32")
    assert "this CPU" in precision.reason


def test_a_device_that_the_worker_was_given_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs would share one device while another one idles."""
    monkeypatch.setenv("TUNESMITH_DEVICE", "cpu")
    assert choose_device(RunConfig()).value == "cpu"


def test_the_4_bit_compute_type_follows_the_precision_that_was_set() -> None:
    """Unpacked weights would be multiplied in another type than the rest."""
    config = parse_config({"adapter.quantization": "nf4", "training.precision": "fp32"})
    found = {choice.field: choice.value for choice in choose_precision(config, "cpu")}
    assert found["adapter.bnb_4bit_compute_dtype"] == "float32"


def test_with_plenty_of_memory_nothing_is_computed_twice() -> None:
    """A run would be a third slower for nothing."""
    found = choices(100 * GB, [500] * 50)
    assert found == {"gradient_checkpointing": False, "per_device_train_batch_size": 8}


def test_with_little_memory_activations_are_computed_twice_before_batches_shrink() -> None:
    """A run would end out of memory, or with batches of one row."""
    found = choices(2 * GB, [500] * 50)
    assert found == {"gradient_checkpointing": True, "per_device_train_batch_size": 8}
    assert choices(1 * GB, [500] * 50)["per_device_train_batch_size"] == 1


def test_what_is_set_is_not_changed() -> None:
    """A person's own setting would be overruled."""
    fixed = {"training.per_device_train_batch_size": 2, "training.gradient_checkpointing": False}
    assert choices(2 * GB, [500] * 50, **fixed) == {}


def test_never_more_rows_at_once_than_there_are() -> None:
    """The batch size in the config would be one that never happens."""
    assert choices(100 * GB, [500] * 3)["per_device_train_batch_size"] == 3


def test_choices_go_into_the_config_and_can_be_read_back() -> None:
    """A resumed run would choose anew and go on differently."""
    config = parse_config(SETTLED)
    need = estimate_need(tiny_model(), config)
    found = choose_batch(config, need, [500] * 50, device="cpu", free=100 * GB)
    changed = with_choices(config, [*found, *choose_precision(config, "cpu")])
    assert changed.training.per_device_train_batch_size == 8
    assert "auto" not in (changed.training.precision, changed.training.gradient_checkpointing)
    assert parse_config(changed.model_dump()) == changed
    assert config.training.per_device_train_batch_size == "auto"


def test_the_worker_and_the_plan_work_out_the_same_need(tmp_path: Path) -> None:
    """The page would promise a batch that the worker does not choose."""
    model = tiny_model()
    model.save_pretrained(tmp_path)
    config = parse_config({**SETTLED, "training.per_device_train_batch_size": 3})
    config.training.gradient_checkpointing = False
    model.set_attn_implementation(ROW_ATTENTION)
    planned = estimate_run(tmp_path, config, probe(), token_counts={"row_lengths": [[40, 3]]})
    need = estimate_need(model, config)
    assert need is not None and planned.memory is not None
    assert need.total([40] * 3, 3, False) == planned.memory.total


def test_a_model_of_unknown_sizes_gets_one_row_at_a_time() -> None:
    """A run of a model that nobody has seen would not start at all."""
    found = choose_batch(RunConfig(), None, [500] * 50, device="cpu", free=100 * GB)
    chosen = {choice.field.partition(".")[2]: choice.value for choice in found}
    assert chosen == {"gradient_checkpointing": True, "per_device_train_batch_size": 1}


def test_free_memory_of_the_machine_is_known() -> None:
    """The batch would be chosen for memory that is not there."""
    assert 0 < free_bytes("cpu") <= virtual_memory().total
