"""A data set on the Hub: what others get with `datasets`, and what its card says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from datasets import load_dataset

from core.data.prepare import import_dataset
from core.data.record import DatasetInfo
from core.data.registry import read_rows
from core.data.steps import parse_steps
from core.workspace import Workspace
from tests.hub.conftest import Client
from tests.hub.stand_in import Hub


@pytest.fixture
def towns(workspace: Path) -> DatasetInfo:
    """Twenty questions, four of them held out; one step was done to them."""
    opened = Workspace.open(workspace)
    source = workspace / "towns.jsonl"
    rows = [{"q": f"Where is {n}?", "a": f"In {n} {n}", "from": f"book {n}"} for n in range(20)]
    source.write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0]]))
    return import_dataset(
        opened,
        [source],
        name="Towns | of the *world*",
        mapping={"prompt": "q", "completion": "a"},
        eval_fraction=0.2,
        steps=parse_steps([{"op": "drop_duplicates"}]),
    )


@pytest.fixture
def push(client: Client, workspace: Path, towns: DatasetInfo) -> Any:
    def push(do: str = "push", **settings: Any) -> dict[str, Any]:
        settings = {"repo_id": "ada/towns", **settings}
        return client(do=do, workspace=str(workspace), dataset=towns.id, settings=settings)

    return push


def test_others_get_the_rows_with_their_splits(
    hub: Hub, push: Any, workspace: Path, towns: DatasetInfo, tmp_path: Path
) -> None:
    result = push()
    assert result["url"] == f"{hub.endpoint}/datasets/ada/towns", result
    there = hub.repository("ada/towns", "dataset").files()
    assert set(there) == {
        ".gitattributes",
        "README.md",
        "data/train.parquet",
        "data/validation.parquet",
    }
    for path, content in there.items():
        (tmp_path / "got" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "got" / path).write_bytes(content)
    found = load_dataset(str(tmp_path / "got"), cache_dir=str(tmp_path / "cache"))
    for split, part in (("train", "train"), ("validation", "eval")):
        rows = read_rows(Workspace.open(workspace), towns.id, part, limit=100)
        assert len(rows) == getattr(towns.counts, part) == len(found[split])
        asked = [row["prompt"][0]["content"] for row in rows]
        assert [row["prompt"][0]["content"] for row in found[split]] == asked
        assert "_digest" not in found[split].column_names


def test_the_card_says_what_it_is_and_how_it_was_made(
    hub: Hub, push: Any, workspace: Path, towns: DatasetInfo
) -> None:
    push()
    card = hub.repository("ada/towns", "dataset").files()["README.md"].decode()
    _, front, text = card.split("---", 2)
    told = yaml.safe_load(front)
    assert "license" not in told and told["size_categories"] == ["n<1K"]
    assert f"| train | {towns.counts.train} |" in text and "| prompt | list<" in text
    recipe = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    assert [step["op"] for step in recipe["steps"]] == ["drop_duplicates", "split"]
    assert recipe["mapping"] == {"prompt": "q", "completion": "a"}
    assert "towns.jsonl: 21 rows" in text and "which licence it has" in text
    assert str(workspace) not in card


def test_it_is_sent_once_and_what_was_made_for_it_is_gone(
    hub: Hub, push: Any, workspace: Path
) -> None:
    assert push()["sent"] == 3 and push()["sent"] == 0
    assert list((workspace / "uploads").glob(".push-*")) == []
    jobs = [path.name for path in (workspace / "jobs").iterdir()]
    assert len(jobs) == 2


def test_the_sample_says_its_licence(hub: Hub, client: Client, workspace: Path) -> None:
    settings = {"repo_id": "ada/sample"}
    client(do="push", workspace=str(workspace), dataset="sample", settings=settings)
    card = hub.repository("ada/sample", "dataset").files()["README.md"].decode()
    assert "license: apache-2.0" in card


def test_a_data_set_that_is_not_there_is_told(hub: Hub, client: Client, workspace: Path) -> None:
    settings = {"repo_id": "ada/x"}
    came = client(do="plan", workspace=str(workspace), dataset="nothing", settings=settings)
    assert "no data set nothing" in came["error"] and hub.asked == []
