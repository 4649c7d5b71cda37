"""A reward model on tiny models: what it learns, what it leaves behind, and what uses it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from core.chat.session import conversation
from core.chat.settings import Column
from core.commands.evaluate import report_text
from core.data.record import DatasetInfo
from core.errors import ConfigError, DataError, ModelError, TrainingError
from core.evaluation.intervals import share
from core.evaluation.report import read_report
from core.evaluation.verdict import verdict
from core.jobs.task import read_result
from core.models.trained import find_trained
from core.rewards.build import reward_functions
from core.rewards.specs import parse_rewards
from core.rules import parse_config
from core.worker.chat.loaded import Models
from core.worker.chat.voices import ScoreVoice
from core.worker.evaluation.run import run_evaluation
from core.worker.export.run import run_export
from core.worker.models.loading import open_trained
from core.worker.models.scores import find_scorer, turns
from core.worker.rewards import reward_model
from core.worker.training.run import run_training
from core.workspace import RunFolder
from tests.preferences import THINGS, bring, pairs
from tests.tiny_model import TinyWorld, tiny_world
from tests.training.conftest import SETTINGS, events
from webui.report import report


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TinyWorld]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tiny_world(tmp_path_factory.mktemp("reward"))
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(world: TinyWorld) -> DatasetInfo:
    """Two of the rows differ only behind the place where they are cut."""
    long = [{"role": "assistant", "content": "yes " * 60}]
    ends = [{"role": "assistant", "content": "yes " * 60 + "no"}]
    same = [{**row, "chosen": long, "rejected": ends} for row in pairs(THINGS[:1])[:2]]
    return bring(world.workspace, [*pairs(THINGS[:4]), *same], pairs(THINGS[4:]), "scored")


def learn(world: TinyWorld, data: DatasetInfo, name: str, **settings: Any) -> RunFolder:
    values = {
        **SETTINGS,
        "method": "reward",
        "data.dataset": data.id,
        "training.learning_rate": 5e-3,
        "training.num_train_epochs": 4.0,
        "evaluation.eval_strategy": "epoch",
        "evaluation.sample_max_new_tokens": 8,
        **settings,
    }
    run = world.run(name, values)
    assert run_training(run.root, world.root, None) == "finished"
    return run


def measured(run: RunFolder) -> list[Any]:
    return [event for event in events(run, "metrics") if "eval_accuracy" in event]


def messages(run: RunFolder) -> str:
    return "\n".join(event["message"] for event in events(run, "log"))


@pytest.fixture(scope="module")
def run(world: TinyWorld, data: DatasetInfo) -> RunFolder:
    return learn(world, data, "learned")


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("full", {"adapter.method": "none", "training.learning_rate": 2e-3}),
        ("qlora", {"adapter.quantization": "nf4", "training.precision": "bf16"}),
    ],
)
def test_better_answers_to_new_questions_get_higher_scores(
    world: TinyWorld, data: DatasetInfo, name: str, settings: dict[str, Any]
) -> None:
    """A run would learn nothing that holds for other questions."""
    check_learned(learn(world, data, name, **settings))


def test_an_adapter_learns_them_too(run: RunFolder) -> None:
    check_learned(run)
    assert "2 of 18 train rows are left out: row 17: Both answers are the same" in messages(run)
    assert (run.adapter / "adapter_config.json").is_file()


def check_learned(run: RunFolder) -> None:
    first, last = measured(run)[0], measured(run)[-1]
    assert first["step"] == 0 and last["step"] == 16
    assert last["eval_accuracy"] > 0.9 and last["eval_margin"] > first["eval_margin"] + 1
    assert last["eval_min_reward"] < last["eval_mean_reward"] < last["eval_max_reward"]
    samples = events(run, "sample")
    assert {sample["step"] for sample in samples} == {0, 4, 8, 12, 16}
    assert samples[-1]["answer"].endswith("for the worse one")


def test_it_stops_once_the_accuracy_rises_no_more(world: TinyWorld, data: DatasetInfo) -> None:
    best = {
        "evaluation.metric_for_best_model": "eval_accuracy",
        "evaluation.greater_is_better": True,
        "evaluation.early_stopping_patience": 1,
        "tracking.save_strategy": "epoch",
        "training.num_train_epochs": 20.0,
    }
    run = learn(world, data, "early", **best)
    assert measured(run)[-1]["step"] < 80 and measured(run)[-1]["eval_accuracy"] > 0.9


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"evaluation.metric_for_best_model": "eval_accuracy"}, "evaluation.greater_is_better"),
        ({"evaluation.metric_for_best_model": "eval_f1"}, "evaluation.metric_for_best_model"),
        ({"training.packing": True}, "training.packing"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config({"method": "reward", "evaluation.eval_strategy": "epoch", **settings})
    assert [problem.field for problem in caught.value.problems] == [field]


def test_rows_that_are_no_pairs_are_refused(world: TinyWorld) -> None:
    with pytest.raises(DataError, match="method reward learns from preference"):
        learn(world, world.dataset, "wrong")


def test_the_report_says_how_many_pairs_are_right(world: TinyWorld, run: RunFolder) -> None:
    """A finished reward model could not be judged."""
    folder = world.task(run, "evaluate", "one", {})
    assert run_evaluation(folder, world.root) == "finished"
    found = read_report(folder)
    assert found is not None
    right, margin = found.number("pair_accuracy"), found.number("margin")
    assert right is not None and margin is not None
    assert right.low is not None and right.high is not None and right.low < right.high
    assert right.value == measured(run)[-1]["eval_accuracy"]
    assert margin.value == pytest.approx(measured(run)[-1]["eval_margin"], rel=1e-3)
    assert "It has learned to tell them apart." in verdict(found)
    assert "100 %" in verdict(found) and "pair accuracy" in report_text(found)
    assert found.differences == []
    assert len((folder / "answers.jsonl").read_text().splitlines()) == 8


def test_a_model_that_errs_says_where(world: TinyWorld, run: RunFolder, data: DatasetInfo) -> None:
    """Nobody could see what a reward model takes for good. Here good and bad are swapped."""
    turned = [
        {**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in pairs(THINGS[4:])
    ]
    other = bring(world.workspace, turned[:4], turned, "turned")
    config = parse_config({**_values(run), "data.dataset": other.id})
    before = run.config.read_text()
    try:
        config.save(run.config)
        folder = world.task(run, "evaluate", "two", {"max_rows": 6})
        run_evaluation(folder, world.root)
    finally:
        run.config.write_text(before)
    found = read_report(folder)
    assert found is not None and found.rows == 6
    assert found.number("pair_accuracy") == share(0, 6)
    assert "swapped" in verdict(found) and len(found.differences) == 6
    shown = report(found)
    assert "Pairs in the wrong order" in shown and shown.count("<h4>Worse answer</h4>") == 6
    worst = found.differences[0]
    scores = [float(str(answer).split(":")[0]) for answer in (worst.tuned, worst.expected)]
    assert scores[0] > scores[1]


def _values(run: RunFolder) -> dict[str, Any]:
    return find_trained(run).config.values() | {"data.dataset_fingerprint": ""}


def test_chat_scores_answers(world: TinyWorld, run: RunFolder) -> None:
    models = Models(world.workspace)
    models.load([Column("learned")], [str(world.base)], lambda share, message: None)
    voice = models.voices[0]
    assert isinstance(voice, ScoreVoice)
    text = voice.answer(conversation("a red bag\n---\nno bag\n---\nyes, red"))
    assert text.splitlines()[0].startswith("Answer 2: ") and "Answer 2 is ahead by" in text
    one = voice.answer(conversation("a red bag\n---\nyes, red"))
    assert re.fullmatch(r"Score -?\d+\.\d{3}", one)
    with pytest.raises(ModelError, match="no answer to score. Write the prompt, a line"):
        voice.answer(conversation("a red bag"))


def test_it_writes_no_text(world: TinyWorld, run: RunFolder) -> None:
    with pytest.raises(ModelError, match="trained to give scores: it writes no text"):
        open_trained(find_trained(run), str(world.base), device="cpu", dtype=torch.float32)


@pytest.mark.parametrize("kind", ["adapter", "merged"])
def test_an_export_scores_as_the_run_does(world: TinyWorld, run: RunFolder, kind: str) -> None:
    """Whoever gets the model would be told other scores than those that were measured."""
    folder = world.task(run, "export", kind, {"format": kind, "dtype": "float32"})
    assert run_export(folder, world.root) == "finished"
    result = read_result(folder)
    assert result is not None and all(check["ok"] for check in result["checks"])
    place = folder / result["path"]
    card = (place / "README.md").read_text()
    assert "pipeline_tag: text-classification" in card
    code = re.search(r"```python\n(.*?)```", card, re.S)
    assert code is not None
    source = code[1].replace("path/to/this/folder", str(place))
    source = source.replace("path/to/tiny", str(world.base))
    said: dict[str, Any] = {}
    exec(source + "\nsaid = model(**inputs).logits.item()", said)  # what we tell people to run
    asked = [(turns("A question", "user"), turns("An answer", "assistant"))]
    scorer = find_scorer("learned", world.workspace, device="cpu")
    assert said["said"] == pytest.approx(scorer.scores(asked)[0], rel=1e-4)
    if kind == "merged":
        whole = find_scorer(str(place), world.workspace, device="cpu")
        assert whole.scores(asked)[0] == pytest.approx(said["said"], rel=0.05, abs=0.05)


def test_it_rewards_the_answers_of_another_run(world: TinyWorld, run: RunFolder) -> None:
    """Reinforcement would learn from other scores than the reward model gives."""
    kinds = [
        {"kind": "reward_model", "model": "learned", "batch_size": 2},
        {"kind": "reward_model", "model": "learned", "scale": "sigmoid"},
    ]
    parsed = parse_rewards(kinds)
    raw, squashed = reward_functions(parsed, world.workspace, None, "cpu", reward_model)
    asked = pairs(THINGS[5:])[:3]
    prompts, good = [row["prompt"] for row in asked], [row["chosen"] for row in asked]
    better = raw(prompts, good, answer=[None] * 3)
    worse = raw(prompts, [row["rejected"] for row in asked])
    assert all(b > w for b, w in zip(better, worse, strict=True))  # type: ignore[operator]
    assert all(0 < one < 1 for one in squashed(prompts, good))  # type: ignore[operator]
    texts = [row["chosen"][0]["content"] for row in asked]
    plain = [row["prompt"][0]["content"] for row in asked]
    assert raw(plain, texts) == pytest.approx(better)


def test_a_model_that_gives_no_score_is_refused(world: TinyWorld) -> None:
    parsed = parse_rewards([{"kind": "reward_model", "model": "tiny"}])
    with pytest.raises(TrainingError, match="tiny is no reward model: it gives text"):
        reward_functions(parsed, world.workspace, None, "cpu", reward_model)
