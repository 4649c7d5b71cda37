"""Texts whose labels follow an easy rule, tiny models to learn it, and runs on them."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

from core.data.prepare import import_dataset
from core.data.record import DatasetInfo
from core.rules import parse_config
from core.worker.training.run import run_training
from core.workspace import RunFolder, Workspace
from tests.tiny_model import tiny_model, tiny_tokenizer

WORDS = {
    "animal": ["dog", "cat", "horse", "fish"],
    "colour": ["red", "green", "blue", "black"],
    "fruit": ["apple", "pear", "plum", "fig"],
}
FILLERS = ["here", "is", "what", "we", "saw", "today", "and", "then"]


def labelled_rows(count: int, seed: int = 0, *, several: bool = False) -> list[dict[str, Any]]:
    """A text has a word of each of its labels among others; several: none to all of them."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        names = [name for name in sorted(WORDS) if draw.random() < 0.5]
        if not several:
            names = [sorted(WORDS)[number % 3]]
        words = draw.sample(FILLERS, 2) + [draw.choice(WORDS[name]) for name in names]
        draw.shuffle(words)
        rows.append({"text": " ".join(words), "labels": names})
    return rows


def tiny_bert_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = [word for group in (*WORDS.values(), FILLERS) for word in group]
    trainer = trainers.WordLevelTrainer(special_tokens=marks, show_progress=False)
    tokenizer.train_from_iterator(words, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[(mark, tokenizer.token_to_id(mark)) for mark in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=64,
    )


def tiny_bert(folder: Path) -> None:
    """A masked language model: like many encoders it comes without the pooler of a classifier."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=64,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        initializer_range=0.1,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        pad_token_id=0,
    )
    BertForMaskedLM(config).save_pretrained(folder)
    tiny_bert_tokenizer().save_pretrained(folder)


@dataclass
class LabelWorld:
    """A workspace with `tiny-bert`, `tiny-llama` and data sets."""

    workspace: Workspace

    def data(
        self, name: str, rows: list[dict[str, Any]], held_out: list[dict[str, Any]] | None = None
    ) -> DatasetInfo:
        files = []
        for part, given in (("train", rows), ("eval", held_out)):
            if given is not None:
                files.append(self.workspace.uploads / f"{name}-{part}.jsonl")
                files[-1].write_text("".join(json.dumps(row) + "\n" for row in given))
        return import_dataset(
            self.workspace,
            files[:1],
            name=name,
            form="labelled-text",
            mapping={"text": "text", "label": "labels"},
            eval_source=files[1] if held_out is not None else None,
            eval_fraction=0.0,
        )

    def run(self, name: str, dataset: str, **settings: Any) -> RunFolder:
        """An empty run."""
        folder = self.workspace.run(name)
        folder.root.mkdir(parents=True)
        values = {
            "method": "classification",
            "model.model_name_or_path": "tiny-bert",
            "data.dataset": dataset,
            "training.precision": "fp32",
            "training.device": "cpu",
            "training.per_device_train_batch_size": 8,
            "training.learning_rate": 5e-3,
            "training.num_train_epochs": 2.0,
            "training.max_length": 32,
            "evaluation.eval_strategy": "epoch",
            "tracking.save_strategy": "no",
            **settings,
        }
        parse_config(values).save(folder.config)
        return folder

    def train(self, name: str, dataset: str, **settings: Any) -> RunFolder:
        folder = self.run(name, dataset, **settings)
        assert run_training(folder.root, self.workspace.root, None) == "finished"
        return folder


def label_world(root: Path) -> LabelWorld:
    workspace = Workspace.open(root)
    workspace.uploads.mkdir(exist_ok=True)
    tiny_bert(workspace.models / "tiny-bert")
    tiny_model(initializer_range=0.05).save_pretrained(workspace.models / "tiny-llama")
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = None  # as Llama's own
    tokenizer.save_pretrained(workspace.models / "tiny-llama")
    return LabelWorld(workspace)
