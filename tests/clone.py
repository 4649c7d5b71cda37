"""A small clone of the project with packages and an index of its own, for tests of launch.py."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from tests.waiting import end_of

PROJECT = Path(__file__).parents[1]
PIP = f"pip=={importlib.metadata.version('pip')}"
PARTS = (
    "launch.py",
    "core/__init__.py",
    "core/errors.py",
    "core/language.py",
    "core/progress.py",
    "core/setup/environment.py",
    "core/setup/extras.py",
)
COMMAND = """\
import sys
import tiny_a


def main(argv=None):
    print("command", argv, tiny_a.VERSION)
    return 3
"""
TOOL = """\
import os, sys
print("tool", "{name}", sys.argv[1:], flush=True)
sys.exit(int(os.environ.get("{name}_exits", "0")))
"""


@dataclass
class Clone:
    """`root` is the clone; `index` is a folder of wheels, all that its pip sees."""

    root: Path
    index: Path

    @property
    def venv(self) -> Path:
        return self.root / ".venv"

    def lock(self, *pins: str, name: str = "requirements.lock") -> None:
        (self.root / name).write_text("".join(f"{pin}\n" for pin in pins))

    def environment(self, **variables: str) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("PIP_")}
        pip = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_NO_CACHE_DIR": "1"}
        pip["PIP_FIND_LINKS"] = str(self.index)
        return {k: v for k, v in {**kept, **pip, **variables}.items() if v}

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(self.root / "launch.py"), *arguments],
            cwd=self.root.parent,
            env=self.environment(**variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def launch(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments, **variables)
        out, err = end_of(process)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def make_clone(folder: Path) -> Clone:
    """Not set up yet; its lock names pip and tiny-a 0.1."""
    clone = Clone(folder / "clone", folder / "index")
    for part in (*PARTS, "core/setup/report.py"):
        target = clone.root / part
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PROJECT / part, target)
    (clone.root / "core/cli.py").write_text(COMMAND)
    clone.index.mkdir()
    _pack_pip(clone.index)
    for version in ("0.1", "0.2"):
        pack(clone.index, "tiny_a", version, {"__init__.py": f"VERSION = {version!r}\n"})
    for tool in ("pytest",):
        code = TOOL.format(name=tool)
        pack(clone.index, tool, "9.9", {"__init__.py": "", "__main__.py": code})
    clone.lock(PIP, "tiny-a==0.1")
    clone.lock("pytest==9.9", name="requirements-test.lock")
    return clone


def pack(index: Path, name: str, version: str, files: dict[str, str], about_it: str = "") -> Path:
    """A wheel with the module `name`; `about_it` are further lines of its metadata."""
    about = f"{name}-{version}.dist-info"
    contents = {f"{name}/{file}": text for file, text in files.items()}
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    contents[f"{about}/METADATA"] = metadata + (f"{about_it}\n" if about_it else "")
    contents[f"{about}/WHEEL"] = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    contents[f"{about}/RECORD"] = "".join(f"{path},,\n" for path in contents)
    path = index / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in contents.items():
            archive.writestr(file, text)
    return path


def _pack_pip(index: Path) -> None:
    """The pip that runs these tests as a wheel: a new environment needs the pinned one."""
    files = importlib.metadata.files("pip")
    assert files
    skipped = ("INSTALLER", "REQUESTED", "RECORD", "direct_url.json")
    kept = [
        file
        for file in files
        if file.parts[0].startswith("pip") and file.suffix != ".pyc" and file.name not in skipped
    ]
    about = next(file.parts[0] for file in kept if file.parts[0].endswith(".dist-info"))
    path = index / f"{about.removesuffix('.dist-info')}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file in kept:
            archive.write(str(file.locate()), str(file))
        record = "".join(f"{file},,\n" for file in kept)
        archive.writestr(f"{about}/RECORD", record + f"{about}/RECORD,,\n")
