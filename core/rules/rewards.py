"""What keeps reward functions from working, found before a run starts, without running any."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from core.errors import (
    ConfigError,
    ModelError,
    Problem,
    TrainingError,
    TunesmithError,
    WorkspaceError,
)
from core.models.trained import find_trained
from core.remote.endpoint import endpoint_from
from core.rewards.functions import schema_problem
from core.rewards.kinds import JsonSchema, Judge, Own, RewardModel
from core.rewards.own import own_problem, rewards_file
from core.rewards.specs import FIELD, RewardSpec, parse_rewards
from core.workspace import Workspace, checked_id


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
            text = "the rows have no reference answers to compare with. Map a column to answer."
        if text:
            found.append(Problem(FIELD, f"reward {spec.number} ({spec.name}): {text}"))
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
        return f"{name} cannot be read: {error}."
    problem = schema_problem(schema) if isinstance(schema, dict) else "it is no JSON object"
    return f"{name} is no JSON Schema: {problem}." if problem else ""


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
    return f"the run {name} was trained with method {method.name}. Choose one of method reward."
