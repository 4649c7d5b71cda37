"""How every method trains: `run` goes from a config to the saved adapter or model. What a family of
methods does its own way stands in its Recipe."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

from transformers import EarlyStoppingCallback, TrainerCallback

from core.config import RunConfig
from core.config.run import devices_on_a_node
from core.data.record import Part
from core.jobs.process import named
from core.language import _
from core.models.fingerprint import keep_base
from core.models.origin import maker_of, own_adapter, own_base, read_origin
from core.models.starter import STARTER_MODELS
from core.models.trained import FINAL
from core.rules.devices import SPLIT
from core.worker.models.classifier import longest_input
from core.worker.models.loading import attention_asked_for, load_base, with_adapter
from core.worker.training import ranks, resolve
from core.worker.training.adapters import save_adapter, start_adapter, take_adapter
from core.worker.training.beginning import Beginning, begin
from core.worker.training.callbacks import ReportEvents, StopOnRequest
from core.worker.training.optimizers import optimizer_arguments
from core.worker.training.pushes import Pushes, PushSaves
from core.worker.training.rows import Rows
from core.worker.training.samples import SampleAnswers, Sampler, sample_prompts
from core.worker.training.trackers import Trackers
from core.worker.training.vocabulary_extension import KeepNewTokens, add_new_tokens
from core.workspace import RunFolder, Workspace


def run(folder: RunFolder, workspace: Workspace, config: RunConfig, resume: Path | None) -> str:
    """Trains a run, from its start or from the checkpoint `resume`: "finished" or "stopped".

    What was on auto is written into the run's config.yaml. Raises Stopped when it is stopped
    before its first step, a TunesmithError, or whatever the libraries raise: `advise` knows the
    common ones.
    """
    recipe, trainer = prepare(folder, workspace, config, resume)
    reporter = recipe.start.reporter
    if ranks.is_first():
        keep_base(folder, recipe.start.base)
    reporter.trainable(trainer.model)
    stop = _watch(trainer, recipe.start, recipe.callbacks(trainer))
    pushes = None
    if recipe.config.tracking.push_to_hub and trainer.is_world_process_zero():
        pushes = Pushes(recipe.start)
        trainer.add_callback(PushSaves(pushes))
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    if not stop.stopped:
        reporter.doing(_("Saving"))
        recipe.save(trainer)
    if pushes is not None:
        pushes.end(None if stop.stopped else FINAL)
    return "stopped" if stop.stopped else "finished"


def prepare(
    folder: RunFolder, workspace: Workspace, config: RunConfig, resume: Path | None
) -> tuple[Recipe, Any]:
    """A run with its trainer, ready to begin. Raises as `run` does."""
    with ranks.first_goes_first():
        start = begin(folder, workspace, config, resume)
    add_new_tokens(start)
    reporter = start.reporter
    # Only the family that is asked for is imported: some take seconds.
    recipe: Recipe = named(config.training_method.recipe)(start)
    if recipe.opens_model_first:
        recipe.open_model()
        reporter.check_stop()
        reporter.doing(_("Reading the rows"))
        recipe.read_rows()
    else:
        recipe.read_rows()
        recipe.open_model()
    asked = attention_asked_for(start.base, recipe.config.model.model_revision)
    if asked and recipe.config.model.attn_implementation == "auto":
        message = _(
            "The model's config.json asks for the attention {name}, which is not heeded: "
            "model.attn_implementation is auto.",
            name=asked,
        )
        reporter.events.write("log", level="warning", message=message)
    recipe.choose_batch()
    if ranks.is_first():
        recipe.config.save(folder.config)
    reporter.check_stop()
    reporter.doing(_("Preparing the trainer"))
    return recipe, recipe.make_trainer()


class Recipe:
    """What `prepare` and `run` call, in the order in which they do."""

    opens_model_first: ClassVar = False
    """Where what the model is decides how its rows are read."""
    rows: Rows
    held_out: Rows | None = None
    model: Any

    def __init__(self, start: Beginning) -> None:
        self.start = start

    @property
    def config(self) -> RunConfig:
        return self.start.config

    @property
    def evaluates(self) -> bool:
        return self.config.evaluation.eval_strategy != "no"

    def read_rows(self) -> None:
        self.rows = self.load("train", self.config.data.max_train_samples)
        if self.evaluates:
            self.held_out = self.load("eval", None)
        self.start.reporter.rows(self.rows, self.held_out)

    def load(self, part: Part, limit: int | None) -> Rows:
        """The first `limit` rows of a part. Raises DataError when there are none to learn from."""
        raise NotImplementedError

    @staticmethod
    def own_arguments(config: RunConfig) -> dict[str, Any]:
        """What the library's arguments of this method are given beside those of all methods."""
        return {}

    def open_model(self) -> None:
        self.start.reporter.doing(_("Loading the model"))
        self.model = self.load_base()

    def load_base(self) -> Any:
        precision = self.config.training.precision
        return load_base(self.config, self.start.base, device=self.start.place, precision=precision)

    def frozen_copy(self) -> Any:
        """A second copy of the model as the run begins, in evaluation mode and frozen."""
        model, begun = self.load_base(), own_adapter(self.start.run)
        if begun is not None:
            model = with_adapter(model, begun).get_base_model()  # its adapter stays in the layers
        return model.requires_grad_(False).eval()

    def lengths(self) -> list[int]:
        """How many tokens each row takes in a batch."""
        return self.rows.lengths

    def choose_batch(self) -> None:
        start = self.start
        choices = resolve.choose_batch(
            self.config,
            resolve.estimate_need(self.model, self.config),
            self.lengths(),
            device=start.device,
            free=resolve.free_bytes(start.device, devices_on_a_node(self.config)),
        )
        fitted = ranks.agreed([self.fitted(one) for one in choices])
        start.config = start.reporter.chosen(self.config, fitted)

    def fitted(self, choice: resolve.Choice) -> resolve.Choice:
        """A choice of `choose_batch` as the method can take it."""
        return choice

    def make_trainer(self) -> Any:
        raise NotImplementedError

    def callbacks(self, trainer: Any) -> list[TrainerCallback]:
        """Those beside the reports and the stop."""
        return [sample_answers(trainer, self.start)]

    def save(self, trainer: Any) -> None:
        save(trainer, self.start)


