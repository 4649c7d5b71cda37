"""The models that a run saves go to the Hub while it trains.

What is sent is laid beside the checkpoint, as links, when it is saved: the run may delete the
checkpoint before all of it is sent. A thread sends it; whatever goes wrong there is a warning, and
the next save is sent as if nothing had been.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from core.errors import TunesmithError, ended, reason_of
from core.export.card import write_card
from core.export.format import base_of_run
from core.export.formats import find_format
from core.export.package import forget_machine
from core.hub.answers import offline, without_token
from core.hub.plan import PushSettings, make_plan
from core.hub.push import be_silent, send
from core.language import _
from core.models.describe import describe_model
from core.models.hub import is_offline
from core.models.trained import FINAL, TrainedModel, adapter_settings, find_trained
from core.progress import Stopped
from core.runs.curves import curves
from core.runs.lineage import lineage_text
from core.worker.training.beginning import Beginning

_STATE_OF_TRAINING = ("trainer_state.json", "training_args.bin")
_WEIGHTS = (".safetensors", ".model")
_TEXTS = (".json", ".jinja", ".txt")
# How long the end of a run waits between two looks at whether it is to stop, in seconds.
_LOOK_SECONDS = 0.5


class Pushes:
    """Sends what was saved, one after the other; what has to wait gives way to what comes after."""

    def __init__(self, start: Beginning) -> None:
        tracking = start.config.tracking
        self.start, self.at_saves = start, tracking.hub_strategy == "every_save"
        self._settings = PushSettings(
            repo_id=tracking.hub_model_id, private=tracking.hub_private_repo
        )
        self._folder = start.run.root / ".pushes"
        shutil.rmtree(self._folder, ignore_errors=True)  # left by a worker that was killed
        self._waiting, self._ended, self._left = "", False, False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def add(self, checkpoint: str) -> None:
        """A checkpoint, or the finished model, that lies in the run's folder now."""
        try:
            lay(self.start, checkpoint, self._folder / checkpoint)
        except (OSError, TunesmithError) as error:
            self._warn(checkpoint, error)
            return
        with self._changed:
            before, self._waiting = self._waiting, checkpoint
            self._changed.notify()
        if before:
            shutil.rmtree(self._folder / before, ignore_errors=True)

    def end(self, checkpoint: str | None) -> None:
        """Comes back when all is sent, `checkpoint` too, or the run is to stop."""
        if checkpoint is not None:
            self.add(checkpoint)
            self.start.reporter.doing(_("Pushing to the Hub"))
        with self._changed:
            self._ended = True
            self._changed.notify()
        while self._thread.is_alive() and not self.start.run.stop_request.exists():
            self._thread.join(_LOOK_SECONDS)
        self._left = True
        shutil.rmtree(self._folder, ignore_errors=True)

    def _next(self) -> str:
        """What is to be sent; "" when nothing comes any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ended)
            found, self._waiting = self._waiting, ""
        return found

    def _work(self) -> None:
        be_silent()
        while checkpoint := self._next():
            try:
                self._send(checkpoint)
            except Stopped:
                return
            except Exception as error:  # of the library, too: nothing here may end the run
                self._warn(checkpoint, error)
            shutil.rmtree(self._folder / checkpoint, ignore_errors=True)

    def _send(self, checkpoint: str) -> None:
        if is_offline():
            raise offline()
        folder = self._folder / checkpoint
        plan = make_plan(folder, "model", self._settings, self._tell)
        run = self.start.run.root.name
        send(plan, folder, f"Push {checkpoint} of run {run} with Tunesmith", self._tell)
        message = _("Pushed {checkpoint} to {url}.", checkpoint=checkpoint, url=plan.url)
        self.start.reporter.events.write("log", level="info", message=message)

    def _tell(self, share: float, message: str) -> None:
        if self._left:
            raise Stopped

    def _warn(self, checkpoint: str, error: Exception) -> None:
        if isinstance(error, TunesmithError):
            reason = error.message
        else:
            reason = reason_of(error) or type(error).__name__
        way_on = (
            _("Push it from Export, or with the command push.")
            if checkpoint == FINAL
            else _("The run goes on, and the next save is sent again.")
        )
        message = _(
            "{checkpoint} was not pushed to the Hub: {reason} {way_on}",
            checkpoint=checkpoint,
            reason=ended(without_token(reason)),
            way_on=way_on,
        )
        self.start.reporter.events.write("log", level="warning", message=message)


class PushSaves(TrainerCallback):
    """Hands each checkpoint on when it has been written."""

    def __init__(self, pushes: Pushes) -> None:
        self._pushes = pushes

    def on_save(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if self._pushes.at_saves:
            self._pushes.add(f"checkpoint-{state.global_step}")


def lay(start: Beginning, checkpoint: str, folder: Path) -> None:
    """Puts the model of a checkpoint into `folder` as it is sent: without the state of training and
    what belongs to this machine, with a card."""
    trained = find_trained(start.run, checkpoint)
    folder.mkdir(parents=True)
    for path in trained.folder.iterdir():
        if path.name in _STATE_OF_TRAINING or not path.is_file():
            continue
        if path.suffix in _TEXTS:
            shutil.copyfile(path, folder / path.name)
        elif path.suffix in _WEIGHTS:
            _link(path, folder / path.name)
    base = base_of_run(trained, str(start.base))
    if trained.is_adapter:
        settings = adapter_settings(trained.folder) | {"base_model_name_or_path": base.name}
        text = json.dumps(settings, indent=2, ensure_ascii=False) + "\n"
        (folder / "adapter_config.json").write_text(text, encoding="utf-8")
    _add_card(start, trained, folder)
    private = [start.workspace.root, *([start.base] if Path(start.base).is_dir() else [])]
    forget_machine(folder, private)


def _add_card(start: Beginning, trained: TrainedModel, folder: Path) -> None:
    known = None if trained.is_adapter else describe_model(folder)
    write_card(
        folder,
        trained,
        base_of_run(trained, str(start.base)),
        start.info,
        form=find_format("adapter" if trained.is_adapter else "merged"),
        dtype=(known.dtype if known else None) or "float32",
        parts=[],
        checks=[],
        lineage=lineage_text(start.run),
        curves=curves(start.run.root),
    )


def _link(path: Path, place: Path) -> None:
    try:
        os.link(path, place)
    except OSError:  # a disk without links
        shutil.copyfile(path, place)
