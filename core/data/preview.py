"""Rows as the model sees them, and counts of tokens. These functions run in a worker process:
they load the model's tokenizer, which the web process never does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from copy import copy
from functools import lru_cache
from pathlib import Path
from typing import Any

from core.data.chat_templates import (
    MODELS_OWN,
    load_template,
    names_used,
    split_marks,
    use_template,
)
from core.data.record import DatasetInfo
from core.data.registry import load_dataset_info
from core.data.rowfile import iter_rows, read_slice
from core.data.rowtext import texts
from core.data.sides import Side, label_of, sides_of_rows
from core.data.spans import special_texts
from core.data.tokenize import pieces
from core.data.tool_turns import template_text
from core.errors import DataError, ModelError
from core.workspace import Workspace

CUT_TOKENS = 200
"""So many tokens behind the cut are shown."""

_MOST_NAMED = 5


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


@lru_cache(maxsize=8)
def _templated(model_path: str, template: str) -> Any:
    """The tokenizer of a model with another chat template ("" leaves it its own)."""
    tokenizer = _tokenizer(model_path)
    return use_template(copy(tokenizer), template) if template else tokenizer


@lru_cache(maxsize=8)
def _split_marks(model_path: str, template: str) -> list[str]:
    tokenizer = _templated(model_path, template)
    return split_marks(template_text(tokenizer), tokenizer)


def _template(workspace: Workspace, name: str) -> str:
    return "" if name in ("", MODELS_OWN) else load_template(name, workspace)


def model_tokenizer(workspace: Workspace, model_path: str, chat_template: str = "") -> Any:
    """The tokenizer of a model, with the template of this name; kept. Raises ModelError, and
    DataError for a template that is not there."""
    return _templated(str(model_path), _template(workspace, chat_template))


def preview_rows(
    workspace_root: Path,
    dataset_id: str,
    part: str,
    indices: list[int],
    model_path: str,
    max_length: int | None,
    assistant_only_loss: bool = True,
    system_prompt: str = "",
    chat_template: str = "",
    template_draft: str = "",
) -> list[dict[str, Any]]:
    """For each index of a part ("train", "eval", "test"), what the model sees of that row.

    `chat_template` is the name of a template ("" or "model": the model's own), `template_draft`
    the text of one that is being written and goes before it. Raises DataError without it.

    tokens: [[text, id, carries loss, is special], ...] up to the cut; cut_tokens: up to 200
    behind it; length and full_length: tokens up to the cut and in all; loss_tokens; error: why
    the row cannot be learned from, or None. These are of the first side; `sides` has one dict of
    the same with a `title` for each text that the model gets: two for a preference. label: the
    judgement or labels in words, answer: the reference answer of a prompt, or None. notes: what
    else a person should know of how the row is rendered.
    """
    workspace = Workspace(Path(workspace_root))
    template = template_draft or _template(workspace, chat_template)
    tokenizer = _templated(str(model_path), template)
    path = load_dataset_info(workspace, dataset_id).rows_path(part)
    shown = []
    for index in indices:
        rows = read_slice(path, index, 1) if index >= 0 else []
        if not rows:
            missing = DataError(f"There is no row {index} in the {part} part.")
            shown.append(_seen({}, [Side("", missing)], tokenizer, max_length))
            continue
        sides = sides_of_rows(
            rows,
            tokenizer,
            max_length=None,
            assistant_only_loss=assistant_only_loss,
            system_prompt=system_prompt,
        )[0]
        seen = _seen(rows[0], sides, tokenizer, max_length)
        seen["notes"] = list(_notes(rows[0], tokenizer, _split_marks(str(model_path), template)))
        shown.append(seen)
    return shown


def _seen(
    row: dict[str, Any], sides: list[Side], tokenizer: Any, max_length: int | None
) -> dict[str, Any]:
    """A row as the page shows it. `sides` hold all tokens, so that those behind the cut show."""
    drawn = [_drawn(side, tokenizer, max_length) for side in sides]
    errors = [
        f"{side['title']}: {side['error']}" if len(drawn) > 1 else side["error"]
        for side in drawn
        if side["error"]
    ]
    return {
        **drawn[0],
        "error": " ".join(errors) or None,
        "sides": drawn,
        "label": label_of(row),
        "answer": row.get("answer"),
        "notes": [],
    }


def _drawn(side: Side, tokenizer: Any, max_length: int | None) -> dict[str, Any]:
    if isinstance(side.tokens, DataError):
        empty = {"tokens": [], "cut_tokens": [], "length": 0, "full_length": 0, "loss_tokens": 0}
        return {"title": side.title, **empty, "error": side.problem()}
    cut = side.tokens.cut(max_length)
    shown = side.tokens.cut(None if max_length is None else max_length + CUT_TOKENS)
    found = [list(piece) for piece in pieces(shown, tokenizer)]
    return {
        "title": side.title,
        "tokens": found[: cut.length],
        "cut_tokens": found[cut.length :],
        "length": cut.length,
        "full_length": cut.full_length,
        "loss_tokens": cut.loss_tokens,
        "error": Side(side.title, cut, side.learns).problem(),
    }


def _notes(row: dict[str, Any], tokenizer: Any, split: list[str]) -> Iterator[str]:
    """What the tokens alone do not say."""
    if "text" not in row:
        if not tokenizer.chat_template:
            yield "The model has no chat template: each turn stands on lines of its own."
        elif split:
            more = ", ..." if len(split) > _MOST_NAMED else ""
            yield (
                f"The chat template has marks that the model does not know: "
                f"{', '.join(split[:_MOST_NAMED])}{more}. Choose a template whose marks it knows."
            )
        yield from _notes_on_tools(row, tokenizer)
    marks = [
        mark
        for mark in special_texts(tokenizer)
        if any(mark in text for text in texts(row))
    ]
    if marks:
        named = ", ".join(marks[:_MOST_NAMED])
        yield f"The row's own words contain {named}, which the model reads as a mark."


def _notes_on_tools(row: dict[str, Any], tokenizer: Any) -> Iterator[str]:
    used = names_used(template_text(tokenizer, with_tools=bool(row.get("tools"))))
    turns = [turn for value in row.values() if isinstance(value, list) for turn in value]
    if row.get("tools") and "tools" not in used:
        yield "The chat template knows no tools: they stand as text in the system turn."
    calls = any(isinstance(turn, dict) and turn.get("tool_calls") for turn in turns)
    if calls and "tool_calls" not in used:
        yield "The chat template knows no calls of tools: they stand as text in the answers."


def dataset_token_counts(
    workspace_root: Path,
    dataset_id: str,
    model_path: str,
    max_length: int | None,
    assistant_only_loss: bool = True,
    system_prompt: str = "",
    max_rows: int | None = None,
    progress: Callable[[float], None] | None = None,
    chat_template: str = "",
) -> dict[str, Any]:
    """Counts over all rows of the train and eval parts, or the first `max_rows` of each.

    train_rows, eval_rows: rows that were counted; train_tokens, eval_tokens: tokens after the
    cut of the rows that will be used (of a preference: of both answers); loss_tokens: those of
    train that carry loss; longest: the most tokens a row has before the cut; cut_rows and
    cut_tokens: rows that lose tokens, and how many; rows_without_loss: rows left out because
    nothing is learned from them; unusable_rows: rows that the template refuses; first_reason: of
    the first row left out, or None. row_lengths: [tokens before the cut, rows] of the train rows
    that will be used, the longest first; of a preference those of the longer answer.
    """
    workspace = Workspace(Path(workspace_root))
    info = load_dataset_info(workspace, dataset_id)
    tokenizer = _templated(str(model_path), _template(workspace, chat_template))
    counts: dict[str, Any] = dict.fromkeys(
        "train_rows eval_rows train_tokens eval_tokens loss_tokens longest cut_rows cut_tokens "
        "rows_without_loss unusable_rows".split(),
        0,
    )
    counts["first_reason"] = None
    lengths: Counter[int] = Counter()
    parts = [part for part in info.parts if part != "test"]
    total = sum(_limited(info, part, max_rows) for part in parts)
    for part in parts:
        left = _limited(info, part, max_rows)
        for batch in iter_rows(info.rows_path(part)):
            rows = batch[:left]
            left -= len(rows)
            for sides in sides_of_rows(
                rows,
                tokenizer,
                max_length=max_length,
                assistant_only_loss=assistant_only_loss,
                system_prompt=system_prompt,
            ):
                _count(counts, lengths, part, sides)
            if progress:
                progress((counts["train_rows"] + counts["eval_rows"]) / max(total, 1))
            if left <= 0:
                break
    counts["row_lengths"] = [[length, lengths[length]] for length in sorted(lengths, reverse=True)]
    return counts


def _limited(info: DatasetInfo, part: str, max_rows: int | None) -> int:
    rows: int = getattr(info.counts, part)
    return rows if max_rows is None else min(rows, max_rows)


def _count(
    counts: dict[str, Any], lengths: Counter[int], part: str, sides: list[Side]
) -> None:
    counts[f"{part}_rows"] += 1
    problem = next((problem for side in sides if (problem := side.problem())), None)
    counts["first_reason"] = counts["first_reason"] or problem
    rows = [side.tokens for side in sides if not isinstance(side.tokens, DataError)]
    if len(rows) < len(sides):
        counts["unusable_rows"] += 1
        return
    counts["longest"] = max(counts["longest"], *(row.full_length for row in rows))
    if any(row.is_cut for row in rows):
        counts["cut_rows"] += 1
        counts["cut_tokens"] += sum(row.full_length - row.length for row in rows)
    if problem:
        counts["rows_without_loss"] += 1
        return
    counts[f"{part}_tokens"] += sum(row.length for row in rows)
    if part == "train":
        counts["loss_tokens"] += sum(row.loss_tokens for row in rows)
        lengths[max(row.full_length for row in rows)] += 1
