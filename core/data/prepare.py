"""Files to a prepared data set: read, convert, drop what cannot be learned from, split, write.

All of it happens in a folder beside the data sets, which is renamed into place at the end:
a data set is there as a whole or not at all.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import random
import re
import shutil
import tempfile
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from core.data.conversion import Unusable, convert
from core.data.formats import FORMS, ROWS_TO_DETECT, Detection, choose
from core.data.readers import Record, Row, no_readable_row, opened, read_records
from core.data.record import (
    DELETED,
    LISTED_DROPS,
    SAMPLE_ID,
    Counts,
    DatasetInfo,
    DroppedRow,
    Part,
    SourceFile,
    Split,
    read_record,
)
from core.data.rowfile import RowWriter, digests_of, fingerprint, release_memory, split_file
from core.errors import DataError
from core.workspace import Workspace

Progress = Callable[[float, str], None]

_SAMPLE_FOLDER = Path(__file__).parents[2] / "assets" / "samples" / "support-tickets"
_TEMPORARY = ".import-"
_ABANDONED_AFTER_SECONDS = 24 * 3600
_READING_SHARE = 0.9  # of the whole time; the rest is splitting


def import_dataset(
    workspace: Workspace,
    sources: Sequence[str | Path],
    *,
    name: str | None = None,
    form: str | None = None,
    mapping: Mapping[str, str] | None = None,
    eval_source: str | Path | None = None,
    eval_fraction: float = 0.1,
    seed: int = 42,
    system_prompt: str = "",
    progress: Progress | None = None,
    task: dict[str, Any] | None = None,
) -> DatasetInfo:
    """Imports files as one data set and returns its record.

    `form` is a name in `formats.FORMS` (detected if None), `mapping` gives columns for its
    fields. With `eval_fraction` above 0 and two rows or more, at least one row is held out and
    one stays; the same rows, fraction and seed give the same split. `eval_source` is a file
    whose rows are held out instead. `system_prompt` goes before each conversation without one.
    `progress` gets (fraction, message) and may raise to stop the import. Raises DataError, or
    WorkspaceError for a path that may not be read; then nothing is left behind.
    """
    if not sources:
        raise DataError("No file was given.", "Choose at least one.")
    if not 0 <= eval_fraction < 1:
        raise DataError(
            f"An eval fraction of {eval_fraction} is not possible.",
            "Give a number from 0 to below 1, such as 0.1.",
        )
    paths = [_checked_file(workspace, path) for path in sources]
    held_out = _checked_file(workspace, eval_source) if eval_source else None
    found = choose(first_rows(paths), form, mapping)
    standard = FORMS[found.form or ""].standard
    if system_prompt.strip() and standard == "text":
        raise DataError(
            "Plain text has no place for a system prompt.",
            "Leave the system prompt empty, or choose a form with turns.",
        )
    split = Split(
        eval_fraction=0.0 if held_out else eval_fraction,
        seed=seed,
        eval_source=held_out.name if held_out else None,
    )
    title = (name or paths[0].stem).strip() or "data"
    info = DatasetInfo(
        id="", name=title, form=standard, split=split, system_prompt=system_prompt, task=task
    )
    return _Import(workspace, info, found, paths, held_out, progress).run(_free_ids(title))


def ensure_sample(workspace: Workspace) -> DatasetInfo:
    """The sample data set, imported from the project's assets on first need."""
    place = workspace.dataset(SAMPLE_ID)
    if (place / "dataset.json").is_file():
        return read_record(place)
    train, held_out = _SAMPLE_FOLDER / "train.jsonl", _SAMPLE_FOLDER / "eval.jsonl"
    try:
        task = json.loads((_SAMPLE_FOLDER / "task.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            "The sample data set is missing or damaged (assets/samples/support-tickets).",
            "Get the project's assets folder again.",
        ) from error
    found = choose(first_rows([train]))
    info = DatasetInfo(
        id="",
        name=task.get("title", "Sample"),
        description=task.get("description", ""),
        form=FORMS[found.form or ""].standard,
        split=Split(eval_source=held_out.name),
        task=task,
    )
    try:
        return _Import(workspace, info, found, [train], held_out, None).run([SAMPLE_ID])
    except DataError:
        # Somebody else may have imported it at the same moment.
        if (place / "dataset.json").is_file():
            return read_record(place)
        raise


def first_rows(paths: Sequence[Path], limit: int = ROWS_TO_DETECT) -> list[Row]:
    """The first readable rows of each file. Raises DataError when a file has none."""
    rows: list[Row] = []
    for path in paths:
        broken: Record | None = None
        found = 0
        for record in read_records(path):
            if record.row is None:
                broken = broken or record
            else:
                rows.append(record.row)
                found += 1
            if found == limit:
                break
        if not found:
            raise no_readable_row(path, broken)
    return rows


def _checked_file(workspace: Workspace, path: str | Path) -> Path:
    resolved = workspace.confine(path)
    if not resolved.is_file():
        raise DataError(f"{path} is not a file.", "Choose the files in it one by one.")
    return resolved


def _free_ids(name: str) -> Iterator[str]:
    """Ids from a name: `my-tickets`, `my-tickets-2`, ... The sample keeps its own."""
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "-", ascii_name).strip("-")[:60].strip("-") or "data"
    if slug != SAMPLE_ID:
        yield slug
    for number in itertools.count(2):
        yield f"{slug}-{number}"


