"""An export, from its folder to a checked model with its README.

base                        -> its scores on held-out rows
base + what was trained     -> the scores to be had
what the format wrote, opened fresh from disk by what it is for
                            -> must be the trained model's, must not be the base's"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, TorchAoConfig

from core.data.record import DatasetInfo
from core.data.registry import load_dataset_info
from core.errors import DataError, ExportError
from core.export.card import write_card
from core.export.combine import find_shares, parse_combination
from core.export.format import Part, base_of_run
from core.export.formats import find_format, format_names
from core.export.package import folder_bytes, forget_machine, need_room
from core.export.reports import Measured
from core.export.unfinished import UNFINISHED
from core.jobs.task import Task
from core.language import _
from core.models.describe import describe_model
from core.models.fingerprint import base_changed
from core.models.trained import find_trained
from core.progress import Stopped, Tell
from core.runs.curves import curves
from core.runs.lineage import lineage_text
from core.worker.export import onnx_runtime, script
from core.worker.export.check import Check, check_combined, check_perplexity
from core.worker.export.combine import combine
from core.worker.export.compare import COMPARISONS
from core.worker.export.made import MADE, stamp_of, take_over
from core.worker.export.merge import (
    In32Bits,
    can_stay_narrow,
    merge,
    stored_type,
)
from core.worker.llama_cpp import gguf_files
from core.worker.llama_cpp.client import LlamaCpp, TopLogits
from core.worker.models.loading import (
    free_memory,
    grow,
    pick_device,
    resolve_base,
    tokenizer_of,
    with_adapter,
)
from core.workspace import Workspace

# So many answers llama.cpp writes at a time.
_AT_ONCE = 4
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def _torchao_int8() -> TorchAoConfig:
    from torchao.quantization import Int8WeightOnlyConfig

    return TorchAoConfig(Int8WeightOnlyConfig(version=2))


def _torchao_fp8() -> TorchAoConfig:
    from torchao.quantization import Float8WeightOnlyConfig

    return TorchAoConfig(Float8WeightOnlyConfig())


# What bitsandbytes makes of weights: 4 bits as its own paper has them, or 8 with outliers apart;
# what torchao does: 8 bits, whole or with a point, with a scale for each row.
_BITS: dict[str, Callable[[], BitsAndBytesConfig | TorchAoConfig]] = {
    "nf4": lambda: BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4"),
    "int8": lambda: BitsAndBytesConfig(load_in_8bit=True),
    "torchao_int8": _torchao_int8,
    "torchao_fp8": _torchao_fp8,
}


def run_export(folder: Path, workspace_root: Path) -> str:
    """Exports a run's checkpoint; "finished", or "stopped", with what was finished of it left for
    the next export of the same settings.

    Parameters (job.json): format (one of core.export.formats), checkpoint ("final"), what was
    chosen of the format's options by their names, and `combination` where adapters of other runs
    are taken in (core.export.combine). Raises ExportError when the result is not what
    was trained, and any other TunesmithError.
    """
    task = Task(Path(folder))
    unfinished = task.folder / UNFINISHED
    try:
        task.finish(_Export(task, Workspace.open(workspace_root), unfinished).run())
    except Stopped:
        if not (unfinished / MADE).is_file():
            shutil.rmtree(unfinished, ignore_errors=True)
        return "stopped"
    except BaseException:
        for path in task.folder.iterdir():
            if path == unfinished or path.name.endswith(format_names()):
                shutil.rmtree(path)
        raise
    return "finished"


@dataclass(frozen=True)
class _Reference:
    """What an export is compared with: scores of the base and of the trained model, and the
    perplexities that follow from them."""

    rows: Any
    base: Any
    trained: Any
    base_perplexity: float | None
    perplexity: float | None


class _Export:
    """What `core.export.format.Exporting` says, and the way through it."""

    def __init__(self, task: Task, workspace: Workspace, folder: Path) -> None:
        self.task, self.workspace, self.folder = task, workspace, folder
        self.format = find_format(str(task.params.get("format") or ""))
        self.chosen = {one.name: one.read(task.params.get(one.name)) for one in self.format.options}
        self.tell(0.0, _("Looking at the model"))
        self.trained = find_trained(task.run, str(task.params.get("checkpoint") or "final"))
        why_not = self.format.why_not(self.trained.config)
        if why_not:
            raise ExportError(*why_not)
        self.combination = parse_combination(task.params.get("combination"))
        self.others = (
            find_shares(workspace, self.trained, self.combination) if self.combination else []
        )
        self.base_path = resolve_base(self.trained.base, workspace)
        self.changed = base_changed(self.trained, self.base_path)
        self.base = base_of_run(self.trained, self.base_path)
        self.tokenizer = tokenizer_of(self.trained, self.base_path)
        kind = COMPARISONS[self.trained.config.training_method.makes]
        self.comparison = kind(self.trained, self.tokenizer, self._dataset())
        local = Path(self.base_path)
        known = describe_model(local) if local.is_dir() else None
        self.narrow = can_stay_narrow([self.trained, *self.others], self.base_path)
        self.parameters = (known.parameters if known else None) or 0
        asked = self.chosen.get("dtype", ["auto"])[0]
        of_base = known.dtype if known and known.dtype in _DTYPES else "float32"
        self.dtype = asked if asked != "auto" else of_base
        self.device, self.working_dtype = self._place()

    def run(self) -> dict[str, Any]:
        self.made = take_over(self.task, self._stamp())
        dtype_bytes = _DTYPES[self.dtype].itemsize
        size = self.format.size_bytes(self.trained, self.parameters, dtype_bytes)
        need_room(self.task.folder, max(0, size - folder_bytes(self.folder)))
        if not self.format.is_model:
            self.format.write(self, None)
            return self._pack([], [], None)
        model, reference, first = self._reference()
        self.format.write(self, model)
        del model
        free_memory()
        return self._pack(first, self._check_parts(reference), reference)

    def _stamp(self) -> str:
        """Changes with whatever the parts of the export are made of."""
        folders = [Path(self.base_path), *(one.folder for one in (self.trained, *self.others))]
        asked = {
            "params": {**self.task.params, **self.chosen},
            "base": self.base_path,
            "dtypes": [self.dtype, self.working_dtype, self.device],
            "data": self.comparison.info.fingerprint if self.comparison.info else "",
            "config": self.trained.run.config.read_text("utf-8"),
        }
        return stamp_of(asked, folders)

    def _check_parts(self, reference: _Reference) -> list[Measured]:
        """Every part compared with the trained model. Of several, one that fails is taken away
        and told of; raises ExportError when none is left."""
        parts = self.format.parts(self)
        measured: list[Measured] = []
        for at, part in enumerate(parts):
            tell = self.task.part(0.6 + 0.35 * at / len(parts), 0.6 + 0.35 * (at + 1) / len(parts))
            try:
                measured.append(self._check_part(part, reference, tell))
            except ExportError as error:
                if len(parts) == 1 or (at == len(parts) - 1 and all(m.error for m in measured)):
                    raise
                self.task.log(f"{part.file}: {error}", level="warning")
                measured.append(Measured(part.file, part.precision, error=error.message))
                (self.folder / part.file).unlink()
            free_memory()
        return measured

    def _check_part(self, part: Part, reference: _Reference, tell: Tell) -> Measured:
        tell(0.0, _("Loading the export to check it"))
        begun = time.perf_counter()
        exported = self.format.load(self, part)
        seconds = time.perf_counter() - begun
        with closing(exported) if hasattr(exported, "close") else nullcontext():
            tell(0.3, _("Comparing its answers"))
            scores = self._scores(exported, reference.rows)
            checks = self.comparison.check(
                scores,
                reference.trained,
                reference.base,
                part.precision,
                self.folder,
                self.format.is_whole,
            )
            perplexity = self.comparison.perplexity(scores, reference.rows)
            trained = reference.trained
            alike = scores.told_of(trained) if isinstance(scores, TopLogits) else trained
            wanted = self.comparison.perplexity(alike, reference.rows)
            if perplexity is not None and wanted is not None:
                checks.append(check_perplexity(perplexity, wanted, part.precision))
            checks += self.comparison.check_use(
                exported, reference.trained, reference.rows, part.precision
            )
            tell(0.6, _("Reading what it answers to held-out rows"))
            fields_right = self.comparison.fields_right(exported)
            tell(0.9, _("Measuring its speed"))
            return Measured(
                file=part.file,
                precision=part.precision,
                size_bytes=folder_bytes(self.folder / part.file),
                load_seconds=round(seconds, 3),
                tokens_per_second=self.comparison.speed(exported, reference.rows),
                perplexity=perplexity,
                fields_right=fields_right,
                checks=tuple(check.as_dict() for check in checks),
            )

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
        held = stored_type(path) if self.narrow else self.working_dtype
        return self.comparison.open(
            path, device=self.device, dtype=_DTYPES[held], revision=revision
        )

    def on_base(self, adapter: Path) -> Any:
        """The base, loaded afresh, with an adapter on it."""
        return with_adapter(self._open_base(), adapter, exact=True)

    def add_tokenizer(self, folder: Path) -> None:
        self.tokenizer.save_pretrained(folder)
        if self.comparison.labels is not None:
            self.comparison.labels.save(folder)

    def save_merged(self, model: Any, folder: Path) -> None:
        """Writes the trained `model` whole, with its tokenizer and labels; it is changed."""

        def write() -> None:
            whole = self._merged(model)
            _untie_if_parted(whole)
            self.tell(0.4, _("Saving the merged model"))
            whole.to(_DTYPES[self.dtype]).save_pretrained(folder, max_shard_size="5GB")
            self.add_tokenizer(folder)

        self.made.make(folder, write)
        model.to("meta")  # its memory is for those who read what was written

    def save_in_bits(self, whole: Path, folder: Path, bits: str) -> None:
        self.tell(0.45, _("Writing the weights as {bits}", bits=bits))
        self._open_in_bits(whole, quantization_config=_BITS[bits]()).save_pretrained(folder)

    def open_in_bits(self, folder: Path) -> Any:
        return self._open_in_bits(folder).eval()

    def _open_in_bits(self, folder: Path, **options: Any) -> Any:
        place = None if self.device == "cpu" else {"": self.device}
        return AutoModelForCausalLM.from_pretrained(
            folder, dtype=_DTYPES[self.dtype], device_map=place, trust_remote_code=False, **options
        )

    def _merged(self, model: Any) -> Any:
        """The adapter made part of its base's weights."""
        if not hasattr(model, "merge_and_unload"):
            return model
        self.tell(0.35, _("Merging"))
        try:
            return merge(model, _DTYPES[self.dtype])
        except ValueError as error:
            raise ExportError(
                _("The adapter cannot be merged: {error}", error=str(error)),
                _("Export it as an adapter."),
            ) from error

    def write_onnx(self, model: Any, files: dict[str, Path]) -> None:
        model = self._merged(model)
        self.tell(0.4, _("Writing ONNX"))
        onnx_runtime.write(model, files)
        model.config.save_pretrained(self.folder)

    def write_script(self, folder: Path) -> None:
        info = self.comparison.info
        if info is None:
            raise ExportError(
                _("The data set of this run is no longer there, and a script needs its rows."),
                _("Import it again, or export the run in another form."),
            )
        self.tell(0.1, _("Reading the rows"))
        self.add_tokenizer(folder)
        script.write(folder, self.trained, self.base, self.tokenizer, info)

    def in_onnxruntime(self, file: Path) -> onnx_runtime.OnnxClassifier:
        return onnx_runtime.OnnxClassifier(file)

    def convert(self, whole: Path, file: Path, outtype: str) -> None:
        self.tell(0.45, _("Writing GGUF ({kind})", kind=outtype))
        name = self.trained.run.root.name
        self.made.make(file, lambda: gguf_files.convert(whole, file, outtype, name))

    def quantize(self, source: Path, file: Path, kind: str) -> None:
        self.tell(0.5, _("Writing GGUF ({kind})", kind=kind))
        stop = self.task.check_stop
        self.made.make(file, lambda: gguf_files.quantize(source, file, kind, stop))

    def convert_adapter(self, whole: Path, file: Path) -> None:
        gguf_files.convert_adapter(whole, self.trained.folder, file)

    def in_llama_cpp(self, file: Path, adapter: Path | None = None) -> LlamaCpp:
        return LlamaCpp(file, adapter, self.task.check_stop, at_once=_AT_ONCE)

    def _scores(self, model: Any, rows: Any) -> Any:
        """What a model says to the rows; one whose weights are held in 16 bits by 32-bit sums."""
        is_narrow = self.narrow and not getattr(model, "is_quantized", False)
        with In32Bits() if is_narrow else nullcontext():
            return self.comparison.scores(model, rows)

    def _open_base(self) -> Any:
        return self.open(self.base_path, self.trained.config.model.model_revision)

    def _place(self) -> tuple[str, str]:
        """Where to merge and compare: in 32 bits where the memory allows it, so that nothing is
        rounded but once, at the end."""
        held = stored_type(self.base_path) if self.narrow else "float32"
        need = int(self.parameters * _DTYPES[held].itemsize * 1.3)
        device = pick_device()
        if device.startswith("cuda") and need < torch.cuda.mem_get_info(device)[0]:
            return device, "float32"
        if self.narrow or need < psutil.virtual_memory().available:
            return "cpu", "float32"
        self.task.log(
            _(
                "Merged in {dtype}: 32 bits would need {needed:.0f} GB of memory.",
                dtype=self.dtype,
                needed=need / 1e9,
            ),
            level="warning",
        )
        return "cpu", self.dtype

    def _reference(self) -> tuple[Any, _Reference, list[Check]]:
        """(the trained model, what it and its base answer, that they differ). Where adapters are
        combined, the trained model is the base with the combined one."""
        rows = self.comparison.rows()
        self.tell(0.05, _("Loading the base model"))
        model = self._open_base()
        self.tell(0.15, _("What the base answers"))
        if self.trained.new_tokens is not None:
            grow(model, self.trained.new_tokens)
        base = self._scores(model, rows)
        exact = None
        if self.combination is not None:
            self.tell(0.2, _("Combining the adapters"))
            model, folder, exact = combine(
                model,
                [self.trained, *self.others],
                self.combination,
                self.folder / ".combined",
                lambda one: self._scores(one, rows),
            )
            self.trained = replace(self.trained, folder=folder)
        self.tell(0.25, _("What the trained model answers"))
        if self.trained.adapter is not None:
            model = with_adapter(model, self.trained.adapter, exact=True)
        else:
            del model
            free_memory()
            model = self.open(self.trained.folder)
        trained = self._scores(model, rows)
        checks = [self.comparison.check_trained(base, trained)]
        if self.changed:
            self.task.log(self.changed, level="warning")
            checks.append(Check(_("Is on the base of its training"), False, self.changed))
        if self.combination is not None:
            kind = self.combination.way.combination_type
            checks.append(check_combined(trained, exact, kind))
        sure = [self.comparison.perplexity(scores, rows) for scores in (base, trained)]
        return model, _Reference(rows, base, trained, *sure), checks

    def _dataset(self) -> DatasetInfo | None:
        try:
            data = self.trained.config.data
            return load_dataset_info(self.workspace, data.dataset, data.dataset_fingerprint)
        except DataError:  # it was deleted since
            return None

    def _pack(
        self, first: list[Check], measured: list[Measured], reference: _Reference | None
    ) -> dict[str, Any]:
        """README, last look and name."""
        self.tell(0.97, _("Writing the README"))
        checks = [check.as_dict() for check in first]
        checks += [
            {**check, "file": one.file} if len(measured) > 1 else check
            for one in measured
            for check in one.checks
        ]
        kept = [one for one in measured if not one.error]
        write_card(
            self.folder,
            self.trained,
            self.base,
            self.comparison.info,
            form=self.format,
            dtype=self.dtype,
            parts=[Part(one.file, one.precision) for one in kept],
            lineage=lineage_text(self.trained.run),
            combination=self.combination,
            curves=curves(self.trained.run.root),
            checks=[f"{check['name']}: {check['detail']}." for check in checks],
        )
        private = [self.workspace.root]
        if Path(self.base_path).is_dir():
            private.append(Path(self.base_path))
        self.task.check_stop()  # from here on nothing is left to go on from
        for path in self.folder.glob(".*"):  # what was needed to make and check it
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        forget_machine(self.folder, private)
        at = "" if self.trained.checkpoint == "final" else f"-{self.trained.checkpoint}"
        at += "-combined" if self.combination else ""
        place = self.folder.rename(
            self.task.folder / f"{self.trained.run.root.name}{at}-{self.format.name}"
        )
        return {
            "format": self.format.name,
            "checkpoint": self.trained.checkpoint,
            "combination": self.combination.as_dict() if self.combination else None,
            "path": place.name,
            "size_bytes": folder_bytes(place),
            "dtype": self.dtype if self.format.is_whole else None,
            "base": self.base.name,
            "checks": checks,
            "parts": [asdict(one) for one in measured],
            "perplexity": reference.perplexity if reference else None,
            "base_perplexity": reference.base_perplexity if reference else None,
        }


def _untie_if_parted(model: Any) -> None:
    """Says in the config that the output layer has weights of its own, if training gave it some.

    Else it would be left out as a copy of the input's, and what it learned would be lost.
    """
    output = model.get_output_embeddings()
    if output is None or not getattr(model.config, "tie_word_embeddings", False):
        return
    if output.weight.data_ptr() != model.get_input_embeddings().weight.data_ptr():
        model.config.tie_word_embeddings = False
