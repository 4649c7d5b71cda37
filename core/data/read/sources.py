"""What a person points at, made a list of files: folders are walked, archives unpacked, data sets
of the Hub downloaded. Every path is confined to the folders that may be read."""

from __future__ import annotations

import itertools
import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qsl, quote

from core.data.read.archives import Member, opened_zip, unpack
from core.data.read.files import DOCUMENTS, KINDS, SAVE_AS, kind_of_name
from core.data.read.text import GZIP, opened
from core.errors import DataError, WorkspaceError
from core.jobs.process import named
from core.language import _
from core.progress import Tell
from core.workspace import Workspace

PREFIX = "hf:"
# Without an owner it may be a format's own name, which `datasets` takes first; so are buckets.
_ID = re.compile(r"(?!buckets/)[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_WRITTEN = "hf:owner/name?config=...&split=train&revision=main&fraction=0.1"


@dataclass(frozen=True)
class HubSource:
    """A split of a Hub data set. `fraction` is the share of its rows that is wanted, above 0 and
    up to 1. With `streaming`, only what is wanted is downloaded."""

    id: str
    config: str = ""
    split: str = "train"
    revision: str = "main"
    fraction: float = 1.0
    streaming: bool = True

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.id) or ".." in self.id:
            raise DataError(
                _("{id!r} is not the name of a data set on the Hub.", id=self.id),
                _("It is written owner/name, such as stanfordnlp/imdb."),
            )
        if not 0 < self.fraction <= 1:
            raise DataError(
                _(
                    "A fraction of {fraction} of {id} is not possible.",
                    fraction=self.fraction,
                    id=self.id,
                ),
                _("Give a number above 0 and up to 1, such as 0.1."),
            )
        if not self.split.strip() or not self.revision.strip():
            raise DataError(
                _("The split and the revision of {id} must not be empty.", id=self.id),
                _("They are train and main unless you know better."),
            )

    def __str__(self) -> str:
        parts = {
            "config": self.config,
            "split": self.split if self.split != "train" else "",
            "revision": self.revision if self.revision != "main" else "",
            "fraction": f"{self.fraction:g}" if self.fraction < 1 else "",
            "streaming": "" if self.streaming else "false",
        }
        query = "&".join(f"{key}={quote(value)}" for key, value in parts.items() if value)
        return f"{PREFIX}{self.id}" + (f"?{query}" if query else "")


def parse_hub_source(text: str) -> HubSource:
    """`hf:owner/name?config=..&split=..&revision=..&fraction=0.1&streaming=false` as a HubSource.

    Raises DataError for a part that is not known or a value that cannot be.
    """
    name, _mark, query = text.removeprefix(PREFIX).strip().partition("?")
    given = dict(parse_qsl(query, keep_blank_values=True))
    unknown = given.keys() - {"config", "split", "revision", "fraction", "streaming"}
    if unknown:
        raise DataError(
            _("{source} has a part that is not known: {part}.", source=text, part=min(unknown)),
            _hint(),
        )
    try:
        fraction = float(given.get("fraction") or 1)
    except ValueError:
        raise DataError(
            _("The fraction in {source} is not a number.", source=text), _hint()
        ) from None
    streaming = given.get("streaming", "true").lower()
    if streaming not in ("true", "false"):
        raise DataError(_("streaming in {source} is neither true nor false.", source=text), _hint())
    return HubSource(
        id=name.strip("/"),
        config=given.get("config", ""),
        split=given.get("split") or "train",
        revision=given.get("revision") or "main",
        fraction=fraction,
        streaming=streaming == "true",
    )


def _hint() -> str:
    return _("Write it as {example}.", example=_WRITTEN)


Source = str | Path | HubSource


@dataclass(frozen=True)
class Gathered:
    """A file to read. `name` is shown to a person, such as "archive.zip/part-1.jsonl"; `origin`
    says where it came from when it was not simply a file."""

    path: Path
    name: str
    origin: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Look:
    """A source as far as a first look needs it. `container` is "gzip", "zip", "folder" or nothing;
    `whole` says whether `files` is all of it, as a whole; `size` is in bytes."""

    path: Path
    container: str
    files: list[Gathered]
    whole: bool
    skipped: list[str]
    size: int


