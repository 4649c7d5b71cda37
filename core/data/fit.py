"""Whether a data set fits the settings of a run, said at the field that can mend it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.config.classification import as_run
from core.config.sections import CONVERSING
from core.data.chat_templates import MODELS_OWN
from core.data.record import SFT_FORMS, DatasetInfo, StandardForm
from core.errors import DataError, Problem

if TYPE_CHECKING:
    from core.config import RunConfig

PROMPTED_FORMS: tuple[StandardForm, ...] = ("prompt-only", "prompt-completion", "messages")
"""Forms with a prompt to answer; of the last two the last answer is what a reward may compare
with."""

METHOD_FORMS: dict[str, tuple[StandardForm, ...]] = {
    "sft": SFT_FORMS,
    "cpt": ("text",),
    "mlm": ("text", "labelled-text"),
    "classification": ("labelled-text",),
    "dpo": ("preference",),
    "kto": ("unpaired-preference",),
    "orpo": ("preference",),
    "cpo": ("preference",),
    "reward": ("preference",),
    "grpo": PROMPTED_FORMS,
    "rloo": PROMPTED_FORMS,
}
"""The forms of rows that each method learns from."""


_TO_TEXT = {
    "cpt": " To read other rows on as text, import them as text with a template such as "
    "{question} {answer}; for conversations take sft with data.assistant_only_loss off.",
    "mlm": " To read other rows as text, import them as text with a template such as "
    "{question} {answer}.",
}
"""What to do with rows of another form, where there is more to say than the forms."""


def need_form(info: DatasetInfo, config: RunConfig) -> None:
    """Raises DataError when the method does not learn from the form of the rows."""
    forms = METHOD_FORMS[config.method]
    if info.form not in forms:
        raise DataError(
            f"The data set {info.name} holds {info.form} rows, and method {config.method} learns "
            f"from {', '.join(forms)}.",
            "Choose another data set, or import its files in one of these forms."
            + _TO_TEXT.get(config.method, ""),
        )


def data_problems(info: DatasetInfo, config: RunConfig) -> list[Problem]:
    """What keeps a run from learning from a data set: the form of its rows, or no held-out rows
    to evaluate on."""
    forms = METHOD_FORMS[config.method]
    if info.form not in forms:
        message = (
            f"The data set {info.name} holds {info.form} rows, and method {config.method} learns "
            f"from {', '.join(forms)}. Choose another data set, or import its files in one of "
            "these forms." + _TO_TEXT.get(config.method, "")
        )
        return [Problem("data.dataset", message, ("method",))]
    if config.method == "classification" and _says_nothing(info):
        message = (
            f"All rows of {info.name} have the same labels: there is nothing to tell apart. Add "
            "rows with another label."
        )
        return [Problem("data.dataset", message, ("method",))]
    evaluates = as_run(config).evaluation.eval_strategy != "no"
    if evaluates and not info.counts.eval:
        message = (
            f"{config.evaluation.eval_strategy} needs held-out rows, and the data set {info.name} "
            "has none. Split some off in Data, or set it to no."
        )
        return [Problem("evaluation.eval_strategy", message, ("data.dataset",))]
    return []


def _says_nothing(info: DatasetInfo) -> bool:
    """Whether no label tells one train row from another."""
    return bool(info.labels) and all(n == info.counts.train for n in info.labels.values())


def template_warnings(info: DatasetInfo, config: RunConfig, has_template: bool) -> list[Problem]:
    """What to know of conversations for a base without a chat template of its own."""
    talks = config.method in CONVERSING["method"] and info.form != "text"
    if has_template or not talks or config.data.chat_template != MODELS_OWN:
        return []
    message = (
        f"{config.model.model_name_or_path} has no chat template of its own: the turns of "
        f"{info.name} would stand one after the other, without a word on who speaks. Choose one "
        "that comes with Tunesmith, such as chatml or alpaca; it is saved with the model."
    )
    return [Problem("data.chat_template", message, ("model.model_name_or_path",))]
