"""What of several devices does not go with a run, or is not on this machine."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator, Sequence

from core.config import RunConfig
from core.config.optimizers import OPTIMIZERS
from core.errors import Problem, TunesmithError
from core.language import _
from core.models.hardware import Device
from core.workspace import Workspace

_DEVICES, _DEVICE = "training.devices", "training.device"
_CLUSTER, _NODES = "training.ray_address", "training.ray_num_nodes"
_STRATEGY, _OFFLOAD, _DEEPSPEED = "training.strategy", "training.offload", "training.deepspeed"
ZERO = ("zero1", "zero2", "zero3")
SPLIT = ("fsdp", "zero3")
"""Strategies with which no device has the whole model."""


def device_rules(config: RunConfig) -> Iterator[Problem]:
    """What needs nothing but the config."""
    training = config.training
    if training.ray_address:
        yield from _cluster_rules(config)
    elif training.ray_num_nodes > 1:
        message = _(
            "{nodes} without a Ray cluster (training.ray_address). Say where it is, or take 1.",
            nodes=training.ray_num_nodes,
        )
        yield Problem(_NODES, message, (_CLUSTER,))
    if training.devices != "1" or training.ray_num_nodes > 1:
        yield from _several_rules(config)
    elif training.strategy != "auto":
        yield Problem(
            _STRATEGY,
            _(
                "{strategy} with one device: there is nobody to share with. Raise "
                "training.devices, or set it to auto.",
                strategy=training.strategy,
            ),
            (_DEVICES,),
        )
    if training.offload and training.strategy not in ("fsdp", "zero2", "zero3"):
        yield Problem(
            _OFFLOAD,
            _(
                "on with training.strategy {strategy}, which splits nothing that could wait "
                "elsewhere. Take fsdp, zero2 or zero3, or turn it off.",
                strategy=training.strategy,
            ),
            (_STRATEGY,),
        )
    if training.deepspeed and training.strategy not in ZERO:
        yield Problem(
            _DEEPSPEED,
            _(
                "settings of DeepSpeed with training.strategy {strategy}, which does not use it. "
                "Take zero1, zero2 or zero3, or leave the file out.",
                strategy=training.strategy,
            ),
            (_STRATEGY,),
        )


def _cluster_rules(config: RunConfig) -> Iterator[Problem]:
    """A cluster is asked for a number of cards, of which nobody knows here which they are."""
    training = config.training
    if training.device not in ("auto", "cpu", "cuda"):
        message = _(
            "{device} on a Ray cluster, which chooses the card itself. Take cuda, cpu or auto.",
            device=training.device,
        )
        yield Problem(_DEVICE, message, (_CLUSTER,))
    if not training.devices.isdigit():
        message = _(
            "{devices} on a Ray cluster, which chooses the cards itself. Say how many.",
            devices=training.devices,
        )
        yield Problem(_DEVICES, message, (_CLUSTER,))


def _several_rules(config: RunConfig) -> Iterator[Problem]:
    training = config.training
    kind, _colon, number = training.device.partition(":")
    why = config.training_method.why_one_device
    if why and training.devices != "1":
        yield Problem(
            _DEVICES,
            _("{devices} with method {method}: {why}. Set it to 1.", why=why, **_told(config)),
            ("method",),
        )
    elif why:
        told = {**_told(config), "devices": str(training.ray_num_nodes)}
        message = _("{devices} with method {method}: {why}. Set it to 1.", why=why, **told)
        yield Problem(_NODES, message, ("method",))
    cards = training.devices.split(",") if "," in training.devices else []
    if len(set(cards)) < len(cards):
        yield Problem(_DEVICES, _("{devices} names a card twice.", devices=training.devices))
    if number:
        yield Problem(
            _DEVICES,
            _(
                "{devices} with training.device {device}, which is one card. Set the device to "
                "{kind}, or devices to 1.",
                kind=kind,
                **_told(config),
            ),
            (_DEVICE,),
        )
    if kind == "mps" or (kind == "cpu" and cards):
        yield Problem(
            _DEVICES,
            _(
                "{devices} with training.device {device}: a CPU takes a number of processes, an "
                "Apple GPU is one, and cards have numbers on cuda alone.",
                **_told(config),
            ),
            (_DEVICE,),
        )
    optimizer = OPTIMIZERS[training.optim]
    if optimizer.at_once:
        yield Problem(
            "training.optim",
            _(
                "{name} with several devices: it changes the weights before the devices have "
                "added up their gradients. Take another one, or one device.",
                name=optimizer.name,
            ),
            (_DEVICES,),
        )
    if config.adapter.method == "adalora":
        yield Problem(
            "adapter.method",
            _(
                "adalora with several devices: its ranks are judged by one process. Take lora, "
                "or one device."
            ),
            (_DEVICES,),
        )
    yield from _strategy_rules(config)


def _told(config: RunConfig) -> dict[str, str]:
    training = config.training
    return {"devices": training.devices, "device": training.device, "method": config.method}


def _strategy_rules(config: RunConfig) -> Iterator[Problem]:
    """What does not go with parts of a run on each device."""
    training, adapter = config.training, config.adapter
    strategy = training.strategy
    if strategy in ("auto", "ddp"):
        return
    if strategy == "fsdp" and training.device == "cpu":
        yield Problem(
            _STRATEGY,
            _(
                "fsdp with training.device cpu: accelerate takes it to cards only. Take ddp, or "
                "zero3, which splits the model too."
            ),
            (_DEVICE,),
        )
    if OPTIMIZERS[training.optim].low_rank:
        yield Problem(
            "training.optim",
            _(
                "{name} with training.strategy {strategy}: it projects whole layers, and the "
                "optimizer would see parts of them. Take ddp or another optimizer.",
                name=training.optim,
                strategy=strategy,
            ),
            (_STRATEGY,),
        )
    if strategy not in SPLIT:
        return
    quantization: str = adapter.quantization
    if quantization != "none":
        yield Problem(
            _STRATEGY,
            _(
                "{strategy} with adapter.quantization {quantization}: packed weights cannot be "
                "split. Take ddp, zero1 or zero2, or set quantization to none.",
                strategy=strategy,
                quantization=quantization,
            ),
            ("adapter.quantization",),
        )
    plain = adapter.method in ("none", "lora") and adapter.init_lora_weights == "default"
    if not plain or config.vocabulary.new_tokens:
        yield Problem(
            _STRATEGY,
            _(
                "{strategy} splits the model and goes with adapter.method lora or none, "
                "init_lora_weights default, and no new tokens. Take ddp, zero1 or zero2.",
                strategy=strategy,
            ),
            ("adapter.method", "adapter.init_lora_weights"),
        )


def device_problems(
    workspace: Workspace, config: RunConfig, here: Sequence[Device]
) -> Iterator[Problem]:
    """What this machine, with these devices, cannot do of it."""
    training = config.training
    if training.ray_address:
        return  # the node has what it needs, or says so
    if training.devices != "1" and training.device != "cpu":
        yield from _card_problems(config, [device for device in here if device.kind == "cuda"])
    if training.strategy not in ZERO:
        return
    if importlib.util.find_spec("deepspeed") is None:
        yield Problem(
            _STRATEGY,
            _(
                "{strategy} needs DeepSpeed, which is not installed. Install it with "
                "pip install deepspeed, or take fsdp.",
                strategy=training.strategy,
            ),
        )
    if training.deepspeed:
        wrong = _wrong_file(workspace, training.deepspeed, training.strategy)
        if wrong:
            yield Problem(_DEEPSPEED, wrong)


def _card_problems(config: RunConfig, cards: Sequence[Device]) -> Iterator[Problem]:
    """Cards that are not there, and cards of different kinds."""
    asked = config.training.devices
    chosen = list(cards)
    if "," in asked:
        known = {str(card.index): card for card in cards}
        missing = [number for number in asked.split(",") if number not in known]
        if missing:
            there = ", ".join(known)
            message = _(
                "there is no card {missing}. There are: {there}.",
                missing=", ".join(missing),
                there=there or _("none"),
            )
            yield Problem(_DEVICES, message)
        chosen = [known[number] for number in asked.split(",") if number in known]
    elif asked != "all" and int(asked) > len(cards):
        message = _(
            "{asked} asked for, and this machine has {count} GPUs. Take fewer, or set "
            "training.device to cpu, where so many processes share the cores.",
            asked=asked,
            count=len(cards),
        )
        yield Problem(_DEVICES, message, (_DEVICE,))
    kinds = {card.name: card for card in chosen}
    if len(kinds) > 1:
        listed = ", ".join(f"{card.index} {card.name}" for card in chosen)
        message = _(
            "cards of different kinds ({cards}): each step would wait for the slowest, and the "
            "smallest memory would hold for all. Name those of one kind, such as 0,1.",
            cards=listed,
        )
        yield Problem(_DEVICES, message)


def _wrong_file(workspace: Workspace, path: str, strategy: str) -> str:
    """Why a file is not what DeepSpeed takes for this strategy; "" where it looks like it."""
    try:
        found = json.loads(workspace.confine(path).read_text(encoding="utf-8"))
    except TunesmithError as error:
        return str(error)
    except (OSError, ValueError) as error:
        return _("{path} cannot be read as JSON: {reason}", path=path, reason=str(error))
    zero = found.get("zero_optimization") if isinstance(found, dict) else None
    if not isinstance(zero, dict) or "stage" not in zero:
        return _("{path} says nothing of zero_optimization.stage.", path=path)
    if strategy != f"zero{zero['stage']}":
        return _(
            "{path} says stage {stage}, and training.strategy {strategy}.",
            path=path,
            stage=zero["stage"],
            strategy=strategy,
        )
    whole = "stage3_gather_16bit_weights_on_model_save"
    if strategy == "zero3" and zero.get(whole) is not True:
        return _(
            "{path} does not set zero_optimization.{setting} to true, without which the trained "
            "model could not be put together.",
            path=path,
            setting=whole,
        )
    return ""
