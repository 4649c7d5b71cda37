"""Checks `training.extra` against the library's own config class, without importing it or torch.

The classes are plain dataclasses, so their annotated fields are read from the source.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from core.config import SPEC_BY_PATH, RunConfig
from core.errors import Problem, did_you_mean, either
from core.language import N_, _
from core.methods import TRAINING_ARGUMENTS, TRL_ARGUMENTS, LibraryClass, Method

_OWN_FOLDER = N_("the run's folder is Tunesmith's")
_OWN_DATA = N_("the data set is prepared before the trainer sees it")
_FROM_EXPORT = N_("a finished run is shared from Export")
_NO_VLLM = N_(
    "answers are written in the run's own process, and no vLLM server is started or asked"
)
_COMPLETIONS = N_("sampled completions stand in the run's events and on its page")
_STRATEGY = N_("use training.strategy")
# Fields that decide where files go, which rows are learned, or whether foreign code runs.
REFUSED = {
    "output_dir": _OWN_FOLDER,
    "logging_dir": _OWN_FOLDER,
    "run_name": N_("the run's name is the field name"),
    "trust_remote_code": N_("code from a model's repository is never run"),
    "chat_template_path": N_("the chat template is the field data.chat_template"),
    "hub_token": N_("secrets never stand in a config; log in to the Hub instead"),
    "push_to_hub": _FROM_EXPORT,
    "hub_model_id": _FROM_EXPORT,
    "hub_strategy": _FROM_EXPORT,
    "hub_private_repo": _FROM_EXPORT,
    "hub_always_push": _FROM_EXPORT,
    "hub_revision": _FROM_EXPORT,
    "resume_from_checkpoint": N_("use Resume on the run"),
    "model_init_kwargs": N_("the model section decides how the model is loaded"),
    "dataset_text_field": _OWN_DATA,
    "dataset_kwargs": _OWN_DATA,
    "remove_unused_columns": _OWN_DATA,
    "completion_only_loss": N_("use data.learn"),
    "max_completion_length": _OWN_DATA,
    "padding_value": _OWN_DATA,
    "train_sampling_strategy": N_("use training.train_sampling_strategy, where the method has it"),
    "generate_during_eval": N_("sample answers are those of evaluation.sample_prompts"),
    "activation_checkpointing": N_("use training.gradient_checkpointing"),
    "use_vllm": _NO_VLLM,
    "vllm_mode": _NO_VLLM,
    "vllm_server_base_url": _NO_VLLM,
    "vllm_server_host": _NO_VLLM,
    "vllm_server_port": _NO_VLLM,
    "vllm_group_port": _NO_VLLM,
    "vllm_model_impl": _NO_VLLM,
    "use_transformers_continuous_batching": N_("it would hold the whole model in 16 bits"),
    "use_transformers_paged": N_("it would hold the whole model in 16 bits"),
    "reward_weights": N_("each reward function has its weight beside it"),
    "generation_batch_size": N_("use reinforcement.steps_per_generation"),
    "chat_template_kwargs": N_("the chat template is the field data.chat_template"),
    "log_completions": _COMPLETIONS,
    "log_completions_hub_repo": _COMPLETIONS,
    "use_cpu": N_("use training.device"),
    "fsdp": _STRATEGY,
    "fsdp_config": _STRATEGY,
    "bf16": N_("use training.precision"),
    "fp16": N_("use training.precision"),
}
_TYPES: dict[str, Any] = {
    "bool": bool,
    "int": int,
    "float": float,
    "str": str,
    "dict": dict[str, Any],
    "list": list[Any],
}


def extra_rules(config: RunConfig) -> Iterator[Problem]:
    """What of `training.extra` the library's class does not take."""
    method = config.training_method
    known = config_fields(method)
    refused = REFUSED | dict(method.refused_arguments)
    own = {
        spec.name: path
        for path, spec in SPEC_BY_PATH.items()
        if method.name in spec.when.get("method", [method.name])  # others' say nothing of it
    } | dict(method.other_names)
    for key, value in config.training.extra.items():
        message: str
        if key in own:
            message = _("{key} has its own field: set {path}.", key=key, path=own[key])
        elif key in refused:
            message = _("{key} is not allowed here: {why}.", key=key, why=refused[key])
        elif key in method.idle_arguments:
            message = _("{key} does nothing with method {method}.", key=key, method=method.name)
        elif key not in known:
            message = _(
                "{key} is not a field of {arguments}{end}",
                key=key,
                arguments=method.arguments.name,
                end=did_you_mean(key, sorted(known)),
            )
        else:
            message = wrong_extra_value(method, key, value)
        if message:
            yield Problem("training.extra", message)


def config_fields(method: Method) -> dict[str, tuple[Any, ...]]:
    """The fields that a method takes, as `fields_of` gives them."""
    return fields_of(method.arguments)


@lru_cache
def fields_of(own: LibraryClass) -> dict[str, tuple[Any, ...]]:
    """Each field of the installed library's config class, with the types its annotation allows.

    An annotation that is more than plain types allows anything, `(Any,)`.
    """
    fields: dict[str, tuple[Any, ...]] = {}
    sources = [own] if own is TRAINING_ARGUMENTS else [TRAINING_ARGUMENTS, TRL_ARGUMENTS, own]
    for source in sources:
        spec = importlib.util.find_spec(source.package)
        if spec is None or spec.origin is None:
            continue
        tree = ast.parse((Path(spec.origin).parent / source.file).read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and node.name == source.name:
                fields |= {
                    item.target.id: _allowed_types(item.annotation)
                    for item in node.body
                    if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
                }
    return fields


def wrong_extra_value(method: Method, key: str, value: Any) -> str:
    """What is wrong with the value of a known field; empty when nothing is."""
    types = config_fields(method)[key]
    if any(_fits(value, kind) for kind in types):
        return ""
    names = either([_("empty") if kind is type(None) else _name(kind) for kind in types])
    return _("{key} takes {names}, not {given}.", key=key, names=names, given=repr(value))


def _allowed_types(annotation: ast.expr) -> tuple[Any, ...]:
    if isinstance(annotation, ast.BinOp) and isinstance(annotation.op, ast.BitOr):
        both = (*_allowed_types(annotation.left), *_allowed_types(annotation.right))
        return (Any,) if Any in both else both
    if isinstance(annotation, ast.Subscript):
        return _allowed_types(annotation.value)
    if isinstance(annotation, ast.Constant) and annotation.value is None:
        return (type(None),)
    if isinstance(annotation, ast.Name) and annotation.id in _TYPES:
        return (_TYPES[annotation.id],)
    return (Any,)


def _fits(value: Any, kind: Any) -> bool:
    try:
        # Strict: the trainer gets the value as it stands, so the text "5" is no number.
        TypeAdapter(kind, config=ConfigDict(strict=True)).validate_python(value)
    except ValidationError:
        return False
    return True


def _name(kind: Any) -> str:
    return next(name for name, known in _TYPES.items() if known is kind)
