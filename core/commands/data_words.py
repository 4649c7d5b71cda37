"""`data words`: words that would be worth a token of their own."""

from __future__ import annotations

import argparse
from typing import Any

from core.commands.opening import open_workspace
from core.commands.output import DONE, Output, UsageError, table


def add(actions: Any, common: argparse.ArgumentParser) -> None:
    words = actions.add_parser(
        "words",
        parents=[common],
        help="words that the model's tokenizer breaks into many pieces",
        description="Lists frequent words of the rows to learn that the model's tokenizer breaks "
        "into many pieces, and what a token of their own would save. Give them to a run with "
        "--vocabulary.new_tokens.",
    )
    words.add_argument("id", metavar="ID")
    words.add_argument("--model", metavar="MODEL", help="whose tokenizer (else the starter's)")
    words.add_argument("--most", type=int, default=20, metavar="N", help="list so many (20)")
    words.add_argument(
        "--min-count", type=int, default=5, metavar="N", help="only words that come so often (5)"
    )
    words.add_argument(
        "--min-pieces", type=int, default=3, metavar="N", help="only words of so many tokens (3)"
    )
    words.set_defaults(run=run_words)


def run_words(args: argparse.Namespace, output: Output) -> int:
    from core.commands.progress import fetch_progress
    from core.config import RunConfig
    from core.jobs.process import named
    from core.models.location import ensure_model

    for option in ("most", "min_count", "min_pieces"):
        if getattr(args, option) < 1:
            raise UsageError(f"--{option.replace('_', '-')} is a number of at least 1.")
    name = args.model or RunConfig().model.model_name_or_path
    workspace = open_workspace(args, name)
    ensure_model(name, workspace, fetch_progress)
    # Here and not in a worker: this process ends with the answer.
    found = named("core.worker.tokenizers:fragmented_words")(
        workspace,
        args.id,
        name,
        most=args.most,
        min_count=args.min_count,
        min_pieces=args.min_pieces,
        progress=lambda share: fetch_progress(share, "Counting words"),
    )
    rows = [
        (
            one["word"],
            one["count"],
            f"{one['pieces']}: {' '.join(one['split'])}",
            one["saved"],
        )
        for one in found["words"]
    ]
    text = table(("word", "times", "tokens now", "tokens saved"), rows)
    if not rows:
        text = "No word that comes often enough falls into so many pieces."
    output.result({"dataset": args.id, "model": name, **found}, text)
    return DONE
