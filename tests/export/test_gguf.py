"""GGUF must be the trained model to llama.cpp itself: it opens every file that is handed out."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from core.commands.export import _table
from core.errors import ExportError
from core.export.formats import formats
from core.jobs.task import read_result
from core.rules import parse_config
from core.worker.export.run import run_export
from core.worker.llama_cpp import gguf_files
from core.worker.llama_cpp.client import LlamaCpp, TopLogits
from core.worker.llama_cpp.gguf_files import splitting_of
from core.workspace import RunFolder
from tests.tiny_model import (
    TinyWorld,
    colour_rows,
    teach,
    tiny_adapter,
    tiny_model,
    tiny_tokenizer,
    tiny_world,
)

IDS = [1, 9, 30, 42, 77, 5]


@pytest.fixture(autouse=True)
def cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNESMITH_DEVICE", "cpu")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> TinyWorld:
    return tiny_world(tmp_path_factory.mktemp("g") / "ws", eval_rows=colour_rows()[::2])


@pytest.fixture(scope="module")
def taught(world: TinyWorld) -> RunFolder:
    """A run that knows the colours, with a scale of its own in one of its layers."""
    run = world.run("taught")
    model = tiny_adapter(tiny_model(), alpha_pattern={"layers.1.self_attn.q_proj": 16})
    teach(model, tiny_tokenizer(), colour_rows(), 60)
    model.save_pretrained(run.adapter)
    tiny_tokenizer().save_pretrained(run.adapter)
    return run


def export(world: TinyWorld, run: RunFolder, name: str, **params: Any) -> tuple[Path, Any]:
    folder = world.task(run, "export", name, params)
    assert run_export(folder, world.root) == "finished"
    result = read_result(folder) or {}
    return folder / result["path"], result


def of_run(world: TinyWorld, run: RunFolder) -> Any:
    base = AutoModelForCausalLM.from_pretrained(world.base, dtype=torch.float32)
    with torch.inference_mode():
        return (
            PeftModel.from_pretrained(base, str(run.adapter)).eval()(torch.tensor([IDS])).logits[0]
        )


def asked(file: Path, adapter: Path | None = None) -> TopLogits:
    model = LlamaCpp(file, adapter, lambda: None)
    try:
        return model.top([IDS], len(IDS))
    finally:
        model.close()


def test_each_kind_is_the_trained_model_to_llama_cpp(world: TinyWorld, taught: RunFolder) -> None:
    kinds = ["f16", "q8_0", "Q4_K_M"]
    folder, result = export(world, taught, "g1", format="gguf", quantization=kinds)
    files = {one["precision"]: folder / one["file"] for one in result["parts"]}
    assert list(files) == kinds
    assert {path.name for path in folder.iterdir()} == {
        "README.md",
        *(path.name for path in files.values()),
    }
    assert files["f16"].stat().st_size > files["q8_0"].stat().st_size
    names = {check["name"] for check in result["checks"]}
    assert {
        "Answers as the trained model",
        "Carries what was learned",
        "Reads conversations as in training",
        "Stops at the end of its answer",
    } <= names
    assert all(check["ok"] for check in result["checks"])
    assert result["base_perplexity"] > 10 * result["perplexity"]
    for one in result["parts"]:
        assert one["perplexity"] == pytest.approx(result["perplexity"], rel=0.2)
        assert one["tokens_per_second"] > 0 and one["size_bytes"] > 0
        assert one["fields_right"] > 0.8  # it knows the colours, and their rows are JSON
    assert "fields right" in _table(result)
    found = asked(files["f16"])
    wanted = of_run(world, taught).log_softmax(dim=-1)
    assert torch.allclose(found.logits, found.same_of(wanted), atol=0.1)
    fields = gguf.GGUFReader(files["q8_0"]).fields
    assert fields["general.architecture"].contents() == "llama"
    assert fields["tokenizer.chat_template"].contents() == tiny_tokenizer().chat_template
    card = (folder / "README.md").read_text()
    assert "llama-server -m taught-f16.gguf" in card
    assert all(str(world.root).encode() not in path.read_bytes() for path in folder.iterdir())


def test_the_adapter_alone_makes_the_base_the_trained_model(
    world: TinyWorld, taught: RunFolder, tmp_path: Path
) -> None:
    folder, result = export(world, taught, "l1", format="gguf_adapter")
    file = folder / result["parts"][0]["file"]
    assert {path.name for path in folder.iterdir()} == {"README.md", file.name}
    base = tmp_path / "base.gguf"
    gguf_files.convert(world.base, base, "f32", "base")
    wanted = of_run(world, taught).log_softmax(dim=-1)
    found, without = asked(base, file), asked(base)
    assert torch.allclose(found.logits, found.same_of(wanted), atol=0.05)
    assert not torch.allclose(without.logits, without.same_of(wanted), atol=1.0)


def test_a_kind_that_is_too_far_off_is_told_and_taken_away(
    world: TinyWorld, taught: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody would ship a file that answers like noise."""
    real = gguf_files.quantize

    def spoil(source: Path, file: Path, kind: str, check_stop: Any) -> None:
        real(source, file, kind, check_stop)
        for tensor in gguf.GGUFReader(file, "r+").tensors:
            if "attn_output" in tensor.name or "ffn_down" in tensor.name:
                tensor.data[:] = np.roll(tensor.data, 7, axis=0)

    monkeypatch.setattr(gguf_files, "quantize", spoil)
    kinds = ["q8_0", "Q4_K_M"]
    folder, result = export(world, taught, "spoilt", format="gguf", quantization=kinds)
    good, bad = result["parts"]
    assert good["error"] == "" and "Q4_K_M" not in " ".join(p.name for p in folder.iterdir())
    assert "is not the trained" in bad["error"] or "does not answer as" in bad["error"]
    task = world.task(taught, "export", "alone", {"format": "gguf", "quantization": ["Q4_K_M"]})
    with pytest.raises(ExportError, match="Take a larger kind: f32, "):
        run_export(task, world.root)
    assert {p.name for p in task.iterdir()} <= {"job.json", "events.jsonl"}


