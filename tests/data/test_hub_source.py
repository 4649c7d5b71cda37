"""Data sets of the Hub: what is asked for is fetched, and what is refused is told plainly."""

from __future__ import annotations

import io
import json
import os
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.data.read.sources import HubSource, parse_hub_source
from core.errors import DataError
from tests.data.hub_of_datasets import COMMIT, DatasetHub, serving
from tests.waiting import LIMIT

TRAIN = [{"q": f"question {n}", "a": "yes"} for n in range(40)]
CARD = b"""---
configs:
- config_name: english
  data_files: en.jsonl
- config_name: german
  data_files: de.jsonl
---
"""
COUNTED = b"""---
dataset_info:
  features:
  - name: text
    dtype: string
  splits:
  - name: train
    num_examples: 40
    num_bytes: 400
---
"""


def lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def parquet(rows: list[dict[str, Any]]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file.getvalue()


TEXTS = [{"text": f"text {n}"} for n in range(40)]
SETS = {
    "me/plain": {"train.jsonl": lines(TRAIN), "test.jsonl": lines(TRAIN[:3])},
    "me/several": {"README.md": CARD, "en.jsonl": lines(TRAIN), "de.jsonl": lines(TRAIN[:5])},
    "me/counted": {"README.md": COUNTED, "train.parquet": parquet(TEXTS)},
    "me/turns": {"train.parquet": parquet([{"messages": [{"role": "user", "content": "hi"}]}])},
    "me/script": {"script.py": b"raise SystemExit('the code of a data set was run')"},
    "me/pictures": {"one.xyz": b"what is this"},
    "me/gated": {"train.jsonl": lines(TRAIN)},
    "me/private": {"train.jsonl": lines(TRAIN)},
}


class Worker:
    """A process that fetches, with a Hub of its own."""

    def __init__(self, endpoint: str, home: Path, **environment: str) -> None:
        inherited = {key: os.environ[key] for key in os.environ if not key.startswith("HF_")}
        root = Path(__file__).parents[2]
        own = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "PYTHONPATH": str(root)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.data.hub_child"],
            cwd=root,
            env=inherited | own | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def fetch(self, source: str, **case: Any) -> dict[str, Any]:
        assert self._process.stdin and self._process.stdout
        print(json.dumps({"source": source, **case}), file=self._process.stdin, flush=True)
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def end(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(LIMIT)


@pytest.fixture(scope="module")
def hub() -> Iterator[DatasetHub]:
    stand_in = DatasetHub(
        SETS, gated=frozenset({"me/gated"}), private=frozenset({"me/private"}), token="hf_right"
    )
    with serving(stand_in):
        yield stand_in


@pytest.fixture(scope="module")
def worker(hub: DatasetHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    process = Worker(hub.endpoint, tmp_path_factory.mktemp("hub"))
    yield process
    process.end()


def test_all_rows_of_a_split_come_with_their_origin(worker: Worker) -> None:
    """A run must be able to say exactly which data it learned from."""
    found = worker.fetch("hf:me/plain?split=test")
    assert found["rows"] == TRAIN[:3]
    assert found["origin"] == {
        "hub": "me/plain",
        "config": "default",
        "split": "test",
        "revision": COMMIT,
        "asked_revision": "main",
        "rows": 3,
        "chosen": "all rows",
    }
    assert found["told"][-1] == "Downloading me/plain: 3 rows"


def test_the_first_rows_are_fetched_for_a_look(worker: Worker) -> None:
    assert worker.fetch("hf:me/plain", limit=2)["rows"] == TRAIN[:2]


def test_a_config_is_chosen(worker: Worker) -> None:
    found = worker.fetch("hf:me/several?config=german")
    assert len(found["rows"]) == 5 and found["origin"]["config"] == "german"


def test_nested_rows_come_whole(worker: Worker) -> None:
    found = worker.fetch("hf:me/turns")
    assert found["rows"] == [{"messages": [{"role": "user", "content": "hi"}]}]


def test_a_share_is_the_first_rows_while_streaming(worker: Worker) -> None:
    found = worker.fetch("hf:me/counted?fraction=0.25")
    assert found.get("rows") == TEXTS[:10], found
    assert found["origin"]["chosen"] == "the first 10 of 40"


@pytest.mark.parametrize("source", ["hf:me/counted?fraction=0.25&streaming=false"])
def test_a_share_is_drawn_with_a_seed_otherwise(worker: Worker, source: str) -> None:
    found = worker.fetch(source)
    assert found["rows"] == [TEXTS[n] for n in sorted(random.Random(42).sample(range(40), 10))]
    assert found["origin"]["chosen"] == "10 of 40, seed 42"


def test_a_share_of_an_unknown_number_of_rows_is_drawn_and_says_so(worker: Worker) -> None:
    """A share of something that is streamed and not counted cannot be known."""
    found = worker.fetch("hf:me/plain?fraction=0.5")
    assert len(found["rows"]) == 20
    assert found["origin"]["chosen"] == "20 of 40, seed 42"


def test_a_private_set_comes_with_the_right_token(worker: Worker, hub: DatasetHub) -> None:
    found = worker.fetch("hf:me/private", token="hf_right")
    assert found["rows"] == TRAIN and "hf_right" in hub.tokens
    assert "hf_right" not in json.dumps(found)


@pytest.mark.parametrize(
    ("source", "token", "message", "hint"),
    [
        ("hf:me/plain?split=validation", None, "no split validation", "train, test"),
        ("hf:me/several", None, "several configs", "english, german"),
        ("hf:me/several?config=french", None, "no config french", "english, german"),
        ("hf:me/plain?revision=v9", None, "no revision v9", "main"),
        ("hf:me/missing", None, "no data set me/missing", "log in"),
        ("hf:me/missing", "hf_right", "no data set me/missing", "spelling"),
        ("hf:me/private", None, "or hides it", "log in"),
        ("hf:me/gated", None, "is gated", "Ask for it"),
        ("hf:me/gated", "hf_right", "is gated", "Ask for it"),
        ("hf:me/plain", "hf_wrong", "refused your token", "Log in again"),
        ("hf:me/script", None, "scripts are no longer supported", "another"),
        ("hf:me/pictures", None, "no files of rows", "Parquet"),
    ],
)
def test_what_the_hub_refuses_is_told(
    worker: Worker, source: str, token: str | None, message: str, hint: str
) -> None:
    """Each refusal needs another mend: a login, a request, another name."""
    found = worker.fetch(source, **({"token": token} if token else {}))
    assert message in found["error"] and hint in found["hint"], found
    assert "hf_" not in found["error"] + found["hint"]


def test_without_a_network_it_ends_soon(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
    worker = Worker(nobody, tmp_path)
    found = worker.fetch("hf:me/plain")
    worker.end()
    assert f"{nobody} does not answer" in found["error"]
    assert "network" in found["hint"] and "HF_ENDPOINT=https://hf-mirror.com" in found["hint"]


def test_offline_nothing_is_asked(hub: DatasetHub, tmp_path: Path) -> None:
    before = len(hub.asked)
    worker = Worker(hub.endpoint, tmp_path, HF_HUB_OFFLINE="1")
    found = worker.fetch("hf:me/plain")
    worker.end()
    assert "HF_HUB_OFFLINE" in found["error"] and len(hub.asked) == before


@pytest.mark.parametrize(
    "source",
    [
        HubSource("stanfordnlp/imdb"),
        HubSource("me/set.v1", "a b&c", "test", "v1", 0.25, streaming=False),
        HubSource("me/set", split="train+test"),
    ],
)
def test_a_source_is_written_and_read_again(source: HubSource) -> None:
    assert parse_hub_source(str(source)) == source


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hf:", "not the name"),
        ("hf:../../etc", "not the name"),
        ("hf:a/b/c", "not the name"),
        ("hf:me/plain?spilt=test", "not known: spilt"),
        ("hf:me/plain?fraction=2", "fraction of 2.0"),
        ("hf:me/plain?fraction=nan", "fraction of nan"),
        ("hf:me/plain?fraction=all", "not a number"),
        ("hf:me/plain?streaming=maybe", "neither true nor false"),
        ("hf:json", "not the name"),
        ("hf:buckets/mine", "not the name"),
    ],
)
def test_a_wrong_source_is_refused_before_anything_is_asked(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse_hub_source(text)
