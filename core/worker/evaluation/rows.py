"""The rows that are measured: each with the question as the model is asked it and the answer
it should give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from core.config import RunConfig
from core.data.record import DatasetInfo
from core.data.registry import load_dataset_info
from core.data.rowfile import rows_at
from core.errors import DataError
from core.evaluation.report import Note, note
from core.language import _
from core.tokens.learn import Learn, last_good_answer
from core.tokens.prompts import Message, prompt_ids
from core.tokens.tokenize import TokenizedRow, as_answered, tokenize_rows, with_system_prompt
from core.tokens.tool_turns import answer_text
from core.workspace import Workspace

# So many training rows stand in where a data set has no held-out ones.
TRAIN_SAMPLE = 40
# The part of a data set that the run has not learned from.
OTHER_ROWS = "other"

R = TypeVar("R")
K = TypeVar("K")


@dataclass(frozen=True)
class EvalRow:
    """A row to measure.

    `index` is its place in its part of the data set. `prompt` and `expected` are the last answer
    and what comes before it; a text row has neither. `tokens` carry the loss. `meta` is what else
    the data set keeps of the row.
    """

    index: int
    prompt: list[Message]
    expected: str | None
    tokens: TokenizedRow
    tools: Any = None
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class HeldOut(Generic[R]):
    """Rows of one part of a data set with their places there, and `notes` on anything a reader of
    the numbers must know."""

    info: DatasetInfo
    part: str
    indices: list[int]
    rows: list[R]
    notes: list[Note]

    def measurable(self, kept: Sequence[tuple[int, K]], reasons: Sequence[str]) -> HeldOut[K]:
        """The rows that can be measured, each with the place that it has in `rows`; a note tells of
        the others. Raises DataError when there are none."""
        if not kept:
            why = reasons[0] if reasons else _("it is empty")
            raise DataError(
                _("No row of {name} can be measured: {why}", name=self.info.name, why=why),
                _("Look at its preview."),
            )
        notes = list(self.notes)
        if reasons:
            notes.append(note("left_out", rows=len(reasons), reason=reasons[0]))
        indices = [self.indices[place] for place, _row in kept]
        return HeldOut(self.info, self.part, indices, [row for _place, row in kept], notes)


def held_out(
    workspace: Workspace,
    config: RunConfig,
    max_rows: int | None,
    *,
    forms: Sequence[str] = (),
    learned: bool = True,
) -> HeldOut[dict[str, Any]]:
    """The held-out rows of the run's data set; training rows where there are none, with a note.

    Of a data set that the run has not `learned` from, its test rows, or those held out, or else
    all. With `max_rows` so many are taken, spread evenly. Raises DataError when the data set holds
    rows of another form than `forms` now.
    """
    info = load_dataset_info(workspace, config.data.dataset, config.data.dataset_fingerprint)
    if forms and info.form not in forms:
        raise DataError(
            _(
                "{name} holds {form} rows now; {method} is measured on {forms} rows.",
                name=info.name,
                form=info.form,
                method=config.method,
                forms=" / ".join(forms),
            ),
            _("Go back to the version of the data set that the run learned from."),
        )
    notes = notes_on_data(info, config)
    part, total = "eval", info.counts.eval
    if not learned:
        part = next((one for one in ("test", "eval") if getattr(info.counts, one)), "train")
        total = getattr(info.counts, part)
    elif not total:
        part, total = "train", info.counts.train
        max_rows = min(max_rows or TRAIN_SAMPLE, TRAIN_SAMPLE)
        notes.append(note("training_rows"))
    indices, path = spread(total, max_rows), info.rows_path(part)
    part = part if learned else OTHER_ROWS
    if len(indices) < total:
        notes.append(note("spread", measured=len(indices), total=total))
    return HeldOut(info, part, indices, list(rows_at(path, indices).values()), notes)


def load_eval_set(
    workspace: Workspace,
    config: RunConfig,
    tokenizer: Any,
    max_rows: int | None,
    learned: bool = True,
) -> HeldOut[EvalRow]:
    """The held-out rows of the run's data set as they are asked and answered; training rows where
    there are none, with a note.

    With `max_rows` so many are taken, spread evenly. Rows are cut at the run's max_length, as its
    own evaluation does. Raises DataError when no row can be measured.
    """
    found = _answered(held_out(workspace, config, max_rows, learned=learned))
    system = config.data.system_prompt
    tokenized, dropped = tokenize_rows(
        found.rows,
        tokenizer,
        max_length=config.training.max_length,
        learn=Learn.of(config).answers,
        system_prompt=system,
    )
    without = {place for place, _ in dropped}
    kept = [place for place in range(len(found.rows)) if place not in without]
    rows = []
    for place, tokens in zip(kept, tokenized, strict=True):
        raw = found.rows[place]
        pair = question_and_answer(raw)
        prompt = with_system_prompt(pair[0], system) if pair else []
        expected = pair[1] if pair else None
        row = EvalRow(
            found.indices[place], prompt, expected, tokens, raw.get("tools"), raw.get("meta") or {}
        )
        rows.append((place, row))
    return found.measurable(rows, [reason for _, reason in dropped])


def spread(total: int, wanted: int | None) -> list[int]:
    """`wanted` places of 0..total-1, spread evenly; all of them when there are no more."""
    if wanted is None or wanted >= total:
        return list(range(total))
    return [place * total // wanted for place in range(wanted)]


def question_and_answer(row: dict[str, Any]) -> tuple[list[Message], str] | None:
    """What comes before a row's last answer that is not of weight 0, and that answer; None where
    it has none."""
    if "prompt" in row:
        messages = [*row["prompt"], *row["completion"]]
    else:
        messages = list(row.get("messages") or [])
    place = last_good_answer(messages)
    return (messages[:place], answer_text(messages[place])) if place else None


def prompts_of(rows: list[EvalRow], tokenizer: Any) -> list[list[int]]:
    """The tokens with which the model is asked each row."""
    return [prompt_ids(row.prompt, tokenizer, tools=row.tools) for row in rows]


def notes_on_data(info: DatasetInfo, config: RunConfig) -> list[Note]:
    """What a reader must know of rows that are not those of the run."""
    known = config.data.dataset_fingerprint
    is_other = known and info.fingerprint and known != info.fingerprint
    return [note("changed_data")] if is_other else []


def _answered(found: HeldOut[dict[str, Any]]) -> HeldOut[dict[str, Any]]:
    """Of answers that were judged, the good ones are expected."""
    answered = [as_answered(row) for row in found.rows]
    kept = [(index, row) for index, row in zip(found.indices, answered, strict=True) if row]
    notes = list(found.notes)
    if found.info.form == "preference":
        notes.append(note("better_expected"))
    elif found.info.form == "unpaired-preference":
        bad = len(answered) - len(kept)
        notes.append(note("good_expected", rows=len(kept), others=bad))
    indices, rows = [index for index, _ in kept], [row for _, row in kept]
    return HeldOut(found.info, found.part, indices, rows, notes)
