"""Runs that begin with another run: merged, stacked, or with its adapter trained further."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from core.chat.settings import Column
from core.models.trained import find_trained
from core.rules import load_config, parse_config
from core.runs.lineage import chain_problems, lineage_text, values_to_continue
from core.worker.chat.loaded import Models
from core.worker.evaluation.run import run_evaluation
from core.worker.export.run import run_export
from core.worker.models.loading import open_before, open_trained, resolve_base
from core.worker.training.run import run_training
from core.workspace import RunFolder
from tests.tiny_model import TinyWorld, colour_rows, tiny_model, tiny_tokenizer, tiny_world
from tests.training.conftest import SETTINGS, losses

Chain = dict[str, RunFolder]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> TinyWorld:
    return tiny_world(tmp_path_factory.mktemp("chain"), eval_rows=colour_rows()[:4])


@pytest.fixture(scope="module")
def chain(world: TinyWorld) -> Chain:
    """`first` on the base; three that begin with it in each way; and two that go on from those."""
    torch.set_num_threads(1)
    runs = {"first": _train(world, "first")}
    for name, way, parent in (
        ("merged", "merge", "first"),
        ("stacked", "stack", "first"),
        ("continued", "continue", "first"),
        ("twice", "merge", "stacked"),
        ("whole", "stack", "twice"),
    ):
        settings = {"model.start_from": way, "model.from_run": parent}
        if name == "whole":
            settings |= {"adapter.method": "none", "training.learning_rate": 1e-3}
        runs[name] = _train(world, name, **settings)
    return runs


def _train(world: TinyWorld, name: str, **settings: Any) -> RunFolder:
    run = world.run(name, {**SETTINGS, **settings})
    assert run_training(run.root, world.root, None) == "finished"
    return run


def _logits(world: TinyWorld, run: RunFolder, open_it: Callable[..., Any]) -> torch.Tensor:
    trained = find_trained(run)
    base = resolve_base(trained.base, world.workspace)
    model = open_it(trained, base, device="cpu", dtype=torch.float32)
    model = model[0] if isinstance(model, tuple) else model
    with torch.inference_mode():
        return model(torch.arange(3, 40).unsqueeze(0)).logits


@pytest.mark.parametrize(
    ("name", "parent"),
    [
        ("merged", "first"),
        ("stacked", "first"),
        ("continued", "first"),
        ("twice", "stacked"),
        ("whole", "twice"),
    ],
)
def test_a_run_begins_exactly_where_the_one_before_it_ended(
    world: TinyWorld, chain: Chain, name: str, parent: str
) -> None:
    """What the run before learned would be lost, or the comparison would be with another model."""
    expected = _logits(world, chain[parent], open_trained)
    before = _logits(world, chain[name], open_before)
    assert torch.allclose(before, expected, atol=1e-4)
    assert losses(chain[name])[0] < losses(chain[parent])[0] / 1.5
    assert not torch.allclose(_logits(world, chain[name], open_trained), expected, atol=1e-2)


def test_the_lineage_is_told(chain: Chain) -> None:
    """Nobody could say what a model was made of."""
    assert lineage_text(chain["whole"]) == (
        "from twice (sft, stacked), which came from stacked (sft, merged), "
        "which came from first (sft, stacked)"
    )
    assert find_trained(chain["whole"]).base_name == "tiny after twice"
    assert find_trained(chain["continued"]).base_name == "tiny after first"
    settings = json.loads((chain["twice"].adapter / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == "stacked"


def test_a_run_needs_nothing_of_the_run_before(
    world: TinyWorld, chain: Chain, tmp_path: Path
) -> None:
    """Deleting a run would take with it the runs that were built on it."""
    expected = _logits(world, chain["twice"], open_trained)
    place = tmp_path / "away"
    chain["stacked"].root.rename(place)
    try:
        assert torch.equal(_logits(world, chain["twice"], open_trained), expected)
    finally:
        place.rename(chain["stacked"].root)


def test_evaluation_compares_with_the_run_before(world: TinyWorld, chain: Chain) -> None:
    """The numbers would credit this run with what the one before had learned."""
    found = {}
    for name in ("first", "stacked", "continued"):
        task = world.task(chain[name], "evaluate", "e1", {"max_new_tokens": 1})
        assert run_evaluation(task, world.root) == "finished"
        found[name] = json.loads((task / "result.json").read_text())
    reached = found["first"]["tuned"]["eval_loss"]["value"]
    for name in ("stacked", "continued"):
        assert found[name]["base"]["eval_loss"]["value"] == pytest.approx(reached, rel=1e-3)
        assert found[name]["tuned"]["eval_loss"]["value"] < reached
        assert found[name]["model"] == "tiny after first"


@pytest.mark.parametrize("name", ["twice", "continued"])
def test_an_export_has_the_whole_chain_in_it(world: TinyWorld, chain: Chain, name: str) -> None:
    """A merged model would lack what the runs before had learned."""
    task = world.task(chain[name], "export", "x1", {"format": "merged"})
    assert run_export(task, world.root) == "finished"
    result = json.loads((task / "result.json").read_text())
    exported = tiny_model()
    exported.load_state_dict(load_file(task / result["path"] / "model.safetensors"), strict=False)
    with torch.inference_mode():
        logits = exported(torch.arange(3, 40).unsqueeze(0)).logits
    assert torch.allclose(logits, _logits(world, chain[name], open_trained), atol=1e-3)
    assert "which came from" in (task / result["path"] / "README.md").read_text() or name != "twice"


def test_an_exported_adapter_says_that_it_needs_its_run(world: TinyWorld, chain: Chain) -> None:
    """Somebody would put it on the first base and get nonsense."""
    task = world.task(chain["twice"], "export", "x2", {"format": "adapter"})
    assert run_export(task, world.root) == "finished"
    card = (task / json.loads((task / "result.json").read_text())["path"] / "README.md").read_text()
    assert "of no use alone, and not on tiny either" in card
    assert "run `stacked` made of tiny" in card


def test_a_chained_run_answers_in_chat(world: TinyWorld, chain: Chain) -> None:
    """Only runs on a base model could be talked to."""
    models = Models(world.workspace)
    columns = [Column("twice"), Column("continued")]
    bases = [
        resolve_base(find_trained(chain[str(c.run_id)]).base, world.workspace) for c in columns
    ]
    models.load(columns, bases, lambda share, message: None)
    assert len(models.voices) == 2


@pytest.mark.parametrize(
    ("settings", "field", "words"),
    [
        ({"model.from_run": "nobody"}, "model.from_run", "no run nobody"),
        ({"model.from_run": "first@checkpoint-7"}, "model.from_run", "no whole model"),
        ({"model.model_name_or_path": "other"}, "model.model_name_or_path", "trained from tiny"),
        ({"method": "mlm"}, "model.from_run", "fills gaps"),
        ({"model.start_from": "continue", "adapter.r": 8}, "adapter.r", "has 16"),
        (
            {"model.start_from": "stack", "model.from_run": "whole"},
            "model.start_from",
            "no adapter",
        ),
        ({"model.start_from": "stack", "method": "reward"}, "model.start_from", "another output"),
    ],
)
def test_what_cannot_follow_is_refused_at_its_field(
    world: TinyWorld, chain: Chain, settings: dict[str, Any], field: str, words: str
) -> None:
    """It would fail in the middle of the night, or train something else than was meant."""
    values = values_to_continue(world.workspace, "first").values()
    config = parse_config(values)
    for path, value in settings.items():  # by hand: some are refused by other rules as well
        section, _, name = path.rpartition(".")
        object.__setattr__(getattr(config, section) if section else config, name, value)
    problems = chain_problems(world.workspace, config)
    assert [p.field for p in problems] == [field]
    assert words in problems[0].message


def test_settings_alone_tell_some_of_it() -> None:
    """A mistake in the form would be seen only when the run is started."""
    for settings, words in (
        ({"model.from_run": "first"}, "no effect"),
        ({"model.start_from": "merge"}, "name the run"),
        (
            {
                "model.start_from": "stack",
                "model.from_run": "first",
                "adapter.quantization": "nf4",
            },
            "rounded away",
        ),
    ):
        with pytest.raises(Exception, match=words):
            parse_config(settings)


def test_the_tokenizer_and_template_come_from_the_run_before(
    world: TinyWorld, chain: Chain
) -> None:
    """A chain would end with another template than it was taught with."""
    settings = {"training.max_steps": 1, "training.max_length": 200}
    taught = _train(world, "taught", **{"data.chat_template": "alpaca", **settings})
    text = (taught.adapter / "chat_template.jinja").read_text()
    assert text != tiny_tokenizer().chat_template
    for way in ("merge", "continue"):
        config = values_to_continue(world.workspace, "taught")
        config.model.start_from = way  # type: ignore[assignment]
        config.data.chat_template = "model"
        run = world.workspace.run(f"taught-{way}")
        run.root.mkdir()
        config.save(run.config)
        assert run_training(run.root, world.root, None) == "finished"
        assert (run.adapter / "chat_template.jinja").read_text() == text, way
        assert load_config(run.config).model.from_run == "taught"
