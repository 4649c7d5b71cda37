"""The rows that are measured: each with the question as the model is asked it and the answer
it should give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from core.config import RunConfig
from core.data.record import DatasetInfo
from core.data.registry import load_dataset_info
from core.data.rowfile import read_slice
from core.data.tokenize import TokenizedRow, as_answered, tokenize_rows, with_system_prompt
from core.data.tool_turns import answer_text
from core.errors import DataError
from core.models.new_tokens import NewTokens
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
    tools: Any = None


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


@dataclass(frozen=True)
class HeldOut:
    """Rows as they stand in one part of a data set, with their places there, and `notes` on
    anything a reader of the numbers must know."""

    info: DatasetInfo
    part: str
    indices: list[int]
    rows: list[dict[str, Any]]
    notes: list[str]


def held_out(
    workspace: Workspace, config: RunConfig, max_rows: int | None, *, forms: Sequence[str] = ()
) -> HeldOut:
    """The held-out rows of the run's data set; training rows where there are none, with a note.

    With `max_rows` so many are taken, spread evenly. Raises DataError when the data set holds rows
    of another form than `forms` now.
    """
    info = load_dataset_info(workspace, config.data.dataset, config.data.dataset_fingerprint)
    if forms and info.form not in forms:
        raise DataError(
            f"{info.name} holds {info.form} rows now; {config.method} is measured on "
            f"{' or '.join(forms)} rows.",
            "Go back to the version of the data set that the run learned from.",
        )
    notes = notes_on_data(info, config)
    part, total = "eval", info.counts.eval
    if not total:
        part, total = "train", info.counts.train
        max_rows = min(max_rows or TRAIN_SAMPLE, TRAIN_SAMPLE)
        notes.append(
            "The data set has no held-out rows. These are rows that the model was trained on, so "
            "the numbers say how well it remembers, not how well it does on new rows."
        )
    indices, path = spread(total, max_rows), info.rows_path(part)
    if len(indices) == total:
        return HeldOut(info, part, indices, read_slice(path, 0, total), notes)
    notes.append(f"{len(indices)} of {total} rows were measured, spread evenly.")
    rows = [row for i in indices for row in read_slice(path, i, 1)]
    return HeldOut(info, part, indices, rows, notes)


def load_eval_set(
    workspace: Workspace, config: RunConfig, tokenizer: Any, max_rows: int | None
) -> EvalSet:
    """The held-out rows of the run's data set; training rows where there are none, with a note.

    With `max_rows` so many are taken, spread evenly. Rows are cut at the run's max_length, as its
    own evaluation does. Raises DataError when no row can be measured.
    """
    found = held_out(workspace, config, max_rows)
    info, part, notes = found.info, found.part, found.notes
    raw, indices, judged = _answered(found.rows, found.indices, info)
    notes += judged
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
            return messages[:place], answer_text(messages[place])
    return None


def prompts_of(rows: list[EvalRow], tokenizer: Any) -> list[list[int]]:
    """The tokens with which the model is asked each row."""
    return [prompt_ids(row.prompt, tokenizer, tools=row.tools) for row in rows]


def notes_on_data(info: DatasetInfo, config: RunConfig) -> list[str]:
    """What a reader must know of rows that are not those of the run."""
    known = config.data.dataset_fingerprint
    if known and info.fingerprint and known != info.fingerprint:
        return [
            "The data set was changed after this run was trained: some of these rows may have "
            "been among those it learned from."
        ]
    return []


def new_tokens_note(tokens: NewTokens) -> str:
    """What the base is, beside a run that added tokens."""
    return (
        f"The run added {len(tokens.ids)} tokens. Both models read the rows with them; in the base "
        "each is the mean of the pieces that it was before."
    )


def _answered(
    raw: list[dict[str, Any]], indices: list[int], info: DatasetInfo
) -> tuple[list[dict[str, Any]], list[int], list[str]]:
    """(rows, their places, notes): of answers that were judged, the good ones are expected."""
    answered = [(place, as_answered(row)) for place, row in zip(indices, raw, strict=True)]
    kept = [(place, row) for place, row in answered if row is not None]
    notes = []
    if info.form == "preference":
        notes.append("The better answer of each pair counts as the expected one.")
    elif info.form == "unpaired-preference":
        bad = len(raw) - len(kept)
        notes.append(
            f"{row_count(len(kept))} with a good answer were measured; {row_count(bad)} with a "
            "bad one were left out."
        )
    return [row for _, row in kept], [place for place, _ in kept], notes


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
        expected, tools = pair[1] if pair else None, raw[place].get("tools")
        rows.append(EvalRow(indices[place], prompt, expected, tokens, tools))
    return rows, dropped
