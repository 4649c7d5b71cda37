"""Several devices: what is said at a field before a run begins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.config import RunConfig, read_config
from core.config.run import device_count, rows_a_step, settle_devices
from core.errors import ConfigError
from core.estimate.summary import optimizer_steps, step_text
from core.models.hardware import Device, probe
from core.rules import parse_config
from core.rules.devices import device_problems
from core.runs.check import start_problems
from core.workspace import Workspace

SMI = """0, GPU-a, NVIDIA L4, 23034, 22000, 8.9
1, GPU-b, NVIDIA L4, 23034, 22000, 8.9
2, GPU-c, NVIDIA T4, 15360, 15000, 7.5
"""


def problems(**settings: Any) -> dict[str, str]:
    values = {f"training.{name}": value for name, value in settings.items() if "__" not in name}
    values |= {name.replace("__", "."): v for name, v in settings.items() if "__" in name}
    try:
        parse_config(values)
    except ConfigError as error:
        return {problem.field: problem.message for problem in error.problems}
    return {}


@pytest.mark.parametrize(
    ("settings", "field", "words"),
    [
        ({"devices": 2, "device": "cuda:1"}, "training.devices", "which is one card"),
        ({"devices": 2, "device": "mps"}, "training.devices", "an Apple GPU is one"),
        ({"devices": "0,1", "device": "cpu"}, "training.devices", "a number of processes"),
        ({"devices": "1,1"}, "training.devices", "names a card twice"),
        ({"devices": 2, "method__": 0}, "training.devices", "one process"),
        ({"strategy": "fsdp"}, "training.strategy", "nobody to share with"),
        ({"devices": 2, "strategy": "fsdp", "device": "cpu"}, "training.strategy", "to cards only"),
        ({"devices": 2, "offload": True}, "training.offload", "splits nothing"),
        ({"devices": 2, "deepspeed": "a.json"}, "training.deepspeed", "does not use it"),
        ({"devices": 2, "adapter__method": "adalora"}, "adapter.method", "one process"),
        ({"ray_address": "a:1", "device": "cuda:1"}, "training.device", "chooses the card"),
        ({"ray_address": "a:1", "device": "mps"}, "training.device", "chooses the card"),
        ({"ray_address": "a:1", "devices": "all"}, "training.devices", "Say how many"),
        ({"ray_address": "a:1", "devices": "0,1"}, "training.devices", "Say how many"),
        ({"ray_num_nodes": 2}, "training.ray_num_nodes", "without a Ray cluster"),
        (
            {"ray_address": "a:1", "ray_num_nodes": 2, "method__": 0},
            "training.ray_num_nodes",
            "one process",
        ),
        (
            {"ray_address": "a:1", "ray_num_nodes": 2, "adapter__method": "adalora"},
            "adapter.method",
            "one process",
        ),
        ({"ray_address": "a"}, "training.ray_address", ""),
        ({"ray_address": "ray://a:1"}, "training.ray_address", ""),
        (
            {"devices": 2, "strategy": "zero3", "adapter__quantization": "nf4"},
            "training.strategy",
            "packed weights",
        ),
        (
            {"devices": 2, "strategy": "fsdp", "adapter__init_lora_weights": "pissa"},
            "training.strategy",
            "goes with adapter.method",
        ),
    ],
)
def test_what_does_not_go_together(settings: dict[str, Any], field: str, words: str) -> None:
    if settings.pop("method__", None) is not None:
        settings["method"] = "grpo"
        found = _of_method(settings)
    else:
        found = problems(**settings)
    assert words in found[field]


def _of_method(settings: dict[str, Any]) -> dict[str, str]:
    config = RunConfig(method="grpo")
    for name, value in settings.items():
        if name != "method":
            setattr(config.training, name, str(value) if name == "devices" else value)
    with pytest.raises(ConfigError) as caught:
        parse_config(config.model_dump())
    return {problem.field: problem.message for problem in caught.value.problems}


@pytest.mark.parametrize(
    "settings",
    [
        {"strategy": "zero2", "adapter__quantization": "nf4"},
        {"strategy": "zero3", "device": "cpu"},
        {},
    ],
)
def test_what_does(settings: dict[str, Any]) -> None:
    assert problems(devices=2, **settings) == {}


@pytest.mark.parametrize("address", ["auto", "a.b:6379", "10.0.0.5:6379", "[::1]:6379"])
def test_addresses_of_a_cluster(address: str) -> None:
    assert problems(ray_address=address, devices=2) == {}


def test_a_cluster_is_not_asked_for_what_is_on_this_machine(workspace: Path) -> None:
    """Its nodes have other cards, other packages and more of both."""
    config = parse_config({"training.device": "cuda", "training.devices": 4})
    config.training.optim = "apollo_adamw"  # its package is not among those of the tests
    here = Workspace.open(workspace)
    fields = {problem.field for problem in start_problems(here, config, ["cpu"])}
    assert {"training.device", "training.devices", "training.optim"} <= fields
    config.training.ray_address = "a:1"
    fields = {problem.field for problem in start_problems(here, config, ["cpu"])}
    assert not fields & {"training.device", "training.devices", "training.optim"}


def test_devices_are_written_as_yaml_has_them(tmp_path: Path) -> None:
    for text, wanted, count in (("2", "2", 2), ("[0, 3]", "0,3", 2), ("0,1,2", "0,1,2", 3)):
        path = tmp_path / "config.yaml"
        path.write_text(
            f"training: {{devices: {text if ',' not in text or '[' in text else repr(text)}}}\n"
        )
        config = read_config(path)
        assert config.training.devices == wanted and device_count(config) == count
        config.save(path)
        assert read_config(path).training.devices == wanted
    with pytest.raises(ConfigError):
        parse_config({"training.devices": 0})


def test_a_step_learns_from_the_rows_of_all_devices() -> None:
    values = {
        "training.per_device_train_batch_size": 2,
        "training.gradient_accumulation_steps": 3,
        "training.num_train_epochs": 1,
    }
    one = parse_config(values)
    two = parse_config({**values, "training.devices": "0,1"})
    assert (rows_a_step(one, 2), rows_a_step(two, 2)) == (6, 12)
    assert (optimizer_steps(one, 25), optimizer_steps(two, 25)) == (5, 3)
    assert step_text(two) == "12: 2 at once x 3 before each step x 2 devices (ddp)"


def machine() -> tuple[Device, ...]:
    return probe(run=lambda _: SMI, environment={}).devices


@pytest.mark.parametrize(
    ("devices", "words"),
    [
        ("0,1", None),
        ("4", "this machine has 3 GPUs"),
        ("0,5", "no card 5. There are: 0, 1, 2"),
        ("all", "different kinds (0 NVIDIA L4, 1 NVIDIA L4, 2 NVIDIA T4)"),
        ("1,2", "different kinds"),
    ],
)
def test_cards_that_this_machine_has(tmp_path: Path, devices: str, words: str | None) -> None:
    config = parse_config({"training.devices": devices})
    found = [p.message for p in device_problems(Workspace.open(tmp_path), config, machine())]
    assert (not found) if words is None else words in found[0]


def test_all_are_as_many_as_there_are() -> None:
    config = parse_config({"training.devices": "all"})
    labels = [device.label for device in machine()]
    assert settle_devices(config, labels).training.devices == "3"
    assert settle_devices(config, ["cpu"]).training.devices == "1"


def test_own_settings_of_deepspeed_are_read(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path)
    file = tmp_path / "ds.json"
    values = {"training.devices": 2, "training.strategy": "zero2", "training.deepspeed": str(file)}
    config = parse_config(values)

    def said() -> str:
        found = device_problems(workspace, config, machine()[:2])
        return " ".join(p.message for p in found if p.field == "training.deepspeed")

    assert "does not exist" in said()
    file.write_text("{")
    assert "cannot be read as JSON" in said()
    file.write_text("[]")
    assert "zero_optimization.stage" in said()
    file.write_text(json.dumps({"zero_optimization": {"stage": 3}}))
    assert "says stage 3" in said()
    config.training.strategy = "zero3"
    gather = "stage3_gather_16bit_weights_on_model_save"
    assert gather in said()  # else the run would end without a model
    file.write_text(json.dumps({"zero_optimization": {"stage": 3, gather: True}}))
    assert said() == ""
