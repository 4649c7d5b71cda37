"""A run as a script of TRL or transformers and PEFT, with its rows."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import inspect
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from string import Template
from typing import Any

from core.config import RunConfig
from core.data.record import DatasetInfo, Part
from core.errors import ExportError
from core.export.format import Base
from core.jobs.process import named
from core.language import _
from core.models.labels import Labels, labels_of
from core.models.modelscope import fetching_code
from core.models.trained import TrainedModel, adapter_settings
from core.tokens.tokenize import NO_LOSS
from core.worker.models.classifier import HEADS
from core.worker.models.loading import DTYPES, quantization_config

_PACKAGES = ("torch", "transformers", "peft", "datasets", "accelerate")
_SCRIPT = Template('''\
# /// script
# requires-python = ">=3.11"
# dependencies = [
$dependencies
# ]
# ///
"""Trains again what Tunesmith's run $run trained, with $libraries alone.

    uv run train.py [--model FOLDER_OR_ID] [--output FOLDER]

train.jsonl, and eval.jsonl where rows were held out, hold the rows as the run's trainer got them:
$columns
Tunesmith laid them out, which is not repeated here: to train on other rows, tokenize them alike.
The tokenizer beside this file pads the rows and is saved with the model.

Losses are the run's but for rounding.$but$note
"""

$imports

HERE = Path(__file__).resolve().parent

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--model", default=$model, help="the base: a folder or an id on the Hub")
parser.add_argument("--output", default="output", help="folder of checkpoints and of the result")
given = parser.parse_args()
$fetching
tokenizer = AutoTokenizer.from_pretrained(HERE)
rows = load_dataset(
    "json", data_files={path.stem: str(path) for path in sorted(HERE.glob("*.jsonl"))}
)
$loading
args = $arguments(
    output_dir=given.output,
$settings
)
${code}trainer = $trainer(
    model=model,
    args=args,
    train_dataset=rows["train"],
    eval_dataset=rows.get("eval"),
    processing_class=tokenizer,
$more
)
${after}trainer.train()
trainer.save_model(f"{given.output}/final")
trainer.save_state()
''')

_Row = dict[str, Any]
_WIDTH = 100


@dataclass(frozen=True)
class _Way:
    """How a trainer of a library is given the rows of a run: they are `read` in the columns that
    `columns` tells of. `code` is written where it needs more than the rows, in which the trainer is
    `Trained`. `but` says where losses differ."""

    columns: str
    read: Callable[[_Source, Part], Iterable[_Row]]
    code: Callable[[_Source], str] = lambda source: ""
    but: str = ""


@dataclass(frozen=True)
class _Source:
    """Whatever the rows are read with."""

    info: DatasetInfo
    tokenizer: Any
    trained: TrainedModel
    labels: Labels | None
    """What the model gives where it has a head of its own."""

    @property
    def config(self) -> RunConfig:
        return self.trained.config

    def read(self, read: Callable[..., Any], part: Part, *more: Any) -> Any:
        """The rows that a function of core.worker.training reads of a part."""
        limit = self.config.data.max_train_samples if part == "train" else None
        return read(self.info, part, self.tokenizer, self.config, *more, limit=limit)


def _texts(source: _Source, part: Part) -> Iterable[_Row]:
    from core.worker.training.text import packed, sft_rows

    rows, training = source.read(sft_rows, part), source.config.training
    found: Iterable[_Row] = rows.dataset
    if training.packing and part == "train":
        found = packed(rows, training.max_length, training.packing_strategy)
    elif training.packing and training.packing_strategy == "bfd":
        # With the column that packed rows have.
        found = [row | {"seq_lengths": [len(row["input_ids"])]} for row in rows.dataset]
    return found


def _blocks(source: _Source, part: Part) -> Iterable[_Row]:
    from core.worker.training.text import in_blocks, whole_texts

    config = source.config
    apart = config.text.documents == "apart"
    texts = source.read(whole_texts, part)
    found: Iterable[_Row] = in_blocks(texts, config.training.max_length, apart=apart).dataset
    return found


def _pieces(source: _Source, part: Part) -> Iterator[_Row]:
    """All with the same columns, which `datasets` wants of all files."""
    from core.worker.training.mlm import pieces_of_texts

    for row in source.read(pieces_of_texts, part).dataset:
        size = len(row["input_ids"])
        unasked: _Row = {"labels": [], "special_tokens_mask": [0] * size}
        if source.config.text.whole_word_mask:
            unasked["offset_mapping"] = [[0, 0]] * size
        yield unasked | row


def _pairs(source: _Source, part: Part) -> Iterable[_Row]:
    """Both whole answers of each pair, and what is learned of them."""
    from core.worker.training.preference import judged_rows

    found: Iterable[_Row] = source.read(judged_rows, part).dataset
    return found


def _prompted_pairs(source: _Source, part: Part) -> Iterator[_Row]:
    for row in _pairs(source, part):
        (prompt, chosen), (other, rejected) = (
            _parted(row[f"{side}_input_ids"], row[f"{side}_labels"])
            for side in ("chosen", "rejected")
        )
        if prompt != other:
            raise _not_in_one_piece()
        yield {"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected}


def _scored_pairs(source: _Source, part: Part) -> Iterator[_Row]:
    for row in _pairs(source, part):
        yield {f"{side}_ids": row[f"{side}_input_ids"] for side in ("chosen", "rejected")}


def _judged(source: _Source, part: Part) -> Iterator[_Row]:
    """In the order of the run, each with the answer of its neighbour in the batch."""
    from core.worker.training.preference import compares_neighbours, judged_rows
    from core.worker.training.recipe import data_seed

    config = source.config
    batch = int(config.training.per_device_train_batch_size)
    if part == "eval":
        batch = int(config.evaluation.per_device_eval_batch_size)
    rows = list(source.read(judged_rows, part).dataset.shuffle(seed=data_seed(config)))
    parted = [_parted(row["input_ids"], row["labels"]) for row in rows]
    for at, (row, (prompt, answer)) in enumerate(zip(rows, parted, strict=True)):
        first = at - at % batch
        before = at - 1 if at > first else min(first + batch, len(rows)) - 1
        judged = {"prompt_ids": prompt, "completion_ids": answer, "label": row["label"]}
        if compares_neighbours(config):
            room = config.training.max_length - len(prompt)
            judged["KL_completion_ids"] = parted[before][1][:room]
        yield judged


def _labelled(source: _Source, part: Part) -> Iterator[_Row]:
    from core.worker.training.classification import labelled_rows

    assert source.labels is not None, "a classifier has labels"
    for row in source.read(labelled_rows, part, source.labels).dataset:
        known = row["labels"][:-1] if source.labels.multi else row["labels"]
        yield {"input_ids": row["input_ids"], "labels": known}


def _parted(ids: list[int], labels: list[int]) -> tuple[list[int], list[int]]:
    """(prompt, answer) as TRL's collators take them. Raises ExportError where the answer does not
    stand in one piece."""
    learned = [place for place, label in enumerate(labels) if label != NO_LOSS]
    answer = ids[learned[0] : learned[-1] + 1]  # what comes after changes no loss
    if len(answer) != len(learned):
        raise _not_in_one_piece()
    return ids[: learned[0]], answer


def _not_in_one_piece() -> ExportError:
    return ExportError(
        _("The answers of a row do not follow one prompt in one piece, which TRL's trainer needs."),
        _("Export it in another form."),
    )


_TOKENIZED = """
class Trained($trainer):
    def _prepare_dataset(self, dataset, *given, **options):
        return dataset  # its rows are tokens already
