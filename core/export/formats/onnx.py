"""ONNX: a classifier in one file that onnxruntime runs without torch, exact or in 8 bits."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core.config import RunConfig
from core.export.deployment import write_deployment
from core.export.format import Base, Exporting, Format, Option, Part
from core.language import N_, _
from core.methods import Makes
from core.models.trained import TrainedModel

PREDICT = Path(__file__).resolve().parents[3] / "assets" / "export" / "predict.py"
_FILES = {"fp32": "model.onnx", "int8": "model-int8.onnx"}


class Onnx(Format):
    name = "onnx"
    title = "ONNX"
    meaning = N_(
        "A classifier that runs without torch, on any machine that has onnxruntime, with a small "
        "script that gives labels."
    )
    place = 8
    is_whole = True
    library = "onnx"
    relation = "quantized"
    options = (
        Option(
            "onnx",
            N_("Weights of the ONNX file"),
            N_("int8 is a quarter of the size and faster on a CPU; its scores differ a little."),
            (("fp32", "fp32"), ("int8", "int8")),
            ("fp32", "int8"),
            several=True,
        ),
    )
    extra = "onnx"

    def why_not(self, config: RunConfig) -> tuple[str, str] | None:
        if config.training_method.makes == "classifier":
            return None
        why = _("This run trained a model that does not give labels.")
        return why, _("Export it as a merged model.")

    def size_bytes(self, trained: TrainedModel, parameters: int, dtype_bytes: int) -> int:
        return parameters * (2 * 4 + 2)  # onnxruntime's quantizer needs a copy

    def write(self, work: Exporting, model: Any) -> None:
        work.write_onnx(model, {kind: work.folder / _FILES[kind] for kind in work.chosen["onnx"]})
        work.add_tokenizer(work.folder)
        write_deployment(work.folder, work.trained.config, "cpu")
        shutil.copyfile(PREDICT, work.folder / PREDICT.name)

    def parts(self, work: Exporting) -> list[Part]:
        return [Part(_FILES[kind], f"onnx_{kind}") for kind in work.chosen["onnx"]]

    def load(self, work: Exporting, part: Part) -> Any:
        return work.in_onnxruntime(work.folder / part.file)

    def tags(self, config: RunConfig) -> list[str]:
        return ["onnx"]

    def what(self, of: str, data: str, config: RunConfig, dtype: str) -> str:
        return (
            f"{of[0].upper()}{of[1:]}, trained on {data}, as ONNX: a whole classifier that needs "
            "neither torch nor transformers."
        )

    def loading(self, base: Base, makes: Makes, parts: Sequence[Part] = ()) -> str:
        file = parts[0].file if parts else _FILES["fp32"]
        return (
            "In this folder:\n\n```sh\npip install onnxruntime tokenizers numpy\n"
            f'python predict.py --model {file} "A text."\n```\n\nor in Python:\n\n```python\n'
            'import sys\n\nsys.path.insert(0, "path/to/this/folder")\n'
            f'from predict import Classifier\n\nclassifier = Classifier("{file}")\n'
            'print(classifier.predict(["A text."]))\n```\n\n'
            "`deployment_config.json` tells programs what to feed it: texts are cut at "
            "`max_length` tokens."
        )


FORMAT = Onnx()
