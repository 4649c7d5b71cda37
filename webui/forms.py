"""The settings form, generated from the declared fields (core.config.SPECS).

Each field becomes one control with its label and its help sentence. What the control holds is
text, a choice or a tick; `read` gives it back to core's own parser, so that the form understands
what the command line understands. What is shown, what differs from the preset and what is wrong
reaches the browser as one value (`marks`), and page.js puts it at the fields.

A handler that sets the controls itself sets them when its answer arrives, which on a busy machine
is seconds after the click. With `Filling` the answer is only a text, and the browser
(assets/page.js) takes over what is still as it was at the click.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
from core.methods import METHODS
from core.rules import parse_config
from core.rules.command import apply_overrides

# Titles of the folds: the group of a field, or its section where it has none.
FOLD_TITLES = {
    "": "Run",
    "model": "Model",
    "data": "Data",
    "adapter": "Adapter and quantization",
    "training": "Steps and batches",
    "Schedule": "Schedule",
    "Optimizer": "Optimizer",
    "Machine": "Precision and memory",
    "Randomness": "Randomness",
    "Further": "Further settings of TRL",
    "classification": "Labels and their loss",
    "preference": "Preference",
    "reinforcement": "Answers and rewards",
    "Writing": "Writing of the answers",
    "text": "Plain text",
    "vocabulary": "New tokens",
    "evaluation": "Evaluation while training",
    "tracking": "Checkpoints and logging",
    "Trackers": "Trackers",
}
# Filled in when a run starts; shown, but not for a person to change.
READ_ONLY = frozenset({"data.dataset_fingerprint"})
# Choices that fit beside each other; more become a list.
MOST_BUTTONS = 4
_WORDS = {"lora": "LoRA", "none": "none", "lora_only": "LoRA only", "no": "never"}


# How the list of optimizers names each: with its group.
OPTIMIZER_LABELS = {optimizer.name: optimizer.label for optimizer in OPTIMIZERS.values()}


_SPECIAL_WORDS = {
    "adapter.method": {
        "lora": "LoRA",
        "adalora": "AdaLoRA (ranks by importance)",
        "loha": "LoHa (products of two LoRAs)",
        "lokr": "LoKr (Kronecker products)",
        "vera": "VeRA (vectors between shared matrices)",
        "oft": "OFT (rotations)",
        "ia3": "IA3 (one scale a feature)",
        "prompt_tuning": "Prompt tuning (virtual words)",
        "prefix_tuning": "Prefix tuning (virtual keys and values)",
        "freeze": "Some layers of the model (freeze)",
        "none": "none (full)",
    },
    "adapter.init_lora_weights": {
        "eva": "EVA",
        "pissa": "PiSSA",
        "olora": "OLoRA",
        "loftq": "LoftQ",
    },
    "adapter.prompt_tuning_init": {
        "RANDOM": "random numbers",
        "SAMPLE_VOCAB": "random words",
        "TEXT": "a text",
    },
    "method": {method.name: method.title for method in METHODS.values()},
    "classification.problem_type": {
        "single_label_classification": "one",
        "multi_label_classification": "several",
    },
    "classification.loss": {"cross_entropy": "cross entropy"},
    "data.learn": {
        "answers": "every answer",
        "last_answer": "the last answer",
        "marked": "answers that are marked",
    },
    "data.learn_thoughts": {"not_empty": "all but empty ones", "none": "none (only read)"},
    "evaluation.eval_strategy": {"no": "never", "steps": "by steps", "epoch": "each epoch"},
    "tracking.report_to": TRACKERS,
    "training.optim": OPTIMIZER_LABELS,
    "tracking.save_strategy": {"no": "never", "steps": "by steps", "epoch": "each epoch"},
}


@dataclass(frozen=True)
class Form:
    """The controls by the dotted path of their field."""

    fields: dict[str, Component]
    marks: gr.HTML

    def gather(self, data: Mapping[Component, Any]) -> tuple[dict[str, Any], tuple[Problem, ...]]:
        """Every setting that can be read, by dotted path, and what could not be read."""
        found: dict[str, Any] = {}
        problems: list[Problem] = []
        for spec in SPECS:
            try:
                found[spec.path] = read(spec, data[self.fields[spec.path]])
            except ConfigError as error:
                problems += error.problems
        return found, tuple(problems)

    def config(self, data: Mapping[Component, Any]) -> RunConfig:
        """The configuration in the form. Raises ConfigError with every problem."""
        values, problems = self.gather(data)
        if problems:
            raise ConfigError(problems)
        return parse_config(nest(values))

    def show(self, config: RunConfig) -> dict[Component, Any]:
        """What each control shows for `config`, for a handler's return value."""
        values = config.values()
        return {self.fields[spec.path]: write(spec, values[spec.path]) for spec in SPECS}


