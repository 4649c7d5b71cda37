"""The step that finds personal data and secrets in rows: masked, or the row dropped.

Each finder yields (begin, end) of characters, and is sure of what it yields: check digits,
registered prefixes and valid numbering plans are looked at, so that ordinary numbers and words are
left alone.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from typing import Any, Literal

from core.config.fields import knob
from core.data.read.row import Row
from core.data.rowtext import TURN_COLUMNS, map_texts, texts
from core.data.steps.base import EachRow, RowWork, Setting, Step, Unusable
from core.errors import DataError
from core.language import N_, Said, _

Span = tuple[int, int]


@dataclass(frozen=True)
class Kind:
    """A kind of personal data: what stands in its place, and its name in a reason."""

    mask: str
    name: str
    find: Callable[[str, str], Iterator[Span]]
    """Of a text and the region whose phone numbers need no country code."""


_EMAIL = re.compile(
    r"(?<![\w.+-])[A-Za-z0-9](?:[A-Za-z0-9._%+-]{0,62}[A-Za-z0-9_])?"
    r"@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+([A-Za-z]{2,24})(?![\w-])"
)
_FILE_ENDINGS = frozenset("png jpg jpeg gif svg webp css js py".split())


def find_emails(text: str, region: str = "") -> Iterator[Span]:
    if "@" in text:
        for match in _EMAIL.finditer(text):
            if match.group(1).lower() not in _FILE_ENDINGS:  # as in icon@2x.png
                yield match.span()


# (texts of which one stands in every such key, how it looks)
_KEYS: tuple[tuple[tuple[str, ...], re.Pattern[str]], ...] = tuple(
    (tuple(hints.split()), re.compile(pattern))
    for hints, pattern in (
        ("AKIA ASIA ABIA ACCA", r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}\b"),
        ("ghp_ gho_ ghu_ ghs_ ghr_", r"\bgh[pousr]_[A-Za-z0-9]{36,255}\b"),
        ("github_pat_", r"\bgithub_pat_\w{22,255}\b"),
        ("glpat- gldt- glrt- glptt-", r"\bgl(?:pat|dt|rt|ptt)-[\w-]{20,}"),
        ("hf_", r"\bhf_[A-Za-z0-9]{30,40}\b"),
        ("sk-", r"\bsk-(?=[\w-]*\d)(?=[\w-]*[A-Za-z])[\w-]{20,}"),
        ("AIza", r"\bAIza[\w-]{35}"),
        ("ya29.", r"\bya29\.[\w-]{20,}"),
        ("xox", r"\bxox[abeoprs]-(?=[\w-]*\d)[\w-]{10,}"),
        ("hooks.slack.com", r"https://hooks\.slack\.com/services/T\w+/B\w+/\w+"),
        ("SG.", r"\bSG\.[\w-]{22}\.[\w-]{43}"),
        ("k_live_ k_test_", r"\b[rsp]k_(?:live|test)_[A-Za-z0-9]{16,}"),
        ("npm_", r"\bnpm_[A-Za-z0-9]{36}\b"),
        ("pypi-", r"\bpypi-[\w-]{50,}"),
        ("dop_v1_", r"\bdop_v1_[0-9a-f]{64}\b"),
        ("shpat_", r"\bshpat_[0-9a-fA-F]{32}\b"),
        ("sq0", r"\bsq0(?:csp|atp|idp)-[\w-]{22,43}"),
        ("AC SK", r"\b(?:AC|SK)[0-9a-f]{32}\b"),
        (":AA", r"\b\d{8,10}:AA[\w-]{33}\b"),
        ("eyJ", r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]*"),
        ("AccountKey=", r"(?<=AccountKey=)[A-Za-z0-9+/]{40,}={0,2}"),
        ("://", r"(?<=://)[^\s:/@?#\"']+:[^\s/@?#\"']+(?=@)"),
        (
            "PRIVATE",
            r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----"
            r"(?:[\s\S]{0,20000}?-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----"
            r"|[A-Za-z0-9+/=\s]{0,20000})",
        ),
    )
)
_NAMED_KEY = re.compile(
    r"(?i:api[_-]?key|secret[_-]?key|access[_-]?key|access[_-]?token|auth[_-]?token|"
    r"client[_-]?secret|bearer)[\"']?\s{0,3}(?:[:=]|\s)\s{0,3}[\"']?"
    r"((?=[\w+/.-]*\d)(?=[\w+/.-]*[A-Za-z])[\w+/.-]{20,}={0,2})"
)
_NAMES = ("key", "token", "secret", "bearer")


def find_keys(text: str, region: str = "") -> Iterator[Span]:
    """Keys and tokens of well-known services by their prefixes, private keys, passwords in
    addresses, and long random values that are called a key or a token."""
    for hints, pattern in _KEYS:
        if any(hint in text for hint in hints):
            yield from (match.span() for match in pattern.finditer(text))
    lower = text.lower()
    if any(name in lower for name in _NAMES):
        yield from (match.span(1) for match in _NAMED_KEY.finditer(text))


_CARD = re.compile(r"(?<![\w.,+-])\d(?:[ -]?\d){12,18}(?![\w-]|[.,]\d)")
_LONG_NUMBER = re.compile(r"\d[\d -]{12,}\d")
_ISSUERS = re.compile(
    r"4(?:\d{15}|\d{18})|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}"
    r"|3[47]\d{13}|3(?:0[0-5]|[68]\d)\d{11}|6(?:011|5\d\d|4[4-9]\d)\d{12}|35(?:2[89]|[3-8]\d)\d{12}"
)


def find_cards(text: str, region: str = "") -> Iterator[Span]:
    """Card numbers of the known issuers whose check digit is right (Luhn, ISO/IEC 7812)."""
    if not _LONG_NUMBER.search(text):
        return
    for match in _CARD.finditer(text):
        digits = re.sub(r"\D", "", match.group())
        if _ISSUERS.fullmatch(digits) and len(set(digits)) > 1 and passes_luhn(digits):
            yield match.span()


def passes_luhn(digits: str) -> bool:
    doubled = [int(d) * 2 for d in digits[-2::-2]]
    return (sum(map(int, digits[-1::-2])) + sum(d - 9 if d > 9 else d for d in doubled)) % 10 == 0


_IBAN_LENGTHS = {
    item[:2]: int(item[2:])
    for item in (
        "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DK18 "
        "DO28 EE20 EG29 ES24 FI18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HR21 HU28 IE22 IL23 "
        "IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 "
        "MR27 MT31 MU30 NL18 NO15 PK24 PL28 PS29 PT25 QA29 RO24 RS22 SA24 SC31 SE24 SI19 SK24 "
        "SM27 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20"
    ).split()
}
_IBAN_HEAD = re.compile(r"\b[A-Z]{2}\d{2}(?= ?[A-Z0-9])")
_IBAN_SIGN = re.compile(r" ?([A-Z0-9])")


def find_ibans(text: str, region: str = "") -> Iterator[Span]:
    """Account numbers of a country's right length whose check digits are right (ISO 13616)."""
    for match in _IBAN_HEAD.finditer(text):
        iban, end = match.group(), match.end()
        length = _IBAN_LENGTHS.get(iban[:2], 0)
        while len(iban) < length and (sign := _IBAN_SIGN.match(text, end)):
            iban, end = iban + sign.group(1), sign.end()
        if not length or len(iban) < length or text[end : end + 1].isalnum():
            continue
        if int("".join(str(int(sign, 36)) for sign in iban[4:] + iban[:4])) % 97 == 1:
            yield match.start(), end


