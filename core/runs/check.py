"""What keeps a run from being started: the one list that the page, the commands and submit ask for.

What would not keep it from starting, but looks wrong, is in core.estimate.summary beside it.
"""

from __future__ import annotations

from collections.abc import Sequence

from core.config import RunConfig
from core.data.registry import load_dataset_info
from core.errors import Problem, TunesmithError
from core.jobs.devices import serves
from core.language import _
from core.models.hardware import Device, probe
from core.rules.base_model import adapter_problems, model_problems
from core.rules.data import data_problems, reward_problems
from core.rules.devices import device_problems
from core.rules.machine import need_problems
from core.runs.lineage import chain_problems
from core.tokens.chat_templates import MODELS_OWN, load_template
from core.workspace import Workspace


def start_problems(
    workspace: Workspace,
    config: RunConfig,
    devices: Sequence[str] | None = None,
    *,
    goes_on: bool = False,
) -> list[Problem]:
    """All that keeps a run from being started, as far as the model is here: what `submit_run`
    would refuse. One that `goes_on` has what an earlier run began with."""
    here = _here(devices)
    labels = [device.label for device in here]
    return [
        *_device_problems(config, labels),
        *device_problems(workspace, config, here),
        *_data_problems(workspace, config),
        *_template_problems(workspace, config),
        *model_problems(workspace, config),
        *adapter_problems(workspace, config, goes_on=goes_on),
        *([] if goes_on else chain_problems(workspace, config)),
        *need_problems(config, labels),
    ]


def _here(labels: Sequence[str] | None) -> list[Device]:
    """This machine's devices, or those with these labels, of which less may be known."""
    found = list(probe().devices)
    if labels is None:
        return found
    known = {device.label: device for device in found}
    return [known.get(label) or _named(label) for label in labels]


def _named(label: str) -> Device:
    kind, _colon, number = label.partition(":")
    return Device(kind, int(number or 0), kind, 0, 0)  # type: ignore[arg-type]


def _device_problems(config: RunConfig, here: Sequence[str]) -> list[Problem]:
    if config.training.ray_address:
        return []
    device = config.training.device
    accelerators = [name for name in here if name != "cpu"]
    found = []
    if not serves(here, device):
        known = ", ".join(here)
        message = _(
            "{device} is not on this machine, which has {known}. Choose one, or auto.",
            device=device,
            known=known,
        )
        found.append(Problem("training.device", message))
    if config.training.precision == "fp16" and (device == "cpu" or not accelerators):
        message = _(
            "fp16 needs an accelerator; a CPU trains in bf16 or fp32. Set precision to auto."
        )
        found.append(Problem("training.precision", message, ("training.device",)))
    return found


def _data_problems(workspace: Workspace, config: RunConfig) -> list[Problem]:
    try:
        info = load_dataset_info(workspace, config.data.dataset)
    except TunesmithError as error:
        return [Problem("data.dataset", str(error))]
    return [*data_problems(info, config), *reward_problems(info, config, workspace)]


def _template_problems(workspace: Workspace, config: RunConfig) -> list[Problem]:
    try:
        if config.data.chat_template != MODELS_OWN:
            load_template(config.data.chat_template, workspace)
    except TunesmithError as error:
        return [Problem("data.chat_template", str(error))]
    return []
