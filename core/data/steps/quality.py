"""Quality steps that look at one row: empty, too short or long, refusing, in a wrong language or
with broken characters. What a step drops it names in the reason."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal

from core.config.fields import knob
from core.data.languages import CODES, guess
from core.data.read.row import Row
from core.data.rowtext import (
    TEXT_COLUMNS,
    TURN_COLUMNS,
    answer_texts,
    map_texts,
    prompt_text,
    row_text,
    texts,
)
from core.data.steps.base import Decision, EachRow, RowWork, Setting, Step, Unusable, WholeWork
from core.data.steps.model_files import DEFAULT_MODEL, tokenizer_file
from core.errors import DataError
from core.language import N_, Said, _

REFUSALS: tuple[str, ...] = (
    # English
    "as an ai language model",
    "as an ai assistant",
    "as an ai model",
    "as an ai,",
    "as a language model",
    "as a large language model",
    "as an artificial intelligence",
    "i am an ai language model",
    "i'm an ai language model",
    "i am just an ai",
    "i'm just an ai",
    "i'm sorry, but i cannot",
    "i'm sorry, but i can't",
    "i'm sorry, i cannot",
    "i'm sorry, i can't",
    "i am sorry, but i cannot",
    "i am sorry, but i can't",
    "sorry, but i cannot",
    "sorry, but i can't",
    "sorry, i cannot",
    "sorry, i can't",
    "i apologize, but i cannot",
    "i apologize, but i can't",
    "i cannot assist with",
    "i can't assist with",
    "i cannot help with",
    "i can't help with",
    "i cannot fulfill",
    "i can't fulfill",
    "i cannot comply with",
    "i cannot provide",
    "i can't provide",
    "i am unable to assist",
    "i'm unable to assist",
    "i am not able to assist",
    "i'm not able to assist",
    "i am unable to provide",
    "i'm unable to provide",
    "i must decline",
    "i won't be able to help",
    # German
    "als ki-sprachmodell",
    "als ki-modell",
    "als ki-assistent",
    "als sprachmodell",
    "als künstliche intelligenz",
    "es tut mir leid, aber ich kann",
    "tut mir leid, aber ich kann",
    "ich kann dabei nicht helfen",
    "dabei kann ich nicht helfen",
    # French
    "en tant que modèle de langage",
    "en tant que modèle linguistique",
    "en tant qu'ia",
    "en tant qu'intelligence artificielle",
    "je suis désolé, mais je ne peux pas",
    "désolé, mais je ne peux pas",
    "je ne peux pas vous aider",
    # Spanish
    "como modelo de lenguaje",
    "como un modelo de lenguaje",
    "como inteligencia artificial",
    "como ia,",
    "lo siento, pero no puedo",
    "lo siento, no puedo",
    "no puedo ayudarte con",
    # Chinese
    "作为一个人工智能",
    "作为人工智能",
    "作为一个ai",
    "作为ai",
    "作为一个语言模型",
    "作为语言模型",
    "作为一种语言模型",
    "作为一名ai",
    "抱歉,我无法",
    "抱歉，我无法",
    "抱歉，我不能",
    "对不起，我无法",
    "对不起，我不能",
    "很抱歉，我无法",
    "很抱歉，我不能",
    "我无法提供",
)


ANSWER_FORMS = (
    "prompt-completion",
    "messages",
    "preference",
    "unpaired-preference",
    "prompt-only",
)
_UNITS = {"tokens": N_("tokens"), "characters": N_("characters"), "words": N_("words")}
_COUNTED_AT_ONCE = 512
_REFUSES_WITHIN = 200
SPOKEN_COLUMNS = (*TEXT_COLUMNS, *TURN_COLUMNS)
"""Every column that holds words, in whatever form."""


class DropEmpty(Step):
    """Drops rows that say nothing: no text, a turn without words, no label."""

    op = "drop_empty"
    title = Said(N_("Drop empty rows"))
    kind = "quality"

    also_empty: list[str] = knob([], "Count as empty too", free_text=True)
    """Texts that stand for nothing in your data, such as n/a or null. Capitals do not matter."""

    def start(self, setting: Setting) -> RowWork:
        nothing = {"", *(text.strip().lower() for text in self.also_empty)}

        def is_empty(text: str) -> bool:
            return text.strip().lower() in nothing if len(text) < 200 else not text.strip()

        return EachRow(lambda row: _not_empty(row, is_empty))


def _not_empty(row: Row, is_empty: Callable[[str], bool]) -> Row:
    if "text" in row and is_empty(row["text"]):
        raise Unusable(_("the text is empty"))
    if "labels" in row and not any(label.strip() for label in row["labels"]):
        raise Unusable(_("no label"))
    for column in TURN_COLUMNS:
        for number, turn in enumerate(row.get(column) or (), 1):
            role = turn["role"]
            spoken = role in ("user", "assistant") and not turn.get("tool_calls")
            if spoken and is_empty(turn["content"]):
                if column == "messages":
                    raise Unusable(_("turn {turn} ({role}) is empty", turn=number, role=role))
                raise Unusable(_("the {column} is empty", column=column))
    return row


class DropLength(Step):
    """Drops rows that are too short or too long, in tokens of a model, characters or words."""

    op = "drop_length"
    title = Said(N_("Drop short and long rows"))
    kind = "quality"
    single_rows: ClassVar[bool] = False

    unit: Literal["tokens", "characters", "words"] = knob("tokens", "Count", level="basic")
    """Tokens are what max_length counts. Characters and words need no model."""

    model: str = knob(DEFAULT_MODEL, "Model", level="basic", when={"unit": ["tokens"]})
    """Its tokenizer counts: the name of a model on this machine, or a folder."""

    of: Literal["row", "prompt", "answer"] = knob("row", "Of", level="basic")
    """The part of a row that is counted, without the marks of a chat template. Of a pair the
    longer answer is held against the most and the shorter one against the least."""

    minimum: int = knob(1, "Least", level="basic", ge=0)
    """Rows with less are dropped. 0 allows all."""

    maximum: int = knob(2048, "Most", level="basic", ge=0)
    """Rows with more are dropped. 0 allows all."""

    def start(self, setting: Setting) -> RowWork | WholeWork:
        if self.maximum and self.maximum < self.minimum:
            raise DataError(
                _(
                    "The most allowed, {maximum:,}, is less than the least, {minimum:,}.",
                    maximum=self.maximum,
                    minimum=self.minimum,
                ),
                _("Change one of them."),
            )
        if self.of == "answer" and setting.form not in ANSWER_FORMS:
            raise DataError(
                _("Rows of the form {form} have no answer.", form=setting.form),
                _("Count the whole row."),
            )
        if self.unit == "tokens":
            return _TokenLengths(self, tokenizer_file(self.model, setting))
        count: Callable[[str], int] = len if self.unit == "characters" else _words

        def measured(row: Row) -> Row:
            found = [count(text) for text in sides(row, self.of)]
            reason = self.reason(min(found), max(found))
            if reason:
                raise Unusable(reason)
            return row

        return EachRow(measured)

    def reason(self, shortest: int, longest: int) -> str:
        """Why a row of this length goes; empty when it stays."""
        if shortest < self.minimum:
            return _(
                "too short: {length} {unit}, the least allowed is {least}",
                length=f"{shortest:,}",
                unit=_UNITS[self.unit],
                least=f"{self.minimum:,}",
            )
        if self.maximum and longest > self.maximum:
            return _(
                "too long: {length} {unit}, the most allowed is {most}",
                length=f"{longest:,}",
                unit=_UNITS[self.unit],
                most=f"{self.maximum:,}",
            )
        return ""


def _words(text: str) -> int:
    return len(text.split())


def sides(row: Row, of: str) -> list[str]:
    """The texts to measure, at least one: the whole row, its prompt or its answers. A row of a
    pair is measured once with each of its answers, as it is trained."""
    if of == "prompt":
        return [prompt_text(row)]
    if of == "answer":
        return answer_texts(row) or [""]
    if "chosen" in row:
        prompt = prompt_text(row)
        return [f"{prompt}\n\n{answer}" for answer in answer_texts(row)] or [prompt]
    return [row_text(row)]


class _TokenLengths(WholeWork):
    """Counts tokens of many texts at once, which uses every core."""

    columns: Sequence[str] | None = SPOKEN_COLUMNS

    def __init__(self, step: DropLength, tokenizer_json: Path) -> None:
        self._step = step
        self._tokenizer = _tokenizer(tokenizer_json)
        self._waiting: list[tuple[int, list[str]]] = []
        self._rows = 0
        self._drop: dict[int, str] = {}

    def note(self, row: Row) -> None:
        index, self._rows = self._rows, self._rows + 1
        step = self._step
        found = sides(row, step.of)
        # No token of an ASCII text is shorter than a character: most short rows need no count.
        fits = not step.maximum or all(
            len(text) < step.maximum and text.isascii() for text in found
        )
        if fits and (step.minimum == 0 or (step.minimum == 1 and all(map(str.strip, found)))):
            return
        self._waiting.append((index, found))
        if len(self._waiting) >= _COUNTED_AT_ONCE:
            self._count()

    def _count(self) -> None:
        flat = [text for _, found in self._waiting for text in found]
        encoded = iter(self._tokenizer.encode_batch_fast(flat, add_special_tokens=False))
        for index, found in self._waiting:
            lengths = [len(next(encoded)) for _ in found]
            reason = self._step.reason(min(lengths), max(lengths))
            if reason:
                self._drop[index] = reason
        self._waiting = []

    def decide(self) -> Decision:
        self._count()
        return Decision(drop=self._drop)


@lru_cache(maxsize=2)
def _tokenizer(path: Path) -> Any:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


class DropRefusals(Step):
    """Drops rows whose answer refuses, so that the model does not learn to."""

    op = "drop_refusals"
    title = Said(N_("Drop answers that refuse"))
    kind = "quality"
    forms = ANSWER_FORMS

    phrases: list[str] = knob(list(REFUSALS), "Phrases", level="basic", free_text=True)
    """An answer with one of these in its first 200 characters goes. Capitals do not matter. Of a
    pair only the chosen answer counts, of rated answers only the good ones."""

    def start(self, setting: Setting) -> RowWork:
        phrases = [_plain(phrase) for phrase in self.phrases if phrase.strip()]
        if not phrases:
            raise DataError(
                _("No phrases are given."), _("Write one, such as: as an AI language model.")
            )
        # Plain searches for each beat one pattern for all by twenty times.
        longest_first = sorted(set(phrases), key=len, reverse=True)

        def accepting(row: Row) -> Row:
            for answer in _wanted_answers(row):
                beginning = _plain(answer[:_REFUSES_WITHIN])
                for phrase in longest_first:
                    if phrase in beginning and _begins_a_word(phrase, beginning):
                        raise Unusable(_("answer refuses: “{phrase}”", phrase=phrase))
            return row

        return EachRow(accepting)


def _begins_a_word(phrase: str, text: str) -> bool:
    """Whether a phrase stands at a word's beginning: "as an ai," is not in "was an ai,"."""
    if not phrase.isascii():
        return True
    return re.search(rf"(?<!\w){re.escape(phrase)}", text) is not None


