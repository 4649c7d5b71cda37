"""How fast a run trains, against a bare TRL script on the same rows, tokens and settings.

    python tests/benchmarks/sft_speed.py alpaca_en_demo.json --model FOLDER [--steps 6] [--rounds 2]

DATA is a JSON or JSONL file with instruction and output. Both sides train LoRA r=16 on all linear
layers, batch 8, max_length 512, in bf16 where the CPU has it, each in a process of its own and in
turns, so that a busy machine slows both. Real tokens are counted, without padding; the time is
that of the Trainer's loop. On a machine that others use, OMP_NUM_THREADS=1 and tokens per CPU
second compare better. The limit is what a product of the model's widest matrix reaches just before
and after in the same process, in the run's type; the share of it counts the products that no way of
computing goes without (of the head, for tokens with loss). Prints one JSON object. Not a test.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[2]
SETTINGS: dict[str, Any] = {
    "adapter.r": 16,
    "adapter.lora_alpha": 32,
    "training.per_device_train_batch_size": 8,
    "training.max_length": 512,
    # TRL's defaults, so that every step is the same on both sides.
    "training.learning_rate": 2e-5,
    "training.lr_scheduler_type": "linear",
    "training.warmup_steps": 0.0,
    "training.num_train_epochs": 3.0,
    "evaluation.eval_strategy": "no",
    "evaluation.sample_max_new_tokens": 0,
    "tracking.save_strategy": "no",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", type=Path, required=True, help="folder of the base model")
    parser.add_argument("--rows", type=int, default=160)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--side", choices=["bare", "ours"], help=argparse.SUPPRESS)
    parser.add_argument("--workspace", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        side = bare if options.side == "bare" else ours
        print(json.dumps(side(options.workspace, options.steps)))
        return
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder), options.data, options.model, options.rows)
        found: dict[str, list[dict[str, Any]]] = {"bare": [], "ours": []}
        for _ in range(options.rounds):
            for name, results in found.items():
                results.append(in_process(name, Path(folder), options))
                print(f"{name}: {results[-1]}", file=sys.stderr)
    print(json.dumps(summary(found), indent=1))


def in_process(side: str, workspace: Path, options: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, __file__, str(options.data), "--model", str(options.model)]
    command += ["--side", side, "--workspace", str(workspace), "--steps", str(options.steps)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def summary(found: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    def speeds(unit: str) -> dict[str, list[float]]:
        return {s: [round(r["tokens"] / r[unit], 1) for r in rs] for s, rs in found.items()}

    def shares(unit: str) -> dict[str, list[float]]:
        return {
            s: [round(r["gflop"] / r[unit] / r["limit"][unit], 3) for r in rs]
            for s, rs in found.items()
        }

    wall, cpu = speeds("seconds"), speeds("cpu_seconds")
    first = {side: results[0]["losses"][0] for side, results in found.items()}
    return {
        "tokens_per_second": wall,
        "times_faster": round(median(wall["ours"]) / median(wall["bare"]), 2),
        "tokens_per_cpu_second": cpu,
        "times_faster_by_cpu_seconds": round(median(cpu["ours"]) / median(cpu["bare"]), 2),
        "limit_gflops": {s: [r["limit"] for r in rs] for s, rs in found.items()},
        "share_of_limit": shares("seconds"),
        "share_of_limit_by_cpu_seconds": shares("cpu_seconds"),
        "first_loss": first,
        "first_loss_difference": abs(first["bare"] - first["ours"]),
        "losses": {side: results[0]["losses"] for side, results in found.items()},
        "peak_memory_gb": {s: max(r["peak_memory_gb"] for r in rs) for s, rs in found.items()},
    }


def prepare(root: Path, data: Path, model: Path, rows: int) -> None:
    """A workspace with the first rows of the file as a data set `rows`, and the base `base`."""
    from core.data.prepare import import_dataset
    from core.workspace import Workspace

    workspace = Workspace.open(root)
    text = data.read_text(encoding="utf-8")
    all_rows = (
        json.loads(text) if text.lstrip().startswith("[") else map(json.loads, text.split("\n"))
    )
    workspace.uploads.mkdir(exist_ok=True)
    part = workspace.uploads / "rows.json"
    part.write_text(json.dumps(list(all_rows)[:rows]), encoding="utf-8")
    info = import_dataset(workspace, [part], name="rows", eval_fraction=0.0)
    assert info.counts.train == rows, f"{rows - info.counts.train} rows cannot be used"
    (workspace.models / "base").symlink_to(model.resolve(), target_is_directory=True)


def config(steps: int) -> Any:
    from core.rules import parse_config

    named = {"model.model_name_or_path": "base", "data.dataset": "rows"}
    return parse_config({**SETTINGS, **named, "training.max_steps": steps})


@contextmanager
def measured(result: dict[str, Any]) -> Iterator[None]:
    """Puts the seconds and CPU seconds of the Trainer's loop into `result`, and what it did."""
    from transformers import Trainer

    loop, step = Trainer._inner_training_loop, Trainer.training_step
    learned = 0

    def counted(self: Trainer, model: Any, inputs: Any, *arguments: Any) -> Any:
        nonlocal learned
        learned += int((inputs["labels"] != -100).sum())
        return step(self, model, inputs, *arguments)

    def timed(self: Trainer, *arguments: Any, **options: Any) -> Any:
        limits = [matrix_limit(self)]
        begin, begin_cpu = time.perf_counter(), time.process_time()
        output = loop(self, *arguments, **options)
        result["seconds"] = round(time.perf_counter() - begin, 2)
        result["cpu_seconds"] = round(time.process_time() - begin_cpu, 2)
        result["peak_memory_gb"] = peak_memory_gb()
        logs = [log for log in self.state.log_history if "loss" in log]
        result["tokens"] = int(logs[-1]["num_tokens"])
        result["losses"] = [round(log["loss"], 5) for log in logs]
        result["gflop"] = round(needed_gflop(self.model, result["tokens"], learned), 1)
        limits.append(matrix_limit(self))
        result["limit"] = {unit: max(limit[unit] for limit in limits) for unit in limits[0]}
        return output

    Trainer._inner_training_loop, Trainer.training_step = timed, counted
    with redirect_stdout(sys.stderr):
        yield


