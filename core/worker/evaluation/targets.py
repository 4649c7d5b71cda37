"""Other models asked the same rows: a class for each kind of `core.evaluation.targets`."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from core.errors import ExportError, ModelError
from core.evaluation.targets import Target, check_target, title_of
from core.jobs.job import read_record
from core.language import _
from core.models.trained import TrainedModel, find_trained
from core.remote.endpoint import EndpointModel, Pace, Refused, endpoint_from
from core.tokens.tokenize import NO_LOSS
from core.worker.chat.llama import Wanted, folder_of
from core.worker.evaluation.evaluator import Evaluator
from core.worker.evaluation.kept import Answers, stamp
from core.worker.evaluation.llama import AT_ONCE, llama_answers, open_llama, several
from core.worker.evaluation.measure import (
    Losses,
    answer_losses,
    most_positions,
    write_answers,
)
from core.worker.evaluation.rows import EvalRow, prompts_of
from core.worker.llama_cpp.client import LlamaCpp, row_losses
from core.worker.llama_cpp.memory import read_sizes, read_tokens, slots
from core.worker.models.loading import (
    open_model,
    open_tokenizer,
    open_trained,
    resolve_base,
    tokenizer_of,
)

Share = Callable[[float], None]
_LEAST_CONTEXT = 256  # enough to turn texts into tokens


class Asked(ABC):
    """A model that is asked rows, for answers of at most so many tokens, which llama.cpp can be
    held to write by a JSON `schema`. `at_once`: so many answers llama.cpp wrote at once, 0 where it
    was not asked. `why_not`: why a row has the answer "", by its place, where that is known."""

    kind: ClassVar[str]
    at_once = 0
    schema: dict[str, Any] | None = None

    def __init__(self, target: Target, writer: Evaluator[Any], most: int) -> None:
        self.target, self.writer, self.most = target, writer, most
        self.why_not: dict[int, str] = {}

    @property
    def title(self) -> str:
        return title_of(self.target)

    @property
    def who(self) -> list[object]:
        """What its answers depend on."""
        return [self.target]

    @abstractmethod
    def answers(self, rows: Sequence[EvalRow], kept: Answers, tell: Share) -> list[str]:
        """Its greedy answer to each row, but for those that are `kept`. Raises TunesmithError."""

    def losses(self, rows: Sequence[EvalRow], tell: Share) -> Losses | None:
        """Of the expected answers; None where its tokens are others, or nobody tells."""
        return None

    def check(self) -> None:
        """Raises TunesmithError where it is known, before anything is loaded, that it cannot
        answer."""
        check_target(self.target, self.writer.workspace)

    def _leave_out(self, place: int, tokens: int, limit: int) -> None:
        told = {"tokens": tokens, "limit": limit}
        self.why_not[place] = _(
            "With its answer this takes {tokens:,} tokens; the model reads {limit:,}.", **told
        )

    def options(self) -> dict[str, Any]:
        """Of llama.cpp's requests."""
        return {"json_schema": self.schema} if self.schema else {}


class Loaded(Asked):
    """A model in folders: llama.cpp answers where it can, else transformers."""

    @abstractmethod
    def tokenizer(self) -> Any: ...

    @abstractmethod
    def open(self) -> Any:
        """The model in transformers."""

    @cached_property
    def model(self) -> Any:
        return self.open()

    @abstractmethod
    def wanted(self) -> Wanted | None:
        """What llama.cpp is asked for; None for a base that is no folder."""

    @property
    def who(self) -> list[object]:
        return [self.target, self.writer.device, self.writer.dtype, *map(stamp, self.folders())]

    @abstractmethod
    def folders(self) -> list[str | Path]:
        """Where its weights are."""

    def answers(self, rows: Sequence[EvalRow], kept: Answers, tell: Share) -> list[str]:
        tokenizer = self.tokenizer()
        prompts = prompts_of(list(rows), tokenizer)
        longest = max(map(len, prompts)) + self.most
        voices = open_llama(self.writer, {0: self.wanted()}, longest)
        how: dict[str, Any] = {"max_new_tokens": self.most, "tell": tell, "kept": kept}
        if 0 in voices:
            self.at_once = voices[0].server.at_once
            self._note_long(prompts, voices[0].server.context)
            with closing(voices[0].server):
                return llama_answers(voices[0], prompts, **how, **self.options())
        self._note_long(prompts, most_positions(self.model))
        lengths = [len(row.expected or "") for row in rows]
        found: list[str] = write_answers(self.model, tokenizer, prompts, lengths=lengths, **how)
        return found

    def _note_long(self, prompts: Sequence[list[int]], limit: int | None) -> None:
        for place, prompt in enumerate(prompts):
            if limit is not None and len(prompt) + self.most > limit:
                self._leave_out(place, len(prompt) + self.most, limit)

    def check(self) -> None:
        super().check()
        self.folders()

    def losses(self, rows: Sequence[EvalRow], tell: Share) -> Losses | None:
        if not self.has_same_tokens(self.tokenizer()):
            return None
        found: Losses = answer_losses(self.model, [row.tokens for row in rows], tell)
        return found

    def has_same_tokens(self, tokenizer: Any) -> bool:
        """Whether a loss of one is a loss of the other: the same vocabulary and template."""
        own = self.writer.tokenizer
        same = tokenizer.get_vocab() == own.get_vocab()
        return bool(same and tokenizer.chat_template == own.chat_template)


