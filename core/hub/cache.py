"""What lies in huggingface_hub's cache and in ModelScope's, and taking a repository out of them."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from core.errors import HubError, ended
from core.hub.search import MODEL
from core.jobs.store import Store
from core.language import _, n_
from core.models import modelscope
from core.models.starter import STARTER_MODELS

_NAMED = 5


@dataclass(frozen=True)
class Cached:
    """A repository in the cache; `last_used` is when a file of it was last read, in seconds since
    the epoch."""

    repo_id: str
    kind: str
    size_bytes: int
    revisions: int
    last_used: float
    path: Path


def list_cached() -> list[Cached]:
    """What was used last comes first."""
    cache = _scanned()
    found = [_cached(repo) for repo in cache.repos if repo.revisions] if cache else []
    return sorted([*found, *_of_modelscope()], key=lambda one: (-one.last_used, one.repo_id))


def delete_cached(repo_id: str, kind: str = MODEL) -> Cached:
    """Takes a repository out of the cache with all its revisions; tells what it was. The name is
    looked for among what is in the cache. Raises HubError where it is not there, or stays."""
    of_modelscope = next((one for one in _of_modelscope() if one.repo_id == repo_id), None)
    if of_modelscope is not None and kind == MODEL:
        try:
            shutil.rmtree(of_modelscope.path)
        except OSError as error:
            raise _stays(of_modelscope.path) from error
        return of_modelscope
    cache = _scanned()
    repos = cache.repos if cache else ()
    repo = next((o for o in repos if (o.repo_id, o.repo_type) == (repo_id, kind)), None)
    if cache is None or repo is None or not repo.revisions:
        raise HubError(
            _("There is no {repo} in the cache.", repo=repo_id),
            _("See what is there: hub cache list. Data sets are deleted with --dataset."),
        )
    # Alone: a copy of a repository has its commits, and the library would take either.
    alone = replace(cache, repos=frozenset({repo}))
    alone.delete_revisions(*(one.commit_hash for one in repo.revisions)).execute()
    if repo.repo_path.exists():
        raise _stays(repo.repo_path)
    return _cached(repo)


def check_unused(store: Store, repo_id: str) -> None:
    """Raises HubError where runs of the workspace were trained on a model, and would ask the Hub
    for it again."""
    starter = next((one.name for one in STARTER_MODELS.values() if one.hub_id == repo_id), repo_id)
    trained = store.list(kind="train")
    runs = [job.id for job in trained if _without_revision(job.model) in (repo_id, starter)]
    if not runs:
        return
    told = n_(
        "{n} run needs {repo}: {runs}",
        "{n} runs need {repo}: {runs}",
        len(runs),
        repo=repo_id,
        runs=", ".join(runs[:_NAMED]) + (" ..." if len(runs) > _NAMED else ""),
    )
    raise HubError(
        ended(told),
        _("Delete it all the same with --force: it is fetched again when a run needs it."),
    )


def _without_revision(model: str) -> str:
    return model.partition("@")[0] if modelscope.is_named(model) else model


def _stays(path: Path) -> HubError:
    return HubError(
        _("{path} could not be deleted.", path=path),
        _("Look at who owns it, and whether something uses it."),
    )


def _of_modelscope() -> list[Cached]:
    return [
        Cached(
            repo_id=name,
            kind=MODEL,
            size_bytes=size,
            revisions=sum(1 for _folder in (folder / "snapshots").glob("*/")),
            last_used=folder.stat().st_atime,
            path=folder,
        )
        for name, folder, size in modelscope.cached_models()
    ]


def _scanned() -> Any:
    """The cache as huggingface_hub sees it; None where there is none yet."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        return scan_cache_dir()
    except CacheNotFound:
        return None


def _cached(repo: Any) -> Cached:
    return Cached(
        repo_id=repo.repo_id,
        kind=repo.repo_type,
        size_bytes=repo.size_on_disk,
        revisions=len(repo.revisions),
        last_used=repo.last_accessed,
        path=repo.repo_path,
    )
