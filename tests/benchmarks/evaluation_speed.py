"""How much faster an evaluation writes its answers in batches than a loop of `generate` calls does,
on the sample's held-out questions: `python -m tests.benchmarks.evaluation_speed --model FOLDER`."""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from core.tokens.prompts import prompt_ids
from core.worker.evaluation.measure import write_answers


def one_by_one(model: Any, tokenizer: Any, prompts: list[list[int]], most: int) -> int:
    """What a short script does; the tokens that it wrote."""
    written = 0
    for ids in prompts:
        asked = torch.tensor([ids])
        output = model.generate(
            input_ids=asked,
            attention_mask=torch.ones_like(asked),
            max_new_tokens=most,
            do_sample=False,
            pad_token_id=tokenizer.eos_token_id,
        )
        written += output.shape[1] - len(ids)
    return written


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForCausalLM.from_pretrained(args.model).eval()
    questions = [
        f"Ticket {number}: my router blinks red since {number % 24} o'clock and nothing helps. "
        + "I have tried to restart it. " * (number % 5)
        for number in range(args.rows)
    ]
    prompts = [prompt_ids([{"role": "user", "content": one}], tokenizer) for one in questions]
    ratios = []
    for round_ in range(args.rounds):
        begun = time.perf_counter()
        one_by_one(model, tokenizer, prompts, args.tokens)
        alone = time.perf_counter() - begun
        begun = time.perf_counter()
        write_answers(
            model, tokenizer, prompts, max_new_tokens=args.tokens, tell=lambda share: None
        )
        batched = time.perf_counter() - begun
        ratios.append(alone / batched)
        print(f"round {round_ + 1}: one by one {alone:.1f} s, batched {batched:.1f} s")
    print(f"{args.rows} rows, {args.tokens} tokens at most: {statistics.median(ratios):.2f} times")


if __name__ == "__main__":
    main()