class Run(Loaded):
    kind = "run"

    def trained(self) -> TrainedModel:
        run = self.writer.workspace.run(self.target.value)
        return find_trained(run, self.target.checkpoint)

    @property
    def title(self) -> str:
        record = read_record(self.writer.workspace.run(self.target.value).root)
        return title_of(self.target, str(record.get("name") or ""))

    def folders(self) -> list[str | Path]:
        return [self.trained().folder, self.base()]

    def base(self) -> str:
        return resolve_base(self.trained().base, self.writer.workspace)

    def tokenizer(self) -> Any:
        return tokenizer_of(self.trained(), self.base())

    def open(self) -> Any:
        how = {"device": self.writer.device, "dtype": self.writer.dtype}
        return open_trained(self.trained(), self.base(), **how)[0]

    def wanted(self) -> Wanted | None:
        folder = folder_of(self.base())
        return Wanted(self.trained(), folder, self.tokenizer(), False) if folder else None


class Model(Loaded):
    kind = "model"

    def folders(self) -> list[str | Path]:
        return [resolve_base(self.target.value, self.writer.workspace)]

    def tokenizer(self) -> Any:
        return open_tokenizer(self.folders()[0])

    def open(self) -> Any:
        return open_model(self.folders()[0], device=self.writer.device, dtype=self.writer.dtype)

    def wanted(self) -> Wanted | None:
        folder = folder_of(str(self.folders()[0]))
        return Wanted(None, folder, self.tokenizer(), False) if folder else None


def loss_tokens(rows: Sequence[EvalRow]) -> NDArray[np.float64]:
    """How many tokens carry each row's loss."""
    return np.array([row.tokens.loss_tokens for row in rows], dtype=np.float64)


class Gguf(Asked):
    kind = "gguf"

    @property
    def file(self) -> Path:
        return self.writer.workspace.confine(self.target.value)

    @property
    def who(self) -> list[object]:
        return [self.target, stamp(self.file)]

    def prompts(self, rows: Sequence[EvalRow]) -> list[list[int]]:
        """The tokens that llama.cpp makes of what each row asks."""
        check = self.writer.task.check_stop
        with closing(LlamaCpp(self.file, None, check, context=_LEAST_CONTEXT)) as opened:
            return [opened.prompt_ids(row.prompt) for row in rows]

    def losses(self, rows: Sequence[EvalRow], tell: Share) -> Losses | None:
        if not self._has_same_tokens(rows):
            return None
        asked = [(row.tokens.input_ids, row.tokens.labels) for row in rows]
        sums = []
        try:
            _limit, width = read_sizes(self.file)
            # One row at a time, its keys and values in 32 bits.
            slots(self.file, 2 * width, max(row.tokens.length for row in rows), 1)
            for loss in row_losses(self.file, asked, self.writer.task.check_stop):
                sums.append(loss)
                tell(len(sums) / len(rows))
        except ExportError as error:
            self.writer.task.log(str(error), level="warning")
            return None
        return Losses(np.array(sums), loss_tokens(rows))

    def _has_same_tokens(self, rows: Sequence[EvalRow]) -> bool:
        """Whether a loss of the file is one of the run: llama.cpp makes the same tokens of all
        that is asked, and they mean the same."""
        tokenizer = self.writer.tokenizer
        added, known = set(tokenizer.get_added_vocab().values()), read_tokens(self.file)
        own = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
        return (
            len(own) <= len(known)
            and all(one == known[at] for at, one in enumerate(own) if at not in added)
            and self.prompts(rows) == prompts_of(list(rows), tokenizer)
        )

    def answers(self, rows: Sequence[EvalRow], kept: Answers, tell: Share) -> list[str]:
        limit, width = read_sizes(self.file)
        check = self.writer.task.check_stop
        prompts = self.prompts(rows)
        lengths = [len(prompt) + self.most for prompt in prompts]
        for place, length in enumerate(lengths):
            if length > limit:
                self._leave_out(place, length, limit)
        fitting = [place for place in range(len(rows)) if place not in self.why_not]
        context = max((lengths[place] for place in fitting), default=_LEAST_CONTEXT)
        self.at_once = slots(self.file, width, context, AT_ONCE)
        with closing(LlamaCpp(self.file, None, check, self.at_once, context)) as opened:

            def write(place: int) -> str:
                return opened.written(prompts[place], self.most, **self.options()).strip()

            found = several(write, fitting, kept, tell, opened.close, self.at_once)
        return [found.get(place, "") for place in range(len(rows))]


