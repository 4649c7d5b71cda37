"""The settings forms, generated from declared fields (core.config.fields.FieldSpec).

A form is HTML of our own (assets/form.js draws it) in one component for each part of it: a
component of Gradio for each of 250 fields took the browser five seconds. What a control holds is
text, a choice or a tick; `read` gives it back to core's own parser, so that the form understands
what the command line understands.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import gradio as gr
import yaml
from gradio.components import Component

from core.config import SPEC_BY_PATH, SPECS, FieldSpec, RunConfig, nest
from core.config.arguments import Argument
from core.config.optimizers import OPTIMIZERS
from core.config.schedules import SCHEDULES
from core.config.tracking import TITLES as TRACKERS
from core.config.yaml_file import parse_yaml
from core.errors import ConfigError, Problem
from core.language import N_, _
from core.methods import METHODS
from core.rules import parse_config
from core.rules.command import apply_overrides
from webui.context import QUIET, unseen

# Titles of the folds: the group of a field, or its section where it has none.
FOLD_TITLES = {
    "": N_("Run"),
    "model": N_("Model"),
    "data": N_("Data"),
    "adapter": N_("Adapter and quantization"),
    "training": N_("Steps and batches"),
    "Schedule": N_("Schedule"),
    "Optimizer": N_("Optimizer"),
    "Machine": N_("Precision and memory"),
    "Randomness": N_("Randomness"),
    "Further": N_("Further settings of TRL"),
    "classification": N_("Labels and their loss"),
    "preference": N_("Preference"),
    "reinforcement": N_("Answers and rewards"),
    "Writing": N_("Writing of the answers"),
    "text": N_("Plain text"),
    "vocabulary": N_("New tokens"),
    "evaluation": N_("Evaluation while training"),
    "tracking": N_("Checkpoints and logging"),
    "Trackers": N_("Trackers"),
    "Hugging Face Hub": N_("Hugging Face Hub"),
}
# Filled in when a run starts; shown, but not for a person to change.
READ_ONLY = frozenset({"data.dataset_fingerprint"})
# Choices that fit beside each other; more become a list.
MOST_BUTTONS = 4
_WORDS = {
    "auto": N_("auto"),
    "all": N_("all"),
    "lora": "LoRA",
    "none": N_("none"),
    "lora_only": N_("LoRA only"),
    "no": N_("never"),
}


_SPECIAL_WORDS: dict[str, Mapping[str, str]] = {
    "adapter.method": {
        "lora": "LoRA",
        "adalora": N_("AdaLoRA (ranks by importance)"),
        "loha": N_("LoHa (products of two LoRAs)"),
        "lokr": N_("LoKr (Kronecker products)"),
        "vera": N_("VeRA (vectors between shared matrices)"),
        "oft": N_("OFT (rotations)"),
        "ia3": N_("IA3 (one scale a feature)"),
        "prompt_tuning": N_("Prompt tuning (virtual words)"),
        "prefix_tuning": N_("Prefix tuning (virtual keys and values)"),
        "freeze": N_("Some layers of the model (freeze)"),
        "none": N_("none (full)"),
    },
    "adapter.init_lora_weights": {
        "eva": "EVA",
        "pissa": "PiSSA",
        "olora": "OLoRA",
        "loftq": "LoftQ",
    },
    "adapter.prompt_tuning_init": {
        "RANDOM": N_("random numbers"),
        "SAMPLE_VOCAB": N_("random words"),
        "TEXT": N_("a text"),
    },
    "method": {method.name: method.title for method in METHODS.values()},
    "classification.problem_type": {
        "single_label_classification": N_("one"),
        "multi_label_classification": N_("several"),
    },
    "classification.loss": {"cross_entropy": N_("cross entropy")},
    "sweep.search": {"grid": N_("grid"), "random": N_("random"), "tpe": "TPE (Optuna)"},
    "data.learn": {
        "answers": N_("every answer"),
        "last_answer": N_("the last answer"),
        "marked": N_("answers that are marked"),
        "everything": N_("everything"),
    },
    "data.learn_thoughts": {"not_empty": N_("all but empty ones"), "none": N_("none (only read)")},
    "evaluation.eval_strategy": {
        "no": N_("never"),
        "steps": N_("by steps"),
        "epoch": N_("each epoch"),
    },
    "tracking.report_to": TRACKERS,
    "tracking.hub_strategy": {"every_save": N_("at every save"), "end": N_("at the end")},
    "tracking.save_strategy": {
        "no": N_("never"),
        "steps": N_("by steps"),
        "epoch": N_("each epoch"),
    },
}


@dataclass(frozen=True)
class Group:
    """Fields under each other; with a title, in a fold."""

    specs: Sequence[FieldSpec]
    title: str = ""
    id: str = ""


class Form:
    """Fields in the browser, in one or several parts of the page.

    A part is one component, whose value is what its controls hold by the path of their field.
    Handlers get `parts` and read them with `held`; they answer with `fill` and `mark`. `render`
    comes where it is always drawn, `wire` after the last part: what is filled in is taken over by
    itself and changes `taken`.
    """

    def __init__(
        self,
        name: str,
        values: Mapping[str, Any],
        choices: Mapping[str, list[Any]] | None = None,
        announced: Sequence[str] = (),
    ) -> None:
        """`values` are the first ones by path; `choices` gives the choices of a field whose choices
        are not declared (base models, data sets, modules). A change of a field that is `announced`
        is told as `select` too."""
        self.name, self.choices, self.announced = name, dict(choices or {}), list(announced)
        self._values = values
        self.specs: dict[str, FieldSpec] = {}
        self.parts: list[gr.HTML] = []
        self.marks = unseen(
            {},
            f"const mark = () => tunesmith.form.mark('{name}', props.value); mark(); "
            "watch('value', mark);",
        )
        self.filled, self.taken = unseen(""), unseen("")

    def part(self, groups: Sequence[Group]) -> None:
        """The fields of `groups`, in the current layout."""
        specs = {spec.path: spec for group in groups for spec in group.specs}
        self.specs |= specs
        shown = [
            {"title": one.title, "id": one.id, "fields": [self._drawn(spec) for spec in one.specs]}
            for one in groups
        ]
        part = gr.HTML(
            {"values": {p: write(s, self._values[p]) for p, s in specs.items()}, "at": 0},
            html_template="",
            js_on_load=f"tunesmith.form.mount('{self.name}', element, props, trigger, watch);",
            elem_classes="form-part",
            apply_default_css=False,
            # One text: what is an object the browser watches and copies whole at each event.
            drawn=json.dumps(
                {
                    "groups": shown,
                    "choices": {path: self._offered(spec) for path, spec in specs.items()},
                    "announced": self.announced,
                }
            ),
        )
        self.parts.append(part)

    def _offered(self, spec: FieldSpec) -> list[Any]:
        """What the list of a text box offers before anything is typed."""
        known = self.choices.get(spec.path)
        if known is None and spec.kind == "int" and spec.auto:
            known = [(_("auto"), "auto"), "1", "2", "4", "8", "16", "32"]
        return [*(word for word in spec.words if word not in (known or [])), *(known or [])]

    def _drawn(self, spec: FieldSpec) -> dict[str, Any]:
        """A field for form.js, without what is empty."""
        choices = [(text, json.dumps(value)) for text, value in options(spec)]
        if spec.kind == "bool" and spec.auto:
            choices = [(_(word), json.dumps(word)) for word in (N_("auto"), N_("on"), N_("off"))]
        long = spec.kind in ("list", "records", "dict") or spec.path == "data.system_prompt"
        drawn = {
            "path": spec.path,
            "kind": spec.kind,
            "control": self._control(spec),
            "label": _label(spec),
            "help": _(spec.help),
            "options": choices,
            "placeholder": _placeholder(spec),
            "rows": 24 if spec.path == "push.card" else 2 if long else 0,
            "fixed": spec.path in READ_ONLY,
        }
        return {key: value for key, value in drawn.items() if value}

    def _control(self, spec: FieldSpec) -> str:
        """How a field is drawn: check, radio, select, checks, many, combo or text."""
        if spec.kind == "bool":
            return "radio" if spec.auto else "check"
        if spec.kind == "choice":
            few = len(spec.choices) <= MOST_BUTTONS and spec.path not in self.choices
            return "radio" if few else "select"
        if spec.kind == "list" and not spec.free_text:
            return "checks" if spec.choices else "many"
        listed = spec.path in self.choices or spec.kind == "int" and spec.auto
        return "combo" if listed else "text"

    # -- what a handler reads and answers

    @property
    def edits(self) -> list[Any]:
        """The events of a person's edit."""
        return [part.input for part in self.parts]

    def held(self, data: Mapping[Component, Any]) -> dict[str, Any]:
        """What the controls hold, by the path of their field."""
        return {path: held for part in self.parts for path, held in data[part]["values"].items()}

    def gather(self, data: Mapping[Component, Any]) -> tuple[dict[str, Any], tuple[Problem, ...]]:
        """Every setting that can be read, by dotted path, and what could not be read."""
        held = self.held(data)
        found: dict[str, Any] = {}
        problems: list[Problem] = []
        for path, spec in self.specs.items():
            try:
                found[path] = read(spec, held[path])
            except ConfigError as error:
                problems += error.problems
        return found, tuple(problems)

    def config(self, data: Mapping[Component, Any]) -> RunConfig:
        """The configuration in the form. Raises ConfigError with every problem."""
        values, problems = self.gather(data)
        if problems:
            raise ConfigError(problems)
        return parse_config(nest(values))

    def open_with(self, marked: Mapping[Component, Any]) -> None:
        """The page opens with what `mark` gave."""
        self.marks.value = marked[self.marks]

    def mark(self, marks: Mapping[str, Any]) -> dict[Component, Any]:
        """Shows what `marks` gives."""
        return {self.marks: dict(marks)}

    def fill(
        self,
        values: Mapping[str, Any] | None = None,
        choices: Mapping[str, Sequence[Any]] | None = None,
        data: Mapping[Component, Any] | None = None,
        held: Mapping[str, Any] | None = None,
        preset: str = "",
        kept: Sequence[str] = (),
        at: int | None = None,
    ) -> dict[Component, Any]:
        """What the form is to hold from now on, by path, and to offer: `values`, and what is
        `held` as controls hold it. With `data`, which the handler was given, or the number of a
        change as `at`, what a person changed meanwhile stays. `values` that are those of a `preset`
        are no draft, but for those that are `kept` from before."""
        said: dict[str, Any] = {
            "values": {p: write(self.specs[p], v) for p, v in (values or {}).items()}
            | dict(held or {}),
            "choices": {path: list(offered) for path, offered in (choices or {}).items()},
            "preset": preset,
            "kept": list(kept),
            "asked": uuid4().hex,
            "at": at if data is None else max(data[part]["at"] for part in self.parts),
        }
        return {self.filled: json.dumps(said)}

    def render(self) -> None:
        for one in (self.marks, self.filled, self.taken):
            one.render()

    def wire(self) -> None:
        self.take(self.filled.change)

    def take(self, event: Callable[..., Any]) -> Any:
        """Takes over what was filled in when `event` happens; gives the event after that."""
        return event(
            None,
            [self.filled, *self.parts],
            [self.taken, *self.parts],
            js=f"(...given) => tunesmith.form.fill('{self.name}', ...given)",
            trigger_mode="multiple",
            **QUIET,
        )


