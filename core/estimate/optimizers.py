"""What each optimizer remembers of a trained weight."""

from __future__ import annotations

from dataclasses import dataclass

# How many values of the weight's own type it keeps for each weight.
_VALUES = {
    "adamw_torch": 2,
    "adamw_torch_fused": 2,
    "adamw_torch_xla": 2,
    "adamw_torch_npu_fused": 2,
    "adamw_apex_fused": 2,
    "stable_adamw": 2,
    "grokadamw": 3,
    "schedule_free_adamw": 2,
    "schedule_free_radam": 2,
    "schedule_free_sgd": 1,
    "sgd": 0,
    "adagrad": 1,
    "rmsprop": 1,
    "lomo": 0,
    "adalomo": 0,
}
# Those of bitsandbytes: 32 bits a value, whatever the weight's type, or 8 bits and a scale of 32
# bits for each 256 values.
_32_BIT, _8_BIT = 4.0, 1.0 + 4 / 256
_OF_BITSANDBYTES = {
    "adamw_bnb": 2,
    "adamw": 2,
    "paged_adamw": 2,
    "lion": 1,
    "paged_lion": 1,
    "rmsprop_bnb": 1,
    "ademamix": 3,
    "paged_ademamix": 3,
}
# torchao's, with a scale for each block of 256 values (4 bits: 128).
_OF_TORCHAO = {"adamw_torch_8bit": 2 * _8_BIT, "adamw_torch_4bit": 2 * (0.5 + 4 / 128)}
_ADAMW_VALUES = 2


@dataclass(frozen=True)
class State:
    """Bytes an optimizer keeps for each trained weight; `keeps_gradients` is False where a weight
    is changed as soon as its gradient is there. `doubt` says what is not known."""

    a_weight: float
    keeps_gradients: bool = True
    doubt: str = ""


def state_of(name: str, weight_bytes: int, *, whole_model: bool) -> State:
    """What optimizer `name` keeps of weights of `weight_bytes` each; `whole_model` says that
    matrices of the model are trained, not the slim ones of an adapter."""
    if name in _OF_TORCHAO:
        return State(_OF_TORCHAO[name])
    if name in _VALUES:
        return State(_VALUES[name] * weight_bytes, keeps_gradients="lomo" not in name)
    if name == "adafactor":
        # A sum for each row and column: of a slim matrix of rank 16 that is a sixteenth.
        return State(4 * (0.002 if whole_model else 0.07))
    bits = _8_BIT if name.endswith("_8bit") else _32_BIT
    base = name.removesuffix("_8bit").removesuffix("_32bit")
    if base in _OF_BITSANDBYTES:
        return State(_OF_BITSANDBYTES[base] * bits)
    doubt = f"what {name} keeps is not known: counted as AdamW"
    if name.startswith(("galore", "apollo")):
        # Its rank decides, and which modules it is put on.
        doubt = f"{name} keeps less than AdamW, by its rank: counted as AdamW"
    return State(_ADAMW_VALUES * weight_bytes, "layerwise" not in name, doubt)
