"""How long a large file takes to become a data set, and how much memory that needs.

    python tests/benchmarks/data_import.py --rows 1000000 [--near] [--model FOLDER [--all]]

Writes JSON Lines of made-up questions and answers (about 500 bytes a row, one row in fifty a copy
of another), imports them in a process of their own as the page does, with a mapping, the exact
duplicates dropped and a tenth held out, and prints seconds, rows and the most resident memory of
that process (sampled every 50 ms) for each stage. `--near` adds the search for near duplicates,
`--model` the statistics of 10,000 rows with that model's tokenizer, `--all` those of all rows.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from core.data.prepare import import_dataset
from core.data.steps import parse_steps
from core.data.versions import apply_steps
from core.jobs.isolated import call_isolated
from core.jobs.process import context
from core.workspace import Workspace

_WORDS = (
    "account invoice order printer report tenant garden bridge signal copper meadow lantern "
    "harbour velvet marble thunder willow compass ribbon saddle engine orchard canyon falcon "
    "market window paper silver river castle yellow gentle quiet rapid change before after under"
).split()


def write_rows(path: Path, rows: int) -> None:
    """About 500 bytes a row; each fiftieth says what an earlier one said."""
    chance = random.Random(0)
    recent: list[str] = []
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            if number % 50 == 49:
                line = chance.choice(recent)
            else:
                asked = " ".join(chance.choices(_WORDS, k=20))
                said = " ".join(chance.choices(_WORDS, k=40))
                topic = chance.choice(_WORDS)
                row = {"query": f"{number}: {asked}?", "reply": said, "topic": topic, "id": number}
                line = json.dumps(row) + "\n"
            recent = [*recent[-999:], line]
            file.write(line)


def measured(name: str, work: Callable[[], Any]) -> Any:
    """Runs `work`, which starts a process, and prints its time and that process's memory."""
    most, done = [0], threading.Event()

    def watch() -> None:
        me = psutil.Process()
        while not done.wait(0.05):
            for child in me.children(recursive=True):
                try:
                    most[0] = max(most[0], child.memory_info().rss)
                except psutil.Error:
                    continue

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    begin = time.monotonic()
    result = work()
    seconds = time.monotonic() - begin
    done.set()
    watcher.join()
    print(f"{name}: {seconds:.1f} s, at most {most[0] / 1e6:,.0f} MB resident", flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--near", action="store_true")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--all", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "rows.jsonl"
        write_rows(source, args.rows)
        print(f"{args.rows:,} rows, {source.stat().st_size / 1e6:,.0f} MB of JSON Lines")
        first = context().Process(target=os.getpid)  # waits for the fork server
        first.start()
        first.join()
        workspace = Workspace.open(Path(folder) / "workspace", allowed=[Path(folder)])
        steps = parse_steps([{"op": "drop_duplicates"}, {"op": "split", "eval_fraction": 0.1}])
        info = measured(
            "import, map, exact duplicates, split",
            lambda: call_isolated(
                import_dataset,
                workspace,
                [source],
                mapping={"prompt": "query", "completion": "reply"},
                steps=steps,
            ),
        )
        print(info.counts, f"{info.size_bytes() / 1e6:,.0f} MB on disk")
        if args.model:
            _statistics(workspace, info.id, args.model, 10_000)
        if args.near:
            near = parse_steps([{"op": "drop_near_duplicates"}])
            steps = [*steps[:1], *near, steps[1]]
            info = measured(
                "near duplicates", lambda: call_isolated(apply_steps, workspace, info.id, steps)
            )
            print(info.counts)
        if args.model and args.all:
            _statistics(workspace, info.id, args.model, None)


def _statistics(workspace: Workspace, dataset_id: str, model: Path, rows: int | None) -> None:
    from core.tokens.lens import Lens
    from core.worker.tokenizers import dataset_statistics

    measured(
        f"statistics of {f'{rows:,}' if rows else 'all'} rows",
        lambda: call_isolated(
            dataset_statistics,
            Workspace(workspace.root, (model,)),
            dataset_id,
            Lens(str(model), 1024),
            max_rows=rows,
        ),
    )


if __name__ == "__main__":
    main()
