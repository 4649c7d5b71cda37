"""What is exported must be what was trained, loaded from disk by the libraries as a user does."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from peft import PeftModel
from peft.tuners.lora import LoraModel
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from core.errors import ExportError
from core.export.format import Format
from core.export.package import write_zip
from core.export.reports import list_exports
from core.export.unfinished import delete_unfinished, unfinished_bytes
from core.jobs.job import update_record
from core.jobs.task import read_result
from core.worker.export import run as export_run
from core.worker.export.run import run_export
from core.workspace import RunFolder
from tests.tiny_model import (
    TinyWorld,
    colour_rows,
    read_json_lines,
    tiny_adapter,
    tiny_model,
    tiny_tokenizer,
    tiny_world,
)

IDS = torch.tensor([[1, 9, 30, 42, 77]])


@pytest.fixture(autouse=True)
def cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNESMITH_DEVICE", "cpu")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> TinyWorld:
    return tiny_world(tmp_path_factory.mktemp("x") / "ws", eval_rows=colour_rows()[::2])


@pytest.fixture(scope="module")
def lora(world: TinyWorld) -> RunFolder:
    run = world.run("lora-run", {"name": "Colour namer", "training.seed": 7})
    model = tiny_adapter(tiny_model())
    model.save_pretrained(run.adapter)
    tiny_tokenizer().save_pretrained(run.adapter)
    early = run.checkpoints / "checkpoint-3"
    tiny_adapter(tiny_model(), seed=8).save_pretrained(early)
    (early / "trainer_state.json").write_text('{"global_step": 3}')
    torch.save({}, early / "optimizer.pt")
    return run


def export(world: TinyWorld, run: RunFolder, name: str, **params: Any) -> dict[str, Any]:
    folder = world.task(run, "export", name, params)
    assert run_export(folder, world.root) == "finished"
    return read_result(folder) or {}


def logits(model: Any) -> Any:
    with torch.inference_mode():
        return model.eval()(IDS).logits.float()


def of_run(world: TinyWorld, adapter: Path) -> Any:
    base = AutoModelForCausalLM.from_pretrained(world.base, dtype=torch.float32)
    return logits(PeftModel.from_pretrained(base, str(adapter)))


def unpacked(run: RunFolder, name: str, result: dict[str, Any], where: Path) -> Path:
    """The export as somebody has it who was sent the zip."""
    write_zip(run.exports / name / result["path"], where / "sent.zip")
    with zipfile.ZipFile(where / "sent.zip") as archive:
        assert archive.testzip() is None
        archive.extractall(where)
    return where / result["path"]


def left_over(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"job.json", "events.jsonl", "STOP"}


def test_a_merged_model_works_alone_and_answers_as_the_trained_one(
    world: TinyWorld, lora: RunFolder, tmp_path: Path
) -> None:
    result = export(world, lora, "m1", format="merged")
    folder = unpacked(lora, "m1", result, tmp_path)
    assert result["path"] == "lora-run-merged"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    trained = of_run(world, lora.adapter)
    assert torch.allclose(logits(model), trained, atol=1e-3)
    base = AutoModelForCausalLM.from_pretrained(world.base, dtype=torch.float32)
    assert not torch.allclose(logits(base), trained, atol=0.1)
    assert AutoTokenizer.from_pretrained(folder).chat_template == tiny_tokenizer().chat_template
    assert [check["name"] for check in result["checks"]] == [
        "Differs from its base",
        "Answers as the trained model",
        "Carries what was learned",
        "Chooses the same next token",
        "Is as sure of held-out answers",
    ]
    assert all(check["ok"] for check in result["checks"])
    shares = [
        event["fraction"]
        for event in read_json_lines(lora.exports / "m1" / "events.jsonl")
        if event["kind"] == "progress"
    ]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_an_adapter_is_the_runs_and_names_no_folder_of_this_machine(
    world: TinyWorld, lora: RunFolder, tmp_path: Path
) -> None:
    result = export(world, lora, "a1", format="adapter")
    folder = unpacked(lora, "a1", result, tmp_path)
    assert torch.equal(of_run(world, folder), of_run(world, lora.adapter))
    settings = json.loads((folder / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == "tiny"
    for path in folder.iterdir():
        if path.suffix != ".safetensors":
            assert str(world.root) not in path.read_text(encoding="utf-8"), path.name
    assert {path.name for path in folder.iterdir()} >= {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "chat_template.jinja",
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_any_checkpoint_can_be_exported_without_what_training_left_there(
    world: TinyWorld, lora: RunFolder, tmp_path: Path
) -> None:
    result = export(world, lora, "c1", format="adapter", checkpoint="checkpoint-3")
    assert result["path"] == "lora-run-checkpoint-3-adapter"
    folder = unpacked(lora, "c1", result, tmp_path)
    early = lora.checkpoints / "checkpoint-3"
    assert torch.equal(of_run(world, folder), of_run(world, early))
    assert not torch.equal(of_run(world, folder), of_run(world, lora.adapter))
    assert not (folder / "optimizer.pt").exists()


def test_the_type_of_the_weights_can_be_chosen(world: TinyWorld, lora: RunFolder) -> None:
    result = export(world, lora, "t1", format="merged", dtype="bfloat16")
    weights = lora.exports / "t1" / result["path"] / "model.safetensors"
    with safe_open(weights, "pt") as file:
        names = list(file.keys())
        assert {file.get_tensor(name).dtype for name in names} == {torch.bfloat16}
    assert "where bfloat16 allows 5 %" in result["checks"][1]["detail"]


@pytest.mark.parametrize(
    "changes",
    [
        {"use_dora": True},
        {"use_rslora": True},
        {"modules_to_save": ["lm_head"]},
        {"init_lora_weights": "pissa"},
        {"init_lora_weights": "olora"},
    ],
    ids=str,
)
def test_every_kind_of_adapter_merges_and_travels(tmp_path: Path, changes: dict[str, Any]) -> None:
    world = tiny_world(tmp_path / "ws")
    run = world.run("a-run")
    base = AutoModelForCausalLM.from_pretrained(world.base, dtype=torch.float32)
    model = tiny_adapter(base, **changes)
    if "modules_to_save" in changes:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "modules_to_save" in name:
                    parameter.add_(torch.randn_like(parameter))
    model.save_pretrained(run.adapter)
    merged = export(world, run, "m1", format="merged")
    found = AutoModelForCausalLM.from_pretrained(
        run.exports / "m1" / merged["path"], dtype=torch.float32
    )
    assert torch.allclose(logits(found), of_run(world, run.adapter), atol=2e-3)
    export(world, run, "a1", format="adapter")


def test_a_quantized_run_is_merged_onto_the_unquantized_base(world: TinyWorld) -> None:
    run = world.run("nf4-run", {"adapter.quantization": "nf4"})
    tiny_adapter(tiny_model()).save_pretrained(run.adapter)
    result = export(world, run, "m1", format="merged")
    folder = run.exports / "m1" / result["path"]
    found = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert torch.allclose(logits(found), of_run(world, run.adapter), atol=1e-3)
    assert "quantization_config" not in (folder / "config.json").read_text()
    assert "In training the base was held in nf4" in (folder / "README.md").read_text()


@pytest.mark.parametrize("bits", ["nf4", "int8"])
def test_a_model_in_few_bits_opens_by_itself_and_is_the_trained_one(
    world: TinyWorld, lora: RunFolder, bits: str
) -> None:
    result = export(world, lora, f"few-{bits}", format="bitsandbytes", bits=bits)
    folder = lora.exports / f"few-{bits}" / result["path"]
    assert not list(folder.glob(".*"))
    settings = json.loads((folder / "config.json").read_text())["quantization_config"]
    assert settings[f"load_in_{8 if bits == 'int8' else 4}bit"] is True
    part = result["parts"][0]
    assert part["precision"] == bits and part["perplexity"] < 1.3 * result["perplexity"]
    # The tiny model's large matrices are the smaller part of it, and so less is saved.
    merged = export(world, lora, f"beside-{bits}", format="merged")
    assert result["size_bytes"] < 0.8 * merged["size_bytes"]
    card = (folder / "README.md").read_text()
    assert "quantized by bitsandbytes" in card and "base_model_relation: quantized" not in card


@pytest.mark.parametrize("weights", ["int8", "fp8"])
def test_a_model_in_torchaos_8_bits_is_the_trained_one(
    world: TinyWorld, lora: RunFolder, weights: str
) -> None:
    pytest.importorskip("torchao")
    result = export(world, lora, f"ao-{weights}", format="torchao", weights=weights)
    folder = lora.exports / f"ao-{weights}" / result["path"]
    settings = json.loads((folder / "config.json").read_text())["quantization_config"]
    assert settings["quant_method"] == "torchao"
    assert result["parts"][0]["precision"] == f"torchao_{weights}"
    found = logits(AutoModelForCausalLM.from_pretrained(folder))
    trained = of_run(world, lora.adapter)
    most = {"int8": 0.1, "fp8": 0.3}[weights]
    assert 0 < float((found - trained).std()) < most * float(trained.std())


def test_biases_that_were_trained_come_along(tmp_path: Path) -> None:
    world = tiny_world(tmp_path / "ws")
    tiny_model(attention_bias=True).save_pretrained(world.base)
    run = world.run("bias-run")
    model = tiny_adapter(tiny_model(attention_bias=True), size=0.0, bias="all")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 1.0)
    model.save_pretrained(run.adapter)
    result = export(world, run, "m1", format="merged")
    found = AutoModelForCausalLM.from_pretrained(
        run.exports / "m1" / result["path"], dtype=torch.float32
    )
    assert torch.allclose(logits(found), logits(model), atol=1e-3)


def test_a_model_trained_whole_is_exported_as_it_is_and_has_no_adapter(world: TinyWorld) -> None:
    run = world.run("whole-run", {"adapter.method": "none"})
    tiny_model(seed=4).save_pretrained(run.model)
    result = export(world, run, "m1", format="merged")
    found = AutoModelForCausalLM.from_pretrained(
        run.exports / "m1" / result["path"], dtype=torch.float32
    )
    assert torch.equal(logits(found), logits(tiny_model(seed=4)))
    with pytest.raises(ExportError, match="there is no adapter. Export it as a merged model"):
        run_export(world.task(run, "export", "a1", {"format": "adapter"}), world.root)


def test_a_merge_that_equals_its_base_is_an_error(
    world: TinyWorld, lora: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fault that other tools hand out as a finished model."""

    def forget_the_adapter(self: Any, **options: Any) -> Any:
        return self.unload()

    monkeypatch.setattr(LoraModel, "merge_and_unload", forget_the_adapter)
    folder = world.task(lora, "export", "sabotaged", {"format": "merged"})
    with pytest.raises(ExportError, match="equals its base"):
        run_export(folder, world.root)
    assert left_over(folder) == set()


