"""What to do about an error that ended a job, for the ones that are known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from core.errors import TunesmithError, disk_full
from core.language import _


@dataclass(frozen=True)
class Advice:
    """`message` says what happened, `hint` what to do next."""

    message: str
    hint: str


def advise(error: BaseException) -> Advice:
    """The advice for an error, looking also at what caused it. Imports no torch."""
    if isinstance(error, TunesmithError):
        return Advice(error.message, error.hint)
    for one in _chain(error):
        for known in _KNOWN:
            advice = known(one)
            if advice is not None:
                return advice
        if isinstance(one, TunesmithError):
            return Advice(one.message, one.hint)
    return Advice(_sentence(error), _("See worker.log in the run's folder for where it happened."))


def _chain(error: BaseException) -> list[BaseException]:
    """The error, what it was raised from, and so on."""
    found: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and one not in found:
        found.append(one)
        one = one.__cause__ or one.__context__
    return found


def _out_of_memory(error: BaseException) -> Advice | None:
    text = str(error).lower()
    on_cpu = isinstance(error, MemoryError) or "can't allocate memory" in text
    if not on_cpu and type(error).__name__ != "OutOfMemoryError" and "out of memory" not in text:
        return None
    return Advice(
        _("The machine is out of memory.") if on_cpu else _("The GPU is out of memory."),
        _(
            "Lower training.per_device_train_batch_size or training.max_length, turn "
            "training.gradient_checkpointing on, quantize the base (adapter.quantization "
            "nf4), or choose a smaller model."
        ),
    )


def _disk_full(error: BaseException) -> Advice | None:
    if not disk_full(error):
        return None
    return Advice(
        _("The disk is full."),
        _(
            "Free some space, then start it again; a training is resumed from its last whole "
            "checkpoint, and keeps fewer of them with tracking.save_total_limit."
        ),
    )


def _no_such_module(error: BaseException) -> Advice | None:
    """PEFT's words for target modules that the model does not have."""
    text = str(error)
    if not isinstance(error, ValueError) or "arget modules" not in text or "not found" not in text:
        return None
    return Advice(
        _("The model has no such modules: {error}", error=_sentence(error)),
        _("Set adapter.target_modules to all-linear, or to names from the model's own list."),
    )


def _adapter_on_head(error: BaseException) -> Advice | None:
    if "adapter to `lm_head`" not in str(error):
        return None
    return Advice(
        _("The output layer (lm_head) cannot have an adapter: it would never be trained."),
        _(
            "Take lm_head out of adapter.target_modules; name it in adapter.modules_to_save "
            "instead."
        ),
    )


def _template(error: BaseException) -> Advice | None:
    if not type(error).__module__.startswith("jinja2"):
        return None
    return Advice(
        _("The chat template cannot be rendered: {error}", error=_sentence(error)),
        _("Look at the rows in Data with this model; choose a model whose template takes them."),
    )


def _missing_package(error: BaseException) -> Advice | None:
    if not isinstance(error, ModuleNotFoundError):
        return None
    return Advice(
        _("The Python package {name} is not installed.", name=error.name)
        if error.name
        else _("The Python package that is needed is not installed."),
        _("Run python launch.py setup, then python launch.py doctor."),
    )


def _not_finite(error: BaseException) -> Advice | None:
    if "probability tensor contains" not in str(error):
        return None
    return Advice(
        _("The numbers ran out of range: {error}", error=_sentence(error)),
        _("Lower training.learning_rate, or use bf16 or fp32 as training.precision."),
    )


def _sentence(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    text = lines[0].strip() if lines else ""
    name = type(error).__name__
    return f"{name}: {text[:400].rstrip('.')}." if text else f"{name}."


_KNOWN: tuple[Callable[[BaseException], Advice | None], ...] = (
    _out_of_memory,
    _disk_full,
    _no_such_module,
    _adapter_on_head,
    _template,
    _missing_package,
    _not_finite,
)
