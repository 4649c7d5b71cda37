"""`push` as a person types it: a real export, a real worker, and a token that stays where it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.jobs.job import Job, update_record, write_record
from core.worker.export.run import run_export
from core.workspace import RunFolder
from tests.hub.stand_in import WRITES, Hub
from tests.hub.test_account import command
from tests.hub.test_push import downloaded
from tests.tiny_model import TinyWorld, tiny_adapter, tiny_model, tiny_tokenizer, tiny_world


@pytest.fixture
def exported(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[TinyWorld, RunFolder]:
    monkeypatch.setenv("TUNESMITH_DEVICE", "cpu")
    world = tiny_world(workspace)
    run = world.run("a-run")
    tiny_adapter(tiny_model()).save_pretrained(run.adapter)
    tiny_tokenizer().save_pretrained(run.adapter)
    job = Job("a-run", "train", "a-run", "runs/a-run", name="colours", state="finished")
    write_record(run.root, job)
    folder = world.task(run, "export", "one", {"format": "adapter"})
    assert run_export(folder, world.root) == "finished"
    update_record(folder, state="finished")
    return world, run


def test_a_run_is_pushed(hub: Hub, exported: tuple[TinyWorld, RunFolder], tmp_path: Path) -> None:
    world, run = exported
    home = tmp_path / "home"
    where = ("--workspace", str(world.root))
    nobody = command(hub, home, "push", "a-run", "--repo", "ada/colours", *where)
    assert nobody.returncode == 1 and "not logged in" in nobody.stderr
    command(hub, home, "hub", "login", text=WRITES)
    dry = command(hub, home, "push", "a-run", "--repo", "ada/colours", "--dry-run", *where)
    assert dry.returncode == 0 and "to be made, public" in dry.stdout, dry.stderr
    assert "adapter_model.safetensors" in dry.stdout and hub.repositories == {}
    words = ("--repo", "ada/colours", "--private", "--message", "Colours", "--json", *where)
    done = command(hub, home, "push", "a-run", "--format", "adapter", *words)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["state"] == "finished" and told["result"]["private"]
    folder = next((run.exports / "one").glob("a-run-*/"))
    found = downloaded(hub, home, "ada/colours")
    del found[".gitattributes"]
    assert found == {p.name: p.read_bytes() for p in folder.iterdir()}
    assert hub.repository("ada/colours").titles[-1] == "Colours"
    for path in world.root.rglob("*"):
        if path.is_file():
            assert WRITES.encode() not in path.read_bytes(), path
    assert (run.root / "pushes" / told["push"] / "worker.log").is_file()


def test_an_edited_card_goes_with_the_export(
    hub: Hub, exported: tuple[TinyWorld, RunFolder], tmp_path: Path
) -> None:
    world, run = exported
    home, card = tmp_path / "home", tmp_path / "card.md"
    command(hub, home, "hub", "login", text=WRITES)
    folder = next((run.exports / "one").glob("a-run-*/"))
    before = (folder / "README.md").read_text()
    words = ("push", "a-run", "--repo", "ada/colours", "--workspace", str(world.root))
    for text, told in {
        "# No head\n": "it must begin with YAML between two lines of ---",
        "---\n- a\n---\n# It\n": "its YAML must be names with values",
        "---\nlicense: mit\ntags: [a\n---\n# It\n": "its YAML cannot be read at line 3",
        "---\nlicense: mit\n---\n": "there is nothing after its YAML",
        "---\nmodel-index: 3\n---\n# It\n": "its YAML is not what the Hub expects",
    }.items():
        card.write_text(text)
        wrong = command(hub, home, *words, "--card", str(card))
        assert wrong.returncode == 2 and told in wrong.stderr, wrong.stderr
    assert (folder / "README.md").read_text() == before and hub.repositories == {}
    card.write_text(before.replace("Where it fails, and what was not measured: ...", "It fails."))
    done = command(hub, home, *words, "--card", str(card))
    assert done.returncode == 0, done.stderr
    assert hub.repository("ada/colours").files()["README.md"] == card.read_bytes()
    assert "It fails." in (folder / "README.md").read_text()
    missing = command(hub, home, *words, "--card", str(tmp_path / "none.md"))
    assert missing.returncode == 2 and "cannot be read" in missing.stderr


def test_wrong_use(hub: Hub, exported: tuple[TinyWorld, RunFolder], tmp_path: Path) -> None:
    where = ("--workspace", str(exported[0].root))
    for words in (
        ("push", "a-run", "--repo", "colours"),
        ("push", "a-run", "--repo", "ada/c", "--pr", "--branch", "b"),
        ("push", "a-run", "--dataset", "sample", "--repo", "ada/c"),
        ("push", "--repo", "ada/c"),
        ("push", "a-run"),
    ):
        done = command(hub, tmp_path, *words, *where)
        assert done.returncode == 2, (words, done.stderr)
    assert hub.asked == []
