"""What every method does alike: how a run begins, its arguments, who watches, what is saved."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import EarlyStoppingCallback

from core.config import RunConfig
from core.data.record import DatasetInfo
from core.data.registry import load_dataset_info
from core.errors import DataError
from core.models.inference import open_tokenizer
from core.models.origin import maker_of, own_adapter, own_base, read_origin
from core.models.starter import STARTER_MODELS
from core.tokens.chat_templates import keep_with_run, use_runs_own
from core.tokens.new_tokens import NewTokens
from core.training import resolve
from core.training.adapter_start import save_adapter, start_adapter
from core.training.callbacks import ReportEvents, SampleAnswers, StopOnRequest
from core.training.optimizers import optimizer_arguments
from core.training.origin import starting_base, take_adapter
from core.training.reporter import Reporter
from core.training.samples import Sampler, sample_prompts
from core.training.trackers import Trackers
from core.training.vocabulary import KeepNewTokens, add_new_tokens
from core.workspace import RunFolder, Workspace


@dataclass
class Beginning:
    """A run whose device, precision, base model, tokenizer and data set are known."""

    run: RunFolder
    workspace: Workspace
    config: RunConfig
    reporter: Reporter
    base: str | Path
    tokenizer: Any
    info: DatasetInfo
    # What each token that the tokenizer got was before, and the rows that the model has for them.
    new_pieces: dict[str, list[int]] = field(default_factory=dict)
    new_tokens: NewTokens | None = None

    @property
    def device(self) -> str:
        return self.config.training.device


def begin(
    run: RunFolder, workspace: Workspace, config: RunConfig, resume_from: Path | None
) -> Beginning:
    """Chooses what was on auto, fetches the base and opens its tokenizer and the data set.

    Raises Stopped when the run is stopped meanwhile, or a TunesmithError.
    """
    reporter = Reporter(run)
    config = reporter.chosen(config, [resolve.choose_device(config)])
    config = reporter.chosen(config, resolve.choose_precision(config, config.training.device))
    reporter.doing("Reading the rows")
    base = starting_base(run, workspace, config, reporter)
    keep_with_run(run.root, config.data.chat_template, workspace)
    tokenizer = use_runs_own(_tokenizer(_with_tokenizer(run, base), config), run.root)
    info = load_dataset_info(workspace, config.data.dataset, config.data.dataset_fingerprint)
    config = _same_data(config, info, resume_from)
    pieces = add_new_tokens(tokenizer, config, reporter)
    return Beginning(run, workspace, config, reporter, base, tokenizer, info, pieces)


def _with_tokenizer(run: RunFolder, base: str | Path) -> str | Path:
    """Where the tokenizer is: with the adapter that the run trains further, else with the base."""
    begun = own_adapter(run)
    has_one = begun is not None and (begun / "tokenizer_config.json").is_file()
    return begun if begun is not None and has_one else base


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


def arguments(config: RunConfig, run: RunFolder) -> dict[str, Any]:
    """What transformers' TrainingArguments takes, whatever the method, by its own names."""
    training, evaluation, tracking = config.training, config.evaluation, config.tracking
    same_names = (
        "learning_rate num_train_epochs max_steps per_device_train_batch_size "
        "gradient_accumulation_steps warmup_steps weight_decay adam_beta1 adam_beta2 adam_epsilon "
        "gradient_checkpointing seed data_seed neftune_noise_alpha"
    ).split()
    measured = evaluation.eval_strategy != "no"
    early = evaluation.early_stopping_patience is not None
    return {
        "output_dir": str(run.checkpoints),
        **{name: getattr(training, name) for name in same_names},
        **optimizer_arguments(config),
        "bf16": training.precision == "bf16",
        "fp16": training.precision == "fp16",
        "use_cpu": training.device == "cpu",
        "eval_strategy": evaluation.eval_strategy,
        "eval_steps": evaluation.eval_steps,
        "per_device_eval_batch_size": evaluation.per_device_eval_batch_size,
        "load_best_model_at_end": measured and (evaluation.load_best_model_at_end or early),
        "metric_for_best_model": evaluation.metric_for_best_model if measured else None,
        "greater_is_better": evaluation.greater_is_better if measured else None,
        "logging_steps": tracking.logging_steps,
        "logging_first_step": True,
        # A loss that is not a number has to be seen, and stops the run.
        "logging_nan_inf_filter": False,
        "save_strategy": tracking.save_strategy,
        "save_steps": tracking.save_steps,
        "save_total_limit": tracking.save_total_limit,
        "restore_callback_states_from_checkpoint": early,
        "report_to": [],
        "disable_tqdm": True,
        **training.extra,
    }


