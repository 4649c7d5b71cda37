"""What a run tells TensorBoard, trackio, Weights & Biases, SwanLab and MLflow.

Each tracker has a thread of its own and is told there by its own package. transformers' callbacks
would do it within the training, which would then wait for a server, or end with what it raises;
here a tracker that fails or hangs is a warning. Keys come from the environment alone, and
everything that a tracker writes lies in the run's folder.
"""

from __future__ import annotations

import os
import queue
import re
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from transformers.integrations.integration_utils import rewrite_logs

from core.config import RunConfig
from core.config.tracking import TITLES
from core.jobs.events import EventWriter
from core.language import _
from core.workspace import RunFolder

# How long the end of a run waits for a tracker to send the rest, in seconds.
_PATIENCE = 60.0
_SECRET_NAME = re.compile(r"(^|_)(key|token|secret|password)$", re.IGNORECASE)
_IN_ADDRESS = re.compile(r"(?<=://)[^/\s@]+@")


@dataclass(frozen=True)
class About:
    """What a tracker is told of a run: its name, its settings, and where its files go.

    `step` is the one that it goes on from; 0 at its start.
    """

    id: str
    name: str
    project: str
    mode: str
    folder: Path
    settings: dict[str, Any]
    step: int = 0


class Tracker(Protocol):
    """Told everything in one thread. Whatever it raises ends it, not the run."""

    def start(self, about: About) -> None: ...

    def log(self, step: int, metrics: Mapping[str, float]) -> None: ...

    def finish(self, failed: bool) -> None: ...


class TensorBoard:
    """Event files in the folder; a resumed run's steps after its checkpoint are taken back."""

    def start(self, about: About) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(about.folder), purge_step=about.step or None)
        lines = "".join(f"    {path}: {value}\n" for path, value in about.settings.items())
        self._writer.add_text("settings", lines, about.step)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def finish(self, failed: bool) -> None:
        self._writer.close()


def _forget(package: str) -> None:
    """The next import of the package begins anew."""
    # A copy: another thread (TensorBoard's, at the same time) may be importing.
    for name in list(sys.modules):
        if name.partition(".")[0] == package:
            sys.modules.pop(name, None)


