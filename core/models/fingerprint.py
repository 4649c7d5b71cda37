"""Which base a run was trained on, so that another one in its place is known for what it is.

Of large files the header, the size and parts from all over are hashed: training changes nearly
every weight, and a model of 15 GB takes a fraction of a second. No torch: only files.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from core.language import _
from core.models.hub import cached_snapshot
from core.models.origin import own_base
from core.models.trained import TrainedModel
from core.workspace import RunFolder, write_atomic

FILE = "base.json"
# So many parts of a file, of so many bytes each; a smaller file is hashed whole.
_PARTS, _PART_BYTES = 256, 4096


def fingerprint(model: str | Path) -> dict[str, Any] | None:
    """What is known of the model in a folder, or of the Hub id that is in the cache: the hashes of
    its config and weights, and its commit where the Hub's cache names it. None where it is not on
    this machine."""
    folder = Path(model) if Path(model).is_dir() else cached_snapshot(str(model))
    if folder is None or not (folder / "config.json").is_file():
        return None
    weights = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        weights.update(f"{path.name} {path.stat().st_size}\n".encode())
        _hash_parts(path, weights)
    return {
        "commit": folder.name if folder.parent.name == "snapshots" else "",
        "config": hashlib.sha256((folder / "config.json").read_bytes()).hexdigest(),
        "weights": weights.hexdigest(),
    }


def _hash_parts(path: Path, into: Any) -> None:
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= _PARTS * _PART_BYTES:
            into.update(file.read())
            return
        length = file.read(8)
        into.update(length + file.read(min(int.from_bytes(length, "little"), size)))
        for part in range(_PARTS):
            file.seek((size - _PART_BYTES) * part // (_PARTS - 1))
            into.update(file.read(_PART_BYTES))


def keep_base(run: RunFolder, base: str | Path) -> None:
    """Notes which base the run is trained on; the first time only. A base that another run made is
    the run's own, and cannot become another one."""
    place = run.root / FILE
    found = fingerprint(base) if own_base(run) is None and not place.exists() else None
    if found:
        write_atomic(place, json.dumps(found, indent=1) + "\n")


def read_base(run: RunFolder) -> dict[str, Any] | None:
    """What `keep_base` noted; None for runs of before, and where it cannot be read."""
    try:
        found = json.loads((run.root / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def base_changed(trained: TrainedModel, base: str | Path) -> str:
    """A sentence where the base in its place is not the one of the training; else ""."""
    before = read_base(trained.run)
    now = fingerprint(base) if before else None
    if before is None or now is None or before.get("weights") == now["weights"]:
        return ""
    commits = before.get("commit"), now["commit"]
    if all(commits) and commits[0] != commits[1]:
        return _(
            "The base {name} is not the one of the training: its commit is {now}, and was "
            "{before}.",
            name=trained.config.model.model_name_or_path,
            now=commits[1][:8],
            before=str(commits[0])[:8],
        )
    return _(
        "The base {name} is not the one of the training: its weights are others now.",
        name=trained.config.model.model_name_or_path,
    )
