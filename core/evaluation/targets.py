"""Other models that answer the same rows as a run's: how each is named, and what is refused before
anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from core.errors import ModelError
from core.language import _
from core.models.location import check_model
from core.models.trained import FINAL, find_trained
from core.remote.endpoint import endpoint_from
from core.setup.extras import EXTRAS, missing
from core.workspace import Workspace

KINDS = ("run", "model", "gguf", "endpoint")


@dataclass(frozen=True)
class Target:
    """`run:ID` or `run:ID@CHECKPOINT`; `model:` and a Hub name or a folder with a whole model;
    `gguf:FILE`; `endpoint:MODEL`, a model of the OpenAI-compatible endpoint that the environment
    names."""

    kind: Literal["run", "model", "gguf", "endpoint"]
    value: str
    checkpoint: str = FINAL

    def __str__(self) -> str:
        at = f"@{self.checkpoint}" if self.checkpoint != FINAL else ""
        return f"{self.kind}:{self.value}{at}"


def parse_target(text: str) -> Target:
    """Raises ModelError for what names no model."""
    kind, _colon, value = text.strip().partition(":")
    if kind not in KINDS or not value:
        raise ModelError(
            _("{text!r} names no model to compare with.", text=text),
            _("Write run:ID, run:ID@checkpoint-40, model:FOLDER, gguf:FILE or endpoint:MODEL."),
        )
    if kind == "run":
        run_id, _at, checkpoint = value.partition("@")
        return Target("run", run_id, checkpoint or FINAL)
    return Target(kind, value)  # type: ignore[arg-type]


def check_target(target: Target, workspace: Workspace) -> None:
    """Raises TunesmithError where such a model cannot answer: nothing there, a place that may not
    be read, a package or an endpoint missing, a run whose model writes no text."""
    if target.kind == "run":
        method = find_trained(workspace.run(target.value), target.checkpoint).config.training_method
        if method.has_head or method.makes == "filler":
            raise ModelError(
                _(
                    "{name} was trained to give {outputs}: it writes no text.",
                    name=target.value,
                    outputs=method.outputs,
                ),
                _("Choose a run or a model that writes."),
            )
    elif target.kind == "model":
        check_model(target.value, workspace)
    elif target.kind == "gguf":
        if workspace.confine(target.value).suffix != ".gguf":
            raise ModelError(_("{path} is no GGUF file.", path=target.value), _("Choose one."))
        if missing(["gguf"]):
            raise ModelError(
                _("{packages} is not installed.", packages=EXTRAS["gguf"].title),
                _("Install it with: {command}", command=EXTRAS["gguf"].command),
            )
    else:
        endpoint_from()


def title_of(target: Target, name: str = "") -> str:
    """What it is called in a report; `name` is that of the run."""
    if target.kind == "run":
        if target.checkpoint == FINAL:
            return name or target.value
        return _("{run}, {checkpoint}", run=name or target.value, checkpoint=target.checkpoint)
    if target.kind == "endpoint":
        return target.value
    return Path(target.value).name
