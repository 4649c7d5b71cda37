"""How a run begins: what was on auto, the base (perhaps what another run left), the tokenizer and
the data set."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from core.config import RunConfig
from core.data.record import DatasetInfo
from core.data.registry import load_dataset_info
from core.errors import DataError
from core.language import _
from core.methods import METHODS
from core.models.describe import describe_model
from core.models.labels import labels_of
from core.models.location import ensure_model
from core.models.origin import own_adapter, own_base, read_origin, read_stack
from core.models.trained import NewTokens
from core.rules.devices import SPLIT
from core.runs.origin_files import lay_origin
from core.tokens.chat_templates import keep_with_run, use_runs_own
from core.worker.models.classifier import open_with_head
from core.worker.models.loading import (
    free_memory,
    open_model,
    open_stacked,
    open_tokenizer,
    with_adapter,
)
from core.worker.models.masked import open_masked
from core.worker.training import resolve
from core.worker.training.reporter import Reporter
from core.workspace import RunFolder, Workspace

_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass
class Beginning:
    """A run whose device, precision, base model, tokenizer and data set are known."""

    run: RunFolder
    workspace: Workspace
    config: RunConfig
    resume_from: Path | None
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

    @property
    def place(self) -> str:
        """Where the model is loaded to: one that is split is dealt out from the CPU."""
        return "cpu" if self.config.training.strategy in SPLIT else self.device

    def decide(self, choices: Sequence[resolve.Choice]) -> None:
        """Changes what was set, and says why."""
        for choice in choices:
            self.reporter.note(choice.field, choice.value, choice.reason)
        self.config = resolve.with_choices(self.config, choices)


def begin(
    run: RunFolder, workspace: Workspace, config: RunConfig, resume_from: Path | None
) -> Beginning:
    """Chooses what was on auto, fetches the base and opens its tokenizer and the data set.

    Raises Stopped when the run is stopped meanwhile, or a TunesmithError.
    """
    reporter = Reporter(run)
    config = reporter.chosen(config, [resolve.choose_device(config)])
    config = reporter.chosen(config, resolve.choose_precision(config, config.training.device))
    reporter.doing(_("Reading the rows"))
    base = _starting_base(run, workspace, config, reporter)
    keep_with_run(run.root, config.data.chat_template, workspace)
    tokenizer = use_runs_own(_tokenizer(_with_tokenizer(run, base), config), run.root)
    info = load_dataset_info(workspace, config.data.dataset, config.data.dataset_fingerprint)
    config = _same_data(config, info, resume_from)
    return Beginning(run, workspace, config, resume_from, reporter, base, tokenizer, info)


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
            _("The data set {name} has changed since the run began.", name=info.name),
            _("Start a new run on it, or bring the old rows back."),
        )
    changed = config.model_copy(deep=True)
    changed.data.dataset_fingerprint = info.fingerprint
    return changed


def _starting_base(
    run: RunFolder, workspace: Workspace, config: RunConfig, reporter: Reporter
) -> str | Path:
    """What the run's base is loaded from: fetched, or made of what another run left.

    Raises Stopped or a TunesmithError.
    """
    lay_origin(run, config, workspace)
    origin, folder = read_origin(run), own_base(run)
    if origin is not None:
        reason = _(
            "{how}: begins with {name} at {checkpoint}",
            how=origin.how,
            name=origin.name,
            checkpoint=origin.checkpoint,
        )
        reporter.note("model.from_run", origin.run, reason)
    if folder is None:
        return ensure_model(config.model.model_name_or_path, workspace, reporter.tell)
    stack = read_stack(folder)
    if stack is not None and stack.whole:
        reporter.doing(_("Merging the model to start from"))
        _write_whole(folder, stack.method)
    return folder


def _write_whole(folder: Path, method: str) -> None:
    """Writes a stack out as one model in its place, rounded only once, to the base's own type."""

    def open_one(path: str | Path) -> Any:
        labels = labels_of(method, folder)
        if labels is not None:
            return open_with_head(path, labels, device="cpu", dtype=torch.float32)
        if METHODS[method].makes == "filler":
            return open_masked(path, device="cpu", dtype=torch.float32)
        return open_model(path, device="cpu", dtype=torch.float32)

    dtype = _DTYPES.get(describe_model(folder).dtype, torch.float32)
    model = open_stacked(folder, open_one, with_adapter).to(dtype)
    making = folder.with_name(".base.making")
    shutil.rmtree(making, ignore_errors=True)
    model.save_pretrained(str(making))
    del model
    free_memory()
    for path in folder.glob("*"):  # the tokenizer
        if path.is_file() and not (making / path.name).exists() and path.name != "stack.json":
            shutil.copyfile(path, making / path.name)
    old = folder.with_name(".base.old")
    folder.rename(old)
    making.rename(folder)
    shutil.rmtree(old)
