"""The kinds of reward functions with their options. Each option is declared here once; the config,
the page, `rewards list` and the functions read it from here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from core.config.fields import Section, knob
from core.language import N_, Said, _

FILE_PATTERN = r"^([A-Za-z0-9_][A-Za-z0-9_-]*/)*[A-Za-z0-9_][A-Za-z0-9_.-]*\.{ending}$"
"""A file below the workspace's folder `rewards`: no way leads out of it."""

_MARKED: dict[str, list[Any]] = {"find": ["after_marker"]}


class Reward(Section):
    """What every kind has."""

    title: ClassVar[Said]
    needs_answer: ClassVar[bool] = False
    """Whether it compares with the row's reference answer; rows without one get no reward of it."""

    weight: float = knob(1.0, "Weight", level="basic", ge=-1000, le=1000)
    """Multiplies the reward before all are added up. Below 0 it becomes a penalty."""

    name: str = knob("", "Name", pattern=r"^([A-Za-z][A-Za-z0-9_]{0,39})?$")
    """Of its curve; empty takes the kind. Letters, digits and underscores."""

    def problems(self) -> Iterator[str]:
        """What is wrong with the options together."""
        return iter(())

    @classmethod
    def sentence(cls) -> str:
        """What it rewards, in one sentence."""
        return _(" ".join((cls.__doc__ or "").split()))


class _OfText(Reward):
    """A kind that reads the text of an answer."""

    skip_thinking: bool = knob(True, "Leave out the thinking")
    """Reads only what follows the last </think> of an answer."""


class ExactAnswer(_OfText):
    """1 if the answer is the row's reference answer, else 0."""

    title = Said(N_("Exact answer"))
    needs_answer = True

    find: Literal["whole", "last_line", "after_marker", "boxed"] = knob(
        "whole", "Where the answer stands", level="basic"
    )
    r"""The whole text, its last line, what follows a marker, or what stands in \boxed{}."""

    marker: str = knob("####", "Marker", level="basic", when=_MARKED, min_length=1, max_length=100)
    """The answer follows its last occurrence, up to the end of the line."""

    ignore_case: bool = knob(True, "Ignore upper and lower case")
    """Off tells Paris from paris."""

    ignore_punctuation: bool = knob(True, "Ignore punctuation around it")
    """Quotes, full stops and brackets before and after the answer do not count."""


class NumericAnswer(_OfText):
    """1 if the answer is the number of the row's reference answer, else 0."""

    title = Said(N_("Numeric answer"))
    needs_answer = True

    find: Literal["last_number", "after_marker", "boxed"] = knob(
        "last_number", "Where the number stands", level="basic"
    )
    r"""The last number of the text, what follows a marker, or what stands in \boxed{}. Thousands
    separators, fractions and percent signs are understood."""

    marker: str = knob("####", "Marker", level="basic", when=_MARKED, min_length=1, max_length=100)
    """The number follows its last occurrence, up to the end of the line."""

    tolerance: float = knob(1e-6, "Tolerance", ge=0, le=1e9)
    """By how much the numbers may differ, as a share of the reference answer (around 0: as it
    is)."""


class JsonValid(_OfText):
    """1 if the answer is JSON, else 0."""

    title = Said(N_("Valid JSON"))

    where: Literal["whole", "block"] = knob("whole", "Where the JSON stands", level="basic")
    """The whole text, or also the only block between ``` lines, with text around it."""

    top: Literal["any", "object", "array"] = knob("any", "Kind of JSON", level="basic")
    """Any also takes a bare number or text."""


class JsonSchema(_OfText):
    """1 if the answer is JSON that matches a JSON Schema, a share of it if it is only JSON, else
    0."""

    title = Said(N_("JSON that matches a schema"))

    json_schema: dict[str, Any] = knob({}, "Schema", level="basic")
    """A JSON Schema (draft 2020-12 unless it names another). It may refer to itself, not to the
    network."""

    schema_file: str = knob("", "Schema file", pattern=FILE_PATTERN.format(ending="json") + "|^$")
    """Instead of a schema here: a .json file in the workspace's folder rewards."""

    where: Literal["whole", "block"] = knob("whole", "Where the JSON stands")
    """The whole text, or also the only block between ``` lines, with text around it."""

    only_json: float = knob(0.0, "Reward for JSON alone", ge=0, le=1)
    """For JSON that does not match. Above 0 a model that never matches yet learns faster."""

    def problems(self) -> Iterator[str]:
        if bool(self.json_schema) == bool(self.schema_file):
            yield _("give a json_schema or a schema_file, one of the two.")
        elif self.json_schema:
            from core.rewards.functions import schema_problem

            problem = schema_problem(self.json_schema)
            if problem:
                yield _("json_schema is no JSON Schema: {problem}.", problem=problem)


