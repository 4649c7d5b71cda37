"""Every preset and every YAML block in the docs can be run as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from core.config import RunConfig
from core.config.yaml_file import parse_yaml
from core.data.forms import FORMS
from core.data.steps import parse_steps, read_recipe
from core.errors import ConfigError, TunesmithError
from core.rules import parse_config
from core.rules.presets import (
    SHIPPED,
    delete_preset,
    list_presets,
    load_preset,
    open_config,
    preset_id,
    save_preset,
)
from core.workspace import Workspace

ROOT = Path(__file__).parents[1]
NAMES = [path.stem for path in sorted(SHIPPED.glob("*.yaml"))]
DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCKS = [
    pytest.param(block, id=f"{page.name}-{number}")
    for page in DOCS
    if page.exists()
    for number, block in enumerate(
        re.findall(r"^```ya?ml\n(.*?)^```", page.read_text(encoding="utf-8"), re.S | re.M), 1
    )
]


@pytest.fixture
def opened(workspace: Path) -> Workspace:
    return Workspace.open(workspace)


@pytest.mark.parametrize("name", NAMES)
def test_every_shipped_preset_loads_and_says_when_to_use_it(name: str) -> None:
    preset = load_preset(name)
    assert preset.problem == ""
    assert preset.builtin
    assert preset.title and preset.description.endswith(".")
    assert preset.when.startswith("Use it ") and preset.when.endswith(".")
    assert preset.config() != RunConfig()


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_preset_has_only_what_differs_from_the_defaults(name: str) -> None:
    preset = load_preset(name)
    defaults = RunConfig().values()
    same = [path for path, value in preset.settings.items() if defaults[path] == value]
    assert same == []


def test_what_the_issue_asks_for_is_there_and_quickstart_comes_first() -> None:
    names = [preset.name for preset in list_presets()]
    assert names[0] == "quickstart"
    sizes = ["8gb", "16gb", "24gb"]
    assert names[1:8] == [
        *(f"lora-{size}" for size in sizes),
        *(f"qlora-{size}" for size in sizes),
        "full-small",
    ]
    assert {"qwen2.5-7b-assistant", "qwen2.5-7b-assistant-dpo", "kto", "orpo"} <= set(names[8:])


def test_the_successor_of_the_assistant_is_as_the_issue_says() -> None:
    first = load_preset("qwen2.5-7b-assistant").config()
    then = load_preset("qwen2.5-7b-assistant-dpo").config()
    assert (first.training.learning_rate, first.training.per_device_train_batch_size) == (2e-4, 4)
    assert first.training.gradient_accumulation_steps == 8
    assert first.training.gradient_checkpointing is True
    assert then.model == first.model and then.method == "dpo"
    assert (then.preference.beta, then.training.learning_rate) == (0.1, 5e-7)
    assert then.training.num_train_epochs == 1


def test_quick_start_needs_neither_the_hub_nor_a_gpu() -> None:
    config = load_preset("quickstart").config()
    assert config.model.model_name_or_path == "SmolLM2-135M-Instruct"
    assert config.data.dataset == "sample"
    assert config.adapter.quantization == "none"


@pytest.mark.parametrize("block", BLOCKS)
def test_every_yaml_block_in_the_docs_can_be_run(block: str, opened: Workspace) -> None:
    path = opened.root / "block.yaml"
    path.write_text(block, encoding="utf-8")
    if "\nsteps:" in block:  # a recipe for data
        recipe = read_recipe(path)
        assert recipe["form"] in FORMS and len(parse_steps(recipe["steps"])) > 1
        return
    values, _ = open_config(str(path), opened)
    assert parse_config(values).model.model_name_or_path


def test_a_saved_preset_gives_back_the_config(opened: Workspace) -> None:
    config = parse_config({"name": "run 1", "adapter.r": 4, "evaluation.sample_prompts": ["Hi, x"]})
    saved = save_preset(opened, "mine", "Mine", config, description="Small.", when="Use it often.")
    assert load_preset("mine", opened) == saved
    assert not saved.builtin
    assert saved.config() == parse_config({**config.values(), "name": ""})
    assert [preset.name for preset in list_presets(opened)][-1] == "mine"


def test_a_saved_preset_is_not_replaced_unless_asked(opened: Workspace) -> None:
    save_preset(opened, "mine", "Mine", RunConfig())
    with pytest.raises(ConfigError, match="mine is taken"):
        save_preset(opened, "mine", "Mine", RunConfig())
    changed = save_preset(opened, "mine", "M", parse_config({"adapter.r": 4}), replace=True)
    assert load_preset("mine", opened).settings == changed.settings == {"adapter.r": 4}


def test_a_shipped_preset_cannot_be_overwritten_or_deleted(opened: Workspace) -> None:
    with pytest.raises(ConfigError, match="stays as it is"):
        save_preset(opened, "quickstart", "Mine", RunConfig(), replace=True)
    with pytest.raises(ConfigError, match="stays as it is"):
        delete_preset(opened, "quickstart")
    assert (SHIPPED / "quickstart.yaml").is_file()


def test_deleting_removes_one_of_the_owners(opened: Workspace) -> None:
    save_preset(opened, "mine", "Mine", RunConfig())
    delete_preset(opened, "mine")
    assert [preset for preset in list_presets(opened) if not preset.builtin] == []
    with pytest.raises(ConfigError, match="none named 'mine'"):
        delete_preset(opened, "mine")


@pytest.mark.parametrize("name", ["../escape", "/escape", "a/b", "..", "", "Mine.yaml", "a\x00"])
def test_a_name_cannot_lead_out_of_the_folder(opened: Workspace, name: str) -> None:
    (opened.root / "escape.yaml").write_text("settings: {}\n", encoding="utf-8")
    for use in (
        lambda: save_preset(opened, name, "x", RunConfig()),
        lambda: delete_preset(opened, name),
        lambda: load_preset(name, opened),
    ):
        with pytest.raises(TunesmithError):
            use()
    assert (opened.root / "escape.yaml").is_file()
    assert list(opened.presets.iterdir()) == []


def test_a_title_becomes_a_name() -> None:
    assert preset_id("My LoRA, long!") == "my-lora-long"
    assert preset_id("äöü") == "preset"


def test_an_unknown_preset_suggests_the_nearest(opened: Workspace) -> None:
    with pytest.raises(ConfigError, match="Did you mean quickstart"):
        load_preset("quick-start", opened)


def test_a_broken_preset_of_the_owner_is_listed_with_its_problem(opened: Workspace) -> None:
    (opened.presets / "broken.yaml").write_text("title: Broken\nsettings: [1", encoding="utf-8")
    (opened.presets / "flat.yaml").write_text("training:\n  seed: 1\n", encoding="utf-8")
    found = {preset.name: preset for preset in list_presets(opened) if not preset.builtin}
    assert "not YAML" in found["broken"].problem
    assert "settings go under settings" in found["flat"].problem
    with pytest.raises(ConfigError, match="not YAML"):
        found["broken"].config()


def test_differences_are_what_the_form_marks_as_changed() -> None:
    preset = load_preset("quickstart")
    assert preset.differences(preset.config()) == {}
    changed = parse_config({**preset.settings, "training.seed": 1, "name": "x"})
    assert preset.differences(changed) == {"training.seed": 1}


def test_a_file_may_start_from_a_preset(opened: Workspace) -> None:
    path = opened.root / "mine.yaml"
    path.write_text("preset: quickstart\ntraining:\n  seed: 1\n", encoding="utf-8")
    values, preset = open_config(str(path), opened)
    assert preset == load_preset("quickstart")
    assert values == {**preset.settings, "training.seed": 1}


def test_a_preset_file_opens_by_path_as_by_name(opened: Workspace) -> None:
    values, _ = open_config(str(SHIPPED / "qlora-8gb.yaml"), opened)
    by_name, _ = open_config("qlora-8gb", opened)
    assert values == by_name == load_preset("qlora-8gb").settings


def test_the_shipped_files_say_numbers_as_any_yaml_reader_does() -> None:
    import yaml

    for path in SHIPPED.glob("*.yaml"):
        text = path.read_text(encoding="utf-8")
        assert yaml.safe_load(text) == parse_yaml(text, path.name), path.name
