"""What only a card can show: `pytest -m gpu tests/gpu`, on a machine with one. With several TRL
would want a launcher."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from core.estimate.plan import estimate_run
from core.models.hardware import probe
from core.rules import parse_config
from core.runs.check import start_problems
from core.worker.training.run import run_training, try_two_steps
from tests.estimate.test_memory import memory
from tests.tiny_model import TinyWorld, tiny_model, tiny_world
from tests.training.conftest import SETTINGS, losses

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() != 1, reason="needs a machine with one card"),
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> TinyWorld:
    return tiny_world(tmp_path_factory.mktemp("gpu"))


def test_nf4_qlora_learns(world: TinyWorld) -> None:
    settings = {**SETTINGS, "training.device": "cuda", "training.precision": "bf16"}
    run = world.run("qlora", {**settings, "adapter.quantization": "nf4"})
    assert run_training(run.root, world.root, None) == "finished"
    assert losses(run)[-1] < losses(run)[0]
    assert (run.adapter / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize("method", ["lora", "none"])
def test_the_estimate_is_near_the_peak(world: TinyWorld, method: str) -> None:
    """Of a model as large as SmolLM2, without what CUDA takes, which torch does not count."""
    base = world.workspace.models / "middling"
    sizes = {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30}
    heads = {"num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152}
    tiny_model(**sizes, **heads).save_pretrained(base)
    for file in world.base.glob("*token*"):
        (base / file.name).write_bytes(file.read_bytes())
    values: dict[str, Any] = {
        "model.model_name_or_path": "middling",
        "data.dataset": world.dataset.id,
        "adapter.method": method,
        "training.device": "cuda",
        "training.precision": "bf16",
        "training.per_device_train_batch_size": 4,
        "training.max_length": 64,
        "training.gradient_checkpointing": False,
    }
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    peak = try_two_steps(str(world.root), values, lambda _share, _message: None)["memory_bytes"]
    found = memory(estimate_run(base, parse_config(values), probe()))
    assert found.total - found.parts["CUDA context"] == pytest.approx(peak, rel=0.3)


def test_two_processes_on_one_card_are_refused(world: TinyWorld) -> None:
    """NCCL would end them with an error that nobody understands."""
    values = {"model.model_name_or_path": "tiny", "data.dataset": world.dataset.id}
    asked = {"training.devices": 2, "evaluation.eval_strategy": "no"}
    config = parse_config(values | asked)
    fields = [problem.field for problem in start_problems(world.workspace, config)]
    assert fields == ["training.devices"]
