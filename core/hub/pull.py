"""Bringing a model from the Hub or ModelScope into its cache, and how much that is before it
begins."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

from core.errors import HubError
from core.hub.answers import ANSWER_SECONDS, client, not_the_hub, told_plainly
from core.hub.search import DATASET, MODEL
from core.language import _
from core.models import modelscope
from core.models.hub import MODEL_FILES, HubFailed, check_files, download
from core.progress import Tell

# The files of rows that `datasets` reads, packed or not.
_ROWS = frozenset({".parquet", ".arrow", ".json", ".jsonl", ".csv", ".tsv", ".txt"})


@dataclass(frozen=True)
class Download:
    """What a download would bring, whatever of it is here already."""

    repo_id: str
    kind: str
    revision: str | None
    commit: str
    files: int
    size_bytes: int


def look(repo_id: str, kind: str = MODEL, revision: str | None = None) -> Download:
    """Of a model the files that are fetched; of a data set all its files of rows, of which an
    import reads those of a split. Raises HubError, and ModelError for what is no model that can be
    used; of ModelScope ModelError alone, and SetupError without its package."""
    if modelscope.is_named(repo_id):
        name = f"{repo_id}@{revision}" if revision else repo_id
        files = modelscope.look(name)
        return Download(name, kind, revision, "", len(files), sum(one.size for one in files))
    try:
        with told_plainly(repo_id):
            info: Any = client().repo_info(
                repo_id,
                repo_type=kind,
                revision=revision,
                files_metadata=True,
                timeout=ANSWER_SECONDS,
            )
            if info.gated:
                client().auth_check(repo_id, repo_type=kind)
    except KeyError as error:  # the answer describes no repository
        raise not_the_hub() from error
    there = {one.rfilename: one.size or 0 for one in info.siblings or ()}
    if kind == DATASET:
        wanted = [path for path in there if _ROWS & {*PurePosixPath(path).suffixes}]
    else:
        wanted = [path for path in there if any(fnmatch(path, one) for one in MODEL_FILES)]
        check_files(repo_id, wanted)
    size = sum(there[path] for path in wanted)
    return Download(repo_id, kind, revision, info.sha or "", len(wanted), size)


def pull(asked: Download, tell: Tell) -> Path:
    """Fetches a model that was looked at; gives its folder. Raises as `look`."""
    if modelscope.is_named(asked.repo_id):
        return modelscope.download(asked.repo_id, tell)
    try:  # by the name of the revision: the cache keeps no such name for a commit
        return download(asked.repo_id, tell, asked.revision)
    except HubFailed as error:
        raise HubError(
            _(
                "{name} could not be fetched from the Hub: {reason}.",
                name=asked.repo_id,
                reason=error.args[0],
            ),
            _("Try again: it goes on where it broke off."),
        ) from error