@dataclass
class _Import:
    """One import: what it was asked for, and what it has found so far."""

    workspace: Workspace
    info: DatasetInfo
    found: Detection
    sources: list[Path]
    eval_source: Path | None
    progress: Progress | None
    counts: Counts = field(default_factory=Counts)
    reasons: Counter[str] = field(default_factory=Counter)
    _reported: float = -1.0

    def run(self, ids: Iterable[str]) -> DatasetInfo:
        """Prepares in a folder of its own and gives it the first free id."""
        self._clear_abandoned()
        try:
            folder = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=self.workspace.datasets))
        except OSError as error:
            raise _not_written(error) from error
        try:
            self._write(folder)
            return self._publish(folder, ids)
        except OSError as error:
            raise _not_written(error) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            release_memory()

    def _write(self, folder: Path) -> None:
        info, form = self.info, self.info.form
        rows = folder / "rows.parquet"
        with RowWriter(rows, form) as train:
            self._read_into(train, "train", self.sources, self.found)
        self._require_rows(train.count, self.sources)
        held: bytes | bytearray = b""
        kept: bytes | bytearray = train.digests
        if self.eval_source:
            with RowWriter(folder / "eval.parquet", form) as held_out:
                self._read_into(held_out, "eval", [self.eval_source], self._eval_detection())
            self._require_rows(held_out.count, [self.eval_source])
            held = held_out.digests
            self.counts.eval = held_out.count
        else:
            chosen = held_out_indices(train.count, info.split.eval_fraction, info.split.seed)
            self.counts.eval = len(chosen)
            if chosen:
                kept, held = self._split(folder, train, chosen)
        if not rows.exists():
            self.counts.train = train.count - self.counts.eval
        else:
            rows.rename(folder / "train.parquet")
            self.counts.train = train.count
        info.form_reason, info.mapping = self.found.reason, dict(self.found.mapping)
        info.source_form = self.found.form or ""
        info.counts = self.counts
        info.fingerprint = fingerprint(form, kept, held)
        info.created_at = datetime.now(UTC).astimezone().isoformat(timespec="milliseconds")

    def _split(self, folder: Path, train: RowWriter, chosen: set[int]) -> tuple[bytes, bytes]:
        rows, form = folder / "rows.parquet", self.info.form
        targets = folder / "train.parquet", folder / "eval.parquet"
        for done in split_file(rows, form, chosen, *targets):
            self._say(_READING_SHARE + (1 - _READING_SHARE) * done, "Splitting")
        rows.unlink()
        stay = [index for index in range(train.count) if index not in chosen]
        return digests_of(train.digests, stay), digests_of(train.digests, sorted(chosen))

    def _eval_detection(self) -> Detection:
        """How to read the eval file: as the train file, or in its own way to the same form."""
        assert self.eval_source is not None
        rows = first_rows([self.eval_source])
        columns = {name for row in rows for name in row}
        form = FORMS[self.found.form or ""]
        if all(self.found.mapping[name] in columns for name in form.required):
            return self.found
        own = choose(rows)
        if FORMS[own.form or ""].standard != self.info.form:
            raise DataError(
                f"{self.eval_source.name} holds {own.form} rows, the training file {form.name}.",
                "Bring both in the same form.",
            )
        return own

    def _read_into(
        self, target: RowWriter, part: Part, paths: list[Path], found: Detection
    ) -> None:
        form = found.form or ""
        all_paths = [*self.sources, *([self.eval_source] if self.eval_source else [])]
        sizes = {path: path.stat().st_size for path in all_paths}
        total = max(sum(sizes.values()), 1)
        for path in paths:
            before = sum(sizes[other] for other in all_paths[: all_paths.index(path)])
            message, read = f"Reading {path.name}", 0
            for record in read_records(path):
                read += 1
                row, reason = record.row, record.problem
                if row is not None:
                    try:
                        target.add(convert(row, form, found.mapping, self.info.system_prompt))
                    except Unusable as error:
                        reason = str(error)
                if reason:
                    self._drop(record.line, part, reason, path.name)
                self._say(_READING_SHARE * (before + record.done * sizes[path]) / total, message)
            self.counts.read += read
            self.info.sources.append(SourceFile(file=path.name, sha256=_sha256(path), rows=read))

    def _drop(self, line: int, part: Part, reason: str, file: str) -> None:
        self.counts.dropped += 1
        self.reasons[reason] += 1
        if len(self.info.dropped) < LISTED_DROPS:
            self.info.dropped.append(DroppedRow(line=line, part=part, reason=reason, file=file))

    def _require_rows(self, count: int, paths: list[Path]) -> None:
        if count:
            return
        names = ", ".join(path.name for path in paths)
        common = "; ".join(f"{reason} ({n})" for reason, n in self.reasons.most_common(3))
        raise DataError(
            f"No row of {names} can be learned from: {common}.",
            "Choose another form or other columns, or mend the file.",
        )

    def _say(self, fraction: float, message: str) -> None:
        """Reports at most a hundred times in all."""
        if self.progress and fraction >= self._reported + 0.01:
            self._reported = fraction
            self.progress(min(fraction, 1.0), message)

    def _publish(self, folder: Path, ids: Iterable[str]) -> DatasetInfo:
        for candidate in ids:
            place = self.workspace.dataset(candidate)
            if place.exists():
                continue
            self.info.id = candidate
            self.info.save(folder)
            try:
                # Fails where somebody else's full folder came in between.
                os.rename(folder, place)
            except OSError:
                if place.exists():
                    continue
                raise
            self.info.folder = place
            if self.progress:
                self.progress(1.0, "Done")
            return self.info
        raise DataError("The id of the data set is taken.", "Choose another name.")

    def _clear_abandoned(self) -> None:
        """Removes what was left behind when an import or a deletion was killed long ago."""
        for folder in self.workspace.datasets.glob(".*-*"):
            try:
                age = time.time() - folder.stat().st_mtime
            except FileNotFoundError:  # another import has just finished
                continue
            ours = folder.name.startswith((_TEMPORARY, DELETED))
            if ours and age > _ABANDONED_AFTER_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)


def held_out_indices(rows: int, fraction: float, seed: int) -> set[int]:
    """Which of `rows` rows are held out: round(rows * fraction), at least one and not all."""
    if fraction <= 0 or rows < 2:
        return set()
    count = min(max(round(rows * fraction), 1), rows - 1)
    return set(random.Random(seed).sample(range(rows), count))


def _sha256(path: Path) -> str:
    with opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _not_written(error: OSError) -> DataError:
    # Parquet's own errors carry the number, and their text twice.
    reason = os.strerror(error.errno) if error.errno else str(error)
    return DataError(
        f"The data set could not be written: {reason}.",
        "Look at the free space and the rights of the workspace's folder, then import again.",
    )
