"""The plan beside the form must be what happens: wrong, and a person starts the wrong run."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.config import RunConfig
from core.models.hardware import CpuFlags, Device, Hardware, probe
from core.rules import parse_config
from core.tokens.lens import Lens
from tests.webui.fakes import fake_app
from webui.configure import plan

GIB = 2**30


def machine(*gpus: Device, flags: CpuFlags | None = None) -> Hardware:
    flags = flags or CpuFlags(avx512_bf16=False, amx_bf16=False)
    cpu = Device("cpu", 0, "A CPU", 16 * GIB, 8 * GIB)
    return Hardware((*gpus, cpu), 4, flags, 16 * GIB, 8 * GIB)


def gpu(capability: float) -> Device:
    return Device("cuda", 0, "A GPU", 24 * GIB, 20 * GIB, capability)


def test_auto_is_foreseen_as_the_worker_decides_it() -> None:
    """On this machine, against the code that the worker runs."""
    from core.worker.training.resolve import choose_device, choose_precision

    config = RunConfig()
    device = choose_device(config)
    decided = {choice.field: choice for choice in (device, *choose_precision(config, device.value))}
    for field, value, reason in plan.foreseen(config, probe())[:2]:
        assert value.partition(":")[0] == str(decided[field].value)
        assert reason == decided[field].reason


@pytest.mark.parametrize(
    ("hardware", "precision"),
    [
        (machine(), "fp32"),
        (machine(flags=CpuFlags(avx512_bf16=True, amx_bf16=False)), "bf16"),
        (machine(gpu(8.0)), "bf16"),
        (machine(gpu(7.5)), "fp16"),
    ],
)
def test_precision_follows_the_device(hardware: Hardware, precision: str) -> None:
    foreseen = {field: value for field, value, _ in plan.foreseen(RunConfig(), hardware)}
    assert foreseen["training.precision"] == precision


def test_what_was_set_is_not_called_automatic() -> None:
    config = parse_config({"training.precision": "fp32", "training.device": "cpu"})
    fields = {field for field, _, _ in plan.foreseen(config, machine())}
    assert not fields & {"training.precision", "training.device"}


def test_the_card_names_what_is_missing_instead_of_a_number(workspace: Path) -> None:
    card = plan.card(fake_app(workspace), parse_config({"training.max_length": 192}))
    assert "240 to learn, 40 held out" in card
    assert "known once fetched" in card
    assert "is not on this machine yet" in card


def test_problems_stand_in_the_card_by_the_form_s_own_names(workspace: Path) -> None:
    values = {**RunConfig().values(), "training.learning_rate": 5}
    config, problems = plan.checked(values, ())
    card = plan.card(fake_app(workspace), config, problems)
    assert config is None
    assert "One setting needs mending" in card
    assert "<b>Learning rate</b>" in card


def test_a_lens_comes_back_from_the_browser_and_a_damaged_one_is_replaced() -> None:
    lens = Lens.of(parse_config({"training.max_length": 99}))
    assert Lens.read(lens.write()) == lens
    assert Lens.read("{not json") == Lens.of(RunConfig())
    assert Lens.read('{"model": 1}') == Lens.of(RunConfig())
