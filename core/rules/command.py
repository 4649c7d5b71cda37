"""The command line's way to and from a configuration, generated from the declared fields."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from typing import Any

from core.config import FORMER, SPEC_BY_PATH, SPECS, RunConfig, flatten, renamed
from core.config.fields import FieldSpec
from core.config.problems import unknown_field
from core.config.yaml_file import parse_yaml
from core.errors import ConfigError, Problem
from core.language import _
from core.rules.presets import DEFAULT, Preset, load_preset

_EMPTY = ("", "none", "null", "empty")
_TRUE, _FALSE = ("true", "yes", "on"), ("false", "no", "off")


def split_overrides(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """(the other arguments, the overrides) of a command line.

    An override is an option that is a field's path or at least has a point in its name:
    `--training.seed 1` or `--training.seed=1`.
    """
    rest: list[str] = []
    overrides: list[str] = []
    waiting = list(argv)
    while waiting:
        token = waiting.pop(0)
        name = token.partition("=")[0]
        if not token.startswith("--") or ("." not in name and name[2:] not in SPEC_BY_PATH):
            rest.append(token)
            continue
        overrides.append(token)
        if "=" not in token and waiting and not _flag(name[2:], waiting):
            overrides.append(waiting.pop(0))
    return rest, overrides


def apply_overrides(values: dict[str, Any], argv: Sequence[str]) -> dict[str, Any]:
    """`values` by dotted path, changed by `["--training.learning_rate", "1e-4", ...]`.

    Lists are given with commas or by repeating the option, mappings as key=value or JSON, those in
    a list as JSON, an empty value as none. What cannot be read as the field's kind is left for
    `parse_config` to refuse. Raises ConfigError for an unknown field or a missing value, naming
    the field.
    """
    texts: dict[str, list[str]] = {}
    problems: list[Problem] = []
    waiting = list(argv)
    while waiting:
        path, equals, text = waiting.pop(0).removeprefix("--").partition("=")
        if not equals and waiting and not _flag(path, waiting):
            text, equals = waiting.pop(0), "="
        if path in FORMER:
            try:
                path, text = _of_now(path, text if equals else "true")
            except ConfigError as error:
                problems += error.problems
                continue
            equals = "="
        spec = SPEC_BY_PATH.get(path)
        if spec is None:
            problems.append(unknown_field(path, SPEC_BY_PATH))
        elif not equals and spec.kind != "bool":
            problems.append(Problem(path, _("needs a value: {allowed}.", allowed=spec.allowed)))
        else:
            texts.setdefault(path, []).append(text if equals else "true")
    changed = flatten(values)
    for path, given in texts.items():
        try:
            changed[path] = _value(SPEC_BY_PATH[path], given)
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    return changed


def as_command(config: RunConfig, base: Preset | None = None) -> str:
    """The shell command that starts this configuration from the preset `base`."""
    preset = base or load_preset(DEFAULT)
    words = ["python", "launch.py", "train", preset.name]
    changed = preset.differences(config) | ({"name": config.name} if config.name else {})
    for path, value in changed.items():
        for text in _texts(SPEC_BY_PATH[path], value):
            words += [f"--{path}", text]
    return shlex.join(words)


def field_help() -> str:
    """Every field as an option, with its help, what it takes and its default."""
    lines: list[str] = []
    section = None
    for spec in SPECS:
        if spec.section != section:
            section = spec.section
            lines += ["", f"{section or 'run'}:"]
        default = ",".join(_texts(spec, spec.default)) or _("empty")
        lines += [f"  --{spec.path}", f"      {spec.help}"]
        takes = _("Takes {allowed}. Default: {default}.", allowed=spec.allowed, default=default)
        lines += [f"      {takes}"]
    return "\n".join(lines).strip("\n")


def _flag(path: str, following: list[str]) -> bool:
    """Whether the option is a true-or-false one that stands alone."""
    spec = SPEC_BY_PATH.get(path)
    is_bool = path in FORMER or (spec is not None and spec.kind == "bool")
    return is_bool and not _is_bool(following[:1])


def _of_now(path: str, text: str) -> tuple[str, str]:
    """An option by its earlier name, as it is called now."""
    word = text.lower()
    value = word in _TRUE if word in (*_TRUE, *_FALSE) else text
    ((name, now),) = renamed({path: value}).items()
    return name, str(now)


def _is_bool(following: list[str]) -> bool:
    return bool(following) and following[0].lower() in (*_TRUE, *_FALSE, "auto", "1", "0")


def _value(spec: FieldSpec, given: list[str]) -> Any:
    last = given[-1].strip()
    if spec.optional and last.lower() in _EMPTY:
        return None
    if spec.kind in ("list", "records"):
        return _list(spec, given)
    if spec.kind == "dict":
        return _mapping(spec, given)
    if spec.kind == "bool" and last.lower() in (*_TRUE, *_FALSE):
        return last.lower() in _TRUE
    if spec.kind in ("int", "float"):
        try:
            return int(last) if spec.kind == "int" else float(last)
        except ValueError:
            return last
    return given[-1] if spec.kind == "str" else last


def _list(spec: FieldSpec, given: list[str]) -> Any:
    if len(given) == 1 and given[0] in spec.words:
        return given[0]
    items: list[Any] = []
    for text in given:
        if text.lstrip().startswith("["):
            items += _json(spec, text, list)
        elif text.lstrip().startswith("{") and spec.kind == "records":
            items += [_json(spec, text, dict)]
        elif spec.free_text:
            items.append(text)
        else:
            items += [part.strip() for part in text.split(",") if part.strip()]
    return items


def _mapping(spec: FieldSpec, given: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for text in given:
        if text.lstrip().startswith("{"):
            found |= _json(spec, text, dict)
            continue
        for part in filter(None, (part.strip() for part in text.split(","))):
            key, equals, value = part.partition("=")
            if not equals or not key:
                message = _("takes key=value or JSON, not {given}.", given=repr(part))
                raise ConfigError([Problem(spec.path, message)])
            found[key.strip()] = parse_yaml(f"value: {value}", spec.path)["value"]
    return found


def _json(spec: FieldSpec, text: str, kind: type) -> Any:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ConfigError(
            [Problem(spec.path, _("is not JSON: {reason}.", reason=str(error)))]
        ) from error
    if not isinstance(value, kind):
        wrong = _("must be {allowed} (given: {given}).", allowed=spec.allowed, given=text)
        raise ConfigError([Problem(spec.path, wrong)])
    return value


def _texts(spec: FieldSpec, value: Any) -> list[str]:
    """The value as the option's texts, so that `_value` reads back the same value."""
    if value is None:
        return ["none"]
    if isinstance(value, bool):
        return ["true" if value else "false"]
    if isinstance(value, dict):
        return [json.dumps(value, ensure_ascii=False)]
    if not isinstance(value, list):
        return [str(value)]
    plain = spec.kind == "list" and not spec.free_text
    if value and plain and not any("," in item or not item.strip() for item in value):
        return [",".join(value)]
    return [json.dumps(value, ensure_ascii=False)]
