"""How near the estimate of memory is to the peak that real trainings on this CPU reach.

    python tests/benchmarks/memory_calibration.py --decoder FOLDER --encoder FOLDER --data FOLDER \
        [--only NAME ...] [--keep measured.json]

FOLDERs: SmolLM2-135M and all-MiniLM-L6-v2 as transformers reads them, and the sample files
alpaca_en_demo.json, dpo_en_demo.json, kto_en_demo.json, mmlu_pro_dev.jsonl. Each setting trains two
steps on the longest rows of its file, in a process of its own that has what a worker has preloaded,
and ends with VmHWM, the most memory that the process ever had. The second step matters: the
optimizer's state is there from then on. Prints a table: estimated, measured, their ratio. With
`--keep` what was measured is kept, and only what is missing there is measured. Not a test: it takes
about 15 minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
COMMON: dict[str, Any] = {
    "training.max_steps": 2,
    "training.gradient_checkpointing": False,
    "training.device": "cpu",
    "evaluation.eval_strategy": "no",
    "evaluation.sample_max_new_tokens": 0,
    "tracking.save_strategy": "no",
}
FULL = {"adapter.method": "none", "training.learning_rate": 1e-5}
CHECKPOINTING = {"training.gradient_checkpointing": True}
LABELS = {"method": "classification"}


def sized(rows: int, length: int) -> dict[str, Any]:
    return {"training.per_device_train_batch_size": rows, "training.max_length": length}


# name: (model, file, settings)
SETTINGS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "lora b4 512": ("decoder", "alpaca", sized(4, 512)),
    "lora b4 512 checkpointing": ("decoder", "alpaca", sized(4, 512) | CHECKPOINTING),
    "lora b1 256": ("decoder", "alpaca", sized(1, 256)),
    "lora b8 512": ("decoder", "alpaca", sized(8, 512)),
    "lora b3 256 fp32": ("decoder", "alpaca", sized(3, 256) | {"training.precision": "fp32"}),
    "lora b2 1024 packing": ("decoder", "alpaca", sized(2, 1024) | {"training.packing": True}),
    "lora b2 512 eager": (
        "decoder",
        "alpaca",
        sized(2, 512) | {"model.attn_implementation": "eager"},
    ),
    "qlora nf4 b2 512": ("decoder", "alpaca", sized(2, 512) | {"adapter.quantization": "nf4"}),
    "qlora nf4 b4 512 checkpointing": (
        "decoder",
        "alpaca",
        sized(4, 512) | CHECKPOINTING | {"adapter.quantization": "nf4"},
    ),
    "qlora nf4 b1 256 checkpointing": (
        "decoder",
        "alpaca",
        sized(1, 256) | CHECKPOINTING | {"adapter.quantization": "nf4"},
    ),
    "lora b2 256 checkpointing": ("decoder", "alpaca", sized(2, 256) | CHECKPOINTING),
    "full b2 512": ("decoder", "alpaca", sized(2, 512) | FULL),
    "full b4 512 checkpointing adafactor": (
        "decoder",
        "alpaca",
        sized(4, 512) | FULL | CHECKPOINTING | {"training.optim": "adafactor"},
    ),
    "full b1 256 sgd": ("decoder", "alpaca", sized(1, 256) | FULL | {"training.optim": "sgd"}),
    "dpo lora b2 512": ("decoder", "dpo", sized(2, 512) | {"method": "dpo"}),
    "dpo full b1 384 checkpointing": (
        "decoder",
        "dpo",
        sized(1, 384) | FULL | CHECKPOINTING | {"method": "dpo"},
    ),
    "orpo lora b1 512": ("decoder", "dpo", sized(1, 512) | {"method": "orpo"}),
    "kto lora b2 384": ("decoder", "kto", sized(2, 384) | {"method": "kto"}),
    "labels minilm full b32 256": ("encoder", "mmlu", sized(32, 256) | FULL | LABELS),
    "labels minilm lora b16 128": ("encoder", "mmlu", sized(16, 128) | LABELS),
    "labels smollm2 lora b8 256": ("decoder", "mmlu", sized(8, 256) | LABELS),
}
FILES = {
    "alpaca": "alpaca_en_demo.json",
    "dpo": "dpo_en_demo.json",
    "kto": "kto_en_demo.json",
    "mmlu": "mmlu_pro_dev.jsonl",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--decoder", type=Path, required=True)
    parser.add_argument("--encoder", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--keep", type=Path, help="a JSON file of what was measured")
    parser.add_argument("--workspace", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--train", choices=list(SETTINGS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train:
        print(json.dumps(trained(options.workspace, options.train)))
        return
    known = json.loads(options.keep.read_text()) if options.keep and options.keep.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        prepare(root, options)
        for name in options.only:
            if name not in known:
                known[name] = in_process(root, name, options)
                print(f"{name}: {known[name]}", file=sys.stderr, flush=True)
                if options.keep:
                    options.keep.write_text(json.dumps(known, indent=1))
        report(root, {name: known[name] for name in options.only})


def prepare(root: Path, options: argparse.Namespace) -> None:
    """The two models, and for each setting a data set of its batch of longest rows."""
    from core.data.prepare import import_dataset
    from core.workspace import Workspace

    workspace = Workspace.open(root)
    for name in ("decoder", "encoder"):
        place = workspace.models / name
        place.symlink_to(getattr(options, name).resolve(), target_is_directory=True)
    workspace.uploads.mkdir(exist_ok=True)
    for name in options.only:
        _, file, settings = SETTINGS[name]
        path = workspace.uploads / f"{slug(name)}.json"
        rows = longest_rows(options.data / FILES[file], settings["training.max_length"])
        count = settings["training.per_device_train_batch_size"]
        path.write_text(json.dumps(rows[: 16 if "packing" in name else count]), encoding="utf-8")
        mapping = {"text": "question", "label": "category"} if file == "mmlu" else None
        form = "labelled-text" if mapping else None
        import_dataset(
            workspace, [path], name=slug(name), form=form, mapping=mapping, eval_fraction=0.0
        )


def longest_rows(path: Path, length: int) -> list[Any]:
    """The rows of a file by the length of their text; of a judged one, good and bad in turns.

    Of preferences only those whose prompt leaves room for an answer in `length` tokens.
    """
    text = path.read_text(encoding="utf-8")
    lines = (line for line in text.split("\n") if line.strip())
    rows = json.loads(text) if text.lstrip().startswith("[") else [json.loads(x) for x in lines]
    rows.sort(key=lambda row: len(str(row.get("question") or row)), reverse=True)
    if path.stem.startswith(("dpo", "kto")):
        rows = [row for row in rows if len(str(row)) < 7 * length]
    if "label" not in rows[0]:
        return list(rows)
    sides = [[row for row in rows if row["label"] is good] for good in (True, False)]
    return [row for pair in zip(*sides, strict=False) for row in pair]


def slug(name: str) -> str:
    return name.replace(" ", "-")


def config_of(name: str) -> Any:
    from core.rules import parse_config

    model, _, settings = SETTINGS[name]
    named = {"model.model_name_or_path": model, "data.dataset": slug(name)}
    return parse_config({**COMMON, **settings, **named})


def in_process(root: Path, name: str, options: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, __file__, "--train", name, "--workspace", str(root)]
    for folder in ("decoder", "encoder", "data"):
        command += [f"--{folder}", str(getattr(options, folder))]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def trained(root: Path, name: str) -> dict[str, Any]:
    """Two steps of a setting; the process's memory in bytes, before and at its peak."""
    import contextlib
    import time

    import core.worker.preload  # noqa: F401 - what a worker finds imported
    from core.worker.training.run import run_training
    from core.workspace import Workspace, new_id

    run = Workspace.open(root).run(new_id())
    run.root.mkdir(parents=True)
    config_of(name).save(run.config)
    result: dict[str, Any] = {"before": memory("VmRSS")}
    begin = time.perf_counter()
    with contextlib.redirect_stdout(sys.stderr):
        run_training(run.root, root, None)
    seconds = round(time.perf_counter() - begin, 1)
    return result | {"peak": memory("VmHWM"), "end": memory("VmRSS"), "seconds": seconds}


def memory(field: str) -> int:
    """Bytes of this process by a name in /proc/self/status."""
    for line in Path("/proc/self/status").read_text("ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def report(root: Path, measured: dict[str, dict[str, Any]]) -> None:
    """The table: what was estimated and measured, in MB, and how far apart they are."""
    from dataclasses import replace

    from core.estimate.plan import estimate_run
    from core.models.hardware import probe

    hardware = probe()
    cpu = replace(hardware, devices=tuple(d for d in hardware.devices if d.kind == "cpu"))
    print(f"{'setting':36} estimated  measured  ratio")
    for name, found in measured.items():
        model = root / "models" / SETTINGS[name][0]
        memory = estimate_run(model, config_of(name), cpu).memory
        assert memory is not None, "both models tell their sizes"
        total, peak = memory.total / 1e6, found["peak"] / 1e6
        print(f"{name:36} {total:9,.0f} {peak:9,.0f} {total / peak:6.2f}")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
