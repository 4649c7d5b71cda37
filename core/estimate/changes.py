"""What would make a run fit: the smallest changes, the least harmful first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from core.config import RunConfig
from core.errors import ConfigError
from core.estimate.plan import RunEstimate, Situation
from core.language import _, n_
from core.rules import parse_config
from core.rules.half_batch import halved

_SHORTEST = 128
_BATCH = "training.per_device_train_batch_size"
_ACCUMULATION = "training.gradient_accumulation_steps"
_CHECKPOINTING = "training.gradient_checkpointing"
_LENGTH = "training.max_length"
_MOST = 4
# What takes more than this share of what is free fits, but hardly.
_WELL = 0.9

# What is given up, title, and settings.
_Step = tuple[str, str, dict[str, Any]]


@dataclass(frozen=True)
class Change:
    """Settings that would make a run smaller. `total` is what it then takes, in bytes; `fits` says
    whether that is little enough; `costs` is what is given up for it."""

    title: str
    costs: str
    settings: dict[str, Any]
    total: int
    fits: bool

    def to_dict(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "costs": self.costs,
            "settings": self.settings,
            "total_bytes": self.total,
            "fits": self.fits,
        }


def changes_that_fit(estimate: RunEstimate) -> list[Change]:
    """Each of these alone makes a run fit that does not, the least harmful first; where none does,
    one that is several at once, which may still not be enough. Empty for a run that fits, and for
    one on a cluster, of whose memory nothing is known.

    Of each kind it is the smallest that leaves some memory free, where there is one: what hardly
    fits at the click may no longer fit a moment later.
    """
    situation, config = estimate.situation, estimate.config
    if situation is None or config is None or estimate.memory is None:
        return []
    if estimate.memory.fits is not False or config.training.ray_address:
        return []
    found: list[Change] = []
    for kind in _kinds(situation, config):
        change = _first(situation, config, kind)
        # What goes further than one that is offered already does harm for nothing.
        if change and not any(known.settings.items() <= change.settings.items() for known in found):
            found.append(change)
    if found:
        return found[:_MOST]
    together = _together(situation, config)
    return [together] if together else []


def _first(situation: Situation, config: RunConfig, kind: Iterator[_Step]) -> Change | None:
    """The smallest change of a kind that fits well, else the smallest that fits at all."""
    hardly: Change | None = None
    for title, costs, settings in kind:
        change = _tried(situation, config, title, costs, settings)
        if change is None or not change.fits:
            continue
        if change.total <= _WELL * situation.free(config):
            return change
        hardly = hardly or change
    return hardly


def _tried(
    situation: Situation, config: RunConfig, title: str, costs: str, settings: dict[str, Any]
) -> Change | None:
    """A change with what the run then takes; None where the rules do not allow it."""
    try:
        changed = parse_config(config.values() | settings)
    except ConfigError:
        return None
    memory = situation.memory(changed)
    return Change(title, costs, settings, memory.total, bool(memory.fits))


def _kinds(situation: Situation, config: RunConfig) -> Iterator[Iterator[_Step]]:
    """Kinds of changes by the harm they do; each begins with its smallest."""
    yield _checkpointing(situation, config)
    yield _fewer_rows(situation, config)
    for title, costs, settings in _checkpointing(situation, config):
        yield (
            (
                _("{title}, {more}", title=title, more=more),
                _("{costs} {more}", costs=costs, more=also),
                settings | fewer,
            )
            for more, also, fewer in _fewer_rows(situation, config)
        )
    for kind in (_optimizer, _shorter, _adapter, _quantized):
        yield kind(situation, config)


def _checkpointing(_situation: Situation, config: RunConfig) -> Iterator[_Step]:
    if config.training.gradient_checkpointing is not True:
        yield (
            _("Gradient checkpointing"),
            _("Each step takes about a third longer; what is learned stays the same."),
            {_CHECKPOINTING: True},
        )


def _fewer_rows(_situation: Situation, config: RunConfig) -> Iterator[_Step]:
    smaller: RunConfig = config
    while (settings := halved(smaller)) is not None:
        smaller = parse_config(smaller.values() | settings)
        rows, times = settings[_BATCH], settings[_ACCUMULATION]
        yield (
            n_(
                "{n} row at once, added up over {times} batches",
                "{n} rows at once, added up over {times} batches",
                rows,
                times=times,
            ),
            _("Each step learns from as many rows as before and takes a little longer."),
            settings,
        )


def _optimizer(situation: Situation, config: RunConfig) -> Iterator[_Step]:
    name = config.training.optim
    is_wide = name.startswith("adamw") and not name.endswith(("8bit", "4bit"))
    if not config.adapter.is_adapter and is_wide and situation.device.kind in ("cuda", "cpu"):
        yield (
            _("AdamW in 8 bits"),
            _("The optimizer remembers less exactly; the loss is hardly changed."),
            {"training.optim": "adamw_8bit"},
        )


def _shorter(situation: Situation, config: RunConfig) -> Iterator[_Step]:
    length = config.training.max_length
    while length // 2 >= _SHORTEST:
        length //= 2
        title = _("Longest row {length} tokens", length=length)
        yield title, _cut(situation, length), {_LENGTH: length}


def _cut(situation: Situation, length: int) -> str:
    if not situation.lengths:
        return _("Longer rows lose their end.")
    total = sum(count for _tokens, count in situation.lengths)
    cut = sum(count for tokens, count in situation.lengths if tokens > length)
    if not cut:
        return _("No row is longer.")
    return _("{cut:,} of {total:,} rows lose their end.", cut=cut, total=total)


def _adapter(_situation: Situation, config: RunConfig) -> Iterator[_Step]:
    if not config.adapter.is_adapter:
        rate = config.training.learning_rate
        settings: dict[str, Any] = {"adapter.method": "lora"}
        if rate < 1e-4:
            settings["training.learning_rate"] = min(rate * 10, 2e-4)
        yield (
            _("LoRA instead of the whole model"),
            _("It learns a little less, with a learning rate ten times as high."),
            settings,
        )


def _quantized(situation: Situation, config: RunConfig) -> Iterator[_Step]:
    for _title, costs, settings in list(_adapter(situation, config)) or [("", "", {})]:
        if config.adapter.quantization == "none" and not config.adapter.is_prompt:
            text = _("The base is held in 4 bits: slower, and a little less exact.")
            yield (
                "QLoRA (nf4)",
                _("{costs} {more}", costs=costs, more=text) if costs else text,
                settings | {"adapter.quantization": "nf4"},
            )


def _together(situation: Situation, config: RunConfig) -> Change | None:
    """Everything that helps at once, until it fits: what does no harm first, then QLoRA, then less
    of each row. None where nothing can be made smaller."""
    settings: dict[str, Any] = {}
    done = ""
    best: Change | None = None
    for kind in (_checkpointing, _fewer_rows, _quantized, _shorter):
        changed = parse_config(config.values() | settings)
        last: Change | None = None
        for title, _costs, more in kind(situation, changed):
            name = _("{title}, {more}", title=done, more=title) if done else title
            costs = _("No smaller change is enough.")
            change = _tried(situation, config, name, costs, settings | more)
            if change is not None and change.fits:
                return change
            last = change or last
        if last is not None:
            best, settings, done = last, last.settings, last.title
    return best
