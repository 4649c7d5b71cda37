"""What the trainers do for optimizers beside the library: arguments with their kinds, warm-up and
averaged weights of schedule-free ones, states that would be lost at a resume, and layer by layer.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from transformers import Trainer
from transformers.training_args import OptimizerNames
from trl.trainer.base_trainer import _BaseTrainer

from core.config import RunConfig
from core.config.optimizers import OPTIMIZERS
from core.config.schedules import SCHEDULES

_LAYERWISE = "_layerwise"


def optimizer_arguments(config: RunConfig) -> dict[str, Any]:
    """The fields of optimizer and schedule as TrainingArguments takes them."""
    training = config.training
    optimizer = OPTIMIZERS[training.optim]
    kwargs = dict(training.lr_scheduler_kwargs)
    if SCHEDULES[training.lr_scheduler_type].measured and config.evaluation.greater_is_better:
        kwargs.setdefault("mode", "max")  # the library would wait for an accuracy to fall
    return {
        "optim": training.optim,
        "optim_args": _as_text(training.optim, training.optim_args),
        "optim_target_modules": training.optim_target_modules if optimizer.low_rank else None,
        "max_grad_norm": training.max_grad_norm if optimizer.clips else 0.0,
        "lr_scheduler_type": training.lr_scheduler_type,
        "lr_scheduler_kwargs": kwargs or None,
    }


def _as_text(name: str, given: Mapping[str, Any]) -> str | None:
    """`rank=64,scale=0.5`. StableAdamW takes any text for true, so its false has to be empty."""
    no = "" if name == "stable_adamw" else "false"
    texts = {
        key: ("true" if value else no) if isinstance(value, bool) else str(value)
        for key, value in given.items()
    }
    return ",".join(f"{key}={text}" for key, text in texts.items()) or None


class OptimizedTrainer(_BaseTrainer):
    """To stand before a trainer of transformers' among the bases of a class. Makes the optimizer
    that the arguments name, unless one is there already, such as LoRA+'s."""

    optimizer: Any

    def create_optimizer(self, model: Any = None) -> Any:
        if self.optimizer is None:
            self.optimizer = create_optimizer(self, self.model if model is None else model)
        return super().create_optimizer(model)

    @staticmethod
    def get_optimizer_cls_and_kwargs(args: Any, model: Any = None) -> tuple[Any, dict[str, Any]]:
        with _no_side_effects():
            made, kwargs = Trainer.get_optimizer_cls_and_kwargs(args, model)
        name = args.optim.value
        if "lomo" in name:
            kwargs["weight_decay"] = args.weight_decay
        if name.startswith("galore_adafactor"):
            kwargs.update(scale_parameter=False, relative_step=False)
        return _resumable(name, made), _with_kinds(kwargs, name)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        if self._is_schedule_free():
            # The library hands on warmup_steps as it stands: a share below 1 would multiply the
            # rate of the first step.
            steps = self.args.get_warmup_steps(num_training_steps)
            for group in self.optimizer.param_groups:
                group["warmup_steps"] = steps
        return super().create_scheduler(num_training_steps, optimizer)

    def train(self, *arguments: Any, **options: Any) -> Any:
        result = super().train(*arguments, **options)
        self._take_average()
        return result

    def _save_checkpoint(self, *arguments: Any, **options: Any) -> Any:
        self._take_average()  # what a person tries in Chat; the next step goes back by itself
        return super()._save_checkpoint(*arguments, **options)

    def _load_best_model(self) -> None:
        self._take_average()  # before, so that what is loaded stays as it is
        super()._load_best_model()

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """None where the gradients are gone by now; 0 would be no norm of theirs."""
        if OPTIMIZERS[self.args.optim.value].at_once:
            return None
        return super()._get_grad_norm(model, grad_norm=grad_norm)

    def _is_schedule_free(self) -> bool:
        return OPTIMIZERS[self.args.optim.value].schedule_free

    def _take_average(self) -> None:
        """Schedule-free optimizers train other weights than those that are good: the average."""
        if self._is_schedule_free() and self.optimizer is not None:
            self.optimizer.eval()


