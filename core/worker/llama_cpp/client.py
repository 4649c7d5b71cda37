"""llama.cpp asked for what it makes of texts: its probabilities, its answers, its speed."""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import httpx2 as httpx
import torch

from core.errors import ExportError
from core.language import _
from core.worker.llama_cpp.process import EACH_ITS_OWN, end, open_server, start

# So many of the next token's probabilities are looked at; the rest is known by its sum.
_TOP = 256


@dataclass(frozen=True)
class TopLogits:
    """What llama.cpp says to places of texts: the logarithms of the most probable next tokens'
    probabilities, float32 (places, tokens), and which tokens those are, int64 of that shape."""

    logits: Any
    ids: Any

    def same_of(self, logits: Any) -> Any:
        """Of another model's logits (places, vocabulary) those of the same tokens."""
        return logits.gather(-1, self.ids)

    def told_of(self, logits: Any) -> TopLogits:
        """Of another model's logits (places, vocabulary) what is told of the same tokens: both are
        as little exact on others."""
        return TopLogits(self.same_of(logits.log_softmax(dim=-1)), self.ids)

    def log_probabilities(self, targets: Any, vocabulary: int) -> Any:
        """Of one token at each place; those that are not among the most probable share the rest
        equally."""
        rest = (1 - self.logits.exp().sum(dim=-1)).clamp(min=1e-12)
        rest = (rest / max(1, vocabulary - self.ids.shape[-1])).log()
        found = self.ids == targets[:, None]
        return torch.where(found.any(dim=-1), (self.logits * found).sum(dim=-1), rest)


def row_losses(
    file: Path, rows: Sequence[tuple[list[int], list[int]]], check_stop: Callable[[], None]
) -> Iterator[float]:
    """The sum of -ln p (nats) over what is learned of each row (tokens and labels), by the model of
    a GGUF file, as it comes. Raises ExportError, and what `check_stop` raises."""
    with TemporaryFile() as asked:
        asked.write(json.dumps(rows).encode())
        asked.seek(0)
        process = start("losses", file, stdin=asked, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        for _row in rows:
            check_stop()
            told = process.stdout.readline()
            if not told:
                raise ExportError(
                    _("llama.cpp cannot open {file}.", file=file.name),
                    _("What it said is in the job's worker.log."),
                )
            yield float(told)
    finally:
        end(process)


class LlamaCpp:
    """A GGUF file opened by llama.cpp, with an adapter on it if one is given. To be closed."""

    def __init__(
        self,
        file: Path,
        adapter: Path | None,
        check_stop: Callable[[], None],
        at_once: int = 1,
        context: int = 2048,
    ) -> None:
        self._check_stop, self._context, self.at_once = check_stop, context, at_once
        key = secrets.token_hex(16)
        laid = [adapter] if adapter else []
        self._process, address = open_server(file, laid, key=key, at_once=at_once, context=context)
        headers = {"Authorization": f"Bearer {key}"}
        how: dict[str, Any] = {"base_url": address, "headers": headers, "timeout": None}
        self._client = httpx.Client(**how, limits=httpx.Limits(**EACH_ITS_OWN))

    def close(self) -> None:
        self._client.close()
        end(self._process)

    def top(self, rows: Sequence[list[int]], most: int) -> TopLogits:
        """Of the next token after each of the last `most` tokens of each row."""
        places = [row[: at + 1] for row in rows for at in range(len(row))[-most:]]
        logits = torch.empty((len(places), _TOP))
        ids = torch.empty((len(places), _TOP), dtype=torch.long)
        # It tells nothing of a token that ends the text or is half a character: what it writes is
        # always an a, which changes none of the probabilities that it tells.
        written = self._post("/tokenize", {"content": "a"})["tokens"][-1]
        for number, tokens in enumerate(places):
            answer = self._ask(tokens, n_predict=1, n_probs=_TOP, logit_bias=[[written, 1e4]])
            found = answer["completion_probabilities"][0]["top_logprobs"][:_TOP]
            logits[number] = torch.tensor([one["logprob"] for one in found])
            ids[number] = torch.tensor([one["id"] for one in found])
        return TopLogits(logits, ids)

    def stops_after(self, tokens: list[int]) -> bool:
        """Whether it ends its turn after these tokens."""
        return str(self._ask(tokens, n_predict=2)["stop_type"]) == "eos"

    def prompt_ids(self, messages: list[dict[str, str]]) -> list[int]:
        """The tokens of a conversation that waits for an answer, by the template in the file."""
        prompt = self._post("/apply-template", {"messages": messages})["prompt"]
        asked = {"content": prompt, "add_special": True, "parse_special": True}
        return list(self._post("/tokenize", asked)["tokens"])

    def chat(self, messages: list[dict[str, str]], most: int = -1, **options: Any) -> str:
        """What it answers to a conversation, taking the most probable token each time, with `most`
        tokens at most; "" where it cannot read that and answer."""
        return self.answer(self.prompt_ids(messages), most, **options)

    def answer(self, prompt: list[int], most: int, **options: Any) -> str:
        """What it writes after a prompt's tokens, as `chat` does."""
        if len(prompt) + max(most, 1) > self._context:
            return ""
        return self.written(prompt, most, **options)

    def written(self, tokens: list[int], most: int, **options: Any) -> str:
        """What it writes after these tokens, `most` at most."""
        return str(self._ask(tokens, n_predict=most, **options)["content"])

    def tokens_per_second(self, tokens: list[int], count: int) -> float:
        """While it writes `count` tokens after these."""
        answer = self._ask(tokens, n_predict=count, ignore_eos=True)
        return float(answer["timings"]["predicted_per_second"])

    def _ask(self, tokens: list[int], **options: Any) -> dict[str, Any]:
        asked = {"prompt": tokens, "temperature": 0.0, "cache_prompt": True, **options}
        return self._post("/completion", asked)

    def _post(self, path: str, content: dict[str, Any]) -> dict[str, Any]:
        self._check_stop()
        try:
            answer = self._client.post(path, json=content)
            told = dict(answer.json())
        except (httpx.HTTPError, ValueError) as error:  # it has ended
            told = {"error": {"message": str(error)}}
        if "error" in told:
            raise ExportError(
                _("llama.cpp did not answer: {reason}.", reason=told["error"]["message"]),
                _("What it said is in the export's worker.log."),
            )
        return told
