"""Statistics of a data set with a model's own tokenizer.

`dataset_statistics` runs in a worker: it loads a tokenizer. What it counted of all rows is kept
beside them, and `read_statistics` reads it without one. Both give a dict of plain values:

- form, rows (looked at), rows_total, complete (all were looked at), max_length, model_limit
- lengths: for total, and where the form has them prompt, answer, chosen and rejected: {edges,
  counts, scale (linear or log), mean, percentiles {50, 90, 95, 99, max}}; tokens with the marks of
  the template. Total is that of the longer side of a pair
- cut_rows, cut_rows_share, cut_tokens, cut_tokens_share: what max_length takes away
- epoch: tokens after the cut and packed_rows, in all rows (scaled up from those looked at)
- rows_without_loss, unusable_rows, unusable_reason: rows from which nothing is learned
- turns: [[turns, rows], ...]; labels: [[label, rows], ...]; languages: [[code, rows], ...] of at
  most 2,000 rows, "?" where the guess is unsure; duplicates: rows that repeat one looked at
- suggested: {value, reason, rows_whole, tokens_kept} or None

Only the rows of the train part are counted.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from core.data.chat_templates import MODELS_OWN, load_template
from core.data.languages import guess
from core.data.readers import Row
from core.data.record import DatasetInfo
from core.data.registry import load_dataset_info
from core.data.rowfile import ROWS_A_GROUP, iter_rows, read_slice
from core.data.rowtext import row_text
from core.data.statistics_summary import Tally, summarize
from core.data.steps.duplicates import row_digest
from core.errors import DataError, ModelError
from core.workspace import Workspace, write_atomic

LANGUAGE_ROWS = 2000
_SURE = 0.5
_UNSURE = "?"
_TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt", "merges.txt",
    "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
)
_SPLIT_FORMS = ("prompt-completion", "messages", "unpaired-preference")
"""Forms with one answer: prompt and answer are told apart by where the loss is."""


def dataset_statistics(
    workspace_root: Path,
    dataset_id: str,
    model_path: str,
    max_length: int | None,
    assistant_only_loss: bool = True,
    system_prompt: str = "",
    chat_template: str = "",
    max_rows: int | None = None,
    progress: Callable[[float], None] | None = None,
    fingerprint: str = "",
) -> dict[str, Any]:
    """The statistics of all train rows, or of `max_rows` from the whole length of the set.

    What was counted of all rows is kept, and taken from there the next time; then only
    `max_length` and `assistant_only_loss` may differ. `chat_template` is a template's name ("" or
    "model": the model's own), `fingerprint` that of an earlier version. With "" for `model_path`,
    only what needs no tokenizer: turns, labels, languages, duplicates. Raises DataError.
    """
    workspace = Workspace(Path(workspace_root))
    info = load_dataset_info(workspace, dataset_id, fingerprint)
    place = _place(info, workspace, model_path, system_prompt, chat_template)
    tally = _read(place)
    if tally is None:
        from core.data.preview import model_tokenizer

        tokenizer = model_tokenizer(workspace, model_path, chat_template) if model_path else None
        limit = model_limit(model_path, tokenizer) if model_path else None
        tally = Tally(form=info.form, rows_total=info.counts.train, limit=limit)
        _count(tally, info, tokenizer, system_prompt, max_rows, progress)
        if tally.complete:
            write_atomic(place, tally.model_dump_json())
    return summarize(tally, max_length, assistant_only_loss)


def read_statistics(
    workspace: Workspace,
    info: DatasetInfo,
    model_path: str,
    max_length: int | None,
    assistant_only_loss: bool = True,
    system_prompt: str = "",
    chat_template: str = "",
) -> dict[str, Any] | None:
    """The statistics of all train rows if they were counted before; None if not. Reads a small
    file and loads no tokenizer."""
    tally = _read(_place(info, workspace, model_path, system_prompt, chat_template))
    return None if tally is None else summarize(tally, max_length, assistant_only_loss)


def model_limit(model_path: str, tokenizer: Any) -> int | None:
    """The most tokens a model reads, by its config and its tokenizer; None if they do not say."""
    from core.models.describe import describe_model

    try:
        limit = describe_model(model_path).max_position_embeddings
    except ModelError:
        limit = None  # a Hub id or a folder of a tokenizer alone
    own = tokenizer.model_max_length  # a huge number where it is not set
    return limit or (int(own) if own and own < 10**7 else None)


def _place(
    info: DatasetInfo, workspace: Workspace, model_path: str, system_prompt: str, template: str
) -> Path:
    """The file of the counts: its name says by which rows, tokenizer and template."""
    own = template in ("", MODELS_OWN)
    text = "" if own else load_template(template, workspace)
    key = hashlib.sha256()
    for part in ("statistics 1", info.fingerprint, system_prompt, text):
        key.update(hashlib.sha256(part.encode()).digest())
    folder = Path(model_path)
    names = _TOKENIZER_FILES if model_path else ()
    files = [folder / name for name in names if (folder / name).is_file()]
    for path in files:
        state = path.stat()
        key.update(_file_digest(path, state.st_mtime_ns, state.st_size))
    if not files:
        key.update(str(model_path).encode())
    return info.version_folder / f"statistics-{key.hexdigest()[:16]}.json"


@lru_cache(maxsize=64)
def _file_digest(path: Path, changed_ns: int, size: int) -> bytes:
    """Remembered while the file stays as it is: a tokenizer has some megabytes."""
    return hashlib.sha256(path.read_bytes()).digest()


def _read(path: Path) -> Tally | None:
    """A file that is missing or damaged is counted anew."""
    try:
        return Tally.model_validate_json(path.read_bytes())
    except (OSError, ValueError):
        return None


def _count(
    tally: Tally,
    info: DatasetInfo,
    tokenizer: Any,
    system_prompt: str,
    max_rows: int | None,
    progress: Callable[[float], None] | None,
) -> None:
    looked_at = min(tally.rows_total, max_rows or tally.rows_total)
    every = max(looked_at // LANGUAGE_ROWS, 1)
    seen: set[bytes] = set()
    for rows in _batches(info, max_rows):
        for row in rows:
            key = row_digest(row)
            tally.duplicates += key in seen
            seen.add(key)
            if tally.rows % every == 0 and tally.languages.total() < LANGUAGE_ROWS:
                tally.languages[_language(row)] += 1
            tally.rows += 1
            _count_columns(tally, row)
        if tokenizer is not None:
            _count_sides(tally, rows, tokenizer, system_prompt)
        if progress:
            progress(tally.rows / max(looked_at, 1))


def _count_sides(tally: Tally, rows: list[Row], tokenizer: Any, system_prompt: str) -> None:
    from core.data.sides import sides_of_rows

    # Where the loss is tells the prompt from the answer, whatever a run will learn from.
    for sides in sides_of_rows(
        rows, tokenizer, max_length=None, assistant_only_loss=True, system_prompt=system_prompt
    ):
        _count_tokens(tally, sides)


def _batches(info: DatasetInfo, max_rows: int | None) -> Iterator[list[Row]]:
    """All train rows, or about `max_rows` in stretches from the whole length of the part."""
    path, total = info.rows_path("train"), info.counts.train
    if max_rows is None or total <= max_rows:
        yield from iter_rows(path)
        return
    stretches = max(max_rows // ROWS_A_GROUP, 1)
    size = max_rows // stretches
    for number in range(stretches):
        yield read_slice(path, number * total // stretches, size)


def _language(row: Row) -> str:
    code, confidence = guess(row_text(row))
    return code if code and confidence >= _SURE else _UNSURE


def _count_columns(tally: Tally, row: Row) -> None:
    """What can be seen without a tokenizer: turns and labels."""
    if "labels" in row:
        tally.labels.update(row["labels"] or ["no label"])
    elif tally.form == "unpaired-preference":
        tally.labels["desirable" if row["label"] else "undesirable"] += 1
    answer = row.get("chosen") or row.get("completion") or ()
    turns = [*(row.get("messages") or row.get("prompt") or ()), *answer]
    if turns:
        tally.turns[sum(turn["role"] != "system" for turn in turns)] += 1


def _count_tokens(tally: Tally, sides: list[Any]) -> None:
    """Adds the lengths of a row's sides (`core.data.sides.Side`)."""
    problem = next((str(s.tokens) for s in sides if isinstance(s.tokens, DataError)), None)
    if problem:
        tally.unusable += 1
        tally.reason = tally.reason or problem
        return
    lengths = [side.tokens.full_length for side in sides]
    learned = [side.tokens.loss_tokens for side in sides]
    found = {"total": max(lengths)}
    if tally.form == "preference":
        found["prompt"] = lengths[0] - learned[0]
        found["chosen"], found["rejected"] = learned[0], learned[1]
    elif tally.form in _SPLIT_FORMS:
        found["prompt"], found["answer"] = lengths[0] - learned[0], learned[0]
    for name, length in found.items():
        tally.lengths.setdefault(name, Counter())[length] += 1
    tally.sides.update(lengths)
    if not all(side.learns for side in sides):
        return
    if all(learned):
        tally.begins[max(_first_loss(side.tokens) for side in sides)] += 1
    else:
        tally.never += 1


def _first_loss(tokens: Any) -> int:
    from core.data.tokenize import NO_LOSS

    return next(i for i, label in enumerate(tokens.labels) if label != NO_LOSS)
