"""What the fork server imports before the first worker is asked for.

Only imports: no computation, which would start threads, and no CUDA call, which no fork survives.
Nothing here is needed for a worker to be right, only for it to be quick; so a module that cannot
be imported is named in the fork server's output, and the worker that needs it says why.
"""

from __future__ import annotations

import importlib
import os
import sys
import time

import psutil

from core.jobs.process import staying
from core.models.hardware import probe

# Asks the driver's library instead of the CUDA runtime whether there is a device: bitsandbytes
# does ask when it is imported.
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
# Its notices belong to no run's log.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")

MODULES = (
    "torch",
    "transformers",
    "transformers.models.auto.modeling_auto",
    "transformers.models.llama.modeling_llama",
    "peft",
    "accelerate",
    "datasets",
    "trl.trainer.sft_trainer",
    "bitsandbytes",
    "safetensors.torch",
    "core.jobs.worker",
    "core.worker.training.run",
    "core.worker.evaluation.run",
    "core.worker.chat.server",
)


def share_cores() -> None:
    """Tells OpenMP, before torch loads it, how many threads to use and how to wait for work.

    As many as there are cores for us: in a container torch counts the machine's. And threads that
    spin for microseconds only. By default they do for milliseconds; beside other busy processes
    (an evaluation during a training, a browser) that made small matrix products 10 and more times
    slower on 2 cores. With nothing else at work, the brief spin was as fast as the long one.
    """
    physical = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    os.environ.setdefault("OMP_NUM_THREADS", str(min(probe().cpu_count, physical)))
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def preload(names: tuple[str, ...] = MODULES) -> dict[str, float]:
    """Imports each module; returns the seconds each took. Failures go to standard error."""
    seconds: dict[str, float] = {}
    for name in names:
        begin = time.perf_counter()
        try:
            importlib.import_module(name)
        except Exception as error:
            print(f"preload: {name}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        seconds[name] = time.perf_counter() - begin
    return seconds


share_cores()
with staying():
    SECONDS = preload()
