"""llama.cpp is asked no more at once than the memory holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.errors import ExportError
from core.models.hardware import probe
from core.worker.llama_cpp.memory import read_sizes, slots


def test_long_rows_are_read_fewer_at_once(tmp_path: Path) -> None:
    weights = tmp_path / "model.gguf"
    weights.write_bytes(b"GGUF")
    a_fifth = probe().memory_available_bytes // 5 // 4  # keys and values of two bytes
    assert slots(weights, 100, 1000, 8) == 8
    assert 2 <= slots(weights, 1, a_fifth, 8) <= 4
    with pytest.raises(ExportError, match="llama.cpp needs .* GB are free"):
        slots(weights, 5, a_fifth, 8)
    with pytest.raises(ExportError, match="cannot be read as GGUF"):
        read_sizes(weights)
