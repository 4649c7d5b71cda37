"""What `dataset.json` says of a prepared data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from core.errors import DataError
from core.workspace import write_atomic

SAMPLE_ID = "sample"
DELETED = ".deleted-"
"""How the folder of a data set begins that is being deleted."""

LISTED_DROPS = 1000
"""So many dropped rows are listed with their reasons; all are counted."""

Part = Literal["train", "eval"]


class _Record(BaseModel):
    # A newer version may have added fields: an older one still opens the data set.
    model_config = ConfigDict(extra="ignore")


class SourceFile(_Record):
    """A file that was imported: its name, the SHA-256 of its bytes, and the rows it held."""

    file: str
    sha256: str
    rows: int


class Counts(_Record):
    """read = train + eval + dropped, always."""

    read: int = 0
    train: int = 0
    eval: int = 0
    dropped: int = 0


class DroppedRow(_Record):
    """A row that cannot be learned from. `line` is its line in JSON Lines and CSV, its
    number in a JSON document and in Parquet.

    `part` is "train" for every row of the main files, since they are split after dropping.
    """

    line: int
    part: Part
    reason: str
    file: str = ""


class Split(_Record):
    """How the held-out rows were chosen: by fraction and seed, or from `eval_source`."""

    eval_fraction: float = 0.0
    seed: int = 42
    eval_source: str | None = None


class DatasetInfo(_Record):
    """A prepared data set. `form` is the standard form on disk, `source_form` that of the files."""

    id: str
    name: str
    description: str = ""
    form: Literal["text", "prompt-completion", "messages"]
    form_reason: str = ""
    source_form: str = ""
    sources: list[SourceFile] = []
    mapping: dict[str, str] = {}
    counts: Counts = Counts()
    dropped: list[DroppedRow] = []
    split: Split = Split()
    system_prompt: str = ""
    fingerprint: str = ""
    created_at: str = ""
    task: dict[str, Any] | None = None
    folder: Path = Field(default=Path(), exclude=True)

    @property
    def parts(self) -> tuple[Part, ...]:
        return ("train", "eval") if self.counts.eval else ("train",)

    def rows_path(self, part: str) -> Path:
        """The Parquet file of a part. Raises DataError when the data set has no such part."""
        path = self.folder / f"{part}.parquet"
        if part not in ("train", "eval") or not path.is_file():
            raise DataError(
                f"The data set {self.name} has no {part} rows.",
                "Import it again with an eval fraction above 0, or with an eval file.",
            )
        return path

    def size_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.folder.iterdir() if path.is_file())

    def save(self, folder: Path | None = None) -> None:
        text = json.dumps(self.model_dump(mode="json"), ensure_ascii=False, indent=1)
        write_atomic((folder or self.folder) / "dataset.json", text + "\n")


def read_record(folder: Path) -> DatasetInfo:
    """The DatasetInfo in a folder. Raises DataError when it is missing or broken."""
    path = folder / "dataset.json"
    try:
        info = DatasetInfo.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(
            f"There is no data set {folder.name}.", "Look at the list of data sets, or import it."
        ) from error
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise DataError(
            f"The data set {folder.name} cannot be opened: its dataset.json is damaged.",
            "Delete it and import its files again.",
        ) from error
    info.folder = folder
    return info
