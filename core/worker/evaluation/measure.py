"""The loss of a model on expected answers, and its own answers.

Both run on a whole list of rows in batches that fit the memory: sorted by length, so that little
of a batch is padding, and handed back in the order that they came in."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList

from core.errors import TunesmithError
from core.language import _
from core.tokens.prompts import end_of_answer_ids
from core.tokens.tokenize import NO_LOSS, TokenizedRow
from core.worker.evaluation.kept import Answers
from core.worker.models.loading import scored_virtual_tokens, virtual_tokens

# Told with the share done; what it raises ends the work.
Share = Callable[[float], None]

# Room for one batch: tokens that go through the model at once (on a CPU no more than a second's
# work, after which a stop is seen), and bytes of logits (in 32 bits) and of keys and values.
_BATCH_TOKENS = {"cpu": 1024, "cuda": 16384}
LOGIT_BYTES = 256 * 2**20
_CACHE_BYTES = 1 * 2**30
_MOST_ROWS = 64
# Room for answers of new rows beyond the longest expected one, when no length was asked for.
_SPARE_TOKENS, _MOST_TOKENS = 16, 1024


@dataclass(frozen=True)
class Losses:
    """For each row the sum of -ln p over its answer's tokens (nats), and how many these are."""

    sums: NDArray[np.float64]
    tokens: NDArray[np.float64]


@torch.inference_mode()
def answer_losses(model: Any, rows: Sequence[TokenizedRow], tell: Share) -> Losses:
    """The cross entropy of each row's answer. Every row must carry loss.

    Rows are padded on the right, where a causal model does not see it, so the loss of a row does
    not depend on its neighbours. Logits are computed at answers only.
    """
    sums = np.zeros(len(rows))
    counts = np.array([row.loss_tokens for row in rows], dtype=np.float64)
    total, done = sum(row.length for row in rows), 0
    keeps_some = "logits_to_keep" in inspect.signature(_plain(model).forward).parameters
    vocabulary = int(model.get_input_embeddings().weight.shape[0])
    most_tokens = _BATCH_TOKENS.get(model.device.type, 4096)
    tell(0.0)
    for batch in _loss_batches(rows, most_tokens, vocabulary if keeps_some else None):
        losses = _batch_losses(model, [rows[i] for i in batch], keeps_some)
        sums[batch] = losses
        done += sum(rows[i].length for i in batch)
        tell(done / total)
    return Losses(sums, counts)


@torch.inference_mode()
def choice_losses(
    model: Any, rows: Sequence[TokenizedRow], logit_bytes: int = LOGIT_BYTES
) -> list[float]:
    """The cross entropy of answers to one question, which is read once: `rows` begin with the same
    tokens, which carry no loss. For a model without virtual tokens. Logits of several answers hold
    up to `logit_bytes`."""
    size = rows[0].labels.count(NO_LOSS)
    answers = [row.input_ids[size:] for row in rows]
    asked = torch.tensor([rows[0].input_ids[:size]], device=model.device)
    keeps_some = "logits_to_keep" in inspect.signature(_plain(model).forward).parameters
    read = model(asked, use_cache=True, **({"logits_to_keep": 1} if keeps_some else {}))
    first, vocabulary = read.logits[0, -1:].float(), read.logits.shape[-1]
    at_once = max(1, logit_bytes // (4 * vocabulary * max(map(len, answers))))
    losses: list[float] = []
    for begin in range(0, len(answers), at_once):
        some = answers[begin : begin + at_once]
        width = max(map(len, some))
        ids = torch.full((len(some), width), NO_LOSS, device=model.device)
        for place, answer in enumerate(some):
            ids[place, : len(answer)] = torch.tensor(answer)
        logits = first.expand(len(some), 1, -1)
        if width > 1:
            cache = copy.deepcopy(read.past_key_values)
            cache.batch_repeat_interleave(len(some))
            more = model(ids[:, :-1].clamp(min=0), past_key_values=cache, use_cache=True).logits
            logits = torch.cat([logits, more.float()], dim=1)
        each = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), ids.flatten(), ignore_index=NO_LOSS, reduction="none"
        )
        losses += each.view_as(ids).double().sum(dim=1).tolist()
    return losses


