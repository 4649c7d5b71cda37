"""A tiny chat model, a data set and finished runs on them: real weights, built in a second."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from core.data.prepare import import_dataset
from core.data.record import DatasetInfo
from core.evaluation.report import read_report
from core.evaluation.verdict import shown
from core.rules import parse_config
from core.tokens.tokenize import tokenize_row
from core.workspace import RunFolder, Workspace

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
COLOURS = ["red", "green", "blue", "black"]
THINGS = ["cup", "hat", "door"]


def answer(colour: str, thing: str) -> str:
    return json.dumps({"colour": colour, "thing": thing})


def colour_rows() -> list[dict[str, Any]]:
    """Twelve questions, each with an answer that is a JSON object of two fields."""
    return [
        {
            "messages": [
                {"role": "user", "content": f"a {colour} {thing}"},
                {"role": "assistant", "content": answer(colour, thing)},
            ]
        }
        for colour in COLOURS
        for thing in THINGS
    ]


def tiny_tokenizer(template: str | None = CHATML) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer of some 330 entries: any text goes in and out unchanged."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [m["content"] for row in colour_rows() for m in row["messages"]] * 5
    tokenizer.train_from_iterator([*texts, "user\n", "assistant\n", "system\n"], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        bos_token="<|im_start|>",
        pad_token="<|endoftext|>",
    )
    fast.chat_template = template
    return fast


def tiny_model(seed: int = 0, **changes: Any) -> LlamaForCausalLM:
    """Two layers of width 64 with random weights."""
    torch.manual_seed(seed)
    settings: dict[str, Any] = {
        "vocab_size": 400,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "initializer_range": 0.2,
    }
    return LlamaForCausalLM(LlamaConfig(**{**settings, **changes})).eval()


def tiny_adapter(model: Any, seed: int = 1, size: float = 0.2, **changes: Any) -> PeftModel:
    """A LoRA adapter whose B is not zero, so that it changes every answer."""
    torch.manual_seed(seed)
    settings: dict[str, Any] = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"}
    adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **{**settings, **changes}))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0.0, size)
    return adapted.eval()


def teach(model: Any, tokenizer: Any, rows: list[dict[str, Any]], steps: int = 150) -> float:
    """Trains what can be trained on `rows` until it knows them; the last loss."""
    torch.manual_seed(2)
    done = [tokenize_row(r, tokenizer, max_length=None) for r in rows]
    width = max(row.length for row in done)
    ids = torch.zeros((len(done), width), dtype=torch.long)
    labels = torch.full((len(done), width), -100)
    for place, row in enumerate(done):
        ids[place, : row.length] = torch.tensor(row.input_ids)
        labels[place, : row.length] = torch.tensor(row.labels)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    model.train()
    loss = torch.tensor(9.0)
    for _ in range(steps):
        loss = model(ids, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    return float(loss.detach())


@dataclass
class TinyWorld:
    """A workspace with the model `tiny` and the data set of `colour_rows`."""

    workspace: Workspace
    base: Path
    dataset: DatasetInfo

    @property
    def root(self) -> Path:
        return self.workspace.root

    def run(self, name: str, settings: dict[str, Any] | None = None) -> RunFolder:
        """An empty run that was trained on the data set."""
        run = self.workspace.run(name)
        run.root.mkdir(parents=True)
        values = {
            "model.model_name_or_path": "tiny",
            "data.dataset": self.dataset.id,
            "training.precision": "fp32",
            "training.device": "cpu",
            **(settings or {}),
        }
        parse_config(values).save(run.config)
        return run

    def task(self, run: RunFolder, kind: str, name: str, params: dict[str, Any]) -> Path:
        """The folder of an evaluation or export as `submit` makes it."""
        folder = run.root / {"evaluate": "evaluations", "export": "exports"}[kind] / name
        folder.mkdir(parents=True)
        record = {"id": name, "kind": kind, "run_id": run.root.name, "params": params}
        (folder / "job.json").write_text(json.dumps({**record, "state": "running"}))
        return folder


def tiny_world(
    root: Path,
    *,
    rows: list[dict[str, Any]] | None = None,
    eval_rows: list[dict[str, Any]] | None = None,
    task: dict[str, Any] | None = None,
) -> TinyWorld:
    """Makes the workspace. Without `eval_rows` nothing is held out."""
    torch.set_num_threads(1)
    workspace = Workspace.open(root)
    base = workspace.models / "tiny"
    tiny_model().save_pretrained(base)
    tiny_tokenizer().save_pretrained(base)
    workspace.uploads.mkdir(exist_ok=True)
    files = []
    for name, part in (("rows", rows or colour_rows()), ("held-out", eval_rows)):
        if part:
            files.append(workspace.uploads / f"{name}.jsonl")
            files[-1].write_text("".join(json.dumps(row) + "\n" for row in part))
    dataset = import_dataset(
        workspace,
        files[:1],
        name="Colours",
        eval_source=files[1] if eval_rows else None,
        eval_fraction=0.0,
        task=task,
    )
    return TinyWorld(workspace, base, dataset)


def shown_report(folder: Path) -> dict[str, Any]:
    """The report that an evaluation left, as a person gets it: with its sentences."""
    report = read_report(folder)
    assert report is not None
    return shown(report)


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