def test_a_merge_that_is_half_done_is_an_error(
    world: TinyWorld, lora: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = LoraModel.merge_and_unload

    def merge_too_little(self: Any, **options: Any) -> Any:
        for module in self.modules():
            if hasattr(module, "scale_layer"):
                module.scale_layer(0.8)
        return real(self, **options)

    monkeypatch.setattr(LoraModel, "merge_and_unload", merge_too_little)
    folder = world.task(lora, "export", "half", {"format": "merged"})
    with pytest.raises(ExportError, match="does not answer as the trained|is not the trained"):
        run_export(folder, world.root)
    assert left_over(folder) == set()


def test_an_adapter_file_that_was_damaged_on_the_way_is_an_error(
    world: TinyWorld, lora: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def copy_another(source: Path, target: Path) -> None:
        other = lora.checkpoints / "checkpoint-3" / "adapter_model.safetensors"
        target.write_bytes(other.read_bytes())

    monkeypatch.setattr(shutil, "copyfile", copy_another)
    folder = world.task(lora, "export", "damaged", {"format": "adapter"})
    with pytest.raises(ExportError):
        run_export(folder, world.root)
    assert left_over(folder) == set()


@pytest.mark.parametrize("kind", ["adapter", "merged"])
def test_an_adapter_that_changes_nothing_is_not_exported(world: TinyWorld, kind: str) -> None:
    run = world.run(f"empty-{kind}-run")
    tiny_adapter(tiny_model(), size=0.0).save_pretrained(run.adapter)
    folder = world.task(run, "export", "m1", {"format": kind})
    with pytest.raises(ExportError, match="exactly as its base: there is nothing to export"):
        run_export(folder, world.root)


def test_changes_too_small_for_bf16_are_not_silently_lost(world: TinyWorld) -> None:
    """Merged weights rounded to 8 bits of mantissa may be those of the base again."""
    run = world.run("small-run")
    tiny_adapter(tiny_model(), size=1e-5).save_pretrained(run.adapter)
    folder = world.task(run, "export", "m1", {"format": "merged", "dtype": "bfloat16"})
    with pytest.raises(ExportError, match="smaller than bfloat16 can hold: export as float32"):
        run_export(folder, world.root)
    assert export(world, run, "m2", format="merged", dtype="float32")["checks"][0]["ok"]


def test_an_export_that_is_stopped_offers_nothing(
    world: TinyWorld, lora: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = world.task(lora, "export", "stopped", {"format": "merged"})
    (folder / "STOP").touch()
    assert run_export(folder, world.root) == "stopped"
    assert left_over(folder) == set()

    later = world.task(lora, "export", "stopped-later", {"format": "merged"})
    real = export_run.write_card

    def ask_to_stop_then_write(*arguments: Any, **more: Any) -> None:
        (later / "STOP").touch()
        real(*arguments, **more)

    monkeypatch.setattr(export_run, "write_card", ask_to_stop_then_write)
    assert run_export(later, world.root) == "stopped"
    assert left_over(later) == {".unfinished"}
    listed = {item.id: item for item in list_exports(lora.root)}
    assert listed["stopped-later"].path is None
    assert unfinished_bytes(lora.root) == 0  # it is not known to have ended
    update_record(later, state="stopped")
    assert unfinished_bytes(lora.root) > 100_000
    with FileLock(later / ".worker.lock"):
        assert delete_unfinished(lora.root) == 0
    assert delete_unfinished(lora.root) > 100_000
    assert ".unfinished" not in left_over(later) and unfinished_bytes(lora.root) == 0


def test_an_export_goes_on_from_what_a_stopped_one_had_finished(
    world: TinyWorld, lora: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _stopped_in_its_check(world, lora, "first", monkeypatch, dtype="float16")
    weights = first / ".unfinished" / "model.safetensors"
    made_at = weights.stat().st_ino, weights.stat().st_mtime_ns
    result = export(world, lora, "again", format="merged", dtype="float16")
    found = (lora.exports / "again" / result["path"] / "model.safetensors").stat()
    assert (found.st_ino, found.st_mtime_ns) == made_at
    assert left_over(first) == {".worker.lock"}
    assert not list((lora.exports / "again" / result["path"]).glob(".*"))
    said = [e["message"] for e in read_json_lines(lora.exports / "again" / "events.jsonl")[1:4]]
    assert any("that did not end" in str(message) for message in said)


@pytest.mark.parametrize("change", ["settings", "adapter", "half"])
def test_an_export_of_something_else_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    world = tiny_world(tmp_path / "ws")
    run = world.run("changed-run")
    tiny_adapter(tiny_model()).save_pretrained(run.adapter)
    first = _stopped_in_its_check(world, run, "first", monkeypatch, dtype="float16")
    made_of = (first / ".unfinished" / "model.safetensors").stat().st_mtime_ns
    dtype = "float16"
    if change == "settings":
        dtype = "float32"
    elif change == "adapter":
        tiny_adapter(tiny_model(), seed=5).save_pretrained(run.adapter)
    else:  # killed before the merge was whole
        (first / ".unfinished" / ".made.json").unlink()
        (first / ".unfinished" / "model.safetensors").write_bytes(b"half")
    result = export(world, run, "again", format="merged", dtype=dtype)
    folder = run.exports / "again" / result["path"]
    assert (folder / "model.safetensors").stat().st_mtime_ns != made_of
    found = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert torch.allclose(logits(found), of_run(world, run.adapter), atol=0.05)
    assert left_over(first) == {".worker.lock"}


def _stopped_in_its_check(
    world: TinyWorld, run: RunFolder, name: str, monkeypatch: pytest.MonkeyPatch, **params: Any
) -> Path:
    folder = world.task(run, "export", name, {"format": "merged", **params})
    with monkeypatch.context() as patch:
        real = Format.parts

        def stop_then_give(self: Any, work: Any) -> Any:
            (folder / "STOP").touch()
            return real(self, work)

        patch.setattr(Format, "parts", stop_then_give)
        assert run_export(folder, world.root) == "stopped"
    return folder


def test_a_full_disk_is_told_before_anything_is_written(
    world: TinyWorld, lora: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(world.root)._replace(free=10 * 2**20)
    monkeypatch.setattr("core.export.package.shutil.disk_usage", lambda path: usage)
    folder = world.task(lora, "export", "full", {"format": "merged"})
    with pytest.raises(ExportError, match="0.0 GB are free"):
        run_export(folder, world.root)
    assert left_over(folder) == set()


def test_it_works_when_the_data_set_is_gone(world: TinyWorld) -> None:
    run = world.run("orphan-run", {"data.dataset": "gone"})
    tiny_adapter(tiny_model()).save_pretrained(run.adapter)
    assert export(world, run, "m1", format="merged")["checks"][1]["ok"]


def test_exports_are_listed_newest_first(world: TinyWorld, lora: RunFolder) -> None:
    export(world, lora, "z-listed", format="adapter")
    found = {item.id: item for item in list_exports(lora.root)}
    listed = found["z-listed"]
    assert listed.path is not None and listed.path.is_dir()
    assert [one.precision for one in listed.parts] == ["float32"]
    assert (listed.format, listed.checkpoint) == ("adapter", "final")
    waiting = world.task(lora, "export", "waiting", {"format": "merged"})
    assert {item.id: item for item in list_exports(lora.root)}[waiting.name].path is None
