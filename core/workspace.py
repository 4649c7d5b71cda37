"""Every path on disk, and the only place that builds one from a name that a user typed."""

from __future__ import annotations

import json
import os
import random
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from core.errors import WorkspaceError, reason_of
from core.language import _

_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,79}")
_ADJECTIVES = (
    "amber brisk calm clear crisp eager early fair fleet gentle glad golden grand green hardy "
    "keen kind lively lucid mellow mild neat noble patient plain prime proud quick quiet rapid "
    "ready round sharp silent silver smooth solid steady still strong subtle sunny swift tidy "
    "true vivid warm wise"
).split()
_NOUNS = (
    "badger bear beaver bison crane crow deer dove eagle elk falcon finch fox gull hare hawk "
    "heron ibis jay kestrel lark lion lynx magpie marten mole moose newt otter owl panda plover "
    "puma quail raven robin salmon seal shrew sparrow stork swan tern thrush tiger trout turtle "
    "vole weasel whale wolf wren"
).split()


def new_id(now: datetime | None = None, rng: random.Random | None = None) -> str:
    """An id that sorts by time and can be read, such as `20261121-2214-quiet-otter`."""
    now = now or datetime.now(UTC).astimezone()
    pick = rng or random.SystemRandom()
    return f"{now:%Y%m%d-%H%M}-{pick.choice(_ADJECTIVES)}-{pick.choice(_NOUNS)}"


def write_atomic(path: Path, text: str) -> None:
    """Writes beside the place and renames into it: a reader sees the old text or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@dataclass(frozen=True)
class RunFolder:
    """The paths of one run. The folder holds all of it: copied elsewhere, it still opens."""

    root: Path

    @property
    def config(self) -> Path:
        return self.root / "config.yaml"

    @property
    def job(self) -> Path:
        return self.root / "job.json"

    @property
    def events(self) -> Path:
        return self.root / "events.jsonl"

    @property
    def log(self) -> Path:
        return self.root / "worker.log"

    @property
    def chat_template(self) -> Path:
        """The named template that the run was started with."""
        return self.root / "chat_template.jinja"

    @property
    def stop_request(self) -> Path:
        """Exists while somebody wants the worker to stop; its callback looks at each step."""
        return self.root / "STOP"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def adapter(self) -> Path:
        return self.root / "adapter"

    @property
    def model(self) -> Path:
        return self.root / "model"

    @property
    def origin(self) -> Path:
        """What a run that begins with another one needs of it (`core.models.origin`)."""
        return self.root / "origin"

    @property
    def gguf(self) -> Path:
        """What of the run was converted for llama.cpp to be asked, and is kept."""
        return self.root / "gguf"

    @property
    def evaluations(self) -> Path:
        return self.root / "evaluations"

    @property
    def exports(self) -> Path:
        return self.root / "exports"


@dataclass(frozen=True)
class Workspace:
    """A folder with everything Tunesmith keeps: data sets, runs, models, the job store.

    `allowed` are further folders that the owner opened for reading (data, local models).
    """

    root: Path
    allowed: tuple[Path, ...] = ()

    @classmethod
    def open(cls, root: str | Path | None = None, allowed: Sequence[str | Path] = ()) -> Workspace:
        """`root`, else TUNESMITH_WORKSPACE, else ./workspace. Made if it is not there.

        TUNESMITH_ALLOW (folders separated like PATH) adds to `allowed`.
        """
        asked = str(root or os.environ.get("TUNESMITH_WORKSPACE") or "workspace")
        if "://" in asked:
            raise WorkspaceError(
                _("{address} is an address; a workspace is a folder.", address=asked),
                _("Mount what is there (rclone, s3fs, gcsfuse), and give the folder of the mount."),
            )
        folder = Path(asked).expanduser().resolve()
        extra = [Path(p) for p in os.environ.get("TUNESMITH_ALLOW", "").split(os.pathsep) if p]
        workspace = cls(folder, tuple(Path(p).expanduser().resolve() for p in [*allowed, *extra]))
        try:
            for part in (workspace.datasets, workspace.runs, workspace.models, workspace.presets):
                part.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WorkspaceError(
                _(
                    "The workspace {folder} cannot be made: {why}.",
                    folder=folder,
                    why=reason_of(error),
                ),
                _("Choose another folder with --workspace or TUNESMITH_WORKSPACE."),
            ) from error
        return workspace

    @property
    def database(self) -> Path:
        return self.root / "tunesmith.db"

    @property
    def datasets(self) -> Path:
        return self.root / "datasets"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def jobs(self) -> Path:
        """The folders of jobs that belong to no run: work on data."""
        return self.root / "jobs"

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def gguf(self) -> Path:
        """Base models that were converted for llama.cpp, once for all runs."""
        return self.models / ".gguf"

    @property
    def presets(self) -> Path:
        """Presets the owner saved; those that ship with Tunesmith are in `presets/`."""
        return self.root / "presets"

    @property
    def rewards(self) -> Path:
        """Reward functions and schemas that the owner put there: code that runs. Nothing of
        Tunesmith writes into it."""
        return self.root / "rewards"

    @property
    def chats(self) -> Path:
        """Conversations that are kept, with what was said of the answers."""
        return self.root / "chats"

    @property
    def uploads(self) -> Path:
        return self.root / "uploads"

    def downloads(self, dataset_id: str) -> Path:
        """What of a data set was made ready for the browser to save."""
        return self.uploads / "downloads" / checked_id(dataset_id)

    @property
    def server(self) -> Path:
        """Address, pid and start time of the server that looks after this workspace."""
        return self.root / "server.json"

    @property
    def token(self) -> Path:
        """The secret that opens this workspace's page, for its owner alone."""
        return self.root / "token"

    @property
    def endpoint_key(self) -> Path:
        """The secret of the servers that answer programs, for its owner alone. It is the same
        after a restart, so that programs go on."""
        return self.root / "endpoint-key"

    @property
    def opening(self) -> Path:
        """A file that leads the browser to the page with its token, while a server is there."""
        return self.root / "open.html"

    def dataset(self, dataset_id: str) -> Path:
        return self.datasets / checked_id(dataset_id)

    def run(self, run_id: str) -> RunFolder:
        return RunFolder(self.runs / checked_id(run_id))

    def confine(self, path: str | Path) -> Path:
        """`path` resolved, if it lies in the workspace or an allowed folder; links are followed.

        Raises WorkspaceError otherwise, also when nothing is there.
        """
        if "\0" in str(path):
            raise WorkspaceError(
                _("{path!r} is no path: there is a NUL byte in it.", path=str(path)),
                _("Type the path again."),
            )
        resolved = Path(os.path.expanduser(path)).resolve()
        if not any(resolved.is_relative_to(folder) for folder in (self.root, *self.allowed)):
            raise WorkspaceError(
                _("{path} is outside the folders that may be read.", path=path),
                _("Upload the file, or start with --allow FOLDER (or TUNESMITH_ALLOW)."),
            )
        if not resolved.exists():
            raise WorkspaceError(_("{path} does not exist.", path=path), _("Check the spelling."))
        return resolved


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file with one a line; none where there is no file. Read as bytes: as text,
    lines would end at characters that JSON leaves as they are (U+2028)."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return []
    return [json.loads(line) for line in lines]


def checked_id(name: str) -> str:
    """`name`, if it is an id that can be a folder's name. Raises WorkspaceError otherwise."""
    if not _ID.fullmatch(name):
        raise WorkspaceError(
            _("{name!r} is not an id.", name=name),
            _("Ids are lower-case letters, digits and hyphens, such as 20261121-2214-quiet-otter."),
        )
    return name
