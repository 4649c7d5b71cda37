"""Rows are counted as rows of the data set, whatever a trainer makes of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from core.worker.training.callbacks import DeviceUse
from core.worker.training.trainer import rows_in_batch


@pytest.mark.parametrize(
    ("batch", "rows"),
    [
        ({"input_ids": torch.zeros(4, 7), "labels": torch.zeros(4, 7)}, 4),
        ({"input_ids": torch.zeros(1, 9), "cu_seq_lens_q": torch.tensor([0, 4, 6, 9])}, 3),
        ({"input_ids": torch.zeros(1, 5), "position_ids": torch.tensor([[0, 1, 2, 0, 1]])}, 2),
        ({"input_ids": torch.zeros(6, 5), "completion_mask": torch.zeros(6, 5)}, 3),
        ({"chosen_input_ids": torch.zeros(2, 5), "rejected_input_ids": torch.zeros(2, 5)}, 2),
        ({"input_ids": torch.zeros(3, 5), "label": [True, False, True]}, 3),
        ([{"prompt": "a"}, {"prompt": "b"}], 2),
    ],
    ids=["padded", "joined", "positions", "pairs", "two columns", "judged", "prompts"],
)
def test_rows_are_counted_in_every_layout(batch: Any, rows: int) -> None:
    assert rows_in_batch(batch) == rows


def test_the_device_s_use_has_units_and_bounds() -> None:
    device = DeviceUse()
    total = sum(number * number for number in range(300_000))
    found = device.sample()
    assert total > 0 and 0 <= found["cpu_percent"] <= 110
    assert found.get("memory_bytes", found.get("gpu_memory_bytes", 0)) > 0