def marks_box(form: str = "") -> gr.HTML:
    """Hands the browser what `marks` gives; nothing of it is seen. Each form of the page has a
    name of its own."""
    return gr.HTML(
        value={"hidden": [], "errors": {}, "changed": {}, "folds": {}},
        html_template="",
        js_on_load=f"const mark = () => tunesmith.markFields(props.value, '{form}'); mark(); "
        "watch('value', mark);",
        elem_classes="no-space",
        apply_default_css=False,
    )


def marks(
    current: Mapping[str, Any], preset: Mapping[str, Any], problems: tuple[Problem, ...] = ()
) -> dict[str, Any]:
    """The value of `marks_box`: fields that do not matter, differ from the preset, or are wrong."""
    errors: dict[str, str] = {}
    for problem in problems:
        errors.setdefault(problem.field, _sentence(problem.message))
    changed = {
        spec.path: write_text(preset[spec.path]).replace("\n", ", ") or "empty"
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
        "folds": {
            fold_id(key): _fold_note(specs, hidden, changed, errors)
            for key, specs in folds().items()
        },
    }


def _sentence(text: str) -> str:
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


def _fold_note(
    specs: list[FieldSpec],
    hidden: Sequence[str],
    changed: Mapping[str, str],
    errors: Mapping[str, str],
) -> dict[str, Any]:
    """What stands beside a fold's title while it is closed, and whether nothing is in it."""
    wrong = sum(spec.path in errors for spec in specs)
    differing = sum(spec.path in changed for spec in specs)
    text = f"{wrong} to mend" if wrong else f"{differing} changed" if differing else ""
    empty = all(spec.path in hidden for spec in specs)
    return {"text": text, "wrong": bool(wrong), "empty": empty}


def build(
    values: Mapping[str, Any],
    choices: Mapping[str, list[Any]],
    beside: Mapping[str, Callable[[], None]] | None = None,
    after_basic: Callable[[dict[str, Component]], None] = lambda fields: None,
) -> Form:
    """Every control, basic ones first and the rest in folds, in the current layout.

    `values` are the first values by path; `choices` gives the choices of a field whose choices are
    not declared (base models, data sets, modules). `beside` builds what else belongs into a fold,
    or below a field of one,
    `after_basic` what stands between the basic fields, which it is given, and the folds.
    """
    fields: dict[str, Component] = {}
    with gr.Column(elem_classes="settings"):
        for spec in (spec for spec in SPECS if spec.level == "basic"):
            fields[spec.path] = control(spec, values[spec.path], choices.get(spec.path))
    after_basic(fields)
    for key, specs in folds().items():
        title = FOLD_TITLES.get(key, key)
        with (
            gr.Accordion(title, open=False, elem_classes="fold", elem_id=fold_id(key)),
            gr.Column(elem_classes="settings"),
        ):
            for spec in specs:
                fields[spec.path] = control(spec, values[spec.path], choices.get(spec.path))
                if beside and spec.path in beside:
                    beside[spec.path]()
            if beside and key in beside:
                beside[key]()
    return Form(fields, marks_box())


def setting_label(path: str) -> str:
    """How the form names a setting; what is no setting keeps its path."""
    spec = SPEC_BY_PATH.get(path)
    return spec.label if spec else path


def element_id(path: str) -> str:
    return "field-" + path.replace(".", "-")


def fold_id(key: str) -> str:
    return "fold-" + (key or "run").lower()


