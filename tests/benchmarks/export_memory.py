"""How much memory an export takes: python -m tests.benchmarks.export_memory --model FOLDER

Each form is written and checked by a process of its own, on a run whose adapter is random. Printed
are the peak of the process's memory and what of it is there before the model is, both after a tiny
model was exported (torch and its like), and the model's size on the disk. `--shaped` writes a model
of random weights first, of as many layers of the width of a 7B model.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

FORMS: dict[str, dict[str, Any]] = {
    "merged": {"format": "merged"},
    "merged bfloat16": {"format": "merged", "dtype": "bfloat16"},
    "adapter": {"format": "adapter"},
    "gguf f16": {"format": "gguf", "quantization": ["f16"]},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="a folder with a causal model")
    parser.add_argument("--shaped", type=int, metavar="LAYERS", help="write it; 32 are 6.7B")
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    parser.add_argument("--one", nargs=2, metavar=("FOLDER", "WORKSPACE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        measure(*map(Path, args.one))
        return
    if args.shaped:
        write_shaped(args.model, args.shaped)
    with tempfile.TemporaryDirectory(prefix="export-memory-") as made:
        for name in args.forms:
            print(f"{name}: {measured(Path(made), args.model, FORMS[name])}", flush=True)


def measured(root: Path, model: Path, params: dict[str, Any]) -> str:
    folder = prepared(root, model, params)
    command = [sys.executable, "-m", __spec__.name, "--model", str(model), "--one"]
    done = subprocess.run(
        [*command, str(folder), str(root)], stdout=subprocess.PIPE, check=True, text=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    before, peak, size = (found[key] / 1e6 for key in ("before", "peak", "size"))
    return (
        f"peak {peak:,.0f} MB ({before:,.0f} before the model), model {size:,.0f} MB as stored: "
        f"{(peak - before) / size:.2f} times its size; {found['seconds']:.1f} s"
    )


def prepared(root: Path, model: Path, params: dict[str, Any], size: float = 0.003) -> Path:
    """The folder of an export of a run with a random adapter."""
    from core.workspace import Workspace

    workspace = Workspace.open(root)
    run = workspace.run("a-run")
    if not run.root.exists():
        shutil.copytree(model, workspace.models / "base", copy_function=os.link)
        adapt(workspace.models / "base", run, size)
    folder = run.exports / "-".join(map(str, params.values()))
    folder.mkdir(parents=True)
    record = {"id": folder.name, "kind": "export", "run_id": "a-run", "params": params}
    (folder / "job.json").write_text(json.dumps({**record, "state": "running"}))
    return folder


def adapt(base: Path, run: Any, size: float) -> None:
    from transformers import AutoModelForCausalLM

    from core.rules import parse_config
    from tests.tiny_model import tiny_adapter

    run.root.mkdir(parents=True)
    values = {"model.model_name_or_path": "base", "data.dataset": "none"}
    parse_config(values).save(run.config)
    model = AutoModelForCausalLM.from_pretrained(base, dtype="auto")
    tiny_adapter(model, size=size, r=16, lora_alpha=32).save_pretrained(run.adapter)


def write_shaped(folder: Path, layers: int) -> None:
    """A model of the width of Llama 2 7B, in bfloat16, a shard for each layer."""
    import torch
    from safetensors.torch import save_file
    from transformers import LlamaConfig, LlamaForCausalLM

    from tests.tiny_model import tiny_tokenizer

    config = LlamaConfig(num_hidden_layers=layers, dtype="bfloat16", eos_token_id=2)
    with torch.device("meta"):
        shapes = {name: one.shape for name, one in LlamaForCausalLM(config).state_dict().items()}
    tiny_tokenizer().save_pretrained(folder)
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(folder)
    shard_of = {}
    for name in shapes:
        layer = next((part for part in name.split(".") if part.isdecimal()), "rest")
        shard_of[name] = f"model-{layer}.safetensors"
    for shard in sorted(set(shard_of.values())):
        weights = {}
        for name in (name for name in shapes if shard_of[name] == shard):
            weight = torch.empty(shapes[name], dtype=torch.bfloat16)
            weights[name] = weight.fill_(1) if weight.ndim == 1 else weight.normal_(0, 0.02)
        save_file(weights, folder / shard, {"format": "pt"})
    index = {"metadata": {}, "weight_map": shard_of}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def measure(folder: Path, root: Path) -> None:
    from core.worker.export.run import run_export
    from tests.tiny_model import tiny_model, tiny_tokenizer

    os.environ["TUNESMITH_DEVICE"] = "cpu"
    with tempfile.TemporaryDirectory(prefix="export-memory-tiny-") as made:
        tiny = Path(made) / "tiny"
        tiny_model().save_pretrained(tiny)
        tiny_tokenizer().save_pretrained(tiny)
        run_export(prepared(Path(made) / "ws", tiny, {"format": "merged"}, 0.2), Path(made) / "ws")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before, begun = of_this_process("VmRSS"), time.perf_counter()
    assert run_export(folder, root) == "finished"
    base = root / "models" / "base"
    size = sum(path.stat().st_size for path in base.glob("*.safetensors"))
    told = {
        "before": before,
        "peak": of_this_process("VmHWM"),
        "size": size,
        "seconds": time.perf_counter() - begun,
    }
    print(json.dumps(told))


def of_this_process(name: str) -> int:
    """Bytes that Linux knows of: what is held now (VmRSS), or was at most (VmHWM)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    found = next(line.split()[1] for line in lines if line.startswith(f"{name}:"))
    return 1024 * int(found)


if __name__ == "__main__":
    main()
