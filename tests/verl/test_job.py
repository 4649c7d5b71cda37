"""A verl job folder: on a cluster, far from here, it must hold the rows, reward as Tunesmith does,
and use only settings that verl has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from core import cli
from core.config.run import flatten
from core.data.prepare import import_dataset
from core.errors import ConfigError, SetupError, WorkspaceError
from core.rewards.build import reward_functions
from core.rewards.specs import parse_rewards
from core.rules import parse_config
from core.verl.job import write_job
from core.verl.settings import (
    VERSION,
    Cluster,
    check_keys,
    check_with,
    job_problems,
    known_keys,
    verl_settings,
)
from core.workspace import Workspace

REWARDS: list[dict[str, Any]] = [
    {"kind": "exact_answer", "find": "last_line"},
    {"kind": "json_schema", "json_schema": {"type": "object"}, "weight": 0.5, "only_json": 0.2},
    {"kind": "own", "file": "mine.py", "function": "polite", "weight": 2},
]
ANSWERS = ["Lisbon", "I think: lisbon.", '{"city": "Lisbon"}', "[1]", "", "Thanks.\nLisbon"]


@pytest.fixture
def opened(workspace: Path) -> Workspace:
    """Three questions with reference answers, and a function of the owner's."""
    opened = Workspace.open(workspace)
    rows = [{"prompt": f"Capital number {i}?", "ground_truth": "Lisbon"} for i in range(3)]
    opened.uploads.mkdir(exist_ok=True)
    path = opened.uploads / "capitals.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    info = import_dataset(opened, [path], name="capitals", eval_fraction=0.0)
    assert (info.form, info.id) == ("prompt-only", "capitals")
    opened.rewards.mkdir(exist_ok=True)
    source = "def polite(completion):\n    return float('Thanks' in completion)\n"
    (opened.rewards / "mine.py").write_text(source)
    return opened


def config(**changes: Any) -> Any:
    return parse_config(
        {
            "method": "grpo",
            "model.model_name_or_path": "Qwen/Qwen2.5-1.5B-Instruct",
            "data.dataset": "capitals",
            "data.system_prompt": "Answer with a name.",
            "training.per_device_train_batch_size": 8,
            "training.max_steps": 5,
            "evaluation.eval_strategy": "no",
            "reinforcement.rewards": REWARDS,
            "reinforcement.kl_beta": 0.02,
            **{name.replace("__", "."): value for name, value in changes.items()},
        }
    )


def test_the_folder_has_all_that_verl_asks_for(opened: Workspace, tmp_path: Path) -> None:
    job = write_job(opened, config(), tmp_path / "job", Cluster(1, 4))
    assert job.rows == {"train": 3} and job.left_out == 0
    rows = pq.read_table(job.folder / "data" / "train.parquet").to_pylist()
    assert rows[0]["prompt"] == [
        {"role": "system", "content": "Answer with a name."},
        {"role": "user", "content": "Capital number 0?"},
    ]
    assert rows[0]["reward_model"] == {"style": "rule", "ground_truth": "Lisbon"}
    assert json.loads(rows[0]["extra_info"]["prompt"]) == rows[0]["prompt"]
    settings = yaml.safe_load((job.folder / "ppo.yaml").read_text())
    assert settings.pop("defaults") == ["ppo_trainer", "_self_"]
    assert settings.pop("hydra") == {"searchpath": ["pkg://verl.trainer.config"]}
    assert flatten(settings) == job.settings
    assert settings["algorithm"]["adv_estimator"] == "gae", "a critic, not GRPO"
    assert settings["critic"]["model"]["path"] == "Qwen/Qwen2.5-1.5B-Instruct"
    assert settings["algorithm"]["kl_ctrl"]["kl_coef"] == 0.02
    assert settings["trainer"]["total_training_steps"] == 5
    assert "did not run it" in (job.folder / "README.md").read_text()
    assert os.access(job.folder / "run.sh", os.X_OK)
    subprocess.run(["bash", "-n", str(job.folder / "run.sh")], check=True)
    with pytest.raises(WorkspaceError):
        write_job(opened, config(), tmp_path / "job")


