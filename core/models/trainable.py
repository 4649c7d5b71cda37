"""Which weights of a model learn, and how many: those of some layers or named modules when most are
frozen, those of each kind of adapter by the shapes of a model's layers. Torch-free but for
`freeze`, which works on whatever has named parameters."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache
from typing import Any

import regex

from core.config.adapter import AdapterSection
from core.errors import ModelError
from core.language import _

_BLOCK_NUMBER = re.compile(r"(?:^|\.)(?:layers?|h|blocks?)\.(\d+)\.")


def trained_names(adapter: AdapterSection, names: Iterable[str]) -> set[str]:
    """Those of a model's parameters, by their full names, that learn with method freeze."""
    known = list(names)
    of_layer = {name: int(found[1]) for name in known if (found := _BLOCK_NUMBER.search(name))}
    count = max(of_layer.values(), default=-1) + 1
    wanted = adapter.freeze_trainable_layers
    layers = set(range(max(0, count - wanted), count) if wanted >= 0 else range(-wanted))
    inside = adapter.freeze_trainable_modules
    return {
        name
        for name in known
        if (
            of_layer[name] in layers and ("all" in inside or _is_in(name, inside))
            if name in of_layer
            else _is_in(name, adapter.freeze_extra_modules)
        )
    }


def freeze(model: Any, adapter: AdapterSection, also: Iterable[str] = ()) -> None:
    """Lets only the chosen parameters of `model` learn, with those of the modules `also`.

    Raises ModelError when that leaves none.
    """
    # A tied output layer has a name of its own for the weights of the input's.
    named = list(model.named_parameters(remove_duplicate=False))
    chosen = trained_names(adapter, (name for name, _parameter in named))
    chosen |= {name for name, _parameter in named if _is_in(name, also)}
    learning = {id(parameter) for name, parameter in named if name in chosen}
    if not learning:
        raise ModelError(
            _(
                "Nothing of the model would learn: no parameter is in the chosen layers and "
                "modules."
            ),
            _(
                "Set adapter.freeze_trainable_layers, or name modules of this model in "
                "adapter.freeze_trainable_modules or freeze_extra_modules."
            ),
        )
    for _name, parameter in named:
        parameter.requires_grad_(id(parameter) in learning)


def _is_in(name: str, modules: Iterable[str]) -> bool:
    return any(f".{module}." in f".{name}" for module in modules)


# Where a layer's feed-forward part ends, in the families that transformers has. As PEFT has it, a
# BERT's attention.output.dense is among them.
FEEDFORWARD = (
    r".*(?:down_proj|fc2|fc_out|dense_4h_to_h|\.w2|mlp\.c_proj|mlp\.Wo|output\.dense|ffn\.lin2)"
)
# As PEFT finds a layer's number in a module's name.
_LAYER = re.compile(r".*?\.[^.]*\.(\d+)\.")


def module_parameters(adapter: AdapterSection, name: str, out: int, into: int) -> int:
    """What an adapter trains of one linear module with `into` features in and `out` out.

    LoRA adds r x (in + out) (Hu et al. 2021, section 4.1), DoRA one size for each output more;
    the others are counted as the installed PEFT makes them.
    """
    rank = _rank(adapter, name)
    if adapter.method == "lora":
        return rank * (into + out) + (out if adapter.use_dora else 0)
    if adapter.method == "adalora":
        return adapter.init_r * (into + out + 1)
    if adapter.method == "loha":
        return 2 * rank * (into + out)
    if adapter.method == "lokr":
        return _kronecker(adapter, rank, out, into)
    if adapter.method == "vera":
        return adapter.r + out
    if adapter.method == "oft":
        block = _block(into, adapter.oft_block_size)
        return into // block * (block * (block - 1) // 2)
    if adapter.method == "ia3":
        return into if is_feedforward(adapter, name) else out
    raise ValueError(f"{adapter.method} puts nothing into a layer")


