"""One tree of exceptions. Each says what is wrong and, in `hint`, what to do next.

TunesmithError
├── ConfigError        a setting is wrong; `problems` names each field
├── WorkspaceError     a path that is missing, taken or outside the workspace
├── DataError          a file or a data set that cannot be used
├── ModelError         a model that cannot be found, loaded or does not fit the request
├── JobError           a run that does not exist or is not in the right state
├── TrainingError      a training that cannot go on
├── ExportError        an export that failed its own check
├── HubError           the Hub refused, or does not answer
└── SetupError         the environment: a missing package, device, port or password
"""

from __future__ import annotations

import difflib
import errno
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce

from core.language import N_, Said, _


class TunesmithError(Exception):
    """`message` says what happened and where, `hint` says what to do next."""

    message: Said = Said()
    hint: Said = Said()

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        if not self.hint:
            return self.message
        return _("{message} {hint}", message=self.message, hint=self.hint)


@dataclass(frozen=True)
class Problem:
    """One wrong setting. `field` is a dotted path such as `training.learning_rate`.

    `also` names the other fields of a rule that spans several.
    """

    field: str
    message: Said = Said()
    also: tuple[str, ...] = ()

    def __str__(self) -> str:
        return _("{field}: {message}", field=self.field, message=self.message)


_MEND = N_("Change the fields named.")


class ConfigError(TunesmithError):
    """A configuration that breaks a bound or a rule; `problems` has one entry for each."""

    def __init__(self, problems: Sequence[Problem], hint: str = _MEND) -> None:
        self.problems = tuple(problems)
        said = {f"problem_{place}": ended(str(one)) for place, one in enumerate(problems)}
        super().__init__(_(" ".join(f"{{{name}}}" for name in said), **said), hint)

    def __reduce__(self) -> tuple[type[ConfigError], tuple[tuple[Problem, ...], str]]:
        """How it goes from one process to another: with its problems, not its text."""
        return ConfigError, (self.problems, self.hint)


# How like a name must be to be what was meant: two letters of six may be wrong, hardly more.
_LIKE = 0.7


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name` is a slip of the pen for, whatever its case; None where nothing
    is near: a guess that is far off leads astray."""
    by_lower = {one.lower(): one for one in known}
    near = difflib.get_close_matches(name.lower(), list(by_lower), n=1, cutoff=_LIKE)
    return by_lower[near[0]] if near else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: the nearest known one, or a full stop."""
    near = nearest(name, known)
    return _("; did you mean {near}?", near=near) if near else _(".")


def ended(text: str) -> str:
    """The text with a full stop, where it has none."""
    return text if text.endswith((".", "?", "。", "？")) else _("{text}.", text=text)


def either(words: Sequence[str]) -> str:
    """`one or other`, of words of which there is at least one."""
    return reduce(lambda one, other: _("{one} or {other}", one=one, other=other), words)


# As SQLite, torch and Rust say it; none of them hands the system's number on.
_NO_ROOM = (
    "disk is full",
    "no space left on device",
    "pytorchstreamwriter failed writing",
    ". unexpected pos ",
)


# What systems say most often, for the catalogues.
_REASONS = (
    N_("File exists"),
    N_("Input/output error"),
    N_("Invalid argument"),
    N_("Is a directory"),
    N_("No such file or directory"),
    N_("Not a directory"),
    N_("Permission denied"),
    N_("Read-only file system"),
    N_("Too many open files"),
)


def disk_full(error: BaseException) -> bool:
    """Whether something could not be written because the disk, or the share of it that one may
    fill, is full."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return any(words in str(error).lower() for words in _NO_ROOM)


def reason_of(error: BaseException) -> str:
    """Why a file could not be read or written, as the end of a sentence without its full stop."""
    if disk_full(error):
        return _("the disk is full")
    number = error.errno if isinstance(error, OSError) else None
    return _(os.strerror(number)) if number else str(error).removesuffix(".")


class WorkspaceError(TunesmithError):
    """A path that is missing, taken, or outside what the owner allowed."""


class DataError(TunesmithError):
    """A file or data set that cannot be used."""


class ModelError(TunesmithError):
    """A model that cannot be found, loaded, or does not fit the request."""


class JobError(TunesmithError):
    """A run that does not exist or is not in the state the request needs."""


class TrainingError(TunesmithError):
    """A training that cannot go on."""


class MemoryRanOut(TrainingError):
    """The memory was not enough for the run as it is set."""


class ExportError(TunesmithError):
    """An export that could not be written or failed its own check."""


class HubError(TunesmithError):
    """The Hub refused, or does not answer."""


class SetupError(TunesmithError):
    """The environment is not fit: a package, device, port or password is missing."""
