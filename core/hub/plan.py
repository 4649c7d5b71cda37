"""What a push to the Hub would do: where to, and of each file whether it is there already.

Files are compared by their hashes, so that a push sends what is new alone and one that broke off
goes on where it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from core.config.fields import Section, knob
from core.errors import ConfigError, HubError, Problem
from core.hub.account import READ, Account, who_am_i
from core.hub.answers import client, endpoint, not_logged_in, told_plainly
from core.language import N_, _
from core.progress import Tell

MAIN = "main"
NEW, CHANGED, SAME = "new", "changed", "same"
STATES = {NEW: N_("new"), CHANGED: N_("changed"), SAME: N_("there already")}
LOOKED = 0.1
"""The share of a push at which all files have been looked at."""

_CHUNK = 8 * 2**20


class PushSettings(Section):
    """Where on the Hub something is pushed to."""

    repo_id: str = knob("", "Repository", level="basic")
    """OWNER/NAME on the Hub: your name there, or an organization's. It is made if it is not
    there."""

    private: bool = knob(False, "Private", level="basic")
    """A repository that is made is seen by its owner alone. What was public once cannot be taken
    back."""

    branch: str = knob(MAIN, "Branch", level="basic", min_length=1, max_length=200)
    """A branch that is not there is made, from main."""

    create_pr: bool = knob(False, "As a pull request", level="basic")
    """The files wait beside main until somebody merges them. This works in repositories of others
    too."""

    message: str = knob("", "Message", level="basic", free_text=True, max_length=500)
    """What the commit is called. Empty says what was pushed."""


@dataclass(frozen=True)
class PlannedFile:
    """A file to be pushed; `state` is new, changed, or same as what is there."""

    path: str
    size_bytes: int
    state: str


@dataclass(frozen=True)
class Plan:
    """What a push would do. `private` is what the repository is or will be; `others` counts files
    that are only there, and stay."""

    repo_id: str
    repo_type: str
    url: str
    account: str
    exists: bool
    private: bool
    branch: str
    branch_exists: bool
    create_pr: bool
    files: tuple[PlannedFile, ...]
    others: int

    @property
    def to_send(self) -> tuple[PlannedFile, ...]:
        return tuple(one for one in self.files if one.state != SAME)

    @property
    def bytes_to_send(self) -> int:
        return sum(one.size_bytes for one in self.to_send)

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "bytes_to_send": self.bytes_to_send}


def parse_settings(values: Mapping[str, Any]) -> PushSettings:
    """Raises ConfigError, which names the field, for what the Hub could not take."""
    settings = PushSettings(**values)
    problems = [*_name_problems(settings), *_branch_problems(settings)]
    if problems:
        raise ConfigError(problems)
    return settings


def _name_problems(settings: PushSettings) -> Iterator[Problem]:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    owner, slash, name = settings.repo_id.partition("/")
    if not (owner and slash and name):
        yield Problem("repo_id", _("write it as OWNER/NAME, such as your-name/my-model"))
        return
    try:
        validate_repo_id(settings.repo_id)
    except HFValidationError:
        yield Problem(
            "repo_id",
            _(
                "{name!r} can be no repository: OWNER/NAME has at most 96 letters, digits, single "
                "hyphens, dots and underscores, and neither begins nor ends with a hyphen or a dot",
                name=settings.repo_id,
            ),
        )


def _branch_problems(settings: PushSettings) -> Iterator[Problem]:
    branch = settings.branch
    if (
        branch.strip() != branch
        or any(sign in branch for sign in " ~^:?*[\\\n\t")
        or (
            ".." in branch
            or branch.startswith(("-", "/", "refs/"))
            or branch.endswith(("/", ".lock"))
        )
    ):
        yield Problem("branch", _("{name!r} can be no branch", name=branch))
    if settings.create_pr and branch != MAIN:
        yield Problem("branch", _("a pull request goes to main"), also=("create_pr",))


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def make_plan(folder: Path, repo_type: str, settings: PushSettings, tell: Tell) -> Plan:
    account = who_am_i()
    if account is None:
        raise not_logged_in()
    repo_id, branch = settings.repo_id, settings.branch
    if account.role == READ:
        raise HubError(
            _("Your token {name} may only read.", name=account.token_name),
            _("Log in with one that may write."),
        )
    with told_plainly(repo_id):
        found = _repository(repo_id, repo_type)
        there, branch_exists = _files_there(repo_id, repo_type, branch) if found else ({}, True)
    if found is None:
        _check_owner(account, settings)
    elif settings.private and not found.private:
        raise HubError(
            _("{repo} is there already and public.", repo=repo_id),
            _("Take another name, or push without asking for a private one."),
        )
    here = {path.relative_to(folder).as_posix() for path in files_of(folder)}
    return Plan(
        repo_id=repo_id,
        repo_type=repo_type,
        url=f"{endpoint()}/{'datasets/' if repo_type == 'dataset' else ''}{repo_id}",
        account=account.name,
        exists=found is not None,
        private=bool(found.private) if found else settings.private,
        branch=branch,
        branch_exists=branch_exists and (found is not None or branch == MAIN),
        create_pr=settings.create_pr,
        files=tuple(_compared(folder, there, tell)),
        others=len(there.keys() - here - {".gitattributes"}),
    )


def _repository(repo_id: str, repo_type: str) -> Any:
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        return client().repo_info(repo_id, repo_type=repo_type)
    except RepositoryNotFoundError as error:
        if error.response.status_code == 403:  # gated: it is there
            raise
        return None


def _check_owner(account: Account, settings: PushSettings) -> None:
    owner = settings.repo_id.partition("/")[0]
    if settings.create_pr:
        raise HubError(
            _("There is no repository {repo} to ask for a pull request.", repo=settings.repo_id),
            _("Look at its name, or push without a pull request, which makes it."),
        )
    if owner.lower() not in [name.lower() for name in account.namespaces]:
        raise HubError(
            _(
                "There is no repository {repo}, and {name} can make none there.",
                repo=settings.repo_id,
                name=account.name,
            ),
            _("Take one of {names} as its owner.", names=", ".join(account.namespaces)),
        )


def _files_there(repo_id: str, repo_type: str, branch: str) -> tuple[dict[str, Any], bool]:
    """(the files on the branch, or on main where it is not there; whether it is)."""
    from huggingface_hub.errors import RevisionNotFoundError
    from huggingface_hub.hf_api import RepoFile

    def listed(revision: str) -> dict[str, Any]:
        tree = client().list_repo_tree(
            repo_id, repo_type=repo_type, revision=revision, recursive=True
        )
        return {one.path: one for one in tree if isinstance(one, RepoFile)}

    try:
        return listed(branch), True
    except RevisionNotFoundError:
        return listed(MAIN), False


def _compared(folder: Path, there: Mapping[str, Any], tell: Tell) -> Iterator[PlannedFile]:
    paths = files_of(folder)
    all_bytes, done = sum(path.stat().st_size for path in paths), 0
    for path in paths:
        name = path.relative_to(folder).as_posix()
        said = _("Looking at {name}", name=name)
        size, other = path.stat().st_size, there.get(name)
        state = NEW if other is None else CHANGED
        _tell_read(tell, said, done, all_bytes, 0)
        if other is not None and other.size == size:
            part = partial(_tell_read, tell, said, done, all_bytes)
            state = SAME if _same(path, size, other, part) else CHANGED
        done += size
        yield PlannedFile(name, size, state)


def _tell_read(tell: Tell, said: str, before: int, all_bytes: int, read: int) -> None:
    tell(LOOKED * (before + read) / max(all_bytes, 1), said)


def _same(path: Path, size: int, there: Any, read: Callable[[int], None]) -> bool:
    """Whether a file has the content of the one there: by SHA-256, or as git counts. `read` is told
    how much of it has been read."""
    if there.lfs is not None:
        digest, wanted = hashlib.sha256(), there.lfs.sha256
    else:
        digest = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
        wanted = there.blob_id
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            read(file.tell())
    return digest.hexdigest() == str(wanted)
