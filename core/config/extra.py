"""Checks `training.extra` against TRL's own config class, without importing TRL or torch.

The classes are plain dataclasses, so their annotated fields are read from the source.
"""

from __future__ import annotations

import ast
import importlib.util
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

# The classes whose fields SFTConfig has, with the package and file that declare them.
_SOURCES = (
    ("transformers", "training_args.py", "TrainingArguments"),
    ("trl", "trainer/base_config.py", "_BaseConfig"),
    ("trl", "trainer/sft_config.py", "SFTConfig"),
)
_OWN_FOLDER = "the run's folder is Tunesmith's"
_OWN_DATA = "the data set is prepared before the trainer sees it"
_FROM_EXPORT = "a finished run is shared from Export"
# Fields that decide where files go, which rows are learned, or whether foreign code runs.
REFUSED = {
    "output_dir": _OWN_FOLDER,
    "logging_dir": _OWN_FOLDER,
    "run_name": "the run's name is the field name",
    "trust_remote_code": "code from a model's repository is never run",
    "chat_template_path": "the chat template is the model's own",
    "hub_token": "secrets never stand in a config; log in to the Hub instead",
    "push_to_hub": _FROM_EXPORT,
    "hub_model_id": _FROM_EXPORT,
    "hub_strategy": _FROM_EXPORT,
    "hub_private_repo": _FROM_EXPORT,
    "hub_always_push": _FROM_EXPORT,
    "hub_revision": _FROM_EXPORT,
    "resume_from_checkpoint": "use Resume on the run",
    "model_init_kwargs": "the model section decides how the model is loaded",
    "dataset_text_field": _OWN_DATA,
    "dataset_kwargs": _OWN_DATA,
    "remove_unused_columns": _OWN_DATA,
    "completion_only_loss": "use data.assistant_only_loss",
    "activation_checkpointing": "use training.gradient_checkpointing",
    "use_cpu": "use training.device",
    "bf16": "use training.precision",
    "fp16": "use training.precision",
}
_TYPES: dict[str, Any] = {
    "bool": bool,
    "int": int,
    "float": float,
    "str": str,
    "dict": dict[str, Any],
    "list": list[Any],
}


@lru_cache
def sft_config_fields() -> dict[str, tuple[Any, ...]]:
    """Each field of the installed TRL's SFTConfig, with the types its annotation allows.

    An annotation that is more than plain types allows anything, `(Any,)`.
    """
    fields: dict[str, tuple[Any, ...]] = {}
    for package, file, class_name in _SOURCES:
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            continue
        tree = ast.parse((Path(spec.origin).parent / file).read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and node.name == class_name:
                fields |= {
                    item.target.id: _allowed_types(item.annotation)
                    for item in node.body
                    if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
                }
    return fields


def wrong_extra_value(key: str, value: Any) -> str:
    """What is wrong with the value of a known field; empty when nothing is."""
    types = sft_config_fields()[key]
    if any(_fits(value, kind) for kind in types):
        return ""
    names = " or ".join("empty" if kind is type(None) else str(_name(kind)) for kind in types)
    return f"{key} takes {names}, not {value!r}."


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
