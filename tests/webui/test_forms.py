"""The form is the settings: a field that is missing, changes its value on the way, or hides its
error would make a person train something else than what the page shows."""

from __future__ import annotations

import json
from typing import Any

import gradio as gr
import pytest

from core.config import SPEC_BY_PATH, SPECS, FieldSpec, RunConfig
from core.errors import ConfigError, Problem
from core.rules import parse_config
from core.rules.presets import list_presets
from tests.webui.fakes import filled, held
from webui import forms

PRESETS = list_presets()
ODD: dict[str, list[Any]] = {
    "name": ["", "a name, with: punctuation"],
    "adapter.target_modules": ["all-linear", ["q_proj", "v_proj"]],
    "adapter.modules_to_save": [[], ["embed_tokens"]],
    "training.per_device_train_batch_size": ["auto", 3],
    "training.gradient_checkpointing": ["auto", True, False],
    "training.learning_rate": [1e-8, 0.00025, 1.0, 3.3e-5],
    "training.lr_scheduler_kwargs": [{}, {"num_cycles": 2, "min_lr": 1e-6, "deep": {"a": [1]}}],
    "training.neftune_noise_alpha": [None, 5.0],
    "training.data_seed": [None, 7],
    "evaluation.sample_prompts": [[], ["one", "two\nlines", '"quoted"', " kept spaces "]],
    "data.system_prompt": ["", "Two\nlines. "],
    "tracking.save_total_limit": [None, 2],
}
VALUES = [(spec, spec.default) for spec in SPECS] + [
    (SPEC_BY_PATH[path], value) for path, values in ODD.items() for value in values
]


@pytest.fixture(scope="module")
def form() -> forms.Form:
    with gr.Blocks():
        form = forms.Form("run", RunConfig().values(), {"model.model_name_or_path": ["a"]})
        form.part([forms.basics()])
        form.part(forms.in_folds())
    return form


def test_every_setting_has_a_control_with_its_label_and_help(form: forms.Form) -> None:
    assert set(form.specs) == set(SPEC_BY_PATH)
    groups = [one for part in form.parts for one in json.loads(part.props["drawn"])["groups"]]
    drawn = {field["path"]: field for group in groups for field in group["fields"]}
    for spec in SPECS:
        assert spec.label in drawn[spec.path]["label"]
        assert drawn[spec.path]["help"] == spec.help


def test_basic_settings_are_few_and_the_rest_stands_in_a_titled_fold() -> None:
    basic = [spec for spec in SPECS if spec.level == "basic"]
    folded = [spec for specs in forms.folds().values() for spec in specs]
    assert sum(spec.shown(RunConfig().values()) for spec in basic) <= 12
    assert {spec.path for spec in basic + folded} == set(SPEC_BY_PATH)
    assert set(forms.folds()) <= set(forms.FOLD_TITLES)


@pytest.mark.parametrize(
    ("spec", "value"), VALUES, ids=[f"{spec.path}={value}" for spec, value in VALUES]
)
def test_a_value_comes_back_from_its_control_as_it_went_in(spec: FieldSpec, value: Any) -> None:
    """As JSON, as the browser gets and sends it."""
    sent = json.dumps(forms.write(spec, value))
    assert forms.read(spec, json.loads(sent)) == value


@pytest.mark.parametrize("preset", PRESETS, ids=[preset.name for preset in PRESETS])
def test_every_preset_survives_the_form(form: forms.Form, preset: Any) -> None:
    config = preset.config()
    assert form.config(held(form, filled(form, form.fill(config.values())))) == config


def test_what_cannot_be_read_is_named_by_field(form: forms.Form) -> None:
    typed = {
        "training.learning_rate": "fast",
        "training.lr_scheduler_kwargs": "a: [1",
        "adapter.r": "0",
    }
    with pytest.raises(ConfigError) as raised:
        form.config(held(form, typed))
    assert {"training.lr_scheduler_kwargs"} <= {p.field for p in raised.value.problems}
    values, _ = form.gather(held(form, typed))
    with pytest.raises(ConfigError) as raised:
        parse_config(values)
    assert {p.field for p in raised.value.problems} == {"training.learning_rate", "adapter.r"}


def test_fields_that_do_not_matter_are_hidden_and_changes_are_marked() -> None:
    preset = RunConfig().values()
    current = {**preset, "adapter.method": "none", "training.seed": 7}
    marks = forms.marks(current, preset)
    assert {"adapter.r", "adapter.lora_alpha"} <= set(marks["hidden"])
    assert marks["changed"] == {"adapter.method": "lora", "training.seed": "42"}


def test_a_wrong_field_is_shown_even_when_it_would_be_hidden() -> None:
    """Else nobody finds what keeps the run from starting."""
    values = {**RunConfig().values(), "adapter.method": "none"}
    marks = forms.marks(values, values, (Problem("adapter.lora_alpha", "must be more."),))
    assert "adapter.lora_alpha" not in marks["hidden"]
    assert marks["errors"] == {"adapter.lora_alpha": "Must be more."}


def test_names_of_modules_win_over_the_word_that_takes_them_all() -> None:
    """Ticking q_proj beside the preset all-linear must not ask for a module of that name."""
    spec = SPEC_BY_PATH["adapter.target_modules"]
    assert forms.read(spec, ["all-linear", "q_proj"]) == ["q_proj"]
    assert forms.read(spec, ["all-linear"]) == "all-linear"
    assert forms.read(spec, []) == []


@pytest.mark.parametrize(
    ("value", "text"),
    [(2e-4, "2e-4"), (0.001, "0.001"), (1e-8, "1e-8"), (3.0, "3"), (0.05, "0.05"), (None, "")],
)
def test_numbers_are_written_as_people_write_them(value: float | None, text: str) -> None:
    assert forms.write_text(value) == text


def test_a_fold_without_anything_for_the_method_is_hidden() -> None:
    """Somebody would open five folds and find nothing in them."""
    values = RunConfig().values()
    for method, empty in (("sft", True), ("dpo", False)):
        hidden = set(forms.marks({**values, "method": method}, values)["hidden"])
        folds = forms.folds()
        assert all(spec.path in hidden for spec in folds["preference"]) is empty
        assert not all(spec.path in hidden for spec in folds["Schedule"])


def test_a_name_at_the_beginning_of_a_message_keeps_its_letters() -> None:
    """There is no optimizer Apollo_adamw to look for."""
    problems = (
        Problem("training.optim", "apollo_adamw saves memory."),
        Problem("data.dataset", "is empty."),
    )
    errors = forms.marks({}, {}, problems)["errors"]
    assert errors == {"training.optim": "apollo_adamw saves memory.", "data.dataset": "Is empty."}