def _plain(text: str) -> str:
    return " ".join(text.replace("\u2019", "'").lower().split())


def _wanted_answers(row: Row) -> Sequence[str]:
    if "chosen" in row:
        return answer_texts({"chosen": row["chosen"]})
    return () if row.get("label") is False else answer_texts(row)


class KeepLanguages(Step):
    """Keeps rows in the languages you name, as fastText's small model guesses them."""

    op = "keep_languages"
    title = Said(N_("Keep languages"))
    kind = "quality"

    languages: list[str] = knob(["en"], "Languages", level="basic", min_length=1)
    """Codes of the languages that stay, such as en, de or zh."""

    confidence: float = knob(0.65, "Sure by", level="basic", ge=0.0, le=1.0)
    """A row in another language goes when the guess is at least this sure."""

    of: Literal["row", "prompt", "answer"] = knob("row", "Look at")
    """The text whose language counts. The answer is what the model learns to write."""

    shortest: int = knob(20, "Shortest text to judge", unit="characters", ge=0)
    """Shorter texts stay, for a guess about them is worth little."""

    def start(self, setting: Setting) -> RowWork:
        wanted = {code.strip().lower() for code in self.languages}
        unknown = sorted(wanted - CODES)
        if unknown:
            raise DataError(
                _(
                    "{code!r} is no code of a language that can be recognized.",
                    code=unknown[0],
                ),
                _("Use codes such as en, de, fr, es, zh, ja or ar."),
            )

        def spoken(row: Row) -> Row:
            text = "\n\n".join(sides(row, self.of))
            if len(text.strip()) < self.shortest:
                return row
            code, confidence = guess(text)
            if code and code not in wanted and confidence >= self.confidence:
                raise Unusable(
                    _("language is {code} ({share})", code=code, share=f"{confidence:.2f}")
                )
            return row

        return EachRow(spoken)


