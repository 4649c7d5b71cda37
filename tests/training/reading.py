"""Plain texts that follow an easy rule, tiny models to read them, and runs on them."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.data.prepare import import_dataset
from core.data.record import DatasetInfo
from core.jobs.task import read_result
from core.rules import parse_config
from core.worker.evaluation.run import run_evaluation
from core.worker.export.run import run_export
from core.worker.training.run import run_training
from core.workspace import RunFolder, Workspace
from tests.tiny_model import COLOURS, shown_report, tiny_model, tiny_tokenizer
from tests.training.labelled import tiny_bert

SENTENCES = ["we saw red fish", "today what is blue", "and then black plum", "here is green pear"]
# Made-up words: each is always of the same colour, and is seven tokens as long as it is not one.
MADE_UP = [f"zorblax{chr(97 + i)}{chr(97 + i)}" for i in range(20)]


def plain_texts(count: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    return [
        " ".join(draw.choice(SENTENCES) for _ in range(draw.randint(1, 8))) for _ in range(count)
    ]


def made_up_texts(count: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    texts = []
    for _ in range(count):
        some = [draw.randrange(len(MADE_UP)) for _ in range(5)]
        texts.append(" ".join(f"{MADE_UP[i]} {COLOURS[i % 4]}" for i in some))
    return texts


@dataclass
class TextWorld:
    """A workspace with `tiny-llama`, `tiny-untied`, `tiny-bert` and data sets of plain text."""

    workspace: Workspace

    def data(self, name: str, texts: list[str], held_out: list[str]) -> DatasetInfo:
        files = []
        for part, given in (("train", texts), ("eval", held_out)):
            files.append(self.workspace.uploads / f"{name}-{part}.jsonl")
            files[-1].write_text("".join(json.dumps({"text": text}) + "\n" for text in given))
        return import_dataset(
            self.workspace, files[:1], name=name, eval_source=files[1], eval_fraction=0.0
        )

    def run(self, name: str, method: str, dataset: str, **settings: Any) -> RunFolder:
        """An empty run."""
        folder = self.workspace.run(name)
        folder.root.mkdir(parents=True)
        values = {
            "method": method,
            "model.model_name_or_path": "tiny-bert" if method == "mlm" else "tiny-llama",
            "data.dataset": dataset,
            "training.precision": "fp32",
            "training.device": "cpu",
            "training.per_device_train_batch_size": 8,
            "training.learning_rate": 5e-3 if method == "mlm" else 1e-2,
            "training.num_train_epochs": 2.0,
            "training.max_length": 64,
            "evaluation.eval_strategy": "epoch",
            "evaluation.sample_max_new_tokens": 4,
            "tracking.save_strategy": "no",
            **settings,
        }
        parse_config(values).save(folder.config)
        return folder

    def train(self, name: str, method: str, dataset: str, **settings: Any) -> RunFolder:
        folder = self.run(name, method, dataset, **settings)
        assert run_training(folder.root, self.workspace.root, None) == "finished"
        return folder

    def measure(self, run: RunFolder) -> dict[str, Any]:
        """The result of an evaluation of the run."""
        folder = _task(run, "evaluate", run.evaluations / "one", {})
        assert run_evaluation(folder, self.workspace.root) == "finished"
        return shown_report(folder)

    def export(self, run: RunFolder, format_name: str) -> Path:
        """The folder of an export that was checked."""
        params = {"format": format_name}
        folder = _task(run, "export", run.root / "exports" / format_name, params)
        assert run_export(folder, self.workspace.root) == "finished"
        return folder / str((read_result(folder) or {})["path"])


def _task(run: RunFolder, kind: str, folder: Path, params: dict[str, Any]) -> Path:
    folder.mkdir(parents=True)
    record = {"id": folder.name, "kind": kind, "run_id": run.root.name, "params": params}
    (folder / "job.json").write_text(json.dumps({**record, "state": "running"}))
    return folder


def text_world(root: Path) -> TextWorld:
    workspace = Workspace.open(root)
    workspace.uploads.mkdir(exist_ok=True)
    tiny_bert(workspace.models / "tiny-bert")
    tokenizer = tiny_tokenizer()
    for name, tied in (("tiny-llama", True), ("tiny-untied", False)):
        # No row to spare: new tokens make the embeddings grow.
        model = tiny_model(tie_word_embeddings=tied, vocab_size=len(tokenizer))
        model.save_pretrained(workspace.models / name)
        tokenizer.save_pretrained(workspace.models / name)
    world = TextWorld(workspace)
    world.data("plain", plain_texts(80), plain_texts(24, 1))
    return world