def watch(trainer: Any, start: Beginning, *between: Any) -> StopOnRequest:
    """Gives the model what the run begins with, and the trainer its callbacks: those of the method
    between the reports and the stop. Returns the one that knows whether the run was stopped."""
    take_adapter(trainer.accelerator.unwrap_model(trainer.model), start.run)
    adapter_callbacks = start_adapter(trainer, start)
    if start.new_tokens is not None:
        adapter_callbacks = [*adapter_callbacks, KeepNewTokens(start.new_tokens)]
    evaluation = start.config.evaluation
    patience = evaluation.early_stopping_patience
    stop = StopOnRequest(
        start.run.stop_request,
        needs_every_evaluation=evaluation.load_best_model_at_end or patience is not None,
    )
    trainer.add_callback(ReportEvents(start.reporter.events, trainer, _trackers(trainer, start)))
    for callback in [*adapter_callbacks, *between]:
        trainer.add_callback(callback)
    if patience is not None:
        threshold = evaluation.early_stopping_threshold
        trainer.add_callback(EarlyStoppingCallback(patience, threshold))
    trainer.add_callback(stop)
    return stop


def _trackers(trainer: Any, start: Beginning) -> Trackers | None:
    """The trackers of the run, which end with its training; of several processes one tells them."""
    if not start.config.tracking.report_to or not trainer.is_world_process_zero():
        return None
    trackers = Trackers(start.run, start.config, start.reporter.events)
    return trainer.beside.enter_context(trackers)  # type: ignore[no-any-return]


def sample_answers(trainer: Any, start: Beginning, *, is_text: bool = False) -> SampleAnswers:
    """The callback that writes sample answers while the model learns; with `is_text` it writes on
    from a text instead of answering."""
    evaluation, adapter = start.config.evaluation, start.config.adapter
    sampler = Sampler(
        sample_prompts(start.config, start.info),
        trainer.processing_class,
        start.reporter.events,
        start.run.stop_request,
        max_new_tokens=evaluation.sample_max_new_tokens,
        is_text=is_text,
    )
    starts_as_base = (
        adapter.starts_at_base
        and own_adapter(start.run) is None
    )
    return SampleAnswers(sampler, trainer, starts_as_base=starts_as_base)


def save(
    trainer: Any, start: Beginning, *, beside: Callable[[Path], None] | None = None
) -> None:
    """The adapter (or the whole model) with its tokenizer, written beside its place.

    `beside` writes what else belongs into the folder.
    """
    run, config = start.run, start.config
    is_adapter = config.adapter.is_adapter
    target = run.adapter if is_adapter else run.model
    making = run.root / f".{target.name}.making"
    shutil.rmtree(making, ignore_errors=True)
    model = trainer.accelerator.unwrap_model(trainer.model)
    if is_adapter:
        _name_base(model, start)
        save_adapter(model, making, start, embeddings=_saves_embeddings(config))
    else:
        model.save_pretrained(str(making))
    trainer.processing_class.save_pretrained(str(making))
    if start.new_tokens is not None:
        start.new_tokens.save(making)
    if beside is not None:
        beside(making)
    shutil.rmtree(target, ignore_errors=True)
    making.rename(target)


def _name_base(model: Any, start: Beginning) -> None:
    """Names the base as other machines know it, not by its folder on this one; one that another
    run made is known by that run."""
    name, origin = start.config.model.model_name_or_path, read_origin(start.run)
    starter = STARTER_MODELS.get(name)
    known = starter.hub_id if starter else name
    if origin is not None and own_base(start.run) is not None:
        known = maker_of(origin).run
    model.peft_config["default"].base_model_name_or_path = known


def _saves_embeddings(config: RunConfig) -> bool:
    """Only when they have an adapter; PEFT would ask the Hub whether their number changed."""
    targets = config.adapter.target_modules
    return isinstance(targets, list) and any("embed" in name for name in targets)
