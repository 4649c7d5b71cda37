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
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LOCK = "requirements.lock"
TEST_LOCK = "requirements-test.lock"
STATE_NAME = "tunesmith-setup.json"
WINDOWS = os.name == "nt"
# Room for the largest set: on Linux the torch of the default index brings CUDA's libraries.
DISK_GB = 8

# What pip and the system write; the last two in lower case.
_INSTALLING = "Installing collected packages: "
# name, version, size: "  Downloading torch-2.13.0-cp311-cp311-linux.whl (191.8 MB)"
_DOWNLOADING = re.compile(
    r"^  Downloading (?:\S*/)?([^-/\s]+)-([^-\s]+)\S*(?<!metadata) (\(.+\))$", re.M
)
_DISK_FULL = ("no space left on device", "not enough space on the disk", "disk quota exceeded")
_NO_NETWORK = (
    "connection broken by",
    "failed to establish a new connection",
    "name resolution",
    "network is unreachable",
    "proxyerror",
    "read timed out",
)


class SetupFailed(Exception):
    """`message` tells the person what is wrong and what to do; `output` is what pip wrote."""

    def __init__(self, message: str, output: str = "") -> None:
        super().__init__(message)
        self.output = output


class Environment:
    """`.venv` beside launch.py, in the folder `root`."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.venv = self.root / ".venv"
        self.python = str(self.venv / ("Scripts/python.exe" if WINDOWS else "bin/python"))
        self.state_file = self.venv / STATE_NAME
        self.log = self.venv / "setup.log"

    def ensure(self, locks: list[str]) -> bool:
        """Brings `.venv` to what `locks` say; False if it was so already. Raises SetupFailed.

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
            raise SetupFailed(explain_os_error(error, self.venv)) from error
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
        step = Step("1/3 Making the environment")
        self._clear()
        version = sys.version.split()[0]
        state = {"ready": False, "python": version, "interpreter": "", "locks": {}}
        self._write_state(state)
        base = getattr(sys, "_base_executable", None) or sys.executable
        self._run([base, "-m", "venv", str(self.venv)], turn, lambda output: step.tick())
        step.end(f"Python {version}")
        return {**state, "interpreter": os.path.realpath(self.python)}

    def _clear(self) -> None:
        """Empties .venv. Refuses to touch one that is not Tunesmith's own."""
        import shutil

        self.venv.mkdir(exist_ok=True)
        inside = list(self.venv.iterdir())
        if inside and self.state_file not in inside:
            raise SetupFailed(
                f"{self.venv} is there, but Tunesmith did not make it. Move or delete it, then "
                "start again."
            )
        for path in inside:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path != self.state_file:  # stays: a clearing that is cut off is known as ours
                path.unlink()

    def _install(self, locks: list[str], state: dict[str, Any], turn: OneAtATime) -> None:
        """pip installs `locks`; its own words go to the log."""
        command = [self.python, "-m", "pip", "install", "--no-input", "--no-user"]
        command += ["--prefer-binary", "--disable-pip-version-check", "--progress-bar", "off"]
        for lock in locks:
            command += ["-r", str(self.root / lock)]
        watch = _PipWatch(self, self.count_pins(locks))
        self._write_state({**state, "ready": False})
        try:
            self._run(command, turn, watch.look)
        except SetupFailed as error:
            if _INSTALLING not in error.output:  # nothing was touched: what was there still works
                self._write_state(state)
            raise
        watch.step.end(f"{watch.total} packages")

    def _run(self, command: list[str], turn: OneAtATime, follow: Callable[[str], None]) -> None:
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
        if child.returncode != 0:
            say("")
            raise SetupFailed(explain(output, self.log), output)
        follow(output)

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


