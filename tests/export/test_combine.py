"""Adapters of several runs in one export: it must be their sum, and what does not go together is
refused."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from peft.tuners.lora import LoraModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from core.errors import ConfigError, ExportError, TunesmithError
from core.export.combine import find_shares, parse_combination
from core.export.reports import list_exports
from core.models.trained import adapter_settings, find_trained
from core.worker.export.run import run_export
from core.worker.llama_cpp.client import LlamaCpp
from core.workspace import RunFolder
from tests.export.test_run import IDS, export, left_over, logits, of_run
from tests.tiny_model import TinyWorld, colour_rows, tiny_adapter, tiny_model, tiny_world


@pytest.fixture(autouse=True)
def cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNESMITH_DEVICE", "cpu")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> TinyWorld:
    found = tiny_world(tmp_path_factory.mktemp("x") / "ws", eval_rows=colour_rows()[::2])
    adapted(found, "first", seed=1)
    adapted(found, "second", seed=2)
    adapted(found, "wide", seed=3, r=8)
    adapted(found, "stable", seed=4, use_rslora=True)
    return found


def adapted(world: TinyWorld, name: str, seed: int, **changes: Any) -> RunFolder:
    run = world.run(f"{name}-run")
    tiny_adapter(tiny_model(), seed=seed, size=0.1, **changes).save_pretrained(run.adapter)
    return run


def combination(kind: str, **others: float) -> dict[str, Any]:
    shares = [{"run": f"{name}-run", "weight": weight} for name, weight in others.items()]
    return {"combination_type": kind, "density": 0.5, "weight": 0.5, "others": shares}


def summed(world: TinyWorld, **weights: float) -> Any:
    """The logits of the base with the adapters added to its weights by hand."""
    model = AutoModelForCausalLM.from_pretrained(world.base, dtype=torch.float32)
    parameters = dict(model.named_parameters())
    for name, weight in weights.items():
        folder = world.workspace.run(f"{name}-run").adapter
        settings, tensors = (
            adapter_settings(folder),
            load_file(folder / "adapter_model.safetensors"),
        )
        rank = settings["r"] ** (0.5 if settings["use_rslora"] else 1)
        for key, a in tensors.items():
            if "lora_A" in key:
                b = tensors[key.replace("lora_A", "lora_B")]
                at = key.removeprefix("base_model.model.").replace("lora_A.", "")
                with torch.no_grad():
                    parameters[at] += weight * settings["lora_alpha"] / rank * (b @ a)
    return logits(model)


@pytest.mark.parametrize("form", ["merged", "adapter", "gguf"])
def test_an_exact_combination_is_the_sum_by_weight(world: TinyWorld, form: str) -> None:
    """Of other ranks and scalings, the first one's settings must not scale the rest."""
    run = world.workspace.run("stable-run")
    given = combination("cat", wide=1.5, second=-0.5)
    more = {"quantization": "f16"} if form == "gguf" else {}
    result = export(world, run, f"cat-{form}", format=form, combination=given, **more)
    folder = run.exports / f"cat-{form}" / result["path"]
    assert result["path"] == f"stable-run-combined-{form}"
    wanted = summed(world, stable=0.5, wide=1.5, second=-0.5)
    if form == "adapter":
        assert torch.allclose(of_run(world, folder), wanted, atol=1e-3)
        assert adapter_settings(folder)["base_model_name_or_path"] == "tiny"
    elif form == "gguf":
        with closing(LlamaCpp(folder / result["parts"][0]["file"], None, lambda: None)) as model:
            top = model.top(IDS.tolist(), IDS.shape[1])
        assert torch.allclose(top.logits, top.same_of(wanted[0].log_softmax(dim=-1)), atol=0.1)
    else:
        found = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        assert torch.allclose(logits(found), wanted, atol=1e-3)
    assert not torch.allclose(wanted, of_run(world, run.adapter), atol=0.1)
    card = (folder / "README.md").read_text()
    assert "| wide-run | final | 1.5 |" in card and "- merge" in card
    assert [check["ok"] for check in result["checks"] if check["name"] == "Combines the adapters"]
    listed = {one.id: one for one in list_exports(run.root)}[f"cat-{form}"]
    assert listed.combination == parse_combination(given)
    assert left_over(run.exports / f"cat-{form}") == {"result.json", result["path"]}


