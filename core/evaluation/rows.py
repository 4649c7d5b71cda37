"""The rows that are measured: each with the question as the model is asked it and the answer
it should give."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from core.config import RunConfig
from core.data.record import DatasetInfo
from core.data.registry import load_dataset_info, read_rows
from core.data.tokenize import TokenizedRow, tokenize_rows
from core.errors import DataError
from core.models.prompts import Message, prompt_ids
from core.workspace import Workspace

# So many training rows stand in where a data set has no held-out ones.
TRAIN_SAMPLE = 40


@dataclass(frozen=True)
class EvalRow:
    """A row to measure.

    `index` is its place in its part of the data set. `prompt` and `expected` are the last answer
    and what comes before it; a text row has neither. `tokens` carry the loss.
    """

    index: int
    prompt: list[Message]
    expected: str | None
    tokens: TokenizedRow


@dataclass(frozen=True)
class EvalSet:
    """The rows of one part, and `notes` on anything a reader of the numbers must know."""

    info: DatasetInfo
    part: str
    rows: list[EvalRow]
    notes: list[str]

    @property
    def has_answers(self) -> bool:
        return all(row.expected is not None for row in self.rows)


def load_eval_set(
    workspace: Workspace, config: RunConfig, tokenizer: Any, max_rows: int | None
) -> EvalSet:
    """The held-out rows of the run's data set; training rows where there are none, with a note.

    With `max_rows` so many are taken, spread evenly. Rows are cut at the run's max_length, as its
    own evaluation does. Raises DataError when no row can be measured.
    """
    info = load_dataset_info(workspace, config.data.dataset)
    notes = _notes_on_data(info, config)
    part, limit = "eval", max_rows
    if not info.counts.eval:
        part = "train"
        limit = min(max_rows or TRAIN_SAMPLE, TRAIN_SAMPLE)
        notes.append(
            "The data set has no held-out rows. These are rows that the model was trained on, so "
            "the numbers say how well it remembers, not how well it does on new rows."
        )
    total = info.counts.eval if part == "eval" else info.counts.train
    indices = spread(total, limit)
    if len(indices) == total:
        raw = read_rows(workspace, info.id, part, 0, total)
    else:
        raw = [row for i in indices for row in read_rows(workspace, info.id, part, i, 1)]
        notes.append(f"{len(indices)} of {total} rows were measured, spread evenly.")
    rows, dropped = _usable(raw, indices, config, tokenizer)
    if dropped:
        notes.append(f"{row_count(len(dropped))} cannot be measured; the first: {dropped[0][1]}")
    if not rows:
        why = dropped[0][1] if dropped else "it is empty"
        raise DataError(f"No row of {info.name} can be measured: {why}", "Look at its preview.")
    return EvalSet(info, part, rows, notes)


def row_count(number: int) -> str:
    return f"{number} row" if number == 1 else f"{number} rows"


def spread(total: int, wanted: int | None) -> list[int]:
    """`wanted` places of 0..total-1, spread evenly; all of them when there are no more."""
    if wanted is None or wanted >= total:
        return list(range(total))
    return [place * total // wanted for place in range(wanted)]


def question_and_answer(row: dict[str, Any]) -> tuple[list[Message], str] | None:
    """What comes before a row's last answer, and that answer; None where it has none."""
    if "prompt" in row:
        messages = [*row["prompt"], *row["completion"]]
    else:
        messages = list(row.get("messages") or [])
    for place in range(len(messages) - 1, 0, -1):
        if messages[place]["role"] == "assistant":
            return messages[:place], str(messages[place]["content"])
    return None


def with_system_prompt(messages: list[Message], system_prompt: str) -> list[Message]:
    """The conversation with the run's system prompt, if it has none of its own."""
    if system_prompt and not any(message["role"] == "system" for message in messages):
        return [{"role": "system", "content": system_prompt}, *messages]
    return messages


def prompts_of(rows: list[EvalRow], tokenizer: Any) -> list[list[int]]:
    """The tokens with which the model is asked each row."""
    return [prompt_ids(row.prompt, tokenizer) for row in rows]


def _notes_on_data(info: DatasetInfo, config: RunConfig) -> list[str]:
    known = config.data.dataset_fingerprint
    if known and info.fingerprint and known != info.fingerprint:
        return [
            "The data set was changed after this run was trained: some of these rows may have "
            "been among those it learned from."
        ]
    return []


def _usable(
    raw: list[dict[str, Any]], indices: list[int], config: RunConfig, tokenizer: Any
) -> tuple[list[EvalRow], list[tuple[int, str]]]:
    system = config.data.system_prompt
    tokenized, dropped = tokenize_rows(
        raw,
        tokenizer,
        max_length=config.training.max_length,
        assistant_only_loss=True,
        system_prompt=system,
    )
    without = {place for place, _ in dropped}
    kept = [place for place in range(len(raw)) if place not in without]
    rows = []
    for place, tokens in zip(kept, tokenized, strict=True):
        pair = question_and_answer(raw[place])
        prompt = with_system_prompt(pair[0], system) if pair else []
        rows.append(EvalRow(indices[place], prompt, pair[1] if pair else None, tokens))
    return rows, dropped
