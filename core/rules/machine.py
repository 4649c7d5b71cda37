"""What a run needs that this machine may not have: a package, a kind of device, a compiler.

Asked before a start, in the page and at submit; a config that needs more than this machine has is
still a config."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Sequence
from typing import Any

from core.config import RunConfig
from core.config.optimizers import OPTIMIZERS, Optimizer
from core.config.tracking import TITLES
from core.errors import Problem, either
from core.language import N_, _
from core.models import modelscope
from core.setup.extras import EXTRAS, Extra, is_installed, missing

_KIND_TITLES = {
    "cpu": N_("a CPU"),
    "cuda": N_("an NVIDIA or AMD GPU (CUDA)"),
    "xpu": N_("an Intel GPU (XPU)"),
}
_COMPILERS = ("c++", "g++", "clang++", "cl")


def missing_extras(path: str, value: Any) -> list[Extra]:
    """What `core.setup.extras` can install and the setting at `path` needs with this value."""
    if path == "training.optim":
        optimizer = OPTIMIZERS.get(str(value))
        return missing([optimizer.extra] if optimizer and optimizer.extra else [])
    if path == "training.ray_address":
        return missing(["ray"] if value else [])
    if path == "model.model_name_or_path":
        return missing([modelscope.EXTRA] if modelscope.is_named(str(value).strip()) else [])
    return missing(value or []) if path == "tracking.report_to" else []


def need_problems(config: RunConfig, devices: Sequence[str] | None = None) -> list[Problem]:
    """What this machine lacks for a run, at the setting that asks for it. `devices` are its
    devices by their labels, such as cuda:0 and cpu; without them nothing is said of those. Of a
    run on a cluster it has to know the cluster."""
    found = _not_installed(config, "model.model_name_or_path")
    if config.training.ray_address:
        return [*found, *_not_installed(config, "training.ray_address")]
    optimizer = OPTIMIZERS[config.training.optim]
    message = _device(optimizer, _kinds(config, devices)) or _package(optimizer)
    found += tracker_problems(config)
    if message:
        also = ("training.device",) if optimizer.devices else ()
        return [Problem("training.optim", message, also), *found]
    return found


def _not_installed(config: RunConfig, path: str) -> list[Problem]:
    """The packages that the setting at `path` lacks, with the command that installs them."""
    return [
        Problem(
            path,
            _(
                "{title} is not installed. Install it with: {command}",
                title=TITLES.get(extra.name, extra.title),
                command=extra.command,
            ),
        )
        for extra in missing_extras(path, config.values()[path])
    ]


def _kinds(config: RunConfig, devices: Sequence[str] | None) -> set[str]:
    """The kinds of device that the run may get, as far as they are known."""
    wanted = config.training.device
    if wanted != "auto":
        return {wanted.partition(":")[0]}
    if devices is None:
        return set()
    return {device.partition(":")[0] for device in devices if device != "cpu"} or {"cpu"}


def _device(optimizer: Optimizer, kinds: set[str]) -> str:
    wrong = sorted(kinds - set(optimizer.devices)) if optimizer.devices else []
    if not wrong:
        return ""
    needed = either([_KIND_TITLES[kind] for kind in optimizer.devices])
    return _(
        "The optimizer {name} needs {needed}, and this run would be on {device}. Take {instead}.",
        name=optimizer.name,
        needed=needed,
        device=wrong[0],
        instead=optimizer.instead,
    )


def _package(optimizer: Optimizer) -> str:
    name, instead = optimizer.name, optimizer.instead
    if optimizer.module and importlib.util.find_spec(optimizer.module) is None:
        return _(
            "The optimizer {name} needs the package {module}, which is not installed and "
            "which Tunesmith cannot install for the torch it runs on. Take {instead}.",
            name=name,
            module=optimizer.module,
            instead=instead,
        )
    if optimizer.extra and not is_installed(optimizer.extra):
        extra = EXTRAS[optimizer.extra]
        return _(
            "The optimizer {name} needs {title}, which is not installed. Install it: {command}",
            name=name,
            title=extra.title,
            command=extra.command,
        )
    if optimizer.compiles and not (os.environ.get("CXX") or any(map(shutil.which, _COMPILERS))):
        return _(
            "The optimizer {name} compiles itself, and this machine has no C++ compiler. "
            "Install one (Debian and Ubuntu: sudo apt install g++), or take {instead}.",
            name=name,
            instead=instead,
        )
    return ""


def tracker_problems(config: RunConfig) -> list[Problem]:
    """What keeps the chosen trackers from being told anything on this machine: a package that is
    not installed, with the command that installs it."""
    return _not_installed(config, "tracking.report_to")


def tracker_warnings(config: RunConfig) -> list[Problem]:
    """Keys and addresses that are not in the environment. The run would learn all the same."""
    tracking = config.tracking
    needed = (
        ("wandb", "tracking.wandb_mode", "online", "WANDB_API_KEY", "offline"),
        ("swanlab", "tracking.swanlab_mode", "online", "SWANLAB_API_KEY", "offline"),
        ("mlflow", "tracking.mlflow_mode", "server", "MLFLOW_TRACKING_URI", "local"),
    )
    found = []
    for name, path, mode, variable, instead in needed:
        chosen = getattr(tracking, path.rpartition(".")[2])
        if name in tracking.report_to and chosen == mode and not os.environ.get(variable):
            message = _(
                "{mode} needs {variable} in the environment that Tunesmith was started from, and "
                "it is not set there. Set it and start again, or choose {instead}.",
                mode=mode,
                variable=variable,
                instead=instead,
            )
            found.append(Problem(path, message, ("tracking.report_to",)))
    return found
