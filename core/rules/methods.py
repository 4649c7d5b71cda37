"""What the settings of single methods do not go together with, and why."""

from __future__ import annotations

import typing
from collections import Counter
from collections.abc import Iterator

from core.config import RunConfig
from core.config.adapter import FROM_BASE
from core.config.preference import (
    OF_ANY_DISTANCE,
    OF_THE_DIFFERENCE,
    PreferenceSection,
    dpo_losses,
)
from core.config.run import answers_a_step, nearest_batch
from core.config.sections import ClassificationSection
from core.errors import ConfigError, Problem
from core.language import _
from core.rewards.specs import parse_rewards

_SMOOTHED = ("robust", "exo_pair")


def method_rules(config: RunConfig) -> Iterator[Problem]:
    """Every broken rule of the section that belongs to the run's method, and of new tokens."""
    yield from _text_rules(config)
    yield from _preference_rules(config)
    yield from _reinforcement_rules(config)
    yield from _classification_rules(config)
    yield from _vocabulary_rules(config)


def _text_rules(config: RunConfig) -> Iterator[Problem]:
    """The rules that a run which learns from plain text has to keep; none for other methods."""
    fills_gaps = config.training_method.makes == "filler"
    if fills_gaps and config.training.neftune_noise_alpha is not None:
        yield Problem(
            "training.neftune_noise_alpha",
            _(
                "with method {method}: it is meant for models that write. Leave it empty.",
                method=config.method,
            ),
            ("method",),
        )


def _preference_rules(config: RunConfig) -> Iterator[Problem]:
    """The rules that a run which learns from preferences has to keep; none for other methods."""
    method: str = config.method
    if method == "kto":
        yield from _kto_rules(config)
    if method == "dpo":
        yield from _dpo_rules(config)
    if method == "orpo" and config.data.learn in ("last_answer", "marked"):
        yield Problem(
            "data.learn",
            _(
                "{learn} with method orpo, which learns the better answer of each pair. Take "
                "answers, or everything for the question too.",
                learn=config.data.learn,
            ),
            ("method",),
        )
    if config.training_method.reference == "asked":
        yield from _reference_rules(config)
    if method == "cpo" and config.preference.label_smoothing > 0:
        kind = config.preference.cpo_loss_type
        if kind in ("hinge", "ipo"):
            yield Problem(
                "preference.label_smoothing",
                _(
                    "{label_smoothing:g} has no effect with preference.cpo_loss_type {kind}. Set "
                    "it to 0, or take sigmoid or simpo.",
                    label_smoothing=config.preference.label_smoothing,
                    kind=kind,
                ),
                ("preference.cpo_loss_type",),
            )


def _kto_rules(config: RunConfig) -> Iterator[Problem]:
    batch = config.training.per_device_train_batch_size
    if batch == 1 and config.preference.kto_loss_type == "kto":
        yield Problem(
            "training.per_device_train_batch_size",
            _(
                "1 with preference.kto_loss_type kto: it compares the answers of a batch with "
                "each other. Take at least 2, or the loss apo_zero_unpaired."
            ),
            ("preference.kto_loss_type",),
        )


def _dpo_rules(config: RunConfig) -> Iterator[Problem]:
    section = config.preference
    wrong = _wrong_weights(section)
    if wrong:
        yield wrong
        return
    kinds, smoothing = list(dpo_losses(section)), section.label_smoothing
    if "exo_pair" in kinds and smoothing == 0:
        yield Problem(
            "preference.label_smoothing",
            _("0 with preference.loss_type exo_pair, which needs some. Its authors advise 0.001."),
            ("preference.loss_type",),
        )
    elif smoothing > 0 and not set(kinds) & set(_SMOOTHED):
        yield Problem(
            "preference.label_smoothing",
            _(
                "{smoothing:g} has no effect with preference.loss_type {loss}. Set it to 0, or "
                "take robust.",
                smoothing=smoothing,
                loss=section.loss_type,
            ),
            ("preference.loss_type",),
        )
    others = [kind for kind in kinds if kind not in OF_ANY_DISTANCE]
    if section.f_divergence_type != "reverse_kl" and others:
        yield Problem(
            "preference.f_divergence_type",
            _(
                "{f_divergence_type} with preference.loss_type {loss}: it is defined for "
                "{losses} alone. Take reverse_kl.",
                f_divergence_type=section.f_divergence_type,
                loss=others[0],
                losses=", ".join(OF_THE_DIFFERENCE),
            ),
            ("preference.loss_type",),
        )
    sorting = [kind for kind in kinds if kind in ("aot", "aot_unpaired")]
    if section.use_weighting and sorting:
        yield Problem(
            "preference.use_weighting",
            _(
                "on with preference.loss_type {loss}, which sorts the answers. Turn it off.",
                loss=sorting[0],
            ),
            ("preference.loss_type",),
        )
    if section.ref_model == "none" and others:
        yield Problem(
            "preference.ref_model",
            _(
                "none with preference.loss_type {loss}, which measures each answer against a "
                "reference. Take base, or the loss sigmoid.",
                loss=others[0],
            ),
            ("preference.loss_type",),
        )


