"""A run's model must be found, whichever checkpoint, and nothing half-written taken for one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.config import RunConfig
from core.errors import ModelError
from core.models.trained import find_trained
from core.workspace import RunFolder


def safetensors() -> bytes:
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return len(header).to_bytes(8, "little") + header + b"\0\0\0\0"


def make_run(folder: Path) -> RunFolder:
    run = RunFolder(folder / "run-1")
    RunConfig().save(run.config)
    return run


def put_adapter(folder: Path, **settings: object) -> None:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    (folder / "adapter_model.safetensors").write_bytes(safetensors())
    (folder / "trainer_state.json").write_text('{"global_step": 5}')


def test_final_and_checkpoints_are_found(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    put_adapter(run.adapter, bias="none", init_lora_weights=True)
    put_adapter(run.checkpoints / "checkpoint-5")
    final = find_trained(run)
    assert (final.folder, final.adapter, final.is_adapter) == (run.adapter, run.adapter, True)
    assert final.base == "SmolLM2-135M-Instruct"
    assert find_trained(run, "checkpoint-5").folder == run.checkpoints / "checkpoint-5"


def test_a_whole_model_is_no_adapter(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    run.model.mkdir()
    (run.model / "config.json").write_text("{}")
    (run.model / "model.safetensors").write_bytes(safetensors())
    found = find_trained(run)
    assert not found.is_adapter
    assert found.adapter is None
    assert not found.shares_base


@pytest.mark.parametrize(
    ("settings", "shares"),
    [
        ({"bias": "none", "init_lora_weights": True}, True),
        ({"bias": "none", "init_lora_weights": "gaussian"}, True),
        ({"bias": "all", "init_lora_weights": True}, False),
        ({"bias": "none", "init_lora_weights": "pissa"}, False),
        ({"bias": "none", "init_lora_weights": "olora"}, False),
    ],
)
def test_whether_the_base_comes_back_when_the_adapter_is_off(
    tmp_path: Path, settings: dict[str, object], shares: bool
) -> None:
    run = make_run(tmp_path)
    put_adapter(run.adapter, **settings)
    assert find_trained(run).shares_base is shares


def test_what_is_missing_or_cut_short_is_told(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    with pytest.raises(ModelError, match="It has saved none yet"):
        find_trained(run)
    put_adapter(run.checkpoints / "checkpoint-5")
    put_adapter(run.adapter)
    (run.adapter / "adapter_model.safetensors").write_bytes(safetensors()[:-1])
    with pytest.raises(ModelError, match="Choose one of: checkpoint-5"):
        find_trained(run)
    with pytest.raises(ModelError, match="no whole model '../../x'"):
        find_trained(run, "../../x")
    with pytest.raises(ModelError, match="There is no run run-2"):
        find_trained(RunFolder(tmp_path / "run-2"))
