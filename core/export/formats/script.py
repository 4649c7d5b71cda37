"""As code: a Python script that trains again what the run trained, without Tunesmith."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from core.config import RunConfig
from core.config.adapter import NAMES
from core.config.optimizers import OPTIMIZERS
from core.config.run import continues
from core.export.format import Base, Exporting, Format, Part
from core.language import N_, _
from core.methods import Makes
from core.models.trained import TrainedModel

# Kinds of adapter, and beginnings of a LoRA, that need nothing but their config.
_KINDS = ("none", "lora", "loha", "lokr", "vera", "oft", "ia3")
_BEGINNINGS = ("default", "gaussian", "pissa", "olora")


class Script(Format):
    name = "script"
    title = N_("Python script")
    meaning = N_(
        "The run as code: a script that trains again with TRL, transformers and PEFT alone, the "
        "versions that it needs, and your rows as tokens. No weights. Not for runs that learned "
        "from rewards (GRPO, RLOO)."
    )
    place = 9
    is_whole = False
    is_model = False
    library = "trl"
    relation = "finetune"

    def why_not(self, config: RunConfig) -> tuple[str, str] | None:
        why = _beyond(config)
        return None if why is None else (why, _("Export it in another form."))

    def size_bytes(self, trained: TrainedModel, parameters: int, dtype_bytes: int) -> int:
        return 0

    def write(self, work: Exporting, model: Any) -> None:
        work.write_script(work.folder)

    def parts(self, work: Exporting) -> list[Part]:
        return []

    def load(self, work: Exporting, part: Part) -> Any:
        raise NotImplementedError("there is no model to load")

    def what(self, of: str, data: str, config: RunConfig, dtype: str) -> str:
        return (
            f"A script that trains {of} on {data} with TRL, transformers and PEFT alone, and the "
            "rows of that data set as tokens. It holds no weights."
        )

    def loading(self, base: Base, makes: Makes, parts: Sequence[Part] = ()) -> str:
        known = base.is_public or base.is_of_modelscope
        model = "" if known else " --model path/to/the/base"
        return (
            "In this folder, with uv, which brings the packages that the script names, or where "
            f"they are installed:\n\n```sh\nuv run train.py{model}\npython train.py{model}\n```\n\n"
            "`train.jsonl` and `eval.jsonl` hold the rows as the run's trainer got them; the "
            "script's first lines say what was done to them and where its numbers may differ."
        )


def _beyond(config: RunConfig) -> str | None:
    """What such a run does that the script cannot."""
    adapter, optimizer = config.adapter, OPTIMIZERS[config.training.optim]
    method = config.training_method
    if method.generates:
        return _(
            "This run learned from rewards that Tunesmith gives ({method}): no script can do that.",
            method=_(method.title),
        )
    if method.reference == "asked" and config.preference.ref_model != "base":
        return _("This run compared with another reference than its base: a script cannot.")
    if continues(config):
        return _("This run goes on from another one, which a script cannot repeat.")
    if config.vocabulary.new_tokens:
        return _("This run added tokens to its model: there is no script for that yet.")
    if method.makes != "writer" and adapter.quantization != "none":
        return _("This run trained a head on a quantized base: there is no script for that yet.")
    best = config.evaluation.metric_for_best_model
    if method.makes == "classifier" and "loss" not in best and _chooses(config):
        return _(
            "This run chose its best checkpoint by {metric}, which a script does not measure.",
            metric=best,
        )
    begins_otherwise = adapter.method == "lora" and adapter.init_lora_weights not in _BEGINNINGS
    if adapter.method not in _KINDS or begins_otherwise:
        kind = _(NAMES[adapter.method])
        return _("This run trained {kind} in a way that has no script yet.", kind=kind)
    if optimizer.extra or optimizer.module or optimizer.low_rank:
        return _(
            "This run used the optimizer {name}: there is no script for that yet.",
            name=optimizer.name,
        )
    return None


def _chooses(config: RunConfig) -> bool:
    """Whether evaluations decide which checkpoint is kept."""
    evaluation = config.evaluation
    early = evaluation.early_stopping_patience is not None
    return evaluation.eval_strategy != "no" and (evaluation.load_best_model_at_end or early)


FORMAT = Script()
