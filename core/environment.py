"""The Python environment in `.venv`: whether it is what the lock files say, and making it so.

Standard library only, and light: launch.py asks here at every start, before any package is there.

`.venv/tunesmith-setup.json` says what is installed. It is `ready` only after everything is in
place, so a set-up that was cut off is begun again (pip's cache has the downloads); a lock file
that changed is installed over what is there.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from core.errors import SetupError
from core.setup_report import PipWatch, Step, explain, explain_os_error, say, spell

LOCK = "requirements.lock"
TEST_LOCK = "requirements-test.lock"
STATE_NAME = "tunesmith-setup.json"
# Large folders that no start needs.
_NEVER_IMPORTED = r"[/\\](tests?|testing[/\\]_internal)[/\\]"
WINDOWS = os.name == "nt"


class Environment:
    """`.venv` beside launch.py, in the folder `root`."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.venv = self.root / ".venv"
        self.python = str(self.venv / ("Scripts/python.exe" if WINDOWS else "bin/python"))
        self.state_file = self.venv / STATE_NAME
        self.log = self.venv / "setup.log"

    def ensure(self, locks: list[str]) -> bool:
        """Brings `.venv` to what `locks` say; False if it was so already. Raises SetupError.

        One process at a time does it, the others wait for it.
        """
        try:
            if self.is_ready(locks):
                return False
            with OneAtATime(self.root / ".venv.lock") as turn:
                if self.is_ready(locks):  # whoever was here before did it
                    return True
                started = time.monotonic()
                self._set_up(locks, turn)
        except OSError as error:
            raise explain_os_error(error, self.venv) from error
        say(f"Ready after {spell(time.monotonic() - started)}.")
        return True

    def is_ready(self, locks: list[str]) -> bool:
        state = self.state()
        installed = state.get("locks", {})
        return self.is_whole(state) and all(installed.get(x) == self.digest(x) for x in locks)

    def state(self) -> dict[str, Any]:
        """What the state file says; {} when there is none or it cannot be read."""
        try:
            state = json.loads(self.state_file.read_bytes())
        except (OSError, ValueError):
            return {}
        return state if isinstance(state, dict) else {}

    def is_whole(self, state: dict[str, Any]) -> bool:
        """Whether a set-up came to its end, by a Python that is still where it was.

        A system upgrade swaps the interpreter behind .venv/bin/python: the packages are then in
        the old version's folder, where the new one does not look.
        """
        return (
            state.get("ready") is True
            and os.path.exists(self.python)
            and os.path.realpath(self.python) == state.get("interpreter")
        )

    def digest(self, lock: str) -> str:
        return hashlib.sha256((self.root / lock).read_bytes()).hexdigest()

    def count_pins(self, locks: list[str]) -> int:
        return sum((self.root / lock).read_text("utf-8").count("==") for lock in locks)

    def count_installed(self) -> int:
        pattern = "Lib/site-packages/*.dist-info" if WINDOWS else "lib/*/site-packages/*.dist-info"
        return sum(1 for _ in self.venv.glob(pattern))

    def _set_up(self, locks: list[str], turn: OneAtATime) -> None:
        state = self.state()
        if self.is_whole(state):
            say(f"Updating {self.venv}: the list of packages has changed.")
        else:
            say(f"Setting up Tunesmith in {self.venv}; this takes a few minutes.")
            state = self._make(turn)
        # What is there already is named too, so that all pins are kept.
        locks = sorted({*locks, *state["locks"]})
        self._install(locks, state, turn)
        done = {lock: self.digest(lock) for lock in locks}
        self._write_state({**state, "ready": True, "locks": done})

    def _make(self, turn: OneAtATime) -> dict[str, Any]:
        """A fresh .venv with pip in it, after what an unfinished set-up left is gone."""
        step = Step("1/4 Making the environment")
        self._clear()
        version = sys.version.split()[0]
        state = {"ready": False, "python": version, "interpreter": "", "locks": {}}
        self._write_state(state)
        base = getattr(sys, "_base_executable", None) or sys.executable
        self._run([base, "-m", "venv", str(self.venv)], turn, lambda output: step.tick())
        # First pip itself: the pinned one resumes a download that breaks off, older ones do not.
        pip = next(
            x for x in (self.root / LOCK).read_text("utf-8").split() if x.startswith("pip==")
        )
        self._run([*self._pip(), "--progress-bar", "off", pip], turn, lambda output: step.tick())
        step.end(f"Python {version}")
        return {**state, "interpreter": os.path.realpath(self.python)}

    def _clear(self) -> None:
        """Empties .venv. Refuses to touch one that is not Tunesmith's own."""
        import shutil

        self.venv.mkdir(exist_ok=True)
        inside = list(self.venv.iterdir())
        if inside and self.state_file not in inside:
            raise SetupError(
                f"{self.venv} is there, but Tunesmith did not make it.",
                "Move or delete it, then start again.",
            )
        for path in inside:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path != self.state_file:  # stays: a clearing that is cut off is known as ours
                path.unlink()

    def _install(self, locks: list[str], state: dict[str, Any], turn: OneAtATime) -> None:
        """pip installs `locks`; its own words go to the log."""
        command = [*self._pip(), "--no-compile", "--prefer-binary", "--progress-bar", "raw"]
        for lock in locks:
            command += ["-r", str(self.root / lock)]
        watch = PipWatch(self.count_pins(locks), self.count_installed)
        self._write_state({**state, "ready": False})
        try:
            self._run(command, turn, watch.look)
        except SetupError:
            if not watch.installing:  # nothing was touched: what was there still works
                self._write_state(state)
            raise
        watch.step.end(f"{watch.total} packages")
        self._compile(turn)

    def _compile(self, turn: OneAtATime) -> None:
        """Bytecode for quick starts, on all cores: pip would take several times as long."""
        step = Step("4/4 Preparing quick starts")
        library = next(self.venv.glob("Lib/site-packages" if WINDOWS else "lib/*/site-packages"))
        command = [self.python, "-m", "compileall", "-q", "-j", "0", "-x", _NEVER_IMPORTED]
        # It fails if only one file of the thousands is a template with odd syntax.
        self._run([*command, str(library)], turn, lambda output: step.tick(), check=False)
        step.end("done")

    def _pip(self) -> list[str]:
        pip = [self.python, "-m", "pip", "install", "--no-input", "--no-user"]
        return [*pip, "--disable-pip-version-check"]

    def _run(
        self,
        command: list[str],
        turn: OneAtATime,
        follow: Callable[[str], None],
        check: bool = True,
    ) -> None:
        """Runs `command` with its output in the log; `follow` gets the output so far, all along."""
        import subprocess

        variables = {**os.environ, "PYTHONUNBUFFERED": "1"}
        for name in ("PYTHONHOME", "PYTHONPATH", "__PYVENV_LAUNCHER__"):
            variables.pop(name, None)
        with self.log.open("ab") as log:
            start = log.tell()
            # The child holds the lock as well: should this process be killed, the next start
            # waits until the child has stopped writing into .venv.
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=variables,
                pass_fds=() if WINDOWS else (turn.descriptor,),
            )
        try:
            while child.poll() is None:
                time.sleep(0.2)
                follow(self._logged(start))
        except BaseException:
            child.terminate()
            child.wait()
            raise
        output = self._logged(start)
        follow(output)
        if check and child.returncode != 0:
            if sys.stderr.isatty():
                say("")
            raise explain(output, self.log)

    def _logged(self, start: int) -> str:
        with self.log.open("rb") as log:
            log.seek(start)
            return log.read().decode("utf-8", "replace")

    def _write_state(self, state: dict[str, Any]) -> None:
        beside = self.state_file.with_suffix(f".{os.getpid()}")
        with beside.open("w", encoding="utf-8") as file:
            json.dump(state, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, self.state_file)


class OneAtATime:
    """A lock between processes. The system lets go of it when its holders have died."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = -1

    def __enter__(self) -> OneAtATime:
        self.descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        told = False
        while not self._try():
            if not told:
                holder = self.path.read_text("ascii", "replace").strip()
                say(f"Another set-up (process {holder}) is at work here; waiting for its end.")
                told = True
            time.sleep(0.2)
        os.ftruncate(self.descriptor, 0)
        os.lseek(self.descriptor, 0, os.SEEK_SET)
        os.write(self.descriptor, str(os.getpid()).encode("ascii"))
        return self

    def _try(self) -> bool:
        try:
            if sys.platform == "win32":
                import msvcrt

                # A byte far behind the text: a locked one could not be read by the others.
                os.lseek(self.descriptor, 1000, os.SEEK_SET)
                msvcrt.locking(self.descriptor, msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)
