"""What a run left behind: an adapter on its base, or a whole model. No torch: only the files."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.config import RunConfig, load_config
from core.errors import ModelError
from core.workspace import RunFolder

FINAL = "final"
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
# Initial weights that PEFT takes out of the base, so that without its adapter it is not the base.
_TAKEN_FROM_BASE = ("pissa", "olora", "corda", "loftq")


@dataclass(frozen=True)
class TrainedModel:
    """The weights of one checkpoint of a run.

    `folder` holds an adapter (`is_adapter`) or a whole model. `base` is what the run was trained
    from, as its config names it.
    """

    run: RunFolder
    checkpoint: str
    config: RunConfig
    folder: Path
    is_adapter: bool

    @property
    def base(self) -> str:
        return self.config.model.model_name_or_path

    @property
    def adapter(self) -> Path | None:
        return self.folder if self.is_adapter else None

    @property
    def has_tokenizer(self) -> bool:
        return (self.folder / "tokenizer_config.json").is_file()

    @property
    def shares_base(self) -> bool:
        """Whether the model with its adapter switched off is exactly the base.

        Not so when biases were trained, or when the adapter began with a part of the base.
        """
        if not self.is_adapter:
            return False
        settings = adapter_settings(self.folder)
        begin = str(settings.get("init_lora_weights", "")).lower()
        return settings.get("bias", "none") == "none" and not begin.startswith(_TAKEN_FROM_BASE)


def find_trained(run: RunFolder, checkpoint: str = FINAL) -> TrainedModel:
    """The model that a run left at `checkpoint` ("final" or such as "checkpoint-40").

    Raises ModelError when there is none, naming those that there are.
    """
    if not run.config.is_file():
        raise ModelError(f"There is no run {run.root.name}.", "See which there are: runs list.")
    config = load_config(run.config)
    if checkpoint == FINAL:
        folders = [run.adapter, run.model]
    elif _CHECKPOINT.fullmatch(checkpoint):
        folders = [run.checkpoints / checkpoint]
    else:
        raise ModelError(f"{checkpoint!r} is not a checkpoint.", _which(run))
    for folder in folders:
        if (folder / "adapter_config.json").is_file() and any(folder.glob("adapter*.safetensors")):
            return TrainedModel(run, checkpoint, config, folder, is_adapter=True)
        if (folder / "config.json").is_file() and any(folder.glob("*.safetensors")):
            return TrainedModel(run, checkpoint, config, folder, is_adapter=False)
    raise ModelError(f"{run.root.name} has no {checkpoint} model.", _which(run))


def adapter_settings(folder: Path) -> dict[str, Any]:
    """The adapter's own configuration. Raises ModelError when it cannot be read."""
    try:
        settings = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"The adapter in {folder.name} cannot be read: {error}.", "Choose another checkpoint."
        ) from error
    return dict(settings)


def _which(run: RunFolder) -> str:
    """The checkpoints that there are, latest last, as a hint."""
    found = [
        (int(match[1]), path.name)
        for path in run.checkpoints.glob("checkpoint-*")
        if (match := _CHECKPOINT.fullmatch(path.name))
    ]
    names = [name for _, name in sorted(found)]
    if (run.adapter / "adapter_config.json").is_file() or (run.model / "config.json").is_file():
        names.append(FINAL)
    if not names:
        return "It has saved no checkpoint yet; wait for one, or let it train to its end."
    return f"Choose one of: {', '.join(names)}."
