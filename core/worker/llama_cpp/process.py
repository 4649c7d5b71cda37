"""llama.cpp in a process of its own: what goes wrong there ends it by a signal, and its threads
wait for each other without work unless OMP_WAIT_POLICY says otherwise before it is loaded.

    python -m core.worker.llama_cpp.process serve OPTIONS
    python -m core.worker.llama_cpp.process quantize SOURCE FILE FTYPE
    python -m core.worker.llama_cpp.process losses FILE

The last one reads rows as JSON from standard input, each its tokens and its labels, and writes a
line for each: the sum of -ln p over the labels that are not negative.

The server's OPTIONS are those of `open_server`, as JSON. It listens on loopback, asks for the key
in TUNESMITH_LLAMA_KEY, prints its address on standard output and ends when its standard input does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

from core.errors import ExportError
from core.language import _

_PROJECT = Path(__file__).resolve().parents[3]
# What its answers call the model; without a name they would tell the file's path.
ALIAS = "tunesmith-served-model"
_LOOK_SECONDS = 0.3
_TOKENS_AT_ONCE = 256
# ggml's name for the type of keys and values.
_IN_32_BITS = 0
# Its server closes a connection that it had kept when the machine is busy, just as the next request
# comes by it: how a client is made, as keywords of httpx.Limits.
EACH_ITS_OWN = {"max_keepalive_connections": 0, "max_connections": None}


def open_server(
    file: Path,
    adapters: Sequence[Path] = (),
    *,
    key: str,
    applied: bool = True,
    context: int = 2048,
    at_once: int = 1,
    template: str = "",
    beside_others: bool = False,
    quiet: bool = False,
    embeddings: bool = False,
) -> tuple[subprocess.Popen[bytes], str]:
    """(the process of a server of a GGUF file with adapters, its address).

    The adapters are laid onto it, or unless `applied` wait for a request that gives them a scale.
    It answers `at_once` requests of up to `context` tokens each. `template` is the chat template
    in place of the file's own. `beside_others` leaves them the cores that are busy, and
    with `quiet` it prints errors alone. With `embeddings` it gives those, too: the mean of the last
    hidden states. Raises ExportError where llama.cpp cannot open it.
    """
    options = {
        "file": str(file),
        "adapters": [str(path) for path in adapters],
        "applied": applied,
        "context": context,
        "at_once": at_once,
        "template": template,
        "beside_others": beside_others,
        "quiet": quiet,
        "embeddings": embeddings,
    }
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = start("serve", json.dumps(options), key=key, **streams)
    try:
        assert process.stdout is not None
        address = process.stdout.readline().decode().strip()
        if not address:
            raise ExportError(
                _("llama.cpp cannot open {file}.", file=file.name),
                _("What it said is in the job's worker.log."),
            )
    except BaseException:
        end(process)
        raise
    return process, address


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


def serve(given: str) -> None:
    import xllamacpp

    options = json.loads(given)
    params = xllamacpp.CommonParams()
    params.model.path = options["file"]
    params.hostnames, params.port = ["127.0.0.1"], 0
    params.api_keys = [os.environ["TUNESMITH_LLAMA_KEY"]]
    params.model_alias = {ALIAS}
    params.n_parallel, params.warmup = options["at_once"], False
    params.n_ctx = options["context"] * options["at_once"]
    threads = _cores(options["beside_others"])
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.use_jinja = True
    params.verbosity = 1 if options["quiet"] else 2  # errors; warnings, too
    params.endpoint_slots = True
    # What it read for an earlier request it would take for one with another adapter, too
    # (server-context.cpp: prompt_load asks for the tokens alone), and up to 8 GB of it.
    params.cache_ram_mib = 0
    if options["embeddings"]:
        params.embedding = True
        params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    if options["template"]:
        params.chat_template = options["template"]
    adapters = []
    for path in options["adapters"]:
        adapters.append(xllamacpp.CommonAdapterLoraInfo())
        adapters[-1].path, adapters[-1].scale = path, 1.0
    params.lora_adapters = adapters
    params.lora_init_without_apply = not options["applied"]
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.read()
    os._exit(0)


def _cores(only_idle: bool) -> int:
    """How many cores this process may keep busy."""
    ours = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not only_idle:
        return ours
    idle: float = (psutil.cpu_count() or 1) * (1 - psutil.cpu_percent(interval=_LOOK_SECONDS) / 100)
    return max(1, min(ours, round(idle)))


def quantize(source: str, file: str, ftype: str) -> None:
    from cyllama.llama.llama_cpp import LlamaModelQuantizeParams, model_quantize

    params = LlamaModelQuantizeParams()
    params.ftype = int(ftype)
    model_quantize(source, file, params)


def losses(file: str) -> None:
    import numpy as np
    from cyllama.llama import llama_cpp

    class Model(llama_cpp.LlamaModel):
        n_vocab = property(lambda self: self.get_vocab().n_vocab)  # which get_logits_ith asks for

    llama_cpp.disable_logging()
    rows = json.load(sys.stdin)
    how = llama_cpp.LlamaContextParams()
    how.n_ctx = max(len(ids) for ids, _labels in rows)
    how.n_batch = how.n_ubatch = min(how.n_ctx, _TOKENS_AT_ONCE)
    how.n_threads = how.n_threads_batch = _cores(False)
    how.type_k = how.type_v = _IN_32_BITS
    how.flash_attn_type = 0
    model = Model(file, verbose=False)
    context = llama_cpp.LlamaContext(model, how, verbose=False)
    batch = llama_cpp.LlamaBatch(n_tokens=how.n_batch, embd=0, n_seq_max=1, verbose=False)
    for ids, labels in rows:
        context.kv_cache_clear()
        total, following = 0.0, [*labels[1:], -1]
        for begin in range(0, len(ids), how.n_batch):
            batch.reset()
            wanted = following[begin : begin + how.n_batch]
            for place, label in enumerate(wanted):
                at = begin + place
                batch.add(ids[at], at, [0], label >= 0)
            context.decode(batch)
            for place, label in enumerate(wanted):
                if label >= 0:
                    scores = np.asarray(context.get_logits_ith(place), dtype=np.float64)
                    most = scores.max()
                    total += most + np.log(np.exp(scores - most).sum()) - scores[label]
        print(total, flush=True)


if __name__ == "__main__":
    work: dict[str, Callable[..., None]] = {"serve": serve, "quantize": quantize, "losses": losses}
    work[sys.argv[1]](*sys.argv[2:])