def _label(spec: FieldSpec) -> str:
    if not spec.unit:
        return _(spec.label)
    return _("{label} ({unit})", label=_(spec.label), unit=_(spec.unit))


def marks(
    current: Mapping[str, Any], preset: Mapping[str, Any], problems: tuple[Problem, ...] = ()
) -> dict[str, Any]:
    """For `Form.mark`: fields that do not matter, differ from the preset, or are wrong."""
    errors: dict[str, str] = {}
    for problem in problems:
        errors.setdefault(problem.field, sentence(_(problem.message)))
    changed = {
        spec.path: said(preset[spec.path]) or _("empty")
        for spec in SPECS
        if spec.path in current and current[spec.path] != preset[spec.path]
        if spec.path not in READ_ONLY and spec.path != "name"
    }
    hidden = [s.path for s in SPECS if not s.shown(current) and s.path not in errors]
    return {
        "hidden": hidden,
        "errors": errors,
        "notes": choice_notes(current),
        "changed": changed,
    }


def sentence(text: str) -> str:
    """With a capital letter, unless it begins with a name such as adamw_torch or training.seed."""
    first = text.partition(" ")[0]
    is_name = any(sign in first.rstrip(".,:") for sign in "_./")
    return text if is_name else text[:1].upper() + text[1:]


