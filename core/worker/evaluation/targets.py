"""Other models asked the same rows: a class for each kind of `core.evaluation.targets`."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from core.errors import ModelError
from core.evaluation.targets import Target, title_of
from core.jobs.job import read_record
from core.language import _
from core.models.trained import TrainedModel, find_trained
from core.remote.endpoint import EndpointModel, Pace, Refused, endpoint_from
from core.worker.chat.llama import Wanted, folder_of
from core.worker.evaluation.kept import Answers, stamp
from core.worker.evaluation.llama import AT_ONCE, llama_answers, open_llama, several
from core.worker.evaluation.measure import Losses, answer_losses, write_answers
from core.worker.evaluation.rows import EvalRow, prompts_of
from core.worker.llama_cpp.client import LlamaCpp
from core.worker.models.loading import (
    open_model,
    open_tokenizer,
    open_trained,
    resolve_base,
    tokenizer_of,
)

if TYPE_CHECKING:
    from core.worker.evaluation.writer import Writer

Share = Callable[[float], None]
_OF_TEMPLATE = 256


class Asked(ABC):
    """A model that is asked rows, for answers of at most so many tokens, which llama.cpp can be
    held to write by a JSON `schema`. `by_llama`: it was llama.cpp that answered."""

    kind: ClassVar[str]
    by_llama = False
    schema: dict[str, Any] | None = None

    def __init__(self, target: Target, writer: Writer, most: int) -> None:
        self.target, self.writer, self.most = target, writer, most

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

    def options(self) -> dict[str, Any]:
        """Of llama.cpp's requests."""
        return {"json_schema": self.schema} if self.schema else {}


class _Loaded(Asked):
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
            self.by_llama = True
            with closing(voices[0].server):
                return llama_answers(voices[0], prompts, **how, **self.options())
        lengths = [len(row.expected or "") for row in rows]
        found: list[str] = write_answers(self.model, tokenizer, prompts, lengths=lengths, **how)
        return found

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


class Run(_Loaded):
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


class Model(_Loaded):
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


class Gguf(Asked):
    kind = "gguf"

    @property
    def file(self) -> Path:
        return self.writer.workspace.confine(self.target.value)

    @property
    def who(self) -> list[object]:
        return [self.target, stamp(self.file)]

    def answers(self, rows: Sequence[EvalRow], kept: Answers, tell: Share) -> list[str]:
        self.by_llama = True
        # A character is a token at most, but for the template's own.
        longest = max(sum(len(str(turn["content"])) for turn in row.prompt) for row in rows)
        check, context = self.writer.task.check_stop, longest + _OF_TEMPLATE + self.most
        with closing(LlamaCpp(self.file, None, check, AT_ONCE, context)) as opened:

            def write(place: int) -> str:
                return opened.chat(rows[place].prompt, self.most, **self.options()).strip()

            found = several(write, range(len(rows)), kept, tell, opened.close)
        return [found[place] for place in range(len(rows))]


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

    def answers(self, rows: Sequence[EvalRow], kept: Answers, tell: Share) -> list[str]:
        return asyncio.run(self._all(rows, kept, tell))

    async def _all(self, rows: Sequence[EvalRow], kept: Answers, tell: Share) -> list[str]:
        request = _Request(self.target.value, self.most)
        places, done = asyncio.Semaphore(request.requests_at_once), 0
        refused: list[str] = []
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
                        refused.append(str(error))
                        text = ""
                done += 1
                tell(done / len(rows))
                return text

            found = await asyncio.gather(*map(one, range(len(rows)), rows))
        if len(refused) == len(rows):
            raise ModelError(
                _("{model} answered no row: {reason}", model=self.title, reason=refused[0]),
                _("Check the model's name and what the endpoint takes."),
            )
        return found


ASKED: dict[str, type[Asked]] = {one.kind: one for one in (Run, Model, Gguf, Endpoint)}