def _wrong_weights(section: PreferenceSection) -> Problem | None:
    known = typing.get_args(PreferenceSection.model_fields["loss_type"].annotation)
    for name, weight in section.loss_weights.items():
        is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if name not in known:
            message = _(
                "{name} is no loss of DPO. There are: {known}.", name=name, known=", ".join(known)
            )
        elif not is_number or weight <= 0:
            message = _("the weight of {name} must be a number above 0.", name=name)
        else:
            continue
        return Problem("preference.loss_weights", message, ("preference.loss_type",))
    return None


def _reference_rules(config: RunConfig) -> Iterator[Problem]:
    section, adapter = config.preference, config.adapter
    method: str = config.method
    if method == "kto" and section.ref_model == "none":
        yield Problem(
            "preference.ref_model",
            _("none with method kto, which measures each answer against a reference. Take base."),
            ("method",),
        )
    if section.ref_model != "base" or not adapter.changes_base:
        return
    # With the adapter off the model is to be the base; these change the base itself.
    if adapter.method == "lora" and adapter.init_lora_weights in FROM_BASE:
        yield Problem(
            "adapter.init_lora_weights",
            _(
                "{init_lora_weights} with preference.ref_model base: it changes the base, which "
                "is the reference. Use default.",
                init_lora_weights=adapter.init_lora_weights,
            ),
            ("preference.ref_model",),
        )
    if adapter.bias != "none":
        yield Problem(
            "adapter.bias",
            _(
                "{bias} with preference.ref_model base: the reference would be trained too. Set "
                "it to none.",
                bias=adapter.bias,
            ),
            ("preference.ref_model",),
        )


def _reinforcement_rules(config: RunConfig) -> Iterator[Problem]:
    """The rules of a run that learns from rewards; none for other methods."""
    if not config.training_method.generates:
        return
    training = config.training
    try:
        parse_rewards(config.reinforcement.rewards)
    except ConfigError as error:
        yield from error.problems
    if training.extra.get("auto_find_batch_size"):
        yield Problem(
            "training.extra",
            _(
                "auto_find_batch_size with method {method}: a smaller batch would tear the "
                "answers to a prompt apart. Set a smaller training.per_device_train_batch_size.",
                method=config.method,
            ),
            ("method",),
        )
    yield from _group_rules(config)
    yield from _loss_rules(config)
    yield from _model_rules(config)


def _group_rules(config: RunConfig) -> Iterator[Problem]:
    """The answers to a prompt are compared with each other, so a step holds all of them."""
    section, training = config.reinforcement, config.training
    batch, group = training.per_device_train_batch_size, section.num_generations
    if isinstance(batch, int) and answers_a_step(config, batch) % group:
        given = section.steps_per_generation
        own = "reinforcement.steps_per_generation"
        batches = "training.gradient_accumulation_steps" if given is None else own
        answers = answers_a_step(config, batch)
        yield Problem(
            "training.per_device_train_batch_size",
            _(
                "{batch} times {batches} {times} are {answers} answers, no multiple of "
                "reinforcement.num_generations {group}. Take {nearest}, or auto.",
                batch=batch,
                batches=batches,
                times=answers // batch,
                answers=answers,
                group=group,
                nearest=nearest_batch(config, batch),
            ),
            ("reinforcement.num_generations", batches),
        )
    measured = config.evaluation.per_device_eval_batch_size
    if config.evaluation.eval_strategy != "no" and measured % section.num_generations_eval:
        group = section.num_generations_eval
        yield Problem(
            "evaluation.per_device_eval_batch_size",
            _(
                "{measured} is no multiple of reinforcement.num_generations_eval {group}. Take "
                "{nearest}.",
                measured=measured,
                group=group,
                nearest=max(1, round(measured / group)) * group,
            ),
            ("reinforcement.num_generations_eval",),
        )


def _loss_rules(config: RunConfig) -> Iterator[Problem]:
    section = config.reinforcement
    method: str = config.method
    if method != "grpo":
        return
    if section.grpo_loss_type == "luspo" and section.importance_sampling_level != "sequence":
        yield Problem(
            "reinforcement.importance_sampling_level",
            _(
                "{importance_sampling_level} with reinforcement.grpo_loss_type luspo, which is "
                "defined on whole answers. Take sequence.",
                importance_sampling_level=section.importance_sampling_level,
            ),
            ("reinforcement.grpo_loss_type",),
        )
    if section.importance_sampling_level == "sequence" and section.grpo_loss_type in (
        "bnpo",
        "dr_grpo",
        "dapo",
        "cispo",
    ):
        yield Problem(
            "reinforcement.importance_sampling_level",
            _(
                "sequence with reinforcement.grpo_loss_type {grpo_loss_type} would count long "
                "answers more than short ones. Take the loss grpo (GSPO) or luspo, or token.",
                grpo_loss_type=section.grpo_loss_type,
            ),
            ("reinforcement.grpo_loss_type",),
        )


