"""An export, from its folder to a checked model with its README and zip.

base                        -> its logits on held-out rows
base + what was trained     -> the logits to be had
adapter copied, or merged and saved, then loaded fresh from disk
                            -> must be the trained model's, must not be the base's
"""

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
from core.data.rowfile import read_slice
from core.errors import DataError, ExportError
from core.export.card import base_of_run, write_card
from core.export.check import Check, check_exported, check_trained, next_token_logits
from core.export.check_labels import check_learned, check_names, check_scores
from core.export.check_rewards import check_one_score, check_same_scores
from core.export.package import folder_bytes, forget_machine, need_room, write_zip
from core.jobs.task import Task
from core.models.classifier import (
    label_logits,
    open_with_head,
    pad_alike,
    text_ids,
)
from core.models.describe import describe_model
from core.models.inference import (
    free_memory,
    open_model,
    pick_device,
    resolve_base,
    tokenizer_of,
    with_adapter,
)
from core.models.labels import ScoreHead, labels_of
from core.models.masked import gap_rows, hidden_logits, open_masked
from core.models.trained import adapter_settings, find_trained
from core.models.vocabulary import grow
from core.progress import Stopped
from core.tokens.sides import sides_of_rows
from core.tokens.tokenize import TokenizedRow, as_answered, tokenize_rows
from core.workspace import Workspace

FORMATS = ("adapter", "merged")
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_CHECKED_ROWS, _CHECKED_TOKENS = 4, 256
_CHECKED_TEXTS = 32
# Asked where the data set is no longer there.
_TEXTS = (
    "The quick brown fox jumps over the lazy dog, and then it asks the dog what it thinks of that.",
    "def area(width, height):\n    return width * height\n\nprint(area(3, 4))",
    "Dear customer, thank you for your message. We are sorry that the delivery came late.",
)