def _batch_losses(model: Any, rows: list[TokenizedRow], keeps_some: bool) -> list[float]:
    width = max(row.length for row in rows)
    ids = torch.zeros((len(rows), width), dtype=torch.long)
    labels = torch.full((len(rows), width), NO_LOSS, dtype=torch.long)
    for place, row in enumerate(rows):
        ids[place, : row.length] = torch.tensor(row.input_ids)
        labels[place, : row.length] = torch.tensor(row.labels)
    # The logits at one token say what the next should be.
    targets = labels[:, 1:]
    places = (targets != NO_LOSS).any(dim=0).nonzero().squeeze(1)
    device = model.device
    scored = places.to(device) + scored_virtual_tokens(model)
    if keeps_some:
        logits = model(ids.to(device), use_cache=False, logits_to_keep=scored).logits
    else:
        logits = model(ids.to(device), use_cache=False).logits[:, scored]
    targets = targets[:, places].to(logits.device)
    losses = torch.nn.functional.cross_entropy(
        logits.float().flatten(0, 1), targets.flatten(), ignore_index=NO_LOSS, reduction="none"
    )
    return [float(loss) for loss in losses.view_as(targets).double().sum(dim=1)]


def _loss_batches(
    rows: Sequence[TokenizedRow], most_tokens: int, vocabulary: int | None
) -> Iterator[list[int]]:
    """Rows of like length together, as many as the memory takes (at least one)."""
    most_logits = LOGIT_BYTES // (4 * vocabulary) if vocabulary else None
    batch: list[int] = []
    for i in sorted(range(len(rows)), key=lambda i: rows[i].length, reverse=True):
        wanted = [*batch, i]
        width = rows[wanted[0]].length
        answers = max(rows[j].loss_tokens for j in wanted)
        too_wide = len(wanted) * width > most_tokens
        too_tall = most_logits is not None and len(wanted) * answers > most_logits
        if batch and (too_wide or too_tall or len(wanted) > _MOST_ROWS):
            yield batch
            wanted = [i]
        batch = wanted
    if batch:
        yield batch


@torch.inference_mode()
def write_answers(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[list[int]],
    *,
    max_new_tokens: int,
    tell: Share,
    lengths: Sequence[int] | None = None,
    most_rows: int = _MOST_ROWS,
    kept: Answers | None = None,
) -> list[str]:
    """The model's most probable continuation (greedy) of each prompt, up to its end token.

    `lengths` are those of the expected answers: rows with long ones go together, since a batch
    takes as long as its longest answer. A prompt that the model cannot read to its end and answer
    (see `too_long`) has the answer "". At most `most_rows` are answered at once. Those that are
    `kept` are not written again.
    """
    kept = kept or Answers()
    answers = [kept.known.get(place, "") for place in range(len(prompts))]
    ends = end_of_answer_ids(model, tokenizer)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else (ends or [0])[0]
    settings = GenerationConfig(
        do_sample=False,
        num_beams=1,
        repetition_penalty=1.0,
        max_new_tokens=max_new_tokens,
        eos_token_id=ends or None,
        pad_token_id=pad,
    )
    left_out = set(too_long(model, prompts, max_new_tokens))
    order = sorted(
        set(range(len(prompts))) - left_out - set(kept.known),
        key=lambda i: (lengths[i] if lengths else 0, len(prompts[i])),
    )
    done = 0
    tell(0.0)
    longest = max((len(prompts[i]) for i in order), default=0)
    rows_at_once = _rows_at_once(model, longest + max_new_tokens, most_rows)
    while done < len(order):
        batch = order[done : done + rows_at_once]
        share = _Watch(tell, done / len(order), len(batch) / len(order), max_new_tokens)
        try:
            new = _generate(model, [prompts[i] for i in batch], settings, pad, share)
        except torch.OutOfMemoryError:
            if rows_at_once == 1:
                raise
            rows_at_once //= 2
            torch.cuda.empty_cache()
            continue
        for i, ids in zip(batch, new, strict=True):
            answers[i] = tokenizer.decode(_until(ids, ends), skip_special_tokens=True).strip()
            kept.wrote(i, answers[i])
        done += len(batch)
        tell(done / len(order))
    return answers