class BrokenEncoding(Step):
    """Finds text that was read in a wrong encoding, and characters that no text has."""

    op = "broken_encoding"
    title = Said(N_("Broken characters"))
    kind = "quality"

    action: Literal["mend", "drop"] = knob("mend", "Broken rows", level="basic")
    """Mend puts back what was meant and drops only rows with lost characters (U+FFFD), which
    nothing brings back. Drop drops every broken row."""

    def start(self, setting: Setting) -> RowWork:
        return EachRow(self._mended if self.action == "mend" else self._whole)

    def _mended(self, row: Row) -> Row:
        if not _suspicious(row):
            return row
        mended = map_texts(row, mend)
        if any("\ufffd" in text for text in texts(mended)):
            raise Unusable(_("lost characters (U+FFFD)"))
        return mended

    def _whole(self, row: Row) -> Row:
        for text in _suspicious(row):
            problem = encoding_problem(text)
            if problem:
                raise Unusable(problem)
        return row


# White space, form feed (a page's end in documents) and printable ASCII need no second look.
_ODD = re.compile(r"[^\t\n\r\f\x20-\x7e]")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\ufeff\ufff9-\ufffc]")


def _suspicious(row: Row) -> list[str]:
    return [text for text in texts(row) if not text.isascii() or _ODD.search(text)]


