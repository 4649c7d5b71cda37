"""Rows as the model sees them, and counts of tokens. These functions run in a worker process:
they load the model's tokenizer, which the web process never does."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from core.data.record import DatasetInfo
from core.data.registry import load_dataset_info, read_rows
from core.data.rowfile import iter_rows
from core.data.tokenize import TokenizedRow, no_loss_reason, pieces, tokenize_all, tokenize_row
from core.errors import DataError, ModelError
from core.workspace import Workspace


@lru_cache(maxsize=4)
def _tokenizer(model_path: str) -> Any:
    """The tokenizer of a model; kept, since loading it takes longer than using it."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(model_path, trust_remote_code=False)
    except (OSError, ValueError, ImportError) as error:
        raise ModelError(
            f"The tokenizer of {Path(model_path).name} cannot be loaded: {error}",
            "Choose another model, or a folder that has tokenizer.json in it.",
        ) from error


def preview_rows(
    workspace_root: Path,
    dataset_id: str,
    part: str,
    indices: list[int],
    model_path: str,
    max_length: int | None,
    assistant_only_loss: bool = True,
    system_prompt: str = "",
) -> list[dict[str, Any]]:
    """For each index of a part ("train" or "eval"), what the model sees of that row.

    tokens: [[text, id, carries loss], ...] up to the cut; length and full_length: tokens after
    and before the cut; loss_tokens; error: why the row cannot be learned from, or None.
    """
    workspace = Workspace(Path(workspace_root))
    tokenizer = _tokenizer(str(model_path))
    shown = []
    for index in indices:
        rows = read_rows(workspace, dataset_id, part, offset=index, limit=1)
        if not rows:
            shown.append(_unseen(f"There is no row {index} in the {part} part."))
            continue
        try:
            row = tokenize_row(
                rows[0],
                tokenizer,
                max_length=max_length,
                assistant_only_loss=assistant_only_loss,
                system_prompt=system_prompt,
            )
        except DataError as error:
            shown.append(_unseen(str(error)))
        else:
            shown.append(
                {
                    "tokens": [list(piece) for piece in pieces(row, tokenizer)],
                    "length": row.length,
                    "full_length": row.full_length,
                    "loss_tokens": row.loss_tokens,
                    "error": None if row.has_loss else no_loss_reason(row),
                }
            )
    return shown


def _unseen(error: str) -> dict[str, Any]:
    return {"tokens": [], "length": 0, "full_length": 0, "loss_tokens": 0, "error": error}


def dataset_token_counts(
    workspace_root: Path,
    dataset_id: str,
    model_path: str,
    max_length: int | None,
    assistant_only_loss: bool = True,
    system_prompt: str = "",
    max_rows: int | None = None,
    progress: Callable[[float], None] | None = None,
) -> dict[str, Any]:
    """Counts over all rows, or the first `max_rows` of each part.

    train_rows, eval_rows: rows that were counted; train_tokens, eval_tokens: tokens after the
    cut of the rows that will be used; loss_tokens: those of train that carry loss; longest: the
    most tokens a row has before the cut; cut_rows and cut_tokens: rows that lose tokens, and how
    many; rows_without_loss: rows left out because nothing is learned from them; unusable_rows:
    rows that the template refuses; first_reason: of the first row left out, or None.
    """
    workspace = Workspace(Path(workspace_root))
    info = load_dataset_info(workspace, dataset_id)
    tokenizer = _tokenizer(str(model_path))
    counts: dict[str, Any] = dict.fromkeys(
        "train_rows eval_rows train_tokens eval_tokens loss_tokens longest cut_rows cut_tokens "
        "rows_without_loss unusable_rows".split(),
        0,
    )
    counts["first_reason"] = None
    total = sum(_limited(info, part, max_rows) for part in info.parts)
    for part in info.parts:
        left = _limited(info, part, max_rows)
        for batch in iter_rows(info.rows_path(part)):
            rows = batch[:left]
            left -= len(rows)
            results = tokenize_all(
                rows,
                tokenizer,
                max_length=max_length,
                assistant_only_loss=assistant_only_loss,
                system_prompt=system_prompt,
            )
            for result in results:
                _count(counts, part, result)
            if progress:
                progress((counts["train_rows"] + counts["eval_rows"]) / max(total, 1))
            if left <= 0:
                break
    return counts


def _limited(info: DatasetInfo, part: str, max_rows: int | None) -> int:
    rows = info.counts.train if part == "train" else info.counts.eval
    return rows if max_rows is None else min(rows, max_rows)


def _count(counts: dict[str, Any], part: str, result: TokenizedRow | DataError) -> None:
    counts[f"{part}_rows"] += 1
    if isinstance(result, DataError):
        counts["unusable_rows"] += 1
        counts["first_reason"] = counts["first_reason"] or str(result)
        return
    counts["longest"] = max(counts["longest"], result.full_length)
    if result.is_cut:
        counts["cut_rows"] += 1
        counts["cut_tokens"] += result.full_length - result.length
    if not result.has_loss:
        counts["rows_without_loss"] += 1
        counts["first_reason"] = counts["first_reason"] or no_loss_reason(result)
        return
    counts[f"{part}_tokens"] += result.length
    if part == "train":
        counts["loss_tokens"] += result.loss_tokens
