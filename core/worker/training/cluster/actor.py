"""What holds a run's cores and cards on a node of a Ray cluster, and starts the training there.

It is sent to the node as it stands here, and imports of Tunesmith only what it then finds there: so
it can say what a node lacks.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

_SECONDS_BETWEEN_LOOKS = 1.0
# How long whoever asked may take to hear what is wrong.
_SECONDS_TO_HEAR = 60.0
_SECONDS_TO_LEAVE = 5.0


class Holder:
    """One attempt at a run. It ends with the training, and the training with it."""

    def __init__(self, asked: dict[str, Any]) -> None:
        import ray

        self._asked, self._node_id = asked, ray.get_runtime_context().get_node_id()
        self._child: subprocess.Popen[bytes] | None = None
        self._wrong, self._why = self._look_around()
        if not self._wrong:
            self._begin()
        threading.Thread(target=self._watch, name="watch", daemon=True).start()

    def place(self) -> dict[str, Any]:
        """Where it is, and what is wrong there: code, folder or environment."""
        cards = os.environ.get("CUDA_VISIBLE_DEVICES", "") if self._asked["cards"] else ""
        node = {"node": socket.gethostname(), "cards": cards, "id": self._node_id}
        return {**node, "wrong": self._wrong, "why": self._why}

    def _look_around(self) -> tuple[str, str]:
        code, folder = Path(self._asked["code"]), Path(self._asked["folder"])
        if not (code / "core" / "worker").is_dir():
            return "code", str(code)
        try:
            known = json.loads((folder / self._asked["note"]).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            known = {}
        if known.get("actor") != self._asked["actor"]:
            return "folder", str(folder)
        sys.path.insert(0, str(code))
        try:
            import core.jobs.worker  # noqa: F401
        except ImportError as error:
            return "environment", f"{sys.executable}: {error}"
        return "", ""

    def _begin(self) -> None:
        from core.jobs.worker import device_environment

        asked = self._asked
        device = ",".join(f"cuda:{number}" for number in range(asked["cards"])) or "cpu"
        path = [asked["code"], os.environ.get("PYTHONPATH", "")]
        environment = {
            **os.environ,
            **device_environment(device),
            "PYTHONPATH": os.pathsep.join(filter(None, path)),
            "TUNESMITH_ALLOW": asked["allowed"],
        }
        words = [asked["folder"], asked["root"], *filter(None, [asked["checkpoint"]])]
        command = [sys.executable, "-m", asked["module"], *words]
        with (Path(asked["folder"]) / "worker.log").open("ab") as log:
            self._child = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def _watch(self) -> None:
        """Until the training has ended, or the run has: nobody else would end it here."""
        if self._child is None:
            time.sleep(_SECONDS_TO_HEAR)
        else:
            from core.jobs.events import EventReader
            from core.jobs.job import ENDED

            run = Path(self._asked["folder"])
            events = EventReader(run / "events.jsonl", self._asked["offset"])
            while self._child.poll() is None:
                told = events.read_new()
                if not run.is_dir() or any(event.get("state") in ENDED for event in told):
                    self._child.kill()
                    break
                time.sleep(_SECONDS_BETWEEN_LOOKS)
            else:
                self._tell_end(run / self._asked["end"], self._child.returncode)
        self._leave()

    def _tell_end(self, file: Path, code: int) -> None:
        """For a training that could not: it was killed, or never began."""
        if not file.exists():
            file.write_text(json.dumps({"code": code}), encoding="utf-8")

    def _leave(self) -> None:
        """Gives cores and cards back; soon also where the cluster does not answer any more."""
        import ray

        threading.Timer(_SECONDS_TO_LEAVE, os._exit, [1]).start()
        ray.kill(ray.get_runtime_context().current_actor)
