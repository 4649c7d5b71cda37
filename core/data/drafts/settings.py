"""What is asked of a model that writes new rows, from where, and how much it may cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import ValidationError

from core.config.fields import Section, field_specs, knob
from core.config.problems import problems_of
from core.errors import ConfigError, Problem
from core.language import _
from core.methods import StandardForm

Kind = Literal["more_like", "paraphrase", "answer_prompts", "preference_pairs"]

_WRITES_ROWS: dict[str, list[Any]] = {"kind": ["more_like", "paraphrase"]}
_BY_ENDPOINT: dict[str, list[Any]] = {"source": ["endpoint"]}
_MOST_TOKENS = 10**12

# The form of the drafts by that of the data set; a form that is missing cannot be used so.
_ANSWERED: dict[str, StandardForm] = {
    "prompt-completion": "prompt-completion",
    "messages": "messages",
    "preference": "prompt-completion",
    "unpaired-preference": "prompt-completion",
    "prompt-only": "prompt-completion",
}
_PAIRED = ("prompt-completion", "messages", "preference", "prompt-only")


class DraftSettings(Section):
    """How new rows are written. The endpoint's URL and key come from the environment."""

    kind: Kind = knob("more_like", "What to write", level="basic")
    """More rows like those of the data set; its rows in other words; answers to its prompts; or
    pairs of a better and a worse answer. Pairs, and answers to prompts without one, become a data
    set of their own."""

    source: Literal["endpoint", "local"] = knob("endpoint", "Written by", level="basic")
    """An OpenAI-compatible endpoint gets the example rows over the network; a local model keeps
    them on this machine. Small local models seldom manage more than answers to prompts."""

    model: str = knob("", "Model", level="basic", min_length=1)
    """The model's name at the endpoint; for a local one a starter model, a folder, a Hub id or
    the id of a finished run. What it writes may carry the terms of its licence."""

    rows: int = knob(20, "Rows to write", level="basic", unit="rows", ge=1, le=100_000)
    """It stops at so many drafts. The last reply may bring a few more."""

    instruction: str = knob("", "What to vary", level="basic", free_text=True, max_length=20_000)
    """Added to each request, such as which topics, lengths or mistakes the rows are to have.
    Empty asks for variety in general."""

    examples: int = knob(
        4, "Example rows in a request", when=_WRITES_ROWS, unit="rows", ge=1, le=50
    )
    """More examples show the style better and make each request longer and dearer."""

    rows_per_request: int = knob(
        5, "Rows in a reply", when={"kind": ["more_like"]}, unit="rows", ge=1, le=50
    )
    """More rows in a reply cost less each and resemble each other more."""

    only_label: str = knob("", "Only rows with this label")
    """Labelled text: takes examples of one label, to get more rows of a rare one. Empty takes
    them all."""

    temperature: float = knob(0.9, "Temperature", ge=0, le=2)
    """Higher gives more varied rows and more that are wrong; 0 repeats itself."""

    max_new_tokens: int = knob(2048, "Longest reply", unit="tokens", ge=8, le=131_072)
    """A reply is cut here. Rows that were whole before the cut are kept."""

    requests_per_minute: int = knob(60, "Requests per minute", when=_BY_ENDPOINT, ge=1, le=60_000)
    """Requests are spread evenly, never faster than this, retries included."""

    requests_at_once: int = knob(4, "Requests at once", when=_BY_ENDPOINT, ge=1, le=64)
    """More at once finish sooner, until the endpoint refuses some of them for a while."""

    timeout_seconds: float = knob(
        120.0, "Wait for a reply", when=_BY_ENDPOINT, unit="seconds", gt=0, le=3600
    )
    """A reply that takes longer is given up and asked for again; the endpoint may charge both."""

    token_budget: int | None = knob(
        200_000, "Token budget", level="basic", unit="tokens", ge=1, le=_MOST_TOKENS
    )
    """It stops before a request that could pass this many tokens, read and written together.
    Empty sets no limit."""

    input_price: float | None = knob(
        None, "Price of a million tokens read", when=_BY_ENDPOINT, ge=0, le=1e6
    )
    """Only for the cost shown and its limit. Empty leaves the cost unknown."""

    output_price: float | None = knob(
        None, "Price of a million tokens written", when=_BY_ENDPOINT, ge=0, le=1e6
    )
    """Only for the cost shown and its limit. Empty leaves the cost unknown."""

    max_cost: float | None = knob(None, "Highest cost", when=_BY_ENDPOINT, gt=0, le=1e9)
    """It stops before a request that could pass this cost, in the money of the prices. Empty
    sets no limit."""

    seed: int = knob(42, "Seed", ge=0, le=2**63 - 1)
    """Chooses the example rows. Another seed shows the model other rows."""

    def cost(self, input_tokens: int, output_tokens: int) -> float | None:
        """What so many tokens cost, in the money of the prices; None where one is unknown.
        A local model costs nothing."""
        if self.source == "local":
            return 0.0
        if self.input_price is None or self.output_price is None:
            return None
        return (input_tokens * self.input_price + output_tokens * self.output_price) / 1e6


def draft_settings(values: Mapping[str, Any] | DraftSettings) -> DraftSettings:
    """Settings from plain values. Raises ConfigError that names each wrong field."""
    if isinstance(values, DraftSettings):
        values = values.model_dump()
    try:
        settings = DraftSettings.model_validate(dict(values))
        # A default is not validated: an empty model is found here.
        settings = DraftSettings.model_validate(settings.model_dump())
    except ValidationError as error:
        raise ConfigError(
            problems_of(error, {s.path: s for s in field_specs(DraftSettings)})
        ) from (error)
    if (
        settings.max_cost is not None
        and settings.source == "endpoint"
        and settings.cost(0, 0) is None
    ):
        message = _("a highest cost needs both prices: type them, or leave it empty.")
        raise ConfigError([Problem("max_cost", message, ("input_price", "output_price"))])
    return settings


def drafts_form(settings: DraftSettings, form: str) -> StandardForm:
    """The form of the drafts for a data set of `form`. Raises ConfigError when the kind cannot
    be written from such rows."""
    if settings.kind in ("more_like", "paraphrase"):
        return form  # type: ignore[return-value]
    if settings.kind == "answer_prompts" and form in _ANSWERED:
        return _ANSWERED[form]
    if settings.kind == "preference_pairs" and form in _PAIRED:
        return "preference"
    reason = _("its rows have no prompt to answer")
    if form == "unpaired-preference":
        reason = _("its rows have one answer, which may be the worse one")
    message = _(
        "{kind} is not possible for a {form} data set: {reason}.",
        kind=settings.kind,
        form=form,
        reason=reason,
    )
    raise ConfigError([Problem("kind", message)], _("Choose another kind, or another data set."))
