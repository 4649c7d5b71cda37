"""Presets: named settings that differ from the defaults, shipped in `presets/` or saved by the
owner in the workspace. Both are the same kind of YAML file."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from core.config import SPEC_BY_PATH, RunConfig, flatten, nest, renamed
from core.config.yaml_file import read_yaml
from core.errors import ConfigError, Problem, TunesmithError, nearest
from core.language import N_, Said, _
from core.rules.parsing import parse_config
from core.workspace import Workspace, checked_id, write_atomic

SHIPPED = Path(__file__).resolve().parents[2] / "presets"
DEFAULT = "quickstart"
# What belongs to one run and not to a way of training.
_OF_A_RUN = ("name", "data.dataset_fingerprint")
_KEYS = {"title", "description", "when", "order", "settings"}


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A named set of values. `settings` has the dotted paths that differ from the defaults.

    `when` says in a sentence when to use it; `problem` why the file cannot be used, if so.
    """

    name: str
    title: Said = Said()
    description: Said = Said()
    settings: dict[str, Any]
    builtin: bool
    when: Said = Said("")
    order: int = field(default=1000, compare=False)
    problem: str = ""

    def config(self) -> RunConfig:
        """The whole configuration. Raises ConfigError if a setting is not (or no longer) valid."""
        if self.problem:
            raise ConfigError([Problem(self.name, self.problem)], _("Mend or delete the preset."))
        return parse_config(self.settings)

    def differences(self, config: RunConfig) -> dict[str, Any]:
        """The values of `config` that differ from this preset's, by dotted path."""
        own = self.config().values()
        return {
            path: value
            for path, value in config.values().items()
            if value != own[path] and path not in _OF_A_RUN
        }


def list_presets(workspace: Workspace | None = None) -> list[Preset]:
    """The shipped presets in their order, then the owner's by title."""
    shipped = [_read(path, builtin=True) for path in sorted(SHIPPED.glob("*.yaml"))]
    own = [] if workspace is None else sorted(workspace.presets.glob("*.yaml"))
    saved = [_read(path, builtin=False) for path in own]
    return sorted(shipped, key=lambda p: p.order) + sorted(saved, key=lambda p: p.title.lower())


def load_preset(name: str, workspace: Workspace | None = None) -> Preset:
    """The preset of that name. Raises ConfigError with the nearest names if there is none."""
    for path in SHIPPED.glob("*.yaml"):
        if path.stem == name:  # may have a point in it, as model names do
            return _read(path, builtin=True)
    if workspace is not None and _is_id(name) and (workspace.presets / f"{name}.yaml").is_file():
        return _read(workspace.presets / f"{name}.yaml", builtin=False)
    names = [preset.name for preset in list_presets(workspace)]
    near = nearest(name, names)
    hint = (
        _("Did you mean {near}?", near=near)
        if near
        else _("There are: {names}.", names=", ".join(names))
    )
    raise ConfigError([Problem("preset", _("there is none named {name!r}.", name=name))], hint)


def preset_id(title: str) -> str:
    """A name for a preset of that title: `My LoRA, long` -> `my-lora-long`."""
    name = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:60].strip("-")
    return name or "preset"


def save_preset(
    workspace: Workspace,
    name: str,
    title: str,
    config: RunConfig,
    *,
    description: str = "",
    when: str = "",
    replace: bool = False,
) -> Preset:
    """Writes what differs from the defaults to the workspace's presets.

    Raises ConfigError if the name is a shipped preset's, or taken and `replace` is off.
    """
    path = _own_path(workspace, name)
    if path.exists() and not replace:
        raise ConfigError(
            [Problem("preset", _("{name} is taken.", name=name))], _("Choose another name.")
        )
    settings = {key: value for key, value in config.changed().items() if key not in _OF_A_RUN}
    document = {"title": title.strip() or name, "description": description, "when": when}
    document["settings"] = nest(settings)  # type: ignore[assignment]
    write_atomic(path, yaml.safe_dump(document, sort_keys=False, allow_unicode=True))
    return _read(path, builtin=False)


def delete_preset(workspace: Workspace, name: str) -> None:
    """Deletes one of the owner's presets."""
    path = _own_path(workspace, name)
    if not path.is_file():
        raise ConfigError(
            [Problem("preset", _("you have none named {name!r}.", name=name))], _("Check the name.")
        )
    path.unlink()


def open_config(source: str, workspace: Workspace) -> tuple[dict[str, Any], Preset | None]:
    """Values by dotted path, and the preset they start from, of a preset's name or a YAML file.

    A file may start from a preset with a line such as `preset: quickstart`. Values are not yet
    checked, so that a command line can still change them.
    """
    path = Path(source).expanduser()
    if path.suffix not in (".yaml", ".yml") and len(path.parts) == 1:
        preset = load_preset(source, workspace)
        return dict(flatten(_checked(preset).settings)), preset
    data = read_yaml(path)
    if "settings" in data and data.keys() <= _KEYS:
        preset = _checked(_read(path, builtin=False))
        return dict(preset.settings), preset
    base = data.pop("preset", None)
    if base is None:
        return renamed(flatten(data)), None
    preset = _checked(load_preset(str(base), workspace))
    return {**preset.settings, **renamed(flatten(data))}, preset


def _checked(preset: Preset) -> Preset:
    preset.config()
    return preset


def _own_path(workspace: Workspace, name: str) -> Path:
    if (SHIPPED / f"{checked_id(name)}.yaml").is_file():
        raise ConfigError(
            [Problem("preset", _("{name} came with Tunesmith and stays as it is.", name=name))],
            _("Save under another name."),
        )
    return workspace.presets / f"{name}.yaml"


def _is_id(name: str) -> bool:
    try:
        checked_id(name)
    except TunesmithError:
        return False
    return True


def _read(path: Path, *, builtin: bool) -> Preset:
    """The preset in a file; one that cannot be read is listed too, with its problem."""
    data: dict[str, Any] = {}
    problem = ""
    try:
        data = read_yaml(path)
        unknown = [str(key) for key in data if key not in _KEYS]
        if unknown:
            problem = _(
                "{unknown} is not part of a preset; settings go under settings.",
                unknown=", ".join(unknown),
            )
        elif not isinstance(data.get("settings") or {}, dict):
            problem = _("settings is not a mapping of sections.")
    except ConfigError as error:
        problem = error.message
    try:
        settings = {} if problem else renamed(flatten(data.get("settings") or {}))
    except ConfigError as error:
        settings, problem = {}, error.message
    declared = N_ if builtin else str
    return Preset(
        name=path.stem,
        title=declared(data.get("title") or path.stem),
        description=declared(data.get("description") or ""),
        settings={key: _plain(key, value) for key, value in settings.items()},
        builtin=builtin,
        when=declared(data.get("when") or ""),
        order=int(data["order"]) if isinstance(data.get("order"), int) else 1000,
        problem=problem,
    )


def _plain(path: str, value: Any) -> Any:
    """A whole number where the field takes any number, as a number with a point."""
    spec = SPEC_BY_PATH.get(path)
    return float(value) if spec and spec.kind == "float" and type(value) is int else value
