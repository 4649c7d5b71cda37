"""Functions of the owner's own, from the workspace's folder and from nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.errors import TrainingError
from core.rewards.build import RewardFunction, reward_functions
from core.rewards.specs import parse_rewards
from core.rules.data import rewards_problems
from core.workspace import Workspace

PROMPTS = [[{"role": "user", "content": text}] for text in ("Capital of France?", "2 + 2?")]
COMPLETIONS = [[{"role": "assistant", "content": text}] for text in ("Paris", "5")]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path)


def put(workspace: Workspace, code: str, name: str = "mine.py") -> dict[str, Any]:
    workspace.rewards.mkdir(exist_ok=True)
    (workspace.rewards / name).write_text(code, encoding="utf-8")
    return {"kind": "own", "file": name, "function": "reward"}


def built(workspace: Workspace, value: dict[str, Any]) -> RewardFunction:
    (function,) = reward_functions(parse_rewards([value]), workspace, None, "cpu")
    return function


def test_one_answer_at_a_time(workspace: Workspace) -> None:
    value = put(
        workspace,
        "def reward(completion, answer, prompt, level=0):\n"
        "    assert prompt.startswith('user: ')\n"
        "    return (completion == answer) + level\n",
    )
    function = built(workspace, value)
    assert function.__name__ == "reward"
    assert function(PROMPTS, COMPLETIONS, answer=["Paris", "4"]) == [1.0, 0.0]
    found = function(PROMPTS, COMPLETIONS, answer=["Paris", "4"], level=[0.5, 0.25])
    assert found == [1.5, 0.25]


def test_all_at_once_as_the_library_calls_it(workspace: Workspace) -> None:
    """Functions out of TRL's own documentation would not run."""
    code = (
        "import numpy\n"
        "def reward(completions, **columns):\n"
        "    assert 'prompts' in columns and 'trainer_state' in columns\n"
        "    return numpy.array([len(c[0]['content']) for c in completions])\n"
    )
    function = built(workspace, put(workspace, code))
    assert function(PROMPTS, COMPLETIONS, trainer_state=object()) == [5.0, 1.0]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("def reward(completion):\n    x = 1\n    return x / 0", r"mine.py, line 3: ZeroDivision"),
        ("def reward(completion):\n    return float('nan')", r"it gave nan"),
        ("def reward(completion):\n    return 'good'", r"it gave 'good'"),
        ("def reward(completions):\n    return [1.0]", r"it gave 1 values for 2 answers"),
        ("def reward(completions):\n    return 1.0", r"it gave float, not a list"),
        ("def reward(completion, topic):\n    return 1", r"asks for topic"),
    ],
)
def test_what_goes_wrong_in_it_ends_the_run_and_names_the_place(
    workspace: Workspace, code: str, said: str
) -> None:
    """A run would go on with rewards that mean nothing."""
    function = built(workspace, put(workspace, code))
    with pytest.raises(TrainingError, match=rf"The reward function reward failed.*{said}"):
        function(PROMPTS, COMPLETIONS)


def test_the_answer_it_failed_at_is_named(workspace: Workspace) -> None:
    function = built(
        workspace, put(workspace, "def reward(completion):\n    return int(completion)")
    )
    with pytest.raises(TrainingError) as caught:
        function(PROMPTS[::-1], COMPLETIONS[::-1], row=[7, 3])
    assert "at row 3, answer 2 of 2 (prompt 'user: Capital of France?')" in caught.value.message
    assert "mine.py, line 2: ValueError" in caught.value.message


def test_none_says_that_it_does_not_apply(workspace: Workspace) -> None:
    code = "def reward(completion):\n    return None if completion == '5' else 2"
    assert built(workspace, put(workspace, code))(PROMPTS, COMPLETIONS) == [2.0, None]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("def reward(completion)\n    return 1", "mine.py, line 1: expected ':'"),
        ("import nothing_like_this", "mine.py cannot be loaded: line 1: ModuleNotFoundError"),
        ("def other(completion):\n    return 1", "has no function reward"),
        ("def reward(text):\n    return 1", "takes neither completion nor completions"),
        ("async def reward(completion):\n    return 1", "is asynchronous"),
    ],
)
def test_a_file_that_cannot_be_used_is_told_apart(
    workspace: Workspace, code: str, said: str
) -> None:
    value = put(workspace, code)
    with pytest.raises(TrainingError) as caught:
        built(workspace, value)
    assert said in caught.value.message and "Reward function reward: " in caught.value.message


def test_what_is_missing_is_said_before_the_run_without_running_it(workspace: Workspace) -> None:
    value = put(workspace, "raise SystemExit\ndef reward(completion):\n    return 1")
    assert rewards_problems([value], workspace) == []
    (problem,) = rewards_problems([{**value, "function": "other"}], workspace)
    assert "has no function other. It has reward." in problem.message
    (problem,) = rewards_problems([{**value, "file": "gone.py"}], workspace)
    assert "There is no file gone.py in" in problem.message
    (problem,) = rewards_problems([{"kind": "exact_answer"}], workspace, has_answers=False)
    assert "no reference answers" in problem.message


def test_a_link_out_of_the_folder_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    """Code from anywhere on the machine could be run by a config."""
    value = put(workspace, "")
    (tmp_path / "elsewhere.py").write_text("def reward(completion):\n    return 1")
    (workspace.rewards / "mine.py").unlink()
    (workspace.rewards / "mine.py").symlink_to(tmp_path / "elsewhere.py")
    with pytest.raises(TrainingError, match="leads out of the folder"):
        built(workspace, value)


def test_a_schema_comes_from_a_file(workspace: Workspace) -> None:
    put(workspace, '{"type": "array"}', "list.json")
    value = {"kind": "json_schema", "schema_file": "list.json"}
    assert built(workspace, value)(["a", "b"], ["[1]", "{}"]) == [1.0, 0.0]
    put(workspace, '{"type": "arrays"}', "list.json")
    (problem,) = rewards_problems([value], workspace)
    assert "list.json is no JSON Schema: type: 'arrays'" in problem.message