def _model_rules(config: RunConfig) -> Iterator[Problem]:
    """What the adapter must leave as it is: the head, and with a reference the base."""
    section, adapter = config.reinforcement, config.adapter
    if not adapter.is_adapter:
        return
    if isinstance(adapter.target_modules, list) and any(
        name.rpartition(".")[2] == "lm_head" for name in adapter.target_modules
    ):
        yield Problem(
            "adapter.target_modules",
            _(
                "lm_head with method {method}: TRL reads the head's own weights, so its adapter "
                "would never be trained. Leave it out.",
                method=config.method,
            ),
            ("method",),
        )
    if section.kl_beta == 0 or not adapter.changes_base:
        return
    # With the adapter off the model is to be the base; these change the base itself.
    if adapter.method == "lora" and adapter.init_lora_weights in FROM_BASE:
        yield Problem(
            "adapter.init_lora_weights",
            _(
                "{init_lora_weights} with reinforcement.kl_beta {kl_beta:g}: it changes the "
                "base, which is the reference. Use default.",
                init_lora_weights=adapter.init_lora_weights,
                kl_beta=section.kl_beta,
            ),
            ("reinforcement.kl_beta",),
        )
    elif adapter.method != "lora" or adapter.bias != "none":
        yield Problem(
            "adapter.bias",
            _(
                "{bias} with reinforcement.kl_beta {kl_beta:g}: the reference would be trained "
                "too. Set it to none.",
                bias=adapter.bias,
                kl_beta=section.kl_beta,
            ),
            ("reinforcement.kl_beta",),
        )


def _classification_rules(config: RunConfig) -> Iterator[Problem]:
    """The rules that a run which learns labels has to keep; none for another method."""
    if config.training_method.makes == "classifier":
        yield from _weight_rules(config.classification)


def _weight_rules(section: ClassificationSection) -> Iterator[Problem]:
    if section.class_weights != "own":
        return
    if not section.own_weights:
        yield Problem(
            "classification.own_weights",
            _(
                "empty with classification.class_weights own. Give a weight, such as spam=2, or "
                "take balanced."
            ),
            ("classification.class_weights",),
        )
    wrong = [
        name
        for name, weight in section.own_weights.items()
        if isinstance(weight, bool) or not isinstance(weight, int | float) or weight <= 0
    ]
    if wrong:
        yield Problem(
            "classification.own_weights",
            _("the weight of {name} must be a number above 0.", name=", ".join(wrong)),
            ("classification.class_weights",),
        )


def _vocabulary_rules(config: RunConfig) -> Iterator[Problem]:
    """The rules of a run with new tokens; none without."""
    tokens, method = config.vocabulary.new_tokens, config.method
    if not tokens:
        return
    if not config.training_method.learns_new_tokens:
        yield Problem(
            "vocabulary.new_tokens",
            _(
                "with method {method}: new tokens are learned from texts and answers. Teach them "
                "by cpt or sft first, and go on from that run.",
                method=method,
            ),
            ("method",),
        )
        return
    if any(not token.strip() for token in tokens):
        yield Problem("vocabulary.new_tokens", _("one of them is empty. Take it out."))
    twice = [token for token, count in Counter(tokens).items() if count > 1]
    if twice:
        yield Problem(
            "vocabulary.new_tokens",
            _("{tokens} stands there twice. Take one out.", tokens=", ".join(twice[:3])),
        )
    adapter: str = config.adapter.method
    if adapter not in ("lora", "none"):
        yield Problem(
            "vocabulary.new_tokens",
            _(
                "with adapter.method {adapter}, which cannot train their rows. Take lora, or "
                "none to train every weight.",
                adapter=adapter,
            ),
            ("adapter.method",),
        )
    elif adapter == "lora" and config.training_method.makes == "filler":
        yield Problem(
            "vocabulary.new_tokens",
            _(
                "with method {method} and adapter.method lora: the head that guesses hidden "
                "tokens has a bias for each token, which the adapter would leave out. Set "
                "adapter.method to none.",
                method=method,
            ),
            ("adapter.method",),
        )
    elif adapter == "lora":
        yield from _new_token_adapter_rules(config)


def _new_token_adapter_rules(config: RunConfig) -> Iterator[Problem]:
    adapter = config.adapter
    targets = adapter.target_modules if isinstance(adapter.target_modules, list) else []
    embeds = [name for name in (*targets, *adapter.modules_to_save) if _is_embedding(name)]
    if config.vocabulary.train == "rows" and embeds:
        yield Problem(
            "vocabulary.train",
            _(
                "rows, and the adapter trains {module} too: the two would overwrite each other. "
                "Set it to embeddings, or take the module out of the adapter.",
                module=embeds[0],
            ),
            ("adapter.target_modules", "adapter.modules_to_save"),
        )
    elif any(_is_embedding(name) for name in targets):
        yield Problem(
            "adapter.target_modules",
            _(
                "the embeddings have an adapter, and vocabulary.new_tokens adds rows to them. "
                "Take them out; vocabulary.train embeddings trains them in full."
            ),
            ("vocabulary.new_tokens",),
        )


def _is_embedding(name: str) -> bool:
    last = name.rpartition(".")[2]
    return "embed" in last or last in ("wte", "lm_head")
