"""Will it fit, as the page shows it: a click on an offer has to be the offered change."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import gradio as gr
import pytest

from core.config import RunConfig
from core.models.hardware import CpuFlags, Device, Hardware
from core.rules import parse_config
from tests.estimate.test_memory import SMOLLM2, model
from tests.webui.fakes import fake_app
from webui.configure.plan import (
    MemoryView,
    _key,
    estimate_of,
    foreseen,
    gigabytes,
    memory_html,
    time_text,
)
from webui.context import App

GPU = Device("cuda", 0, "A GPU <b>", 3 * 10**9, 3 * 10**9, 8.0)
ROWS = {"row_lengths": [[500, 240]], "train_rows": 240, "train_tokens": 120_000}


@pytest.fixture
def app(tmp_path: Path) -> App:
    made = fake_app(tmp_path)
    model(made.workspace.root / "small", SMOLLM2)
    made.hardware = Hardware((GPU,), 2, CpuFlags(False, False), 10**10, 10**10)
    return made


def settings(app: App, rows: int) -> RunConfig:
    return parse_config(
        {
            "model.model_name_or_path": str(app.workspace.root / "small"),
            "training.per_device_train_batch_size": rows,
            "training.gradient_checkpointing": False,
        }
    )


def test_the_card_says_whether_it_fits_and_names_each_part(app: App) -> None:
    fits = memory_html(estimate_of(app, settings(app, 1), 240, ROWS))
    over = memory_html(estimate_of(app, settings(app, 32), 240, ROWS))
    assert "<b>Fits</b>" in fits and "<b>Does not fit</b>" in over
    assert "of 3.0 GB free" in over and "<u style" in over and "<u style" not in fits
    assert "Activations" in over and "A GPU &lt;b&gt;" in over
    uncounted = memory_html(estimate_of(app, settings(app, 32), 240, None))
    assert "<b>May not fit</b>" in uncounted  # the rows may be much shorter than they may be
    missing = memory_html(estimate_of(app, RunConfig(), 240, ROWS))
    assert "Not known until the model is fetched" in missing


def test_of_a_cluster_s_nodes_nothing_is_foreseen(app: App) -> None:
    """This machine's memory and pace would be taken for theirs."""
    config = settings(app, 32)
    config.training.ray_address = "a:1"
    estimate = estimate_of(app, config, 240, ROWS)
    told = memory_html(estimate)
    assert "is not known here" in told and "fit" not in told.lower()
    assert "not known" in time_text(app, estimate, ROWS, None)
    auto = {field: reason for field, _value, reason in foreseen(config, app.hardware)}
    assert "node" in auto["training.device"] and "node" in auto["training.precision"]
    with gr.Blocks():
        view = MemoryView(app)
    assert not view.follow(config)[view.box].visible


def test_an_offer_that_is_clicked_is_what_it_said(app: App) -> None:
    with gr.Blocks():
        view = MemoryView(app)
    config = settings(app, 32)
    shown = view.follow(config)
    labels = [shown[button].value for button in view.buttons if shown[button].visible]
    assert shown[view.box].visible and labels[0].startswith("Gradient checkpointing: ")
    changed = view.apply(config, labels[0])
    assert changed.training.gradient_checkpointing is True
    assert not view.follow(changed)[view.box].visible
    assert view.apply(config, "Something that is no longer offered") == config


def test_what_a_step_does_not_depend_on_keeps_the_time_that_was_tried(app: App) -> None:
    """Another learning rate would ask for another trial."""
    with gr.Blocks():
        view = MemoryView(app)
    config = settings(app, 2)
    view.trials[_key(config)] = {"tokens_per_second": 50.0, "memory_bytes": 10**9}
    faster = parse_config(config.values() | {"training.learning_rate": 1e-5, "training.seed": 7})
    assert view.trial_of(faster) == view.trial_of(config) is not None
    longer = parse_config(config.values() | {"training.max_length": 77})
    assert view.trial_of(longer) is None


def test_a_time_names_where_it_comes_from(app: App) -> None:
    config = settings(app, 1)
    estimate = estimate_of(app, config, 240, ROWS)
    assert "try two steps" in time_text(app, estimate, ROWS, None)
    trial = {"tokens_per_second": 100.0, "memory_bytes": 1_900_000_000}
    text = time_text(app, estimate, ROWS, trial)
    assert "about 1 h 00 min" in text
    assert "100 tokens/s from a trial of two steps, 1.9 GB measured" in text


@pytest.mark.parametrize(
    ("device", "flags", "slow"),
    [
        (replace(GPU, kind="cpu"), CpuFlags(False, False), True),
        (replace(GPU, kind="cpu"), CpuFlags(True, False), False),
        (GPU, CpuFlags(False, False), False),
    ],
)
def test_a_cpu_without_bf16_is_said_to_be_slow_before_the_start(
    app: App, device: Device, flags: CpuFlags, slow: bool
) -> None:
    """Somebody would take a step of ten seconds for a run that stands still."""
    app.hardware = Hardware((device,), 2, flags, 10**10, 10**10)
    told = time_text(app, estimate_of(app, settings(app, 1), 240, ROWS), ROWS, None)
    assert "try two steps" in told
    assert ("about ten minutes here" in told) is slow


def test_amounts_are_rounded_to_what_is_meant() -> None:
    assert [gigabytes(size) for size in (19_537_920, 3_812_000_000)] == ["20 MB", "3.8 GB"]