def too_long(model: Any, prompts: Sequence[list[int]], max_new_tokens: int) -> list[int]:
    """The places of the prompts that leave no room for an answer in the model's positions."""
    most = most_positions(model)
    if most is None:
        return []
    return [i for i, prompt in enumerate(prompts) if len(prompt) + max_new_tokens > most]


def longest_answer(asked: Any, expected: Sequence[str], tokenizer: Any) -> int:
    """How long an answer may become, in tokens: what was asked for, else half as many again as the
    longest that is expected. Raises TunesmithError."""
    if asked is not None:
        if int(asked) < 1:
            raise TunesmithError(
                _("max_new_tokens must be at least 1."), _("Leave it out, or raise it.")
            )
        return int(asked)
    texts = [text for text in expected if text]
    if not texts:
        return _SPARE_TOKENS
    longest = max(map(len, tokenizer(texts, add_special_tokens=False)["input_ids"]))
    return min(longest + longest // 2 + _SPARE_TOKENS, _MOST_TOKENS)


def most_positions(model: Any) -> int | None:
    """How many tokens a model reads; None where it does not say."""
    most = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return None if most is None else int(most) - virtual_tokens(model)


def _generate(
    model: Any, prompts: list[list[int]], settings: GenerationConfig, pad: int, watch: _Watch
) -> list[list[int]]:
    """The new tokens after each prompt. Padding stands on the left and is masked."""
    width = max(map(len, prompts))
    ids = torch.full((len(prompts), width), pad, dtype=torch.long)
    mask = torch.zeros((len(prompts), width), dtype=torch.long)
    for place, prompt in enumerate(prompts):
        ids[place, width - len(prompt) :] = torch.tensor(prompt)
        mask[place, width - len(prompt) :] = 1
    watch.width = width
    output = model.generate(
        input_ids=ids.to(model.device),
        attention_mask=mask.to(model.device),
        generation_config=settings,
        stopping_criteria=StoppingCriteriaList([watch]),
    )
    new: list[list[int]] = output[:, width:].tolist()
    return new


def _until(ids: list[int], ends: list[int]) -> list[int]:
    """The answer alone: behind its end a batch is filled up with padding."""
    return ids[: next((place for place, token in enumerate(ids) if token in ends), len(ids))]


class _Watch(StoppingCriteria):
    """Tells of each token that a batch has got further; never stops by itself."""

    def __init__(self, tell: Share, begin: float, share: float, steps: int) -> None:
        self.tell, self.begin, self.share, self.steps = tell, begin, share, steps
        self.width = 0

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        done = (input_ids.shape[1] - self.width) / self.steps
        self.tell(self.begin + self.share * min(done, 1.0))
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)


def _rows_at_once(model: Any, length: int, most: int) -> int:
    """As many rows as have room for the keys and values of `length` tokens, `most` at most."""
    config = model.config.get_text_config()
    queries = getattr(config, "num_attention_heads", None) or 1
    heads = getattr(config, "num_key_value_heads", None) or queries
    size = getattr(config, "head_dim", None) or config.hidden_size // queries
    a_token = 2 * config.num_hidden_layers * heads * size * model.dtype.itemsize
    room = _CACHE_BYTES
    if model.device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(model.device)
        room = free // 3
    return int(max(1, min(most, room // (a_token * length))))


def _plain(model: Any) -> Any:
    """The model itself, without PEFT around it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
