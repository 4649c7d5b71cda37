"""Zip archives of files with rows, unpacked within limits.

An archive comes from anywhere: what it says of itself is checked before a byte is written, and
no more is written than it said.
"""

from __future__ import annotations

import shutil
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from core.errors import DataError
from core.language import _

MAX_FILES = 10_000
MAX_BYTES = 20 * 2**30
MAX_OFFICE_BYTES = 2 * 2**30
"""What reads an Office file holds all of it in memory."""

MAX_RATIO = 200
"""Text of rows rarely packs better than 30 to 1; a bomb packs 1,000 to 1."""

RATIO_COUNTS_FROM_BYTES = 64 * 2**20
"""Below this size nothing is harmed, however well it was packed."""

_PIECE = 1 << 20
_BEGINNING_BYTES = 16 * 2**20
_BY_LINES = (".jsonl", ".ndjson", ".csv", ".tsv", ".txt", ".md")


@dataclass(frozen=True)
class Member:
    """A file in an archive: its path there, and its size in bytes once unpacked."""

    info: zipfile.ZipInfo
    path: PurePosixPath

    @property
    def size(self) -> int:
        return self.info.file_size


@contextmanager
def opened_zip(path: Path) -> Iterator[tuple[zipfile.ZipFile, list[Member]]]:
    """The archive and its files, sorted by path, once it has been found harmless.

    Raises DataError for a damaged archive, one over a limit, one with a password, a link, or a
    path that leads out of it.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise DataError(
            _(
                "{name} is not a zip archive that can be read: {error}.",
                name=path.name,
                error=str(error),
            ),
            _("Pack it again."),
        ) from error
    with archive:
        infos = [info for info in archive.infolist() if not info.is_dir()]
        _check_whole(path, infos)
        yield (
            archive,
            sorted(
                (Member(info, _checked_path(path, info)) for info in infos),
                key=lambda member: member.path.parts,
            ),
        )


@contextmanager
def opened_office(path: Path) -> Iterator[tuple[zipfile.ZipFile, list[Member]]]:
    """An Office file (a zip inside) and its parts, as `opened_zip`. Raises DataError for one that
    is damaged, or that would unpack to more than memory may hold."""
    if not zipfile.is_zipfile(path):
        raise DataError(
            _("{name} is damaged.", name=path.name), _("Save it again in the program it came from.")
        )
    with opened_zip(path) as (archive, members):
        total = sum(member.size for member in members)
        if total > MAX_OFFICE_BYTES:
            raise DataError(
                _("{name} unpacks to {size:,.1f} GB.", name=path.name, size=total / 2**30),
                _(
                    "An Office file may unpack to {most} GB. Bring it in parts, tables "
                    "as CSV or Parquet.",
                    most=MAX_OFFICE_BYTES // 2**30,
                ),
            )
        yield archive, members


def _limits() -> str:
    return _(
        "An archive may hold {files:,} files and {size} GB, packed no more than {ratio} to 1.",
        files=MAX_FILES,
        size=MAX_BYTES // 2**30,
        ratio=MAX_RATIO,
    )


def _check_whole(path: Path, infos: list[zipfile.ZipInfo]) -> None:
    total = sum(info.file_size for info in infos)
    packed = max(sum(info.compress_size for info in infos), 1)
    # Members that overlap in the file are counted once each, so its own size counts too.
    packed = min(packed, max(path.stat().st_size, 1))
    if len(infos) > MAX_FILES:
        raise DataError(
            _("{name} holds {files:,} files.", name=path.name, files=len(infos)), _limits()
        )
    if total > MAX_BYTES:
        raise DataError(
            _("{name} unpacks to {size:,.1f} GB.", name=path.name, size=total / 2**30), _limits()
        )
    if total > RATIO_COUNTS_FROM_BYTES and total > packed * MAX_RATIO:
        raise DataError(
            _(
                "{name} unpacks to {times:,} times its size: it may be a zip bomb.",
                name=path.name,
                times=total // packed,
            ),
            _limits(),
        )


def _checked_path(archive: Path, info: zipfile.ZipInfo) -> PurePosixPath:
    name = info.filename.replace("\\", "/")
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or ":" in path.parts[0] or "\x00" in name:
        raise DataError(
            _(
                "{name} holds a path that leads out of it: {path!r}.",
                name=archive.name,
                path=info.filename,
            ),
            _("Do not use it, or pack the files again yourself."),
        )
    if stat.S_ISLNK(info.external_attr >> 16):
        raise DataError(
            _("{name} holds a link: {path}.", name=archive.name, path=info.filename),
            _("Pack the file itself, not a link."),
        )
    if info.flag_bits & 1:
        raise DataError(
            _("{name} is locked with a password.", name=archive.name),
            _("Unpack it and bring the files."),
        )
    return path


def unpack(
    archive: zipfile.ZipFile,
    members: list[Member],
    folder: Path,
    *,
    told: Callable[[int], None] | None = None,
    most: int | None = None,
) -> list[Path]:
    """Writes the members below `folder` and returns their places, in order.

    Each lies in a numbered folder of its own, so that no two names can meet. `told` gets the
    bytes written so far. Of a file of more than `most` bytes only the beginning is written, where
    it is read line by line. Raises DataError when the archive is damaged or the disk too small.
    """
    total = sum(member.size for member in members)
    free = shutil.disk_usage(folder).free
    source = Path(archive.filename or "").name
    if total > free and most is None:
        raise DataError(
            _(
                "{name} unpacks to {size:,.1f} GB, and {free:,.1f} GB are free.",
                name=source,
                size=total / 2**30,
                free=free / 2**30,
            ),
            _("Make room on the disk of the workspace."),
        )
    places, written = [], 0
    for number, member in enumerate(members):
        place = folder / f"{number:05d}" / member.path.name
        by_lines = member.path.suffix.lower() in _BY_LINES
        cut = most is not None and by_lines and member.size > most
        limit = _BEGINNING_BYTES if cut else member.size
        try:
            place.parent.mkdir()
            with archive.open(member.info) as packed, place.open("wb") as file:
                while file.tell() < limit and (piece := packed.read(_PIECE)):
                    file.write(piece)
                    written += len(piece)
                    if told:
                        told(written)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
            raise DataError(
                _(
                    "{path} in {name} cannot be unpacked: {error}.",
                    path=str(member.path),
                    name=source,
                    error=str(error),
                ),
                _("Pack it again."),
            ) from error
        places.append(place)
    return places