def folds() -> dict[str, list[FieldSpec]]:
    """The advanced fields by the key of their fold, in the order of declaration."""
    found: dict[str, list[FieldSpec]] = {}
    for spec in (spec for spec in SPECS if spec.level != "basic"):
        found.setdefault(spec.group or spec.section, []).append(spec)
    return found


def basics() -> Group:
    """The fields of Configure that stand before the folds."""
    return Group([spec for spec in SPECS if spec.level == "basic"])


def in_folds() -> list[Group]:
    """The others, each group of them in a fold."""
    return [
        Group(specs, _(FOLD_TITLES.get(key, key)), fold_id(key)) for key, specs in folds().items()
    ]


def setting_label(path: str) -> str:
    """How the form names a setting; what is no setting keeps its path."""
    spec = SPEC_BY_PATH.get(path)
    return _(spec.label) if spec else path


def element_id(path: str) -> str:
    return "field-" + path.replace(".", "-")


def fold_id(key: str) -> str:
    return "fold-" + (key or "run").lower()


def options(spec: FieldSpec) -> list[tuple[str, Any]]:
    """What a field may be, each with the word for it."""
    return [(_word(spec, choice), choice) for choice in spec.choices]


def _word(spec: FieldSpec, choice: Any) -> str:
    if spec.path == "training.optim":
        return _(OPTIMIZERS[choice].label)
    word = _SPECIAL_WORDS.get(spec.path, {}).get(str(choice)) or _WORDS.get(str(choice))
    return _(word) if word else str(choice)


