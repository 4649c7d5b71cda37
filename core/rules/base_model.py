"""What of an adapter's settings does not fit the model it is for, by the model's facts."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from core.config import RunConfig
from core.config.adapter import FROM_BASE, NAMES, TUNERS
from core.errors import Problem, TunesmithError, either
from core.language import _
from core.models.describe import ModelFacts, adapted_modules, describe_model, unknown_modules
from core.models.kinds import kind_in, kind_problem
from core.models.location import local_model
from core.models.trainable import SlowPattern, pattern_fits, trained_names
from core.workspace import Workspace

_MODEL = ("model.model_name_or_path",)
# Below this VeRA's two vectors have little to choose from; its paper takes 256 and more.
_VERA_RANK = 64


def model_problems(workspace: Workspace, config: RunConfig) -> list[Problem]:
    """What keeps the base of a run from learning by its method, as far as its files are here."""
    try:
        folder = local_model(workspace, config.model.model_name_or_path)
    except TunesmithError:
        return []  # said where the model is described
    problem = kind_problem(kind_in(folder), config) if folder else None
    return [problem] if problem else []


def adapter_problems(
    workspace: Workspace, config: RunConfig, *, goes_on: bool = False
) -> list[Problem]:
    """Why the adapter cannot be put on the base of a run as it is set, as far as its files are
    here. Of one that `goes_on` the settings are those that it began with."""
    try:
        folder = local_model(workspace, config.model.model_name_or_path)
        facts = describe_model(folder) if folder else None
    except TunesmithError:
        return []  # said where the model is described
    if not facts or not facts.shapes:
        return []
    begun = goes_on or config.model.start_from == "continue"
    unknown = [] if begun or not _names_are_certain(facts, config) else _unknown(facts, config)
    return [*adapter_misfits(facts, config), *unknown]


def adapter_warnings(facts: ModelFacts, config: RunConfig, steps: int | None) -> list[Problem]:
    """What would train something else than one thinks, beside `adapter_problems`."""
    adapter = config.adapter
    named = facts.shapes and not _names_are_certain(facts, config)
    found = list(_unknown(facts, config)) if named else []
    if adapter.method == "vera" and adapter.r < _VERA_RANK:
        found.append(
            Problem(
                "adapter.r",
                _(
                    "{r} is little for VeRA, whose matrices are random and are not trained: 256 "
                    "learns more and trains hardly more weights.",
                    r=adapter.r,
                ),
                ("adapter.method",),
            )
        )
    kept = adapter.tinit + adapter.tfinal
    if adapter.method == "adalora" and steps is not None and kept >= steps:
        found.append(
            Problem(
                "adapter.tinit",
                _(
                    "tinit and tfinal take {kept} of the {steps} steps of the run: none is left in "
                    "which ranks fall.",
                    kept=kept,
                    steps=steps,
                ),
                ("adapter.tfinal",),
            )
        )
    longest = facts.max_position_embeddings
    if adapter.is_prompt and longest:
        room = longest - adapter.num_virtual_tokens
        if room < config.training.max_length <= longest:
            found.append(
                Problem(
                    "adapter.num_virtual_tokens",
                    _(
                        "{num_virtual_tokens} leave {room} of the {longest} tokens that {model} "
                        "was made for: lower training.max_length to that.",
                        num_virtual_tokens=adapter.num_virtual_tokens,
                        room=room,
                        longest=longest,
                        model=facts.name,
                    ),
                    ("training.max_length",),
                )
            )
    return found


def adapter_misfits(facts: ModelFacts, config: RunConfig) -> Iterator[Problem]:
    adapter = config.adapter
    if adapter.method in ("loha", "lokr", "oft") and facts.is_transposed:
        yield Problem(
            "adapter.method",
            _(
                "{kind} cannot be put on {model}: PEFT does not know its kind of layers "
                "(Conv1D). Train LoRA, AdaLoRA, VeRA or IA3.",
                kind=NAMES[adapter.method],
                model=facts.name,
            ),
            _MODEL,
        )
    starts = adapter.init_lora_weights
    if adapter.method == "lora" and starts in (*FROM_BASE, "eva"):
        rank = int(adapter.r * adapter.eva_rho) if starts == "eva" else adapter.r
        for name, (out, into) in adapted_modules(facts, config).items():
            most = into if starts == "eva" else min(out, into)
            if rank > most:
                yield Problem(
                    "adapter.r",
                    _(
                        "{rank} directions with adapter.init_lora_weights {starts}: {name} of "
                        "{model} has {most}. Lower the rank.",
                        rank=rank,
                        starts=starts,
                        name=name,
                        model=facts.name,
                        most=most,
                    ),
                    ("adapter.init_lora_weights", *_MODEL),
                )
                return
    if adapter.method == "freeze" and not trained_names(adapter, [*facts.shapes, "lm_head.weight"]):
        yield Problem(
            "adapter.freeze_trainable_layers",
            _(
                "nothing of {model} would learn: no weights are in these layers and modules.",
                model=facts.name,
            ),
            ("adapter.freeze_trainable_modules", "adapter.freeze_extra_modules"),
        )


def _names_are_certain(facts: ModelFacts, config: RunConfig) -> bool:
    """Whether the model has in memory the modules that its files name: not where those name
    nothing, where experts are fused as they are loaded, or where a head is put on."""
    return facts.exact and not facts.is_mixture and config.training_method.makes == "writer"


def _unknown(facts: ModelFacts, config: RunConfig) -> Iterator[Problem]:
    """Settings that name what is not there, so that they would do nothing."""
    adapter = config.adapter
    named: dict[str, list[str]] = {}
    if adapter.method in TUNERS:
        targets = adapter.target_modules
        named["adapter.target_modules"] = targets if isinstance(targets, list) else []
        named["adapter.modules_to_save"] = adapter.modules_to_save
        if adapter.method != "vera":
            named["adapter.exclude_modules"] = adapter.exclude_modules
    if adapter.method == "freeze":
        inside = adapter.freeze_trainable_modules
        named["adapter.freeze_trainable_modules"] = [name for name in inside if name != "all"]
        named["adapter.freeze_extra_modules"] = adapter.freeze_extra_modules
    for path, names in named.items():
        for name in unknown_modules(facts, names):
            mend = _mend(sorted(facts.module_names | {"lm_head"}), facts.linear_modules, name)
            yield Problem(
                path,
                _("{model} has no module {name}. {mend}", model=facts.name, name=name, mend=mend),
                _MODEL,
            )
    if adapter.method not in ("lora", "loha", "lokr"):
        return
    modules = list(adapted_modules(facts, config))
    names = sorted({module.rpartition(".")[2] for module in modules})
    # The files of a model that was saved without its head leave the first part of each name out.
    whole = [*modules, *(f"model.{module}" for module in modules)]
    for path, patterns in (
        ("adapter.rank_pattern", adapter.rank_pattern),
        ("adapter.alpha_pattern", adapter.alpha_pattern),
    ):
        for pattern in patterns:
            try:
                fits = any(pattern_fits(pattern, module) for module in whole)
            except SlowPattern as error:
                why = _("{pattern}: {why}", pattern=pattern, why=error.args[0])
                yield Problem(path, why, _MODEL)
            except ValueError:
                continue  # said by the rules for the adapter alone
            else:
                if not fits:
                    why = _(
                        "{pattern} fits no module of {model} with an adapter. {mend}",
                        pattern=pattern,
                        model=facts.name,
                        mend=_mend(names, names, pattern),
                    )
                    yield Problem(path, why, _MODEL)


def _mend(known: list[str], usual: list[str], name: str) -> str:
    near = difflib.get_close_matches(name.rpartition(".")[2], known, n=2, cutoff=0.6)
    if near:
        return _("Did you mean {near}?", near=either(near))
    if not usual:
        return _("Take it out.")
    return _("Take one of {usual}, or take it out.", usual=", ".join(usual))