"""
_WITH_MASKS = """
class Trained($trainer):
    def tokenize_row(self, row, *given):  # its rows are tokens already
        sides = ("chosen", "rejected")
        return {f"{side}_attention_mask": [1] * len(row[f"{side}_input_ids"]) for side in sides}
"""
_ANSWERS_ALONE = """
    def concatenated_forward(self, model, batch):
        # The loss of the better answer alone, as in the paper: TRL takes its prompt along.
        chosen, rejected, scores, others, _, *more = super().concatenated_forward(model, batch)
        labels = batch["chosen_labels"][:, 1:].to(scores.device)
        known = scores[:, : labels.shape[1]].flatten(0, 1)
        loss = torch.nn.functional.cross_entropy(known, labels.flatten())
        return chosen, rejected, scores, others, loss, *more
"""
_BY_LENGTH = """

class Trained(Trainer):
    def _get_train_sampler(self, dataset=None):
        lengths = [len(row) for row in rows["train"]["input_ids"]]
        return LikeLengths(lengths, args.per_device_train_batch_size, $seed)
"""


def _pair_code(source: _Source) -> str:
    config = source.config
    answers_alone = config.training_method.may_learn_questions and config.data.learn != "everything"
    return _WITH_MASKS + _ANSWERS_ALONE if answers_alone else _WITH_MASKS


def _label_code(source: _Source) -> str:
    """The loss of LabelLoss, and the order of the rows."""
    from core.worker.training.classification import class_weights, count_labels, labelled_rows

    section, labels = source.config.classification, source.labels
    assert labels is not None, "a classifier has labels"
    rows = source.read(labelled_rows, "train", labels)
    weights = class_weights(section, labels, count_labels(rows, labels), len(rows.lengths))
    kind = "binary_cross_entropy_with_logits" if labels.multi else "cross_entropy"
    lines = [
        "def loss(outputs, labels, num_items_in_batch=None):",
        "    scores = outputs.logits.float()",
        f'    each = torch.nn.functional.{kind}(scores, labels, reduction="none")',
    ]
    if section.loss == "focal":
        gamma = section.focal_gamma
        lines.append(f"    each = each * (1 - (-each).exp()) ** {gamma!r}  # focal loss")
    if weights is not None:
        of_each = "labels.clamp(min=0)"
        lines.append(f"    weights = torch.tensor({weights!r}, device=scores.device)")
        lines.append(
            "    each = each * torch.where(labels > 0, weights, 1.0)"
            if labels.multi
            else f"    each = each * weights[{of_each}]"
        )
    count = "labels.numel()" if labels.multi else "max(int((labels != -100).sum()), 1)"
    lines += [
        f"    return each.sum() / (num_items_in_batch or {count})",
    ]
    return "\n".join(lines) + _order_code(source)


def _order_code(source: _Source) -> str:
    """LikeLengths, where rows of like length share a batch."""
    from core.worker.training.recipe import data_seed
    from core.worker.training.trainer import LikeLengths

    if source.config.training.train_sampling_strategy != "group_by_length":
        return ""
    of_trainer = Template(_BY_LENGTH).substitute(seed=data_seed(source.config))
    return f"\n\n\n{inspect.getsource(LikeLengths)}{of_trainer}"


def _hiding_code(source: _Source) -> str:
    """What hides tokens, and the loss on them, as in core.worker.training.mlm."""
    from core.worker.models.masked import masking
    from core.worker.training import mlm
    from core.worker.training.recipe import data_seed

    masks = masking(source.tokenizer, source.config)
    names = "mlm_probability", "whole_word_mask", "mask_replace_prob", "random_replace_prob"
    given = _lines([f"{name}={getattr(masks, name)!r}," for name in names])
    parts = (mlm._wide, mlm._mask, mlm._filled, mlm.Hiding, mlm.GoOnHiding, mlm.mean_loss)
    sources = "\n\n".join(inspect.getsource(part) for part in parts)
    return (
        f"{sources}\n\nmasks = DataCollatorForLanguageModeling(\n    tokenizer,\n{given}\n)\n"
        f"hiding = Hiding(masks, {data_seed(source.config)})"
    ) + _order_code(source)


_BY_TOKENS = """
`eval_loss` is the library's mean over batches; Tunesmith's is one over tokens."""
_BY_ROWS = """
What an evaluation measures is TRL's mean over batches; Tunesmith's is one over rows."""
_BY_STEPS = """
Where a step has several batches, TRL tells from each how far the model has moved, Tunesmith from
all of them."""
_PAIRS_APART = """\
`chosen_input_ids` and `rejected_input_ids` are the tokens of a conversation with the better and the
worse answer, cut at $max_length; their `labels` are -100 but on the answer."""
_WAYS = {
    "SFT": _Way(
        """\
