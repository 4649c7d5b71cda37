"""Reads YAML as people write it: 1e-4 is a number, `no` is a word, a key stands once.

PyYAML follows YAML 1.1, where `eval_strategy: no` is False and `1e-4` is text. Here the plain
scalars are those of YAML 1.2.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from core.errors import ConfigError, Problem, reason_of
from core.language import _

# Those of libyaml are ten times as quick; a wheel for a rare machine may come without.
_Safe: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class _Loader(_Safe):
    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        names = [self.construct_object(key, deep=True) for key, _value in node.value]
        twice = [str(name) for name in names if names.count(name) > 1]
        if twice:
            raise yaml.constructor.ConstructorError(
                None, None, _("{name} stands there twice", name=twice[0]), node.start_mark
            )
        return dict(super().construct_mapping(node, deep))


# Dates too: `name: 2026-11-21` is a name.
_REPLACED = (":bool", ":float", ":timestamp")
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(_REPLACED)]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"true|True|TRUE|false|False|FALSE"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"[-+]?(?:[0-9]+\.[0-9]*(?:[eE][-+]?[0-9]+)?|\.[0-9]+(?:[eE][-+]?[0-9]+)?"
        r"|[0-9]+[eE][-+]?[0-9]+|\.inf|\.Inf|\.INF)\Z|\.nan\Z|\.NaN\Z"
    ),
    list("-+0123456789."),
)


def parse_yaml(text: str, name: str) -> dict[str, Any]:
    """The mapping in `text`; an empty text is an empty mapping. `name` is for the error."""
    try:
        data = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        # libyaml counts a line behind the last one where the text ends too early.
        last = max(len(text.splitlines()), 1)
        reason = getattr(error, "problem", None) or str(error)
        wrong = (
            _("is not YAML: {reason} (line {line}).", reason=reason, line=min(mark.line + 1, last))
            if mark
            else _("is not YAML: {reason}.", reason=reason)
        )
        raise ConfigError([Problem(name, wrong)], _("Mend it.")) from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError([Problem(name, _("is not a mapping of sections."))], _("Mend it."))
    return data


def yaml_text(data: dict[str, Any]) -> str:
    """The mapping as YAML, its keys in their order."""
    return str(yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True))


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises ConfigError when there is none."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            [Problem(str(path), _("cannot be read: {reason}.", reason=reason_of(error)))],
            _("Check the path."),
        ) from error
    return parse_yaml(text, str(path))
