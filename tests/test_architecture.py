"""The laws of the design that a machine can check: who imports whom, what stays light, how long
things may be."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "transformers", "peft", "trl", "datasets", "accelerate", "bitsandbytes")
# Modules that only worker processes import. Every other module of core may be imported by the web
# process or the command line, and has to stay free of torch.
WORKERS = (
    "core.evaluation.classifier",
    "core.evaluation.evaluator",
    "core.evaluation.measure",
    "core.evaluation.rewarded",
    "core.evaluation.run",
    "core.evaluation.scorer",
    "core.evaluation.texts",
    "core.evaluation.writer",
    "core.export.check",
    "core.export.compare",
    "core.export.run",
    "core.worker",
    "core.models.classifier",
    "core.models.fit",
    "core.models.inference",
    "core.models.load",
    "core.models.masked",
    "core.models.vocabulary",
    "core.models.scores",
    "core.rewards.model",
    "core.models.virtual",
    "core.training",
)
MOST_FUNCTION_LINES = 60


def sources(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_for_workers(module: str) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in WORKERS)


def imported(path: Path, *, top_level: bool = False) -> Iterator[str]:
    """Names of the modules a file imports; with `top_level` only those imported on import."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in _outside_functions(tree) if top_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from _outside_functions(child)


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )


CORE = [module_name(path) for path in sources("core")]


def test_core_works_without_the_page() -> None:
    """Somebody trains on a server that has no Gradio, or writes a program of their own."""
    done = run_python(
        "import sys, importlib\n"
        "sys.modules['gradio'] = sys.modules['webui'] = None\n"
        f"for name in {CORE!r}:\n    importlib.import_module(name)\n"
    )
    assert done.returncode == 0, done.stderr


def test_what_the_web_process_and_the_commands_import_is_free_of_torch() -> None:
    """The page opens in seconds and holds no GPU memory."""
    light = [name for name in CORE if not is_for_workers(name)]
    assert "core.cli" in light and "core.jobs.scheduler" in light
    done = run_python(
        "import sys, importlib\n"
        f"for name in {light!r}:\n"
        "    importlib.import_module(name)\n"
        f"    heavy = [m for m in {HEAVY!r} if m in sys.modules]\n"
        "    assert not heavy, f'{name} brings in {heavy}'\n"
    )
    assert done.returncode == 0, done.stderr


def test_the_page_is_free_of_torch() -> None:
    done = run_python(
        "import sys\nimport webui.app\n"
        f"heavy = [m for m in {HEAVY!r} if m in sys.modules]\n"
        "assert not heavy, heavy\n"
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", sources("core"), ids=module_name)
def test_imports_run_one_way_in_core(path: Path) -> None:
    names = set(imported(path))
    upward = {name for name in names if name.split(".")[0] in ("gradio", "webui", "launch")}
    assert not upward, f"{module_name(path)} imports {upward}"
    text = path.read_text(encoding="utf-8")
    if path.name != "serve.py":  # the command without a name hands over to the page by name
        assert 'import_module("webui' not in text


@pytest.mark.parametrize("path", sources("core/jobs"), ids=module_name)
def test_jobs_know_nothing_of_what_they_do(path: Path) -> None:
    """A new kind of job changes neither the queue nor what looks after it."""
    known = ("core.jobs", "core.errors", "core.progress", "core.workspace")
    ours = {name for name in imported(path) if name.startswith("core.")}
    found = {name for name in ours if not name.startswith(known)}
    assert not found, f"{module_name(path)} imports {found}"


@pytest.mark.parametrize(
    "path",
    [path for path in sources("core") if not is_for_workers(module_name(path))],
    ids=module_name,
)
def test_what_is_for_workers_is_imported_only_inside_functions(path: Path) -> None:
    found = {
        name
        for name in imported(path, top_level=True)
        if is_for_workers(name) or name.split(".")[0] in HEAVY
    }
    assert not found, f"{module_name(path)} imports {found} as it is imported"


@pytest.mark.parametrize("path", sources("webui"), ids=module_name)
def test_the_page_imports_no_trainer(path: Path) -> None:
    found = {
        name
        for name in imported(path)
        if is_for_workers(name) or name.split(".")[0] in (*HEAVY, "launch")
    }
    assert not found, f"{module_name(path)} imports {found}"


@pytest.mark.parametrize("path", [ROOT / "launch.py", *sources("core", "webui")], ids=str)
def test_no_function_is_longer_than_a_reader_can_hold(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= MOST_FUNCTION_LINES, f"{node.name} has {length} lines"
