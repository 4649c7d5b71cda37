"""What is found on the Hub can be used here, and how much it is is known before it is fetched."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from core.hub.search import MOST
from tests.hub.conftest import ROOT, environment
from tests.hub.stand_in import WRITES, Hub
from tests.hub.test_account import command
from tests.waiting import end_of
from tests.warm_python import with_commands

MODEL = {
    "config.json": b"{}",
    "model.safetensors": b"w" * 5000,
    "tokenizer.json": b"t" * 300,
    "pytorch_model.bin": b"p" * 5000,
    "model.gguf": b"g" * 900,
}
USABLE: dict[str, Any] = {
    "tags": ["transformers", "safetensors", "license:apache-2.0"],
    "library_name": "transformers",
    "pipeline_tag": "text-generation",
    "safetensors": {"parameters": {"BF16": 2000, "F8_E4M3": 1000}, "total": 3000},
}


def found(hub: Hub, home: Path, *words: str) -> list[dict[str, Any]]:
    done = command(hub, home, "hub", "search", "--json", *words)
    assert done.returncode == 0, done.stderr
    answer: list[dict[str, Any]] = json.loads(done.stdout)["found"]
    return answer


def tagged(*more: str) -> dict[str, Any]:
    return {**USABLE, "tags": [*USABLE["tags"], *more]}


def test_models_that_can_be_used_are_found(hub: Hub, tmp_path: Path) -> None:
    hub.holds("lab/tiny-chat", MODEL, **USABLE, downloads=7)
    hub.holds("ada/tiny-closed", MODEL, **USABLE, downloads=70, gated="manual")
    encoder = {"pipeline_tag": "fill-mask", "safetensors": None}
    hub.holds("lab/tiny-encoder", MODEL, **{**USABLE, **encoder})
    hub.holds("lab/other", MODEL, **USABLE)
    for name, told in {
        "gguf": {**USABLE, "tags": ["gguf", "transformers"]},
        "pickle": {**USABLE, "tags": ["pytorch", "transformers"]},
        "pictures": {**USABLE, "pipeline_tag": "text-to-image"},
        "adapter": tagged("base_model:adapter:lab/tiny-chat"),
        "own-code": tagged("custom_code"),
        "four-bits": tagged("gptq"),
        "for-macs": {**USABLE, "tags": ["mlx", "safetensors"], "library_name": "mlx"},
    }.items():
        hub.holds(f"lab/tiny-{name}", MODEL, **told)
    closed, chat, encoder = found(hub, tmp_path, "tiny")
    assert chat == {
        "repo_id": "lab/tiny-chat",
        "kind": "model",
        "size_bytes": 5000,
        "parameters": 3000,
        "licence": "apache-2.0",
        "downloads": 7,
        "gated": False,
        "url": f"{hub.endpoint}/lab/tiny-chat",
    }
    assert closed["repo_id"] == "ada/tiny-closed" and closed["gated"]
    assert encoder["repo_id"] == "lab/tiny-encoder" and encoder["size_bytes"] is None
    text = command(hub, tmp_path, "hub", "search", "tiny", "c").stdout
    assert "Nothing that can be used" in text
    text = command(hub, tmp_path, "hub", "search", "tiny").stdout
    assert f"on request: {hub.endpoint}/ada/tiny-closed" in text and "5.0 kB" in text


def test_data_sets_are_found(hub: Hub, tmp_path: Path) -> None:
    tags = ["modality:text", "format:parquet", "license:mit"]
    hub.holds("lab/towns", {}, "dataset", tags=tags, mainSize=12345)
    hub.holds("lab/towns-pictures", {}, "dataset", tags=["modality:text", "format:imagefolder"])
    hub.holds("lab/towns-model", MODEL, **USABLE)
    (towns,) = found(hub, tmp_path, "towns", "--datasets")
    assert towns["repo_id"] == "lab/towns" and towns["size_bytes"] == 12345
    assert towns["licence"] == "mit" and towns["url"] == f"{hub.endpoint}/datasets/lab/towns"


def test_no_more_than_can_be_looked_through(hub: Hub, tmp_path: Path) -> None:
    for n in range(MOST + 3):
        hub.holds(f"lab/tiny-{n}", MODEL, **USABLE, downloads=n)
    names = [one["repo_id"] for one in found(hub, tmp_path, "tiny")]
    assert names == [f"lab/tiny-{n}" for n in reversed(range(3, MOST + 3))]


def test_refusals_say_what_to_do(hub: Hub, tmp_path: Path) -> None:
    def refused(*words: str, **more: str) -> str:
        done = command(hub, tmp_path, "hub", *words, **more)
        assert done.returncode == 1 and "Traceback" not in done.stderr, done
        assert done.stdout == "" and "hf_" not in done.stderr
        return str(done.stderr)

    for words in (("search", "tiny"), ("search", "tiny", "--datasets"), ("pull", "lab/tiny")):
        assert "HF_HUB_OFFLINE forbids" in refused(*words, HF_HUB_OFFLINE="1")
        silent = refused(*words, HF_ENDPOINT="http://127.0.0.1:9")
        assert "cannot be reached" in silent and "hf-mirror.com" in silent
        assert "does not accept your token" in refused(*words, HF_TOKEN="hf_nobodyHasThis")
        hub.fails("/api/", status=429, headers={"Retry-After": "77"}, times=9)
        assert "Try again in 77 s" in refused(*words)
        hub.faults.clear()
        for page in ("<html>", '{"a": 1}'):
            hub.fails("/api/", status=200, message=page, times=9)
            assert "is not the Hub" in refused(*words)
            hub.faults.clear()


def test_a_model_is_pulled_without_what_is_not_used(hub: Hub, tmp_path: Path) -> None:
    hub.holds("lab/tiny", MODEL, **USABLE)
    done = command(hub, tmp_path, "hub", "pull", "lab/tiny", "--json")
    assert done.returncode == 0, done.stderr
    assert "lab/tiny: 3 files, 5.3 kB" in done.stderr
    told = json.loads(done.stdout)
    folder = Path(told["folder"])
    assert told["pulled"]["size_bytes"] == 5302 and tmp_path in folder.parents
    kept = {"config.json", "model.safetensors", "tokenizer.json"}
    assert {one.name for one in folder.iterdir()} == kept
    assert (folder / "model.safetensors").read_bytes() == MODEL["model.safetensors"]
    assert (folder.parents[1] / "refs" / "main").read_text() == folder.name, "found by its name"


def test_a_revision_is_pulled(hub: Hub, tmp_path: Path) -> None:
    hub.holds("lab/tiny", MODEL, **USABLE)
    repository = hub.repository("lab/tiny")
    repository.commit("old", {}, "a branch", parent="main")
    done = command(hub, tmp_path, "hub", "pull", "lab/tiny", "--revision", "old", "--json")
    assert Path(json.loads(done.stdout)["folder"]).name == repository.branches["old"]
    done = command(hub, tmp_path, "hub", "pull", "lab/tiny", "--revision", "new")
    assert done.returncode == 1 and "no such branch" in done.stderr


@pytest.mark.parametrize(
    "files, told",
    [
        ({"model.gguf": b"g"}, "holds no model"),
        ({"config.json": b"{}", "pytorch_model.bin": b"p"}, "holds no model"),
        ({"adapter_config.json": b"{}", "a.safetensors": b"a"}, "holds an adapter"),
    ],
)
def test_what_is_no_model_is_not_fetched(
    hub: Hub, tmp_path: Path, files: dict[str, bytes], told: str
) -> None:
    hub.holds("lab/tiny", files)
    done = command(hub, tmp_path, "hub", "pull", "lab/tiny")
    assert done.returncode == 1 and told in done.stderr
    assert not [one for one in hub.asked if "/resolve/" in one]


def test_a_gated_model_says_where_access_is_asked_for(hub: Hub, tmp_path: Path) -> None:
    hub.holds("lab/tiny", MODEL, **USABLE, gated="auto")
    done = command(hub, tmp_path, "hub", "pull", "lab/tiny", HF_TOKEN=WRITES)
    assert done.returncode == 1 and "is gated" in done.stderr and hub.endpoint in done.stderr
    assert not [one for one in hub.asked if "/resolve/" in one]


def test_ctrl_c_stops_a_download_that_goes_on_later(hub: Hub, tmp_path: Path) -> None:
    hub.holds("lab/tiny", MODEL, **USABLE)
    held = hub.fails("GET /lab/tiny/resolve", hold=True)
    process = subprocess.Popen(
        [with_commands(), "-m", "core.cli", "hub", "pull", "lab/tiny"],
        env=environment(hub, tmp_path),
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    held.reached.wait()
    process.send_signal(signal.SIGINT)
    held.release.set()
    _out, err = end_of(process)
    assert process.returncode == 130 and "Stopped." in err and "Traceback" not in err, err
    done = command(hub, tmp_path, "hub", "pull", "lab/tiny")
    assert done.returncode == 0 and "lab/tiny is here" in done.stdout


def test_the_size_of_a_data_set_is_that_of_its_rows(hub: Hub, tmp_path: Path) -> None:
    files = {"README.md": b"#", "data/a.parquet": b"p" * 90, "b.jsonl.gz": b"j" * 7, "c.png": b"x"}
    hub.holds("lab/towns", files, "dataset")
    code = "from core.hub.pull import look; d = look('lab/towns', 'dataset'); print(d.size_bytes)"
    done = subprocess.run(
        [with_commands(), "-c", code],
        env=environment(hub, tmp_path),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "97\n"
