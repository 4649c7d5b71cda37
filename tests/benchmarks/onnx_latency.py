"""How fast a classifier answers as ONNX against torch, and how often each is right.

    python tests/benchmarks/onnx_latency.py [--folder FOLDER] [--rounds 200]

Tunes all-MiniLM-L6-v2 to give the intents of the sample's tickets, 120 of which are held out, and
exports it as ONNX (both are kept in FOLDER and taken again from there). Then torch, fp32 and int8
score one text of 128 tokens by turns, each with one thread, so that a busy machine slows all alike
(CPU seconds compare better there); and each scores the held-out texts, one by one. Prints one JSON
object. Exits with 1 where int8 takes more than half of torch's mean time, or is right in one text
of a hundred less. Not a test.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
HELD_OUT, TOKENS = 120, 128


def ask(root: Path, *words: str) -> Any:
    """What a command prints as JSON; its progress goes to standard error."""
    command = [sys.executable, "-m", "core.cli", "--workspace", str(root / "workspace"), *words]
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [*command, "--json"], cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True
    )
    return json.loads(done.stdout)


def tickets() -> list[dict[str, str]]:
    """The sample's texts with their intents, always in the same order."""
    folder = ROOT / "assets" / "samples" / "support-tickets"
    lines = [*(folder / "train.jsonl").open("rb"), *(folder / "eval.jsonl").open("rb")]
    rows = [json.loads(line)["messages"] for line in lines]
    return [
        {"text": row[-2]["content"], "label": json.loads(row[-1]["content"])["intent"]}
        for row in rows
    ]


def prepare(root: Path) -> dict[str, str]:
    """(run: a classifier's id, onnx: the folder of its export); the held-out rows beside them."""
    import numpy as np

    rows, parts = tickets(), {}
    order = np.random.default_rng(0).permutation(len(rows))
    for name, places in (("held-out", order[:HELD_OUT]), ("train", order[HELD_OUT:])):
        parts[name] = root / f"{name}.jsonl"
        parts[name].write_text("".join(json.dumps(rows[i]) + "\n" for i in places), "utf-8")
    imported = ("data", "import", str(parts["train"]), "--eval-file", str(parts["held-out"]))
    settings = {
        "--data.dataset": ask(root, *imported)["id"],
        "--training.num_train_epochs": "15",
        "--evaluation.early_stopping_patience": "5",
    }
    words = [word for pair in settings.items() for word in pair]
    run = ask(root, "train", "classify-minilm", *words)["run"]
    exported = ask(root, "export", run, "--format", "onnx", "--onnx", "fp32", "int8")
    return {"run": run, "onnx": exported["folder"]}


def measure(root: Path, made: dict[str, str], rounds: int) -> dict[str, Any]:
    import numpy as np
    import torch

    from core.models.trained import find_trained
    from core.worker.export.onnx_runtime import OnnxClassifier
    from core.worker.models.classifier import label_logits, open_classifier, text_ids
    from core.worker.models.loading import resolve_base
    from core.workspace import Workspace

    torch.set_num_threads(1)
    workspace = Workspace.open(root / "workspace")
    trained = find_trained(workspace.run(made["run"]))
    base = resolve_base(trained.base, workspace)
    model, tokenizer, labels = open_classifier(trained, base, device="cpu", dtype=torch.float32)
    models = {"torch": model}
    for kind, file in (("fp32", "model.onnx"), ("int8", "model-int8.onnx")):
        models[kind] = OnnxClassifier(Path(made["onnx"]) / file, threads=1)
    rows = [json.loads(line) for line in (root / "held-out.jsonl").open("rb")]
    texts = text_ids(tokenizer, [row["text"] for row in rows], trained.config.training.max_length)
    wanted = torch.tensor([labels.ids[row["label"]] for row in rows])
    ids = torch.tensor([(texts[0] * TOKENS)[:TOKENS]])
    found: dict[str, list[tuple[float, float]]] = {kind: [] for kind in models}
    for _round in range(rounds + 5):
        for kind, one in models.items():
            begun, cpu = time.perf_counter(), time.thread_time()
            with torch.inference_mode():
                one(input_ids=ids, attention_mask=torch.ones_like(ids))
            found[kind].append((time.perf_counter() - begun, time.thread_time() - cpu))
    result: dict[str, Any] = {}
    for kind, one in models.items():
        wall, cpus = 1e3 * np.array(found[kind][5:]).T  # the first ones take longer
        scores = torch.cat([label_logits(one, tokenizer, [text]) for text in texts])
        result[kind] = {
            "mean_ms": round(float(wall.mean()), 1),
            **{f"p{p}_ms": round(float(np.percentile(wall, p)), 1) for p in (50, 95, 99)},
            "cpu_mean_ms": round(float(cpus.mean()), 1),
            "accuracy": round(float((scores.argmax(-1) == wanted).float().mean()), 4),
        }
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--rounds", type=int, default=200)
    given = parser.parse_args()
    root = given.folder or Path(tempfile.mkdtemp())
    root.mkdir(parents=True, exist_ok=True)
    known = root / "made.json"
    if not known.is_file():
        known.write_text(json.dumps(prepare(root)))
    result = measure(root, json.loads(known.read_text()), given.rounds)
    print(json.dumps(result, indent=1))
    is_fast = result["int8"]["mean_ms"] <= 0.5 * result["torch"]["mean_ms"]
    return 0 if is_fast and result["int8"]["accuracy"] >= result["torch"]["accuracy"] - 0.01 else 1


if __name__ == "__main__":
    sys.exit(main())