class HeadedRecipe(Recipe):
    """For a model with another head than that for words: it is opened before its rows are read,
    for they are cut at what it reads."""

    opens_model_first = True
    drawn: list[str]
    """The modules that the base has no weights for, so that they were drawn for this run."""

    def open_model(self) -> None:
        start = self.start
        start.reporter.doing(_("Loading the model"))
        self.model, self.drawn = self.open_headed()
        if self.config.model.attn_implementation != "auto":
            self.model.set_attn_implementation(self.config.model.attn_implementation)
        wanted = self.config.training.max_length
        longest = longest_input(self.model, start.tokenizer, wanted)
        if longest != wanted:
            why = _("the model reads no more")
            start.decide([resolve.Choice("training.max_length", longest, why)])

    def open_headed(self) -> tuple[Any, list[str]]:
        """(the model, the names of `drawn`)."""
        raise NotImplementedError


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
        **ranks.place(config),
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


def data_seed(config: RunConfig) -> int:
    training = config.training
    return training.seed if training.data_seed is None else training.data_seed


def _watch(trainer: Any, start: Beginning, callbacks: Sequence[TrainerCallback]) -> StopOnRequest:
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
    for callback in [*adapter_callbacks, *callbacks]:
        # One process can ask a model that it has all of, while the others wait.
        asks = isinstance(callback, SampleAnswers)
        if not asks or (ranks.is_first() and start.config.training.strategy not in SPLIT):
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
    evaluation = start.config.evaluation
    sampler = Sampler(
        sample_prompts(start.config, start.info),
        trainer.processing_class,
        start.reporter.events,
        start.run.stop_request,
        max_new_tokens=evaluation.sample_max_new_tokens,
        is_text=is_text,
    )
    starts_as_base = start.config.adapter.starts_at_base and own_adapter(start.run) is None
    return SampleAnswers(sampler, trainer, starts_as_base=starts_as_base)


class Kept(Protocol):
    """What is written beside the weights."""

    def save(self, folder: Path) -> None: ...


def save(trainer: Any, start: Beginning, *beside: Kept) -> None:
    """The adapter (or the whole model) with its tokenizer and what belongs `beside` it, written
    next to its place and renamed."""
    folder, config = start.run, start.config
    is_adapter = config.adapter.is_adapter
    # Each process has a part of a split model, and all of them put it together.
    is_split = config.training.strategy in SPLIT
    parts = trainer.accelerator.get_state_dict(trainer.model_wrapped) if is_split else None
    if not ranks.is_first():
        return
    target = folder.adapter if is_adapter else folder.model
    making = folder.root / f".{target.name}.making"
    shutil.rmtree(making, ignore_errors=True)
    model = trainer.accelerator.unwrap_model(trainer.model)
    try:
        if is_adapter:
            _name_base(model, start)
            save_adapter(model, making, start, parts, embeddings=_saves_embeddings(config))
        else:
            model.save_pretrained(str(making), state_dict=parts)
        trainer.processing_class.save_pretrained(str(making))
        for kept in filter(None, (start.new_tokens, *beside)):
            kept.save(making)
    except BaseException:
        shutil.rmtree(making, ignore_errors=True)  # on a full disk, room to say so
        raise
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
