"""The declarations themselves: what the form, the help and the docs are made of."""

from __future__ import annotations

import pytest

from core.config import SPEC_BY_PATH, SPECS, FieldSpec, RunConfig
from core.errors import ConfigError
from core.rules import parse_config

BOUNDED = [spec for spec in SPECS if spec.minimum is not None or spec.maximum is not None]


def refused(path: str, value: object) -> str:
    """The message at `path` when it is set to `value`."""
    with pytest.raises(ConfigError) as caught:
        parse_config({path: value})
    messages = {problem.field: problem.message for problem in caught.value.problems}
    assert path in messages, f"{path} is not named in {messages}"
    return messages[path]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.path)
def test_every_field_has_a_label_and_a_help_that_is_a_sentence(spec: FieldSpec) -> None:
    assert spec.label[:1].isupper() or spec.label[:1].isdigit()
    assert len(spec.help) > 20
    assert spec.help.endswith(".")
    assert not spec.label.endswith(".")


@pytest.mark.parametrize("method", SPEC_BY_PATH["method"].choices)
def test_basic_shows_about_a_dozen_controls(method: str) -> None:
    values = {**RunConfig().values(), "method": method}
    basic = [spec.path for spec in SPECS if spec.level == "basic" and spec.shown(values)]
    assert 6 <= len(basic) <= 13


def test_no_two_fields_share_a_name_so_that_errors_and_suggestions_are_clear() -> None:
    names = [spec.name for spec in SPECS]
    assert len(set(names)) == len(names) - 1  # adapter.method and the method of the run


def test_a_field_is_shown_only_for_fields_and_values_that_exist() -> None:
    for spec in SPECS:
        for path, values in spec.when.items():
            other = SPEC_BY_PATH[path]
            known = {True, False} if other.kind == "bool" else set(other.choices)
            assert set(values) <= known, f"{spec.path} waits for {path} in {values}"


def test_a_lora_field_hides_when_the_whole_model_is_trained() -> None:
    spec = SPEC_BY_PATH["adapter.r"]
    assert spec.shown({"adapter.method": "lora"})
    assert not spec.shown({"adapter.method": "none"})


@pytest.mark.parametrize("spec", BOUNDED, ids=lambda spec: spec.path)
def test_every_bound_refuses_what_lies_outside_and_says_what_is_allowed(spec: FieldSpec) -> None:
    step = 1 if spec.kind == "int" else 0.001
    outside = []
    if spec.minimum is not None:
        outside.append(spec.minimum if spec.exclusive_minimum else spec.minimum - step)
    if spec.maximum is not None:
        outside.append(spec.maximum if spec.exclusive_maximum else spec.maximum + step)
    for value in outside:
        number = int(value) if spec.kind == "int" else value
        assert spec.allowed in refused(spec.path, number)


@pytest.mark.parametrize("spec", BOUNDED, ids=lambda spec: spec.path)
def test_every_bound_takes_its_own_edge(spec: FieldSpec) -> None:
    from core.config.run import nest

    for edge, excluded in (
        (spec.minimum, spec.exclusive_minimum),
        (spec.maximum, spec.exclusive_maximum),
    ):
        if edge is None or excluded:
            continue
        number = int(edge) if spec.kind == "int" else float(edge)
        # Without the rules that span fields: max_steps 0 is in its bounds, but trains nothing.
        config = RunConfig.model_validate(nest({spec.path: number}))
        assert config.values()[spec.path] == number


@pytest.mark.parametrize(
    "path", [spec.path for spec in SPECS if spec.auto], ids=lambda path: str(path)
)
def test_auto_can_be_given_and_the_message_says_so(path: str) -> None:
    assert parse_config({path: "auto"}).values()[path] == "auto"
    assert "or auto" in refused(path, "perhaps")


@pytest.mark.parametrize("path", [spec.path for spec in SPECS if spec.optional])
def test_an_optional_field_can_be_emptied_and_others_cannot(path: str) -> None:
    assert parse_config({path: None}).values()[path] is None
    assert "empty" in SPEC_BY_PATH[path].allowed


@pytest.mark.parametrize("spec", [s for s in SPECS if s.kind == "choice"], ids=lambda s: s.path)
def test_a_wrong_choice_lists_the_choices(spec: FieldSpec) -> None:
    message = refused(spec.path, "nonsense")
    assert all(str(choice) in message for choice in spec.choices)


def test_a_union_is_one_message_not_one_for_each_branch() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config({"training": {"per_device_train_batch_size": "many"}})
    assert [str(problem) for problem in caught.value.problems] == [
        "training.per_device_train_batch_size: must be a whole number from 1 to 4096, or auto "
        "(given: 'many')."
    ]


def test_defaults_are_not_shared_between_configs() -> None:
    first = RunConfig()
    first.training.seed = 7
    first.training.extra["tf32"] = True
    first.adapter.modules_to_save.append("lm_head")
    assert RunConfig() == parse_config({})
    assert RunConfig().training.seed != 7


@pytest.mark.parametrize(
    ("method", "hidden", "shown"),
    [
        ("sft", [], ["data.learn", "training.packing", "training.sft_loss_type"]),
        ("dpo", ["data.learn", "training.packing"], ["data.chat_template"]),
        (
            "classification",
            ["data.chat_template", "data.system_prompt", "evaluation.sample_max_new_tokens"],
            ["evaluation.sample_prompts"],
        ),
        ("mlm", ["data.chat_template", "evaluation.sample_max_new_tokens"], []),
        ("cpt", ["data.chat_template", "training.packing"], ["evaluation.sample_max_new_tokens"]),
        ("reward", ["evaluation.sample_max_new_tokens"], ["data.chat_template"]),
    ],
)
def test_a_field_that_says_nothing_to_a_method_is_not_shown(
    method: str, hidden: list[str], shown: list[str]
) -> None:
    values = {**RunConfig().values(), "method": method, "evaluation.eval_strategy": "steps"}
    assert not [path for path in hidden if SPEC_BY_PATH[path].shown(values)]
    assert [path for path in shown if SPEC_BY_PATH[path].shown(values)] == shown


def test_a_field_of_one_tracker_is_shown_with_it_among_others() -> None:
    spec = SPEC_BY_PATH["tracking.wandb_mode"]
    assert spec.shown({"tracking.report_to": ["tensorboard", "wandb"]})
    assert not spec.shown({"tracking.report_to": ["tensorboard"]})
    assert not spec.shown({"tracking.report_to": []})
    report_to = SPEC_BY_PATH["tracking.report_to"]
    assert (report_to.kind, report_to.allowed[:22]) == ("list", "any of tensorboard, tr")
