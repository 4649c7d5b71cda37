"""How the weights of an export are held, and how far its answers may be off for that."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Precision:
    """`bits` a weight takes in the mean; `allowed` is the largest distance of the logits from the
    trained model's, as core.worker.export.check defines it, and `times` by how much the perplexity
    may grow. Rounding goes in all directions: a model may be far off and hardly worse.

    Of GGUF, `outtype` is its name for llama.cpp's converter, `ftype` its number for llama.cpp's
    quantizer where that makes it."""

    name: str
    bits: float
    allowed: float
    times: float = 1.05
    outtype: str = ""
    ftype: int = 0


_ALL = (
    Precision("float32", 32, 1e-3),
    Precision("float16", 16, 1e-2),
    Precision("bfloat16", 16, 5e-2),
    # Of bitsandbytes.
    Precision("int8", 8.5, 0.3, 1.1),
    Precision("nf4", 4.5, 0.75, 1.3),
    Precision("torchao_int8", 8.1, 0.2, 1.05),
    Precision("torchao_fp8", 8.1, 0.35, 1.1),
    Precision("onnx_fp32", 32, 1e-3),
    Precision("onnx_int8", 8, 0.15),
    # llama.cpp computes in 8 and 16 bits whatever the file holds. The limits of the kinds in blocks
    # are for a small model (135M), which they hurt most.
    Precision("f32", 32, 2e-2, outtype="f32"),
    Precision("bf16", 16, 6e-2, outtype="bf16"),
    Precision("f16", 16, 2e-2, outtype="f16"),
    Precision("q8_0", 8.5, 0.2, 1.05, outtype="q8_0"),
    Precision("Q6_K", 6.6, 0.3, 1.1, ftype=18),
    Precision("Q5_K_M", 5.7, 0.75, 1.2, ftype=17),
    Precision("Q4_K_M", 4.9, 0.75, 1.3, ftype=15),
    Precision("Q4_K_S", 4.6, 0.75, 1.3, ftype=14),
    Precision("IQ4_XS", 4.3, 0.75, 1.3, ftype=30),
    Precision("Q3_K_M", 3.9, 0.9, 1.5, ftype=12),
)
PRECISIONS = {one.name: one for one in _ALL}
GGUF = tuple(one for one in _ALL if one.outtype or one.ftype)
"""What llama.cpp reads, the most exact first."""
