"""What a run left behind: an adapter on its base, or a whole model. No torch: only the files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.config import RunConfig, load_config
from core.errors import ModelError
from core.jobs.checkpoints import checkpoints
from core.workspace import RunFolder

FINAL = "final"
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

    Raises ModelError when it is not there or not whole, naming those that are.
    """
    if not run.config.is_file():
        raise ModelError(f"There is no run {run.root.name}.", "See which there are: runs list.")
    whole = checkpoints(run.root)
    found = next((item for item in whole if item.name == checkpoint), None)
    if found is None:
        names = [item.name for item in whole]
        raise ModelError(
            f"{run.root.name} has no whole model {checkpoint!r}.",
            f"Choose one of: {', '.join(names)}."
            if names
            else "It has saved none yet: wait for a checkpoint, or let it train to its end.",
        )
    is_adapter = (found.path / "adapter_config.json").is_file()
    return TrainedModel(run, checkpoint, load_config(run.config), found.path, is_adapter)


def adapter_settings(folder: Path) -> dict[str, Any]:
    """The adapter's own configuration. Raises ModelError when it cannot be read."""
    try:
        settings = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"The adapter in {folder.name} cannot be read: {error}.", "Choose another checkpoint."
        ) from error
    return dict(settings)
