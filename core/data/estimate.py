"""Counts in a moment, whatever the size of a data set: of some of its rows, for all; and of every
row, for a process that has the time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from core.data.preview import dataset_token_counts
from core.data.registry import load_dataset_info
from core.data.statistics import dataset_statistics
from core.workspace import Workspace

COUNTED_ROWS = 10_000
"""So many rows of each part are counted; the rest is taken to be like them."""

_OF_TRAIN = ("train_tokens", "loss_tokens")


def estimated_token_counts(
    workspace_root: Path,
    dataset_id: str,
    model_path: str,
    max_length: int | None,
    assistant_only_loss: bool = True,
    system_prompt: str = "",
    chat_template: str = "",
) -> dict[str, Any]:
    """As `core.data.preview.dataset_token_counts`, from at most COUNTED_ROWS rows of each part.

    Where there are more, `estimated` is True and the counts are scaled to all rows; `longest` is
    that of the rows that were counted, `counted_rows` how many they were. Runs in a worker.
    """
    counts = dataset_token_counts(
        workspace_root,
        dataset_id,
        model_path,
        max_length,
        assistant_only_loss,
        system_prompt,
        COUNTED_ROWS,
        None,
        chat_template,
    )
    all_rows = load_dataset_info(Workspace(Path(workspace_root)), dataset_id).counts
    counted = counts["train_rows"], counts["eval_rows"]
    of_train = all_rows.train / max(counts["train_rows"], 1)
    of_eval = all_rows.eval / max(counts["eval_rows"], 1)
    of_both = (all_rows.train + all_rows.eval) / max(sum(counted), 1)
    scale = dict.fromkeys(_OF_TRAIN, of_train) | {"eval_tokens": of_eval}
    scale |= dict.fromkeys(("cut_rows", "cut_tokens", "rows_without_loss"), of_both)
    scale |= {"unusable_rows": of_both, "train_rows": of_train, "eval_rows": of_eval}
    return {
        **counts,
        **{name: round(counts[name] * factor) for name, factor in scale.items()},
        "counted_rows": sum(counted),
        "estimated": sum(counted) < all_rows.train + all_rows.eval,
    }


def sampled_statistics(
    workspace_root: Path,
    dataset_id: str,
    model_path: str,
    max_length: int | None,
    assistant_only_loss: bool = True,
    system_prompt: str = "",
    chat_template: str = "",
) -> dict[str, Any]:
    """`core.data.statistics.dataset_statistics` of at most COUNTED_ROWS rows. Runs in a worker."""
    return dataset_statistics(
        workspace_root,
        dataset_id,
        model_path,
        max_length,
        assistant_only_loss,
        system_prompt,
        chat_template,
        COUNTED_ROWS,
    )


def count_every_row(
    workspace_root: Path,
    dataset_id: str,
    model_path: str,
    system_prompt: str,
    chat_template: str,
    progress: Callable[[float, str], None],
) -> None:
    """Counts all rows, and keeps what was counted for `core.data.statistics.read_statistics`.

    For a process of its own (`core.jobs.apart`): a million rows take minutes.
    """

    def tell(share: float) -> None:
        progress(share, "Counting the rest")

    dataset_statistics(
        workspace_root,
        dataset_id,
        model_path,
        None,
        system_prompt=system_prompt,
        chat_template=chat_template,
        progress=tell,
    )
