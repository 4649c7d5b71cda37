"""An export, from its folder to a checked model with its README and zip.

base                        -> its scores on held-out rows
base + what was trained     -> the scores to be had
what the format wrote, loaded fresh from disk
                            -> must be the trained model's, must not be the base's"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from core.data.record import DatasetInfo
from core.data.registry import load_dataset_info
from core.errors import DataError, ExportError
from core.export.card import write_card
from core.export.format import base_of_run
from core.export.formats import format_names, formats
from core.export.package import folder_bytes, forget_machine, need_room, write_zip
from core.jobs.task import Task
from core.language import _
from core.models.describe import describe_model
from core.models.trained import find_trained
from core.progress import Stopped
from core.runs.lineage import lineage_text
from core.worker.export.check import Check
from core.worker.export.compare import COMPARISONS
from core.worker.models.loading import (
    free_memory,
    grow,
    pick_device,
    resolve_base,
    tokenizer_of,
    with_adapter,
)
from core.workspace import Workspace

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def run_export(folder: Path, workspace_root: Path) -> str:
    """Exports a run's checkpoint; "finished", or "stopped" with nothing left behind.

    Parameters (job.json): format (one of core.export.formats), checkpoint ("final"), dtype of a
    whole model's weights ("auto": the base's). Raises ExportError when the result is not what was
    trained, and any other TunesmithError.
    """
    task = Task(Path(folder))
    unfinished = task.folder / ".unfinished"
    try:
        result = _Export(task, Workspace.open(workspace_root), unfinished).run()
        task.check_stop()
        task.finish(result)
    except BaseException as error:
        for path in task.folder.iterdir():
            made = path == unfinished or path.name.endswith(format_names())
            if made or path.suffix == ".zip":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        if isinstance(error, Stopped):
            return "stopped"
        raise
    return "finished"


@dataclass(frozen=True)
class _Reference:
    """What an export is compared with: scores of the base and of the trained model."""

    rows: Any
    base: Any
    trained: Any


class _Export:
    def __init__(self, task: Task, workspace: Workspace, folder: Path) -> None:
        self.task, self.workspace, self.folder = task, workspace, folder
        asked = str(task.params.get("format") or "")
        if asked not in formats():
            names = ", ".join(format_names())
            raise ExportError(
                _("There is no format {asked!r}.", asked=asked), _("Take {names}.", names=names)
            )
        self.format = formats()[asked]
        self.tell(0.0, _("Looking at the model"))
        self.trained = find_trained(task.run, str(task.params.get("checkpoint") or "final"))
        why_not = self.format.why_not(self.trained.config)
        if why_not:
            raise ExportError(*why_not)
        self.base_path = resolve_base(self.trained.base, workspace)
        self.base = base_of_run(self.trained, self.base_path)
        self.tokenizer = tokenizer_of(self.trained, self.base_path)
        kind = COMPARISONS[self.trained.config.training_method.makes]
        self.comparison = kind(self.trained, self.tokenizer, self._dataset())
        local = Path(self.base_path)
        known = describe_model(local) if local.is_dir() else None
        self.parameters = (known.parameters if known else None) or 0
        asked = str(task.params.get("dtype") or "auto")
        self.dtype = _dtype(asked, known.dtype if known else "bfloat16")
        self.device, self.working_dtype = self._place()

    def run(self) -> dict[str, Any]:
        whole_bytes = self.parameters * self.dtype.itemsize
        size = self.format.size_bytes(self.trained, whole_bytes)
        need_room(self.task.folder, 2 * size)  # the folder and its zip
        shutil.rmtree(self.folder, ignore_errors=True)  # left by a worker that was killed
        model, reference, checks = self._reference()
        self.format.write(self, model)
        self.tokenizer.save_pretrained(self.folder)
        if self.comparison.labels is not None:
            self.comparison.labels.save(self.folder)
        del model
        free_memory()
        self.tell(0.6, _("Loading the export to check it"))
        exported = self.format.load(self)
        self.tell(0.7, _("Comparing its answers"))
        scores = self.comparison.scores(exported, reference.rows)
        del exported
        free_memory()
        is_whole = self.format.is_whole
        checks += self.comparison.check(
            scores,
            reference.trained,
            reference.base,
            self.dtype if is_whole else self.working_dtype,
            self.folder,
            is_whole,
        )
        return self._pack(checks)

    def tell(self, share: float, message: str) -> None:
        self.task.tell(share, message)

    def open(self, path: str | Path, revision: str = "main") -> Any:
        """The model in a folder, with a new head where it has none of its own."""
        local = Path(path) / "config.json"
        if local.is_file() and "quantization_config" in json.loads(local.read_text("utf-8")):
            raise ExportError(
                _(
                    "{name} is itself quantized, so nothing can be merged or compared.",
                    name=Path(path).name,
                ),
                _("Train from the model's unquantized form."),
            )
        return self.comparison.open(
            path, device=self.device, dtype=self.working_dtype, revision=revision
        )

    def on_base(self, adapter: Path) -> Any:
        """The base, loaded afresh, with an adapter on it."""
        return with_adapter(self._open_base(), adapter)

    def _open_base(self) -> Any:
        return self.open(self.base_path, self.trained.config.model.model_revision)

    def _place(self) -> tuple[str, torch.dtype]:
        """Where to merge and compare: in 32 bits where the memory allows it, so that nothing is
        rounded but once, at the end."""
        need = int(self.parameters * 4 * 1.3)
        device = pick_device()
        if device.startswith("cuda") and need < torch.cuda.mem_get_info(device)[0]:
            return device, torch.float32
        if need < psutil.virtual_memory().available:
            return "cpu", torch.float32
        self.task.log(
            _(
                "Merged in {dtype}: 32 bits would need {needed:.0f} GB of memory.",
                dtype=_spelled(self.dtype),
                needed=need / 1e9,
            ),
            level="warning",
        )
        return "cpu", self.dtype

    def _reference(self) -> tuple[Any, _Reference, list[Check]]:
        """(the trained model, what it and its base answer, that they differ)."""
        rows = self.comparison.rows()
        self.tell(0.05, _("Loading the base model"))
        model = self._open_base()
        self.tell(0.15, _("What the base answers"))
        if self.trained.new_tokens is not None:
            grow(model, self.trained.new_tokens)
        base = self.comparison.scores(model, rows)
        self.tell(0.25, _("What the trained model answers"))
        if self.trained.adapter is not None:
            model = with_adapter(model, self.trained.adapter)
        else:
            del model
            free_memory()
            model = self.open(self.trained.folder)
        trained = self.comparison.scores(model, rows)
        check = self.comparison.check_trained(base, trained)
        return model, _Reference(rows, base, trained), [check]

    def _dataset(self) -> DatasetInfo | None:
        try:
            data = self.trained.config.data
            return load_dataset_info(self.workspace, data.dataset, data.dataset_fingerprint)
        except DataError:  # it was deleted since
            return None

    def _pack(self, checks: list[Check]) -> dict[str, Any]:
        """README, last look, name and zip."""
        kind = _spelled(self.dtype)
        write_card(
            self.folder,
            self.trained,
            self.base,
            self.comparison.info,
            form=self.format,
            dtype=kind,
            lineage=lineage_text(self.trained.run),
            checks=[f"{check.name}: {check.detail}." for check in checks],
        )
        private = [self.workspace.root]
        if Path(self.base_path).is_dir():
            private.append(Path(self.base_path))
        forget_machine(self.folder, private)
        at = "" if self.trained.checkpoint == "final" else f"-{self.trained.checkpoint}"
        name = f"{self.trained.run.root.name}{at}-{self.format.name}"
        place = self.folder.rename(self.task.folder / name)
        archive = place.with_name(f"{name}.zip")
        zip_bytes = write_zip(place, archive, self.task.part(0.8, 0.99))
        return {
            "format": self.format.name,
            "checkpoint": self.trained.checkpoint,
            "path": place.name,
            "zip": archive.name,
            "size_bytes": folder_bytes(place),
            "zip_bytes": zip_bytes,
            "dtype": kind if self.format.is_whole else None,
            "base": self.base.name,
            "checks": [check.as_dict() for check in checks],
        }


def _dtype(asked: str, of_base: str) -> torch.dtype:
    """The type of the exported weights."""
    if asked == "auto":
        asked = of_base if of_base in _DTYPES else "float32"
    if asked not in _DTYPES:
        raise ExportError(
            _("{asked} is no type of weights.", asked=asked),
            _("Take {names}.", names=", ".join(_DTYPES)),
        )
    return _DTYPES[asked]


def _spelled(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
