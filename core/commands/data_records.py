"""How the commands below `data` name columns and tell of a data set."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from core.commands.output import Output, UsageError, pairs

if TYPE_CHECKING:
    from core.data.record import DatasetInfo

# Named here so that the help needs no imports; a test holds them against core.data.forms.
FORMS = (
    *("text", "prompt-completion", "instruction", "messages", "sharegpt", "preference"),
    *("unpaired-preference", "prompt-only", "labelled-text"),
)

LISTED = 10
"""How many dropped rows a person is shown."""


def add_map(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--map",
        action="append",
        default=[],
        metavar="FIELD=COLUMN",
        help="which column holds which field, such as prompt=question; may be repeated",
    )


def read_map(texts: list[str]) -> dict[str, str] | None:
    """The mapping in `--map` options. Raises UsageError."""
    found: dict[str, str] = {}
    for text in texts:
        field, equals, column = text.partition("=")
        if not (field and equals and column):
            raise UsageError(f"--map takes FIELD=COLUMN, such as prompt=question, not {text!r}.")
        found[field] = column
    return found or None


def record(info: DatasetInfo) -> dict[str, Any]:
    return {"dataset": info.id, **info.model_dump(mode="json", exclude={"dropped", "task"})}


def dropped_rows(info: DatasetInfo) -> list[dict[str, Any]]:
    return [row.model_dump(mode="json") for row in info.dropped]


def say_dropped(info: DatasetInfo, output: Output) -> None:
    for row in info.dropped[:LISTED]:
        file = f"{row.file}, " if len(info.sources) > 1 else ""
        output.say(f"Dropped: {file}line {row.line}: {row.reason}")
    more = info.counts.dropped - min(len(info.dropped), LISTED)
    if more > 0:
        output.say(f"and {more:,} more; dataset.json lists {len(info.dropped):,} of them")


def info_text(info: DatasetInfo) -> str:
    return pairs(
        [
            ("data set", info.id),
            ("name", info.name),
            ("form", f"{info.form} ({info.form_reason})" if info.form_reason else info.form),
            ("training rows", info.counts.train),
            ("held-out rows", info.counts.eval),
            ("test rows", info.counts.test or None),
            ("dropped rows", info.counts.dropped or None),
            ("from", ", ".join(source.file for source in info.sources)),
        ]
    )


def row_text(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False, indent=2, default=str)
