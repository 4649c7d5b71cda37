"""What the tests of the commands share: a tiny chat model, a data file, and a shell."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.warm_python import with_commands

ROOT = Path(__file__).parents[1]


def make_chat_model(folder: Path) -> Path:
    """A folder with a tiny chat model of random weights and its tokenizer."""
    from tests.tiny_model import tiny_model, tiny_tokenizer

    tiny_model().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def write_rows(path: Path, count: int = 24) -> Path:
    rows = [{"prompt": f"What is {n}?", "completion": f"It is {n}."} for n in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@dataclass
class Shell:
    """Types commands, each in a process of its own."""

    workspace: Path

    def start(self, *words: str) -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        environment["TUNESMITH_WORKSPACE"] = str(self.workspace)
        return subprocess.Popen(
            [with_commands(), "-m", "core.cli", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=self.workspace,
        )

    def type(self, *words: str, text: str = "") -> tuple[int, str, str]:
        """(exit code, standard output, standard error)."""
        process = self.start(*words)
        out, err = process.communicate(text)
        return process.returncode, out, err

    def ask(self, *words: str) -> Any:
        """The JSON that a command prints; it has to succeed and print nothing else."""
        code, out, err = self.type(*words, "--json")
        assert code == 0, err
        return json.loads(out)
