"""How the weights of an export are held, and how far its answers may be off for that."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Precision:
    """`bits` a weight takes in the mean; `allowed` is the largest distance of the logits from the
    trained model's, as core.worker.export.check defines it. Of GGUF, `outtype` is its name for
    llama.cpp's converter, `ftype` its number for llama.cpp's quantizer where that makes it."""

    name: str
    bits: float
    allowed: float
    outtype: str = ""
    ftype: int = 0

    @property
    def is_block(self) -> bool:
        """Whether blocks of 256 weights share a scale; narrower rows take larger types."""
        return self.ftype != 0


_ALL = (
    Precision("float32", 32, 1e-3),
    Precision("float16", 16, 1e-2),
    Precision("bfloat16", 16, 5e-2),
    Precision("onnx_fp32", 32, 1e-3),
    Precision("onnx_int8", 8, 0.15),
    # llama.cpp computes in 8 and 16 bits whatever the file holds.
    Precision("f32", 32, 2e-2, "f32"),
    Precision("bf16", 16, 6e-2, "bf16"),
    Precision("f16", 16, 2e-2, "f16"),
    Precision("q8_0", 8.5, 6e-2, "q8_0"),
    Precision("Q6_K", 6.6, 0.1, ftype=18),
    Precision("Q5_K_M", 5.7, 0.15, ftype=17),
    Precision("Q4_K_M", 4.9, 0.3, ftype=15),
    Precision("Q4_K_S", 4.6, 0.3, ftype=14),
    Precision("IQ4_XS", 4.3, 0.3, ftype=30),
    Precision("Q3_K_M", 3.9, 0.4, ftype=12),
)
PRECISIONS = {one.name: one for one in _ALL}
GGUF = tuple(one for one in _ALL if one.outtype or one.ftype)
"""What llama.cpp reads, the most exact first."""