`input_ids` are a row's tokens, cut at $max_length; `labels` are the same tokens where the run
learned from them (data.learn: $learn) and -100 elsewhere.""",
        _texts,
        but=_BY_TOKENS,
    ),
    "CPT": _Way(
        """\
`input_ids` are blocks of up to $max_length tokens; `labels` are the same but at a block's first one
and, with `seq_lengths`, at that of each text, before which nothing is seen.""",
        _blocks,
        but=_BY_TOKENS,
    ),
    "MLM": _Way(
        """\
`input_ids` are pieces of up to $max_length tokens. In training others are hidden each time;
held-out ones have theirs drawn, with what was there as `labels`.""",
        _pieces,
        _hiding_code,
        but=_BY_TOKENS,
    ),
    "DPO": _Way(
        """\
`prompt_ids` are the tokens of a conversation, `chosen_ids` and `rejected_ids` those of the better
and the worse answer, cut at $max_length.""",
        _prompted_pairs,
        lambda source: _TOKENIZED,
        but=_BY_ROWS,
    ),
    "KTO": _Way(
        """\
`prompt_ids` are the tokens of a conversation, `completion_ids` those of an answer, cut at
$max_length, and `label` says whether it is a good one. They are in the run's order, for each is
compared with the answer of its neighbour in the batch (`KL_completion_ids`).""",
        _judged,
        lambda source: _TOKENIZED,
        but=_BY_ROWS + _BY_STEPS,
    ),
    "ORPO": _Way(_PAIRS_APART, _pairs, _pair_code, _BY_ROWS),
    "CPO": _Way(_PAIRS_APART, _pairs, _pair_code, _BY_ROWS),
    "Reward": _Way(
        """\
