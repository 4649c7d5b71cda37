"""A data set of the workspace as it lies on the Hub: a Parquet file for each split, and a card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

from core.data.record import SAMPLE_ID, DatasetInfo
from core.data.registry import export_rows, load_dataset_info
from core.data.versions import recipe_of
from core.language import _, speaking
from core.progress import Tell
from core.workspace import Workspace

# What the Hub calls our parts.
SPLITS = {"train": "train", "eval": "validation", "test": "test"}
_LICENSES = {SAMPLE_ID: "apache-2.0"}
_SIZES = ((1e3, "n<1K"), (1e4, "1K<n<10K"), (1e5, "10K<n<100K"), (1e6, "100K<n<1M"))


def write_rows(workspace: Workspace, dataset_id: str, folder: Path, tell: Tell) -> None:
    """Writes the rows as they are now, and README.md."""
    info = load_dataset_info(workspace, dataset_id)
    columns: dict[str, str] = {}
    for place, part in enumerate(info.parts):
        tell(place / len(info.parts), _("Writing the rows"))
        path = folder / "data" / f"{SPLITS[part]}.parquet"
        export_rows(workspace, dataset_id, path, parts=[part])
        columns |= {field.name: str(field.type) for field in pq.read_schema(path)}
    with speaking("en"):  # as all that is published
        (folder / "README.md").write_text(_card(info, columns), encoding="utf-8")


def _card(info: DatasetInfo, columns: dict[str, str]) -> str:
    licence = _LICENSES.get(info.id, "")
    title = " ".join(str(info.name).split())
    counts = {SPLITS[part]: getattr(info.counts, part) for part in info.parts}
    parts = [
        f"---\n{yaml.safe_dump(_front_matter(info, licence), sort_keys=False)}---",
        f"# {title}",
        *([str(info.description)] if info.description else []),
        f"Rows in the standard form *{info.form}* of TRL, made with Tunesmith (version "
        f"{info.version}, fingerprint `{info.fingerprint[:16]}`).",
        _table(("split", "rows"), counts.items()),
        "## Columns",
        _table(("column", "type"), columns.items()),
        "## How it was made",
        *_sources(info),
        "The recipe, which does the same to another file (`data import FILE --recipe`):",
        f"```yaml\n{yaml.safe_dump(recipe_of(info), sort_keys=False, allow_unicode=True)}```",
        "## Licence",
        f"{licence}." if licence else "Whoever publishes this has to say which licence it has.",
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(info: DatasetInfo, licence: str) -> dict[str, Any]:
    rows = sum(getattr(info.counts, part) for part in info.parts)
    labelled = info.form == "labelled-text"
    files = [{"split": SPLITS[p], "path": f"data/{SPLITS[p]}.parquet"} for p in info.parts]
    return {
        **({"license": licence} if licence else {}),
        "task_categories": ["text-classification" if labelled else "text-generation"],
        "size_categories": [next((word for most, word in _SIZES if rows < most), "n>1M")],
        "tags": ["tunesmith", "trl", info.form],
        "configs": [{"config_name": "default", "data_files": files}],
    }


def _sources(info: DatasetInfo) -> list[str]:
    """Where the rows came from: a data set of the Hub by name, a file by its hash."""
    lines = []
    for one in info.sources:
        hub = one.origin.get("hub")
        known = f"{hub} on the Hub, at {one.origin.get('revision')}" if hub else one.file
        lines.append(f"- {known}: {one.rows} rows (SHA-256 `{one.sha256[:16]}`)")
    read, dropped = info.counts.read, info.counts.dropped
    return [f"{read} rows were read and {dropped} of them dropped. They came from", *_list(lines)]


def _list(lines: list[str]) -> list[str]:
    return ["\n".join(lines)] if lines else []


def _table(titles: tuple[str, str], rows: Any) -> str:
    lines = [f"| {one} | {other} |" for one, other in (titles, ("---", "---"), *rows)]
    return "\n".join(lines)