_IPV4 = re.compile(r"(?<![\w.-])(?:\d{1,3}\.){3}\d{1,3}(?![\w-]|\.\d)")
_IPV6 = re.compile(
    r"(?<![\w:.])[23][0-9a-fA-F]{3}:(?:[0-9a-fA-F]{0,4}:){1,6}[0-9a-fA-F]{1,4}(?![\w:])"
)
_DOTTED = re.compile(r"\d\.\d{1,3}\.\d")
_WITH_COLONS = re.compile(r":[0-9a-fA-F]{0,4}:")
_VERSION = re.compile(r"(?i)(?:\bversion|\bv|\brelease|\bfirmware|\bsection|\bclause)\W*$")


def find_addresses(text: str, region: str = "") -> Iterator[Span]:
    """Addresses of the public internet; those of local networks belong to nobody."""
    for pattern, sign in ((_IPV4, _DOTTED), (_IPV6, _WITH_COLONS)):
        if not sign.search(text):
            continue
        for match in pattern.finditer(text):
            before = text[max(match.start() - 20, 0) : match.start()]
            if _is_public(match.group()) and not _VERSION.search(before):
                yield match.span()


def _is_public(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_global
    except ValueError:
        return False


# Seven to fifteen digits, at most two signs between two of them. The numbering plans decide; this
# spares asking them about most numbers, which takes twenty times longer.
_MAYBE_PHONE = re.compile(r"[+(]?\d(?:[ ().\-/\u00a0]{0,2}\d){6,16}")
_SIGNS = re.compile(r"\d[ ().\-/\u00a0]+\d|^\(")
_DECIMALS = re.compile(r"\d+\.\d+(?: \d+\.\d+)*")
_CALLED = re.compile(
    r"(?i)(?:phone|tel|telephone|call|mobile|cell|fax|telefon|tél|móvil|whatsapp|number)\W{0,12}$"
)
_NO_PHONE_BEFORE = re.compile(r"[\w$€£=/#.,^*+-]$|[=*^/<>]\s$")
_NO_PHONE_AFTER = re.compile(r"[\w%=^*]|\s?[=*^<>]")
_AROUND = 24


def find_phones(text: str, region: str = "") -> Iterator[Span]:
    """Numbers that are valid in the numbering plan of their country, with a country code or
    written as that of `region`. A bare run of digits counts only where it is called a phone."""
    done = 0
    for maybe in _MAYBE_PHONE.finditer(text):
        begin, end = maybe.span()
        before = text[max(begin - _AROUND, 0) : begin]
        if begin < done or not _may_be_phone(maybe.group(), before, text[end : end + 2]):
            continue
        phonenumbers, leniency = _phonenumbers()
        start = max(begin - 1, 0)
        part = text[start : end + _AROUND // 2]
        for found in phonenumbers.PhoneNumberMatcher(part, region or None, leniency=leniency):
            if found.start <= end - start:
                yield start + found.start, start + found.end
                done = start + found.end


def _may_be_phone(raw: str, before: str, after: str) -> bool:
    if _NO_PHONE_BEFORE.search(before) or _NO_PHONE_AFTER.match(after):
        return False
    if raw.startswith("+"):
        return True
    if _SIGNS.search(raw) and not _DECIMALS.fullmatch(raw):
        return True
    return _CALLED.search(before) is not None


@lru_cache(maxsize=1)
def _phonenumbers() -> tuple[Any, Any]:
    import phonenumbers

    return phonenumbers, phonenumbers.Leniency.STRICT_GROUPING


def is_region(code: str) -> bool:
    """Whether phone numbers of a country, such as US, are known."""
    return code in _phonenumbers()[0].SUPPORTED_REGIONS


KINDS: dict[str, Kind] = {
    "keys": Kind("[KEY]", N_("key or token"), find_keys),
    "email": Kind("[EMAIL]", N_("e-mail address"), find_emails),
    "iban": Kind("[IBAN]", N_("bank account"), find_ibans),
    "credit_card": Kind("[CARD]", N_("credit card"), find_cards),
    "ip_address": Kind("[IP]", N_("IP address"), find_addresses),
    "phone": Kind("[PHONE]", N_("phone number"), find_phones),
}
"""By field name, in the order in which they claim a place in a text."""


class PersonalData(Step):
    """Finds addresses, numbers and keys of people, which a model would learn by heart."""

    op = "personal_data"
    title = Said(N_("Personal data and secrets"))
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
            raise DataError(
                _("No kind of personal data is chosen."), _("Choose one, or leave it out.")
            )
        region = self.region.strip().upper()
        if self.phone and region and not is_region(region):
            raise DataError(
                _("{region!r} is no country's code.", region=self.region),
                _("Write two letters, such as US or DE."),
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
        names |= dict.fromkeys(kind.name for *_span, kind in finds(text, kinds, region))
    if names:
        raise Unusable(
            reduce(lambda first, then: _("{first}, {then}", first=first, then=then), names)
        )
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
