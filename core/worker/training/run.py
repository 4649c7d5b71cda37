"""One training job, in its worker process; or two steps of a run on its longest rows, to see how
long a step takes and how much memory it needs. They leave nothing behind."""

from __future__ import annotations

import gc
import heapq
import os
import resource
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging as transformers_logging

from core.config import RunConfig
from core.config.run import device_count, settle_devices
from core.data.record import Counts, DatasetInfo
from core.data.registry import load_dataset_info
from core.data.rowfile import RowWriter, iter_rows
from core.data.rowtext import texts
from core.errors import TrainingError
from core.jobs.events import read_events
from core.language import _
from core.models.hardware import local_devices, probe
from core.progress import Stopped, Tell
from core.rules import load_config, parse_config
from core.runs.curves import curves
from core.worker.training import recipe
from core.worker.training.launch import launch
from core.worker.training.resume import in_attempts
from core.workspace import RunFolder, Workspace


def run_training(folder: Path, workspace_root: Path, resume_from: Path | None) -> str:
    """Trains the run in `folder` as its config.yaml says, here or on a cluster: "finished" or
    "stopped".

    `resume_from` is a checkpoint; a relative path counts from `folder`. Events go to the run's
    events.jsonl, checkpoints to checkpoints/, the result to adapter/ or model/. Raises.
    """
    run = RunFolder(Path(folder))
    config = load_config(run.config)
    if not config.training.ray_address:
        return train_here(folder, workspace_root, resume_from)
    from core.worker.training.cluster.follow import follow  # Ray is not everywhere

    return follow(run, Workspace.open(workspace_root), config, resume_from)


def train_here(folder: Path, workspace_root: Path, resume_from: Path | None) -> str:
    """As `run_training`, in this process and on this machine."""
    run = RunFolder(Path(folder))
    workspace = Workspace.open(workspace_root)
    if resume_from is not None:
        resume_from = run.root / resume_from
        if not (resume_from / "trainer_state.json").is_file():
            raise TrainingError(
                _("There is no checkpoint in {folder}.", folder=str(resume_from)),
                _("Resume from another one, or start the run again."),
            )
    be_ready()
    config = settle_devices(load_config(run.config), local_devices())
    config.save(run.config)
    train = recipe.run if device_count(config) == 1 else launch
    try:
        return in_attempts(run, partial(train, run, workspace), resume_from)
    except Stopped:
        return "stopped"


def be_ready() -> None:
    """What a process does before it trains."""
    _be_quiet()
    _be_quick()


def _be_quiet() -> None:
    """No bars in worker.log: progress is told by events."""
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_warning()
    # TRL and transformers tell each other about names that are theirs to change.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|trl)\.")


def _be_quick() -> None:
    # What was imported lives as long as this process: the collector need not look at it again
    # and again, which in a forked worker also copies every page it looks at.
    gc.freeze()
    # A container may have fewer cores than the machine; more threads would slow each other.
    cores = probe().cpu_count
    if torch.get_num_threads() > cores:
        torch.set_num_threads(cores)


TRIAL_STEPS = 2
_ID = "trial"
# Rows among which the longest are looked for; and the most that a trial takes.
_LOOKED_AT, _MOST_ROWS = 50_000, 512
_QUIET: dict[str, Any] = {
    "training.max_steps": TRIAL_STEPS,
    "training.devices": "1",
    "training.ray_address": "",
    "training.ray_num_nodes": 1,
    "training.strategy": "auto",
    "training.offload": False,
    "training.deepspeed": "",
    "evaluation.eval_strategy": "no",
    "evaluation.load_best_model_at_end": False,
    "evaluation.early_stopping_patience": None,
    "evaluation.sample_max_new_tokens": 0,
    "evaluation.sample_prompts": [],
    "tracking.save_strategy": "no",
    "tracking.logging_steps": 1,
    "tracking.report_to": [],
    "data.dataset_fingerprint": "",
    "data.max_train_samples": None,
}


