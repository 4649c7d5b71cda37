"""Rows of a Hub data set, written as JSON Lines.

HF_ENDPOINT, HF_HUB_OFFLINE, HF_HOME and the token store are huggingface_hub's and count here. This
imports `datasets` (and torch with it where that is installed): call it in a worker process, never
in the one that serves the page. Nothing of a data set is ever run as code.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from core.data.read.row import Row
from core.data.read.sources import HubSource
from core.data.read.tables import table_rows
from core.errors import DataError
from core.language import _
from core.models.hub import way_round
from core.progress import Tell

SEED = 42
"""Which rows a sample has, where a share of a data set is drawn at random."""

_ANSWER_SECONDS = 20.0
_ROWS_A_BATCH = 1000
_SECRET = re.compile(r"hf_\w+")


def download(
    source: HubSource, folder: Path, progress: Tell | None = None
) -> tuple[Path, dict[str, Any]]:
    """Writes the wanted rows into `folder` and returns the file and its origin: id, config, split,
    the revision's SHA, and how the rows were chosen.

    A share is the first rows while streaming, else rows drawn with a fixed seed. Where the Hub
    does not say how many rows there are, a share cannot be streamed, and is drawn instead.
    Raises DataError, which says what the Hub refused.
    """
    _check_reachable(source)
    with _told_plainly(source):
        builder = _builder(source)
        known = _known_rows(builder, source.split)
        streamed = source.streaming and (source.fraction == 1 or known is not None)
        place = folder / f"{source.id.replace('/', '--')}-{_plain(source.split)}.jsonl"
        if streamed:
            wanted = math.ceil(known * source.fraction) if known is not None else None
            tables = _streamed(builder, source.split, None if source.fraction == 1 else wanted)
            chosen = "all rows" if source.fraction == 1 else f"the first {wanted:,} of {known:,}"
        else:
            whole = _downloaded(builder, source, progress)
            known, wanted = len(whole), math.ceil(len(whole) * source.fraction)
            if wanted < known:
                drawn = sorted(random.Random(SEED).sample(range(known), wanted))
                whole = whole.select(drawn)
            tables = whole.with_format("arrow").iter(_ROWS_A_BATCH)
            chosen = "all rows" if wanted == known else f"{wanted:,} of {known:,}, seed {SEED}"
        rows = _write(tables, place, wanted, source, progress)
    origin = {
        "hub": source.id,
        "config": builder.config.name,
        "split": source.split,
        "revision": builder.hash,
        "asked_revision": source.revision,
        "rows": rows,
        "chosen": chosen,
    }
    return place, origin


def first_rows(source: HubSource, limit: int) -> list[Row]:
    """The first rows of a split; only they are downloaded. Raises DataError as `download`."""
    _check_reachable(source)
    with _told_plainly(source):
        builder = _builder(source)
        rows: list[Row] = []
        for table in _streamed(builder, source.split, limit):
            rows += [row for row, _ in table_rows(table) if row is not None]
    return rows


def _check_reachable(source: HubSource) -> None:
    """Asks the Hub for the data set, and raises DataError with the reason where it is refused."""
    import httpx2
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.constants import is_offline_mode
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if is_offline_mode():
        raise DataError(
            _("{id} cannot be fetched: HF_HUB_OFFLINE forbids asking the Hub.", id=source.id),
            _("Unset HF_HUB_OFFLINE, or bring the data as a file."),
        )
    try:
        HfApi().dataset_info(source.id, revision=source.revision, timeout=_ANSWER_SECONDS)
    except GatedRepoError as error:
        raise DataError(
            _("{id} is gated: its owner gives access on request.", id=source.id),
            _(
                "Ask for it on the page of {id}, then log in with `python launch.py hub login`.",
                id=source.id,
            ),
        ) from error
    except RevisionNotFoundError as error:
        raise DataError(
            _("{id} has no revision {revision}.", id=source.id, revision=source.revision),
            _("Use main, or a branch, tag or commit that it has."),
        ) from error
    except RepositoryNotFoundError as error:
        if get_token():
            hint = _("Check the spelling, and that your Hub token may read it.")
        else:
            hint = _(
                "Check the spelling. If it is private, log in first with "
                "`python launch.py hub login`."
            )
        raise DataError(
            _("The Hub has no data set {id}, or hides it.", id=source.id), hint
        ) from error
    except HfHubHTTPError as error:
        raise _refused(source, error.response.status_code) from error
    except (httpx2.HTTPError, OSError, ValueError) as error:  # ValueError: a network's login page
        raise _unreachable(source, error) from error


def _refused(source: HubSource, status: int) -> DataError:
    if status in (401, 403):
        return DataError(
            _("The Hub refused your token for {id} (HTTP {status}).", id=source.id, status=status),
            _(
                "Log in again with `python launch.py hub login`, or set HF_TOKEN to a token that "
                "may read it."
            ),
        )
    return DataError(
        _("The Hub answered HTTP {status} when asked for {id}.", status=status, id=source.id),
        _("Try again in a while."),
    )


def _unreachable(source: HubSource, error: BaseException) -> DataError:
    from huggingface_hub.constants import ENDPOINT

    return DataError(
        _(
            "{id} cannot be fetched: {endpoint} does not answer ({error}).",
            id=source.id,
            endpoint=ENDPOINT,
            error=type(error).__name__,
        ),
        _("Look at the network, or bring the data as a file. {way_round}", way_round=way_round()),
    )


@contextmanager
def _told_plainly(source: HubSource) -> Iterator[None]:
    """Turns what the libraries raise into a DataError without a token in it."""
    import httpx2
    import pyarrow as pa
    from datasets.exceptions import DataFilesNotFoundError, DatasetsError
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except HfHubHTTPError as error:
        raise _refused(source, error.response.status_code) from error
    except (httpx2.HTTPError, ConnectionError, TimeoutError) as error:
        raise _unreachable(source, error) from error
    except DataFilesNotFoundError as error:
        raise DataError(
            _("{id} has no files of rows that are known.", id=source.id),
            _("Choose a data set with JSON, CSV, Parquet, Arrow or text files."),
        ) from error
    except (DatasetsError, pa.ArrowException, RuntimeError, ValueError, FileNotFoundError) as error:
        detail = _SECRET.sub("(token)", str(error)).strip().splitlines()
        reason = detail[0].rstrip(".") if detail else type(error).__name__
        raise DataError(
            _("{source} cannot be read: {reason}.", source=str(source), reason=reason),
            _("Look at its page on the Hub, or choose another config, split or data set."),
        ) from error


def _builder(source: HubSource) -> Any:
    """What reads the data set. Raises DataError for a config or a split that it does not have."""
    from datasets import get_dataset_config_names, load_dataset_builder

    # The prefix keeps a folder of that name, or a format's own name, from being taken instead.
    path = f"hf://datasets/{source.id}"
    try:
        builder = load_dataset_builder(
            path, source.config or None, revision=source.revision, token=None
        )
    except ValueError as error:
        names = get_dataset_config_names(path, revision=source.revision)
        if source.config in names or (not source.config and len(names) < 2):
            raise
        if source.config:
            what = _("{id} has no config {config}.", id=source.id, config=source.config)
        else:
            what = _("{id} has several configs.", id=source.id)
        hint = _("Choose one of {names}.", names=", ".join(names[:50]))
        raise DataError(what, hint) from error
    splits = _split_names(builder, source)
    if source.split not in splits:
        raise DataError(
            _("{id} has no split {split}.", id=source.id, split=source.split),
            _("Choose one of {names}.", names=", ".join(splits)),
        )
    return builder


def _split_names(builder: Any, source: HubSource) -> list[str]:
    from datasets import get_dataset_split_names

    if builder.info.splits:
        return list(builder.info.splits)
    return list(
        get_dataset_split_names(
            f"hf://datasets/{source.id}", builder.config.name, revision=source.revision
        )
    )


def _known_rows(builder: Any, split: str) -> int | None:
    found = (builder.info.splits or {}).get(split)
    return int(found.num_examples) if found and found.num_examples else None


def _streamed(builder: Any, split: str, limit: int | None) -> Iterator[Any]:
    rows = builder.as_streaming_dataset(split=split)
    if limit is not None:
        rows = rows.take(limit)
    yield from rows.with_format("arrow").iter(batch_size=_ROWS_A_BATCH)


def _downloaded(builder: Any, source: HubSource, progress: Tell | None) -> Any:
    if progress:
        progress(0.0, _("Downloading {id}", id=source.id))
    builder.download_and_prepare()
    return builder.as_dataset(split=source.split)


def _write(
    tables: Iterator[Any],
    place: Path,
    wanted: int | None,
    source: HubSource,
    progress: Tell | None,
) -> int:
    count = 0
    with place.open("wb") as file:
        for table in tables:
            for row, problem in table_rows(table):
                count += 1
                # A row that cannot be read stays a line, which is counted when it is imported.
                file.write(orjson.dumps(row if row is not None else problem) + b"\n")
            if progress:
                share = min(count / wanted, 1.0) if wanted else 0.0
                progress(share, _so_far(source.id, count, wanted))
    if not count:
        raise DataError(_("{source} has no rows.", source=str(source)), _("Choose another split."))
    return count


def _so_far(name: str, rows: int, wanted: int | None) -> str:
    if not wanted:
        return _("Downloading {id}: {rows:,} rows", id=name, rows=rows)
    return _("Downloading {id}: {rows:,} of {all:,} rows", id=name, rows=rows, all=wanted)


def _plain(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name)