`chosen_ids` and `rejected_ids` are the tokens of a conversation with the better and the worse
answer, cut at $max_length.""",
        _scored_pairs,
        but=_BY_ROWS,
    ),
    "Classification": _Way(
        """\
`input_ids` are a text's tokens, cut at $max_length; `labels` is the number of its label, or for
several labels a text 0 or 1 for each.""",
        _labelled,
        _label_code,
    ),
}
"""By the recipe that trains a method."""


def _way(config: RunConfig) -> _Way:
    return _WAYS[config.training_method.recipe.rpartition(":")[2]]


def write(
    folder: Path, trained: TrainedModel, base: Base, tokenizer: Any, info: DatasetInfo
) -> dict[str, int]:
    """Writes train.py, train.jsonl and, for a run that evaluated, eval.jsonl; the number of rows
    of each. Raises DataError when nothing can be learned from the rows."""
    config = trained.config
    source = _Source(info, tokenizer, trained, labels_of(config.method, trained.folder))
    way = _way(config)
    parts: list[Part] = ["train"] if config.evaluation.eval_strategy == "no" else ["train", "eval"]
    counts: dict[str, int] = {}
    for part in parts:
        with (folder / f"{part}.jsonl").open("w", encoding="utf-8") as file:
            lines = (json.dumps(row) + "\n" for row in way.read(source, part))
            counts[part] = sum(bool(file.write(line)) for line in lines)
    (folder / "train.py").write_text(script(source, base), encoding="utf-8")
    return counts


def script(source: _Source, base: Base) -> str:
    """The text of train.py."""
    config, method = source.config, source.config.training_method
    way, (package, _dot, trainer) = _way(config), method.trainer.rpartition(".")
    more, packages = [], list(_PACKAGES)
    if method.trainer.startswith("trl."):
        packages.insert(2, "trl")
    if config.adapter.quantization != "none":
        packages.append("bitsandbytes")
    if method.makes == "writer" and config.adapter.is_adapter:
        more.append("peft_config=adapter,")
    code = Template(way.code(source)).safe_substitute(trainer=trainer)
    if own_loss := re.search(r"def (\w*loss)\(", code):
        more.append(f"compute_loss_func={own_loss[1]},")
    callbacks = []
    if "hiding = " in code:
        more.append("data_collator=hiding,")
        callbacks.append("GoOnHiding(hiding)")
    evaluation = config.evaluation
    if evaluation.early_stopping_patience is not None:
        patience = evaluation.early_stopping_patience, evaluation.early_stopping_threshold
        callbacks.append(f"EarlyStoppingCallback{patience!r}")
    if callbacks:
        more.append(f"callbacks=[{', '.join(callbacks)}],")
    note = "\nThe run took its base from a quantized copy: here it is the exact one."
    fetching = ""
    if base.is_of_modelscope:
        packages.append("modelscope-hub")
        fetching = (
            f"if given.model == {base.name!r}:\n    given.model = {fetching_code(base.name)}\n"
        )
    text = _SCRIPT.substitute(
        dependencies="\n".join(f'#     "{name}=={_version(name)}",' for name in packages),
        run=source.trained.run.root.name,
        libraries="TRL, transformers and PEFT" if "trl" in packages else "transformers and PEFT",
        columns=Template(way.columns).substitute(
            max_length=config.training.max_length, learn=config.data.learn
        ),
        but=way.but,
        note=note if base.is_copy else "",
        imports="$imports",
        model=repr(base.name),
        fetching=fetching,
        loading=_loading(source),
        arguments=method.arguments.name,
        settings=_lines(f"{name}={value!r}," for name, value in _settings(source).items()),
        code=f"\n\n{code.strip()}\n\n\n" if code else "",
        trainer="Trained" if "class Trained(" in code else trainer,
        more=_lines(more),
        after=_after(config),
    )
    return text.replace("$imports", _imports(text, {package: (trainer, method.arguments.name)}))


_STANDARD = {
    "collections.abc": ("Iterator", "Sequence"),
    "dataclasses": ("dataclass", "field"),
    "pathlib": ("Path",),
    "typing": ("Any",),
}
_NAMES = {
    "accelerate": ("PartialState",),
    "datasets": ("load_dataset",),
    "modelscope_hub": ("HubApi",),
    "peft": (
        "IA3Config",
        "LoHaConfig",
        "LoKrConfig",
        "LoraConfig",
        "OFTConfig",
        "VeraConfig",
        "get_peft_model",
    ),
    "peft.optimizers": ("create_loraplus_optimizer",),
    "torch.utils.data": ("Sampler",),
    "transformers": (
        "AutoModelForCausalLM",
        "AutoModelForMaskedLM",
        "AutoModelForSequenceClassification",
        "AutoTokenizer",
        "BitsAndBytesConfig",
        "DataCollatorForLanguageModeling",
        "EarlyStoppingCallback",
        "TrainerCallback",
        "set_seed",
    ),
    "transformers.trainer_pt_utils": ("get_length_grouped_indices",),
}


def _imports(text: str, of_trainer: dict[str, tuple[str, ...]]) -> str:
    """Lines that import what a script names, as ruff sorts them."""

    def used(known: dict[str, tuple[str, ...]]) -> Iterator[str]:
        for module, names in sorted(known.items()):
            found = sorted(name for name in names if re.search(rf"\b{name}\b", text))
            if found:
                line = f"from {module} import {', '.join(found)}"
                split = f"from {module} import (\n{_lines(f'{name},' for name in found)}\n)"
                yield line if len(line) <= _WIDTH else split

    of_library = {
        module: (*_NAMES.get(module, ()), *of_trainer.get(module, ()))
        for module in {*_NAMES, *of_trainer}
    }
    lines = ["import argparse", *used(_STANDARD), "", "import torch", *used(of_library)]
    return "\n".join(lines)


def _adapter(source: _Source) -> str:
    """Code that makes the adapter's config; a head that was new to the base is kept with it."""
    from core.worker.training.adapters import peft_config

    makes = source.config.training_method.makes
    task = {"writer": "CAUSAL_LM", "filler": "FEATURE_EXTRACTION"}.get(makes, "SEQ_CLS")
    adapter: Any = peft_config(source.config, task)
    if makes != "writer" and source.trained.adapter is not None:
        saved = adapter_settings(source.trained.adapter)["modules_to_save"] or []
        adapter.modules_to_save = [name for name in saved if name not in HEADS] or None
    return _call(adapter)


