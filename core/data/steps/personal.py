"""The step that finds personal data and secrets in rows: masked, or the row dropped."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Literal

from core.config.fields import knob
from core.data.read.row import Row
from core.data.rowtext import TURN_COLUMNS, map_texts, texts
from core.data.steps.base import EachRow, RowWork, Setting, Step, Unusable
from core.data.steps.personal_patterns import KINDS, Kind, is_region
from core.errors import DataError


class PersonalData(Step):
    """Finds addresses, numbers and keys of people, which a model would learn by heart."""

    op = "personal_data"
    title = "Personal data and secrets"
    kind = "quality"

    action: Literal["mask", "drop"] = knob("mask", "Rows with a find", level="basic")
    """Mask writes [EMAIL], [PHONE], [KEY] and so on in its place, also in the columns beside the
    row. Drop drops the row."""

    email: bool = knob(True, "E-mail addresses", level="basic")
    """Finds addresses such as name@example.com."""

    phone: bool = knob(True, "Phone numbers", level="basic")
    """Finds numbers that are valid in the numbering plan of their country."""

    region: str = knob("US", "Country of phone numbers", when={"phone": [True]}, max_length=2)
    """Two letters of the country whose numbers need no +; empty finds only numbers with one."""

    keys: bool = knob(True, "Keys and tokens", level="basic")
    """Finds private keys, passwords in addresses and the tokens of well-known services."""

    credit_card: bool = knob(True, "Credit cards")
    """Finds card numbers whose check digit is right."""

    iban: bool = knob(True, "Bank accounts")
    """Finds account numbers (IBAN) whose check digits are right."""

    ip_address: bool = knob(True, "IP addresses")
    """Finds addresses of the public internet, not those of local networks."""

    def start(self, setting: Setting) -> RowWork:
        kinds = [kind for name, kind in KINDS.items() if getattr(self, name)]
        if not kinds:
            raise DataError("No kind of personal data is chosen.", "Choose one, or leave it out.")
        region = self.region.strip().upper()
        if self.phone and region and not is_region(region):
            raise DataError(
                f"{self.region!r} is no country's code.", "Write two letters, such as US or DE."
            )
        if self.action == "drop":
            return EachRow(lambda row: _without(row, kinds, region))
        return EachRow(lambda row: _masked_row(row, lambda text: masked(text, kinds, region)))


def finds(text: str, kinds: Sequence[Kind], region: str) -> list[tuple[int, int, Kind]]:
    """(begin, end, kind) of each find in a text, in order. Where two overlap, the first kind has
    the place."""
    found: list[tuple[int, int, Kind]] = []
    for kind in kinds:
        for begin, end in kind.find(text, region):
            if all(end <= other[0] or begin >= other[1] for other in found):
                found.append((begin, end, kind))
    return sorted(found, key=lambda one: one[0])


def masked(text: str, kinds: Sequence[Kind], region: str) -> str:
    """The text with each find replaced by the mask of its kind."""
    pieces: list[str] = []
    place = 0
    for begin, end, kind in finds(text, kinds, region):
        pieces += [text[place:begin], kind.mask]
        place = end
    return "".join([*pieces, text[place:]]) if pieces else text


def _without(row: Row, kinds: Sequence[Kind], region: str) -> Row:
    names: dict[str, None] = {}
    for text in [*texts(row), *_calls(row)]:
        names |= dict.fromkeys(kind.name for _, _, kind in finds(text, kinds, region))
    if names:
        raise Unusable(", ".join(names))
    return row


def _calls(row: Row) -> list[str]:
    turns = [turn for column in TURN_COLUMNS for turn in row.get(column) or ()]
    return [turn["tool_calls"] for turn in turns if turn.get("tool_calls")]


def _masked_row(row: Row, mask: Callable[[str], str]) -> Row:
    changed = map_texts(row, mask)
    for column in TURN_COLUMNS:
        turns = changed.get(column) or ()
        if any(turn.get("tool_calls") for turn in turns):
            mended = [_masked_turn(turn, mask) for turn in turns]
            if mended != turns:
                changed = {**changed, column: mended}
    meta = changed.get("meta")
    if meta:
        clean = _masked_values(meta, mask)
        if clean != meta:
            changed = {**changed, "meta": clean}
    return changed


def _masked_turn(turn: dict[str, str], mask: Callable[[str], str]) -> dict[str, str]:
    calls = turn.get("tool_calls")
    if not calls:
        return turn
    try:
        parsed = json.loads(calls)
    except ValueError:
        return {**turn, "tool_calls": mask(calls)}
    clean = _masked_values(parsed, mask)
    if clean == parsed:
        return turn
    return {**turn, "tool_calls": json.dumps(clean, ensure_ascii=False)}


def _masked_values(value: Any, mask: Callable[[str], str]) -> Any:
    """A JSON value with each text in it masked, so that it stays JSON."""
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, dict):
        return {key: _masked_values(item, mask) for key, item in value.items()}
    if isinstance(value, list):
        return [_masked_values(item, mask) for item in value]
    return value


STEPS = (PersonalData,)