def gather(
    workspace: Workspace,
    sources: Sequence[Source],
    scratch: Path,
    progress: Tell | None = None,
    *,
    skipped: list[str] | None = None,
) -> list[Gathered]:
    """All files behind the sources, in order; those of a folder or an archive sorted by path.

    A source is a file, a folder, a .zip, a HubSource or its text (`hf:owner/name?split=test`).
    What has to be written lies in `scratch`, which the caller removes. `progress` gets (fraction,
    message) and may raise. What was left out of a folder or an archive is added to `skipped`,
    each with its reason. Raises DataError, or WorkspaceError for a path that may not be read.
    """
    left_out = skipped if skipped is not None else []
    found: list[Gathered] = []
    for number, source in enumerate(sources):
        share = _share(progress, number, len(sources))
        hub = as_hub_source(source)
        if hub:
            path, origin = named("core.worker.hub_rows:download")(hub, _room(scratch), share)
            found.append(Gathered(path, f"{hub.id} ({hub.split})", origin))
        else:
            gathering = _Gathering(workspace, scratch, share, left_out)
            found += gathering.source(workspace.confine(str(source)))
    return found


def look(workspace: Workspace | None, path: Path, scratch: Path, most: int) -> Look:
    """The files behind a path, of archives no more than about `most` bytes.

    Without a workspace any path may be read, but no link out of a folder. Raises as `gather`.
    """
    place = workspace.confine(path) if workspace else path.expanduser().resolve()
    if not place.exists():
        raise DataError(_("{path} does not exist.", path=str(path)), _("Check the spelling."))
    confined = workspace or Workspace(place if place.is_dir() else place.parent)
    gathering = _Gathering(confined, scratch, None, [], most)
    files = gathering.source(place)
    with opened(files[0].path) as file:
        packed = file.peek(2)[:2] == GZIP
    container = "folder" if place.is_dir() else "zip" if _is_zip(place) else ""
    return Look(
        path=place,
        container=container or ("gzip" if packed else ""),
        files=files,
        whole=gathering.whole,
        skipped=gathering.skipped,
        size=sum(file.path.stat().st_size for file in files),
    )


def as_hub_source(source: Source) -> HubSource | None:
    """The source as a Hub data set, or None when it is a path."""
    if isinstance(source, HubSource):
        return source
    text = str(source)
    return parse_hub_source(text) if text.startswith(PREFIX) else None


