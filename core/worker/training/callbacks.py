"""What happens beside the training: events, time left, the device's use, the request to stop."""

from __future__ import annotations

import contextlib
import importlib.util
import time
from collections import deque
from pathlib import Path
from statistics import fmean
from typing import Any

import psutil
import torch
from transformers import TrainerCallback

from core.config.schedules import STAYS_AT_ZERO
from core.jobs.events import EventWriter
from core.language import _
from core.models.hardware import probe
from core.worker.training import ranks
from core.worker.training.trackers import Trackers
from core.worker.training.trainer import WatchedTrainer

_SECONDS_BETWEEN = 0.5
# A GPU's use is a mean over some time, so that it need not be asked more often.
_SECONDS_BETWEEN_USES = 0.5


class ReportEvents(TrainerCallback):
    """Each log is a `metrics` event, each step a `progress` event (at most two a second). The
    trackers, if there are any, are told the numbers of each log too."""

    def __init__(
        self,
        events: EventWriter,
        trainer: WatchedTrainer,
        trackers: Trackers | None = None,
        seconds_between: float = _SECONDS_BETWEEN,
    ) -> None:
        self.events = events
        self._seconds_between = seconds_between
        self._trainer = trainer
        self._trackers = trackers
        self._device = DeviceUse()
        self._tokens_told = self._rows_told = 0
        self._seconds_untold = 0.0  # in steps since the last log
        self._steps: deque[float] = deque(maxlen=20)
        self._step_began = 0.0
        self._evaluation_began = 0.0
        self._evaluation_seconds = 0.0
        self._told = 0.0
        self._batches = 0  # of the step that is being made
        self._evaluating = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        self._trainer.go_on_counting(state.log_history)
        rates = [group["lr"] for group in getattr(given.get("optimizer"), "param_groups", ())]
        if state.global_step + 1 == state.max_steps and rates and not any(rates):
            self.events.write("log", level="warning", message=_(STAYS_AT_ZERO))
        if self._trackers is not None:
            self._trackers.begin(state.global_step)
        self._evaluation_began = time.monotonic()  # some methods evaluate before the first step
        self._progress(state, _("Training"))

    def on_step_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        self._step_began = time.monotonic()
        self._batches = 0
        if self._evaluating:  # a step may take minutes
            self._progress(state, _("Training"))

    def on_substep_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        self._batches += 1
        if time.monotonic() - self._told >= self._seconds_between:
            step = state.global_step + 1
            self._progress(
                state,
                _("Training: batch {batch} of step {step}", batch=self._batches, step=step),
            )

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        self._steps.append(time.monotonic() - self._step_began)
        self._seconds_untold += self._steps[-1]
        self._evaluation_began = time.monotonic()
        last = state.global_step >= state.max_steps
        if last or time.monotonic() - self._told >= self._seconds_between:
            self._progress(state, _("Training"))

    def on_log(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        logs: dict[str, Any] = dict(given.get("logs") or {})
        if "train_runtime" in logs:
            message = _(
                "Trained to step {step} in {seconds:.0f} s.",
                step=state.global_step,
                seconds=logs["train_runtime"],
            )
            self.events.write("log", level="info", message=message)
            return
        if "loss" in logs:
            logs |= self._speed() | self._device.sample()
        self.events.write("metrics", step=state.global_step, **{"epoch": state.epoch, **logs})
        if self._trackers is not None:
            self._trackers.log(state.global_step, {"epoch": state.epoch, **logs})

    def _speed(self) -> dict[str, float]:
        """Real tokens and rows of each second in steps since the last log."""
        own = self._trainer.tokens_trained, self._trainer.rows_trained
        tokens, rows = ranks.summed((own[0] - self._tokens_told, own[1] - self._rows_told))
        seconds = max(self._seconds_untold, 1e-9)
        self._tokens_told, self._rows_told = own
        self._seconds_untold = 0.0
        return {
            "tokens_per_second": round(tokens / seconds, 1),
            "samples_per_second": round(rows / seconds, 2),
        }

    def on_evaluate(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        self._evaluation_seconds = time.monotonic() - self._evaluation_began

    def on_prediction_step(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if time.monotonic() - self._told >= self._seconds_between:
            self._progress(state, _("Evaluating"))
            self._evaluating = True

    def on_save(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        message = _("Saved checkpoint-{step}.", step=state.global_step)
        self.events.write("log", level="info", message=message)

    def _progress(self, state: Any, message: str) -> None:
        self._told = time.monotonic()
        self._evaluating = False
        self.events.write(
            "progress",
            step=state.global_step,
            max_steps=state.max_steps,
            epoch=round(state.epoch or 0.0, 4),
            eta_seconds=self._seconds_left(state),
            message=message,
        )

    def _seconds_left(self, state: Any) -> float | None:
        """Steps at the pace of the last ones, and evaluations as long as the last one."""
        if not self._steps:
            return None
        # The first step of a process is slower than all others.
        known = list(self._steps)[1:] or list(self._steps)
        steps = max(0, state.max_steps - state.global_step)
        evaluations = 0
        if self._trainer.args.eval_strategy == "steps":
            every = max(1, int(state.eval_steps))
            evaluations = -(-state.max_steps // every) - state.global_step // every
        elif self._trainer.args.eval_strategy == "epoch":
            evaluations = max(0, round(state.num_train_epochs - (state.epoch or 0.0)))
        return float(round(steps * fmean(known) + evaluations * self._evaluation_seconds, 1))


class StopOnRequest(TrainerCallback):
    """Ends the training with a checkpoint at the first step that sees the stop request."""

    def __init__(self, request: Path, *, needs_every_evaluation: bool) -> None:
        self.request = request
        self.stopped = False
        self._needs_every_evaluation = needs_every_evaluation

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if state.global_step >= state.max_steps or not ranks.in_any(self.request.exists()):
            return
        self.stopped = True
        control.should_training_stop = True
        control.should_save = True
        # An evaluation may take minutes; it is left out unless the choice of the best needs it.
        control.should_evaluate &= self._needs_every_evaluation

    def on_epoch_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if self.stopped:  # this is no epoch's end: the checkpoint is written
            control.should_evaluate = control.should_save = False


class DeviceUse:
    """How busy the device is and how much memory the training holds, sampled at each log; some
    microseconds each."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._process.cpu_percent()  # counts from here
        self._cores = max(1, probe().cpu_count)
        # NVIDIA's own reader, which torch asks; without it nothing is known of a GPU's use.
        self._reads_gpu = importlib.util.find_spec("pynvml") is not None
        self._gpu_percent: float | None = None
        self._asked = -_SECONDS_BETWEEN_USES

    def sample(self) -> dict[str, float]:
        """By name with unit: cpu_percent of all cores since the last sample, gpu_percent where it
        can be read, and the GPU's peak in this process or else the process's own memory."""
        found = {"cpu_percent": round(self._process.cpu_percent() / self._cores, 1)}
        if not (torch.cuda.is_available() and torch.cuda.is_initialized()):
            return {**found, "memory_bytes": int(self._process.memory_info().rss)}
        percent = self._gpu()
        if percent is not None:
            found["gpu_percent"] = percent
        return {**found, "gpu_memory_bytes": int(torch.cuda.max_memory_allocated())}

    def _gpu(self) -> float | None:
        if self._reads_gpu and time.monotonic() - self._asked >= _SECONDS_BETWEEN_USES:
            self._asked = time.monotonic()
            # A driver, or a slice of a GPU, may not tell: then its use is not known.
            with contextlib.suppress(Exception):
                self._gpu_percent = float(torch.cuda.utilization())
        return self._gpu_percent
