"""Several data sets become one, each with a weight."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from core.data.build import Said, build_version, free_ids, publish, scratch
from core.data.read.row import Row
from core.data.record import IMPORTED, PARTS, Counts, DatasetInfo, Part, SourceFile
from core.data.registry import load_dataset_info
from core.data.rowfile import META, RowWriter, count_rows, iter_rows
from core.errors import DataError
from core.language import _
from core.progress import Tell
from core.workspace import Workspace

FROM = "dataset"
"""The column that says which data set a row came from."""

_MOST_WEIGHT = 100.0


def combine_datasets(
    workspace: Workspace,
    weighted: Sequence[tuple[str, float]],
    *,
    name: str | None = None,
    seed: int = 42,
    progress: Tell | None = None,
) -> DatasetInfo:
    """A new data set of the rows of others, (id, weight) each.

    A weight of 1 takes every row once, 0.5 a random half, 2.5 every row twice and a random half
    a third time. Rows stay in their parts, so that what was held out stays so; weights matter for
    train only, the other parts come whole. Raises DataError for fewer than two sets, different
    forms, or a weight that is not from above 0 to 100.
    """
    _check_weights(weighted)
    sets = [(load_dataset_info(workspace, one), weight) for one, weight in weighted]
    first = sets[0][0]
    for info, _weight in sets:
        if info.form != first.form:
            raise DataError(
                _(
                    "{first} holds {form} rows and {other} {other_form} rows.",
                    first=first.name,
                    form=first.form,
                    other=info.name,
                    other_form=info.form,
                ),
                _("Only data sets of one form can be put together."),
            )
    title = (name or " + ".join(info.name for info, _weight in sets)).strip()
    info = DatasetInfo(
        id="",
        name=title,
        form=first.form,
        form_reason=_("Put together from data sets of this form."),
        version=1,
    )
    said = Said(progress)
    with scratch(workspace) as folder:
        ready = folder / "ready"
        files = _write(ready / IMPORTED, sets, seed, said.part(0.0, 0.8))
        info.sources = [_source(one, weight) for one, weight in sets]
        info.columns = list(
            dict.fromkeys([*(c for one, _weight in sets for c in one.columns), FROM])
        )
        total = sum(count_rows(path) for path in files.values())
        info.counts = Counts(read=total)
        build_version(workspace, info, files, [], ready, said.part(0.8, 0.99))
        info.remember(_("Put together"))
        return publish(workspace, info, ready, free_ids(title), said)


def _check_weights(weighted: Sequence[tuple[str, float]]) -> None:
    if len(weighted) < 2:
        raise DataError(_("There is nothing to put together."), _("Choose two data sets or more."))
    for dataset_id, weight in weighted:
        if not 0 < weight <= _MOST_WEIGHT:
            raise DataError(
                _(
                    "A weight of {weight:g} for {name} is not possible.",
                    weight=weight,
                    name=dataset_id,
                ),
                _(
                    "Give a number above 0 and up to {most:g}; 1 takes every row once.",
                    most=_MOST_WEIGHT,
                ),
            )


def _source(info: DatasetInfo, weight: float) -> SourceFile:
    origin = {"dataset": info.id, "version": info.version, "weight": weight}
    rows = info.counts.train + info.counts.eval + info.counts.test
    return SourceFile(file=info.name, sha256=info.fingerprint, rows=rows, origin=origin)


def _write(
    folder: Path, sets: Sequence[tuple[DatasetInfo, float]], seed: int, progress: Tell
) -> dict[Part, Path]:
    folder.mkdir(parents=True)
    files: dict[Part, Path] = {}
    total = max(
        sum(one.counts.train + one.counts.eval + one.counts.test for one, _weight in sets), 1
    )
    done = 0
    for part in PARTS:
        path = folder / f"{part}.parquet"
        with RowWriter(path, sets[0][0].form) as writer:
            for info, weight in sets:
                if part not in info.parts:
                    continue
                message = _("Taking the rows of {name}", name=info.name)
                repeated = weight if part == "train" else 1.0
                for row in _weighted(info.rows_path(part), repeated, seed):
                    row[META] = {**(row.get(META) or {}), FROM: info.id}
                    writer.add(row)
                    if writer.count % 1000 == 0:
                        progress(min(done / total, 1.0), message)
                done += count_rows(info.rows_path(part))
        if writer.count:
            files[part] = path
        else:
            path.unlink()
    return files


def _weighted(path: Path, weight: float, seed: int) -> Iterator[Row]:
    """Every row as often as the weight says; the fraction of it by chance."""
    times = int(weight)
    count = count_rows(path)
    extra = set(random.Random(seed).sample(range(count), round(count * (weight - times))))
    index = 0
    for batch in iter_rows(path):
        for row in batch:
            for _time in range(times + (index in extra)):
                yield dict(row)
            index += 1
