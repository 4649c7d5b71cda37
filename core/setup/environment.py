"""The Python environment in `.venv`: whether it is what the lock files say, and making it so.

Standard library only, and light: launch.py asks here at every start, before any package is there.

`.venv/tunesmith-setup.json` says what is installed. It is `ready` only after everything is in
place, so a set-up that was cut off is begun again (pip's cache has the downloads); a lock file
that changed is installed over what is there. Extras (core/setup/extras.py) stand in it by name with
their pins; an update brings them along.
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
from core.language import _, n_
from core.progress import Tell
from core.setup.extras import EXTRAS, Extra, find, is_installed
from core.setup.report import (
    PipWatch,
    Step,
    explain,
    explain_os_error,
    plain_name,
    progress_of,
    say,
    spell,
)

LOCK = "requirements.lock"
TEST_LOCK = "requirements-test.lock"
STATE_NAME = "tunesmith-setup.json"
# Large folders that no start needs.
_NEVER_IMPORTED = r"[/\\](tests?|testing[/\\]_internal)[/\\]"
WINDOWS = os.name == "nt"


class Environment:
    """`.venv` beside launch.py, in the folder `root`.

    `own` is false for another Python that a person runs Tunesmith with: packages can be added to
    it, nothing else.
    """

    own = True

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.venv = self.root / ".venv"
        self.python = str(self.venv / ("Scripts/python.exe" if WINDOWS else "bin/python"))
        self.state_file = self.venv / STATE_NAME
        self.log = self.venv / "setup.log"
        self.turn_file = self.root / ".venv.lock"

    @classmethod
    def running(cls) -> Environment:
        """That of the Python which runs this."""
        environment = cls(Path(__file__).resolve().parents[2])
        if os.path.realpath(sys.prefix) != os.path.realpath(environment.venv):
            environment.own = False
            environment.venv, environment.python = Path(sys.prefix), sys.executable
            environment.log = environment.venv / "tunesmith-setup.log"
            environment.turn_file = environment.venv / "tunesmith-setup.lock"
        return environment

    def ensure(self, locks: list[str]) -> bool:
        """Brings `.venv` to what `locks` say; False if it was so already. Raises SetupError.

        One process at a time does it, the others wait for it.
        """
        try:
            if self.is_ready(locks):
                return False
            with OneAtATime(self.turn_file) as turn:
                if self.is_ready(locks):  # whoever was here before did it
                    return True
                started = time.monotonic()
                self._set_up(locks, turn)
        except OSError as error:
            raise explain_os_error(error, self.venv) from error
        say(_("Ready after {time}.", time=spell(time.monotonic() - started)))
        return True

    def add(self, extras: list[Extra], tell: Tell | None = None) -> None:
        """Installs extras over what is there. Raises SetupError, or what `tell` raises."""
        try:
            with OneAtATime(self.turn_file) as turn:
                self._add(extras, turn, tell)
        except OSError as error:
            raise explain_os_error(error, self.venv) from error

    def is_ready(self, locks: list[str]) -> bool:
        state = self.state()
        return self.is_whole(state) and self._are_installed(locks, state) and not _stale(state)

    def _are_installed(self, locks: list[str], state: dict[str, Any]) -> bool:
        installed = state.get("locks", {})
        return all(installed.get(lock) == self.digest(lock) for lock in locks)

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
        return sum(1 for _found in self.venv.glob(pattern))

    def _set_up(self, locks: list[str], turn: OneAtATime) -> None:
        state = self.state()
        if not self.is_whole(state):
            say(_("Setting up Tunesmith in {folder}; this takes a few minutes.", folder=self.venv))
            state = self._make(turn)
        else:
            say(_("Updating {folder}: the list of packages has changed.", folder=self.venv))
        if not self._are_installed(locks, state):
            # What is there already is named too, so that all pins are kept.
            locks = sorted({*locks, *state["locks"]})
            self._install(locks, state, turn)
            done = {lock: self.digest(lock) for lock in locks}
            state = {**state, "ready": True, "locks": done}
            self._write_state(state)
        self._bring_along(_stale(state), turn)

    def _bring_along(self, extras: list[Extra], turn: OneAtATime) -> None:
        """Extras from before, at today's pins. None of them keeps Tunesmith from starting."""
        for extra in extras:
            try:
                self._add([extra], turn)
            except SetupError as error:
                say(
                    _(
                        "{package} was not brought along: {error} Later: {command}",
                        package=extra.title,
                        error=error,
                        command=extra.command,
                    )
                )
                self._remember(extra)

    def _add(self, extras: list[Extra], turn: OneAtATime, tell: Tell | None = None) -> None:
        """pip installs `extras` without replacing anything that requirements.lock names."""
        for extra in extras:
            step = Step(_("Adding {package}", package=extra.title))

            def follow(output: str, extra: Extra = extra, step: Step = step) -> None:
                step.tick()
                if tell is not None:
                    tell(*progress_of(output, extra.title))

            constraints = self.log.with_suffix(".constraints.txt")
            constraints.write_text(self._constraints(), "utf-8")
            command = [*self._pip(), "--prefer-binary", "--progress-bar", "raw"]
            command += ["--no-deps"] if extra.alone else ["-c", str(constraints)]
            self._run([*command, *extra.packages], turn, follow)
            step.end(_("done"))
            self._remember(extra)

    def _constraints(self) -> str:
        """What the locks name, at the versions that are installed: pip may not replace these."""
        from importlib.metadata import distributions

        names: set[str] = set()
        for lock in (LOCK, TEST_LOCK):
            if (self.root / lock).exists():
                lines = (self.root / lock).read_text("utf-8").splitlines()
                names |= {plain_name(line.partition("==")[0]) for line in lines if "==" in line}
        names -= {plain_name(x.partition("==")[0]) for e in EXTRAS.values() for x in e.packages}
        libraries = [str(path) for path in self._libraries()]
        # Each name once: the first on the path is the one that is imported.
        found: dict[str, str] = {}
        for about in distributions(path=libraries):
            found.setdefault(plain_name(about.name), about.version)
        return "".join(f"{name}=={found[name]}\n" for name in sorted(names & found.keys()))

    def _libraries(self) -> list[Path]:
        if not self.own:
            return [Path(entry) for entry in sys.path if entry]
        return list(self.venv.glob("Lib/site-packages" if WINDOWS else "lib/*/site-packages"))

    def _remember(self, extra: Extra) -> None:
        if self.own:
            state = self.state()
            kept = {**state.get("extras", {}), extra.name: list(extra.packages)}
            self._write_state({**state, "extras": kept})

    def _make(self, turn: OneAtATime) -> dict[str, Any]:
        """A fresh .venv with pip in it, after what an unfinished set-up left is gone."""
        step = Step(_("1/4 Making the environment"))
        # Their packages go with the old environment; a new one gets them again.
        extras: dict[str, list[str]] = {name: [] for name in self.state().get("extras", {})}
        self._clear()
        version = sys.version.split()[0]
        state = {"ready": False, "python": version, "interpreter": "", "locks": {}}
        state |= {"extras": extras}
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
                _("{folder} is there, but Tunesmith did not make it.", folder=self.venv),
                _("Move or delete it, then start again."),
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
        watch.step.end(n_("{n} package", "{n} packages", watch.total))
        self._compile(turn)

    def _compile(self, turn: OneAtATime) -> None:
        """Bytecode for quick starts, on all cores: pip would take several times as long."""
        step = Step(_("4/4 Preparing quick starts"))
        library = self._libraries()[0]
        command = [self.python, "-m", "compileall", "-q", "-j", "0", "-x", _NEVER_IMPORTED]
        # It fails if only one file of the thousands is a template with odd syntax.
        self._run([*command, str(library)], turn, lambda output: step.tick(), check=False)
        step.end(_("done"))

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
                # The page's own files are for its owner; packages are for all who use this .venv.
                umask=-1 if WINDOWS else 0o022,
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


def _stale(state: dict[str, Any]) -> list[Extra]:
    """The extras that somebody added and that are not here with today's pins."""
    here = state.get("extras", {})
    return [x for x in EXTRAS.values() if x.name in here and here[x.name] != list(x.packages)]


def install(name: str, tell: Tell | None = None) -> None:
    """Installs an extra into the Python that runs this. Raises SetupError.

    In Tunesmith's own environment it is remembered, so that later updates keep it. Processes that
    run already do not get it all: see `core.jobs.process.WorkerContext.renew`.
    """
    extra = find([name])[0]
    Environment.running().add([extra], tell)
    if not is_installed(name):
        raise SetupError(
            _(
                "pip says that {package} is installed, but {module} is not found.",
                package=extra.title,
                module=extra.import_name,
            ),
            _("Try it in a shell: {command}", command=extra.command),
        )


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
                say(
                    _(
                        "Another set-up (process {pid}) is at work here; waiting for its end.",
                        pid=holder,
                    )
                )
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
