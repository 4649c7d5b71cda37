"""Pushing to the Hub as a job: a finished export of a run becomes a model, a data set of the
workspace a data set."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from core.data.registry import load_dataset_info
from core.errors import ExportError, HubError
from core.export.reports import Export, list_exports
from core.hub.answers import client, not_logged_in, offline, patiently, told_plainly
from core.hub.plan import LOOKED, Plan, PushSettings, files_of, make_plan
from core.hub.rows import write_rows
from core.jobs.devices import DATA
from core.jobs.job import Job
from core.jobs.kinds import KINDS
from core.jobs.queue import enqueue, new_folder
from core.jobs.store import Store
from core.jobs.task import read_result, stoppable
from core.language import _, n_
from core.models.hub import is_offline
from core.progress import Tell
from core.workspace import Workspace

_TEXTS = (".json", ".md", ".jinja", ".yaml", ".txt")
# The share of a push at which all files are there; the rest is the commit.
_SENT = 0.97


@dataclass(frozen=True)
class Pushed:
    """A push of a run that came to its end."""

    job_id: str
    repo_id: str
    url: str
    private: bool
    at: float


def export_to_push(
    workspace: Workspace, run_id: str, export_id: str = "", format: str = "", force: bool = False
) -> Export:
    """A finished export of a run: the one named, or the newest, of a format if one is named.

    Raises ExportError where there is none, and unless `force` where a check of it failed.
    """
    found = [
        one
        for one in list_exports(workspace.run(run_id).root)
        if one.state == "finished"
        and one.path is not None
        and (not export_id or one.id == export_id)
        and (not format or one.format == format)
    ]
    if not found:
        raise ExportError(
            _("{run} has no such finished export.", run=run_id),
            _("Export it first: export {run} --format {form}", run=run_id, form=format or "merged"),
        )
    failed = [str(check["name"]) for check in found[0].checks if not check["ok"]]
    if failed and not force:
        raise ExportError(
            _("A check of this export failed: {names}.", names=", ".join(failed)),
            _("Export it again, or push it all the same with --force."),
        )
    return found[0]


def submit_push(
    workspace: Workspace,
    store: Store,
    settings: PushSettings,
    *,
    export: Export | None = None,
    dataset_id: str = "",
) -> Job:
    """Puts a push in the queue: of an export of a run, or of a data set. Raises HubError where
    nobody is logged in or the Hub must not be asked."""
    check_logged_in()
    params: dict[str, Any] = {"settings": settings.model_dump(), "dataset": dataset_id}
    parent, run_id = workspace.jobs, ""
    if export is not None:
        run_id = export.folder.parents[1].name
        parent = workspace.run(run_id).root / KINDS["push"].folder
        params |= {"run": run_id, "export": export.id}
    else:
        load_dataset_info(workspace, dataset_id)
    job_id, folder = new_folder(store, parent)
    job = Job(
        id=job_id,
        kind="push",
        run_id=run_id,
        folder=folder.relative_to(workspace.root).as_posix(),
        name=settings.repo_id,
        device=DATA,
        dataset=dataset_id,
        params=params,
    )
    return enqueue(workspace, store, job)


def check_logged_in() -> None:
    """Raises HubError where nobody is logged in or the Hub must not be asked."""
    from huggingface_hub import get_token

    if is_offline():
        raise offline()
    if get_token() is None:
        raise not_logged_in()


def plan_push(
    workspace: Workspace,
    settings: PushSettings,
    *,
    export: Export | None = None,
    dataset_id: str = "",
    tell: Tell = lambda share, message: None,
) -> Plan:
    """What a push would do; nothing on the Hub is changed. Raises HubError."""
    with _to_push(workspace, export, dataset_id, tell) as (folder, repo_type):
        return make_plan(folder, repo_type, settings, tell)


@contextmanager
def _to_push(
    workspace: Workspace, export: Export | None, dataset_id: str, tell: Tell
) -> Iterator[tuple[Path, str]]:
    """(the folder with the files, what it becomes on the Hub). What was made for it goes again."""
    if export is not None:
        assert export.path is not None
        check_private(workspace, export.path, export.folder)
        yield export.path, "model"
        return
    workspace.uploads.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=workspace.uploads, prefix=".push-") as made:
        write_rows(workspace, dataset_id, Path(made), tell)
        check_private(workspace, Path(made), Path(made))
        yield Path(made), "dataset"


def check_private(workspace: Workspace, folder: Path, within: Path) -> None:
    """Raises HubError if a description names a folder of this machine, or the token, and for a
    link that leads out of the job's folder: a run may come from elsewhere."""
    from huggingface_hub import get_token

    private = [str(workspace.root), *(filter(None, [get_token()]))]
    for path in files_of(folder):
        if not path.resolve().is_relative_to(within.resolve()):
            raise HubError(
                _("{name} is a link to a file elsewhere.", name=path.name),
                _("Put the file itself there, or export again."),
            )
        if path.suffix in _TEXTS:
            text = path.read_text(encoding="utf-8", errors="replace")
            if any(word in text for word in private):
                raise HubError(
                    _("{name} names a folder of this machine, or your token.", name=path.name),
                    _("Take it out of the file, or export again."),
                )


