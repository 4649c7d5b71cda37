"""Whether the quick start teaches what it promises, and how long it takes.

    python tests/benchmarks/quickstart.py [--workspace FOLDER] [--seed N] [--precision fp32]

In a new workspace: trains the preset on the sample data set and the starter model, measures it and
its base on the 40 held-out rows, and asks it one question. Exits with 1 where it misses the goal of
0.8 of all fields right, where its base needs no training, or where its answer is no ticket.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
GOAL = 0.8
FIELDS = {"product", "urgency", "intent", "summary"}
TICKET = "Hello, since this morning my invoices show the wrong address. Can you correct that today?"


def ask(workspace: Path, *words: str) -> Any:
    """What a command prints as JSON; its progress goes to standard error."""
    begun = time.monotonic()
    command = [sys.executable, "-m", "core.cli", "--workspace", str(workspace), *words, "--json"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    print(f"{words[0]}: {time.monotonic() - begun:.0f} s", flush=True)
    return json.loads(done.stdout)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--precision", default="auto", help="fp32: as a CPU without bf16 takes it")
    options = parser.parse_args()
    workspace = options.workspace or Path(tempfile.mkdtemp()) / "workspace"
    begun = time.monotonic()
    settings = {"seed": str(options.seed), "precision": options.precision}
    words = [word for name, value in settings.items() for word in (f"--training.{name}", value)]
    run = ask(workspace, "train", "quickstart", *words)["run"]
    result = ask(workspace, "evaluate", run)["result"]
    answer = ask(workspace, "chat", run, "--prompt", TICKET)["answer"]
    print(f"all of it: {time.monotonic() - begun:.0f} s")
    right = result["tuned"]["all_fields"]["value"]
    by_heart = result["base"]["exact_rows"]["value"]
    print(f"fields right: {right:.3f}; rows that the base has right: {by_heart:.3f}; {answer}")
    return 0 if right >= GOAL and by_heart <= 0.05 and set(json.loads(answer)) == FIELDS else 1


if __name__ == "__main__":
    sys.exit(main())
