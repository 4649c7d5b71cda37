"""How much memory an export takes: python -m tests.benchmarks.export_memory --model FOLDER

Each form is written and checked by a process of its own, on a run whose adapter is random. Printed
are the peak of the process's memory, what of it is there before the model is (torch and its like),
and the model's size in 32 bits, in which it is merged where the machine's memory allows it.
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
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    parser.add_argument("--one", nargs=2, metavar=("FOLDER", "WORKSPACE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        measure(*map(Path, args.one))
        return
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
        f"peak {peak:,.0f} MB ({before:,.0f} before the model), model {size:,.0f} MB in 32 bits: "
        f"{(peak - before) / size:.2f} times its size; {found['seconds']:.1f} s"
    )


def prepared(root: Path, model: Path, params: dict[str, Any]) -> Path:
    """The folder of an export of a run with a random adapter."""
    from core.workspace import Workspace

    workspace = Workspace.open(root)
    run = workspace.run("a-run")
    if not run.root.exists():
        shutil.copytree(model, workspace.models / "base")
        adapt(workspace.models / "base", run)
    folder = run.exports / "-".join(map(str, params.values()))
    folder.mkdir(parents=True)
    record = {"id": folder.name, "kind": "export", "run_id": "a-run", "params": params}
    (folder / "job.json").write_text(json.dumps({**record, "state": "running"}))
    return folder


def adapt(base: Path, run: Any) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from core.rules import parse_config
    from tests.tiny_model import tiny_adapter

    run.root.mkdir(parents=True)
    values = {"model.model_name_or_path": "base", "data.dataset": "none"}
    parse_config(values).save(run.config)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    tiny_adapter(model, size=0.003, r=16, lora_alpha=32).save_pretrained(run.adapter)


def measure(folder: Path, root: Path) -> None:
    from core.models.describe import describe_model
    from core.worker.export.run import run_export

    os.environ["TUNESMITH_DEVICE"] = "cpu"
    before, begun = of_this_process("VmRSS"), time.perf_counter()
    assert run_export(folder, root) == "finished"
    known = describe_model(root / "models" / "base")
    size = 4 * (known.parameters or 0) if known else 0
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
