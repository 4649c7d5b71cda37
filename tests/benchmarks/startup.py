"""How long a start takes: the page, until it is served, against a bare `import gradio` in the same
run, and `import core.cli`, which every command pays.

    python tests/benchmarks/startup.py [--pairs 5]

Each pair is one start of each, one after the other, so that a busy machine slows both. The first
pair warms the disk and does not count.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).parents[2]
_POLL_SECONDS = 0.02


def import_seconds(module: str) -> float:
    """Seconds from the start of a Python until it has imported `module` and ended."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {module}"], cwd=ROOT, check=True)
    return time.perf_counter() - begin


def served_seconds() -> float:
    """Seconds from the command until the page answers 200."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as workspace:
        begin = time.perf_counter()
        words = ["--no-browser", "--no-token", "--port", str(port), "--workspace", workspace]
        process = subprocess.Popen(
            [sys.executable, "launch.py", *words],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )
        try:
            while not _answers(port):
                if process.poll() is not None:
                    raise SystemExit(f"The page ended with {process.returncode} before it served.")
                time.sleep(_POLL_SECONDS)
            return time.perf_counter() - begin
        finally:
            process.terminate()
            process.wait()


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=5, help="starts of each (%(default)s)")
    pairs = parser.parse_args().pairs
    rows = []
    for number in range(pairs + 1):
        row = import_seconds("gradio"), served_seconds(), import_seconds("core.cli")
        print("gradio {:.2f} s, page {:.2f} s, core.cli {:.2f} s".format(*row), flush=True)
        if number:
            rows.append(row)
    ratio = statistics.median(page / gradio for gradio, page, _ in rows)
    cli = statistics.median(seconds for *_, seconds in rows)
    print(f"page / import gradio, median: {ratio:.2f}; import core.cli, median: {cli:.2f} s")


if __name__ == "__main__":
    main()
