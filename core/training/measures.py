"""What a training takes of its device, sampled at each log; some microseconds each."""

from __future__ import annotations

import contextlib
import importlib.util
import time
from typing import Any

import psutil
import torch

from core.models.hardware import probe

# A GPU's use is a mean over some time, so that it need not be asked more often.
_SECONDS_BETWEEN = 0.5


class DeviceUse:
    """How busy the device is and how much memory the training holds."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._process.cpu_percent()  # counts from here
        self._cores = max(1, probe().cpu_count)
        # NVIDIA's own reader, which torch asks; without it nothing is known of a GPU's use.
        self._reads_gpu = importlib.util.find_spec("pynvml") is not None
        self._gpu_percent: float | None = None
        self._asked = -_SECONDS_BETWEEN

    def sample(self) -> dict[str, float]:
        """By name with unit: cpu_percent of all cores since the last sample, gpu_percent where it
        can be read, and the GPU's peak in this process or else the process's own memory."""
        found = {"cpu_percent": round(self._process.cpu_percent() / self._cores, 1)}
        if not (torch.cuda.is_available() and torch.cuda.is_initialized()):
            return {**found, "memory_bytes": int(self._process.memory_info().rss)}
        percent = self._gpu()
        if percent is not None:
            found["gpu_percent"] = percent
        return {**found, "gpu_memory_bytes": int(torch.cuda.max_memory_allocated())}

    def _gpu(self) -> float | None:
        if self._reads_gpu and time.monotonic() - self._asked >= _SECONDS_BETWEEN:
            self._asked = time.monotonic()
            # A driver, or a slice of a GPU, may not tell: then its use is not known.
            with contextlib.suppress(Exception):
                self._gpu_percent = float(torch.cuda.utilization())
        return self._gpu_percent


def rows_in_batch(inputs: Any) -> int:
    """How many rows of the data set a batch holds, however they are laid out."""
    if isinstance(inputs, list):
        return len(inputs)
    for name in ("chosen_labels", "chosen_input_ids", "label"):
        if name in inputs:
            return len(inputs[name])
    if "cu_seq_lens_q" in inputs:
        return len(inputs["cu_seq_lens_q"]) - 1
    ids = inputs.get("input_ids", inputs.get("prompt_ids"))
    if "completion_mask" in inputs and "labels" not in inputs and "prompt_ids" not in inputs:
        return len(ids) // 2  # both answers of each pair
    positions = inputs.get("position_ids")
    if positions is not None and len(positions) == 1:
        return int((positions == 0).sum())  # rows behind each other without padding
    return len(ids)
