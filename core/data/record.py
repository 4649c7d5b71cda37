"""What `dataset.json` says of a prepared data set."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
)

from core.errors import DataError
from core.language import _, pack, unpack
from core.methods import StandardForm
from core.sentence import Sentence
from core.workspace import write_atomic

SAMPLE_ID = "sample"
DELETED = ".deleted-"
"""How the folder of a data set begins that is being deleted."""

IMPORTED = "imported"
VERSIONS = "versions"

LISTED_DROPS = 1000
"""So many dropped rows are listed with their reasons; all are counted."""

_LISTED_OF_OLD = 20

Part = Literal["train", "eval", "test"]
PARTS: tuple[Part, ...] = ("train", "eval", "test")


class _Record(BaseModel):
    # A newer version may have added fields: an older one still opens the data set.
    model_config = ConfigDict(extra="ignore")


class SourceFile(_Record):
    """A file that was imported: its name, the SHA-256 of its bytes, and the rows it held.

    `origin` says where it came from when it was not simply a file: a Hub data set with its
    revision, an archive, another data set with its fingerprint.
    """

    file: str
    sha256: str
    rows: int
    origin: dict[str, Any] = {}


class Counts(_Record):
    """read = train + eval + test + dropped, always, before steps that make rows of rows."""

    read: int = 0
    train: int = 0
    eval: int = 0
    test: int = 0
    dropped: int = 0


class DroppedRow(_Record):
    """A row that cannot be learned from. `line` is its line in JSON Lines and CSV, its
    number in a JSON document and in Parquet.

    `part` is "train" for every row of the main files, since they are split after dropping.
    """

    line: int
    part: Part
    reason: Sentence
    file: str = ""


class Split(_Record):
    """How the held-out rows were chosen: by fraction and seed, or from `eval_source`."""

    eval_fraction: float = 0.0
    test_fraction: float = 0.0
    seed: int = 42
    eval_source: str | None = None


def _by_reason(stored: Any) -> Any:
    """The counts of [reason, count] pairs, or as older records have them."""
    counts: Counter[str] = Counter()
    try:
        for reason, count in stored.items() if isinstance(stored, dict) else stored:
            counts[unpack(reason)] += count
    except TypeError as error:
        raise ValueError("reasons are pairs of a sentence and a number") from error
    return counts


Reasons = Annotated[
    dict[Sentence, int],
    BeforeValidator(_by_reason),
    PlainSerializer(lambda counts: pack(list(counts.items())), when_used="json"),
]
"""How many rows there are for each reason: a list of pairs in the file, since a sentence is kept
there as its template and values."""


class StepDrop(_Record):
    """A row that a step dropped: its part, its place among the rows the step was given, and the
    beginning of its text."""

    part: Part
    index: int
    reason: Sentence
    text: str = ""


class StepChange(_Record):
    """A row that a step changed: the beginning of its text before and after."""

    part: Part
    index: int
    before: str
    after: str


class StepResult(_Record):
    """What a recorded step did. `listed` are the first dropped rows, `shown` some changed ones."""

    step: dict[str, Any]
    title: Sentence = ""
    rows_in: int = 0
    rows_out: int = 0
    dropped: int = 0
    changed: int = 0
    reasons: Reasons = {}
    listed: list[StepDrop] = []
    shown: list[StepChange] = []
    parts: dict[str, int] = {}
    """Rows in each part afterwards, of a step that moved rows between them."""
    remark: Sentence = ""
    """Why it did less than its name says, where the counts alone would not tell."""

    def shortened(self) -> StepResult:
        """With fewer rows listed: for a version that nobody goes back to by undoing once, so that
        a record of many versions still opens in a moment. The counts stay."""
        return self.model_copy(update={"listed": self.listed[:_LISTED_OF_OLD], "shown": []})


class Version(_Record):
    """A state of the data set that stays as it is: runs refer to it by its fingerprint."""

    number: int
    parent: int = 0
    """The version that it was made from; undoing it goes back there."""
    created_at: str = ""
    fingerprint: str = ""
    form: StandardForm = "text"
    counts: Counts = Counts()
    split: Split = Split()
    steps: list[StepResult] = []
    labels: dict[str, int] = {}
    note: Sentence = ""


class DatasetInfo(_Record):
    """A prepared data set. `form` is the standard form on disk, `source_form` that of the files."""

    id: str
    name: Sentence
    description: Sentence = ""
    form: StandardForm
    form_reason: Sentence = ""
    source_form: str = ""
    warnings: list[Sentence] = []
    """What was left out at the import and matters, and what was done unasked."""
    sources: list[SourceFile] = []
    mapping: dict[str, str] = {}
    counts: Counts = Counts()
    dropped: list[DroppedRow] = []
    split: Split = Split()
    system_prompt: str = ""
    fingerprint: str = ""
    created_at: str = ""
    task: dict[str, Any] | None = None
    steps: list[StepResult] = []
    """What was done to the rows after their import, in this order."""
    version: int = 0
    """The state that this record describes; 0 for a set from before there were versions."""
    versions: list[Version] = []
    columns: list[str] = []
    """Names of what rows carry in `meta`."""
    unused_keys: dict[str, int] = {}
    """Keys of turns that the import did not keep, and how many turns have each."""
    labels: dict[str, int] = {}
    """Labelled text: how many train rows each label has, the most frequent first."""
    folder: Path = Field(default=Path(), exclude=True)

    @property
    def parts(self) -> tuple[Part, ...]:
        return tuple(part for part in PARTS if part == "train" or getattr(self.counts, part))

    @property
    def version_folder(self) -> Path:
        """Where this version's rows lie."""
        return self.folder / VERSIONS / str(self.version) if self.version else self.folder

    def rows_path(self, part: str) -> Path:
        """The Parquet file of a part. Raises DataError when the data set has no such part."""
        path = self.version_folder / f"{part}.parquet"
        if part not in PARTS or not path.is_file():
            raise DataError(
                _("The data set {name} has no {part} rows.", name=self.name, part=part),
                _("Split some off in Data, or import it with an eval file."),
            )
        return path

    def at(self, version: int) -> DatasetInfo:
        """The record as it was at an earlier version. Raises DataError when it is gone."""
        known = next((one for one in self.versions if one.number == version), None)
        if known is None:
            there = ", ".join(str(one.number) for one in self.versions)
            raise DataError(
                _("The data set {name} has no version {version}.", name=self.name, version=version),
                _("It has {numbers}.", numbers=there) if there else _("It has only one."),
            )
        return self.model_copy(
            update={
                "version": known.number,
                "form": known.form,
                "counts": known.counts,
                "split": known.split,
                "steps": known.steps,
                "labels": known.labels,
                "fingerprint": known.fingerprint,
                "created_at": known.created_at,
            }
        )

    def remember(self, note: str = "", parent: int = 0) -> None:
        """Enters the state that this record describes into `versions`."""
        state = self.model_dump(include={"created_at", "fingerprint", "form", "labels"})
        state |= {"counts": self.counts, "split": self.split, "steps": self.steps}
        entry = Version(number=self.version, parent=parent, note=note, **state)
        others = [one for one in self.versions if one.number != self.version]
        for one in others:
            if one.number != parent:
                one.steps = [result.shortened() for result in one.steps]
        self.versions = sorted([*others, entry], key=lambda one: one.number)

    def size_bytes(self) -> int:
        """What the data set takes on the disk; a file under two names counts once."""
        found = (path.stat() for path in self.folder.rglob("*") if path.is_file())
        return sum({(stat.st_dev, stat.st_ino): stat.st_size for stat in found}.values())

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
            _("There is no data set {name}.", name=folder.name),
            _("Look at the list of data sets, or import it."),
        ) from error
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise DataError(
            _(
                "The data set {name} cannot be opened: its dataset.json is damaged.",
                name=folder.name,
            ),
            _("Delete it and import its files again."),
        ) from error
    info.folder = folder
    return info