def test_a_file_that_llama_cpp_cannot_open_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 1, 1))
    with pytest.raises(ExportError, match=r"cannot open broken\.gguf"):
        LlamaCpp(broken, None, lambda: None)


def test_a_model_that_llama_cpp_does_not_know_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["StrangeForCausalLM"]}')
    with pytest.raises(ExportError, match="no form for StrangeForCausalLM models"):
        gguf_files.convert(tmp_path, tmp_path / "x.gguf", "f16", "x")


def test_a_tokenizer_that_splits_in_a_way_of_its_own_is_refused(tmp_path: Path) -> None:
    """llama.cpp would read other tokens than training did."""
    (tmp_path / "tokenizer.json").write_text('{"pre_tokenizer": {"type": "Metaspace"}}')
    with pytest.raises(ExportError, match="the way in which this model's tokenizer splits"):
        splitting_of(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    assert splitting_of(tmp_path) == "gpt-2"


@pytest.mark.parametrize(
    ("settings", "which"),
    [
        ({"adapter.use_dora": True}, "adapter gguf merged"),
        ({"adapter.init_lora_weights": "pissa"}, "adapter gguf merged"),
        ({"vocabulary.new_tokens": ["<x>"]}, "adapter gguf merged"),
        ({"adapter.method": "ia3"}, "adapter gguf merged"),
        ({"method": "mlm"}, "adapter merged"),
    ],
    ids=str,
)
def test_only_what_llama_cpp_can_hold_is_offered(settings: dict[str, Any], which: str) -> None:
    config = parse_config(settings)
    ours = ("adapter", "gguf", "gguf_adapter", "merged")
    assert " ".join(name for name in ours if formats()[name].why_not(config) is None) == which


def test_the_probability_of_a_rare_token_is_a_share_of_the_rest() -> None:
    logits = torch.tensor([[0.5, 0.25]]).log()
    top = TopLogits(logits, torch.tensor([[3, 7]]))
    found = top.log_probabilities(torch.tensor([7]), 12)
    assert float(found.exp()) == pytest.approx(0.25)
    assert float(top.log_probabilities(torch.tensor([0]), 12).exp()) == pytest.approx(0.025)


def test_rare_tokens_are_no_loss_of_the_export() -> None:
    """Whose model is unsure of its answers could export no GGUF: all beyond the most probable
    tokens count as equally rare."""
    torch.manual_seed(0)
    logits = torch.randn(50, 400) * 4
    targets = torch.randint(400, (50,))
    found = logits.log_softmax(dim=-1).topk(16)
    top = TopLogits(found.values, found.indices)
    alike = top.told_of(logits)
    exact = logits.log_softmax(dim=-1).gather(-1, targets[:, None])[:, 0]
    told, other = (one.log_probabilities(targets, 400).mean() for one in (top, alike))
    assert float(told) == pytest.approx(float(other), abs=1e-4)
    assert abs(float(told - exact.mean())) > 0.1


def test_a_stop_ends_the_quantizer(tmp_path: Path) -> None:
    class Asked(Exception):
        pass

    def stop() -> None:
        raise Asked

    with pytest.raises(Asked):
        gguf_files.quantize(tmp_path / "none.gguf", tmp_path / "x.gguf", "Q4_K_M", stop)
    with pytest.raises(ExportError, match="could not make Q4_K_M"):
        gguf_files.quantize(tmp_path / "none.gguf", tmp_path / "x.gguf", "Q4_K_M", lambda: None)