@stoppable
def run_push(workspace: Workspace, params: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
    be_silent()
    settings = PushSettings(**params["settings"])
    export = None
    if params.get("run"):  # what failed was said when it was asked for
        export = export_to_push(workspace, params["run"], params["export"], force=True)
    tell(0.0, _("Looking at what is there"))
    with _to_push(workspace, export, params["dataset"], lambda share, said: tell(0, said)) as (
        folder,
        repo_type,
    ):
        plan = make_plan(folder, repo_type, settings, tell)
        title = settings.message or _title(workspace, export, params["dataset"])
        commit = send(plan, folder, title, tell)
    return {
        "repo_id": plan.repo_id,
        "repo_type": repo_type,
        "url": plan.url,
        "private": plan.private,
        "branch": plan.branch,
        "commit": commit.oid if commit else None,
        "commit_url": commit.commit_url if commit else None,
        "pull_request": commit.pr_url if commit else None,
        "files": len(plan.files),
        "sent": len(plan.to_send),
        "bytes": plan.bytes_to_send,
    }


def be_silent() -> None:
    """huggingface_hub draws no bars in this process, and its log has no address of an upload."""
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    # Its warning of a failed try names the signed address of an upload.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)


def send(plan: Plan, folder: Path, title: str, tell: Tell) -> Any:
    """Does what a plan says; the commit, or None where there is nothing to send. Raises
    HubError."""
    with told_plainly(plan.repo_id):
        return _send(plan, folder, title, tell) if plan.to_send else None


def _send(plan: Plan, folder: Path, title: str, tell: Tell) -> Any:
    """Makes what is not there, sends the files, then commits them all at once."""
    from huggingface_hub import CommitOperationAdd

    hub, share = client(), LOOKED
    where: dict[str, Any] = {"repo_id": plan.repo_id, "repo_type": plan.repo_type}

    def wait(seconds: int) -> None:
        tell(share, _("The Hub asks to wait for {seconds} s", seconds=seconds))

    if not plan.exists:
        private = True if plan.private else None  # an organization may have its own default
        patiently(partial(hub.create_repo, **where, private=private, exist_ok=True), wait)
    if not plan.branch_exists:
        patiently(partial(hub.create_branch, **where, branch=plan.branch, exist_ok=True), wait)
    to: dict[str, Any] = {**where, "revision": plan.branch, "create_pr": plan.create_pr}
    files: list[CommitOperationAdd] = []
    done = 0
    for place, one in enumerate(plan.to_send, 1):
        share = LOOKED + (_SENT - LOOKED) * done / max(plan.bytes_to_send, 1)
        said = _(
            "{name}, {size:.1f} MB ({place} of {all})",
            name=one.path,
            size=one.size_bytes / 1e6,
            place=place,
            all=len(plan.to_send),
        )
        tell(share, said)
        files.append(CommitOperationAdd(one.path, folder / one.path))
        send = partial(hub.preupload_lfs_files, additions=files[-1:], free_memory=False, **to)
        patiently(send, wait)
        done += one.size_bytes
    share = _SENT
    tell(share, _("Making the commit"))
    return patiently(partial(hub.create_commit, operations=files, commit_message=title, **to), wait)


def _title(workspace: Workspace, export: Export | None, dataset_id: str) -> str:
    """A commit's name, in English as all that is published."""
    if export is not None:
        return f"Push {export.format} of run {export.folder.parents[1].name} with Tunesmith"
    info = load_dataset_info(workspace, dataset_id)
    return f"Push data set {info.id}, version {info.version}, with Tunesmith"


# What a person reads of it.


def pushed(job: Job, result: Mapping[str, Any]) -> str:
    if result["pull_request"]:
        return _("The pull request waits at {url}.", url=result["pull_request"])
    if not result["sent"]:
        return _("{url} has all of it already: nothing was sent.", url=result["url"])
    return n_(
        "{n} file was pushed to {url}.",
        "{n} files were pushed to {url}.",
        result["sent"],
        url=result["url"],
    )


def pushes(workspace: Workspace, run_id: str) -> Sequence[Pushed]:
    """What of a run was pushed where, newest first, each repository once."""
    found: dict[str, Pushed] = {}
    ends = (workspace.run(run_id).root / KINDS["push"].folder).glob("[!.]*/result.json")
    for end in sorted(ends, key=os.path.getmtime):
        folder, at = end.parent, os.path.getmtime(end)
        result = read_result(folder)
        if result is not None:
            url = str(result["pull_request"] or result["url"])
            repo_id = str(result["repo_id"])
            found[url] = Pushed(folder.name, repo_id, url, bool(result["private"]), at)
    return sorted(found.values(), key=lambda one: one.at, reverse=True)
