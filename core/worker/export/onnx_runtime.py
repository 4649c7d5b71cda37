"""ONNX and onnxruntime: a classifier written for it, made smaller, and asked there."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from core.errors import ExportError
from core.language import _
from core.worker.models.loading import first_line

# A file of protobuf holds 2 GB at most; of more the weights stand beside it.
_MOST_BYTES = 1.5 * 2**30
# Weights in 7 of 8 bits, a scale for each column: processors without VNNI add up two products in 16
# bits, where larger ones overflow.
_INT8 = {"per_channel": True, "reduce_range": True}
# On a CPU this joined step takes longer than the two that it joins; assets/export/predict.py leaves
# it out too.
_SLOWER = ["SkipLayerNormFusion"]


def write(model: Any, files: dict[str, Path]) -> None:
    """Writes a classifier as ONNX for batches of any size and texts of any length, for each kind
    (fp32, int8) that `files` names. It is moved to the CPU and to 32 bits.

    Raises ExportError for a model that transformers' exporter cannot write.
    """
    from transformers.exporters import (
        ExportFormat,
        OnnxConfig,
        OnnxExporter,
        OnnxRuntimeDynamicConfig,
        OnnxRuntimeQuantizer,
    )

    model = model.to("cpu", torch.float32).eval()
    ids = torch.arange(5, 21).reshape(2, 8)
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    inputs = {"input_ids": ids, "attention_mask": mask}
    any_size = {0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO}
    config = OnnxConfig(dynamic=True, dynamic_shapes=dict.fromkeys(inputs, any_size))
    try:
        model.set_attn_implementation("eager")  # the plainest graph, and the fastest
        program = OnnxExporter().export(model, dict(inputs), config).program
        if "fp32" in files:
            _save(program, files["fp32"])
        if "int8" in files:
            quantizer = OnnxRuntimeQuantizer(OnnxRuntimeDynamicConfig(**_INT8))
            _save(quantizer.quantize(program, inputs, ExportFormat.ONNX), files["int8"])
    except Exception as error:  # of torch, onnxscript or onnxruntime, of many kinds
        raise ExportError(
            _(
                "transformers' exporter cannot write this {architecture} model as ONNX: {reason}.",
                architecture=type(model).__name__,
                reason=first_line(error),
            ),
            _("Export it as a merged model."),
        ) from error


def _save(program: Any, file: Path) -> None:
    import onnx_ir
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    ClearMetadataAndDocStringPass()(program)  # it names the files of this machine's Python
    weights = program.graph.initializers.values()
    size = sum(one.const_value.nbytes for one in weights if one.const_value is not None)
    beside = f"{file.name}.data" if size > _MOST_BYTES else None
    onnx_ir.save(program, str(file), external_data=beside)


class OnnxClassifier:
    """An ONNX file opened by onnxruntime on the CPU, to be asked as a model of transformers is.
    Raises ExportError where it cannot be opened."""

    device = torch.device("cpu")

    def __init__(self, file: Path, threads: int = 0) -> None:
        """`threads` 0: as many as there are cores."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        try:
            self._session = onnxruntime.InferenceSession(
                str(file),
                options,
                providers=["CPUExecutionProvider"],
                disabled_optimizers=_SLOWER,
            )
        except Exception as error:  # it has a class of its own for each cause
            raise ExportError(
                _(
                    "onnxruntime cannot open {file}: {reason}.",
                    file=file.name,
                    reason=first_line(error),
                ),
                _("Export it as a merged model."),
            ) from error
        self._file = file
        self._inputs = [given.name for given in self._session.get_inputs()]
        self.config = SimpleNamespace(num_labels=int(self._session.get_outputs()[0].shape[-1]))

    def __call__(self, **given: torch.Tensor) -> Any:
        """`input_ids` and `attention_mask`: (texts, tokens); `logits` of the answer: (texts,
        labels)."""
        feed = {name: given[name].numpy().astype(np.int64) for name in self._inputs}
        return SimpleNamespace(logits=torch.from_numpy(self._session.run(["logits"], feed)[0]))

    def ids_of(self, texts: list[str], longest: int) -> list[list[int]]:
        """The tokens of texts by the tokenizer.json beside it alone, as they are read where there
        is no transformers."""
        tokenizer = Tokenizer.from_file(str(self._file.with_name("tokenizer.json")))
        tokenizer.enable_truncation(longest)
        tokenizer.no_padding()
        return [list(one.ids) for one in tokenizer.encode_batch(texts)]
