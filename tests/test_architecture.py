"""The laws of the design that a machine can check: who imports whom, what stays light, how long
a function may be."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# What only a worker process may load: seconds to import, and a GPU's memory with it.
HEAVY = (
    "torch",
    "transformers",
    "peft",
    "trl",
    "datasets",
    "accelerate",
    "bitsandbytes",
    "lm_eval",
    "ray",
)
WORKER = "core.worker"
MOST_FUNCTION_LINES = 60


def sources(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def templates() -> list[Path]:
    return [
        path for folder in ("core", "webui") for path in sorted((ROOT / folder).rglob("*.html"))
    ]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def in_worker(module: str) -> bool:
    return module == WORKER or module.startswith(f"{WORKER}.")


def imported(path: Path) -> Iterator[str]:
    """Names of the modules a file imports, those inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )


CORE = [module_name(path) for path in sources("core")]
LIGHT = [name for name in CORE if not in_worker(name)]


def test_core_works_without_the_page() -> None:
    """Somebody trains on a server that has no Gradio, or writes a program of their own."""
    done = run_python(
        "import sys, importlib\n"
        "sys.modules['gradio'] = sys.modules['webui'] = None\n"
        f"for name in {[name for name in CORE if not name.endswith('__main__')]!r}:\n"
        "    importlib.import_module(name)\n"
    )
    assert done.returncode == 0, done.stderr


def test_all_but_the_worker_is_imported_without_torch() -> None:
    """The page opens in seconds and holds no GPU memory; a command answers at once."""
    assert "core.cli" in LIGHT and "core.jobs.scheduler" in LIGHT
    done = run_python(
        "import sys, importlib\n"
        f"sys.modules.update(dict.fromkeys({(*HEAVY, WORKER)!r}))\n"
        f"for name in {[*LIGHT, 'webui.app']!r}:\n"
        "    importlib.import_module(name)\n"
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", sources("core"), ids=module_name)
def test_imports_run_one_way_in_core(path: Path) -> None:
    above = ("gradio", "webui", "launch")
    upward = {name for name in imported(path) if name.split(".")[0] in above}
    assert not upward, f"{module_name(path)} imports {upward}"
    if path.name != "serve.py":  # the command without a name hands over to the page by name
        assert 'import_module("webui' not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sources("core/jobs"), ids=module_name)
def test_jobs_know_nothing_of_what_they_do(path: Path) -> None:
    """A new kind of job changes neither the queue nor what looks after it."""
    known = ("core.jobs", "core.errors", "core.language", "core.progress", "core.workspace")
    ours = {name for name in imported(path) if name.startswith("core.")}
    found = {name for name in ours if not name.startswith(known)}
    assert not found, f"{module_name(path)} imports {found}"


@pytest.mark.parametrize(
    "path",
    [path for path in sources("core", "webui") if not in_worker(module_name(path))],
    ids=module_name,
)
def test_nothing_but_the_worker_imports_what_is_heavy(path: Path) -> None:
    """A worker is a process, started by name; also an import inside a function would load torch
    into the web process."""
    found = {
        name
        for name in imported(path)
        if in_worker(name) or name.split(".")[0] in (*HEAVY, "launch")
    }
    assert not found, f"{module_name(path)} imports {found}"


def test_no_two_packages_of_core_import_each_other() -> None:
    """Whoever changes a package knows what may break: what stands above it."""
    below: dict[str, set[str]] = {}
    for path in sources("core"):
        package = _package(module_name(path))
        names = {_package(name) for name in imported(path) if name.split(".")[0] == "core"}
        below.setdefault(package, set()).update(names - {package, "core"})
    try:
        floors = list(TopologicalSorter(below).static_order())
    except CycleError as error:
        pytest.fail(f"These import each other: {' <- '.join(error.args[1])}")
    assert floors.index("core.errors") < floors.index("core.config") < floors.index(WORKER)


def _package(module: str) -> str:
    """core.data.steps.cut -> core.data; a module of core itself stands for itself."""
    return ".".join(module.split(".")[:2])


@pytest.mark.parametrize("path", [ROOT / "launch.py", *sources("core", "webui")], ids=str)
def test_no_function_is_longer_than_a_reader_can_hold(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= MOST_FUNCTION_LINES, f"{node.name} has {length} lines"


_TAG = re.compile(
    r"</?(?:a|article|b|button|code|d[dlt]|details|div|em|footer|h[1-6]|i|label|li|nav|ol|p|pre"
    r"|section|small|span|strong|summary|t[dhr]|table|ul)\b"
)


def test_html_stands_in_templates_that_escape() -> None:
    """What a file or a model wrote must not become part of the page by a forgotten call."""
    found = []
    for path in sources("core", "webui"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        told = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}  # docstrings
        found += [
            f"{path.relative_to(ROOT)}:{node.lineno}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant)
            and node not in told
            and isinstance(node.value, str)
            and _TAG.search(node.value)
        ]
    marked_safe = [path for path in templates() if re.search(r"\bsafe\b", path.read_text("utf-8"))]
    assert len(templates()) > 30 and (found, marked_safe) == ([], [])
