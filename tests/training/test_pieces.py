"""A batch that is computed a few rows at a time must teach what it teaches as a whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from core.config.optimizers import OPTIMIZERS
from core.worker.training import row_trainer
from core.worker.training.row_trainer import RowTrainer, pieces
from core.workspace import RunFolder
from tests.training.conftest import events

COMPARED = "loss grad_norm mean_token_accuracy num_tokens".split()


def batch(*lengths: int) -> dict[str, Any]:
    ids = torch.arange(sum(lengths))[None]
    places = torch.cat([torch.arange(length) for length in lengths])[None]
    ends = torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()], dtype=torch.int32)
    return {"input_ids": ids, "labels": ids, "position_ids": places, "cu_seq_lens_q": ends}


def test_no_row_is_cut_or_lost() -> None:
    """A row's end would be learned without its beginning, or not at all."""
    whole = batch(3, 4, 9, 2, 2, 2)
    parts = list(pieces(whole, 7))
    lengths = [part["cu_seq_lens_q"].diff().tolist() for part in parts]
    assert lengths == [[3, 4], [9], [2, 2, 2]]
    for name in ("input_ids", "labels", "position_ids"):
        assert torch.equal(torch.cat([part[name] for part in parts], dim=1), whole[name])
    assert all(part["position_ids"][0, 0] == 0 for part in parts)


def test_padded_rows_are_parted_with_their_masks() -> None:
    ids = torch.arange(12).reshape(4, 3)
    parts = list(pieces({"input_ids": ids, "labels": ids, "attention_mask": ids > 0}, 8))
    assert [part["input_ids"].tolist() for part in parts] == [ids[:2].tolist(), ids[2:].tolist()]
    assert torch.equal(parts[1]["attention_mask"], ids[2:] > 0)
    assert len(list(pieces({"input_ids": ids}, 2))) == 4


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The tokens of each forward pass of a training."""
    found: list[int] = []
    before = RowTrainer.compute_loss

    def count(self: RowTrainer, model: Any, inputs: Any, *given: Any, **more: Any) -> Any:
        found.append(inputs["input_ids"].numel())
        return before(self, model, inputs, *given, **more)

    monkeypatch.setattr(RowTrainer, "compute_loss", count)
    return found


def test_weights_that_change_during_the_backward_pass_see_the_whole_batch(
    train: Callable[..., RunFolder], counted: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """LOMO would take a step for each piece."""
    at_once = replace(OPTIMIZERS["sgd"], at_once=True)
    monkeypatch.setitem(OPTIMIZERS, "sgd", at_once)
    monkeypatch.setattr(row_trainer, "TOKENS_AT_ONCE", {4: 8, 2: 8})
    train("at-once", **{"training.optim": "sgd"})
    assert len(counted) == 6


@pytest.mark.parametrize(("accumulated", "attention"), [(1, "auto"), (2, "auto"), (1, "sdpa")])
def test_pieces_teach_what_the_whole_batch_does(
    train: Callable[..., RunFolder],
    counted: list[int],
    monkeypatch: pytest.MonkeyPatch,
    accumulated: int,
    attention: str,
) -> None:
    """Long rows on a CPU would be learned with other weights than short ones."""
    steps = {
        "training.gradient_accumulation_steps": accumulated,
        "training.precision": "fp32",
        "model.attn_implementation": attention,
    }
    whole = train("whole", **steps)
    batches = len(counted)
    monkeypatch.setitem(row_trainer.TOKENS_AT_ONCE, 4, min(counted) // 3)
    in_pieces = train("pieces", **steps)
    assert len(counted) - batches >= 2 * batches
    assert sum(counted[batches:]) == sum(counted[:batches])
    expected, found = (
        [[event[name] for name in COMPARED] for event in events(run, "metrics") if "loss" in event]
        for run in (whole, in_pieces)
    )
    assert len(expected) == 2 * -(-3 // accumulated)
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected), rtol=1e-4, atol=1e-5)