@pytest.mark.parametrize(
    "kind", ["linear", "svd", "ties", "ties_svd", "dare_linear", "dare_ties_svd"]
)
def test_each_way_of_combining_gives_a_model_of_its_own(world: TinyWorld, kind: str) -> None:
    """Two exports of the same way are the same, whatever is left out by chance."""
    run = world.workspace.run("first-run")
    other = {"second": 0.7} if kind in ("linear", "ties", "dare_linear") else {"wide": 0.7}
    found = []
    for at in ("a", "b"):
        params = {"format": "merged", "dtype": "float32", "combination": combination(kind, **other)}
        result = export(world, run, f"{kind}-{at}", **params)
        folder = run.exports / f"{kind}-{at}" / result["path"]
        found.append(logits(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)))
    assert torch.equal(*found)
    for alone in ("first", *other):
        adapter = world.workspace.run(f"{alone}-run").adapter
        assert not torch.allclose(found[0], of_run(world, adapter), atol=0.05)
    exact = summed(world, first=0.5, **other)
    # Of the sum the largest rank keeps most, but not all.
    assert not torch.allclose(found[0], exact, atol=1e-4)


def test_a_combination_that_lost_a_part_is_an_error(
    world: TinyWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = LoraModel.add_weighted_adapter

    def only_the_first(self: Any, names: Any, weights: Any, whole: str, **how: Any) -> None:
        real(self, names, [weights[0], *[0.0 for _ in names[1:]]], whole, **how)

    monkeypatch.setattr(LoraModel, "add_weighted_adapter", only_the_first)
    params = {"format": "merged", "combination": combination("cat", second=1.0)}
    folder = world.task(world.workspace.run("first-run"), "export", "lost", params)
    with pytest.raises(ExportError, match="not the sum of its parts"):
        run_export(folder, world.root)
    assert left_over(folder) == set()


def refused(world: TinyWorld, given: dict[str, Any]) -> str:
    with pytest.raises(TunesmithError) as told:
        asked = parse_combination(given)
        assert asked is not None
        find_shares(world.workspace, find_trained(world.workspace.run("first-run")), asked)
    return str(told.value)


def test_what_does_not_go_together_is_refused_with_the_reason(tmp_path: Path) -> None:
    world = tiny_world(tmp_path / "ws")
    adapted(world, "first", seed=1)
    adapted(world, "wide", seed=3, r=8)
    adapted(world, "dora", seed=4, use_dora=True)
    adapted(world, "biased", seed=4, bias="all")
    adapted(world, "pissa", seed=4, init_lora_weights="pissa")
    adapted(world, "headed", seed=4, modules_to_save=["lm_head"])
    elsewhere = world.run("elsewhere-run", {"model.model_name_or_path": "another"})
    tiny_adapter(tiny_model()).save_pretrained(elsewhere.adapter)
    tiny_model(seed=4).save_pretrained(world.run("whole-run", {"adapter.method": "none"}).model)
    for name, reason in {
        "elsewhere": "its base is another main, not tiny main",
        "dora": "a DoRA",
        "biased": "trained biases",
        "pissa": "began with a part of the base (pissa)",
        "headed": "trained whole layers beside the adapter (lm_head)",
        "whole": "there is no adapter",
        "missing": "There is no run missing-run",
        "first": "first-run is named twice",
    }.items():
        assert reason in refused(world, combination("cat", **{name: 1.0}))
    for kind in ("linear", "ties", "dare_ties"):
        said = refused(world, combination(kind, wide=1.0))
        assert "one rank in every layer" in said and "first-run: 4, wide-run: 8" in said
    assert "weight of 0" in refused(world, combination("cat", wide=0.0))
    with pytest.raises(ConfigError, match="density"):
        parse_combination({**combination("ties", wide=1.0), "density": 1.5})
