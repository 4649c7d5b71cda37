"""How fast llama.cpp writes and begins to write, against transformers' own `generate`.

    python tests/benchmarks/chat_speed.py [--workspace FOLDER] [--tokens 128] [--rounds 3]

The starter model answers one question of the sample's tickets: in transformers, in 32 bits and in
what `auto` makes of it here, and in llama.cpp as f16 and q8_0 with all cores. They take turns, so
that a busy machine slows all alike; each has the median of its rounds. Prints one JSON object with
the machine's load. Exits with 1 where the better one of llama.cpp does not write three times as
fast as the better one of transformers, or takes more than a second to its first token. Not a test.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("TUNESMITH_DEVICE", "cpu")
# Threads that wait by working would only slow each other on a machine that others use, too.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
MODEL = "SmolLM2-135M-Instruct"
KINDS = ("f16", "q8_0")
# Seconds to the first token, and tokens a second after it.
Times = tuple[float, float]


def question() -> list[dict[str, str]]:
    path = ROOT / "assets" / "samples" / "support-tickets" / "eval.jsonl"
    with path.open(encoding="utf-8") as file:
        turns: list[dict[str, str]] = json.loads(file.readline())["messages"]
    return turns[:-1]


def in_transformers(folder: Path, dtype: Any, tokens: int) -> Callable[[], Times]:
    import torch
    from transformers import AutoTokenizer
    from transformers.generation.streamers import BaseStreamer

    from core.worker.models.loading import open_model

    class Clock(BaseStreamer):
        def __init__(self) -> None:
            self.times: list[float] = []

        def put(self, value: Any) -> None:
            self.times.append(time.perf_counter())

        def end(self) -> None: ...

    model = open_model(folder, device="cpu", dtype=dtype)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer.apply_chat_template(
        question(), add_generation_prompt=True, return_tensors="pt", return_dict=True
    )

    def write() -> Times:
        clock, begun = Clock(), time.perf_counter()
        with torch.inference_mode():
            model.generate(
                **inputs,
                max_new_tokens=tokens,
                min_new_tokens=tokens,
                do_sample=False,
                streamer=clock,
            )
        first, *_, last = clock.times[1:]  # the prompt comes first
        return first - begun, (tokens - 1) / (last - first)

    return write


def in_llama_cpp(file: Path, tokens: int, stack: ExitStack) -> Callable[[], Times]:
    import httpx2 as httpx

    from core.worker.llama_cpp.process import end, open_server

    key = secrets.token_hex(16)
    process, address = open_server(file, key=key)
    stack.callback(end, process)
    client = httpx.Client(
        base_url=address, headers={"Authorization": f"Bearer {key}"}, timeout=None
    )
    asked = {
        "messages": question(),
        "max_tokens": tokens,
        "temperature": 0.0,
        "ignore_eos": True,
        "stream": True,
        "cache_prompt": False,
    }

    def write() -> Times:
        begun, times = time.perf_counter(), []
        with client.stream("POST", "/v1/chat/completions", json=asked) as answer:
            for line in answer.iter_lines():
                if '"content":"' in line:
                    times.append(time.perf_counter())
        return times[0] - begun, (tokens - 1) / (times[-1] - times[0])

    return write


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()

    import torch

    from core.models.location import fetch_model
    from core.worker.llama_cpp.kept import kept_base
    from core.worker.models.loading import pick_dtype
    from core.workspace import Workspace

    with ExitStack() as stack:
        root = args.workspace or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        workspace = Workspace.open(root)
        folder = fetch_model(MODEL, workspace, lambda share, message: None)
        auto = pick_dtype("auto", "cpu")
        writers = {
            f"transformers {str(dtype).removeprefix('torch.')}": in_transformers(
                folder, dtype, args.tokens
            )
            for dtype in dict.fromkeys([torch.float32, auto])
        }
        for kind in KINDS:
            file = kept_base(workspace, folder, kind)
            writers[f"llama.cpp {kind}"] = in_llama_cpp(file, args.tokens, stack)
        found: dict[str, list[Times]] = {name: [] for name in writers}
        for _round in range(args.rounds):
            for name, write in writers.items():
                found[name].append(write())
                print(name, *(f"{one:.2f}" for one in found[name][-1]), file=sys.stderr)
    told = {
        name: {
            "first_token_seconds": round(statistics.median(one[0] for one in times), 3),
            "tokens_per_second": round(statistics.median(one[1] for one in times), 1),
        }
        for name, times in found.items()
    }
    fastest = {
        of: max(one["tokens_per_second"] for name, one in told.items() if name.startswith(of))
        for of in ("transformers", "llama.cpp")
    }
    times = fastest["llama.cpp"] / fastest["transformers"]
    first = min(told[f"llama.cpp {kind}"]["first_token_seconds"] for kind in KINDS)
    print(json.dumps({**told, "times": round(times, 2), "load": os.getloadavg()}, indent=1))
    return 0 if times >= 3 and first <= 1 else 1


if __name__ == "__main__":
    sys.exit(main())