def test_the_cluster_rewards_an_answer_as_tunesmith_does(opened: Workspace, tmp_path: Path) -> None:
    """In a bare process that sees the job's folder alone, without torch."""
    job = write_job(opened, config(), tmp_path / "job", Cluster(1, 4))
    program = (
        "import importlib.util, json, sys\n"
        f"spec = importlib.util.spec_from_file_location('r', {str(job.folder / 'rewards.py')!r})\n"
        "module = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(module)\n"
        "given = json.load(sys.stdin)\n"
        "found = [module.compute_score('tunesmith', text, 'Lisbon', {'prompt': '[]'})"
        " for text in given]\n"
        "assert 'torch' not in sys.modules\n"
        "print(json.dumps(found))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", program],
        input=json.dumps(ANSWERS),
        capture_output=True,
        text=True,
        check=True,
    )
    specs = parse_rewards(REWARDS)
    here = [
        function([[]] * len(ANSWERS), ANSWERS, answer=["Lisbon"] * len(ANSWERS))
        for function in reward_functions(specs, opened, None, "cpu")
    ]
    for place, found in enumerate(json.loads(done.stdout)):
        values = [column[place] or 0.0 for column in here]
        assert [found[spec.name] for spec in specs] == values
        weighted = sum(s.weight * v for s, v in zip(specs, values, strict=True))
        assert found["score"] == pytest.approx(weighted)


def test_every_setting_is_one_of_verl() -> None:
    """verl refuses a key that it has not, after the cluster was waited for."""
    for changes in ({}, {"adapter__method": "none", "training__warmup_steps": 20}):
        settings = verl_settings(config(**changes), Cluster(2, 4), "one")
        assert check_keys(settings).wrong == []
    wrong = check_keys(["trainer.total_epoch"]).wrong
    assert wrong[0][0] == "trainer.total_epoch" and "near: trainer.total_epochs" in wrong[0][1]
    assert "critic.optim.lr" in known_keys()


def test_an_environment_without_verl_is_told() -> None:
    with pytest.raises(SetupError) as caught:
        check_with(sys.executable, {"trainer.nnodes": 1})
    assert "has no verl" in str(caught.value)
    with pytest.raises(SetupError):
        check_with("/no/such/python", {})


@pytest.mark.parametrize(
    ("changes", "field", "says"),
    [
        ({"method": "sft"}, "method", "from rewards"),
        ({"adapter__quantization": "nf4"}, "adapter.quantization", "no quantized base"),
        ({"adapter__method": "oft"}, "adapter.method", "Take lora or none"),
        (
            {"reinforcement__rewards": [{"kind": "length", "unit": "tokens", "target": 9}]},
            "reinforcement.rewards",
            "count words",
        ),
        (
            {"reinforcement__rewards": [{"kind": "judge", "model": "m"}]},
            "reinforcement.rewards",
            "its key stays here",
        ),
        (
            {"training__per_device_train_batch_size": 16},
            "training.per_device_train_batch_size",
            "Take 24",
        ),
    ],
)
def test_what_verl_cannot_do_is_said_at_its_field(
    changes: dict[str, Any], field: str, says: str
) -> None:
    machines = 3 if field.startswith("training") else 1
    (problem,) = job_problems(config(**changes), Cluster(machines, 8))
    assert problem.field == field and says in problem.message
    with pytest.raises(ConfigError):
        verl_settings(config(**changes), Cluster(machines, 8), "one")


def test_the_command_writes_the_folder(
    opened: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(config().to_yaml(full=False))
    words = ["verl", str(path), "--output", str(tmp_path / "job"), "--gpus", "4"]
    code = cli.main([*words, "--workspace", str(opened.root), "--json"])
    said = json.loads(capsys.readouterr().out)
    assert code == 0, said
    assert said["rows"] == {"train": 3} and said["unknown"] == {} and said["verl"] == VERSION
    assert (tmp_path / "job" / "rewards" / "mine.py").is_file()
