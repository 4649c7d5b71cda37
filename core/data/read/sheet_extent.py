"""How far the cells of a workbook lie apart, before it is read.

What reads a sheet makes room for every place between its first and its last cell: two cells in
opposite corners are a file of 5 kB and 17 thousand million places.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from core.data.read.archives import Member
from core.errors import DataError
from core.language import _

MOST_PLACES = 32_000_000
"""Places and texts of all sheets together; a whole sheet of 30 columns has as many."""

_PIECE = 1 << 20
# A cell that says where it is and is not empty, any other one, and the start of a row.
_PLACED = re.compile(
    rb"""<(?:\w+:)?c\s[^<>]*?\br\s*=\s*["']([A-Z]{1,3})(\d{1,7})["'][^<>]*(?<!/)>"""
)
_BARE = re.compile(rb"""<(?:\w+:)?c(?=[\s>])(?![^<>]*\br\s*=)[^<>]*(?<!/)>""")
_TAG = re.compile(rb"""<(?:\w+:)?(row|c)(?=[\s/>])([^<>]*)>""")
_REFERENCE = re.compile(rb"""\br\s*=\s*["']([A-Z]{0,3})(\d{0,7})["']""")
_TEXT = re.compile(rb"<(?:\w+:)?si[\s/>]")


def check_extent(archive: zipfile.ZipFile, members: Sequence[Member], name: str) -> None:
    """Raises DataError when the sheets of a workbook span more places than memory may hold, or
    cannot be unpacked."""
    try:
        _check_extent(archive, members, name)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError) as error:
        raise DataError(
            _("{name} is damaged: {error}.", name=name, error=str(error)),
            _("Save it again, or as CSV."),
        ) from error


def _check_extent(archive: zipfile.ZipFile, members: Sequence[Member], name: str) -> None:
    total = 0
    for member in members:
        if member.path.suffix != ".xml":
            continue
        extent, texts = _Extent(), 0
        for piece in _pieces(archive, member):
            extent.add(piece)
            texts += len(_TEXT.findall(piece))
        total += extent.places + texts
        if total > MOST_PLACES:
            raise DataError(
                _(
                    "{name} spans too many places: {sheet} reaches from row {first_row:,} to row "
                    "{last_row:,} over {width:,} columns.",
                    name=name,
                    sheet=member.path.name,
                    first_row=extent.first_row,
                    last_row=extent.last_row,
                    width=extent.width,
                ),
                _(
                    "All sheets may span {most:,} places, empty ones too. Delete cells that "
                    "stand far from the table, or save it as CSV.",
                    most=MOST_PLACES,
                ),
            )


def _pieces(archive: zipfile.ZipFile, member: Member) -> Iterator[bytes]:
    """A part of the workbook in pieces that end where a tag ends."""
    rest = b""
    with archive.open(member.info) as file:
        while piece := file.read(_PIECE):
            piece = rest + piece
            end = piece.rfind(b">") + 1
            # What has no tag for so long is a text.
            rest = piece[end:] if len(piece) - end < _PIECE else b""
            yield piece[:end]


@dataclass
class _Extent:
    first_row: int = 0
    last_row: int = 0
    first_column: int = 0
    last_column: int = 0
    _row: int = 0

    @property
    def width(self) -> int:
        return self.last_column - self.first_column + 1 if self.last_row else 0

    @property
    def places(self) -> int:
        return (self.last_row - self.first_row + 1) * self.width

    def add(self, piece: bytes) -> None:
        found = _PLACED.findall(piece)
        if found:
            columns = {letters for letters, _ in found}
            rows = {row for _, row in found}
            self._take(map(int, rows), map(_column, columns))
        if _BARE.search(piece):
            self._count(piece)

    def _count(self, piece: bytes) -> None:
        """Cells that do not say where they are: each stands after the one before it."""
        column = 0
        for tag in _TAG.finditer(piece):
            said = _REFERENCE.search(tag[2])
            if tag[1] == b"row":
                self._row, column = int(said[2]) if said and said[2] else self._row + 1, 0
                continue
            column = _column(said[1]) if said and said[1] else column + 1
            if not tag[2].endswith(b"/"):
                self._take([self._row], [column])

    def _take(self, rows: Iterable[int], columns: Iterable[int]) -> None:
        known_rows = [self.first_row, self.last_row] if self.last_row else []
        known = [self.first_column, self.last_column] if self.last_row else []
        rows, columns = [*rows, *known_rows], [*columns, *known]
        self.first_row, self.last_row = min(rows), max(rows)
        self.first_column, self.last_column = min(columns), max(columns)
        self._row = max(self._row, self.last_row)


def _column(letters: bytes) -> int:
    number = 0
    for letter in letters:
        number = 26 * number + letter - 64
    return number