def _placeholder(spec: FieldSpec) -> str:
    if spec.kind == "list" and not spec.free_text:
        return _("type one, Enter adds it")
    if spec.kind in ("list", "records"):
        return _("one on each line")
    if spec.kind == "dict":
        return _("key: value, one on each line")
    return _("none") if spec.optional else ""


def write(spec: FieldSpec, value: Any) -> Any:
    """What the control of `spec` holds for a config's `value`."""
    if spec.kind == "bool":
        return value if not spec.auto else {True: "on", False: "off"}.get(value, value)
    if spec.kind == "choice":
        return value
    if spec.kind == "list" and not spec.free_text:
        return [value] if isinstance(value, str) else list(value)
    return write_text(value)


def write_text(value: Any) -> str:
    """A value as a person would type it: 0.0002 -> "2e-4", None -> "", a list by lines."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, list):
        return "\n".join(_line(item) for item in value)
    if isinstance(value, dict):
        return yaml.safe_dump(value, sort_keys=False, allow_unicode=True).strip() if value else ""
    return str(value)


def said(value: Any) -> str:
    """A value as a person reads it, on one line."""
    text = write_text(value).replace("\n", ", ")
    return _(text) if isinstance(value, bool) or value == "auto" else text


def _line(item: Any) -> str:
    """One entry of a list by lines; what would not come back as it is stands as JSON."""
    if not isinstance(item, str):
        return json.dumps(item, ensure_ascii=False)
    plain = item == item.strip() and item and "\n" not in item and not item.startswith('"')
    return item if plain else json.dumps(item, ensure_ascii=False)


def _unline(line: str) -> str:
    if line.startswith('"'):
        try:
            return str(json.loads(line))
        except ValueError:
            return line
    return line


def _number(value: float) -> str:
    if value == int(value) and abs(value) < 1e15:
        return str(int(value))
    plain = repr(value)
    mantissa, _, exponent = f"{value:e}".partition("e")
    if abs(value) >= 1e-3 and "e" not in plain:
        return plain
    short = f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    return short if float(short) == value else plain


def read(spec: FieldSpec, held: Any) -> Any:
    """The config's value for what the control holds; core's parser reads what was typed.

    Raises ConfigError naming the field; bounds are checked later, by `parse_config`.
    """
    if spec.kind == "bool":
        return {"on": True, "off": False}.get(held, held) if spec.auto else bool(held)
    if spec.kind == "choice":
        return held
    if spec.kind == "list" and not spec.free_text:
        items = [str(item).strip() for item in held or [] if str(item).strip()]
        # A word such as all-linear stands alone: beside names, the names are what is meant.
        return [item for item in items if item not in spec.words] or (items[0] if items else [])
    text = "" if held is None else str(held)
    if spec.kind == "list":
        return [_unline(line.strip()) for line in text.splitlines() if line.strip()]
    if spec.kind == "records":
        lines = [f"--{spec.path}={line.strip()}" for line in text.splitlines() if line.strip()]
        return apply_overrides({}, lines)[spec.path] if lines else []
    if spec.kind == "dict":
        return parse_yaml(text, spec.path) if text.strip() else {}
    if spec.kind == "str":
        return text if spec.path == "data.system_prompt" else text.strip()
    return apply_overrides({}, [f"--{spec.path}={text.strip()}"])[spec.path]


def choice_notes(values: Mapping[str, Any]) -> dict[str, str]:
    """A sentence by the path of a setting, for the values that the form has now."""
    optimizer = OPTIMIZERS.get(str(values.get("training.optim")))
    schedule = SCHEDULES.get(str(values.get("training.lr_scheduler_type")))
    found: dict[str, str] = {}
    if optimizer:
        found["training.optim"] = _(optimizer.sentence)
        found["training.optim_args"] = _taken(optimizer.name, optimizer.arguments)
    if schedule:
        found["training.lr_scheduler_type"] = _(schedule.sentence)
        found["training.lr_scheduler_kwargs"] = _taken(schedule.name, schedule.arguments)
    return {path: text for path, text in found.items() if text}


def _taken(name: str, arguments: Mapping[str, Argument]) -> str:
    if not arguments:
        return ""
    parts = [
        _("{name} ({allowed})", name=argument, allowed=known.allowed)
        for argument, known in arguments.items()
    ]
    return _("{name} takes {arguments}.", name=name, arguments=", ".join(parts))
