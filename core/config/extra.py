"""Checks `training.extra` against the library's own config class, without importing it or torch.

The classes are plain dataclasses, so their annotated fields are read from the source.
"""

from __future__ import annotations

import ast
import importlib.util
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

# The classes that declare fields, with their package and file: those of every method of TRL's, and
# the one of each.
_OF_ALL = (
    ("transformers", "training_args.py", "TrainingArguments"),
    ("trl", "trainer/base_config.py", "_BaseConfig"),
)
_OF_METHOD = {
    "sft": ("trl", "trainer/sft_config.py", "SFTConfig"),
    "cpt": ("trl", "trainer/sft_config.py", "SFTConfig"),
    "dpo": ("trl", "trainer/dpo_config.py", "DPOConfig"),
    "kto": ("trl", "trainer/kto_config.py", "KTOConfig"),
    "orpo": ("trl", "experimental/orpo/orpo_config.py", "ORPOConfig"),
    "cpo": ("trl", "experimental/cpo/cpo_config.py", "CPOConfig"),
    "reward": ("trl", "trainer/reward_config.py", "RewardConfig"),
    "grpo": ("trl", "trainer/grpo_config.py", "GRPOConfig"),
    "rloo": ("trl", "trainer/rloo_config.py", "RLOOConfig"),
}
# Fields of a library that stand in ours under another name, by method.
OTHER_NAMES = {
    "sft": {"loss_type": "training.sft_loss_type"},
    "kto": {"loss_type": "preference.kto_loss_type"},
    "cpo": {"loss_type": "preference.cpo_loss_type"},
    "grpo": {"beta": "reinforcement.kl_beta", "loss_type": "reinforcement.grpo_loss_type"},
    "rloo": {"beta": "reinforcement.kl_beta"},
}
_OWN_FOLDER = "the run's folder is Tunesmith's"
_OWN_DATA = "the data set is prepared before the trainer sees it"
_FROM_EXPORT = "a finished run is shared from Export"
_NO_VLLM = "answers are written in the run's own process, and no vLLM server is started or asked"
_FIXED_REFERENCE = "the reference model stays what the run began with"
_COMPLETIONS = "sampled completions stand in the run's events and on its page"
# Fields that decide where files go, which rows are learned, or whether foreign code runs.
REFUSED = {
    "output_dir": _OWN_FOLDER,
    "logging_dir": _OWN_FOLDER,
    "run_name": "the run's name is the field name",
    "trust_remote_code": "code from a model's repository is never run",
    "chat_template_path": "the chat template is the field data.chat_template",
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
    "max_completion_length": _OWN_DATA,
    "padding_value": _OWN_DATA,
    "train_sampling_strategy": "use training.train_sampling_strategy, where the method has it",
    "generate_during_eval": "sample answers are those of evaluation.sample_prompts",
    "activation_checkpointing": "use training.gradient_checkpointing",
    "use_vllm": _NO_VLLM,
    "vllm_mode": _NO_VLLM,
    "vllm_server_base_url": _NO_VLLM,
    "vllm_server_host": _NO_VLLM,
    "vllm_server_port": _NO_VLLM,
    "vllm_group_port": _NO_VLLM,
    "vllm_model_impl": _NO_VLLM,
    "use_transformers_continuous_batching": "it would hold the whole model in 16 bits",
    "use_transformers_paged": "it would hold the whole model in 16 bits",
    "reward_weights": "each reward function has its weight beside it",
    "generation_batch_size": "use reinforcement.steps_per_generation",
    "chat_template_kwargs": "the chat template is the field data.chat_template",
    "log_completions": _COMPLETIONS,
    "log_completions_hub_repo": _COMPLETIONS,
    "use_cpu": "use training.device",
    "bf16": "use training.precision",
    "fp16": "use training.precision",
}
# Further ones that a method refuses which other methods take.
_FIXED = dict.fromkeys(
    ("sync_ref_model", "ref_model_mixup_alpha", "ref_model_sync_steps"), _FIXED_REFERENCE
)
REFUSED_OF_METHOD = {"grpo": _FIXED, "rloo": _FIXED}
_TYPES: dict[str, Any] = {
    "bool": bool,
    "int": int,
    "float": float,
    "str": str,
    "dict": dict[str, Any],
    "list": list[Any],
}


def config_class(method: str) -> str:
    """The name of the library's config class for a method."""
    return _OF_METHOD[method][2] if method in _OF_METHOD else _OF_ALL[0][2]


@lru_cache
def config_fields(method: str) -> dict[str, tuple[Any, ...]]:
    """Each field of the installed library's config class for a method, with the types its
    annotation allows.

    An annotation that is more than plain types allows anything, `(Any,)`.
    """
    fields: dict[str, tuple[Any, ...]] = {}
    sources = (*_OF_ALL, _OF_METHOD[method]) if method in _OF_METHOD else _OF_ALL[:1]
    for package, file, class_name in sources:
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


def wrong_extra_value(method: str, key: str, value: Any) -> str:
    """What is wrong with the value of a known field; empty when nothing is."""
    types = config_fields(method)[key]
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
