"""Takes what a run needs of the run that it begins with into its own folder."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from core.config import RunConfig, read_config
from core.config.run import continues, run_and_checkpoint
from core.errors import ModelError
from core.jobs.job import read_record
from core.language import _
from core.models.hub import STACK
from core.models.location import local_model
from core.models.origin import How, Origin, own_base, read_origin, read_stack
from core.models.trained import TrainedModel, find_trained
from core.workspace import RunFolder, Workspace, write_atomic

# What makes a model or an adapter: not the optimizer and the like that lie in a checkpoint too.
_OF_A_MODEL = ("*.json", "*.safetensors", "*.jinja", "*.txt", "*.model")
_OF_A_TRAINING = ("trainer_state.json",)
_WEIGHTS = (".safetensors", ".safetensors.index.json")


def lay_origin(run: RunFolder, config: RunConfig, workspace: Workspace) -> None:
    """Takes into a run's folder what it begins with, once. Nothing for a run on a base model.

    Raises ModelError when the other run has no such checkpoint, or its base is gone.
    """
    if not continues(config) or run.origin.is_dir():
        return
    run_id, checkpoint = run_and_checkpoint(config)
    parent = find_trained(workspace.run(run_id), checkpoint)
    how: How = config.model.start_from  # type: ignore[assignment]  # base was left out above
    with _making(run) as folder:
        if not parent.is_adapter:
            link_files(parent.folder, folder / "base")
        elif how == "continue":
            _link_base(parent.run, folder)
            link_files(parent.folder, folder / "adapter")
        else:
            _stack(parent, folder / "base", workspace, whole=how == "merge")
        _write(folder, parent.run, parent.config, checkpoint, how)


def lay_longer(run: RunFolder, parent: RunFolder, checkpoint: str) -> Path:
    """Takes over what `parent` began with, and a checkpoint of it to go on from; where that is
    now. A best checkpoint that it remembers comes along."""
    config = read_config(parent.config)
    with _making(run) as folder:
        _link_base(parent, folder)
        if (parent.origin / "adapter").is_dir():
            link_files(parent.origin / "adapter", folder / "adapter")
        _write(folder, parent, config, checkpoint, "longer")
    if parent.chat_template.is_file():  # as it was then
        shutil.copyfile(parent.chat_template, run.chat_template)
    place = run.checkpoints / checkpoint
    link_files(parent.checkpoints / checkpoint, place, everything=True)
    state = json.loads((place / "trainer_state.json").read_text(encoding="utf-8"))
    best = Path(state.get("best_model_checkpoint") or "")
    if best.name and (parent.checkpoints / best.name).is_dir():
        if best.name != checkpoint:
            link_files(parent.checkpoints / best.name, run.checkpoints / best.name, everything=True)
        state["best_model_checkpoint"] = str(run.checkpoints / best.name)
        # Written anew: the file is the other run's too.
        write_atomic(place / "trainer_state.json", json.dumps(state, indent=2) + "\n")
    return place


def link_files(source: Path, target: Path, *, everything: bool = False) -> None:
    """The files of a model (or `everything`) in `target`: the same bytes on the disk where it can
    be, else a copy."""
    if everything:  # of a split model the parts lie in folders
        shutil.copytree(source, target, copy_function=_link, dirs_exist_ok=True)
        return
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted({path for pattern in _OF_A_MODEL for path in source.glob(pattern)}):
        if path.is_file() and path.name not in _OF_A_TRAINING:
            _link(path, target / path.name)


def _link(source: str | Path, target: str | Path) -> None:
    try:
        os.link(Path(source).resolve(), target)
    except OSError:  # another disk, or one that knows no links
        shutil.copyfile(source, target)


class _making:
    """The origin beside its place: it is there as a whole or not at all."""

    def __init__(self, run: RunFolder) -> None:
        self._place = run.origin
        self._folder = run.root / ".origin.making"

    def __enter__(self) -> Path:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        return self._folder

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._folder.rename(self._place)
        else:
            shutil.rmtree(self._folder, ignore_errors=True)


def _write(folder: Path, parent: RunFolder, config: RunConfig, checkpoint: str, how: How) -> None:
    earlier = read_origin(parent)
    before = [one.own_fields() for one in earlier.chain] if earlier else []
    name = config.name or read_record(parent.root).get("name") or parent.root.name
    own = Origin(parent.root.name, name, config.method, checkpoint, how).own_fields()
    text = json.dumps({**own, "before": before}, indent=1, ensure_ascii=False)
    write_atomic(folder / "origin.json", text + "\n")


def _link_base(parent: RunFolder, folder: Path) -> None:
    """The parent's own base, if it has one."""
    source = own_base(parent)
    if source is None:
        return
    link_files(source, folder / "base")
    for part in sorted(source.glob("*/")):  # of a stack
        link_files(part, folder / "base" / part.name)


def _stack(parent: TrainedModel, folder: Path, workspace: Workspace, *, whole: bool) -> None:
    """A stack of what the parent began with and its adapter. It looks like a model to those who
    read only its config and tokenizer."""
    beneath = own_base(parent.run)
    below = read_stack(beneath) if beneath else None
    folder.mkdir()
    if below is not None and beneath is not None:
        model, adapters, source = below.model, list(below.adapters), beneath
        if (beneath / model).is_dir():
            link_files(beneath / model, folder / model)
    elif beneath is not None:
        model, adapters, source = "model", [], beneath
        link_files(beneath, folder / model)
    else:
        model, adapters = parent.config.model.model_name_or_path, []
        source = _on_disk(model, workspace)
    # For the tokenizer that was saved with the adapter, and else the base's.
    for place in (parent.folder, source):
        _take(place, folder, lambda path: not path.name.startswith("adapter_"))
    names = []
    for number, adapter in enumerate([*adapters, parent.folder], start=1):
        names.append(f"adapter-{number}")
        link_files(adapter, folder / names[-1])
    values = {"model": model, "adapters": names, "whole": whole, "method": parent.config.method}
    write_atomic(folder / STACK, json.dumps(values, indent=1) + "\n")


def _take(source: Path, target: Path, wanted: Callable[[Path], bool]) -> None:
    """Small files of `source` that `target` does not have yet; a tokenizer is taken whole or not
    at all."""
    has_tokenizer = (target / "tokenizer_config.json").is_file()
    for path in sorted({path for pattern in _OF_A_MODEL for path in source.glob(pattern)}):
        is_config = path.name in ("config.json", "generation_config.json")
        if path.name in (STACK, *_OF_A_TRAINING) or path.name.endswith(_WEIGHTS):
            continue
        if wanted(path) and path.is_file() and (is_config or not has_tokenizer):
            shutil.copyfile(path, target / path.name)


def _on_disk(name: str, workspace: Workspace) -> Path:
    """The folder of a base by its name. Raises ModelError when it is not on this machine."""
    found = local_model(workspace, name)
    if found is None:
        raise ModelError(
            _("{model} is not on this machine any more.", model=name),
            _("Fetch it again, then start the run."),
        )
    return found
