"""Classification, from labelled text to the saved adapter or model with its labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from peft import get_peft_model
from transformers import DataCollatorWithPadding, TrainingArguments, set_seed

from core.config import RunConfig
from core.config.classification import quick_settings
from core.models.classifier import load_classifier, longest_input
from core.models.labels import Labels
from core.training import resolve
from core.training.adapters import peft_config
from core.training.callbacks import SampleAnswers
from core.training.label_loss import LabelLoss, class_weights
from core.training.label_rows import LabelRows, learn_labels, load_label_rows
from core.training.label_trainer import LabelSampler, LabelTrainer, ReportLabels, watched_texts
from core.training.resolve import Choice, with_choices
from core.training.row_order import grouped_lengths
from core.training.setup import Beginning, arguments, begin, save, watch
from core.workspace import RunFolder, Workspace


def train(run: RunFolder, workspace: Workspace, config: RunConfig, resume_from: Path | None) -> str:
    """Trains a run, from its start or from a checkpoint. Returns "finished" or "stopped".

    What was on auto, and what a quick trial changes, is written into the run's config.yaml.
    Raises Stopped when it is stopped before its first step, a TunesmithError, or whatever the
    libraries raise.
    """
    start = begin(run, workspace, config, resume_from)
    config, reporter, tokenizer = _quick(start), start.reporter, start.tokenizer
    labels = learn_labels(start.info, config)
    _tell_labels(start, labels)

    reporter.doing("Loading the model")
    model, new = load_classifier(config, start.base, labels, tokenizer, device=start.device)
    if config.model.attn_implementation != "auto":
        model.set_attn_implementation(config.model.attn_implementation)
    most = longest_input(model, tokenizer, config.training.max_length)
    config = start.config = _length(start, most)
    reporter.check_stop()

    reporter.doing("Reading the rows")
    longest, limit = config.training.max_length, config.data.max_train_samples
    rows = load_label_rows(
        start.info, "train", tokenizer, labels, longest, limit=limit, tell=reporter.tell
    )
    held_out = None
    if config.evaluation.eval_strategy != "no":
        held_out = load_label_rows(
            start.info, "eval", tokenizer, labels, longest, tell=reporter.tell
        )
    _tell_rows(start, rows, held_out)
    need = resolve.estimate_need(model, config)
    free = resolve.free_bytes(start.device)
    config = start.config = reporter.chosen(
        config,
        resolve.choose_batch(config, need, rows.rows.lengths, device=start.device, free=free),
    )
    config.save(run.config)

    reporter.doing("Preparing the trainer")
    trainer = LabelTrainer(
        labels=labels,
        loss=_loss(config, labels, rows),
        lengths=grouped_lengths(config, rows.rows.lengths),
        model=with_new_head(model, new, config),
        args=TrainingArguments(**arguments(config, run), label_names=["labels"]),
        train_dataset=rows.rows.dataset,
        eval_dataset=held_out.rows.dataset if held_out else None,
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer),
    )
    reporter.trainable(trainer.model)
    stop = watch(trainer, start, ReportLabels(trainer, reporter.events), _samples(trainer, start))
    trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
    if stop.stopped:
        return "stopped"
    reporter.doing("Saving")
    save(trainer, start, beside=labels.save)
    return "finished"


def _quick(start: Beginning) -> RunConfig:
    """The run's config, with what a quick trial changes."""
    choices = [
        Choice(path, value, "a quick trial")
        for path, value in quick_settings(start.config).items()
    ]
    for choice in choices:
        start.reporter.note(choice.field, choice.value, choice.reason)
    start.config = with_choices(start.config, choices)
    return start.config


def _length(start: Beginning, longest: int) -> RunConfig:
    """The config with a max_length that the model reads."""
    if longest == start.config.training.max_length:
        return start.config
    choice = Choice("training.max_length", longest, "the model reads no more")
    start.reporter.note(choice.field, choice.value, choice.reason)
    return with_choices(start.config, [choice])


def with_new_head(model: Any, new: list[str], config: RunConfig) -> Any:
    """The model with its adapter, which also holds every module that the base has no weights for:
    those were drawn for this run, and nobody else could draw them again."""
    adapter = peft_config(config, "SEQ_CLS")
    if adapter is None:
        return model
    adapter.modules_to_save = [*config.adapter.modules_to_save, *new]
    set_seed(config.training.seed)
    model = get_peft_model(model, adapter)
    for parameter in model.parameters():
        # A step of a head in 16 bits would be rounded away.
        if parameter.requires_grad and parameter.is_floating_point():
            parameter.data = parameter.data.float()
    return model


def _loss(config: RunConfig, labels: Labels, rows: LabelRows) -> LabelLoss:
    section = config.classification
    weights = class_weights(section, labels, rows.counts, len(rows.rows.lengths))
    return LabelLoss(labels, weights, section.focal_gamma if section.loss == "focal" else 0.0)


def _tell_labels(start: Beginning, labels: Labels) -> None:
    names = ", ".join(labels.names[:10]) + (", ..." if len(labels.names) > 10 else "")
    kind = "any number of them a row" if labels.multi else "one of them a row"
    message = f"{len(labels.names)} labels, {kind}: {names}."
    start.reporter.events.write("log", level="info", message=message)


def _tell_rows(start: Beginning, rows: LabelRows, held_out: LabelRows | None) -> None:
    start.reporter.rows(rows.rows, held_out.rows if held_out else None)
    for part in filter(None, (rows, held_out)):
        for message in part.warnings(start.config.training.max_length):
            start.reporter.events.write("log", level="warning", message=message)


def _samples(trainer: LabelTrainer, start: Beginning) -> SampleAnswers:
    """The callback that writes the labels of some texts while the model learns."""
    sampler = LabelSampler(
        watched_texts(start.config, start.info),
        start.tokenizer,
        trainer.labels,
        start.reporter.events,
        start.config.training.max_length,
    )
    return SampleAnswers(sampler, trainer, starts_as_base=False)
