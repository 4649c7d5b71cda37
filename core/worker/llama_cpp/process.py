"""llama.cpp in a process of its own: what goes wrong there ends it by a signal, and its threads
wait for each other without work unless OMP_WAIT_POLICY says otherwise before it is loaded.

    python -m core.worker.llama_cpp.process serve FILE [ADAPTER]
    python -m core.worker.llama_cpp.process quantize SOURCE FILE FTYPE

The server listens on loopback, asks for the key in TUNESMITH_LLAMA_KEY, prints its address on
standard output and ends when its standard input does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_PROJECT = Path(__file__).resolve().parents[3]


def start(*arguments: object, key: str = "", **streams: Any) -> subprocess.Popen[bytes]:
    """Starts it with these words of a command line; `streams` are subprocess.Popen's."""
    path = os.pathsep.join(filter(None, [str(_PROJECT), os.environ.get("PYTHONPATH", "")]))
    environment = {
        **os.environ,
        "PYTHONPATH": path,
        "OMP_WAIT_POLICY": "passive",
        "TUNESMITH_LLAMA_KEY": key,
    }
    command = [sys.executable, "-m", "core.worker.llama_cpp.process", *map(str, arguments)]
    return subprocess.Popen(command, env=environment, **streams)


def end(process: subprocess.Popen[bytes]) -> None:
    """Ends a process if it is still there, and lets go of what joins it to this one."""
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()


# -- in that process


def serve(file: str, adapter: str = "") -> None:
    import xllamacpp

    threads = max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2)
    params = xllamacpp.CommonParams()
    params.model.path = file
    params.hostnames, params.port = ["127.0.0.1"], 0
    params.api_keys = [os.environ["TUNESMITH_LLAMA_KEY"]]
    params.n_ctx, params.n_parallel, params.warmup = 2048, 1, False
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.use_jinja, params.verbosity = True, 2  # errors and warnings
    if adapter:
        info = xllamacpp.CommonAdapterLoraInfo()
        info.path, info.scale = adapter, 1.0
        params.lora_adapters = [info]
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.read()
    os._exit(0)


def quantize(source: str, file: str, ftype: str) -> None:
    from cyllama.llama.llama_cpp import LlamaModelQuantizeParams, model_quantize

    params = LlamaModelQuantizeParams()
    params.ftype = int(ftype)
    model_quantize(source, file, params)


if __name__ == "__main__":
    work: dict[str, Callable[..., None]] = {"serve": serve, "quantize": quantize}
    work[sys.argv[1]](*sys.argv[2:])
