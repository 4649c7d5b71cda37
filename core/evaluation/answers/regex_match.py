"""What a right answer contains, as a regular expression that somebody gave."""

from __future__ import annotations

from core.errors import DataError
from core.evaluation.answers.metric import Answered, RowMetric
from core.language import N_, Said, _
from core.rewards.functions import compiled, matches
from core.rewards.kinds import Regex


def check_pattern(pattern: str) -> None:
    """Raises DataError for what is no regular expression."""
    try:
        compiled(Regex(pattern=pattern))
    except ValueError as error:
        raise DataError(
            _("{pattern!r} is no regular expression: {reason}.", pattern=pattern, reason=error),
            _("Write it as Python's re does."),
        ) from error


class RegexMatch(RowMetric):
    key = "regex_match"
    place = 30
    title = Said(N_("Matches the pattern"))
    meaning = Said(N_("Share of answers in which the regular expression is found"))

    def fits(self, rows: Answered) -> bool:
        return bool(rows.pattern)

    def score(self, answer: str, expected: str, rows: Answered) -> float:
        return matches(Regex(pattern=rows.pattern), answer, None) or 0.0


METRIC = RegexMatch()