def _loading(source: _Source) -> str:
    """Code that loads the model."""
    config, labels = source.config, source.labels
    precision = config.training.precision if config.adapter.is_adapter else "fp32"
    given = ["given.model,", f"dtype={DTYPES[precision]},"]
    if config.model.model_revision != "main":
        given.append(f"revision={config.model.model_revision!r},")
    if config.model.attn_implementation != "auto":
        given.append(f"attn_implementation={config.model.attn_implementation!r},")
    adapter = [f"adapter = {_adapter(source)}"] if config.adapter.is_adapter else []
    bits = quantization_config(config, precision)
    if bits is not None:
        given.append(f"device_map={ {'': config.training.device}!r},")
        given.append(f"quantization_config=BitsAndBytesConfig({_bits(bits)}),")
    makes = config.training_method.makes
    if makes == "writer":
        opened = ["model = AutoModelForCausalLM.from_pretrained(", _lines(given), ")"]
        return "\n".join([*opened, *adapter])
    kind = "MaskedLM"
    if labels is not None:
        kind = "SequenceClassification"
        given += [f"{name}={value!r}," for name, value in labels.model_config().items()]
        given.append("ignore_mismatched_sizes=True,")
    seed = f"set_seed({config.training.seed})"
    lines = [
        f"{seed}  # a head that the base lacks is drawn",
        f"model = AutoModelFor{kind}.from_pretrained(",
        _lines(given),
        ")",
    ]
    if labels is not None:
        lines.append("model.config.pad_token_id = tokenizer.pad_token_id")
    if config.adapter.is_adapter:
        lines += [*adapter, seed, "model = get_peft_model(model, adapter)"]
    if config.adapter.is_adapter and precision != "fp32":
        lines += [
            "for parameter in model.parameters():",
            "    if parameter.requires_grad:",
            "        parameter.data = parameter.data.float()  # small steps would be rounded away",
        ]
    return "\n".join(lines)