def run_export(folder: Path, workspace_root: Path) -> str:
    """Exports a run's checkpoint; "finished", or "stopped" with nothing left behind.

    Parameters (job.json): format ("adapter" or "merged"), checkpoint ("final"), dtype of the
    merged weights ("auto": the base's). Raises ExportError when the result is not what was
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
            if path == unfinished or path.name.endswith(FORMATS) or path.suffix == ".zip":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        if isinstance(error, Stopped):
            return "stopped"
        raise
    return "finished"


@dataclass(frozen=True)
class _Reference:
    """What an export is compared with: logits of the base and of the trained model."""

    rows: list[list[int]]
    base: Any
    trained: Any


class _Export:
    def __init__(self, task: Task, workspace: Workspace, folder: Path) -> None:
        self.task, self.workspace, self.folder = task, workspace, folder
        self.format = str(task.params.get("format") or "")
        if self.format not in FORMATS:
            raise ExportError(f"There is no format {self.format!r}.", "Take adapter or merged.")
        task.tell(0.0, "Looking at the model")
        self.trained = find_trained(task.run, str(task.params.get("checkpoint") or "final"))
        if self.format == "adapter" and not self.trained.is_adapter:
            raise ExportError(
                "This run trained the weights of its model: there is no adapter.",
                "Export it as a merged model.",
            )
        if self.format == "merged" and self.trained.why_not_merged:
            raise ExportError(self.trained.why_not_merged, "Export it as an adapter.")
        self.labels = labels_of(self.trained.config.method, self.trained.folder)
        self.is_reward = isinstance(self.labels, ScoreHead)
        self.is_masked = self.trained.config.training_method.makes == "filler"
        self.base_path = resolve_base(self.trained.base, workspace)
        self.base = base_of_run(self.trained, self.base_path)
        self.dtype = self._dtype(str(task.params.get("dtype") or "auto"))
        self.device, self.working_dtype = self._place()
        self.tokenizer = tokenizer_of(self.trained, self.base_path)

    def run(self) -> dict[str, Any]:
        self._need_room()
        shutil.rmtree(self.folder, ignore_errors=True)  # left by a worker that was killed
        model, reference, checks = self._reference()
        dtype = self.working_dtype
        if self.format == "adapter":
            self._copy_adapter()
        else:
            dtype = self.dtype
            self._save_merged(model)
        del model
        free_memory()
        self.task.tell(0.6, "Loading the export to check it")
        exported = self._load_exported()
        self.task.tell(0.7, "Comparing its answers")
        logits = self._logits(exported, reference.rows)
        del exported
        free_memory()
        if self.labels is None:
            checks += check_exported(logits, reference.trained, reference.base, dtype)
        elif self.is_reward:
            checks += check_same_scores(logits, reference.trained, dtype)
            checks.append(check_one_score(self.folder, merged=self.format == "merged"))
        else:
            checks += check_scores(logits, reference.trained, self.labels, dtype)
            checks.append(check_names(self.folder, self.labels, merged=self.format == "merged"))
        return self._pack(checks)

    def _dtype(self, asked: str) -> torch.dtype:
        """The type of the merged weights."""
        if asked == "auto":
            local = Path(self.base_path)
            asked = describe_model(local).dtype if local.is_dir() else "bfloat16"
            asked = asked if asked in _DTYPES else "float32"
        if asked not in _DTYPES:
            raise ExportError(f"{asked} is no type of weights.", f"Take {', '.join(_DTYPES)}.")
        return _DTYPES[asked]

    def _place(self) -> tuple[str, torch.dtype]:
        """Where to merge and compare: in 32 bits where the memory allows it, so that nothing is
        rounded but once, at the end."""
        parameters = None
        if Path(self.base_path).is_dir():
            parameters = describe_model(self.base_path).parameters
        need = int((parameters or 0) * 4 * 1.3)
        device = pick_device()
        if device.startswith("cuda") and need < torch.cuda.mem_get_info(device)[0]:
            return device, torch.float32
        if need < psutil.virtual_memory().available:
            return "cpu", torch.float32
        self.task.log(
            f"Merged in {str(self.dtype).removeprefix('torch.')}: 32 bits would need "
            f"{need / 1e9:.0f} GB of memory.",
            level="warning",
        )
        return "cpu", self.dtype

    def _need_room(self) -> None:
        size = folder_bytes(self.trained.folder)
        if self.format == "merged":
            local = Path(self.base_path)
            parameters = describe_model(local).parameters if local.is_dir() else None
            size = (parameters or 0) * self.dtype.itemsize
        need_room(self.task.folder, 2 * size)  # the folder and its zip

    def _reference(self) -> tuple[Any, _Reference, list[Check]]:
        """(the trained model, what it and its base answer, that they differ)."""
        rows = self._rows()
        self.task.tell(0.05, "Loading the base model")
        config = self.trained.config
        model = self._open(self.base_path, config.model.model_revision)
        self.task.tell(0.15, "What the base answers")
        if self.trained.new_tokens is not None:
            grow(model, self.trained.new_tokens)
        base = self._logits(model, rows)
        self.task.tell(0.25, "What the trained model answers")
        if self.trained.adapter is not None:
            model = with_adapter(model, self.trained.adapter)
        else:
            del model
            free_memory()
            model = self._open(self.trained.folder)
        trained = self._logits(model, rows)
        check = check_trained if self.labels is None else check_learned
        return model, _Reference(rows, base, trained), [check(base, trained)]

    def _logits(self, model: Any, rows: list[list[int]]) -> Any:
        """The scores of the next tokens, or of the labels."""
        if self.is_masked:
            return hidden_logits(model, self.tokenizer, rows)
        if self.labels is None:
            return next_token_logits(model, rows)
        return label_logits(model, self.tokenizer, rows)

    def _open(self, path: str | Path, revision: str = "main") -> Any:
        local = Path(path) / "config.json"
        if local.is_file() and "quantization_config" in json.loads(local.read_text("utf-8")):
            raise ExportError(
                f"{Path(path).name} is itself quantized, so nothing can be merged or compared.",
                "Train from the model's unquantized form.",
            )
        options = {"device": self.device, "dtype": self.working_dtype, "revision": revision}
        seed = self.trained.config.training.seed
        if self.is_masked:
            return open_masked(path, seed=seed, **options)
        if self.labels is None:
            return open_model(path, **options)
        model = open_with_head(path, self.labels, seed=seed, **options)
        pad_alike(model, self.tokenizer)
        return model

    def _rows(self) -> list[Any]:
        """Tokens on which the models are compared: held-out rows with their answers; for an
        encoder that fills gaps (input_ids, labels)."""
        if self.is_masked:
            return gap_rows(self.tokenizer, self.trained.config, self._texts(), _CHECKED_TOKENS)
        if self.is_reward:
            pairs = self._pairs()
            return pairs or text_ids(self.tokenizer, [*_TEXTS, _TEXTS[0]], _CHECKED_TOKENS)
        if self.labels is not None:
            longest = min(self.trained.config.training.max_length, _CHECKED_TOKENS)
            return [ids for ids in text_ids(self.tokenizer, self._texts(), longest) if ids]
        rows: list[list[int]] = []
        config = self.trained.config
        info = self._dataset()
        if info is not None:
            part = "eval" if info.counts.eval else "train"
            raw = read_slice(info.rows_path(part), 0, _CHECKED_ROWS)
            raw = [row for one in raw if (row := as_answered(one)) is not None]
            found, _ = tokenize_rows(
                raw,
                self.tokenizer,
                max_length=_CHECKED_TOKENS,
                assistant_only_loss=False,
                system_prompt=config.data.system_prompt,
            )
            rows = [row.input_ids for row in found]
        return rows or [list(self.tokenizer(text)["input_ids"]) for text in _TEXTS]

    def _texts(self) -> list[str]:
        """Texts on which two encoders or classifiers are compared: held-out ones."""
        info, texts = self._dataset(), list(_TEXTS)
        if info is not None and info.form in ("text", "labelled-text"):
            part = "eval" if info.counts.eval else "train"
            texts = [row["text"] for row in read_slice(info.rows_path(part), 0, _CHECKED_TEXTS)]
        return texts

    def _pairs(self) -> list[list[int]]:
        """Both answers of pairs on which two reward models are compared: held-out ones; [] where
        the data set is no longer there."""
        info = self._dataset()
        if info is None or info.form != "preference":
            return []
        part = "eval" if info.counts.eval else "train"
        config = self.trained.config
        both = sides_of_rows(
            read_slice(info.rows_path(part), 0, _CHECKED_TEXTS // 2),
            self.tokenizer,
            max_length=min(config.training.max_length, _CHECKED_TOKENS),
            system_prompt=config.data.system_prompt,
        )
        texts = [[s.tokens for s in sides if isinstance(s.tokens, TokenizedRow)] for sides in both]
        return [one.input_ids for pair in texts if len(pair) == 2 for one in pair]

    def _dataset(self) -> DatasetInfo | None:
        try:
            data = self.trained.config.data
            return load_dataset_info(self.workspace, data.dataset, data.dataset_fingerprint)
        except DataError:  # it was deleted since
            return None

    def _copy_adapter(self) -> None:
        self.task.tell(0.4, "Copying the adapter")
        self.folder.mkdir()
        for path in self.trained.folder.glob("adapter_model*.safetensors"):
            shutil.copyfile(path, self.folder / path.name)
        if self.trained.new_tokens is not None:
            self.trained.new_tokens.save(self.folder)
        settings = adapter_settings(self.trained.folder)
        settings |= {"base_model_name_or_path": self.base.name, "inference_mode": True}
        if not self.base.is_public:
            settings["revision"] = None
        text = json.dumps(settings, indent=2, ensure_ascii=False) + "\n"
        (self.folder / "adapter_config.json").write_text(text, encoding="utf-8")
        self.tokenizer.save_pretrained(self.folder)
        if self.labels is not None:
            self.labels.save(self.folder)

    def _save_merged(self, model: Any) -> None:
        self.task.tell(0.35, "Merging")
        if self.trained.is_adapter:
            try:
                model = model.merge_and_unload(safe_merge=True)
            except ValueError as error:
                raise ExportError(
                    f"The adapter cannot be merged: {error}", "Export it as an adapter."
                ) from error
        _untie_if_parted(model)
        self.task.tell(0.45, "Saving the merged model")
        model = model.to(self.dtype)
        model.save_pretrained(self.folder, max_shard_size="5GB")
        self.tokenizer.save_pretrained(self.folder)
        if self.labels is not None:
            self.labels.save(self.folder)

    def _load_exported(self) -> Any:
        """The export as whoever gets it would load it."""
        if self.format == "merged":
            return self._open(self.folder)
        base = self._open(self.base_path, self.trained.config.model.model_revision)
        return with_adapter(base, self.folder)

    def _pack(self, checks: list[Check]) -> dict[str, Any]:
        """README, last look, name and zip."""
        kind = str(self.dtype).removeprefix("torch.")
        write_card(
            self.folder,
            self.trained,
            self.base,
            self._dataset(),
            format_name=self.format,
            dtype=kind,
            checks=[f"{check.name}: {check.detail}." for check in checks],
        )
        private = [self.workspace.root]
        if Path(self.base_path).is_dir():
            private.append(Path(self.base_path))
        forget_machine(self.folder, private)
        at = "" if self.trained.checkpoint == "final" else f"-{self.trained.checkpoint}"
        name = f"{self.trained.run.root.name}{at}-{self.format}"
        place = self.folder.rename(self.task.folder / name)
        archive = place.with_name(f"{name}.zip")
        zip_bytes = write_zip(place, archive, self.task.part(0.8, 0.99))
        return {
            "format": self.format,
            "checkpoint": self.trained.checkpoint,
            "path": place.name,
            "zip": archive.name,
            "size_bytes": folder_bytes(place),
            "zip_bytes": zip_bytes,
            "dtype": kind if self.format == "merged" else None,
            "base": self.base.name,
            "checks": [check.as_dict() for check in checks],
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
