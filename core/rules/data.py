"""Whether a data set fits the settings of a run, said at the field that can mend it."""

from __future__ import annotations

from core.config import RunConfig
from core.config.derived import as_run
from core.data.record import DatasetInfo
from core.errors import DataError, Problem
from core.rules.rewards import rewards_problems
from core.tokens.chat_templates import MODELS_OWN
from core.tokens.prompted import has_answers
from core.workspace import Workspace


def need_form(info: DatasetInfo, config: RunConfig) -> None:
    """Raises DataError when the method does not learn from the form of the rows."""
    wrong = _wrong_form(info, config)
    if wrong:
        raise DataError(*wrong)


def data_problems(info: DatasetInfo, config: RunConfig) -> list[Problem]:
    """What keeps a run from learning from a data set: the form of its rows, or no held-out rows
    to evaluate on."""
    wrong = _wrong_form(info, config)
    if wrong:
        return [Problem("data.dataset", " ".join(wrong), ("method",))]
    if config.training_method.makes == "classifier" and _says_nothing(info):
        message = (
            f"All rows of {info.name} have the same labels: there is nothing to tell apart. Add "
            "rows with another label."
        )
        return [Problem("data.dataset", message, ("method",))]
    evaluates = as_run(config).evaluation.eval_strategy != "no"
    if evaluates and not info.counts.eval:
        message = (
            f"{config.evaluation.eval_strategy} needs held-out rows, and the data set {info.name} "
            "has none. Split some off in Data, or set it to no."
        )
        return [Problem("evaluation.eval_strategy", message, ("data.dataset",))]
    return []


def _wrong_form(info: DatasetInfo, config: RunConfig) -> tuple[str, str] | None:
    """(what is wrong, what to do) where the method does not learn from the form of the rows."""
    method = config.training_method
    if info.form in method.forms:
        return None
    return (
        f"The data set {info.name} holds {info.form} rows, and method {method.name} learns from "
        f"{', '.join(method.forms)}.",
        "Choose another data set, or import its files in one of these forms. "
        f"{method.other_forms}".rstrip(),
    )


def _says_nothing(info: DatasetInfo) -> bool:
    """Whether no label tells one train row from another."""
    return bool(info.labels) and all(n == info.counts.train for n in info.labels.values())


def template_warnings(info: DatasetInfo, config: RunConfig, has_template: bool) -> list[Problem]:
    """What to know of conversations for a base without a chat template of its own."""
    talks = config.training_method.converses and info.form != "text"
    if has_template or not talks or config.data.chat_template != MODELS_OWN:
        return []
    message = (
        f"{config.model.model_name_or_path} has no chat template of its own: the turns of "
        f"{info.name} would stand one after the other, without a word on who speaks. Choose one "
        "that comes with Tunesmith, such as chatml or alpaca; it is saved with the model."
    )
    return [Problem("data.chat_template", message, ("model.model_name_or_path",))]


def reward_problems(info: DatasetInfo, config: RunConfig, workspace: Workspace) -> list[Problem]:
    """What the reward functions of a run miss on this machine or in the rows."""
    if not config.training_method.generates:
        return []
    return rewards_problems(config.reinforcement.rewards, workspace, has_answers=has_answers(info))
