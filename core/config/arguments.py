"""Arguments that a choice takes beside it, such as an optimizer's: known by name, kind and bounds.

A mapping field holds them; what is wrong is said in words, before any library sees them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from core.config.fields import KIND_NAMES, within
from core.errors import did_you_mean
from core.language import _


@dataclass(frozen=True)
class Argument:
    """One argument: its kind, what it may be, and whether it has to be given.

    `above` and `below` are bounds that are not allowed themselves.
    """

    kind: type
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    below: float | None = None

    @property
    def allowed(self) -> str:
        if self.choices:
            return _("one of {choices}", choices=", ".join(self.choices))
        above, below = self.above is not None, self.below is not None
        least, most = self.above if above else self.minimum, self.below if below else self.maximum
        return within(KIND_NAMES[self.kind.__name__], least, most, above, below)

    def takes(self, value: Any) -> bool:
        if self.choices:
            return value in self.choices
        if self.kind is bool or isinstance(value, bool):
            return self.kind is bool and isinstance(value, bool)
        if self.kind is str:
            return isinstance(value, str)
        if not isinstance(value, int if self.kind is int else (int, float)):
            return False
        return (
            (self.minimum is None or value >= self.minimum)
            and (self.maximum is None or value <= self.maximum)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )


def wrong_arguments(
    owner: str, given: Mapping[str, Any], known: Mapping[str, Argument]
) -> Iterator[str]:
    """What is wrong with the arguments `given` to `owner`, a sentence for each."""
    for name, value in given.items():
        argument = known.get(name)
        if not known:
            yield _("{owner} takes no arguments. Remove {name}.", owner=owner, name=name)
        elif argument is None:
            yield _(
                "{owner} has no argument {name}{end} It takes {names}.",
                owner=owner,
                name=name,
                end=did_you_mean(name, known),
                names=", ".join(known),
            )
        elif not argument.takes(value):
            yield _(
                "{name} of {owner} takes {allowed}, not {given}.",
                name=name,
                owner=owner,
                allowed=argument.allowed,
                given=repr(value),
            )
