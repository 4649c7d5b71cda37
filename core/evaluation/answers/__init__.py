"""Numbers that are counted from answers alone: a file for each, with its `METRIC`."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from core.evaluation.answers.metric import AnswerMetric


@lru_cache
def answer_metrics() -> Mapping[str, AnswerMetric]:
    """Every metric of answers by its key, in the order in which they are shown."""
    names = (module.name for module in pkgutil.iter_modules(__path__) if module.name != "metric")
    found: list[AnswerMetric] = [
        importlib.import_module(f"{__name__}.{name}").METRIC for name in names
    ]
    return MappingProxyType({one.key: one for one in sorted(found, key=lambda one: one.place)})
