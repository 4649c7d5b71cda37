"""The Hugging Face Hub: what its local cache has, whether it answers, and fetching from it.

HF_ENDPOINT, HF_HUB_OFFLINE, HF_HOME and the token store are huggingface_hub's and count here too.
Nothing here imports torch.
"""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

from core.errors import ModelError
from core.language import _
from core.progress import Tell

# Told with a share from 0 to 1 and a short text. What it raises stops the work and is passed on.

# In a folder that has a base's name and adapters in place of weights (`core.models.origin`).
STACK = "stack.json"
# Weights as safetensors only, and what belongs to them.
MODEL_FILES = ["*.json", "*.safetensors", "*.txt", "*.jinja", "*.model", "README.md"]


class Answer(Enum):
    """What the Hub says to a model's id."""

    THERE = "there"
    NOT_THERE = "not there, or private"
    NOT_AN_ID = "not an id"
    SILENT = "no answer"


class HubFailed(Exception):
    """A download from the Hub that broke off; the message says why."""


def way_round() -> str:
    """What helps where the Hub itself cannot be reached."""
    return _(
        "Where the Hub cannot be reached, set HF_ENDPOINT=https://hf-mirror.com before the start, "
        "or take the model from ModelScope: name it modelscope:OWNER/NAME."
    )


def is_model_folder(folder: Path) -> bool:
    """Whether `folder` has a config in it, and safetensors or a stack."""
    if not os.path.isfile(folder / "config.json"):  # a name may be too long to be a file's
        return False
    return any(folder.glob("*.safetensors")) or (folder / STACK).is_file()


def check_files(name: str, files: Sequence[str]) -> None:
    """Raises ModelError where these files of a repository are no model that can be used."""
    if "config.json" in files and any("/" not in f and f.endswith(".safetensors") for f in files):
        return
    if "adapter_config.json" in files:
        raise ModelError(
            _("{name} holds an adapter, not a model.", name=name),
            _("Name the model it was trained from."),
        )
    raise ModelError(
        _("{name} holds no model.", name=name),
        _("A model has config.json and its weights as .safetensors in it."),
    )


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE forbids asking."""
    from huggingface_hub.constants import is_offline_mode

    return bool(is_offline_mode())


def is_id(name: str) -> bool:
    """Whether a model of the Hub may be called so."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def cached_snapshot(hub_id: str) -> Path | None:
    """The folder of a model in the local Hub cache, if its config and weights are there."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        folder = Path(
            snapshot_download(hub_id, local_files_only=True, allow_patterns=MODEL_FILES[:2])
        )
    except (HFValidationError, OSError):  # OSError: the cache has nothing, or not all, of it
        return None
    return folder if is_model_folder(folder) else None


def ask(hub_id: str, seconds: float) -> Answer:
    """Whether the Hub has the model; SILENT if it says nothing within `seconds`, all in all."""
    answers: list[Answer] = []
    # In a thread: the client's own time limits leave out looking up the address.
    asking = threading.Thread(target=lambda: answers.append(_ask(hub_id, seconds)), daemon=True)
    asking.start()
    asking.join(seconds)
    return answers[0] if answers else Answer.SILENT


def _ask(hub_id: str, seconds: float) -> Answer:
    import httpx2
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    try:
        HfApi().model_info(hub_id, timeout=seconds)
    except RepositoryNotFoundError:
        return Answer.NOT_THERE
    except HFValidationError:
        return Answer.NOT_AN_ID
    except (OSError, httpx2.HTTPError, ValueError):  # ValueError: a login page of the network
        return Answer.SILENT
    return Answer.THERE


def download(hub_id: str, tell: Tell, revision: str | None = None) -> Path:
    """Fetches a model's files into the Hub cache, where a later call goes on after a break.

    Returns the folder. Raises HubFailed.
    """
    import httpx2
    from huggingface_hub import snapshot_download

    name = hub_id.rsplit("/", 1)[-1]
    try:
        how: dict[str, Any] = {"revision": revision, "allow_patterns": MODEL_FILES}
        quiet = progress_bar(lambda done: None)
        wanted: Any = snapshot_download(hub_id, dry_run=True, tqdm_class=quiet, **how)
        size = sum(file.file_size or 0 for file in wanted if file.will_download)
        bar = progress_bar(
            lambda done: tell(min(done / max(size, 1), 1.0), downloading(name, done, size))
        )
        folder = Path(snapshot_download(hub_id, tqdm_class=bar, **how))
        tell(1.0, downloading(name, size, size))
    except (OSError, httpx2.HTTPError, ValueError) as error:
        raise HubFailed(
            str(error).splitlines()[0] if str(error) else type(error).__name__
        ) from error
    if not is_model_folder(folder):
        raise HubFailed(_("{name} has no safetensors", name=hub_id))
    return folder


def downloading(name: str, done: float, size: float) -> str:
    return _(
        "Downloading {name}: {done:.0f} of {size:.0f} MB",
        name=name,
        done=done / 1e6,
        size=size / 1e6,
    )


def progress_bar(tell: Callable[[float], None]) -> type[Any]:
    """A tqdm that shows nothing and passes the bytes on, a few times a second."""
    from tqdm import tqdm

    class Bar(tqdm):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **{**options, "file": io.StringIO()})

        def display(self, *_: Any, **__: Any) -> None:
            pass

        def update(self, n: float | None = 1) -> bool | None:
            # Not in `display`, during which tqdm holds a lock that whatever `tell` raises would
            # leave taken.
            is_due: bool | None = super().update(n)
            if is_due and self.unit == "B" and self.n:
                tell(self.n)
            return is_due

    return Bar
