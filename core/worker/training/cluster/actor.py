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

MACHINES = "TUNESMITH_MACHINES"
"""Set for a process of a run that several machines share: its machine's number, how many there are,
and the first one's address."""
_SECONDS_BETWEEN_LOOKS = 1.0
# How long whoever asked may take to hear what is wrong.
_SECONDS_TO_HEAR = 60.0
_SECONDS_TO_LEAVE = 5.0


class Share:
    """A node of a run, with its cores and cards."""

    def __init__(self, asked: dict[str, Any]) -> None:
        import ray

        self._asked, self._node_id = asked, ray.get_runtime_context().get_node_id()
        self._child: subprocess.Popen[bytes] | None = None
        self._wrong, self._why = self._look_around()

    def place(self) -> dict[str, Any]:
        """Where it is, and what is wrong there: code, folder or environment."""
        from ray.util import get_node_ip_address

        cards = os.environ.get("CUDA_VISIBLE_DEVICES", "") if self._asked["cards"] else ""
        node = {"node": socket.gethostname(), "cards": cards, "id": self._node_id}
        return {**node, "address": get_node_ip_address(), "wrong": self._wrong, "why": self._why}

    def begin(self, module: str, words: list[str], more: dict[str, str] | None = None) -> None:
        """Starts a module of Tunesmith in the run's folder."""
        from core.jobs.worker import device_environment

        asked = self._asked
        device = ",".join(f"cuda:{number}" for number in range(asked["cards"])) or "cpu"
        path = [asked["code"], os.environ.get("PYTHONPATH", "")]
        environment = {
            **os.environ,
            **device_environment(device),
            **(more or {}),
            "PYTHONPATH": os.pathsep.join(filter(None, path)),
            "TUNESMITH_ALLOW": asked["allowed"],
        }
        command = [sys.executable, "-m", module, asked["folder"], *words]
        with (Path(asked["folder"]) / "worker.log").open("ab") as log:
            self._child = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def code(self) -> int | None:
        """The exit code of what was started; None while it is at work."""
        return self._child.poll() if self._child else None

    def kill(self) -> None:
        if self._child:
            self._child.kill()

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


class Holder:
    """One attempt at a run. It ends with the training, and the training with it."""

    def __init__(self, asked: dict[str, Any]) -> None:
        self._asked = asked
        self._places = self._gather()
        self._wrong = next((place for place in self._places if place["wrong"]), None)
        if not self._wrong:
            self._begin()
        threading.Thread(target=self._watch, name="watch", daemon=True).start()

    def place(self) -> dict[str, Any]:
        """Where it is, and what is wrong there: code, folder or environment."""
        if self._wrong:
            return self._wrong
        of_all = ("node", "cards")
        joined = {name: " + ".join(place[name] for place in self._places) for name in of_all}
        return {**self._places[0], **joined, "cards": joined["cards"].strip(" +")}

    def _gather(self) -> list[dict[str, Any]]:
        """Where the run is to be."""
        self._share = Share(self._asked)
        return [self._share.place()]

    def _begin(self) -> None:
        self._share.begin(self._asked["module"], self._words())

    def _words(self) -> list[str]:
        return [self._asked["root"], *filter(None, [self._asked["checkpoint"]])]

    def _code(self) -> int | None:
        return self._share.code()

    def _kill(self) -> None:
        self._share.kill()

    def _watch(self) -> None:
        """Until the training has ended, or the run has: nobody else would end it here."""
        if self._wrong:
            time.sleep(_SECONDS_TO_HEAR)
        else:
            from core.jobs.events import EventReader
            from core.jobs.job import ENDED

            run = Path(self._asked["folder"])
            events = EventReader(run / "events.jsonl", self._asked["offset"])
            while (code := self._code()) is None:
                told = events.read_new()
                if not run.is_dir() or any(event.get("state") in ENDED for event in told):
                    self._kill()
                    break
                time.sleep(_SECONDS_BETWEEN_LOOKS)
            else:
                self._tell_end(run / self._asked["end"], code)
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


class HolderOfSeveral(Holder):
    """The same of a run that several nodes share. It takes no core itself; its places and shares
    are its own, so that they are given back whatever ends it."""

    def _gather(self) -> list[dict[str, Any]]:
        import ray
        from ray.util.placement_group import placement_group
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        asked = self._asked
        room = {"CPU": asked["cores"], **({"GPU": asked["cards"]} if asked["cards"] else {})}
        group = placement_group([room] * asked["nodes"], strategy="STRICT_SPREAD")
        ray.get(group.ready())
        kind = ray.remote(Share)
        self._shares = [
            kind.options(
                num_cpus=asked["cores"],
                num_gpus=asked["cards"],
                scheduling_strategy=PlacementGroupSchedulingStrategy(
                    group, placement_group_bundle_index=number
                ),
            ).remote(asked)
            for number in range(asked["nodes"])
        ]
        return list(ray.get([share.place.remote() for share in self._shares]))

    def _begin(self) -> None:
        import ray

        begun = []
        for number, share in enumerate(self._shares):
            where = f"{number} {len(self._shares)} {self._places[0]['address']}"
            module = self._asked["companion" if number else "module"]
            words = [] if number else self._words()
            begun.append(share.begin.remote(module, words, {MACHINES: where}))
        ray.get(begun)

    def _code(self) -> int | None:
        """That of the first node; raises when a node is gone."""
        import ray
        from ray.exceptions import ActorUnavailableError, RayActorError

        try:
            codes: list[int | None] = ray.get([share.code.remote() for share in self._shares])
        except ActorUnavailableError:
            return None  # it may come back
        except RayActorError:
            self._leave()  # what is left of the run ends with it
            time.sleep(_SECONDS_TO_LEAVE)
            raise
        return codes[0]

    def _kill(self) -> None:
        import ray

        ray.get([share.kill.remote() for share in self._shares])
