"""Supervised fine-tuning, from the prepared data set to the saved adapter or model."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from peft import LoraConfig
from transformers import EarlyStoppingCallback
from trl import SFTConfig

from core.config import RunConfig
from core.data.record import DatasetInfo
from core.data.registry import load_dataset_info
from core.errors import DataError
from core.models.inference import open_tokenizer
from core.models.load import load_base
from core.models.starter import STARTER_MODELS, ensure_model
from core.training import resolve
from core.training.attention import other_attention, use_row_attention
from core.training.callbacks import ReportEvents, SampleAnswers, StopOnRequest
from core.training.reporter import Reporter
from core.training.rows import Rows, load_rows, packed
from core.training.samples import Sampler, sample_prompts
from core.training.trainer import RowTrainer
from core.workspace import RunFolder, Workspace

# Each starts exactly at the base, so that without its adapter the model is the base.
_STARTS_AT_BASE = ("default", "gaussian")


def train(run: RunFolder, workspace: Workspace, config: RunConfig, resume_from: Path | None) -> str:
    """Trains a run, from its start or from a checkpoint. Returns "finished" or "stopped".

    What was on auto is written into the run's config.yaml. Raises Stopped when it is stopped
    before its first step, a TunesmithError, or whatever the libraries raise: `advise` knows the
    common ones.
    """
    reporter = Reporter(run)
    config = reporter.chosen(config, [resolve.choose_device(config)])
    device = config.training.device
    config = reporter.chosen(config, resolve.choose_precision(config, device))

    reporter.doing("Reading the rows")
    base = ensure_model(config.model.model_name_or_path, workspace, reporter.tell)
    tokenizer = _tokenizer(base, config)
    info = load_dataset_info(workspace, config.data.dataset)
    config = _same_data(config, info, resume_from)
    limit = config.data.max_train_samples
    rows = load_rows(info, "train", tokenizer, config, limit=limit, tell=reporter.tell)
    held_out = None
    if config.evaluation.eval_strategy != "no":
        held_out = load_rows(info, "eval", tokenizer, config, tell=reporter.tell)
    reporter.rows(rows, held_out)

    reporter.doing("Loading the model")
    model = load_base(config, base, device=device, precision=config.training.precision)
    no_padding = _attention(model, config, reporter)
    need = resolve.estimate_need(model, config)
    free = resolve.free_bytes(device)
    lengths = _lengths(rows, config)
    config = reporter.chosen(
        config, resolve.choose_batch(config, need, lengths, device=device, free=free)
    )
    config.save(run.config)
    reporter.check_stop()

    reporter.doing("Preparing the trainer")
    trainer = RowTrainer(
        model=model,
        args=_arguments(config, run, no_padding),
        train_dataset=_packed(rows, config, no_padding),
        eval_dataset=held_out.dataset if held_out else None,
        processing_class=tokenizer,
        peft_config=_lora(config),
    )
    reporter.trainable(trainer.model)
    stop = _watch(trainer, run, config, reporter, info)
    trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
    if stop.stopped:
        return "stopped"
    reporter.doing("Saving")
    _save(trainer, run, config)
    return "finished"


def _tokenizer(base: str | Path, config: RunConfig) -> Any:
    """The base's tokenizer; one without a padding token pads with its end token."""
    tokenizer = open_tokenizer(base, config.model.model_revision)
    tokenizer.padding_side = "right"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    return tokenizer


def _same_data(config: RunConfig, info: DatasetInfo, resume_from: Path | None) -> RunConfig:
    """The config with the data's fingerprint. A run goes on only with the rows it began with."""
    before = config.data.dataset_fingerprint
    if resume_from is not None and before and before != info.fingerprint:
        raise DataError(
            f"The data set {info.name} has changed since the run began.",
            "Start a new run on it, or bring the old rows back.",
        )
    changed = config.model_copy(deep=True)
    changed.data.dataset_fingerprint = info.fingerprint
    return changed


def _attention(model: Any, config: RunConfig, reporter: Reporter) -> bool:
    """Sets how attention is computed; whether rows may stand behind each other unpadded."""
    wanted = config.model.attn_implementation
    if wanted != "auto":
        model.set_attn_implementation(wanted)
        return wanted == "flash_attention_2"
    if use_row_attention(model):
        reporter.note("model.attn_implementation", "auto", "no padding is computed")
        return True
    kind = model.config._attn_implementation
    reporter.note("model.attn_implementation", kind, "this model needs its rows padded")
    return False


def _lengths(rows: Rows, config: RunConfig) -> list[int]:
    """How long the trainer's rows are; packed ones are nearly full."""
    full = config.training.max_length
    return [full] * -(-rows.tokens // full) if config.training.packing else rows.lengths


def _packed(rows: Rows, config: RunConfig, no_padding: bool) -> Any:
    if not config.training.packing:
        return rows.dataset
    if not no_padding:
        raise DataError(
            "training.packing needs an attention that keeps packed rows apart, which this model "
            f"does not have with model.attn_implementation {config.model.attn_implementation}.",
            "Turn packing off, or set attn_implementation to auto.",
        )
    return packed(rows, config.training.max_length)


def _lora(config: RunConfig) -> LoraConfig | None:
    adapter = config.adapter
    if adapter.method == "none":
        return None
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=adapter.r,
        lora_alpha=adapter.lora_alpha,
        lora_dropout=adapter.lora_dropout,
        target_modules=adapter.target_modules,
        bias=adapter.bias,
        use_dora=adapter.use_dora,
        use_rslora=adapter.use_rslora,
        init_lora_weights=True
        if adapter.init_lora_weights == "default"
        else adapter.init_lora_weights,
        modules_to_save=adapter.modules_to_save or None,
    )