def prompt_parameters(
    adapter: AdapterSection, hidden: int | None, layers: int | None, keys: int | None
) -> int | None:
    """What virtual tokens train: `hidden` is the model's width, `keys` that of all keys of a
    layer. None where one of them is not known."""
    tokens = adapter.num_virtual_tokens
    if adapter.method == "prompt_tuning":
        return tokens * hidden if hidden else None
    if not layers or not keys:
        return None
    made = layers * 2 * keys
    if not adapter.prefix_projection:
        return tokens * made
    inner = adapter.encoder_hidden_size or keys
    return tokens * keys + (keys + 1) * inner + (inner + 1) * made


def is_chosen_layer(adapter: AdapterSection, name: str) -> bool:
    """Whether `layers_to_transform` leaves the module its adapter."""
    if not adapter.layers_to_transform or isinstance(adapter.target_modules, str):
        return True
    found = _LAYER.match(name)
    return found is not None and int(found[1]) in adapter.layers_to_transform


def is_feedforward(adapter: AdapterSection, name: str) -> bool:
    """Whether IA3 scales what goes into this module, not what comes out."""
    if adapter.feedforward_modules:
        return any(name.endswith(module) for module in adapter.feedforward_modules)
    return re.fullmatch(FEEDFORWARD, name) is not None


_MATCH_SECONDS = 0.2


class SlowPattern(ValueError):
    """A pattern that takes too long: repeats inside repeats try every way to part a name."""


class _Pattern:
    """A key of rank_pattern or alpha_pattern, as PEFT reads it. Once slow, it is not tried again:
    a model has hundreds of modules, and the page waits."""

    def __init__(self, pattern: str) -> None:
        try:
            self._whole = regex.compile(rf"(.*\.)?({pattern})$")
        except (regex.error, RecursionError, OverflowError) as error:
            raise ValueError(f"{pattern} is no regular expression: {error}.") from error
        self._slow = ""

    def fits(self, module: str) -> bool:
        try:
            if not self._slow:
                return self._whole.match(module, timeout=_MATCH_SECONDS) is not None
        except TimeoutError:
            self._slow = module
        raise SlowPattern(
            _(
                "it takes longer than {seconds:g} seconds on the name {name}. Write it "
                "without repeats inside repeats, such as a+ instead of (a+)+.",
                seconds=_MATCH_SECONDS,
                name=self._slow,
            )
        )


_pattern = lru_cache(maxsize=256)(_Pattern)


def pattern_fits(pattern: str, module: str) -> bool:
    """Whether PEFT takes a key of rank_pattern or alpha_pattern to mean the module. Raises
    SlowPattern, and ValueError for what is no pattern."""
    return _pattern(pattern).fits(module)


def _rank(adapter: AdapterSection, name: str) -> int:
    if adapter.method in ("lora", "loha", "lokr"):
        for pattern, rank in adapter.rank_pattern.items():
            with suppress(ValueError):  # the rules say what is wrong with it
                if pattern_fits(pattern, name):
                    return rank
    return adapter.r


def _kronecker(adapter: AdapterSection, rank: int, out: int, into: int) -> int:
    """LoKr's two factors, each whole or as two thin matrices."""
    first_in, second_in = _factors(into, adapter.decompose_factor)
    first_out, second_out = _factors(out, adapter.decompose_factor)
    splits_first = adapter.decompose_both and rank < max(first_out, first_in) / 2
    splits_second = rank < max(second_out, second_in) / 2
    return (rank * (first_out + first_in) if splits_first else first_out * first_in) + (
        rank * (second_out + second_in) if splits_second else second_out * second_in
    )


def _factors(number: int, wanted: int) -> tuple[int, int]:
    """Two factors of a number, the smaller first: the largest up to `wanted`, or with -1 those
    nearest to its root."""
    if wanted > 0 and number % wanted == 0:
        return wanted, number // wanted
    most = number if wanted == -1 else wanted
    small = max(
        (i for i in range(1, int(number**0.5) + 1) if number % i == 0 and i <= most), default=1
    )
    return small, number // small


def _block(features: int, wanted: int) -> int:
    """OFT's block: the divisor of the features that is nearest to the one wanted."""
    if wanted >= features:
        return features
    lower = next(size for size in range(wanted, 0, -1) if features % size == 0)
    higher = next(size for size in range(wanted, features + 1) if features % size == 0)
    return lower if wanted - lower <= higher - wanted else higher
