"""Reward functions of the owner's: Python files that were put into the workspace's folder
`rewards`. Nothing of Tunesmith writes there, and the page cannot: this is code that runs, and it
may fail."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from core.errors import TrainingError, TunesmithError, reason_of
from core.language import _
from core.rewards.kinds import Own
from core.rewards.texts import prompt_text, text_of
from core.workspace import Workspace

Batch = Callable[[Sequence[Any], Sequence[Any], dict[str, Any]], Sequence[Any]]


def rewards_file(workspace: Workspace, name: str) -> Path:
    """A file of the folder `rewards`. Raises TrainingError when it is not there, or a link leads
    out of the folder."""
    folder = workspace.rewards.resolve()
    path = (folder / name).resolve()
    if not path.is_relative_to(folder):
        raise TrainingError(
            _("{name} leads out of the folder {folder}.", name=name, folder=folder),
            _("Put the file itself into the folder."),
        )
    if not path.is_file():
        raise TrainingError(
            _("There is no file {name} in {folder}.", name=name, folder=folder), _("Put it there.")
        )
    return path


def own_problem(options: Own, workspace: Workspace) -> str:
    """Why the function cannot be used, without running its file; empty when nothing is seen."""
    try:
        path = rewards_file(workspace, options.file)
        tree = ast.parse(path.read_text(encoding="utf-8"), filename=options.file)
    except TrainingError as error:
        return str(error)
    except SyntaxError as error:
        return _no_python(options.file, error)
    except (OSError, ValueError) as error:
        return _("{name} cannot be read: {reason}.", name=options.file, reason=reason_of(error))
    names = [n.name for n in tree.body if isinstance(n, ast.FunctionDef)]
    assigned = [
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    ]
    imported = any(isinstance(node, ast.ImportFrom) for node in tree.body)
    if options.function in (*names, *assigned) or imported:
        return ""
    known = _("It has {names}.", names=", ".join(names)) if names else _("It has no functions.")
    return _("{message} {hint}", message=_no_function(options), hint=known)


def _no_python(name: str, error: SyntaxError) -> str:
    return _("{file}, line {line}: {reason}.", file=name, line=error.lineno, reason=error.msg)


def _no_function(options: Own) -> str:
    return _("{file} has no function {name}.", file=options.file, name=options.function)


def own_function(options: Own, workspace: Workspace) -> Batch:
    """Runs the file and takes its function. Raises TrainingError with file and line."""
    path = rewards_file(workspace, options.file)
    name = f"tunesmith_rewards_{path.stem.replace('.', '_').replace('-', '_')}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None, "it ends in .py"
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise TrainingError(_no_python(options.file, error), _("Mend the file.")) from error
    except Exception as error:
        raise TrainingError(
            _(
                "{file} cannot be loaded: {where}.",
                file=options.file,
                where=where_in(error, path),
            ),
            _("Mend the file, and try it: rewards try own --file {file}.", file=options.file),
        ) from error
    function = getattr(module, options.function, None)
    if not callable(function):
        raise TrainingError(_no_function(options), _("Name one that it has."))
    return _called(function, options, path)


def where_in(error: BaseException, path: Path) -> str:
    """`line 12: ZeroDivisionError: division by zero`: the last line of the file on the way to the
    error."""
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename) == path
    ]
    text = str(error).strip().splitlines()
    what = type(error).__name__ + (f": {text[0].rstrip('.')}" if text else "")
    return _("line {line}: {error}", line=lines[-1], error=what) if lines else what


def _parameters(function: Callable[..., Any], options: Own) -> Mapping[str, inspect.Parameter]:
    """What the function takes. Raises TrainingError when that is no answer."""
    known = inspect.signature(function).parameters
    if inspect.iscoroutinefunction(function):
        raise TrainingError(
            _("{name} in {file} is asynchronous.", name=options.function, file=options.file),
            _("Write it with def alone."),
        )
    if "completions" not in known and "completion" not in known:
        raise TrainingError(
            _(
                "{name} in {file} takes neither completion nor completions.",
                name=options.function,
                file=options.file,
            ),
            _(
                "Write def NAME(completion, answer) for one answer at a time, or def "
                "NAME(completions, **columns) for all at once as TRL calls it."
            ),
        )
    return known


def _called(function: Callable[..., Any], options: Own, path: Path) -> Batch:
    """The function as every other: for all answers at once, its errors with file and line."""
    known = _parameters(function, options)
    takes_all = any(p.kind is p.VAR_KEYWORD for p in known.values())
    needed = [p.name for p in known.values() if p.default is p.empty and p.kind in _NAMED]

    def fitting(columns: dict[str, Any]) -> dict[str, Any]:
        missing = [name for name in needed if name not in columns]
        if missing:
            raise TrainingError(
                _(
                    "{name} in {file} asks for {columns}.",
                    name=options.function,
                    file=options.file,
                    columns=", ".join(missing),
                ),
                _("There are {columns}.", columns=", ".join(sorted(columns))),
            )
        return {k: v for k, v in columns.items() if takes_all or k in known}

    def call(columns: dict[str, Any]) -> Any:
        arguments = fitting(columns)
        try:
            return function(**arguments)
        except Exception as error:
            raise TrainingError(
                _("{file}, {where}", file=options.file, where=where_in(error, path)),
                _("Mend the function."),
            ) from error

    def of_all(prompts: Sequence[Any], completions: Sequence[Any], columns: dict[str, Any]) -> Any:
        return call({"prompts": prompts, "completions": completions, **columns})

    def one_by_one(
        prompts: Sequence[Any], completions: Sequence[Any], columns: dict[str, Any]
    ) -> Any:
        count = len(completions)
        by_row = {k: v for k, v in columns.items() if isinstance(v, list) and len(v) == count}
        found = []
        for i, completion in enumerate(completions):
            row = {name: values[i] for name, values in by_row.items()}
            both = {"prompt": prompt_text(prompts[i]), "completion": text_of(completion)}
            with at_row(i):
                found.append(call({"answer": None, **row, **both}))
        return found

    return of_all if "completions" in known else one_by_one


_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class RowError(Exception):
    """`error` happened at answer `index` of a batch."""

    def __init__(self, index: int, error: TunesmithError) -> None:
        super().__init__(index, error)
        self.index = index
        self.error = error


@contextmanager
def at_row(index: int) -> Iterator[None]:
    """Errors within say the answer: a TunesmithError leaves as RowError."""
    try:
        yield
    except TunesmithError as error:
        raise RowError(index, error) from error
