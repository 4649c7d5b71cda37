"""What every model should still do after it learned something else: a small set of prompts, written
for this project in English and Chinese, each with a check that any program can do."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from core.evaluation.answers.metric import words_of
from core.evaluation.report import Skill
from core.evaluation.scoring import parse_object
from core.language import N_
from core.rewards.functions import numeric_answer
from core.rewards.kinds import NumericAnswer
from core.workspace import read_json_lines

AREAS = {
    "instruction": N_("Follows an instruction"),
    "arithmetic": N_("Arithmetic"),
    "format": N_("Keeps a format"),
    "refusal": N_("Refuses what harms"),
    "language": N_("Stays in the language"),
}
MOST_TOKENS = 48
_PROMPTS = Path(__file__).resolve().parents[2] / "assets" / "general_prompts.jsonl"
_HAN = re.compile(r"[\u3400-\u9fff]")
_MOSTLY = 0.5


@dataclass(frozen=True)
class GeneralPrompt:
    """`check` holds what an answer must keep, all of it: contains_any, number, regex, json_keys,
    most_words, least_words, script (latin or chinese)."""

    id: str
    language: str
    area: str
    prompt: str
    check: Mapping[str, Any]

    def is_kept(self, answer: str) -> bool:
        """Whether an answer does what the prompt asks."""
        return bool(answer.strip()) and all(_keeps(answer, *one) for one in self.check.items())


@lru_cache
def general_prompts() -> tuple[GeneralPrompt, ...]:
    return tuple(GeneralPrompt(**line) for line in read_json_lines(_PROMPTS))


def skills(tuned: Sequence[str], base: Sequence[str] | None) -> list[Skill]:
    """How many prompts of each area and language the answers keep, in the order of the prompts."""
    groups: dict[tuple[str, str], list[int]] = {}
    for place, one in enumerate(general_prompts()):
        groups.setdefault((one.area, one.language), []).append(place)

    def kept(answers: Sequence[str], places: list[int]) -> int:
        return sum(general_prompts()[place].is_kept(answers[place]) for place in places)

    return [
        Skill(
            area=area,
            language=language,
            prompts=len(places),
            tuned=kept(tuned, places),
            base=None if base is None else kept(base, places),
        )
        for (area, language), places in groups.items()
    ]


def _keeps(answer: str, kind: str, wanted: Any) -> bool:
    words = words_of(answer)
    if kind == "contains_any":
        return any(text.casefold() in answer.casefold() for text in wanted)
    if kind == "number":
        return numeric_answer(NumericAnswer(), answer, str(wanted)) == 1.0
    if kind == "regex":
        return re.search(wanted, answer) is not None
    if kind == "json_keys":
        found = parse_object(answer)
        return found is not None and set(wanted) <= found.keys()
    if kind == "most_words":
        return len(words) <= int(wanted)
    if kind == "least_words":
        return len(words) >= int(wanted)
    assert kind == "script", kind
    chinese = sum(bool(_HAN.match(word)) for word in words) / max(1, len(words))
    return (chinese >= _MOSTLY) is (wanted == "chinese")
