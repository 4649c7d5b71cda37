"""A folder made ready to be given away: room on the disk, no traces of this machine, a zip."""

from __future__ import annotations

import io
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from core.errors import ExportError
from core.language import _

_CHUNK = 4 * 2**20
# Weights do not get smaller; texts do.
_STORED = (".safetensors", ".bin", ".gguf", ".onnx")
# What libraries note of the machine that they ran on, in files that describe the model.
_OF_THIS_MACHINE = ("_name_or_path", "name_or_path", "is_local", "local_files_only")
_TEXTS = (".json", ".md", ".jinja", ".yaml", ".txt", ".py")
_SPARE_BYTES = 200 * 2**20


def need_room(folder: Path, size_bytes: int) -> None:
    """Raises ExportError unless `folder`'s disk has room for so much and a little more."""
    free = shutil.disk_usage(folder).free
    if free < size_bytes + _SPARE_BYTES:
        raise ExportError(
            _(
                "The disk is full: the export needs {needed} of disk, and {free} are free.",
                needed=_gigabytes(size_bytes + _SPARE_BYTES),
                free=_gigabytes(free),
            ),
            _("Delete runs or exports that you no longer need, or move the workspace."),
        )


def folder_bytes(folder: Path) -> int:
    """The size of a file, or of all files in a folder."""
    if folder.is_file():
        return folder.stat().st_size
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def forget_machine(folder: Path, private: Iterable[str | Path]) -> None:
    """Takes what belongs to this machine out of the folder's descriptions.

    Raises ExportError if one of the `private` paths is still in a text file.
    """
    for path in sorted(folder.glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict) and any(key in content for key in _OF_THIS_MACHINE):
            kept = {key: value for key, value in content.items() if key not in _OF_THIS_MACHINE}
            path.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", "utf-8")
    names = [str(path) for path in private if len(Path(path).parts) > 1]
    for path in sorted(folder.rglob("*")):
        if path.suffix in _TEXTS and path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace")
            if any(name in text for name in names):
                raise ExportError(
                    _("{name} names a folder of this machine.", name=path.name),
                    _("Report this: it should not."),
                )


def zip_pieces(folder: Path) -> Iterator[bytes]:
    """A folder as a zip, under its own name, piece by piece: nothing of it is kept."""
    pieces = _Pieces()
    with zipfile.ZipFile(pieces, "w", allowZip64=True) as packed:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            info = zipfile.ZipInfo.from_file(path, Path(folder.name) / path.relative_to(folder))
            is_stored = path.suffix in _STORED
            info.compress_type = zipfile.ZIP_STORED if is_stored else zipfile.ZIP_DEFLATED
            with path.open("rb") as source, packed.open(info, "w", force_zip64=True) as target:
                while chunk := source.read(_CHUNK):
                    target.write(chunk)
                    yield pieces.taken()
    yield pieces.taken()


class _Pieces(io.RawIOBase):
    """A file that only grows, handed on as it does."""

    def __init__(self) -> None:
        self._new = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._new += data
        return len(data)

    def taken(self) -> bytes:
        new, self._new = bytes(self._new), bytearray()
        return new


def write_zip(folder: Path, archive: Path) -> None:
    """Packs a folder, under its own name, into `archive`; there as a whole or not at all."""
    handle, temporary = tempfile.mkstemp(dir=archive.parent, prefix=f".{archive.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.writelines(zip_pieces(folder))
        os.chmod(temporary, 0o644)
        os.replace(temporary, archive)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
