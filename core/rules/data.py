"""Whether a data set fits the settings of a run, said at the field that can mend it; and what keeps
reward functions from working on its rows, found without running any."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from core.config import RunConfig
from core.config.run import as_run
from core.data.record import DatasetInfo
from core.errors import (
    ConfigError,
    DataError,
    ModelError,
    Problem,
    TrainingError,
    TunesmithError,
    WorkspaceError,
    reason_of,
)
from core.language import _
from core.models.trained import find_trained
from core.remote.endpoint import endpoint_from
from core.rewards.functions import schema_problem
from core.rewards.kinds import JsonSchema, Judge, Own, RewardModel
from core.rewards.own import own_problem, rewards_file
from core.rewards.specs import FIELD, RewardSpec, parse_rewards
from core.tokens.chat_templates import MODELS_OWN
from core.tokens.learn import Learn, learns_nothing
from core.tokens.prompts import has_answers
from core.workspace import Workspace, checked_id


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
        message = _("{message} {hint}", message=wrong[0], hint=wrong[1])
        return [Problem("data.dataset", message, ("method",))]
    if config.training_method.makes == "classifier" and _says_nothing(info):
        message = _(
            "All rows of {name} have the same labels: there is nothing to tell apart. Add "
            "rows with another label.",
            name=info.name,
        )
        return [Problem("data.dataset", message, ("method",))]
    learn = Learn.of(config)
    if config.training_method.may_learn_questions and learns_nothing(info, learn):
        message = _(
            "{name} has no answer to learn: data.learn is {turns}, and the weights of its "
            "turns leave nothing. Choose what else is learned, or import rows with other "
            "marks.",
            name=info.name,
            turns=learn.turns,
        )
        return [Problem("data.learn", message, ("data.dataset",))]
    evaluates = as_run(config).evaluation.eval_strategy != "no"
    if evaluates and not info.counts.eval:
        message = _(
            "{eval_strategy} needs held-out rows, and the data set {name} has none. Split "
            "some off in Data, or set it to no.",
            eval_strategy=config.evaluation.eval_strategy,
            name=info.name,
        )
        return [Problem("evaluation.eval_strategy", message, ("data.dataset",))]
    return []


def _wrong_form(info: DatasetInfo, config: RunConfig) -> tuple[str, str] | None:
    """(what is wrong, what to do) where the method does not learn from the form of the rows."""
    method = config.training_method
    if info.form in method.forms:
        return None
    mend = _("Choose another data set, or import its files in one of these forms.")
    return (
        _(
            "The data set {name} holds {form} rows, and method {method} learns from {forms}.",
            name=info.name,
            form=info.form,
            method=method.name,
            forms=", ".join(method.forms),
        ),
        _("{message} {hint}", message=mend, hint=method.other_forms)
        if method.other_forms
        else mend,
    )


def _says_nothing(info: DatasetInfo) -> bool:
    """Whether no label tells one train row from another."""
    return bool(info.labels) and all(n == info.counts.train for n in info.labels.values())


def template_warnings(info: DatasetInfo, config: RunConfig, has_template: bool) -> list[Problem]:
    """What to know of conversations for a base without a chat template of its own."""
    talks = config.training_method.converses and info.form != "text"
    if has_template or not talks or config.data.chat_template != MODELS_OWN:
        return []
    message = _(
        "{model} has no chat template of its own: the turns of {name} would "
        "stand one after the other, without a word on who speaks. Choose one that comes "
        "with Tunesmith, such as chatml or alpaca; it is saved with the model.",
        model=config.model.model_name_or_path,
        name=info.name,
    )
    return [Problem("data.chat_template", message, ("model.model_name_or_path",))]


def reward_problems(info: DatasetInfo, config: RunConfig, workspace: Workspace) -> list[Problem]:
    """What the reward functions of a run miss on this machine or in the rows."""
    if not config.training_method.generates:
        return []
    return rewards_problems(config.reinforcement.rewards, workspace, has_answers=has_answers(info))


def rewards_problems(
    values: Sequence[Mapping[str, Any]], workspace: Workspace, *, has_answers: bool | None = None
) -> list[Problem]:
    """What is missing on this machine: a file, a run, an endpoint.

    `has_answers`: whether the data set's rows have reference answers; None where that is unknown.
    A list that is wrong by itself has no problems here.
    """
    try:
        specs = parse_rewards(values)
    except ConfigError:
        return []
    found = []
    for spec in specs:
        text = _missing(spec, workspace)
        if not text and has_answers is False and spec.options.needs_answer:
            text = _("the rows have no reference answers to compare with. Map a column to answer.")
        if text:
            found.append(
                Problem(
                    FIELD,
                    _(
                        "reward {number} ({name}): {text}",
                        number=spec.number,
                        name=spec.name,
                        text=text,
                    ),
                )
            )
    return found


def _missing(spec: RewardSpec, workspace: Workspace) -> str:
    options = spec.options
    if isinstance(options, Own):
        return own_problem(options, workspace)
    if isinstance(options, Judge):
        return _raised(endpoint_from)
    if isinstance(options, JsonSchema) and options.schema_file:
        return _schema_file(options.schema_file, workspace)
    if isinstance(options, RewardModel):
        return _no_reward_model(options.model, workspace)
    return ""


def _raised(call: Any) -> str:
    try:
        call()
    except TunesmithError as error:
        return str(error)
    return ""


def _schema_file(name: str, workspace: Workspace) -> str:
    try:
        schema = json.loads(rewards_file(workspace, name).read_text(encoding="utf-8"))
    except TrainingError as error:
        return str(error)
    except (OSError, ValueError) as error:
        return _("{name} cannot be read: {reason}.", name=name, reason=reason_of(error))
    problem = schema_problem(schema) if isinstance(schema, dict) else _("it is no JSON object")
    return _("{name} is no JSON Schema: {problem}.", name=name, problem=problem) if problem else ""


def _no_reward_model(name: str, workspace: Workspace) -> str:
    """Why a run cannot be the reward model; a folder or a Hub name is looked at when it loads."""
    try:
        run = workspace.run(checked_id(name))
        if not run.config.is_file():
            return ""
        method = find_trained(run).config.training_method
    except WorkspaceError:
        return ""
    except (ConfigError, ModelError) as error:
        return str(error)
    if method.makes == "scorer":
        return ""
    return _(
        "the run {name} was trained with method {method}. Choose one of method reward.",
        name=name,
        method=method.name,
    )
