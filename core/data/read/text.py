"""Text files as UTF-8: unpacked from gzip while they are read, and recoded where they are of
another encoding. Memory holds a piece of the file."""

from __future__ import annotations

import codecs
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from core.data.read.archives import MAX_RATIO, RATIO_COUNTS_FROM_BYTES
from core.errors import DataError
from core.language import _

GZIP = b"\x1f\x8b"
PIECE_BYTES = 64 * 1024
_SAMPLE_BYTES = 4 * 2**20
_WINDOW_BYTES = 256 * 1024
_ENOUGH_SIGNS = 4
"""So many bytes beyond ASCII are needed before they can tell anything of an encoding."""

_BOMS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# Encodings that people still save text in, all of them with ASCII as it is.
_CANDIDATES = (
    "cp1252 cp1250 cp1251 cp1253 cp1254 cp1255 cp1256 cp1257 iso8859_2 koi8_r mac_roman "
    "gb18030 big5 cp932 euc_jp cp949"
).split()


class TextSource:
    """The bytes of a text file as UTF-8 in `stream`.

    `encoding` is that of the file. `torn` says, after the end, why a gzip could not be unpacked
    to its own end; `ends_line` whether what came of it ended with a whole line.
    """

    def __init__(self, path: Path, file: io.BufferedReader) -> None:
        self.path = path
        self._file = file
        self._size = max(path.stat().st_size, 1)
        self._unpacked = _Unpacked(path, file) if file.peek(2)[:2] == GZIP else None
        self.packed = self._unpacked is not None
        stream: io.BufferedReader = self._buffered(self._unpacked) if self._unpacked else file
        self.encoding = _file_encoding(path)
        if self.encoding == "utf-8-sig":
            stream.read(len(codecs.BOM_UTF8))
        elif self.encoding != "utf-8":
            stream = self._buffered(_Recoded(stream, self.encoding))
        self.stream = stream

    @staticmethod
    def _buffered(raw: io.RawIOBase) -> io.BufferedReader:
        return io.BufferedReader(raw, PIECE_BYTES)

    @property
    def torn(self) -> str:
        return self._unpacked.torn if self._unpacked else ""

    @property
    def ends_line(self) -> bool:
        return bool(self._unpacked and self._unpacked.last == b"\n")

    def done(self) -> float:
        """The fraction of the file that has been read; a system call, so not for each row."""
        return min(self._file.tell() / self._size, 1.0)

    def text(self) -> io.TextIOWrapper:
        """The stream as text; bytes that are no UTF-8 become lone surrogates, which are found
        row by row later."""
        return io.TextIOWrapper(self.stream, "utf-8", errors="surrogateescape", newline="")


@contextmanager
def opened(path: Path) -> Iterator[io.BufferedReader]:
    """The file, open for reading bytes. Raises DataError when it cannot be opened."""
    try:
        file: io.BufferedReader = io.BufferedReader(path.open("rb", buffering=0), PIECE_BYTES)
    except OSError as error:
        raise DataError(
            _("{name} cannot be read: {reason}.", name=path.name, reason=error.strerror),
            _("Choose a file that can be read."),
        ) from error
    with file:
        yield file


@contextmanager
def opened_text(path: Path) -> Iterator[TextSource]:
    """The file as a TextSource. Raises DataError when it cannot be opened."""
    with opened(path) as file:
        yield TextSource(path, file)


def head_of(path: Path, size: int = 65536) -> bytes:
    """The first bytes of a file, of what is inside when it is a gzip archive."""
    with opened(path) as file:
        if file.peek(2)[:2] != GZIP:
            return file.read(size)
        unpacked = _Unpacked(path, file)
        head = io.BufferedReader(unpacked).read(size)
        if not head and unpacked.torn:
            raise torn_archive(path, unpacked.torn)
        return head


def torn_archive(path: Path, reason: str) -> DataError:
    """The error for a gzip of which nothing can be read."""
    return DataError(
        _("{name} is a damaged gzip archive: {reason}.", name=path.name, reason=reason),
        _("Get the file again, or pack it again."),
    )


