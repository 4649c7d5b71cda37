"""What of a conversation is learned, by the settings of a run and the marks of its turns."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from core.config import RunConfig
from core.config.sections import LearnedThoughts, LearnedTurns
from core.data.record import DatasetInfo
from core.data.rowfile import as_read

_DEFAULT = RunConfig().data


@dataclass(frozen=True)
class Learn:
    """The settings `data.learn` and `data.learn_thoughts`."""

    turns: LearnedTurns = _DEFAULT.learn
    thoughts: LearnedThoughts = _DEFAULT.learn_thoughts

    @classmethod
    def of(cls, config: RunConfig) -> Learn:
        return cls(config.data.learn, config.data.learn_thoughts)

    @property
    def everything(self) -> bool:
        return self.turns == "everything"

    @property
    def answers(self) -> Learn:
        """The same, but where everything is learned the answers alone: what is read and what is
        answered can then be told apart."""
        return Learn(thoughts=self.thoughts) if self.everything else self

    def answers_of(self, messages: Sequence[dict[str, Any]], learned_from: int) -> list[bool]:
        """For each turn whether it is an answer to learn; those before `learned_from` are not.

        An answer of weight 0 is none. A weight between 0 and 1 counts as 1.
        """
        found = [
            index >= learned_from
            and message["role"] == "assistant"
            and message.get("weight", 0 if self.turns == "marked" else 1) > 0
            for index, message in enumerate(messages)
        ]
        if self.turns == "last_answer":
            answers = [i for i, turn in enumerate(messages) if turn["role"] == "assistant"]
            found = [flag and index == answers[-1] for index, flag in enumerate(found)]
        return found


EVERYTHING = Learn("everything")

_ANSWERS = {"messages": "messages", "prompt-completion": "completion"}


def learns_nothing(info: DatasetInfo, learn: Learn) -> bool:
    """Whether no answer of the train part is to be learned, by the weights of its turns."""
    column = _ANSWERS.get(info.form)
    path = info.version_folder / "train.parquet"
    if learn.everything or column is None or not path.is_file():
        return False
    return _learns_nothing(path, info.fingerprint, column, learn)


@lru_cache(maxsize=64)
def _learns_nothing(path: Path, fingerprint: str, column: str, learn: Learn) -> bool:
    """Reads who speaks and the weights alone, and stops at the first answer to learn."""
    with pq.ParquetFile(path) as file:
        paths = [file.schema.column(place).path for place in range(len(file.schema.names))]
        wanted = [one for one in paths if re.fullmatch(rf"{column}\..*\.(role|weight)", one)]
        for batch in file.iter_batches(batch_size=1000, columns=wanted):
            for row in batch.to_pylist():
                turns = as_read(row).get(column, [])
                if any(learn.answers_of(turns, 0)):
                    return False
    return True


def last_good_answer(turns: Sequence[dict[str, Any]]) -> int | None:
    """The index of the last answer that a model may be compared with: one of weight 0 is not."""
    good = Learn("answers").answers_of(turns, 0)
    return max((index for index, flag in enumerate(good) if flag), default=None)
