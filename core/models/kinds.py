"""Whether a model writes on from a text or fills gaps in it, by its config.json."""

from __future__ import annotations

import ast
import importlib.util
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from core.config import RunConfig
from core.errors import ModelError, Problem
from core.language import _

Kind = Literal["decoder", "encoder", "other"]

_WRITERS = ("ForCausalLM", "LMHeadModel")
_READERS = ("ForMaskedLM", "ForSequenceClassification", "ForTokenClassification", "ForPreTraining")


def kind_of(config: Mapping[str, Any]) -> Kind:
    """What a model with this config.json is. "other" is what is neither or both, as T5."""
    if config.get("is_encoder_decoder"):
        return "other"
    model_type = str(config.get("model_type") or "")
    architectures = [str(name) for name in config.get("architectures") or ()]
    if config.get("is_decoder") or any(name.endswith(_WRITERS) for name in architectures):
        return "decoder"
    masked, causal = _families("MASKED_LM"), _families("CAUSAL_LM")
    if model_type in masked and (
        model_type not in causal or any(name.endswith(_READERS) for name in architectures)
    ):
        return "encoder"
    if model_type in causal and model_type not in masked:
        return "decoder"
    # BERT and its like can be built as either; without a word for it they are what they were.
    return "encoder" if model_type in masked else "other"


def kind_in(folder: Path) -> Kind | None:
    """What the model in a folder is; None when its config cannot be read."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return kind_of(config) if isinstance(config, dict) else None


def kind_problem(kind: Kind | None, config: RunConfig) -> Problem | None:
    """Why a model of this kind cannot learn by the method of a run; None when it can."""
    name, method, makes = (
        config.model.model_name_or_path,
        config.method,
        config.training_method.makes,
    )
    if kind == "encoder" and makes == "writer":
        message = _(
            "{name} is an encoder: it reads texts and writes none, and method {method} "
            "teaches writing. Choose a model that writes, such as SmolLM2-135M-Instruct, or "
            "take classification or mlm.",
            name=name,
            method=method,
        )
    elif kind == "decoder" and makes == "filler":
        message = _(
            "{name} writes on from a text and has no mask to fill, which method {method} "
            "teaches. Choose an encoder, such as all-MiniLM-L6-v2, or take cpt.",
            name=name,
            method=method,
        )
    else:
        return None
    return Problem("model.model_name_or_path", message, ("method",))


def need_kind(config: Mapping[str, Any], run: RunConfig) -> None:
    """Raises ModelError when a model with this config.json cannot learn by the run's method."""
    problem = kind_problem(kind_of(config), run)
    if problem:
        raise ModelError(problem.message)


@lru_cache
def _families(task: str) -> frozenset[str]:
    """The model types that the installed transformers has such a model for.

    Read from its source, for importing it would bring in torch.
    """
    spec = importlib.util.find_spec("transformers")
    if spec is None or spec.origin is None:
        return frozenset()
    source = Path(spec.origin).parent / "models/auto/modeling_auto.py"
    wanted = f"MODEL_FOR_{task}_MAPPING_NAMES"
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
            if isinstance(target, ast.Name) and target.id == wanted:
                return frozenset(_keys(node))
    return frozenset()


def _keys(value: ast.AST) -> list[str]:
    """The first of each pair of texts in `OrderedDict([("bert", "BertForMaskedLM"), ...])`."""
    return [
        str(pair.elts[0].value)
        for pair in ast.walk(value)
        if isinstance(pair, ast.Tuple)
        and len(pair.elts) == 2
        and isinstance(pair.elts[0], ast.Constant)
    ]
