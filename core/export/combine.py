"""Several adapters of one base as one: what can be chosen, and which go together. No torch;
core.worker.export.combine does it."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ValidationError

from core.config.fields import Section, field_specs, knob
from core.config.problems import problems_of
from core.errors import ConfigError, ExportError
from core.language import _
from core.models.fingerprint import read_base
from core.models.origin import maker_of, own_base, read_origin
from core.models.trained import FINAL, TrainedModel, adapter_settings, find_trained
from core.workspace import Workspace

# Ways that add up the two matrices of each layer, and so need adapters of one rank.
_OF_ONE_RANK = ("linear", "ties", "dare_linear", "dare_ties", "magnitude_prune")
_PRUNING = [
    name + end
    for name in ("ties", "dare_linear", "dare_ties", "magnitude_prune")
    for end in ("", "_svd")
]


class Way(Section):
    """How adapters are combined; the names are PEFT's."""

    weight: float = knob(1.0, "Weight of this run", level="basic")
    """How much of what this run learned goes in. Below 0 takes it out."""

    combination_type: Literal[
        "cat",
        "linear",
        "svd",
        "ties",
        "ties_svd",
        "dare_linear",
        "dare_linear_svd",
        "dare_ties",
        "dare_ties_svd",
        "magnitude_prune",
        "magnitude_prune_svd",
    ] = knob("cat", "Way of combining", level="basic")
    """`cat` is the exact sum, and as large as all adapters together. `svd` keeps of the sum what
    fits into the largest rank. `linear` adds the factors of adapters of one rank: small and rough.
    `ties`, `dare` and `magnitude_prune` first leave out what is small, or some of it by chance.
    Names that end in `svd` work on whole weights, which takes minutes for a large model."""

    density: float = knob(
        0.5,
        "Share that is kept",
        level="basic",
        when={"combination_type": _PRUNING},
        gt=0,
        le=1,
    )
    """Of what each adapter changes; the rest is left out before they are added."""


WAYS: tuple[str, ...] = typing.get_args(Way.model_fields["combination_type"].annotation)


class Share(Section):
    """Another run that is taken in, and how much of it."""

    run: str
    checkpoint: str = FINAL
    weight: float


@dataclass(frozen=True)
class Combination:
    """The run's own adapter with those of `others`."""

    way: Way
    others: tuple[Share, ...]

    def as_dict(self) -> dict[str, Any]:
        return {**self.way.model_dump(), "others": [one.model_dump() for one in self.others]}

    @property
    def prunes(self) -> bool:
        return self.way.combination_type in _PRUNING

    @property
    def weights(self) -> list[float]:
        return [self.way.weight, *(one.weight for one in self.others)]


def parse_combination(values: Mapping[str, Any] | None) -> Combination | None:
    """What `as_dict` gave; None where no other run is named. Raises ConfigError."""
    given = dict(values or {})
    others = given.pop("others", None)
    if not others:
        return None
    try:
        return Combination(Way(**given), tuple(Share(**one) for one in others))
    except ValidationError as error:
        specs = {spec.path: spec for spec in field_specs(Way)}
        raise ConfigError(problems_of(error, specs)) from error


def find_shares(
    workspace: Workspace, trained: TrainedModel, combination: Combination
) -> list[TrainedModel]:
    """The models of the other runs. Raises ModelError where one is not there, and ExportError for
    the first that does not go with `trained`."""
    found = [find_trained(workspace.run(one.run), one.checkpoint) for one in combination.others]
    every = [trained, *found]
    for one in every:
        if why := why_not_alone(one):
            raise ExportError(
                _("{run} cannot be combined: {reason}", run=one.run.root.name, reason=why),
                _("Only plain LoRA adapters can be combined. Leave it out."),
            )
    for place, one in enumerate(found, 1):
        if (one.run.root, one.folder) in [(e.run.root, e.folder) for e in every[:place]]:
            raise ExportError(
                _("{run} is named twice.", run=one.run.root.name), _("Give it one weight.")
            )
        if why := next(differences(trained, one), ""):
            raise ExportError(
                _(
                    "{other} does not go with {run}: {reason}",
                    other=one.run.root.name,
                    run=trained.run.root.name,
                    reason=why,
                ),
                _("Combine runs that were trained on one base for the same task."),
            )
    if 0 in combination.weights:
        raise ExportError(
            _("A weight of 0 takes nothing of a run."), _("Leave the run out, or give it a weight.")
        )
    _check_ranks(every, combination.way.combination_type)
    return found


def why_not_alone(trained: TrainedModel) -> str:
    """Why an adapter goes with no other."""
    if not trained.is_adapter:
        return _("it trained the weights of its model, there is no adapter.")
    settings = adapter_settings(trained.folder)
    if trained.peft_type != "LORA":
        return _("its adapter is of the kind {kind}.", kind=trained.peft_type)
    if settings.get("use_dora"):
        return _("its adapter is a DoRA, whose magnitudes cannot be added.")
    if settings.get("modules_to_save"):
        names = ", ".join(settings["modules_to_save"])
        return _("it trained whole layers beside the adapter ({names}).", names=names)
    if trained.new_tokens is not None:
        return _("it added tokens to the vocabulary.")
    if settings.get("bias", "none") != "none":
        return _("it trained biases beside the adapter.")
    if not trained.shares_base and not trained.begun:
        return _(
            "its adapter began with a part of the base ({kind}).",
            kind=settings.get("init_lora_weights"),
        )
    return ""


def base_identity(trained: TrainedModel) -> tuple[str, ...]:
    """What two runs on one base have in common."""
    model, origin = trained.config.model, read_origin(trained.run)
    if origin is None or own_base(trained.run) is None:
        return model.model_name_or_path, model.model_revision
    maker = maker_of(origin)
    return model.model_name_or_path, model.model_revision, maker.run, maker.checkpoint


def differences(one: TrainedModel, other: TrainedModel) -> Iterator[str]:
    """Why two adapters that can be combined do not go together."""
    if base_identity(one) != base_identity(other):
        yield _(
            "its base is {other}, not {base}.",
            other=" ".join(base_identity(other)),
            base=" ".join(base_identity(one)),
        )
    bases = read_base(one.run), read_base(other.run)
    if all(bases) and len({str(base["weights"]) for base in bases if base}) > 1:
        yield _("the weights of its base were others than those of {run}.", run=one.run.root.name)
    mine, theirs = one.config.training_method, other.config.training_method
    if mine.makes != theirs.makes:
        yield _("it was trained by {method} for another task.", method=_(theirs.title))


def _check_ranks(every: list[TrainedModel], kind: str) -> None:
    if kind not in _OF_ONE_RANK:
        return
    settings = [adapter_settings(one.folder) for one in every]
    ranks = [(one["r"], one.get("rank_pattern") or {}) for one in settings]
    if any(pattern for _rank, pattern in ranks) or len({rank for rank, _pattern in ranks}) > 1:
        told = ", ".join(
            f"{one.run.root.name}: {rank}{'*' if pattern else ''}"
            for one, (rank, pattern) in zip(every, ranks, strict=True)
        )
        raise ExportError(
            _(
                "{kind} needs adapters of one rank in every layer, and theirs differ ({ranks}).",
                kind=kind,
                ranks=told,
            ),
            _("Take cat, or a way that ends in svd."),
        )