class _Unpacked(io.RawIOBase):
    """What is in a gzip; a damaged one ends where the damage is, and `torn` says so."""

    def __init__(self, path: Path, file: io.BufferedReader) -> None:
        self._path = path
        self._file = file
        self._gzip = gzip.GzipFile(fileobj=file)
        self._count = 0
        self.torn = ""
        self.last = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            # One read of the packed bytes at a time: nothing is lost when the next one fails.
            data = b"" if self.torn else self._gzip.read1(len(buffer))
        except EOFError:
            self.torn, data = _("it is cut off before its end"), b""
        except (gzip.BadGzipFile, zlib.error) as error:
            self.torn, data = str(error).rstrip("."), b""
        if data:
            self.last = data[-1:]
        self._count += len(data)
        if self._count > RATIO_COUNTS_FROM_BYTES:
            self._check_ratio()
        buffer[: len(data)] = data
        return len(data)

    def _check_ratio(self) -> None:
        if self._count > self._file.tell() * MAX_RATIO:
            raise DataError(
                _(
                    "{name} unpacks to more than {ratio} times its size: it may be a gzip bomb.",
                    name=self._path.name,
                    ratio=MAX_RATIO,
                ),
                _("Unpack it yourself if it is what you want."),
            )


class _Recoded(io.RawIOBase):
    """A stream of another encoding as UTF-8. What cannot be decoded becomes invalid UTF-8, so
    that its row is found and counted."""

    def __init__(self, stream: io.BufferedReader, encoding: str) -> None:
        wide = encoding.startswith("utf-")
        self._stream = stream
        self._decoder: Any = codecs.getincrementaldecoder(encoding)(
            "surrogatepass" if wide else "surrogateescape"
        )
        self._waiting = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._waiting:
            data = self._stream.read(PIECE_BYTES)
            if not data:
                # Half a character at the very end.
                left, self._waiting = bool(self._decoder.getstate()[0]), b""
                self._decoder.reset()
                self._waiting = b"\xff" if left else b""
                break
            self._waiting = self._decode(data).encode("utf-8", "surrogatepass")
        count = min(len(buffer), len(self._waiting))
        buffer[:count] = self._waiting[:count]
        self._waiting = self._waiting[count:]
        return count

    def _decode(self, data: bytes) -> str:
        try:
            return str(self._decoder.decode(data))
        except UnicodeDecodeError:
            # surrogateescape knows no byte below 0x80, which some encodings have in pairs.
            self._decoder.errors = "replace"
            return str(self._decoder.decode(data))


def _file_encoding(path: Path) -> str:
    stat = path.stat()
    return _known_encoding(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=64)
def _known_encoding(path: Path, changed: int, size: int) -> str:
    """Looked for once for each state of a file: a first look and the import ask several times."""
    return detect_encoding(head_of(path, _SAMPLE_BYTES))


def detect_encoding(sample: bytes) -> str:
    """The encoding that the beginning of a text file is in, as Python calls it.

    UTF-8 unless something speaks against it: a BOM, or bytes that are another encoding's more
    often than its own.
    """
    for bom, name in _BOMS.items():
        if sample.startswith(bom):
            return name
    wide = _wide(sample[:4096])
    if wide:
        return wide
    try:
        codecs.getincrementaldecoder("utf-8")().decode(sample)
        return "utf-8"
    except UnicodeDecodeError as error:
        start = max(error.start - 1024, 0)
    window = sample[start : start + _WINDOW_BYTES]
    text = window.decode("utf-8", "surrogateescape")
    beyond = len(re.findall(r"[^\x00-\x7f]", text))
    wrong = len(re.findall("[\udc80-\udcff]", text))
    if wrong < _ENOUGH_SIGNS or wrong * 2 < beyond:
        return "utf-8"
    return _guess(window) or "utf-8"


def _wide(head: bytes) -> str:
    """UTF-16 without a BOM: every other byte of mostly Latin text is zero."""
    even, odd = head[::2].count(0), head[1::2].count(0)
    half = len(head) // 2
    if half < 2 or max(even, odd) * 10 < half * 4 or min(even, odd) * 20 > half:
        return ""
    return "utf-16-le" if odd > even else "utf-16-be"


def _guess(window: bytes) -> str:
    from charset_normalizer import from_bytes

    # Lines of plain ASCII say nothing of the encoding.
    lines = [line for line in window.splitlines() if not line.isascii()]
    sample = b"\n".join(lines)[:16384]
    found = list(from_bytes(sample, cp_isolation=_CANDIDATES))
    if not found:
        return ""
    # Sisters agree on most signs: where nothing speaks against the one that is met most often,
    # it is that one.
    best = found[0]
    same = sample.decode("cp1252", "replace") == sample.decode(best.encoding, "replace")
    equal = any(
        one.encoding == "cp1252" and (one.chaos, -one.coherence) <= (best.chaos, -best.coherence)
        for one in found
    )
    return "cp1252" if same or equal else best.encoding
