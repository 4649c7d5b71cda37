"""A data set on the Hub: what is asked for, and how it is written as one text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote

from core.errors import DataError

PREFIX = "hf:"
# Without an owner it may be a format's own name, which `datasets` takes first; so are buckets.
_ID = re.compile(r"(?!buckets/)[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_WRITTEN = "hf:owner/name?config=...&split=train&revision=main&fraction=0.1"


@dataclass(frozen=True)
class HubSource:
    """A split of a Hub data set. `fraction` is the share of its rows that is wanted, above 0 and
    up to 1. With `streaming`, only what is wanted is downloaded."""

    id: str
    config: str = ""
    split: str = "train"
    revision: str = "main"
    fraction: float = 1.0
    streaming: bool = True

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.id) or ".." in self.id:
            raise DataError(
                f"{self.id!r} is not the name of a data set on the Hub.",
                "It is written owner/name, such as stanfordnlp/imdb.",
            )
        if not 0 < self.fraction <= 1:
            raise DataError(
                f"A fraction of {self.fraction} of {self.id} is not possible.",
                "Give a number above 0 and up to 1, such as 0.1.",
            )
        if not self.split.strip() or not self.revision.strip():
            raise DataError(
                f"The split and the revision of {self.id} must not be empty.",
                "They are train and main unless you know better.",
            )

    def __str__(self) -> str:
        parts = {
            "config": self.config,
            "split": self.split if self.split != "train" else "",
            "revision": self.revision if self.revision != "main" else "",
            "fraction": f"{self.fraction:g}" if self.fraction < 1 else "",
            "streaming": "" if self.streaming else "false",
        }
        query = "&".join(f"{key}={quote(value)}" for key, value in parts.items() if value)
        return f"{PREFIX}{self.id}" + (f"?{query}" if query else "")


def parse_hub_source(text: str) -> HubSource:
    """`hf:owner/name?config=..&split=..&revision=..&fraction=0.1&streaming=false` as a HubSource.

    Raises DataError for a part that is not known or a value that cannot be.
    """
    name, _, query = text.removeprefix(PREFIX).strip().partition("?")
    given = dict(parse_qsl(query, keep_blank_values=True))
    unknown = given.keys() - {"config", "split", "revision", "fraction", "streaming"}
    if unknown:
        raise DataError(f"{text} has a part that is not known: {min(unknown)}.", _hint())
    try:
        fraction = float(given.get("fraction") or 1)
    except ValueError:
        raise DataError(f"The fraction in {text} is not a number.", _hint()) from None
    streaming = given.get("streaming", "true").lower()
    if streaming not in ("true", "false"):
        raise DataError(f"streaming in {text} is neither true nor false.", _hint())
    return HubSource(
        id=name.strip("/"),
        config=given.get("config", ""),
        split=given.get("split") or "train",
        revision=given.get("revision") or "main",
        fraction=fraction,
        streaming=streaming == "true",
    )


def _hint() -> str:
    return f"Write it as {_WRITTEN}."
