"""One training job, in its worker process."""

from __future__ import annotations

import gc
import os
import warnings
from functools import partial
from pathlib import Path

import torch
from transformers.utils import logging as transformers_logging

from core.errors import TrainingError
from core.models.hardware import probe
from core.progress import Stopped
from core.worker.training import recipe
from core.worker.training.resume import in_attempts
from core.workspace import RunFolder, Workspace


def run_training(folder: Path, workspace_root: Path, resume_from: Path | None) -> str:
    """Trains the run in `folder` as its config.yaml says: "finished" or "stopped".

    `resume_from` is a checkpoint; a relative path counts from `folder`. Events go to the run's
    events.jsonl, checkpoints to checkpoints/, the result to adapter/ or model/. Raises.
    """
    run = RunFolder(Path(folder))
    workspace = Workspace.open(workspace_root)
    if resume_from is not None:
        resume_from = run.root / resume_from
        if not (resume_from / "trainer_state.json").is_file():
            raise TrainingError(
                f"There is no checkpoint in {resume_from}.",
                "Resume from another one, or start the run again.",
            )
    _be_quiet()
    _be_quick()
    try:
        return in_attempts(run, partial(recipe.run, run, workspace), resume_from)
    except Stopped:
        return "stopped"


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