class Step:
    """One line of progress: redrawn on a terminal, else printed again as it changes."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.started = time.monotonic()
        self.shown = ""
        self.shown_at = 0.0
        self.terminal = sys.stderr.isatty()

    def tick(self, detail: str = "") -> None:
        """Shows where it is: each second on a terminal; each 10 s, if it moved, elsewhere."""
        text = f"{self.name}: {detail}" if detail else self.name
        now = time.monotonic()
        if self.terminal and (text != self.shown or now - self.shown_at >= 1):
            line = f"{text} ({spell(now - self.started)})"
            print(f"\r\033[K  {line[:110]}", end="", file=sys.stderr, flush=True)
        elif not self.terminal and text != self.shown and now - self.shown_at >= 10:
            say(f"  {text}")
        else:
            return
        self.shown, self.shown_at = text, now

    def end(self, result: str) -> None:
        start = "\r\033[K  " if self.terminal else "  "
        say(f"{start}{self.name}: {result}, {spell(time.monotonic() - self.started)}")


class _PipWatch:
    """Turns what pip has written so far into two steps: fetching and installing."""

    def __init__(self, environment: Environment, total: int) -> None:
        self.environment = environment
        self.total = total
        self.installing = False
        self.installed_before = 0
        self.step = Step("2/3 Fetching packages")

    def look(self, output: str) -> None:
        lines = output.splitlines()
        begun = [line for line in lines if line.startswith(_INSTALLING)]
        if begun and not self.installing:
            self.installing = True
            self.step.end("all here")
            self.total = begun[0].count(",") + 1
            self.installed_before = self.environment.count_installed()
            self.step = Step("3/3 Installing packages")
        if self.installing:
            # pip is silent meanwhile; a package's folder of metadata shows that it is there.
            done = self.environment.count_installed() - self.installed_before
            self.step.tick(f"{min(max(done, 0), self.total)} of {self.total}")
        elif lines and "Retrying" in lines[-1]:
            self.step.tick("the package index does not answer, trying again")
        else:
            found = sum(line.startswith(("Collecting ", "Requirement already")) for line in lines)
            wheels = _DOWNLOADING.findall(output)
            now = ", now {} {} {}".format(*wheels[-1]) if wheels else ""
            self.step.tick(f"{min(found, self.total)} of {self.total}{now}")


def explain(output: str, log: Path) -> str:
    """What a failed venv or pip wrote, as one sentence on what is wrong and one on what to do."""
    text = output.lower()
    errors = [line[7:] for line in output.splitlines() if line.startswith("ERROR: ")]
    missing = [line.split()[5] for line in errors if line.startswith("No matching distribution")]
    version = "{}.{}".format(*sys.version_info)
    if any(words in text for words in _DISK_FULL):
        return disk_full(log.parent)
    if "ensurepip" in text or "no module named venv" in text:
        return (
            "This Python cannot make environments. On Debian and Ubuntu its package is missing: "
            f"sudo apt install python{version}-venv"
        )
    if "certificate_verify_failed" in text:
        return (
            "The package index shows a certificate that is not trusted here. Behind a company's "
            f"proxy, name its certificate file in PIP_CERT. All of pip's output: {log}"
        )
    if any(words in text for words in _NO_NETWORK):
        return (
            "The package index cannot be reached. Check the network (behind a proxy, set "
            f"HTTPS_PROXY) and start again. All of pip's output: {log}"
        )
    if missing:
        return (
            f"No build of {missing[-1]} for Python {version} on this kind of machine was found. "
            f"Try another Python, 3.11 to 3.13. All of pip's output: {log}"
        )
    last = errors[-1:] or output.strip().splitlines()[-1:] or ["no reason given"]
    return f"The packages could not be installed: {last[0]} All of the output: {log}"


def explain_os_error(error: OSError, venv: Path) -> str:
    import errno

    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return disk_full(venv)
    place = error.filename or venv
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{place} cannot be written. Move Tunesmith into a folder of your own."
    return f"{place}: {error.strerror or error}. Set that right, then start again."


def disk_full(venv: Path) -> str:
    import shutil
    import tempfile

    places = [
        f"{shutil.disk_usage(place).free / 1e9:.1f} GB free in {place}"
        for place in (venv.parent, Path(tempfile.gettempdir()))
    ]
    return (
        f"The disk is full ({', '.join(places)}). Make room, up to {DISK_GB} GB, and start again."
    )


def spell(seconds: float) -> str:
    """12.3 s, or 2 min 5 s."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"


def say(text: str) -> None:
    """Standard error: standard output belongs to the command that follows (--json)."""
    print(text, file=sys.stderr, flush=True)
