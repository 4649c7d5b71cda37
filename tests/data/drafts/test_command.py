"""What the page does with drafts, the shell does."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from core.cli import _Parser
from core.commands import data_drafts
from core.commands.opening import common_arguments
from core.commands.output import Output, UsageError
from core.data.drafts.settings import DraftSettings
from tests.data.drafts.conftest import KEY, questions


def parser() -> Any:
    built = _Parser(prog="data")
    data_drafts.add(built.add_subparsers(required=True), common_arguments())
    return built


@pytest.fixture
def shell(make_dataset: Any, endpoint: Any) -> Any:
    """(runs words as `data ...` on a workspace, the id of its data set)."""
    workspace, info = make_dataset(questions())

    def call(*words: str) -> dict[str, Any]:
        args = parser().parse_args([*words, "--workspace", str(workspace.root), "--json"])
        stream = io.StringIO()
        assert args.run(args, Output(as_json=True, stream=stream)) == 0
        result: dict[str, Any] = json.loads(stream.getvalue())
        return result

    return call, info.id


def test_from_a_request_to_rows_in_the_data_set(shell: Any, capsys: Any) -> None:
    call, dataset = shell
    made = call(
        *("generate", dataset, "--kind", "more_like", "--model", "big", "--rows", "6"),
        *("--requests-per-minute", "60000", "--token-budget", "none"),
    )
    assert made["state"] == "finished" and made["tally"]["drafts"] == 6
    assert made["settings"]["token_budget"] is None
    row = json.dumps({"prompt": "2 + 2?", "completion": "4"})
    seen = call("drafts", dataset, "--accept", "1,3-4", "--reject", "2", "--edit", "1", row)
    assert [draft["status"] for draft in seen["drafts"]] == (
        ["accepted", "rejected", "accepted", "accepted", "new", "new"]
    )
    done = call("drafts", dataset, "--accept", "all", "--apply", "--status", "taken")
    assert done["applied_to"] == dataset and done["count"] == 5
    assert done["drafts"][0]["row"]["completion"][0]["content"] == "4"
    more = call("generate", dataset, "--resume", made["task"], "--rows", "8")
    assert more["tally"]["drafts"] == 8 and more["tally"]["taken"] == 5
    said = capsys.readouterr()
    assert KEY not in said.out + said.err and "asking 127.0.0.1" in said.err


def test_words_that_make_no_sense_are_wrong_use(shell: Any) -> None:
    call, dataset = shell
    assert call("drafts", dataset) == {"tasks": []}
    made = call(
        "generate", dataset, "--model", "big", "--rows", "1", "--requests-per-minute", "60000"
    )
    for words in (["--accept", "one"], ["--accept", "1-"], ["--edit", "1", "{"]):
        with pytest.raises(UsageError):
            call("drafts", dataset, *words)
    assert call("drafts", dataset, "--task", made["task"], "--delete") == {"deleted": made["task"]}


def test_every_setting_has_its_option_and_its_help(capsys: Any) -> None:
    assert set(data_drafts.SETTINGS) == set(DraftSettings.model_fields)
    with pytest.raises(SystemExit):
        parser().parse_args(["generate", "--help"])
    said = capsys.readouterr().out
    assert all(f"--{name.replace('_', '-')}" in said for name in data_drafts.SETTINGS)
    assert "Takes a number from 0 to 2" in said
