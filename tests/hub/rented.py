"""A machine that the stand-in rents out: it runs the command that was sent, with programs of the
names of uv and uvx, in a process of its own."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HARDWARE = [
    {
        "name": "t4-small", "prettyName": "Nvidia T4 - small", "cpu": "4 vCPU", "ram": "15 GB",
        "ephemeralStorage": "50 GB", "unitCostMicroUSD": 6667, "unitCostUSD": 0.4,
        "unitLabel": "hour",
        "accelerator": {
            "type": "gpu", "model": "T4", "quantity": "1", "vram": "16 GB",
            "manufacturer": "Nvidia",
        },
    },
    {
        "name": "cpu-basic", "prettyName": "CPU Basic", "cpu": "2 vCPU", "ram": "16 GB",
        "unitCostMicroUSD": 167, "unitCostUSD": 0.000167, "unitLabel": "minute",
    },
]  # fmt: skip
# `uv run SCRIPT ...` and `uvx ... hf upload REPOSITORY FOLDER PLACE`.
_UV = f'#!/bin/sh\nshift\nexec {shlex.quote(sys.executable)} "$@"\n'
_UVX = '#!/bin/sh\ntest -n "$HF_TOKEN" && mkdir -p "$SENT" && cp -r "$6"/. "$SENT"\n'


@dataclass
class Rented:
    """A job as the Hub tells of it; `asked` is what it was asked for."""

    id: str
    owner: str
    asked: dict[str, Any]
    stage: str = "SCHEDULING"
    _lines: list[str] = field(default_factory=list)
    _news: threading.Condition = field(default_factory=threading.Condition)
    _process: subprocess.Popen[str] | None = None

    def begin(
        self, given: Mapping[str, bytes], sent: Callable[[Mapping[str, bytes]], None]
    ) -> None:
        """Runs the command where the repository's files lie at /given."""
        threading.Thread(target=self._run, args=(given, sent), daemon=True).start()

    def _run(self, given: Mapping[str, bytes], sent: Callable[[Mapping[str, bytes]], None]) -> None:
        with tempfile.TemporaryDirectory() as place:
            root = Path(place)
            for path, content in given.items():
                (root / "given" / path).parent.mkdir(parents=True, exist_ok=True)
                (root / "given" / path).write_bytes(content)
            (root / "bin").mkdir()
            for name, text in (("uv", _UV), ("uvx", _UVX)):
                (root / "bin" / name).write_text(text)
                (root / "bin" / name).chmod(0o755)
            shell, option, command = self.asked["command"]
            command = re.sub(r"/(given\b|tmp/)", rf"{root}/\1", command)
            (root / "tmp").mkdir()
            environment = {
                **os.environ, **self.asked["environment"], **self.asked["secrets"],
                "PATH": f"{root}/bin:{os.environ['PATH']}", "SENT": f"{root}/sent",
            }  # fmt: skip
            self._process = subprocess.Popen(
                [shell, option, command], env=environment, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
            self._set("RUNNING")
            assert self._process.stdout
            for line in self._process.stdout:
                self._say(line)
            ended = self._process.wait()
            if self.stage != "CANCELED":
                if ended == 0:
                    folder = root / "sent"
                    sent(
                        {
                            p.relative_to(folder).as_posix(): p.read_bytes()
                            for p in folder.rglob("*")
                            if p.is_file()
                        }
                    )
                self._set("ERROR" if ended else "COMPLETED")

    def cancel(self) -> None:
        self._set("CANCELED")
        if self._process is not None:
            self._process.kill()

    def lines(self) -> Iterator[str]:
        """Its output, as it comes, to its end."""
        seen = 0
        while True:
            with self._news:
                while seen == len(self._lines) and self.stage in ("SCHEDULING", "RUNNING"):
                    self._news.wait()
                fresh = self._lines[seen:]
            if not fresh:
                return
            seen += len(fresh)
            yield from fresh

    def told(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "owner": {"id": "1", "name": self.owner, "type": "user"},
            "status": {"stage": self.stage},
            "durations": {"runningSecs": 90},
            "flavor": self.asked["flavor"],
        }

    def _say(self, line: str) -> None:
        with self._news:
            self._lines.append(line.rstrip("\n"))
            self._news.notify_all()

    def _set(self, stage: str) -> None:
        with self._news:
            self.stage = stage
            self._news.notify_all()