def create_optimizer(trainer: Any, model: Any) -> Optimizer | None:
    """The optimizer of `trainer.args` for `model`; None for those that the library makes well."""
    args = trainer.args
    if not args.optim.value.endswith(_LAYERWISE):
        return None
    whole = copy.copy(args)
    whole.optim = OptimizerNames(args.optim.value.removesuffix(_LAYERWISE))
    made, kwargs = trainer.get_optimizer_cls_and_kwargs(whole, model)
    groups = kwargs.pop("params")
    parts = {
        parameter: made([{**group, "params": [parameter]}], **kwargs)
        for group in groups
        for parameter in group["params"]
        if parameter.requires_grad
    }
    return LayerwiseOptimizer(parts, args.learning_rate)


class LayerwiseOptimizer(Optimizer):
    """An optimizer for each weight, which changes it as soon as its gradient is there, and then
    drops that.

    transformers has one too; its schedule does not start with this torch, and a checkpoint of it
    has none of its states.
    """

    def __init__(self, parts: dict[Tensor, Optimizer], learning_rate: float) -> None:
        super().__init__([torch.zeros(1)], {"lr": learning_rate})
        self.parts = list(parts.values())
        for parameter, part in parts.items():
            parameter.register_post_accumulate_grad_hook(partial(self._change, part))

    def _change(self, part: Optimizer, parameter: Tensor) -> None:
        for group in part.param_groups:
            group["lr"] = self.param_groups[0]["lr"]
        part.step()
        parameter.grad = None

    def step(self, closure: Any = None) -> None:
        """Nothing: each weight was changed when its gradient came."""

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)


def _with_kinds(kwargs: dict[str, Any], name: str) -> dict[str, Any]:
    """What the library took out of a text and left as text gets its kind."""
    known = OPTIMIZERS[name].arguments
    return {
        key: known[key].kind(value)
        if isinstance(value, str) and known[key].kind is not str
        else value
        for key, value in kwargs.items()
        if key in known
    } | {key: value for key, value in kwargs.items() if key not in known}


def _resumable(name: str, made: Any) -> Any:
    """The optimizer's class, so that a checkpoint has all of its state and can be read."""
    if name == "adalomo":
        return _keeping(made)
    if name == "grokadamw":
        return _keeping_by_weight(made)
    # They stand in a state as objects, and a checkpoint is read with these allowed only.
    torch.serialization.add_safe_globals(
        [getattr(import_module(x), y) for x, y in _projectors(name)]
    )
    return made


def _projectors(name: str) -> list[tuple[str, str]]:
    if name.startswith("galore"):
        return [("galore_torch.galore_projector", "GaLoreProjector")]
    if name.startswith("apollo"):
        return [
            ("apollo_torch.random_projector", "GradientProjector"),
            ("apollo_torch.svd_projector", "GaLoreProjector"),
        ]
    return []


def _keeping(made: type[Any]) -> type[Any]:
    """AdaLOMO holds its sums beside the state that a checkpoint gets."""
    sums = ("exp_avg_sq", "exp_avg_sq_row", "exp_avg_sq_col")

    class Keeping(made):
        def state_dict(self) -> dict[str, Any]:
            kept = {name: getattr(self, name) for name in sums}
            return {**super().state_dict(), "step_num": self.step_num, "sums": kept}

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            super().load_state_dict(state_dict)
            self.step_num = state_dict["step_num"]
            for name, kept in state_dict["sums"].items():
                for weight, value in kept.items():
                    getattr(self, name)[weight].copy_(value)

    return Keeping


def _keeping_by_weight(made: type[Any]) -> type[Any]:
    """GrokAdamW holds its states by the weights themselves, which are others after a resume."""

    class Keeping(made):
        def state_dict(self) -> dict[str, Any]:
            saved: dict[str, Any] = super().state_dict()
            for group, copied in zip(self.param_groups, saved["param_groups"], strict=True):
                states = group.get("state", {})
                copied["state"] = [states.get(weight) for weight in group["params"]]
            return saved

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            super().load_state_dict(state_dict)
            for group in self.param_groups:
                saved = group.pop("state", [])
                pairs = zip(group["params"], saved, strict=True)
                group["state"] = {weight: state for weight, state in pairs if state}

    return Keeping


@contextmanager
def _no_side_effects() -> Iterator[None]:
    """GrokAdamW tells the whole program to log at its import, and warns at each step."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    warnings.filterwarnings("ignore", category=FutureWarning, module="grokadamw")
    warnings.filterwarnings("ignore", message="User provided device_type of 'cuda'")
    yield
    root.setLevel(level)
    root.handlers[:] = handlers