def control(spec: FieldSpec, value: Any, choices: list[Any] | None = None) -> Component:
    """The control of one field, holding `value`."""
    common: dict[str, Any] = {
        "label": f"{spec.label} ({spec.unit})" if spec.unit else spec.label,
        "info": spec.help,
        "elem_id": element_id(spec.path),
        "elem_classes": ["field", f"field-{spec.kind}"],
        "value": write(spec, value),
        "interactive": spec.path not in READ_ONLY,
    }
    if spec.kind == "bool" and not spec.auto:
        return gr.Checkbox(**common)
    if spec.kind == "bool":
        return gr.Radio([("auto", "auto"), ("on", "on"), ("off", "off")], **common)
    if spec.kind == "choice":
        if len(spec.choices) <= MOST_BUTTONS:
            return gr.Radio(options(spec), **common)
        return gr.Dropdown(options(spec), filterable=True, **common)
    if spec.kind == "list" and spec.choices:
        return gr.CheckboxGroup(options(spec), **common)
    if spec.kind == "list" and not spec.free_text:
        known = [*spec.words, *(choices or [])]
        return gr.Dropdown(known, multiselect=True, allow_custom_value=True, **common)
    if choices is not None or spec.kind == "int" and spec.auto:
        known = choices if choices is not None else ["auto", "1", "2", "4", "8", "16", "32"]
        return gr.Dropdown(known, allow_custom_value=True, filterable=True, **common)
    long = spec.kind in ("list", "records", "dict") or spec.path == "data.system_prompt"
    return gr.Textbox(lines=2 if long else 1, max_lines=8, placeholder=_placeholder(spec), **common)


def options(spec: FieldSpec) -> list[tuple[str, Any]]:
    """What a field may be, each with the word for it."""
    return [(_word(spec, choice), choice) for choice in spec.choices]


def _word(spec: FieldSpec, choice: Any) -> str:
    words = {**_WORDS, **_SPECIAL_WORDS.get(spec.path, {})}
    return words.get(str(choice), str(choice))


def _placeholder(spec: FieldSpec) -> str:
    if spec.kind in ("list", "records"):
        return "one on each line"
    if spec.kind == "dict":
        return "key: value, one on each line"
    return "none" if spec.optional else ""


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
        found["training.optim"] = optimizer.sentence
        found["training.optim_args"] = _taken(optimizer.name, optimizer.arguments)
    if schedule:
        found["training.lr_scheduler_type"] = schedule.sentence
        found["training.lr_scheduler_kwargs"] = _taken(schedule.name, schedule.arguments)
    return {path: text for path, text in found.items() if text}


def _taken(name: str, arguments: Mapping[str, Argument]) -> str:
    if not arguments:
        return ""
    parts = [f"{argument} ({known.allowed})" for argument, known in arguments.items()]
    return f"{name} takes {', '.join(parts)}."


class Filling:
    """Built beside the form; its handlers give `values` among what they answer."""

    def __init__(self, form: Form) -> None:
        self.form = form
        self.wanted = gr.Textbox(label="Values for the form", visible="hidden")

    def values(self, config: RunConfig) -> dict[Component, Any]:
        """What the form is to show, in the order of its fields."""
        shown = self.form.show(config)
        return {self.wanted: json.dumps([shown[field] for field in self.form.fields.values()])}

    def wire(
        self,
        listener: Callable[..., Any],
        handler: Callable[..., Any],
        inputs: set[Component],
        outputs: set[Component] = frozenset(),
    ) -> Any:
        """Answers `listener`, such as `button.click`; gives the event after which the form is
        filled in."""
        quiet: dict[str, Any] = {"show_progress": "hidden"}
        fields = list(self.form.fields.values())
        listener(None, fields, None, js="(...held) => tunesmith.asked(held)", **quiet)
        answered = listener(handler, inputs, {self.wanted, *outputs}, **quiet)
        return answered.success(
            None,
            [self.wanted, *fields],
            fields,
            js="(wanted, ...held) => tunesmith.filled(wanted, held)",
            **quiet,
        )
