"""The files of a model that steps need. Only what is on this machine is looked at."""

from __future__ import annotations

import json
from pathlib import Path

from core.data.steps.base import Setting
from core.errors import DataError
from core.language import _
from core.models.location import local_model
from core.models.starter import STARTER_MODELS

DEFAULT_MODEL = "SmolLM2-135M-Instruct"


def tokenizer_file(name: str, setting: Setting) -> Path:
    """The tokenizer.json of a model. Raises DataError when it is not on this machine, and
    WorkspaceError for a folder that may not be read."""
    name = name.strip()
    if not name:
        raise DataError(
            _("No model is named to count tokens with."), _("Name one, or count characters.")
        )
    folder = local_model(setting.workspace, name)
    if folder is None:
        hint = _("Name a model's folder, or count characters.")
        if name in STARTER_MODELS:
            hint = _("Preparing a run with it fetches it. Or count characters.")
        raise DataError(_("The model {name} is not on this machine.", name=name), hint)
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise DataError(
            _("The model {name} has no tokenizer.json.", name=name),
            _("Choose a model with one, or count characters."),
        )
    return path


def end_of_text(tokenizer_json: Path) -> str:
    """The model's end-of-text token as it is written; empty when its files do not say."""
    try:
        text = (tokenizer_json.parent / "tokenizer_config.json").read_text(encoding="utf-8")
        token = json.loads(text).get("eos_token")
    except (OSError, ValueError, AttributeError):
        return ""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else ""
