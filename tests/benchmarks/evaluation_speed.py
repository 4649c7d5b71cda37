"""How much faster an evaluation answers rows than a loop that generates one after the other.

    python -m tests.benchmarks.evaluation_speed [--workspace FOLDER] [--rows 32] [--rounds 3]

The starter model with a LoRA of rank 8 answers the sample's held-out questions with 64 tokens at
most: by transformers' `generate` row by row, in 32 bits and in what `auto` makes of it here; and as
an evaluation on a CPU does, by batches in transformers and by llama.cpp with several at once. They
take turns; each has the median of its rounds, loading left out. Prints one JSON object with tokens
a second of each and how much of the answers is the same. Exits with 1 where llama.cpp is not three
times as fast as the better loop. Not a test.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TUNESMITH_DEVICE", "cpu")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
MODEL = "SmolLM2-135M-Instruct"
EVAL = Path(__file__).parents[2] / "assets" / "samples" / "support-tickets" / "eval.jsonl"
Write = Callable[[], list[str]]


def a_run(workspace: Any, folder: Path) -> Any:
    """A run that left a LoRA with weights that are not zero."""
    import torch
    from peft import LoraConfig, get_peft_model

    from core.models.trained import find_trained
    from core.rules import parse_config
    from core.worker.models.loading import open_model

    run = workspace.run("evaluation-speed")
    if not run.config.is_file():
        run.root.mkdir(parents=True)
        parse_config({"model.model_name_or_path": MODEL, "data.dataset": "none"}).save(run.config)
        base = open_model(folder, device="cpu", dtype=torch.float32)
        torch.manual_seed(0)
        settings = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear")
        model = get_peft_model(base, settings)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter.data, std=0.002)
        model.save_pretrained(run.adapter)
    return find_trained(run)


def one_by_one(model: Any, tokenizer: Any, prompts: list[list[int]], most: int) -> Write:
    import torch

    def write() -> list[str]:
        found = []
        for ids in prompts:
            asked = torch.tensor([ids])
            output = model.generate(
                input_ids=asked,
                attention_mask=torch.ones_like(asked),
                max_new_tokens=most,
                do_sample=False,
                pad_token_id=tokenizer.eos_token_id,
            )
            found.append(tokenizer.decode(output[0, len(ids) :], skip_special_tokens=True).strip())
        return found

    return write


def writers(root: Path, rows: int, most: int, stack: ExitStack) -> tuple[dict[str, Write], Any]:
    import torch

    from core.models.location import fetch_model
    from core.tokens.prompts import prompt_ids
    from core.worker.chat.llama import Wanted, llama_voices
    from core.worker.evaluation.kept import Answers
    from core.worker.evaluation.llama import AT_ONCE, close_llama, llama_answers
    from core.worker.evaluation.measure import write_answers
    from core.worker.models.loading import open_trained, pick_dtype, tokenizer_of
    from core.workspace import Workspace

    workspace = Workspace.open(root)
    folder = fetch_model(MODEL, workspace, lambda share, message: None)
    trained = a_run(workspace, folder)
    lines = EVAL.read_text(encoding="utf-8").splitlines()[:rows]
    tokenizer = tokenizer_of(trained, str(folder))
    prompts = [prompt_ids(json.loads(line)["messages"][:-1], tokenizer) for line in lines]
    how: dict[str, Any] = {"max_new_tokens": most, "tell": lambda share: None}
    found: dict[str, Write] = {}
    for dtype in dict.fromkeys([torch.float32, pick_dtype("auto", "cpu")]):
        model, _tokenizer = open_trained(trained, str(folder), device="cpu", dtype=dtype)
        name = str(dtype).removeprefix("torch.")
        found[f"loop {name}"] = one_by_one(model, tokenizer, prompts, most)
        found[f"batches {name}"] = partial(write_answers, model, tokenizer, prompts, **how)
    longest = max(map(len, prompts)) + most
    wanted = {0: Wanted(trained, folder, tokenizer, False)}
    voices, why = llama_voices(workspace, wanted, lambda share, message: None, AT_ONCE, longest)
    assert voices, why
    stack.callback(close_llama, voices)
    found["llama.cpp"] = lambda: llama_answers(voices[0], prompts, kept=Answers(), **how)
    return found, tokenizer


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with ExitStack() as stack:
        root = args.workspace or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        each, tokenizer = writers(root, args.rows, args.tokens, stack)
        seconds: dict[str, list[float]] = {name: [] for name in each}
        said: dict[str, list[str]] = {}
        for _round in range(args.rounds):
            for name, write in each.items():
                begun = time.perf_counter()
                said[name] = write()
                seconds[name].append(time.perf_counter() - begun)
                print(f"{name}: {seconds[name][-1]:.1f} s", file=sys.stderr)
    loop = said["loop float32"]
    told: dict[str, Any] = {}
    for name, times in seconds.items():
        tokens = sum(len(tokenizer(text)["input_ids"]) for text in said[name])
        median = statistics.median(times)
        same = sum(one == other for one, other in zip(said[name], loop, strict=True))
        told[name] = {
            "seconds": round(median, 2),
            "tokens_per_second": round(tokens / median, 1),
            "rows_as_loop_float32": same,
        }
    of = {name: one["seconds"] for name, one in told.items()}
    best = min(one for name, one in of.items() if name.startswith("loop"))
    times = {name: round(best / one, 2) for name, one in of.items()}
    print(
        json.dumps({"rows": args.rows, **told, "times": times, "load": os.getloadavg()}, indent=1)
    )
    return 0 if times["llama.cpp"] >= 3 else 1


if __name__ == "__main__":
    sys.exit(main())