def mend(text: str) -> str:
    """The text with wrong decoding undone and control characters removed; else unchanged."""
    return _CONTROL.sub("", _decoded(text))


def _decoded(text: str) -> str:
    from ftfy.badness import is_bad

    # ftfy changes nothing else with these settings, and says so five times faster.
    if text.isascii() or not (is_bad(text) or _CONTROL.search(text)):
        return text
    return str(_fixer()(text))


def encoding_problem(text: str) -> str:
    """What is broken in a text, in words; empty when it is whole."""
    if "\ufffd" in text:
        return _("lost characters (U+FFFD)")
    decoded = _decoded(text)
    if _CONTROL.sub("", decoded) != _CONTROL.sub("", text):
        place = next(_differences(text, decoded))
        begin = max(text.rfind(" ", 0, place) + 1, place - 20)
        found = text[begin : place + 20].split(" ")[0].strip()
        shown = _CONTROL.sub(lambda match: f"\\x{ord(match.group()):02x}", found)
        return _("read in a wrong encoding: {text}", text=f"'{shown}'")
    control = _CONTROL.search(text)
    return _("control character {code}", code=f"U+{ord(control.group()):04X}") if control else ""


def _differences(first: str, second: str) -> Iterator[int]:
    shorter = min(len(first), len(second))
    yield from (i for i in range(shorter) if first[i] != second[i])
    yield max(shorter - 1, 0)


@lru_cache(maxsize=1)
def _fixer() -> Callable[[str], str]:
    """ftfy's repair of wrong decoding and nothing else: quotes, ligatures, entities and width
    are how a person wrote them."""
    from ftfy import TextFixerConfig, fix_text

    config = TextFixerConfig(
        unescape_html=False,
        remove_terminal_escapes=False,
        remove_control_chars=False,
        fix_latin_ligatures=False,
        fix_character_width=False,
        uncurl_quotes=False,
        fix_line_breaks=False,
        normalization=None,
        explain=False,
    )
    return lambda text: str(fix_text(text, config))


STEPS = (DropEmpty, DropLength, DropRefusals, KeepLanguages, BrokenEncoding)