def try_two_steps(workspace_root: str, values: dict[str, Any], progress: Tell) -> dict[str, Any]:
    """Trains two steps of the run with these settings, by dotted path, on its longest rows, in a
    process of its own (`core.jobs.isolated`).

    tokens_per_second: of the second step; seconds_a_step; memory_bytes: the most that the process
    had (on a GPU: that torch held there); settings: what was chosen for those on auto. Raises a
    TunesmithError or whatever the libraries raise.
    """
    real = Workspace.open(workspace_root)
    config = _as_trial(values)
    with tempfile.TemporaryDirectory(prefix=".trial-", dir=real.root) as folder:
        progress(0.1, _("Looking for the longest rows"))
        root = _workspace_beside(real, Path(folder), config)
        run = RunFolder(root / _ID)
        run.root.mkdir()
        config.data.dataset = _ID
        config.save(run.config)
        progress(0.3, _("Trying two steps"))
        with _may_read(real.root):
            state = run_training(run.root, root, None)
        if state != "finished":
            raise TrainingError(_("The trial was stopped."), _("Try again."))
        return _measured(run)


def _as_trial(values: dict[str, Any]) -> RunConfig:
    known = RunConfig().values()
    quiet = {path: value for path, value in _QUIET.items() if path in known}
    if values.get("training.lr_scheduler_type") == "reduce_lr_on_plateau":
        quiet["training.lr_scheduler_type"] = "constant"  # it needs evaluations
    return parse_config(values | quiet)


@contextmanager
def _may_read(folder: Path) -> Iterator[None]:
    """The links of the trial's workspace lead there."""
    before = os.environ.get("TUNESMITH_ALLOW")
    parts = [part for part in (before or "").split(os.pathsep) if part]
    os.environ["TUNESMITH_ALLOW"] = os.pathsep.join([*parts, str(folder)])
    try:
        yield
    finally:
        if before is None:
            del os.environ["TUNESMITH_ALLOW"]
        else:
            os.environ["TUNESMITH_ALLOW"] = before


def _measured(run: RunFolder) -> dict[str, Any]:
    speeds = curves(run.root).get("tokens_per_second", [])
    if not speeds:
        raise TrainingError(
            _("The trial made no step."), _("Look at the rows in Data with this model.")
        )
    chosen = [event["choice"] for event in read_events(run.events) if "choice" in event]
    return {
        "tokens_per_second": speeds[-1][1],
        "memory_bytes": _most_memory(),
        "settings": {choice["field"]: choice["value"] for choice in chosen},
    }


def _most_memory() -> int:
    """The most that this process ever held, in bytes."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_reserved())
    status = Path("/proc/self/status")
    if status.is_file():  # ru_maxrss would count what a parent had before the fork
        for line in status.read_text("ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(kilobytes if sys.platform == "darwin" else kilobytes * 1024)


def _workspace_beside(real: Workspace, folder: Path, config: RunConfig) -> Path:
    """A workspace with links to all of the real one but its data sets: of those only the longest
    rows of the one that the run learns from."""
    for entry in real.root.iterdir():
        if entry.name not in ("datasets", folder.name) and entry.is_dir():
            (folder / entry.name).symlink_to(entry, target_is_directory=True)
    info = load_dataset_info(real, config.data.dataset)
    target = folder / "datasets" / _ID
    target.mkdir(parents=True)
    rows = _longest_rows(info, config)
    with RowWriter(target / "train.parquet", info.form) as writer:
        for row in rows:
            writer.add(row)
    counts = Counts(read=len(rows), train=len(rows))
    changed = {"id": _ID, "counts": counts, "version": 0, "versions": [], "fingerprint": _ID}
    info.model_copy(update=changed).save(target)
    return folder


def _longest_rows(info: DatasetInfo, config: RunConfig) -> list[dict[str, Any]]:
    """So many of the longest rows as two steps take, by their characters."""
    batch = config.training.per_device_train_batch_size
    each = batch if isinstance(batch, int) else 16
    wanted = min(_MOST_ROWS, TRIAL_STEPS * each * config.training.gradient_accumulation_steps)
    if config.training.packing:
        wanted = _MOST_ROWS
    found: list[tuple[int, int, dict[str, Any]]] = []
    of_label: dict[str, dict[str, Any]] = {}  # a label that no row has could not be learned
    seen = 0
    for rows in iter_rows(info.rows_path("train")):
        for row in rows:
            seen += 1
            for label in row.get("labels") or ():
                of_label.setdefault(label, row)
            item = (sum(map(len, texts(row))), seen, row)
            if len(found) < wanted:
                heapq.heappush(found, item)
            else:
                heapq.heappushpop(found, item)
        if seen >= _LOOKED_AT:
            break
    return [row for _, _, row in sorted(found, reverse=True)] + list(of_label.values())