class Regex(Reward):
    """1 if a regular expression is found in the answer, else 0."""

    title = Said(N_("Regular expression"))

    pattern: str = knob("", "Pattern", level="basic", min_length=1, max_length=2000)
    """In the notation of Python. One that needs more than two seconds for an answer ends the
    run."""

    match: Literal["anywhere", "whole"] = knob("anywhere", "Where it is to match", level="basic")
    """Somewhere in the text, or the whole text."""

    ignore_case: bool = knob(False, "Ignore upper and lower case")
    """On finds YES with yes."""

    dot_all: bool = knob(True, "A dot is also a line break")
    """Off keeps .* within a line."""

    skip_thinking: bool = knob(False, "Leave out the thinking")
    """Reads only what follows the last </think> of an answer."""

    def problems(self) -> Iterator[str]:
        from core.rewards.functions import compiled

        try:
            compiled(self)
        except ValueError as error:
            yield _("pattern is no regular expression: {reason}.", reason=str(error))


class Length(_OfText):
    """1 if the answer is as long as wanted, less the farther it is from that, never below 0."""

    title = Said(N_("Length"))

    unit: Literal["characters", "words", "tokens"] = knob("words", "Counted in", level="basic")
    """Tokens are those of the model that is trained."""

    target: int | None = knob(None, "Wanted length", level="basic", ge=1, le=1_000_000)
    """The reward falls evenly on both sides, to 0 for an empty answer and one twice as long."""

    minimum: int | None = knob(None, "Least length", level="basic", ge=1, le=1_000_000)
    """Instead of a wanted length. A shorter answer gets its share of it."""

    maximum: int | None = knob(None, "Greatest length", level="basic", ge=1, le=1_000_000)
    """Instead of a wanted length. A longer answer gets less, and 0 when it is twice as long."""

    def problems(self) -> Iterator[str]:
        ranged = self.minimum is not None or self.maximum is not None
        if (self.target is not None) == ranged:
            yield _("give a target, or a minimum, a maximum or both.")
        if None not in (self.minimum, self.maximum) and self.minimum > self.maximum:  # type: ignore[operator]
            yield _(
                "minimum {minimum} is above maximum {maximum}.",
                minimum=self.minimum,
                maximum=self.maximum,
            )


class RewardModel(Reward):
    """The score of a trained reward model."""

    title = Said(N_("Trained reward model"))

    model: str = knob("", "Reward model", level="basic", min_length=1, max_length=500)
    """The id of a finished run of the method reward, or a folder or Hub name of a model with one
    score."""

    scale: Literal["raw", "sigmoid"] = knob("raw", "Scale")
    """Raw takes the score as it is, sigmoid brings it between 0 and 1."""

    batch_size: int = knob(8, "Answers at once", ge=1, le=1024)
    """More are faster and need more memory."""

    max_length: int = knob(2048, "Longest text", unit="tokens", ge=8, le=1_048_576)
    """Prompt and answer together; a longer one is cut at its end."""


class Judge(_OfText):
    """The score between 0 and 1 that a model behind an OpenAI-compatible endpoint gives."""

    title = Said(N_("Judge by an endpoint"))

    model: str = knob("", "Model", level="basic", min_length=1, max_length=200)
    """Its name at the endpoint. URL and key come from TUNESMITH_OPENAI_BASE_URL and
    TUNESMITH_OPENAI_API_KEY in the environment."""

    rubric: str = knob(
        "How helpful, correct and clear the answer is.",
        "What counts",
        level="basic",
        free_text=True,
        min_length=1,
        max_length=20_000,
    )
    """What a good answer has. The judge sees it with the prompt, the answer and, where the row has
    one, the reference answer."""

    temperature: float = knob(0.0, "Temperature", ge=0, le=2)
    """0 gives the same score again, as far as the endpoint allows."""

    max_new_tokens: int = knob(512, "Longest reply", unit="tokens", ge=16, le=32_768)
    """A judge that thinks first needs more."""

    tries: int = knob(3, "Tries", ge=1, le=10)
    """A reply without a score between 0 and 1 is asked for again, so many times in all."""

    most_failures: int = knob(10, "Failures in a row", ge=1, le=10_000)
    """So many answers in a row without a score end the run. Fewer count as no reward."""

    requests_at_once: int = knob(4, "Requests at once", ge=1, le=64)
    """More at once finish sooner, until the endpoint refuses some of them for a while."""

    requests_per_minute: int = knob(600, "Requests per minute", ge=1, le=60_000)
    """Never faster than this, retries included."""

    timeout_seconds: float = knob(60.0, "Wait for a reply", unit="seconds", gt=0, le=3600)
    """A reply that takes longer is given up and asked for again."""


class Own(Reward):
    """What a function of your own says, from a Python file in the workspace's folder rewards."""

    title = Said(N_("Own function"))

    file: str = knob(
        "", "File", level="basic", pattern=FILE_PATTERN.format(ending="py"), max_length=200
    )
    """Such as my_rewards.py. Only the owner of the workspace can put it there; nothing can be
    uploaded."""

    function: str = knob("", "Function", level="basic", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """With the arguments completion and, if it wants them, prompt, answer and other columns, it
    gives one number. With completions in place of completion it is called as TRL does."""


KINDS: dict[str, type[Reward]] = {
    "exact_answer": ExactAnswer,
    "numeric_answer": NumericAnswer,
    "json_valid": JsonValid,
    "json_schema": JsonSchema,
    "regex": Regex,
    "length": Length,
    "reward_model": RewardModel,
    "judge": Judge,
    "own": Own,
}
"""The kinds by their name in a config."""