def needed_gflop(model: Any, tokens: int, learned: int) -> float:
    """A multiplication and an addition for each weight, forward and for the gradient of its input,
    and where it is trained for its own."""
    import torch

    head = model.get_output_embeddings()
    layers = [m.weight for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head]
    each = sum(weight.numel() * (6 if weight.requires_grad else 4) for weight in layers)
    return (tokens * each + learned * 4 * head.weight.numel()) / 1e9


def matrix_limit(trainer: Any, tokens: int = 1024, times: int = 40) -> dict[str, float]:
    """GFLOP a second, and a CPU second, of a product as in the model's feed-forward part."""
    import torch

    sizes, dtype = trainer.model.config, torch.bfloat16 if trainer.args.bf16 else torch.float32
    rows = torch.randn(tokens, sizes.hidden_size, dtype=dtype)
    matrix = torch.randn(sizes.intermediate_size, sizes.hidden_size, dtype=dtype)
    rows @ matrix.t()
    begin, begin_cpu = time.perf_counter(), time.process_time()
    for _ in range(times):
        rows @ matrix.t()
    gflop = 2 * times * rows.numel() * len(matrix) / 1e9
    return {
        "seconds": round(gflop / (time.perf_counter() - begin), 1),
        "cpu_seconds": round(gflop / (time.process_time() - begin_cpu), 1),
    }


def ours(root: Path, steps: int) -> dict[str, Any]:
    """The product's own run."""
    from core.worker.training.run import run_training
    from core.workspace import Workspace, new_id

    run = Workspace.open(root).run(new_id())
    run.root.mkdir(parents=True)
    config(steps).save(run.config)
    result: dict[str, Any] = {}
    with measured(result):
        run_training(run.root, root, None)
    return result


def bare(root: Path, steps: int) -> dict[str, Any]:
    """SFTTrainer with TRL's defaults on the same tokens."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    from core.data.registry import load_dataset_info
    from core.worker.training.text import sft_rows
    from core.workspace import Workspace

    base = str(root / "models" / "base")
    tokenizer = AutoTokenizer.from_pretrained(base)
    info = load_dataset_info(Workspace.open(root), "rows")
    rows: Dataset = sft_rows(info, "train", tokenizer, config(steps)).dataset
    has_bf16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    trainer = SFTTrainer(
        base,
        args=SFTConfig(
            output_dir=str(root / "bare"),
            per_device_train_batch_size=8,
            max_length=512,
            max_steps=steps,
            logging_steps=1,
            bf16=has_bf16,
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
        ),
        train_dataset=rows,
        peft_config=LoraConfig(
            r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"
        ),
    )
    result: dict[str, Any] = {}
    with measured(result):
        trainer.train()
    return result


def peak_memory_gb() -> float:
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(kilobytes * (1 if sys.platform == "darwin" else 1024) / 1e9, 2)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
