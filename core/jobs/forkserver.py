"""The standard library's `forkserver`, with what a long training needs mended.

- The fork server runs in a session of its own from the first moment: Ctrl-C or a closed terminal
  during its seconds of imports does not reach it.
- It gets this process's `sys.path`. (Python 3.11 forgets it, and then silently preloads nothing.)
- A child does not import the program's `__main__` again.
- A start that takes too long, or a fork server that broke, is an error with its last output.

What was checked in Python 3.11: when the process that started it is killed, the fork server lives
as long as a child does, its children are not touched, and their exit codes are lost.
"""

from __future__ import annotations

import contextlib
import io
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from multiprocessing import connection, forkserver, popen_forkserver, resource_tracker, spawn, util
from multiprocessing.context import ForkServerContext, ForkServerProcess, set_spawning_popen
from multiprocessing.reduction import dump
from typing import IO, Any

import psutil

from core.errors import SetupError
from core.language import _

_TAIL_BYTES = 2000


class WorkerContext(ForkServerContext):
    """A multiprocessing context whose processes come from one fork server with `preload` imported.

    `start_seconds` is how long a start may take, the preloading included.
    """

    def __init__(self, preload: Sequence[str], start_seconds: float = 180.0) -> None:
        self.server = _Server(preload)
        self.start_seconds = start_seconds
        self._preload = tuple(preload)
        self._retired: list[_Server] = []

    def Process(self, *args: Any, **kwargs: Any) -> WorkerProcess:  # type: ignore[override]
        """As multiprocessing.Process. `start` raises SetupError when the process does not come."""
        self._drop_idle()
        return WorkerProcess(*args, context=self, **kwargs)

    def warm(self) -> None:
        """Starts the fork server, which then imports on its own. Returns at once."""
        self.server.ensure_running()

    def renew(self) -> None:
        """Takes a new fork server from now on, such as after packages were installed: what the
        old one has imported does not know them.

        The old one stays for as long as it has children, whose ends it tells.
        """
        old, self.server = self.server, _Server(self._preload)
        self._retired.append(old)
        self._drop_idle()
        self.server.ensure_running()

    def _drop_idle(self) -> None:
        """Ends the old fork servers that have no children any more."""
        idle = [server for server in self._retired if not server.is_needed()]
        self._retired = [server for server in self._retired if server not in idle]
        for server in idle:
            server.close()

    def close(self) -> None:
        """Ends the fork servers; their children go on."""
        for server in (*self._retired, self.server):
            server.close()
        self._retired.clear()


class WorkerProcess(ForkServerProcess):
    """A process from a WorkerContext."""

    def __init__(self, *args: Any, context: WorkerContext, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.worker_context: WorkerContext | None = context

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "worker_context": None}

    @staticmethod
    def _Popen(process_obj: WorkerProcess) -> _Popen:  # type: ignore[override]
        return _Popen(process_obj)


def leave_server() -> None:
    """In a child: closes what ties it to the process that asked for it.

    Then the fork server ends with the program that started it, and the pipes on which that
    program was started are not held open for as long as this child runs.
    """
    tracker = resource_tracker._resource_tracker
    for owner, name in ((forkserver._forkserver, "_forkserver_alive_fd"), (tracker, "_fd")):
        handle = getattr(owner, name)
        if handle is not None:
            setattr(owner, name, None)
            with contextlib.suppress(OSError):
                os.close(handle)


