"""Checks `training.extra` against TRL's own config class, without importing TRL or torch.

The classes are plain dataclasses, so their annotated fields are read from the source.
"""

from __future__ import annotations

import ast
import importlib.util
from functools import lru_cache
from pathlib import Path

# The classes whose fields SFTConfig has, with the package and file that declare them.
_SOURCES = (
    ("transformers", "training_args.py", "TrainingArguments"),
    ("trl", "trainer/base_config.py", "_BaseConfig"),
    ("trl", "trainer/sft_config.py", "SFTConfig"),
)
# Fields that decide where files go or whether foreign code runs: never taken from a config.
REFUSED = {
    "output_dir": "the run's folder is Tunesmith's",
    "logging_dir": "the run's folder is Tunesmith's",
    "trust_remote_code": "code from a model's repository is never run",
    "hub_token": "secrets never stand in a config; log in to the Hub instead",
    "push_to_hub": "a finished run is pushed from Export",
    "resume_from_checkpoint": "use Resume on the run",
    "model_init_kwargs": "the model section decides how the model is loaded",
    "use_cpu": "use training.device",
    "bf16": "use training.precision",
    "fp16": "use training.precision",
}


@lru_cache
def sft_config_fields() -> frozenset[str]:
    """Names of every field of the installed TRL's SFTConfig."""
    names: set[str] = set()
    for package, file, class_name in _SOURCES:
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            continue
        tree = ast.parse((Path(spec.origin).parent / file).read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and node.name == class_name:
                names |= {
                    item.target.id
                    for item in node.body
                    if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
                }
    return frozenset(names)
