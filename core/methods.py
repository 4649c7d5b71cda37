"""Every training method, declared once: what it is called, what it learns from, what it makes.

Whatever tells methods apart reads a record here. A new method is a record, a recipe of training,
a preset and a test. Stands below everything else of core and imports none of it but the language.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal

from core.language import N_, Said, _

MethodName = Literal[
    "sft",
    "cpt",
    "mlm",
    "classification",
    "dpo",
    "kto",
    "orpo",
    "cpo",
    "reward",
    "grpo",
    "rloo",
]
StandardForm = Literal[
    "text",
    "prompt-completion",
    "messages",
    "preference",
    "unpaired-preference",
    "prompt-only",
    "labelled-text",
]
"""The standard forms of rows; TRL's, and labelled text."""

WRITTEN_FORMS: tuple[StandardForm, ...] = ("text", "prompt-completion", "messages")
"""Forms whose every token can be learned."""

Makes = Literal["writer", "filler", "classifier", "scorer"]
"""What a run leaves: a model that writes on, fills gaps, gives labels, or gives scores."""

Purpose = Literal["Answers", "Labels", "Plain text", "Preferences", "Rewards"]
"""What a run learns from, in the order in which a person is asked."""

LossHead = Literal["none", "rows", "tiles", "everything"]
"""How the loss takes the scores over the vocabulary: there are none; a piece at a time on any
device (core.worker.training.row_trainer); a tile at a time with TRL's kernel; those of all tokens
at once."""


@dataclass(frozen=True)
class Metric:
    """A number that an evaluation measures; `*` in its name stands for any text.

    `better` is empty where neither direction is the better one.
    """

    name: str
    better: Literal["higher", "lower", ""] = "higher"


LOSS = Metric("*loss", "lower")


@dataclass(frozen=True)
class LibraryClass:
    """A class of a library: its package, the file in it, and its name."""

    package: str
    file: str
    name: str


TRAINING_ARGUMENTS = LibraryClass("transformers", "training_args.py", "TrainingArguments")
TRL_ARGUMENTS = LibraryClass("trl", "trainer/base_config.py", "_BaseConfig")


@dataclass(frozen=True, kw_only=True)
class Method:
    """One training method.

    `title` names it in lists, `description` within a sentence. `recipe` (module:class) trains it,
    with the `trainer` of the library and its `arguments`. `section` is that of its own settings.
    """

    name: MethodName
    title: Said = Said()
    description: str
    purpose: Purpose
    forms: tuple[StandardForm, ...]
    makes: Makes
    recipe: str
    trainer: str
    arguments: LibraryClass
    section: str = ""
    other_forms: Said = Said("")
    """What to do with rows of another form, where there is more to say than the forms."""
    metrics: tuple[Metric, ...] = (LOSS,)
    measures_only_these: bool = False
    """Whether `metrics` are all that is measured; else there may be more."""
    panels: tuple[str, ...] = ()
    """The charts of its own, by their names in the table of panels."""
    why_not_packed: Said = Said("")
    """Why short rows cannot share a row of the batch; empty where they can."""
    why_one_device: Said = Said("")
    """Why it cannot be trained on several devices; empty where it can."""
    without_padding: bool = False
    """Whether rows stand behind each other without padding, where the attention allows."""
    fills_blocks: bool = False
    """Whether texts are joined and cut into full blocks."""
    sorts_by_length: bool = False
    """Whether rows of like length can be put into one batch, which wastes less padding."""
    may_learn_questions: bool = False
    """Whether a setting decides if only the answers are learned."""
    generates: bool = False
    """Whether the model writes answers in training, which rewards judge."""
    reference: Literal["", "asked", "kl"] = ""
    """Whether a reference model judges the answers: always, or with a KL coefficient above 0."""
    takes_virtual_tokens: bool = False
    """Whether its trainer knows that virtual tokens stand before the text."""
    learns_new_tokens: bool = False
    loss_head: LossHead = "tiles"
    rounds_adapter: bool = True
    """Whether its trainer puts the adapter of a quantized base into bf16."""
    other_names: Mapping[str, str] = field(default_factory=dict)
    """Fields of `arguments` that stand in the config under another name."""
    refused_arguments: Mapping[str, str] = field(default_factory=dict)
    """Fields of `arguments` that this method alone does not take, and why."""
    idle_arguments: frozenset[str] = frozenset()
    """Fields of `arguments` that do nothing here."""

    @property
    def packs(self) -> bool:
        return not self.why_not_packed

    @property
    def is_paired(self) -> bool:
        """Whether a row is two sequences."""
        return "preference" in self.forms

    @property
    def compares(self) -> bool:
        """Whether answers are compared, for which TRL switches dropout off."""
        return self.purpose in ("Preferences", "Rewards")

    @property
    def converses(self) -> bool:
        """Whether rows can be conversations, which a chat template lays out."""
        return not {"text", "labelled-text"}.issuperset(self.forms)

    @property
    def writes(self) -> bool:
        return self.makes == "writer"

    @property
    def has_head(self) -> bool:
        """Whether the model gets an output of its own in place of that for words."""
        return self.makes in ("classifier", "scorer")

    @property
    def outputs(self) -> str:
        """What the model gives for a text, in a word."""
        if self.has_head:
            return _("labels") if self.makes == "classifier" else _("scores")
        return _("text")

    def better(self, metric: str) -> str:
        """Which way a metric is better, with or without eval_ before it: "higher", "lower" or ""
        where that is not known."""
        name = metric.removeprefix("eval_")
        known = (one for one in (*self.metrics, LOSS) if fnmatchcase(name, one.name))
        return next((one.better for one in known), "")


