"""A `python` for processes that import torch: it runs what it is given in a fork of one that has
imported it already, which saves ten seconds of a processor at each start.

Signals, exit code, output, folder and environment are those of a process of its own; what a library
reads from the environment when it is imported is that of the test process.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import sys
from pathlib import Path
from typing import Any

_PASSED_ON = (signal.SIGTERM, signal.SIGINT)


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


def serve(address: str) -> None:
    """In a process that has imported torch: forks one for each that asks, until its parent ends."""
    from multiprocessing import parent_process

    parent = parent_process()
    assert parent is not None
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    with selectors.DefaultSelector() as waiting:
        waiting.register(listener, selectors.EVENT_READ)
        waiting.register(parent.sentinel, selectors.EVENT_READ)
        while True:
            for key, _events in waiting.select():
                if key.fileobj == parent.sentinel:
                    return
                if key.fileobj is listener:
                    client = listener.accept()[0]
                    pid = _fork(client)
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
    if client in {other.fileobj for other in waiting.get_map().values()}:
        waiting.unregister(client)
        client.sendall(status)
    client.close()


def _fork(client: socket.socket) -> int:
    _byte, handles, _flags, _address = socket.recv_fds(client, 1, 3)
    asked = json.loads(client.makefile("rb").readline())
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
    import threading
    import traceback

    import torch
    from huggingface_hub import constants

    code: Any = 1
    try:
        for number in _PASSED_ON:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        constants.HF_HUB_OFFLINE = "HF_HUB_OFFLINE" in environment
        if "OMP_NUM_THREADS" in environment:
            torch.set_num_threads(int(environment["OMP_NUM_THREADS"]))
        sys.path[:0] = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
        _run(words)
        code = 0
    except SystemExit as end:
        code = end.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
        code = code if isinstance(code, int) else bool(code)
    except BaseException:
        traceback.print_exc()
    finally:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _run(words: list[str]) -> None:
    import runpy

    kind, *rest = (word for word in words if word not in ("-u", "-B"))
    if kind == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.argv = ["-c", *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = [kind, *rest]
        runpy.run_path(kind, run_name="__main__")


def write(folder: Path) -> Path:
    """The program, in this folder; its server is another's to start, with its `socket`."""
    program = folder / "python"
    here = Path(__file__)
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -IS {here} {folder / "socket"} "$@"\n')
    program.chmod(0o755)
    return program


if __name__ == "__main__":
    ask(sys.argv[1], sys.argv[2:])
