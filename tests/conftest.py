"""Fixtures that every test file may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# No test reaches the Hub: what is missing must fail at once, not after a timeout.
os.environ["HF_HUB_OFFLINE"] = "1"
# Tokenizers warn at every fork otherwise.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """An empty workspace folder of this test's own."""
    root = tmp_path / "workspace"
    root.mkdir()
    return root
