"""What the tests of preferences measure and compare with: a model's own margins, and the settings
of a bare TRL script."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from core.tokens.sides import sides_of_rows
from core.tokens.tokenize import TokenizedRow
from tests.preferences import THINGS, judged, pairs


@torch.no_grad()
def mean_margin(model: Any, tokenizer: Any, data: str) -> float:
    """Mean log probability of the better held-out answers less that of the worse ones."""
    kind = {"judged": judged, "worse": pairs}[data](THINGS[4:])
    sums: dict[str, list[float]] = {"Chosen": [], "Rejected": []}
    for row, sides in zip(kind, sides_of_rows(kind, tokenizer, max_length=64), strict=True):
        for side in sides:
            tokens = side.tokens
            assert isinstance(tokens, TokenizedRow)
            ids, labels = torch.tensor([tokens.input_ids]), torch.tensor(tokens.labels[1:])
            scores = model(ids).logits[0, :-1].log_softmax(-1)
            kept = labels != -100
            total = scores[kept].gather(1, labels[kept][:, None]).sum().item()
            title = side.title
            if title == "Answer":
                title = "Chosen" if row["label"] else "Rejected"
            sums[title].append(total)
    better, worse = sums["Chosen"], sums["Rejected"]
    sign = -1 if data == "worse" else 1
    return sign * (sum(better) / len(better) - sum(worse) / len(worse))


def bare_arguments(folder: Path, **changes: Any) -> dict[str, Any]:
    return {
        "output_dir": str(folder),
        "learning_rate": 4e-3,
        "num_train_epochs": 2,
        "per_device_train_batch_size": 4,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.05,
        "optim": "adamw_torch_fused",
        "max_length": 64,
        "logging_steps": 1,
        "gradient_checkpointing": False,
        "bf16": False,
        "use_cpu": True,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "seed": 42,
        **changes,
    }