@dataclass(frozen=True)
class _Request:
    model: str
    max_new_tokens: int
    temperature: float = 0.0
    requests_at_once: int = 4
    timeout_seconds: float = 120.0


class Endpoint(Asked):
    """One request a row, four at once. A request that is refused is an empty answer."""

    kind = "endpoint"

    def check(self) -> None:
        super().check()
        asyncio.run(self._greeted())

    async def _greeted(self) -> None:
        """Whether the endpoint is there, takes the key and knows the model."""
        async with EndpointModel(
            endpoint_from(), _Request(self.target.value, 16), Pace(6000)
        ) as one:
            with suppress(Refused):  # of this request alone
                await one.ask([{"role": "user", "content": "Hello"}])

    def losses(self, rows: Sequence[EvalRow], tell: Share) -> Losses | None:
        return asyncio.run(self._losses(rows, tell))

    async def _losses(self, rows: Sequence[EvalRow], tell: Share) -> Losses | None:
        """Of the tokens themselves, where the endpoint tells what it gives those of a text; the
        first row shows it."""
        request, sums = _Request(self.target.value, 1), np.zeros(len(rows))
        places, done = asyncio.Semaphore(request.requests_at_once), 0
        async with EndpointModel(endpoint_from(), request, Pace(6000)) as model:

            async def one(place: int) -> None:
                nonlocal done
                row = rows[place].tokens
                async with places:
                    told = await model.log_probabilities(row.input_ids)
                if not self._are_same([text for text, _logprob in told], row.input_ids):
                    raise Refused(_("its tokens are others"))
                logprobs = [logprob for _text, logprob in told]
                pairs = zip(row.labels, logprobs, strict=True)
                sums[place] = -sum(logprob for label, logprob in pairs if label != NO_LOSS)
                done += 1
                tell(done / len(rows))

            try:
                await one(0)
                await asyncio.gather(*map(one, range(1, len(rows))))
            except (Refused, ModelError) as error:
                said = _("No loss of {model}: {reason}.", model=self.title, reason=str(error))
                self.writer.task.log(said)
                return None
        return Losses(sums, loss_tokens(rows))

    def _are_same(self, texts: Sequence[str], ids: Sequence[int]) -> bool:
        """Whether what an endpoint calls these tokens is what they are: but for blanks, which some
        leave out, half characters, and special tokens, which have many names."""
        special = set(self.writer.tokenizer.all_special_ids)
        pairs = [
            (text.strip(), self.writer.tokenizer.decode([token]).strip())
            for text, token in zip(texts, ids, strict=True)
            if token not in special
        ]
        known = [pair for pair in pairs if all(pair) and "\ufffd" not in "".join(pair)]
        return bool(known) and all(told == own for told, own in known)

    def answers(self, rows: Sequence[EvalRow], kept: Answers, tell: Share) -> list[str]:
        return asyncio.run(self._all(rows, kept, tell))

    async def _all(self, rows: Sequence[EvalRow], kept: Answers, tell: Share) -> list[str]:
        request = _Request(self.target.value, self.most)
        places, done = asyncio.Semaphore(request.requests_at_once), 0
        async with EndpointModel(endpoint_from(), request, Pace(6000)) as model:

            async def one(place: int, row: EvalRow) -> str:
                nonlocal done
                if place in kept.known:
                    return kept.known[place]
                async with places:
                    try:
                        text = (await model.ask(row.prompt)).text.strip()
                        kept.wrote(place, text)
                    except Refused as error:
                        self.why_not[place] = error.args[0]
                        text = ""
                done += 1
                tell(done / len(rows))
                return text

            return await asyncio.gather(*map(one, range(len(rows)), rows))


ASKED: dict[str, type[Asked]] = {one.kind: one for one in (Run, Model, Gguf, Endpoint)}
