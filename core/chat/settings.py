"""What a chat is made of: columns side by side, how they answer, and what comes back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ValidationError

from core.config.fields import Section, field_specs, knob
from core.config.problems import problems_of
from core.errors import ConfigError
from core.language import N_, Text


class ChatSettings(Section):
    """How an answer is written."""

    temperature: float = knob(0.7, "Temperature", level="basic", ge=0, le=2)
    """0 always takes the most probable word; higher is more varied and less reliable."""

    top_p: float = knob(0.95, "Top-p", level="basic", gt=0, le=1)
    """Leaves out improbable words: only the most probable, which together have this probability,
    can be taken. 1 leaves out none."""

    top_k: int = knob(0, "Top-k", ge=0, le=100000)
    """Leaves out all but so many of the most probable words. 0 leaves out none."""

    min_p: float = knob(0.0, "Min-p", ge=0, le=1)
    """Leaves out words that are less probable than this share of the most probable one."""

    repetition_penalty: float = knob(1.0, "Repetition penalty", gt=0, le=2)
    """Above 1 makes words less probable that stood before; 1 leaves them as they are."""

    max_new_tokens: int = knob(
        256, "Longest answer", level="basic", unit="tokens", ge=1, le=1048576
    )
    """An answer is cut here if it has not ended before."""

    seed: int | None = knob(None, "Seed", ge=0, le=2**63 - 1)
    """The same seed and conversation give the same answer. Empty gives another one each time."""

    enable_thinking: Literal["auto", "on", "off"] = knob("auto", "Thinking")
    """Whether the model thinks before it answers, where its chat template leaves that open, as
    Qwen3's does. Others take no notice."""

    def variables(self) -> dict[str, Any]:
        """Those of the chat template."""
        if self.enable_thinking == "auto":
            return {}
        return {"enable_thinking": self.enable_thinking == "on"}


# How words are chosen, by a name: what is not said is as ChatSettings begins with.
SAMPLINGS: dict[str, tuple[Text, dict[str, float]]] = {
    "exact": (N_("Exact"), {"temperature": 0.0}),
    "balanced": (N_("Balanced"), {}),
    "varied": (N_("Varied"), {"temperature": 1.0, "top_p": 1.0, "min_p": 0.05}),
}
_SAMPLED = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")


def sampling(name: str) -> dict[str, float]:
    """The settings of ChatSettings that say how words are chosen."""
    first = ChatSettings().model_dump(include=set(_SAMPLED))
    return {**first, **SAMPLINGS[name][1]}


def chat_settings(values: dict[str, Any]) -> ChatSettings:
    """Settings from plain values. Raises ConfigError that names each wrong one."""
    try:
        return ChatSettings.model_validate(values)
    except ValidationError as error:
        specs = {spec.path: spec for spec in field_specs(ChatSettings)}
        raise ConfigError(problems_of(error, specs)) from error


@dataclass(frozen=True)
class Column:
    """A model to talk to: a run's checkpoint, or with `run_id` None the model `base` names.

    `base` is a starter model, a folder or a Hub id; a run names its own.
    """

    run_id: str | None = None
    checkpoint: str | None = None
    base: str | None = None
    label: str = ""


@dataclass(frozen=True)
class Piece:
    """A bit of an answer. `text` is new; `tokens` counts the answer so far; `first_seconds` went by
    until its first token came (0: not known yet).

    `reason` says of the last piece (`done`) why it is the last: "end" (the model ended its
    answer), "length" (max_new_tokens or the model's room), "stopped", or "error", with `error`.
    """

    text: str
    done: bool = False
    tokens: int = 0
    tokens_per_second: float = 0.0
    reason: str = ""
    error: str = ""
    first_seconds: float = 0.0


@dataclass(frozen=True)
class ColumnState:
    """A column's answer so far; the fields are those of Piece, `text` the whole answer."""

    text: str = ""
    done: bool = False
    tokens: int = 0
    tokens_per_second: float = 0.0
    reason: str = ""
    error: str = ""
    first_seconds: float = 0.0

    def plus(self, piece: Piece) -> ColumnState:
        return ColumnState(
            self.text + piece.text,
            piece.done,
            piece.tokens,
            piece.tokens_per_second,
            piece.reason,
            piece.error,
            piece.first_seconds or self.first_seconds,
        )


@dataclass(frozen=True)
class LoadedModels:
    """What a chat's process holds. `dtypes` has one entry for each column, `memory_bytes` is
    what the process takes of the machine's memory, `gpu_memory_bytes` of the GPU's (0: none).
    `notes` are for a person, such as on a base that is not that of the training."""

    pid: int
    columns: tuple[Column, ...]
    device: str
    dtypes: tuple[str, ...]
    memory_bytes: int
    gpu_memory_bytes: int = 0
    notes: tuple[str, ...] = ()
