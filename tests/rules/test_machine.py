"""What a run needs and this machine lacks is said at its setting, before anything starts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from core.config import RunConfig
from core.config.optimizers import OPTIMIZERS
from core.rules import machine as needs_module
from core.rules import parse_config
from core.rules.machine import missing_extras, need_problems
from core.setup.extras import EXTRAS


def config(name: str, **settings: Any) -> RunConfig:
    optimizer = OPTIMIZERS[name]
    values: dict[str, Any] = {"training.optim": name}
    if optimizer.full_only:
        values["adapter.method"] = "none"
    if optimizer.schedule_free:
        values["training.lr_scheduler_type"] = "constant"
    return parse_config({**values, **settings})


@pytest.fixture
def nothing_installed(monkeypatch) -> None:
    """A machine with Tunesmith's own packages and no others."""
    for extra in EXTRAS.values():
        lacking = replace(extra, import_name="not_here_" + extra.import_name)
        monkeypatch.setitem(EXTRAS, extra.name, lacking)


@pytest.mark.parametrize("name", [name for name, one in OPTIMIZERS.items() if one.extra])
def test_a_missing_package_is_told_with_the_command(nothing_installed, name: str) -> None:
    extra = EXTRAS[OPTIMIZERS[name].extra]
    (problem,) = need_problems(config(name), ["cuda:0", "cpu"])
    assert problem.field == "training.optim"
    assert f"needs {extra.title}, which is not installed" in problem.message
    assert problem.message.endswith(f"python launch.py setup --with {extra.name}")
    assert missing_extras("training.optim", name) == [extra]


def test_a_package_that_cannot_be_installed_is_told_with_another_choice() -> None:
    (problem,) = need_problems(config("adamw_anyprecision"))
    assert "needs the package torchdistx" in problem.message
    assert problem.message.endswith("Take adamw_torch_fused.")
    assert missing_extras("training.optim", "adamw_anyprecision") == []


@pytest.mark.parametrize(
    ("name", "device", "here", "says"),
    [
        ("adalomo", "auto", ["cpu"], "this run would be on cpu. Take lomo."),
        ("adalomo", "cpu", ["cuda:0", "cpu"], "this run would be on cpu. Take lomo."),
        ("galore_adamw_8bit", "auto", ["mps", "cpu"], "on mps. Take galore_adamw."),
        ("adamw_8bit", "mps", ["mps", "cpu"], "on mps. Take adamw_torch_fused."),
        ("adamw_8bit", "auto", ["cpu"], ""),
        ("adamw_8bit", "auto", ["cuda:0", "cuda:1", "cpu"], ""),
        ("sgd", "auto", ["cpu"], ""),
    ],
)
def test_a_device_that_is_not_here_is_told(monkeypatch, name, device, here, says) -> None:
    monkeypatch.setattr(needs_module, "is_installed", lambda extra: True)
    found = need_problems(config(name, **{"training.device": device}), here)
    assert [problem.field for problem in found] == (["training.optim"] if says else [])
    assert all(says in problem.message for problem in found)


def test_without_a_compiler_what_compiles_itself_is_told(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(needs_module, "is_installed", lambda extra: True)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    (problem,) = need_problems(config("adamw_torch_4bit"))
    assert "no C++ compiler" in problem.message and "take adamw_8bit" in problem.message
    monkeypatch.setenv("CXX", "/opt/bin/c++")
    assert need_problems(config("adamw_torch_4bit")) == []


def test_trackers_are_asked_the_same_way(nothing_installed) -> None:
    asked = missing_extras("tracking.report_to", ["wandb", "trackio"])
    assert [extra.name for extra in asked] == ["wandb", "trackio"]
    assert missing_extras("tracking.report_to", []) == missing_extras("training.seed", 1) == []
