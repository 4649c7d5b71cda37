"""Other models asked the same rows: a class for each kind of `core.evaluation.targets`."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from core.errors import ModelError
from core.evaluation.targets import Target, title_of
from core.jobs.job import read_record
from core.language import _
from core.models.trained import TrainedModel, find_trained
from core.remote.endpoint import EndpointModel, Pace, Refused, endpoint_from
from core.worker.evaluation.kept import Answers, stamp
from core.worker.evaluation.measure import Losses, answer_losses, write_answers
from core.worker.evaluation.rows import EvalRow, prompts_of
from core.worker.models.loading import open_model, open_tokenizer, open_trained, resolve_base

if TYPE_CHECKING:
    from core.worker.evaluation.writer import Writer

Share = Callable[[float], None]


class Asked(ABC):
    """A model that is asked a writer's rows. `losses` are known where its tokens are the same."""

    kind: ClassVar[str]
    losses: Losses | None = None

    def __init__(self, target: Target, writer: Writer) -> None:
        self.target, self.writer = target, writer

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

    @property
    def most(self) -> int:
        return self.writer.max_new_tokens


class _Loaded(Asked):
    """By transformers."""

    @abstractmethod
    def open(self) -> tuple[Any, Any]:
        """(model, tokenizer)."""

    @property
    def who(self) -> list[object]:
        return [self.target, self.writer.device, self.writer.dtype, *map(stamp, self.folders())]

    @abstractmethod
    def folders(self) -> list[str | Path]:
        """Where its weights are."""

    def answers(self, rows: Sequence[EvalRow], kept: Answers, tell: Share) -> list[str]:
        model, tokenizer = self.open()
        if self.has_same_tokens(tokenizer):
            self.losses = answer_losses(
                model, [row.tokens for row in rows], lambda done: tell(0.25 * done)
            )
        found: list[str] = write_answers(
            model,
            tokenizer,
            prompts_of(list(rows), tokenizer),
            max_new_tokens=self.most,
            tell=lambda done: tell(0.25 + 0.75 * done),
            lengths=[len(row.expected or "") for row in rows],
            kept=kept,
        )
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

    def open(self) -> tuple[Any, Any]:
        how = {"device": self.writer.device, "dtype": self.writer.dtype}
        return open_trained(self.trained(), self.base(), **how)


class Model(_Loaded):
    kind = "model"

    def folders(self) -> list[str | Path]:
        return [resolve_base(self.target.value, self.writer.workspace)]

    def open(self) -> tuple[Any, Any]:
        path = self.folders()[0]
        model = open_model(path, device=self.writer.device, dtype=self.writer.dtype)
        return model, open_tokenizer(path)


class Gguf(Asked):
    kind = "gguf"

    @property
    def file(self) -> Path:
        return self.writer.workspace.confine(self.target.value)

    @property
    def who(self) -> list[object]:
        return [self.target, stamp(self.file)]

    def answers(self, rows: Sequence[EvalRow], kept: Answers, tell: Share) -> list[str]:
        from core.worker.llama_cpp.client import LlamaCpp

        opened = LlamaCpp(self.file, None, self.writer.task.check_stop)
        found = dict(kept.known)
        try:
            for place, row in enumerate(rows):
                tell(place / len(rows))
                if place not in found:
                    found[place] = opened.chat(row.prompt, self.most).strip()
                    kept.wrote(place, found[place])
            return [found[place] for place in range(len(rows))]
        finally:
            opened.close()


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
