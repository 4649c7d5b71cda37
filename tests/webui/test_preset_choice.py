"""The list of presets by what a run learns from."""

from __future__ import annotations

import typing
from pathlib import Path

import gradio as gr
import pytest

from core.methods import Purpose
from core.rules.presets import DEFAULT, list_presets, load_preset, save_preset
from tests.webui.fakes import fake_app
from webui.configure.presets import PURPOSES, PresetChoice, purpose_of


@pytest.fixture
def presets(tmp_path: Path) -> PresetChoice:
    with gr.Blocks():
        return PresetChoice(fake_app(tmp_path / "workspace"), load_preset(DEFAULT))


def names(field: gr.Radio) -> set[str]:
    return {name for _, name in field.choices}


def test_each_preset_is_offered_for_its_purpose(presets: PresetChoice) -> None:
    """A preset that no list shows could not be chosen."""
    assert DEFAULT in names(presets.field) and "kto" not in names(presets.field)
    assert typing.get_args(Purpose) == PURPOSES
    offered = {purpose: names(presets.offer(purpose, DEFAULT)) for purpose in PURPOSES}
    for preset in list_presets():
        assert preset.name in offered[purpose_of(preset)]


def test_the_chosen_one_stays_and_a_saved_one_is_shown(presets: PresetChoice) -> None:
    """Another purpose is looked at while the settings stay as they are."""
    assert names(presets.offer("Rewards", "kto")) >= {"kto", "grpo-json"}
    config = load_preset("orpo").config()
    mine = save_preset(presets.app.workspace, "mine", "Mine", config)
    shown = presets.choose(mine)
    assert shown[presets.purpose] == "Preferences"
    assert {"mine", "orpo"} <= names(shown[presets.field])
