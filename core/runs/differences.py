"""What differs between the settings of runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from core.config import SPECS, RunConfig

# Every run has its own.
_OWN = frozenset({"name", "data.dataset_fingerprint"})


def differences(configs: Sequence[RunConfig]) -> dict[str, list[Any]]:
    """The values of each run, in their order, by the path of a setting that is not the same for all
    and matters for one of them."""
    values = [config.values() for config in configs]
    return {
        spec.path: [one[spec.path] for one in values]
        for spec in SPECS
        if spec.path not in _OWN
        and any(one[spec.path] != values[0][spec.path] for one in values)
        and any(spec.shown(one) for one in values)
    }
