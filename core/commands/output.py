"""What a command prints: its result on standard output, everything else on standard error."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO

from core.errors import ConfigError, TunesmithError
from core.language import _, unpack

DONE, FAILED, WRONG_USE, STOPPED = 0, 1, 2, 130


class UsageError(TunesmithError):
    """A command line that makes no sense: wrong use, which has an exit code of its own."""


@dataclass
class Output:
    """With `as_json` standard output gets one JSON object and nothing else."""

    as_json: bool = False
    stream: TextIO = field(default_factory=lambda: sys.stdout)

    def result(self, data: dict[str, Any], text: str) -> None:
        """The command's result: `data` as JSON, or `text` for a person."""
        if self.as_json:
            json.dump(unpack(data), self.stream, ensure_ascii=False, indent=2, default=str)
            self.stream.write("\n")
        elif text:
            self.stream.write(text.rstrip("\n") + "\n")
        self.stream.flush()

    def say(self, text: str) -> None:
        """Progress and remarks."""
        print(text, file=sys.stderr, flush=True)

    def error(self, error: BaseException) -> None:
        """What went wrong, for a person always and as JSON besides if that was asked for."""
        for line in error_lines(error):
            self.say(line)
        if self.as_json:
            self.result({"error": error_record(error)}, "")


def error_record(error: BaseException) -> dict[str, Any]:
    message = error.message if isinstance(error, TunesmithError) else str(error)
    hint = error.hint if isinstance(error, TunesmithError) else ""
    record: dict[str, Any] = {"type": type(error).__name__, "message": message, "hint": hint}
    if isinstance(error, ConfigError):
        record["problems"] = [
            {"field": p.field, "message": p.message, "also": list(p.also)} for p in error.problems
        ]
    return record


def error_lines(error: BaseException) -> list[str]:
    if isinstance(error, ConfigError):
        lines: list[str] = [_("Error: {error}", error=problem) for problem in error.problems]
        return [*lines, error.hint] if error.hint else lines
    if isinstance(error, TunesmithError):
        return [_("Error: {error}", error=error.message), *([error.hint] if error.hint else [])]
    return [_("Error: {error}", error=str(error) or type(error).__name__)]


def table(titles: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Columns as wide as they need to be; numbers to the right."""
    from wcwidth import ljust, rjust, width

    texts = [[_cell(value) for value in row] for row in rows]
    widths = [max(width(line[i]) for line in [list(titles), *texts]) for i in range(len(titles))]
    right = [
        all(isinstance(row[i], int | float | None) for row in rows) for i in range(len(titles))
    ]
    lines = [
        "  ".join(
            rjust(text, cells) if is_right else ljust(text, cells)
            for text, cells, is_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in [list(titles), *texts]
    ]
    return "\n".join(lines)


def pairs(rows: Sequence[tuple[str, Any]]) -> str:
    """Names and values, one pair a line; pairs without a value are left out."""
    from wcwidth import ljust, width

    shown = [(name, _cell(value)) for name, value in rows if value not in (None, "")]
    cells = max((width(name) for name, _value in shown), default=0)
    return "\n".join(f"{ljust(name, cells)}  {value}" for name, value in shown)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:,.4g}" if isinstance(value, float) else str(value)


def spell_bytes(size: float) -> str:
    """1536 -> `1.5 kB`; units of 1000, as disks are sold and downloads shown."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(size) < 1000 or unit == "GB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError("unreachable")


def spell_seconds(seconds: float | None) -> str:
    """3725 -> `1:02:05`, 65 -> `1:05`."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def spell_time(epoch_seconds: float | None) -> str:
    """The local day and minute."""
    if epoch_seconds is None:
        return ""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(epoch_seconds))
