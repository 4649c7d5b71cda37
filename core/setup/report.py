"""What a set-up shows while it goes on, and what it says when it fails.

Standard library only, like core.setup.environment, which uses it.
"""

from __future__ import annotations

import errno
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

from core.errors import SetupError, reason_of
from core.language import _

# Room for the largest set: on Linux the torch of the default index brings CUDA's libraries.
DISK_GB = 8

# What pip and the system write; the last two in lower case.
_INSTALLING = "Installing collected packages: "
_FOUND = ("Collecting ", "Processing ", "Requirement already")
# name, version, size: "  Downloading torch-2.13.0-cp311-cp311-linux.whl (191.8 MB)"
_DOWNLOADING = re.compile(
    r"^  Downloading (?:\S*/)?([^-/\s]+)-([^-\s]+)\S*(?<!metadata) \((.+)\)$", re.MULTILINE
)
_PROGRESS = re.compile(r"^Progress (\d+) of ([1-9]\d*)$", re.MULTILINE)
_DISK_FULL = ("no space left on device", "not enough space on the disk", "disk quota exceeded")
_NO_NETWORK = (
    "connection broken by",
    "failed to establish a new connection",
    "name resolution",
    "network is unreachable",
    "proxyerror",
    "read timed out",
)


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


class PipWatch:
    """Turns what pip has written so far into two steps: fetching and installing."""

    def __init__(self, total: int, count_installed: Callable[[], int]) -> None:
        self.total = total
        self.count_installed = count_installed
        self.installing = False
        self.installed_before = 0
        self.step = Step(_("2/4 Fetching packages"))

    def look(self, output: str) -> None:
        lines = output.splitlines()
        begun = [line for line in lines if line.startswith(_INSTALLING)]
        if begun and not self.installing:
            self.installing = True
            self.step.end(_("all here"))
            self.total = begun[0].count(",") + 1
            self.installed_before = self.count_installed()
            self.step = Step(_("3/4 Installing packages"))
        if self.installing:
            # pip is silent meanwhile; a package's folder of metadata shows that it is there.
            done = self.count_installed() - self.installed_before
            self.step.tick(self._counted(max(done, 0)))
        elif lines and "Retrying" in lines[-1]:
            self.step.tick(_("the package index does not answer, trying again"))
        else:
            found = sum(line.startswith(_FOUND) for line in lines)
            counted, wheel = self._counted(found), _current(output)
            self.step.tick(
                _("{counted}, now {wheel}", counted=counted, wheel=wheel) if wheel else counted
            )

    def _counted(self, done: int) -> str:
        return _("{done} of {total}", done=min(done, self.total), total=self.total)


def _current(output: str) -> str:
    """`torch 2.13.0 (191.8 MB, 40 %)`, or nothing before the first download."""
    wheels = list(_DOWNLOADING.finditer(output))
    if not wheels:
        return ""
    name, version, size = wheels[-1].groups()
    progress = _PROGRESS.findall(output, wheels[-1].end())
    share = f", {100 * int(progress[-1][0]) / int(progress[-1][1]):.0f} %" if progress else ""
    return f"{name} {version} ({size}{share})"


def progress_of(output: str, title: str) -> tuple[float, str]:
    """How far pip is by what it has written: a share from 0 to 1, and a sentence."""
    if _INSTALLING in output:
        return 0.9, _("Installing {package}", package=title)
    if "Retrying" in output[-500:]:
        return 0.0, _("The package index does not answer, trying again")
    done = _PROGRESS.findall(output)
    if not done:
        return 0.05, _("Looking for {package}", package=title)
    wheels = [f"{name} {version} ({size})" for name, version, size in _DOWNLOADING.findall(output)]
    share = int(done[-1][0]) / int(done[-1][1])
    return 0.1 + 0.7 * share, _("Fetching {package}", package=wheels[-1] if wheels else title)


def plain_name(package: str) -> str:
    """A package's name as all ways to write it compare: PyYAML and pyyaml, a_b and a-b."""
    return re.sub(r"[-_.]+", "-", package.strip()).lower()


def explain(output: str, log: Path, needed_gb: int = DISK_GB) -> SetupError:
    """What a failed venv or pip wrote, as one sentence on what is wrong and one on what to do."""
    text = output.lower()
    errors = [line[7:] for line in output.splitlines() if line.startswith("ERROR: ")]
    missing = [line.split()[5] for line in errors if line.startswith("No matching distribution")]
    version = "{}.{}".format(*sys.version_info)
    more = _("All of pip's output: {log}", log=log)
    if any(words in text for words in _DISK_FULL):
        return disk_full(log.parent, needed_gb)
    if "ensurepip" in text or "no module named venv" in text:
        return SetupError(
            _("This Python cannot make environments."),
            _(
                "On Debian and Ubuntu install what it lacks: sudo apt install python{version}-venv",
                version=version,
            ),
        )
    if "certificate_verify_failed" in text:
        return SetupError(
            _("The package index shows a certificate that is not trusted here."),
            _("Behind a company's proxy, name its certificate file in PIP_CERT. {more}", more=more),
        )
    if any(words in text for words in _NO_NETWORK):
        return SetupError(
            _("The package index cannot be reached."),
            _(
                "Check the network (behind a proxy, set HTTPS_PROXY) and start again. {more}",
                more=more,
            ),
        )
    if "resolutionimpossible" in text:
        reasons = [line.strip() for line in output.splitlines() if " depends on " in line]
        return SetupError(
            _(
                "It needs other versions than Tunesmith runs on: {reasons}.",
                reasons=", ".join(reasons),
            ),
            _("Nothing was changed. {more}", more=more),
        )
    if missing:
        return SetupError(
            _(
                "No build of {package} was found for Python {version} on this kind of machine.",
                package=missing[-1],
                version=version,
            ),
            _("Try another Python, 3.11 to 3.13. {more}", more=more),
        )
    last = errors[-1:] or output.strip().splitlines()[-1:] or [_("no reason given")]
    return SetupError(_("The packages could not be installed: {reason}", reason=last[0]), more)


def explain_os_error(error: OSError, venv: Path) -> SetupError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return disk_full(venv)
    place = error.filename or venv
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return SetupError(
            _("{place} cannot be written.", place=place),
            _("Move Tunesmith to a folder of your own."),
        )
    return SetupError(
        _("{place}: {why}.", place=place, why=reason_of(error)),
        _("Set that right, then start again."),
    )


def disk_full(folder: Path, needed_gb: int = DISK_GB) -> SetupError:
    import shutil
    import tempfile

    places = [
        _(
            "{free:.1f} GB free in {place}",
            free=shutil.disk_usage(place).free / 1e9,
            place=place,
        )
        for place in (folder.parent, Path(tempfile.gettempdir()))
    ]
    return SetupError(
        _("The disk is full ({places}).", places=", ".join(places)),
        _("Make room, up to {size} GB, and start again.", size=needed_gb),
    )


def spell(seconds: float) -> str:
    """12.3 s, or 2 min 5 s."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"


def say(text: str) -> None:
    """Standard error: standard output belongs to the command that follows (--json)."""
    print(text, file=sys.stderr, flush=True)