class Trackio:
    """A SQLite database in the folder. Nothing is sent anywhere."""

    def start(self, about: About) -> None:
        os.environ["TRACKIO_DIR"] = str(about.folder)
        # It reads the folder as it is imported, and TRL imports it for some methods before this.
        _forget("trackio")
        import trackio

        self._run = trackio.init(
            project=about.project,
            name=about.name,
            config=about.settings,
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log(dict(metrics), step=step)

    def finish(self, failed: bool) -> None:
        self._run.finish()


class WeightsAndBiases:
    """A run of theirs, online or as a file in the folder. They are told nothing of the machine,
    its programs or its git repositories."""

    def start(self, about: About) -> None:
        os.environ["WANDB_ERROR_REPORTING"] = "false"
        import wandb

        # It makes the folder wandb itself. Without the one above they take a temporary one.
        about.folder.parent.mkdir(parents=True, exist_ok=True)
        settings = wandb.Settings(
            silent=True,
            console="off",
            disable_git=True,
            disable_code=True,
            x_disable_stats=True,
            x_disable_meta=True,
            x_disable_machine_info=True,
            x_save_requirements=False,
            symlink=False,
        )
        self._run = wandb.init(
            project=about.project,
            name=about.name,
            id=about.id,
            dir=str(about.folder.parent),
            config=about.settings,
            mode="online" if about.mode == "online" else "offline",
            resume="allow",
            settings=settings,
        )
        # Their own steps may not go back, as those of a resumed run do.
        self._run.define_metric("train/global_step")
        self._run.define_metric("*", step_metric="train/global_step", step_sync=True)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log({**metrics, "train/global_step": step})

    def finish(self, failed: bool) -> None:
        self._run.finish(exit_code=1 if failed else 0)


class SwanLab:
    """A run of theirs, online or as files in the folder."""

    def start(self, about: About) -> None:
        import swanlab

        untold = ("hardware", "runtime", "requirements", "git", "monitor")
        settings = swanlab.Settings(
            interactive=False,
            terminal={"proxy_type": "none"},
            probe=dict.fromkeys(untold, False),
        )
        swanlab.init(
            project=about.project,
            name=about.name,
            config=about.settings,
            mode="online" if about.mode == "online" else "offline",
            log_dir=str(about.folder),
            settings=settings,
        )
        self._swanlab = swanlab

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._swanlab.log(dict(metrics), step=step)

    def finish(self, failed: bool) -> None:
        self._swanlab.finish(state="crashed" if failed else "success")


class MLflow:
    """A run in the server that MLFLOW_TRACKING_URI names, or in a SQLite store in the folder."""

    def start(self, about: About) -> None:
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
        import mlflow

        if about.mode != "server":
            about.folder.mkdir(parents=True, exist_ok=True)
            mlflow.set_tracking_uri(f"sqlite:///{(about.folder / 'mlflow.db').as_posix()}")
        self._client = mlflow.MlflowClient()
        found = self._client.get_experiment_by_name(about.project)
        home = found.experiment_id if found else self._client.create_experiment(about.project)
        tag = {"tunesmith.run": about.id}
        known = self._client.search_runs([home], f"tags.`tunesmith.run` = '{about.id}'")
        run = known[0] if known else self._client.create_run(home, tags=tag, run_name=about.name)
        self._id = run.info.run_id
        self._client.update_run(self._id, status="RUNNING")
        if not known:
            for path, value in about.settings.items():
                self._client.log_param(self._id, path, str(value)[:500])

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        points = [Metric(name, value, now, step) for name, value in metrics.items()]
        self._client.log_batch(self._id, metrics=points)

    def finish(self, failed: bool) -> None:
        self._client.set_terminated(self._id, "FAILED" if failed else "FINISHED")


TRACKERS: dict[str, type[Tracker]] = {
    "tensorboard": TensorBoard,
    "trackio": Trackio,
    "wandb": WeightsAndBiases,
    "swanlab": SwanLab,
    "mlflow": MLflow,
}


class Trackers:
    """The trackers of a run. A context: when it is left they are told the end, and waited for that
    long (seconds)."""

    def __init__(
        self, run: RunFolder, config: RunConfig, events: EventWriter, patience: float = _PATIENCE
    ) -> None:
        self._run, self._config, self._events, self._patience = run, config, events, patience
        self._told: list[_Told] = []

    def begin(self, step: int) -> None:
        """Starts them; `step` is the one that the run goes on from."""
        tracking, run = self._config.tracking, self._run.root
        settings = open_settings(self._config)
        for name in tracking.report_to:
            about = About(
                id=run.name,
                name=self._config.name or run.name,
                project=tracking.project,
                mode=str(getattr(tracking, f"{name}_mode", "")),
                folder=run / name,
                settings=settings,
                step=step,
            )
            one = _Told(name, about, self._events)
            self._told.append(one)
            one.start()

    def __enter__(self) -> Trackers:
        return self

    def log(self, step: int, logs: Mapping[str, Any]) -> None:
        """Hands numbers on at once, by the names that transformers gives its trackers."""
        numbers = {
            name: float(value)
            for name, value in rewrite_logs(dict(logs)).items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        }
        for one in self._told:
            one.given.put((step, numbers))

    def __exit__(self, kind: Any, *more: Any) -> None:
        """Waits a little for what is still to be sent."""
        for one in self._told:
            one.given.put(kind is not None)
        if any(one.is_alive() for one in self._told):
            self._events.write("progress", message=_("Sending the last numbers to the trackers"))
        end = time.monotonic() + self._patience
        for one in self._told:
            one.join(max(0.0, end - time.monotonic()))
            if one.is_alive():
                one.warn(
                    _(
                        "{tracker} is still busy after {seconds:.0f} s and may lack the end of the "
                        "run. The run goes on without it.",
                        tracker=one.title,
                        seconds=self._patience,
                    )
                )


class _Told(threading.Thread):
    """One tracker in its thread. `given` are (step, numbers), at the end whether the run failed."""

    def __init__(self, name: str, about: About, events: EventWriter) -> None:
        super().__init__(name=f"tracker-{name}", daemon=True)
        self.given: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._kind, self._about, self._events = name, about, events

    def run(self) -> None:
        try:
            tracker = TRACKERS[self._kind]()
            tracker.start(self._about)
            while not isinstance(item := self.given.get(), bool):
                tracker.log(*item)
            tracker.finish(item)
        except (Exception, SystemExit) as error:  # some packages end the program they are in
            told = str(error).strip().partition("\n")[0] or type(error).__name__
            self.warn(
                _(
                    "{tracker} is told nothing more: {error} The run goes on without it.",
                    tracker=self.title,
                    error=without_secrets(told),
                )
            )

    @property
    def title(self) -> str:
        return TITLES[self._kind]

    def warn(self, message: str) -> None:
        self._events.write("log", level="warning", message=message)


def open_settings(config: RunConfig) -> dict[str, Any]:
    """Every setting by its dotted path, as others may see it: plain values without secrets."""
    return {path: _open(path, value) for path, value in config.values().items()}


def _open(name: str, value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _open(str(key), item) for key, item in value.items()}
    if isinstance(value, list):
        return [_open(name, item) for item in value]
    if isinstance(value, str):
        return "hidden" if value and _SECRET_NAME.search(name) else without_secrets(value)
    return value


def without_secrets(text: str) -> str:
    """`text` without the environment's keys and without names and passwords in addresses."""
    for name, value in os.environ.items():
        if _SECRET_NAME.search(name) and len(value) > 7:
            text = text.replace(value, "(hidden)")
    return _IN_ADDRESS.sub("", text)
