"""`data` in the shell: everything that the page does to a data set, with the same functions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from core import cli
from tests.cli_bench import make_chat_model

Typed = tuple[int, str, str]


@pytest.fixture
def typed(
    workspace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Typed]:
    """Runs a command in this process; gives exit code, standard output, standard error."""
    monkeypatch.setenv("TUNESMITH_WORKSPACE", str(workspace))
    monkeypatch.setenv("TUNESMITH_ALLOW", "")

    def run(*words: str) -> Typed:
        code = cli.main(words)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def asked(typed: Callable[..., Typed]) -> Callable[..., Any]:
    """The JSON of a command that succeeds."""

    def run(*words: str) -> Any:
        code, out, err = typed(*words, "--json")
        assert code == 0, err
        return json.loads(out)

    return run


@pytest.fixture
def topics(asked: Callable[..., Any], tmp_path: Path) -> str:
    """60 labelled texts from a file with options, as multiple-choice questions have them."""
    path = tmp_path / "topics.jsonl"
    rows = [
        {"question": f"Which {n}?", "options": ["one", "two"], "category": category}
        for n, category in enumerate(["law", "math", "art"] * 20)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    info = asked(
        "data",
        "import",
        str(path),
        "--form",
        "labelled-text",
        "--map",
        "text={question}\n{options}",
        "--map",
        "label=category",
        "--eval-fraction",
        "0",
        "--save-mapping",
        "choices",
    )
    assert (info["form"], info["counts"]["train"]) == ("labelled-text", 60)
    return str(info["dataset"])


def test_labels_are_mapped_capped_and_split(asked: Callable[..., Any], topics: str) -> None:
    info = asked(
        "data",
        "prepare",
        topics,
        "--step",
        "rename_labels names='{law: legal}' others=general",
        "--step",
        "cap_per_class most=15",
        "--step",
        "split eval_fraction=0.2 stratify=true",
    )
    assert info["labels"] == {"general": 12, "legal": 12}
    assert info["counts"]["eval"] == 6
    assert [step["dropped"] for step in info["steps"]] == [0, 30, 0]
    shown = asked("data", "inspect", topics)
    assert shown["rows"][0]["text"].endswith("?\none\ntwo")


def test_trying_changes_nothing_and_undo_goes_back(
    asked: Callable[..., Any], typed: Callable[..., Typed], topics: str
) -> None:
    tried = asked("data", "prepare", topics, "--step", "sample rows=10", "--try")
    assert tried["results"][0]["dropped"] == 50
    assert len(asked("data", "versions", topics)["versions"]) == 1
    assert asked("data", "prepare", topics, "--step", "sample rows=10")["counts"]["train"] == 10
    assert asked("data", "undo", topics)["counts"]["train"] == 60
    code, _, err = typed("data", "undo", topics)
    assert code == 1 and "nothing to undo" in err
    assert asked("data", "versions", topics, "--use", "2")["version"] == 2


def test_a_recipe_makes_the_same_kind_of_set_of_a_new_file(
    asked: Callable[..., Any], topics: str, tmp_path: Path
) -> None:
    asked("data", "prepare", topics, "--step", "cap_per_class most=5", "--note", "small")
    recipe = tmp_path / "recipe.yaml"
    asked("data", "export", topics, str(recipe))
    assert yaml.safe_load(recipe.read_text())["steps"] == [{"op": "cap_per_class", "most": 5}]
    new = asked(
        "data",
        "import",
        str(tmp_path / "topics.jsonl"),
        "--recipe",
        str(recipe),
        "--eval-fraction",
        "0",
        "--name",
        "again",
    )
    assert new["labels"] == {"law": 5, "math": 5, "art": 5}
    steps = tmp_path / "steps.yaml"
    steps.write_text("- op: sample\n  rows: 4\n")
    replaced = asked("data", "prepare", "again", "--steps", str(steps))
    assert [step["step"]["op"] for step in replaced["steps"]] == ["sample"]
    assert replaced["counts"]["train"] == 4


def test_a_saved_mapping_reads_the_next_file(
    asked: Callable[..., Any], topics: str, tmp_path: Path
) -> None:
    info = asked(
        "data",
        "import",
        str(tmp_path / "topics.jsonl"),
        "--saved-mapping",
        "choices",
        "--name",
        "next",
    )
    assert info["mapping"] == {"text": "{question}\n{options}", "label": "category"}
    (saved,) = asked("data", "mappings")["mappings"]
    assert (saved["name"], saved["columns"]) == ("choices", ["category", "options", "question"])
    assert asked("data", "mappings", "--delete", "choices")["mappings"] == []


def test_rows_go_out_as_lines_and_as_parquet(
    asked: Callable[..., Any], typed: Callable[..., Typed], topics: str, tmp_path: Path
) -> None:
    asked("data", "prepare", topics, "--step", "split eval_fraction=0.5")
    lines = tmp_path / "out" / "rows.jsonl"
    assert asked("data", "export", topics, str(lines))["rows"] == 60
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    assert {row["part"] for row in rows} == {"train", "eval"}
    first = next(row for row in rows if row["question"] == "Which 0?")
    assert first["labels"] == ["law"] and first["text"] == "Which 0?\none\ntwo"
    table = tmp_path / "rows.parquet"
    assert asked("data", "export", topics, str(table), "--part", "train")["rows"] == 30
    assert set(pq.read_schema(table).names) == {"text", "labels", "meta"}
    code, _, err = typed("data", "export", topics, str(tmp_path / "rows.doc"))
    assert code == 1 and ".jsonl or .parquet" in err
    assert not (tmp_path / "rows.doc").exists()


def test_sets_are_put_together_renamed_and_listed(asked: Callable[..., Any], topics: str) -> None:
    both = asked("data", "combine", topics, f"{topics}:0.5", "--name", "both")
    assert both["counts"]["train"] == 90
    asked("data", "rename", "both", "Both of them", "--description", "for a trial")
    listed = {one["id"]: one for one in asked("data", "list")["datasets"]}
    assert listed["both"]["name"] == "Both of them"
    assert listed["both"]["description"] == "for a trial"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--step", "cap_per_clas most=5"], 1, "did you mean cap_per_class"),
        (["--step", "cap_per_class most=0"], 2, "cap_per_class.most"),
        (["--step", "cap_per_class 5"], 2, "NAME=VALUE"),
        ([], 2, "Name a --step"),
    ],
)
def test_a_wrong_step_says_what_is_wrong(
    typed: Callable[..., Typed], topics: str, words: list[str], code: int, message: str
) -> None:
    found, _, err = typed("data", "prepare", topics, *words)
    assert found == code and message in err


def test_every_step_explains_itself(asked: Callable[..., Any]) -> None:
    """Whoever works in the shell reads the same words as on the page."""
    steps = asked("data", "steps")["steps"]
    assert {"drop_duplicates", "cap_per_class", "split"} <= {step["op"] for step in steps}
    for step in steps:
        assert step["title"]
        assert all(field["help"] and field["allowed"] for field in step["fields"]), step["op"]


def test_sources_of_every_kind_are_looked_at(
    asked: Callable[..., Any], typed: Callable[..., Typed], topics: str, tmp_path: Path
) -> None:
    (tmp_path / "many").mkdir()
    (tmp_path / "topics.jsonl").rename(tmp_path / "many" / "topics.jsonl")
    folder = asked("data", "inspect", str(tmp_path / "many"))
    assert (folder["container"], folder["total_rows"]) == ("folder", 60)
    rows = asked("data", "inspect", topics, "--row", "60", "--rows", "5")["rows"]
    assert [row["text"] for row in rows] == ["Which 59?\none\ntwo"]
    code, _, err = typed("data", "inspect", "no-such-set")
    assert code == 1 and "no data set no-such-set" in err


def test_statistics_are_told_in_the_shell(
    asked: Callable[..., Any], typed: Callable[..., Typed], topics: str, tmp_path: Path
) -> None:
    model = make_chat_model(tmp_path / "model")
    found = asked("data", "statistics", topics, "--model", str(model), "--max-length", "8")
    assert (found["rows"], found["rows_total"], found["complete"]) == (60, 60, True)
    assert found["cut_rows"] == 60 and dict(found["labels"]) == {"law": 20, "math": 20, "art": 20}
    code, out, _ = typed("data", "statistics", topics, "--model", str(model))
    assert code == 0 and "law 20" in out


def test_steps_are_tried_one_after_the_other(
    asked: Callable[..., Any], topics: str, tmp_path: Path
) -> None:
    """Each on its own would promise a person rows that a step before it has taken away."""
    asked("data", "prepare", topics, "--step", "sample rows=50")
    both = ("--step", "sample rows=20", "--step", "cap_per_class most=100")
    tried = asked("data", "prepare", topics, *both, "--try")["results"]
    assert [(one["rows_in"], one["rows_out"]) for one in tried] == [(50, 20), (20, 20)]
    steps = tmp_path / "steps.yaml"
    steps.write_text("- op: sample\n  rows: 55\n")
    replacing = asked("data", "prepare", topics, "--steps", str(steps), "--try")["results"]
    assert (replacing[0]["rows_in"], replacing[0]["rows_out"]) == (60, 55)


def test_a_step_that_could_do_nothing_says_why(
    asked: Callable[..., Any], typed: Callable[..., Typed], topics: str
) -> None:
    """0 leaks would be taken for a clean data set, when nothing was there to compare with."""
    leaks = ("data", "prepare", topics, "--step", "drop_leaks near=false")
    code, out, _ = typed(*leaks, "--try")
    assert code == 0 and "Put this step after a split" in out
    code, out, err = typed(*leaks)
    assert code == 0 and "Nothing is held out here" in out and "Nothing is held out here" in err
    both = asked("data", "prepare", topics, "--step", "split eval_fraction=0.2")["steps"]
    assert [one["step"]["op"] for one in both] == ["split", "drop_leaks"]
    assert [one["remark"] for one in both] == ["", ""]


def test_what_cannot_be_opened_is_listed_too(
    asked: Callable[..., Any], typed: Callable[..., Typed], topics: str, workspace: Path
) -> None:
    broken = workspace / "datasets" / "broken"
    broken.mkdir()
    (broken / "dataset.json").write_text("{")
    found = asked("data", "list")
    assert [one["id"] for one in found["datasets"]] == [topics]
    assert [one["dataset"] for one in found["damaged"]] == ["broken"]
    assert "broken cannot be opened" in typed("data", "list")[2]


def test_a_saved_mapping_brings_its_system_prompt(
    asked: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "talk.jsonl"
    path.write_text('{"ask": "1 + 1", "say": "2"}\n{"ask": "2 + 2", "say": "4"}\n')
    asked(
        "data",
        "import",
        str(path),
        "--map",
        "prompt=ask",
        "--map",
        "completion=say",
        "--system-prompt",
        "Be brief.",
        "--save-mapping",
        "sums",
    )
    info = asked("data", "import", str(path), "--saved-mapping", "sums", "--name", "next")
    assert info["system_prompt"] == "Be brief."
    shown = asked("data", "inspect", "next")["rows"][0]
    assert shown["prompt"][0] == {"role": "system", "content": "Be brief."}


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["import", "FOLDER/none.jsonl"], 1, "none.jsonl does not exist"),
        (["inspect", "FOLDER/none.jsonl"], 1, "none.jsonl does not exist"),
        (["import", "FOLDER/topics.jsonl", "--test-fraction", "1"], 2, "--test-fraction is"),
        (["import", "FOLDER/topics.jsonl", "--save-mapping", "../x"], 1, "is not an id"),
        (["statistics", "topics", "--max-length", "0"], 2, "--max-length is"),
        (["statistics", "topics", "--rows", "0"], 2, "--rows is"),
        (["tokens", "topics", "--row", "61", "--model", "MODEL"], 1, "no row 61"),
        (["prepare", "topics", "--step", "add_rows file=dataset.json"], 1, "Line 1 of dataset"),
    ],
)
def test_wrong_use_is_told_before_any_work(
    asked: Callable[..., Any],
    typed: Callable[..., Typed],
    topics: str,
    tmp_path: Path,
    words: list[str],
    code: int,
    message: str,
) -> None:
    if "MODEL" in words:
        words = [*words[:-1], str(make_chat_model(tmp_path / "model"))]
    found, _, err = typed("data", *(word.replace("FOLDER", str(tmp_path)) for word in words))
    assert found == code and message in err and "Traceback" not in err
    assert [one["id"] for one in asked("data", "list")["datasets"]] == [topics]
    assert len(asked("data", "versions", topics)["versions"]) == 1


def test_an_import_names_the_keys_of_turns_that_it_does_not_keep(
    asked: Callable[..., Any], typed: Callable[..., Typed], tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    answer = {"role": "assistant", "content": "a", "mood": "glad", "weight": 0}
    row = {"messages": [{"role": "user", "content": "q"}, answer]}
    path.write_text(f"{json.dumps(row)}\n" * 2, encoding="utf-8")
    _, out, err = typed("data", "import", str(path), "--eval-fraction", "0", "--name", "moods")
    assert "Keys of turns that are not used: mood (2 turns)." in err and "mood 2" in out
    info = asked("data", "inspect", "moods")
    assert info["unused_keys"] == {"mood": 2}
    assert info["rows"][0]["messages"][1]["weight"] == 0


def test_what_matters_and_is_not_used_is_a_warning(
    asked: Callable[..., Any], typed: Callable[..., Typed], tmp_path: Path
) -> None:
    """A script that reads --json must see that the pictures are gone, and which labels are one."""
    path = tmp_path / "rows.jsonl"
    rows = [
        {"text": f"Note {n}, long enough", "label": label, "image": "x.png"}
        for n, label in enumerate(["Refund", "refund"] * 10)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    info = asked("data", "import", str(path), "--name", "notes", "--eval-fraction", "0")
    picture, alike = info["warnings"]
    assert picture == "The column image is not used, and it looks like pictures."
    assert alike.endswith(
        "Merge them: data prepare notes --step \"rename_labels names='{refund: Refund}'\""
    )
    _, out, err = typed("data", "import", str(path), "--name", "again")
    assert f"Warning: {picture}" in err and "Not used" not in out


def test_answers_that_are_compared_are_asked_for(
    typed: Callable[..., Typed], tmp_path: Path
) -> None:
    """Exit code 0 would say that all is well while half of the rows is left out."""
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"prompt": "a", "answer_a": "b", "answer_b": "c"}) + "\n")
    code, _, err = typed("data", "import", str(path))
    assert code == 1 and "answer_a and answer_b hold different answers" in err
    assert "--form preference --map chosen=COLUMN" in err
    words = "data import --form preference --map chosen=answer_a --map rejected=answer_b"
    assert typed(*words.split(), str(path))[0] == 0
