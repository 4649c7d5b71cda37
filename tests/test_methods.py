"""Each training method is declared once, whole and true. A gap here is a run that cannot start."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import typing
from collections import Counter
from pathlib import Path

import pytest

from core.config import SPEC_BY_PATH, RunConfig
from core.jobs.process import named as imported
from core.methods import METHODS, Method, MethodName, Purpose, StandardForm, named
from core.rules.extra import config_fields
from core.rules.presets import list_presets
from core.runs.panels import panels
from core.worker.training.recipe import Recipe

ROOT = Path(__file__).resolve().parents[1]
# What one of its own fields is called so too: the losses `kto`, `grpo` and `sft`.
MOST_FILES = 4
# Files in which "reward" is the number that an answer gets, not the method.
_AN_AMOUNT = {
    "core/commands/rewards.py",
    "core/evaluation/metrics.py",
    "core/evaluation/report.py",
    "core/evaluation/verdict.py",
    "core/runs/panels.py",
    "core/rewards/trial.py",
    "core/worker/training/reinforcement.py",
    "webui/live.py",
    "webui/report.py",
    "webui/configure/rewards.py",
}
EACH = pytest.mark.parametrize("method", METHODS.values(), ids=list(METHODS))


def test_the_names_are_those_of_the_field() -> None:
    assert tuple(METHODS) == typing.get_args(MethodName) == SPEC_BY_PATH["method"].choices


@EACH
def test_a_record_is_complete(method: Method) -> None:
    """A person would meet an empty title, or a run would be sorted nowhere."""
    assert method.title and method.description and method.panels and method.metrics
    assert method.purpose in typing.get_args(Purpose)
    assert method.forms and set(method.forms) <= set(typing.get_args(StandardForm))
    assert not method.why_not_packed.endswith(".")
    assert not method.section or method.section in RunConfig.model_fields
    known = config_fields(method)
    for field in (*method.other_names, *method.refused_arguments, *method.idle_arguments):
        assert field in known, f"{method.arguments.name} has no {field}"
    for path in method.other_names.values():
        assert SPEC_BY_PATH[path].shown({**RunConfig().values(), "method": method.name})


@EACH
def test_its_recipe_its_preset_and_the_classes_of_the_library_exist(method: Method) -> None:
    assert issubclass(imported(method.recipe), Recipe)
    assert any(preset.config().method == method.name for preset in list_presets())
    package, _, name = method.trainer.rpartition(".")
    assert hasattr(importlib.import_module(package), name)
    file = method.arguments.file.removesuffix(".py").replace("/", ".")
    module = importlib.import_module(f"{method.arguments.package}.{file}")
    arguments = getattr(module, method.arguments.name)
    assert {field.name for field in dataclasses.fields(arguments)} == set(config_fields(method))


@EACH
def test_its_charts_are_in_the_table(method: Method) -> None:
    assert panels(method.name, {}) == []


@pytest.mark.parametrize(
    ("method", "metric", "better"),
    [
        ("sft", "eval_loss", "lower"),
        ("cpt", "eval_perplexity", "lower"),
        ("classification", "f1_macro", "higher"),
        ("cpo", "eval_nll_loss", "lower"),
        ("grpo", "eval_rewards/length/mean", "higher"),
        ("grpo", "kl", ""),
        ("reward", "eval_mean_reward", ""),
    ],
)
def test_which_way_a_metric_is_better(method: str, metric: str, better: str) -> None:
    """The worst checkpoint would be kept as the best."""
    assert METHODS[method].better(metric) == better


def test_methods_are_found_by_their_traits() -> None:
    assert named(packs=True) == ["sft"]
    assert named(makes="writer", generates=True) == ["grpo", "rloo"]


def test_a_method_is_named_in_few_files() -> None:
    """A new method would have to be told to many places, and one would be forgotten."""
    found: Counter[str] = Counter()
    places: dict[str, list[str]] = {}
    for path in [*(ROOT / "core").rglob("*.py"), *(ROOT / "webui").rglob("*.py")]:
        file = path.relative_to(ROOT).as_posix()
        tree = ast.parse(path.read_text(encoding="utf-8"))
        words = {
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        for name in words & METHODS.keys():
            if name != "reward" or file not in _AN_AMOUNT:
                found[name] += 1
                places.setdefault(name, []).append(file)
    assert not {name: places[name] for name, count in found.items() if count > MOST_FILES}
