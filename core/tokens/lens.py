"""The settings through which rows are seen as tokens."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace

from core.config import RunConfig, renamed
from core.config.sections import LearnedThoughts, LearnedTurns
from core.errors import ConfigError
from core.methods import METHODS
from core.tokens.chat_templates import MODELS_OWN, load_template
from core.tokens.learn import Learn
from core.workspace import Workspace


@dataclass(frozen=True)
class Lens:
    """What decides how a row becomes tokens.

    `model` is a model's name, as in a run's settings; "" leaves out what needs a tokenizer.
    `max_length` is where rows are cut, None for nowhere. `chat_template` is a template's name.
    """

    model: str
    max_length: int | None
    learn: LearnedTurns = Learn().turns
    system_prompt: str = ""
    chat_template: str = MODELS_OWN
    method: str = RunConfig().method
    learn_thoughts: LearnedThoughts = Learn().thoughts

    @property
    def learning(self) -> Learn:
        """What of a conversation is learned."""
        return Learn(self.learn, self.learn_thoughts)

    @property
    def goes_on(self) -> bool:
        """Whether a text that is longer than max_length goes on in the next row of the trainer."""
        return METHODS[self.method].section == "text"

    @property
    def whole(self) -> Lens:
        """These settings for counting: nothing is cut of texts that go on."""
        return replace(self, max_length=None) if self.goes_on else self

    @classmethod
    def of(cls, config: RunConfig) -> Lens:
        return cls(
            model=config.model.model_name_or_path,
            max_length=config.training.max_length,
            learn=config.data.learn,
            system_prompt=config.data.system_prompt,
            chat_template=config.data.chat_template,
            method=config.method,
            learn_thoughts=config.data.learn_thoughts,
        )

    @classmethod
    def read(cls, text: str) -> Lens:
        """From `write`'s text, which waits in the browser; the defaults if it is damaged."""
        try:
            known = {f"data.{name}": value for name, value in json.loads(text).items()}
            lens = cls(**{path.removeprefix("data."): v for path, v in renamed(known).items()})
            return lens if lens.method in METHODS else cls.of(RunConfig())
        except (ValueError, TypeError, AttributeError, ConfigError):
            return cls.of(RunConfig())

    def write(self) -> str:
        return json.dumps(asdict(self))

    def template(self, workspace: Workspace) -> str:
        """The text of the chat template; "" for the model's own. Raises DataError without it."""
        own = self.chat_template in ("", MODELS_OWN)
        return "" if own else load_template(self.chat_template, workspace)