_FLOATS = """\
for parameter in trainer.model.parameters():
    if parameter.requires_grad:
        parameter.data = parameter.data.float()  # this kind of adapter was not made for less
"""
_TWO_RATES = """\
kind, options = trainer.get_optimizer_cls_and_kwargs(args, trainer.model)
trainer.optimizer = create_loraplus_optimizer(
    trainer.model,
    kind,
    loraplus_lr_ratio=$ratio,
    loraplus_weight_decay=args.weight_decay,
    loraplus_lr_embedding=args.learning_rate,
    **options,
)
"""


def _after(config: RunConfig) -> str:
    """Code between the trainer's making and its first step, as core.worker.training.adapters."""
    adapter, method = config.adapter, config.training_method
    if adapter.is_adapter and adapter.method != "lora" and method.makes == "writer":
        small = adapter.quantization != "none" or config.training.precision != "fp32"
        return _FLOATS if small else ""
    if adapter.method == "lora" and adapter.loraplus_lr_ratio is not None:
        return Template(_TWO_RATES).substitute(ratio=repr(adapter.loraplus_lr_ratio))
    return ""


def _bits(bits: Any) -> str:
    if not bits.load_in_4bit:
        return "load_in_8bit=True"
    return (
        f"load_in_4bit=True, bnb_4bit_quant_type={bits.bnb_4bit_quant_type!r}, "
        f"bnb_4bit_use_double_quant={bits.bnb_4bit_use_double_quant}, "
        f"bnb_4bit_compute_dtype={bits.bnb_4bit_compute_dtype}"
    )


def _settings(source: _Source) -> dict[str, Any]:
    """What the library's arguments are given beside their defaults, as core.worker.training gives
    it."""
    from core.worker.training.recipe import arguments

    config, method = source.config, source.config.training_method
    measures = config.evaluation.eval_strategy != "no"
    package, _dot, _name = method.trainer.rpartition(".")
    defaults = _defaults(named(f"{package}:{method.arguments.name}"))
    recipe: Any = named(method.recipe)
    given = recipe.own_arguments(config) | arguments(config, source.trained.run)
    if "dataset_kwargs" in defaults:
        given["dataset_kwargs"] = {"skip_prepare_dataset": True}
    if "max_length" in defaults:
        given.setdefault("max_length", None)
    if method.fills_blocks:
        given["padding_free"] = config.text.documents == "apart"
    elif config.training.packing:  # the rows are packed already
        given["padding_free"] = config.training.packing_strategy == "bfd"
    if method.compares:
        given["eval_on_start"] = measures
    del given["output_dir"], given["disable_tqdm"]
    best = given.pop("metric_for_best_model")
    if given["load_best_model_at_end"]:
        # The exponential of the loss, which no library logs, falls with it.
        given["metric_for_best_model"] = best.replace("perplexity", "loss")
    else:
        del given["greater_is_better"]
    return {
        name: value.value if isinstance(value, Enum) else value
        for name, value in given.items()
        if value != defaults.get(name)
    }


def _call(config: Any) -> str:
    """Code that makes an adapter's config again, such as LoraConfig(r=16)."""
    defaults = _defaults(type(config))
    plain = type(config)()
    values = []
    for name in defaults:
        value = getattr(config, name, None)
        if value != getattr(plain, name, None):
            value = value.value if isinstance(value, Enum) else value
            values.append(f"{name}={sorted(value) if isinstance(value, set) else value!r},")
    return f"{type(config).__name__}(\n{_lines(values)}\n)"


def _defaults(kind: Any) -> dict[str, Any]:
    """What a dataclass takes, with its defaults."""
    return {
        one.name: one.default_factory()
        if one.default_factory is not dataclasses.MISSING
        else one.default
        for one in dataclasses.fields(kind)
        if one.init
    }


def _lines(lines: Iterable[str]) -> str:
    return "\n".join(f"    {line}" for line in lines)


def _version(package: str) -> str:
    """Without the mark of a build, such as +cpu, which no index has."""
    return importlib.metadata.version(package).partition("+")[0]
