"""Fixtures of the job tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.jobs.bench import Bench


@pytest.fixture
def bench(workspace: Path) -> Iterator[Bench]:
    bench = Bench(workspace)
    yield bench
    bench.close()