@dataclass
class _Gathering:
    """Where files are gathered, and what was met. With `most`, no more than about so many bytes
    of an archive are unpacked, and `whole` says whether that was all."""

    workspace: Workspace
    scratch: Path
    progress: Tell | None
    skipped: list[str]
    most: int | None = None
    whole: bool = True

    def source(self, path: Path) -> list[Gathered]:
        if path.is_dir():
            return self._folder(path)
        if not path.is_file():
            raise DataError(
                _("{path} is not a file or a folder.", path=str(path)), _("Choose one that is.")
            )
        return self._zip(path, path.name) if _is_zip(path) else [Gathered(path, path.name)]

    def _folder(self, folder: Path) -> list[Gathered]:
        found: list[Gathered] = []
        for relative in _chosen(self._walked(folder), True, self.skipped):
            path, name = folder / relative, f"{folder.name}/{relative}"
            if not path.is_file():
                self.skipped.append(_("{path}: not a file", path=str(relative)))
            elif _is_zip(path):
                found += self._zip(path, name)
            else:
                found.append(Gathered(path.resolve(), name, {"folder": folder.name}))
        if not found:
            raise DataError(
                _("The folder {name} holds no file that can be read.", name=folder.name),
                _("Known are {kinds}.", kinds=KINDS),
            )
        return found

    def _walked(self, folder: Path) -> list[PurePosixPath]:
        """Every file below the folder, sorted, once each link in it has been found to stay in."""
        files: list[Path] = []
        for place, folders, names in os.walk(folder):
            for name in [*folders, *names]:
                link = Path(place) / name
                if link.is_symlink():
                    self._check_link(folder, link)
                    if name in folders:
                        inside = link.relative_to(folder)
                        self.skipped.append(_("{path}: a link to a folder", path=str(inside)))
            folders[:] = [name for name in folders if not name.startswith(".")]
            files += [Path(place) / name for name in names]
        files.sort(key=lambda path: path.relative_to(folder).parts)
        return [PurePosixPath(path.relative_to(folder).as_posix()) for path in files]

    def _check_link(self, folder: Path, link: Path) -> None:
        try:
            self.workspace.confine(link)
        except WorkspaceError as error:
            raise WorkspaceError(
                _(
                    "{path} in {name} is a link that leads nowhere, or outside the folders "
                    "that may be read.",
                    path=str(link.relative_to(folder)),
                    name=folder.name,
                ),
                _("Remove the link, or put the file in its place."),
            ) from error

    def _zip(self, path: Path, name: str) -> list[Gathered]:
        with opened_zip(path) as (archive, members):
            nested = [member for member in members if member.path.suffix.lower() == ".zip"]
            if nested:
                raise DataError(
                    _(
                        "{name} holds another archive: {path}.",
                        name=path.name,
                        path=str(nested[0].path),
                    ),
                    _("Unpack it and bring the files."),
                )
            # An archive may hold one name twice; both are read.
            chosen = set(_chosen([member.path for member in members], False, self.skipped))
            if not chosen:
                raise DataError(
                    _("{name} holds no file that can be read.", name=path.name),
                    _("Known are {kinds}.", kinds=KINDS),
                )
            wanted = self._affordable([member for member in members if member.path in chosen])
            total = max(sum(member.size for member in wanted), 1)
            told = self.progress or (lambda share, message: None)
            message = _("Unpacking {name}", name=path.name)
            places = unpack(
                archive,
                wanted,
                _room(self.scratch),
                told=lambda written: told(min(written / total, 1.0), message),
                most=self.most,
            )
        return [
            Gathered(place, f"{name}/{member.path}", {"archive": name})
            for place, member in zip(places, wanted, strict=True)
        ]

    def _affordable(self, members: list[Member]) -> list[Member]:
        """The first members, up to `most` bytes; always one."""
        if self.most is None:
            return members
        sums = itertools.accumulate(member.size for member in members)
        count = max(sum(total <= self.most for total in sums), 1)
        self.whole = self.whole and count == len(members) and members[0].size <= self.most
        return members[:count]


def _is_zip(path: Path) -> bool:
    return path.suffix.lower() == ".zip"


def _chosen(paths: list[PurePosixPath], archives: bool, skipped: list[str]) -> list[PurePosixPath]:
    """The paths whose ending is known, without hidden ones. Documents among files of rows (a
    README, a licence) are no rows, and are left out."""
    chosen = []
    for path in paths:
        zipped = archives and path.suffix.lower() == ".zip"
        if any(part.startswith((".", "__MACOSX")) for part in path.parts):
            skipped.append(_("{path}: hidden", path=str(path)))
        elif zipped or kind_of_name(path.name):
            chosen.append(path)
        else:
            what, other = SAVE_AS.get(path.suffix.lower(), ("", ""))
            why = (
                _("{what}; save it as {other}", what=what, other=other)
                if what
                else _("its ending is not known")
            )
            skipped.append(_("{path}: {reason}", path=str(path), reason=why))
    rows = [path for path in chosen if kind_of_name(path.name) not in DOCUMENTS]
    if not rows:
        return chosen
    skipped += [
        _("{path}: a document among files of rows", path=str(path))
        for path in chosen
        if path not in rows
    ]
    return rows


def _share(progress: Tell | None, number: int, count: int) -> Tell | None:
    if progress is None:
        return None

    def told(fraction: float, message: str) -> None:
        progress((number + fraction) / count, message)

    return told


def _room(scratch: Path) -> Path:
    """A folder of its own in the scratch folder."""
    scratch.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix="part-", dir=scratch))
