"""A `python` that runs what it is given in a fork of one that has imported what takes long: torch,
for `with_torch`, which saves ten seconds of a processor at each start; the commands and the page,
for `with_commands`, whose workers are forked from where torch is imported too.

Signals, exit code, output, folder and environment are those of a process of its own.
"""

from __future__ import annotations

import json
import os
import selectors
import shutil
import signal
import socket
import sys
import tempfile
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

_SERVERS: list[Any] = []  # each ends when nobody holds its process any more
_PASSED_ON = (signal.SIGTERM, signal.SIGINT)
_PR_SET_PDEATHSIG = 1  # sys/prctl.h


def ask(address: str, words: list[str]) -> None:
    """The process that a test sees: it ends as the fork does, and the fork with it."""
    server = socket.socket(socket.AF_UNIX)
    server.connect(address)
    socket.send_fds(server, [b"."], [0, 1, 2])
    asked = {"words": words, "folder": os.getcwd(), "environment": dict(os.environ)}
    server.sendall(json.dumps(asked).encode() + b"\n")
    for number in _PASSED_ON:
        signal.signal(number, lambda number, _frame: server.sendall(bytes([number])))
    status = int(server.makefile("rb").read() or 256)
    if os.WIFSIGNALED(status):
        signal.signal(os.WTERMSIG(status), signal.SIG_DFL)
        os.kill(os.getpid(), os.WTERMSIG(status))
    os._exit(os.waitstatus_to_exitcode(status))


def serve(address: str, workers: str | None) -> None:
    """In a process that has imported what takes long: forks one for each that asks, until its
    parent ends. `workers`: where those fork theirs from."""
    from multiprocessing import parent_process

    parent = parent_process()
    assert parent is not None
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{address}.new")
    listener.listen()
    if workers is not None:
        from tests.e2e.program import adopt

        adopt(workers)
    os.rename(f"{address}.new", address)
    with selectors.DefaultSelector() as waiting:
        waiting.register(listener, selectors.EVENT_READ)
        waiting.register(parent.sentinel, selectors.EVENT_READ)
        while True:
            for key, _events in waiting.select():
                if key.fileobj == parent.sentinel:
                    return shutil.rmtree(Path(address).parent)
                if waiting.get_map().get(key.fd) is not key:
                    continue  # it ended in this same moment
                if key.fileobj is listener:
                    client = listener.accept()[0]
                    if not (pid := _fork(client)):
                        continue
                    waiting.register(client, selectors.EVENT_READ, (pid, client))
                    waiting.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, client))
                elif key.fileobj is key.data[1]:
                    _pass_on(waiting, *key.data)
                else:
                    _tell_end(waiting, key)


def _pass_on(waiting: selectors.BaseSelector, pid: int, client: socket.socket) -> None:
    numbers = client.recv(16)
    for number in numbers or [signal.SIGKILL]:
        os.kill(pid, number)
    if not numbers:  # killed
        waiting.unregister(client)


def _tell_end(waiting: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
    pid, client = key.data
    waiting.unregister(key.fileobj)
    os.close(key.fd)
    status = str(os.waitpid(pid, 0)[1]).encode()
    if client in waiting.get_map():
        waiting.unregister(client)
        with suppress(OSError):  # it was killed in this moment
            client.sendall(status)
    client.close()


def _fork(client: socket.socket) -> int | None:
    _byte, handles, _flags, _address = socket.recv_fds(client, 1, 3)
    if not (line := client.makefile("rb").readline()):
        return None  # it was killed at its start
    asked = json.loads(line)
    pid = os.fork()
    if not pid:
        for stream, handle in enumerate(handles):
            os.dup2(handle, stream)
        client.close()
        _be(**asked)
    for handle in handles:
        os.close(handle)
    return pid


def _be(words: list[str], folder: str, environment: dict[str, str]) -> None:
    """In the fork, which ends here."""
    import atexit
    import ctypes
    import threading
    import traceback

    code: Any = 1
    try:
        for number in _PASSED_ON:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        sys.path[:0] = [folder, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
        look_again()
        _run(words)
        code = 0
    except SystemExit as end:
        code = end.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
        code = code if isinstance(code, int) else bool(code)
    except BaseException as error:
        traceback.print_exc()
        if isinstance(error, KeyboardInterrupt):
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def look_again() -> None:
    """What libraries read from the environment when they are imported, they read anew."""
    import importlib

    from huggingface_hub import constants, hf_api

    importlib.reload(constants)
    hf_api.api.endpoint = constants.ENDPOINT
    if "datasets" in sys.modules:
        importlib.reload(sys.modules["datasets.config"])
    if "torch" in sys.modules and "OMP_NUM_THREADS" in os.environ:
        sys.modules["torch"].set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


def _run(words: list[str]) -> None:
    import runpy

    kind, *rest = (word for word in words if word not in ("-u", "-B"))
    if kind == "-m":
        sys.argv = rest
        sys.modules.pop(rest[0], None)
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.argv = ["-c", *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = [kind, *rest]
        runpy.run_path(kind, run_name="__main__")


@lru_cache
def with_torch() -> str:
    from tests.e2e.serving import WORKERS

    return _python(WORKERS, None)


@lru_cache
def with_commands() -> str:
    from tests.e2e.serving import PROGRAM, WORKERS

    WORKERS.warm()
    return _python(PROGRAM, WORKERS.server._forkserver_address)


def _python(imported: Any, workers: str | None) -> str:
    """The path of the program."""
    if not hasattr(os, "pidfd_open"):
        return sys.executable
    from core.jobs.process import call_named, detach
    from tests.waiting import until

    folder = Path(tempfile.mkdtemp(prefix="tunesmith-warm-"))
    asked = ("tests.warm_python:serve", str(folder / "socket"), workers)
    server = imported.Process(target=call_named, args=asked)
    server.start()
    detach(server)
    _SERVERS.append(server)
    until((folder / "socket").exists)
    program = folder / "python"
    program.write_text(
        f'#!/bin/sh\nexec {sys.executable} -IS {__file__} {folder / "socket"} "$@"\n'
    )
    program.chmod(0o755)
    return str(program)


if __name__ == "__main__":
    ask(sys.argv[1], sys.argv[2:])
