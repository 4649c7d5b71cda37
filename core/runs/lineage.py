"""Runs that begin with another run: whether they can, and who began with whom."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from core.config import RunConfig
from core.config.run import continues, run_and_checkpoint
from core.errors import ConfigError, ModelError, Problem, WorkspaceError
from core.jobs.job import Job
from core.jobs.store import Store
from core.language import N_, _
from core.models.origin import Origin, read_origin
from core.models.trained import TrainedModel, adapter_settings, find_trained
from core.rules import load_config
from core.workspace import RunFolder, Workspace

# What a model does, by what its method makes.
_DOES = {
    "writer": N_("writes"),
    "filler": N_("fills gaps"),
    "classifier": N_("gives labels"),
    "scorer": N_("gives scores"),
}
# A run can begin with what is of its own kind, and with what stands here.
_ALSO = {"classifier": ("filler", "writer"), "scorer": ("writer",)}
# Adapters that stand before the words instead of in the weights.
_NOT_IN_WEIGHTS = ("PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING")
# Settings of the adapter that may change while it is trained further.
_FREE = ("lora_dropout", "quantization", "bnb_", "loraplus_")
_HOW = {
    "merge": N_("merged"),
    "stack": N_("stacked"),
    "continue": N_("continued"),
    "longer": N_("trained longer"),
}


def chain_problems(workspace: Workspace, config: RunConfig) -> list[Problem]:
    """Why this run cannot begin with the one that it names; empty when it can."""
    if not continues(config):
        return []
    run_id, checkpoint = run_and_checkpoint(config)
    try:
        parent = find_trained(workspace.run(run_id), checkpoint)
        return [*_base_problems(parent, config), *_way_problems(parent, config)]
    except (ModelError, WorkspaceError, ConfigError) as error:
        return [Problem("model.from_run", str(error))]


def _base_problems(parent: TrainedModel, config: RunConfig) -> Iterator[Problem]:
    """Another base, or a model that does something else."""
    name = parent.run.root.name
    for field in ("model_name_or_path", "model_revision"):
        theirs, ours = getattr(parent.config.model, field), getattr(config.model, field)
        if theirs != ours:
            yield Problem(
                f"model.{field}",
                _(
                    "{ours}, but {run} was trained from {theirs}. Set it to {theirs}.",
                    ours=ours,
                    run=name,
                    theirs=theirs,
                ),
                ("model.from_run",),
            )
    made, needed = parent.config.training_method.makes, config.training_method.makes
    if made != needed and made not in _ALSO.get(needed, ()):
        yield Problem(
            "model.from_run",
            _(
                "{run} was trained by {before}: its model {does}, and method {method} needs one "
                "that {needed}. Choose another run.",
                run=name,
                before=parent.config.method,
                does=_DOES[made],
                method=config.method,
                needed=_DOES[needed],
            ),
            ("method",),
        )
    elif made != needed and config.model.start_from != "merge" and parent.is_adapter:
        yield Problem(
            "model.start_from",
            _(
                "{way} with method {method}: the adapter of {run} was made for another output. "
                "Take merge.",
                way=config.model.start_from,
                method=config.method,
                run=name,
            ),
            ("method",),
        )


def _way_problems(parent: TrainedModel, config: RunConfig) -> Iterator[Problem]:
    """What cannot be done with this adapter."""
    way, name = config.model.start_from, parent.run.root.name
    if not parent.is_adapter:
        if way == "stack" or (way == "continue" and config.adapter.is_adapter):
            yield Problem(
                "model.start_from",
                _(
                    "{way}, but {run} trained the model itself: there is no adapter. Take merge, "
                    "which begins with its model.",
                    way=way,
                    run=name,
                ),
                ("model.from_run",),
            )
        return
    kind = adapter_settings(parent.folder).get("peft_type")
    if way in ("merge", "stack") and kind in _NOT_IN_WEIGHTS:
        yield Problem(
            "model.start_from",
            _(
                "{way}, but {run} has an adapter of the kind {kind}, which is no part of the "
                "weights. Take continue.",
                way=way,
                run=name,
                kind=kind,
            ),
            ("model.from_run",),
        )
    made = parent.config.training_method.makes
    if way == "stack" and made == config.training_method.makes != "writer":
        yield Problem(
            "model.start_from",
            _(
                "stack with method {method}: only models that write are stacked. Take merge.",
                method=config.method,
            ),
            ("method",),
        )
    if way == "continue":
        yield from _other_settings(parent, config)


def _other_settings(parent: TrainedModel, config: RunConfig) -> Iterator[Problem]:
    theirs, ours = parent.config.adapter.model_dump(), config.adapter.model_dump()
    for field, value in ours.items():
        if field.startswith(_FREE) or theirs[field] == value:
            continue
        yield Problem(
            f"adapter.{field}",
            _(
                "{ours} with model.start_from continue: the adapter of {run} has {theirs}. Set "
                "it to that, or take merge.",
                ours=_said(value),
                run=parent.run.root.name,
                theirs=_said(theirs[field]),
            ),
            ("model.start_from",),
        )


def lineage(run: RunFolder) -> tuple[Origin, ...]:
    """The runs that a run comes from, the nearest first; empty for one that began with a base."""
    try:
        origin = read_origin(run)
    except ModelError:
        return ()
    return origin.chain if origin else ()


def lineage_text(run: RunFolder) -> str:
    """`from quiet-otter (sft, merged), which came from calm-owl (cpt, merged)`; empty for none."""
    told = ""
    for one in reversed(lineage(run)):
        how: str = _HOW[one.how]
        if one.checkpoint != "final":
            how = _("{how} from {checkpoint}", how=how, checkpoint=one.checkpoint)
        came = _("{run} ({method}, {how})", run=one.name, method=one.method, how=how)
        told = _("{run}, which came from {before}", run=came, before=told) if told else came
    return _("from {run}", run=told) if told else ""


def built_on(store: Store, run_id: str) -> list[Job]:
    """The runs that began with this one."""
    return [job for job in store.list(kind="train") if job.parent_id == run_id]


def values_to_continue(workspace: Workspace, run_id: str, checkpoint: str = "final") -> RunConfig:
    """The settings of a run as the start of one that continues it. Raises ModelError when it left
    no model, ConfigError when its settings cannot be read."""
    run = workspace.run(run_id)
    parent = find_trained(run, checkpoint)
    config = load_config(run.config)
    config.name, config.data.dataset_fingerprint = "", ""
    # In this order: each change is checked alone.
    config.model.from_run = run_id if checkpoint == "final" else f"{run_id}@{checkpoint}"
    mergeable = (
        not parent.is_adapter
        or adapter_settings(parent.folder).get("peft_type") not in _NOT_IN_WEIGHTS
    )
    config.model.start_from = "merge" if mergeable else "continue"
    return config


def _said(value: Any) -> str:
    return _("nothing") if value in (None, "", [], {}) else str(value)
