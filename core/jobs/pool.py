"""A few long-lived processes for short work that needs a tokenizer: previews, token counts.

They come from the same fork server as the workers, so torch and transformers are there at once,
and they end when the program does, however it ends.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from core.errors import JobError
from core.jobs.limits import SHORT, Limit, limited
from core.jobs.process import WorkerContext, context, exit_with_parent, named
from core.language import _, language, speaking


class Pool:
    """Calls functions in other processes; `processes` of them at once."""

    def __init__(
        self, workspace_root: Path, *, processes: int = 2, workers: WorkerContext | None = None
    ) -> None:
        self.workspace_root = workspace_root
        self._processes = processes
        self._workers = workers or context()
        self._lock = threading.Lock()
        self._executor: ProcessPoolExecutor | None = None
        self._closed = False
        # The first call waits for the fork server; that is no reason to hold up who asks.
        self._threads = ThreadPoolExecutor(processes, thread_name_prefix="pool")

    def submit(
        self, function: str | Callable[..., Any], *args: Any, within: Limit | None = SHORT
    ) -> Future[Any]:
        """Calls an importable function, or one by its name "package.module:function", which speaks
        the language of who asks.

        Its exception, or JobError when it did not keep `within` its limit or its process was
        killed, is the future's.
        """
        return self._threads.submit(self._call, function, args, within, language())

    def renew(self) -> None:
        """From the next call on other processes, which know what was installed meanwhile."""
        with self._lock:
            executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=False)  # what it is doing it finishes

    def close(self) -> None:
        """Ends the processes at once, and with them what they are doing."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            self._closed = True
            executor, self._executor = self._executor, None
        if executor is not None:
            for process in list((executor._processes or {}).values()):
                process.kill()
            # Python's own end looks at what this closes, and must not meet it half closed.
            executor.shutdown(wait=True, cancel_futures=True)

    def _call(
        self,
        function: str | Callable[..., Any],
        args: tuple[Any, ...],
        within: Limit | None,
        spoken: str,
    ) -> Any:
        # Twice: the first time it may only meet a process that was killed while it was idle.
        for _attempt in range(2):
            executor = self._current()
            try:
                return executor.submit(_work, function, args, within, spoken).result()
            except BrokenProcessPool as error:
                self._drop(executor)
                killed = error
        raise JobError(
            _("The process that was to do this was killed."),
            _("Is the machine short of memory? Try again with fewer rows."),
        ) from killed

    def _current(self) -> ProcessPoolExecutor:
        with self._lock:
            if self._closed:
                raise JobError(_("The program is ending."), _("Start it again."))
            if self._executor is None:
                self._executor = ProcessPoolExecutor(
                    self._processes, mp_context=self._workers, initializer=exit_with_parent
                )
            return self._executor

    def _drop(self, broken: ProcessPoolExecutor) -> None:
        with self._lock:
            if self._executor is broken:
                self._executor = None


def _work(
    function: str | Callable[..., Any], args: tuple[Any, ...], within: Limit | None, spoken: str
) -> Any:
    with limited(within), speaking(spoken):
        return named(function)(*args)
