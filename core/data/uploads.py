"""Files that a browser brought: they lie in the workspace until what they came for is done, or
for a day."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from core.jobs.store import Store
from core.workspace import Workspace

KEPT_SECONDS = 24 * 3600.0


def discard_uploads(
    workspace: Workspace, store: Store, sources: Iterable[str | Path | None], readers: int = 0
) -> None:
    """Removes those of the sources that were uploaded; nothing else of a person's files, and
    nothing that more imports than `readers` have still to read: the same file brought twice lies
    there once."""
    needed = _needed(store)
    for path in [Path(source) for source in sources if source]:
        uploaded = path.is_relative_to(workspace.uploads) and ".." not in path.parts
        if uploaded and path.is_file() and needed[path] <= readers:
            path.unlink(missing_ok=True)
            with suppress(OSError):  # there is another file in it
                path.parent.rmdir()


def sweep_uploads(workspace: Workspace, store: Store, now: float | None = None) -> None:
    """Removes what was brought, or made ready to be saved, more than a day ago and is read by no
    import."""
    needed = _needed(store)
    before = (now or time.time()) - KEPT_SECONDS
    # The deepest first: a folder that is left empty goes, too.
    for path in sorted(workspace.uploads.rglob("*"), reverse=True):
        with suppress(OSError):
            if path.is_dir() and not path.is_symlink():
                if path.stat().st_mtime < before:
                    path.rmdir()
            elif path.lstat().st_mtime < before and path not in needed:
                path.unlink()


def _needed(store: Store) -> Counter[Path]:
    """The files that imports have still to read, and how many of them."""
    jobs = [job for job in store.list(kind="import") if not job.ended]
    return Counter(Path(source) for job in jobs for source in sources_of(job.params) if source)


def sources_of(params: Mapping[str, Any]) -> list[str | None]:
    """What an import reads, by the parameters of its job."""
    return [*params.get("sources", ()), params.get("how", {}).get("eval_source")]