def _arguments(config: RunConfig, run: RunFolder, no_padding: bool) -> SFTConfig:
    training, evaluation, tracking = config.training, config.evaluation, config.tracking
    same_names = (
        "learning_rate num_train_epochs max_steps per_device_train_batch_size "
        "gradient_accumulation_steps lr_scheduler_type warmup_steps optim weight_decay adam_beta1 "
        "adam_beta2 adam_epsilon max_grad_norm gradient_checkpointing seed data_seed "
        "neftune_noise_alpha"
    ).split()
    measured = evaluation.eval_strategy != "no"
    early = evaluation.early_stopping_patience is not None
    return SFTConfig(
        output_dir=str(run.checkpoints),
        **{name: getattr(training, name) for name in same_names},
        lr_scheduler_kwargs=training.lr_scheduler_kwargs or None,
        bf16=training.precision == "bf16",
        fp16=training.precision == "fp16",
        use_cpu=training.device == "cpu",
        # The rows are tokenized, cut and packed already.
        max_length=None,
        padding_free=no_padding,
        dataset_kwargs={"skip_prepare_dataset": True},
        eval_strategy=evaluation.eval_strategy,
        eval_steps=evaluation.eval_steps,
        per_device_eval_batch_size=evaluation.per_device_eval_batch_size,
        load_best_model_at_end=measured and (evaluation.load_best_model_at_end or early),
        metric_for_best_model=evaluation.metric_for_best_model if measured else None,
        greater_is_better=evaluation.greater_is_better if measured else None,
        logging_steps=tracking.logging_steps,
        logging_first_step=True,
        # A loss that is not a number has to be seen, and stops the run.
        logging_nan_inf_filter=False,
        save_strategy=tracking.save_strategy,
        save_steps=tracking.save_steps,
        save_total_limit=tracking.save_total_limit,
        restore_callback_states_from_checkpoint=early,
        report_to=[],
        disable_tqdm=True,
        **training.extra,
    )


def _watch(
    trainer: RowTrainer, run: RunFolder, config: RunConfig, reporter: Reporter, info: DatasetInfo
) -> StopOnRequest:
    """Adds the callbacks; returns the one that knows whether the run was stopped."""
    evaluation, adapter = config.evaluation, config.adapter
    patience = evaluation.early_stopping_patience
    sampler = Sampler(
        sample_prompts(config, info),
        trainer.processing_class,
        reporter.events,
        run.stop_request,
        max_new_tokens=evaluation.sample_max_new_tokens,
        is_text=info.form == "text" and not evaluation.sample_prompts,
    )
    starts_as_base = (
        adapter.method == "lora"
        and adapter.init_lora_weights in _STARTS_AT_BASE
        and adapter.bias == "none"
    )
    stop = StopOnRequest(
        run.stop_request,
        needs_every_evaluation=evaluation.load_best_model_at_end or patience is not None,
    )
    trainer.add_callback(ReportEvents(reporter.events, trainer))
    trainer.add_callback(SampleAnswers(sampler, trainer, starts_as_base=starts_as_base))
    if patience is not None:
        threshold = evaluation.early_stopping_threshold
        trainer.add_callback(EarlyStoppingCallback(patience, threshold))
    trainer.add_callback(stop)
    return stop


def _save(trainer: RowTrainer, run: RunFolder, config: RunConfig) -> None:
    """The adapter (or the whole model) with its tokenizer, written beside its place."""
    is_lora = config.adapter.method == "lora"
    target = run.adapter if is_lora else run.model
    making = run.root / f".{target.name}.making"
    shutil.rmtree(making, ignore_errors=True)
    model = trainer.accelerator.unwrap_model(trainer.model)
    causal = model.get_base_model() if is_lora else model
    with other_attention(causal):
        if is_lora:
            _name_base(model, config)
            model.save_pretrained(str(making), save_embedding_layers=_saves_embeddings(config))
        else:
            model.save_pretrained(str(making))
    trainer.processing_class.save_pretrained(str(making))
    shutil.rmtree(target, ignore_errors=True)
    making.rename(target)


def _name_base(model: Any, config: RunConfig) -> None:
    """Names the base as other machines know it, not by its folder on this one."""
    name = config.model.model_name_or_path
    starter = STARTER_MODELS.get(name)
    model.peft_config["default"].base_model_name_or_path = starter.hub_id if starter else name


def _saves_embeddings(config: RunConfig) -> bool:
    """Only when they have an adapter; PEFT would ask the Hub whether their number changed."""
    targets = config.adapter.target_modules
    return isinstance(targets, list) and any("embed" in name for name in targets)