def named(**traits: Any) -> list[str]:
    """The names of the methods that have all these traits, such as `named(section="text")`."""
    return [
        method.name
        for method in METHODS.values()
        if all(getattr(method, trait) == value for trait, value in traits.items())
    ]


_SFT_CONFIG = LibraryClass("trl", "trainer/sft_config.py", "SFTConfig")
_PROMPTED_FORMS: tuple[StandardForm, ...] = ("prompt-only", "prompt-completion", "messages")
_COMPARED = N_("answers are compared one by one")
_PERPLEXITY = Metric("*perplexity", "lower")
_PREFERRED = (
    LOSS,
    *(
        Metric(name)
        for name in ("rewards/accuracies", "rewards/margins", "rewards/chosen", "logps/chosen")
    ),
)
_PREFERENCE_PANELS = ("pairs_right", "margins", "rewards", "logps")
_REWARDED = {
    "purpose": "Rewards",
    "forms": _PROMPTED_FORMS,
    "makes": "writer",
    "section": "reinforcement",
    "generates": True,
    "reference": "kl",
    "why_not_packed": N_("the answers are written in the training"),
    "why_one_device": N_("its answers are written and rewarded by one process"),
    "metrics": (LOSS, Metric("reward"), Metric("rewards/*/mean")),
    "panels": (
        "reward",
        "functions",
        "spread",
        "distance",
        "answer_length",
        "cut_off",
        "entropy",
    ),
    "refused_arguments": dict.fromkeys(
        ("sync_ref_model", "ref_model_mixup_alpha", "ref_model_sync_steps"),
        N_("the reference model stays what the run began with"),
    ),
}

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            name="sft",
            title=N_("Supervised fine-tuning"),
            description="supervised fine-tuning (SFT)",
            purpose="Answers",
            forms=WRITTEN_FORMS,
            makes="writer",
            recipe="core.worker.training.text:SFT",
            trainer="trl.SFTTrainer",
            arguments=_SFT_CONFIG,
            panels=("perplexity", "tokens_right"),
            without_padding=True,
            may_learn_questions=True,
            takes_virtual_tokens=True,
            learns_new_tokens=True,
            loss_head="rows",
            other_names={"loss_type": "training.sft_loss_type"},
        ),
        Method(
            name="cpt",
            title=N_("Continued pre-training (plain text)"),
            description="continued pre-training on plain text (CPT)",
            purpose="Plain text",
            forms=("text",),
            other_forms=N_(
                "To read other rows on as text, import them as text with a template such as "
                "{question} {answer}; for conversations take sft with data.learn everything."
            ),
            makes="writer",
            recipe="core.worker.training.text:CPT",
            trainer="trl.SFTTrainer",
            arguments=_SFT_CONFIG,
            section="text",
            metrics=(LOSS, _PERPLEXITY),
            panels=("perplexity", "tokens_right"),
            why_not_packed=N_("its blocks are full anyway"),
            without_padding=True,
            fills_blocks=True,
            takes_virtual_tokens=True,
            learns_new_tokens=True,
            loss_head="rows",
        ),
        Method(
            name="mlm",
            title=N_("Masked language modelling (encoders)"),
            description="masked language modelling (MLM)",
            purpose="Plain text",
            forms=("text", "labelled-text"),
            other_forms=N_(
                "To read other rows as text, import them as text with a template such as "
                "{question} {answer}."
            ),
            makes="filler",
            recipe="core.worker.training.mlm:MLM",
            trainer="transformers.Trainer",
            arguments=TRAINING_ARGUMENTS,
            section="text",
            metrics=(LOSS, _PERPLEXITY),
            panels=("perplexity", "tokens_right"),
            why_not_packed=N_("an encoder reads each text in a row of its own"),
            sorts_by_length=True,
            learns_new_tokens=True,
            loss_head="everything",
        ),
        Method(
            name="classification",
            title=N_("Classification (labels)"),
            description="learning the labels of texts (classification)",
            purpose="Labels",
            forms=("labelled-text",),
            makes="classifier",
            recipe="core.worker.training.classification:Classification",
            trainer="transformers.Trainer",
            arguments=TRAINING_ARGUMENTS,
            section="classification",
            metrics=(
                LOSS,
                *(
                    Metric(name)
                    for name in (
                        "accuracy",
                        "f1_macro",
                        "f1_weighted",
                        "precision_macro",
                        "precision_weighted",
                        "recall_macro",
                        "recall_weighted",
                    )
                ),
            ),
            measures_only_these=True,
            panels=("labels_right", "labels"),
            why_not_packed=N_("each text has a label of its own"),
            sorts_by_length=True,
            loss_head="none",
            rounds_adapter=False,
            idle_arguments=frozenset({"label_names", "label_smoothing_factor"}),
        ),
        Method(
            name="dpo",
            title=N_("DPO (pairs)"),
            description="direct preference optimization (DPO)",
            purpose="Preferences",
            forms=("preference",),
            makes="writer",
            recipe="core.worker.training.preference:DPO",
            trainer="trl.DPOTrainer",
            arguments=LibraryClass("trl", "trainer/dpo_config.py", "DPOConfig"),
            section="preference",
            metrics=_PREFERRED,
            panels=_PREFERENCE_PANELS,
            why_not_packed=_COMPARED,
            reference="asked",
            takes_virtual_tokens=True,
        ),
        Method(
            name="kto",
            title=N_("KTO (judged answers)"),
            description="learning from answers judged one by one (KTO)",
            purpose="Preferences",
            forms=("unpaired-preference",),
            makes="writer",
            recipe="core.worker.training.preference:KTO",
            trainer="trl.KTOTrainer",
            arguments=LibraryClass("trl", "trainer/kto_config.py", "KTOConfig"),
            section="preference",
            metrics=_PREFERRED,
            panels=("margins", "rewards", "distance_pair", "logps"),
            why_not_packed=_COMPARED,
            reference="asked",
            takes_virtual_tokens=True,
            other_names={"loss_type": "preference.kto_loss_type"},
        ),
        Method(
            name="orpo",
            title=N_("ORPO (pairs)"),
            description="odds ratio preference optimization (ORPO)",
            purpose="Preferences",
            forms=("preference",),
            makes="writer",
            recipe="core.worker.training.preference:ORPO",
            trainer="trl.experimental.orpo.ORPOTrainer",
            arguments=LibraryClass("trl", "experimental/orpo/orpo_config.py", "ORPOConfig"),
            section="preference",
            metrics=_PREFERRED,
            panels=(*_PREFERENCE_PANELS, "learned"),
            why_not_packed=_COMPARED,
            may_learn_questions=True,
            loss_head="everything",
            rounds_adapter=False,
        ),
        Method(
            name="cpo",
            title=N_("CPO and SimPO (pairs)"),
            description="contrastive preference optimization (CPO)",
            purpose="Preferences",
            forms=("preference",),
            makes="writer",
            recipe="core.worker.training.preference:CPO",
            trainer="trl.experimental.cpo.CPOTrainer",
            arguments=LibraryClass("trl", "experimental/cpo/cpo_config.py", "CPOConfig"),
            section="preference",
            metrics=_PREFERRED,
            panels=(*_PREFERENCE_PANELS, "learned"),
            why_not_packed=_COMPARED,
            loss_head="everything",
            rounds_adapter=False,
            other_names={"loss_type": "preference.cpo_loss_type"},
        ),
        Method(
            name="reward",
            title=N_("Reward model (pairs)"),
            description="learning to score answers from pairs of them (a reward model)",
            purpose="Preferences",
            forms=("preference",),
            makes="scorer",
            recipe="core.worker.training.reward:Reward",
            trainer="trl.RewardTrainer",
            arguments=LibraryClass("trl", "trainer/reward_config.py", "RewardConfig"),
            section="preference",
            metrics=(
                LOSS,
                Metric("accuracy"),
                Metric("margin"),
                Metric("mean_reward", ""),
                Metric("min_reward", ""),
                Metric("max_reward", ""),
            ),
            measures_only_these=True,
            panels=("pairs_scored_right", "score_margin", "scores"),
            why_not_packed=_COMPARED,
            loss_head="none",
            rounds_adapter=False,
        ),
        Method(
            name="grpo",
            title=N_("GRPO (rewards)"),
            description="group relative policy optimization on rewards (GRPO)",
            recipe="core.worker.training.reinforcement:GRPO",
            trainer="trl.GRPOTrainer",
            arguments=LibraryClass("trl", "trainer/grpo_config.py", "GRPOConfig"),
            other_names={
                "beta": "reinforcement.kl_beta",
                "loss_type": "reinforcement.grpo_loss_type",
            },
            **_REWARDED,  # type: ignore[arg-type]
        ),
        Method(
            name="rloo",
            title=N_("RLOO (rewards)"),
            description="REINFORCE leave-one-out on rewards (RLOO)",
            recipe="core.worker.training.reinforcement:RLOO",
            trainer="trl.RLOOTrainer",
            arguments=LibraryClass("trl", "trainer/rloo_config.py", "RLOOConfig"),
            other_names={"beta": "reinforcement.kl_beta"},
            **_REWARDED,  # type: ignore[arg-type]
        ),
    )
}
