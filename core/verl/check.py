"""The settings of a verl job against verl's own config: the keys of one version, which lie here, or
the installed one of another Python environment, composed by Hydra there. No verl here."""

from __future__ import annotations

import difflib
import json
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from core.errors import SetupError

VERSION = "0.9.1"
_KEYS = Path(__file__).with_name(f"keys-{VERSION}.txt")
_SECONDS = 120

# What runs in the other environment. Hydra refuses what its config has not; verl itself, which
# would import torch, is only looked for.
_PROGRAM = """
import importlib.metadata, importlib.util, json, sys
from pathlib import Path
found = importlib.util.find_spec("verl")
if found is None:
    print(json.dumps({"missing": "verl"})); sys.exit()
try:
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf
except ImportError as error:
    print(json.dumps({"missing": str(error.name)})); sys.exit()
folder, wanted = Path(found.origin).parent / "trainer/config", json.load(sys.stdin)
wrong = []
with initialize_config_dir(str(folder), version_base=None):
    known = compose("ppo_trainer")
    for key, value in wanted.items():
        try:
            OmegaConf.update(known, key, value, force_add=False)
        except Exception as error:
            wrong.append([key, str(error).splitlines()[0]])
print(json.dumps({"version": importlib.metadata.version("verl"), "wrong": wrong}))
"""


@dataclass(frozen=True)
class Checked:
    """What a config was held against, and what it does not know: (key, why)."""

    version: str
    wrong: list[tuple[str, str]]


@lru_cache
def known_keys() -> frozenset[str]:
    """The keys of verl's ppo_trainer config in VERSION (without profilers and other engines)."""
    return frozenset(_KEYS.read_text(encoding="utf-8").split())


def check_keys(keys: Iterable[str]) -> Checked:
    """The keys against those of VERSION."""
    known = known_keys()
    wrong = []
    for key in keys:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            wrong.append(
                (key, f"no key of verl {VERSION}" + (f"; near: {near[0]}" if near else ""))
            )
    return Checked(VERSION, wrong)


def check_with(python: str, settings: Mapping[str, Any]) -> Checked:
    """The settings against the verl of another environment, named by its Python.

    Raises SetupError when it cannot be asked.
    """
    try:
        done = subprocess.run(
            [python, "-c", _PROGRAM],
            input=json.dumps(settings),
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SetupError(f"{python} cannot be asked: {error}.", "Name a Python.") from error
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        reason = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise SetupError(f"{python} could not read verl's config: {reason}", "Name another Python.")
    found = json.loads(lines[-1])
    if "missing" in found:
        raise SetupError(
            f"{python} has no {found['missing']}.",
            f"Name the Python of an environment with verl, such as {VERSION}.",
        )
    return Checked(found["version"], [(key, why) for key, why in found["wrong"]])