class _Popen(popen_forkserver.Popen):
    """How a WorkerProcess is started; as in the standard library but for the differences above."""

    def _launch(self, process_obj: WorkerProcess) -> None:
        context = process_obj.worker_context
        assert context is not None, "only the parent starts a process"
        with context.server.launching() as server:
            self._launch_from(server, context.start_seconds, process_obj)

    def _launch_from(
        self, server: _Server, start_seconds: float, process_obj: WorkerProcess
    ) -> None:
        what_to_do = io.BytesIO()
        set_spawning_popen(self)
        try:
            preparation = spawn.get_preparation_data(process_obj.name)
            about_main = ("init_main_from_name", "init_main_from_path")
            dump({k: v for k, v in preparation.items() if k not in about_main}, what_to_do)
            dump(process_obj, what_to_do)
        finally:
            set_spawning_popen(None)
        try:
            passed = self._fds  # type: ignore[attr-defined]
            self.sentinel, writer = server.connect_to_new_process(passed)
            # The child sees that its parent is gone when this end of its pipe is closed.
            parent_end = os.dup(writer)
            self.finalizer = util.Finalize(self, _close, (parent_end, self.sentinel))
            with open(writer, "wb") as file:
                file.write(what_to_do.getbuffer())
            if not connection.wait([self.sentinel], start_seconds):
                raise TimeoutError(f"nothing came back for {start_seconds:g} s")
            self.pid = forkserver.read_signed(self.sentinel)
        except (OSError, EOFError) as error:
            raise SetupError(
                _(
                    "No worker process could be started ({error}). {output}",
                    error=str(error),
                    output=server.last_output(),
                ),
                _("Look at what python launch.py doctor says."),
            ) from error


def _close(*handles: int) -> None:
    for handle in handles:
        os.close(handle)


class _Server(forkserver.ForkServer):
    """One fork server."""

    def __init__(self, preload: Sequence[str]) -> None:
        super().__init__()
        self._modules = list(preload)
        self._starting = threading.Lock()
        self._forkserver_address: str | None = None
        self._forkserver_alive_fd: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._output: IO[bytes] | None = None
        self._launching: list[None] = []

    def ensure_running(self) -> None:
        """Starts it if it is not there; returns at once, while it is still importing."""
        with self._starting:
            resource_tracker.ensure_running()
            if self._process is not None and self._process.poll() is None:
                return
            self._let_go()
            self._output = tempfile.TemporaryFile()  # noqa: SIM115
            with socket.socket(socket.AF_UNIX) as listener:
                address = connection.arbitrary_address("AF_UNIX")  # type: ignore[attr-defined]
                listener.bind(address)
                os.chmod(address, 0o600)
                listener.listen()
                # The other end of this pipe closes when this process ends, and then it ends too.
                alive_r, alive_w = os.pipe()
                try:
                    self._process = self._start(listener.fileno(), alive_r)
                except BaseException:
                    os.close(alive_w)
                    raise
                finally:
                    os.close(alive_r)
            self._forkserver_address, self._forkserver_alive_fd = address, alive_w

    def _start(self, listener: int, alive: int) -> subprocess.Popen[bytes]:
        path = [entry or os.getcwd() for entry in sys.path]
        code = (
            f"import sys; sys.path[:] = {path!r}; from multiprocessing.forkserver import main; "
            f"main({listener}, {alive}, {self._modules!r})"
        )
        return subprocess.Popen(
            [sys.executable, *util._args_from_interpreter_flags(), "-c", code],  # type: ignore[attr-defined]
            pass_fds=(listener, alive),
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._output,
            start_new_session=True,
        )

    @contextlib.contextmanager
    def launching(self) -> Iterator[_Server]:
        """Around a start: for so long it is needed, though it has no child yet."""
        self._launching.append(None)
        try:
            yield self
        finally:
            self._launching.pop()

    def is_needed(self) -> bool:
        """Whether a process is being started by it, or one that it started still lives."""
        if self._launching:
            return True
        if self._process is None:
            return False
        try:
            return bool(psutil.Process(self._process.pid).children())
        except psutil.NoSuchProcess:
            return False

    def last_output(self) -> str:
        """The end of what it printed, such as the traceback of a failed import."""
        if self._output is None:
            return ""
        # pread: the writers share this file's position.
        handle = self._output.fileno()
        start = max(0, os.fstat(handle).st_size - _TAIL_BYTES)
        return os.pread(handle, _TAIL_BYTES, start).decode(errors="replace").strip()

    def close(self) -> None:
        with self._starting:
            process = self._process
            self._let_go()
            if process is not None:
                process.kill()  # it may be importing still, or wait for the end of its children
                process.wait()

    def _let_go(self) -> None:
        if self._forkserver_alive_fd is not None:
            os.close(self._forkserver_alive_fd)
        self._forkserver_alive_fd = self._forkserver_address = self._process = None
