"""Packages that only some settings need: added by a name, kept by updates, torch never touched."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from core.errors import SetupError
from core.setup.environment import STATE_NAME
from core.setup.extras import EXTRAS, find, is_installed, missing
from core.setup.report import progress_of
from tests.clone import PIP, PROJECT, Clone, make_clone, pack

GALORE = EXTRAS["galore"]
TRACKED = EXTRAS["schedulefree"]


@pytest.fixture(scope="module")
def added(tmp_path_factory) -> tuple[Clone, str]:
    """A clone after `setup --with galore` on a machine where nothing was set up, and its words."""
    clone = make_clone(tmp_path_factory.mktemp("added"))
    pack(clone.index, "galore_torch", "1.0", {"__init__.py": ""})
    said = clone.launch("setup", "--with", "galore")
    assert (said.stdout, said.returncode) == ("", 0), said.stderr
    return clone, said.stderr


@pytest.fixture
def ready(added, tmp_path) -> Clone:
    shutil.copytree(added[0].root, tmp_path / "clone", symlinks=True)
    return Clone(tmp_path / "clone", added[0].index)


def state(clone: Clone) -> dict[str, object]:
    return json.loads((clone.venv / STATE_NAME).read_text())


def test_setup_with_a_name_installs_and_remembers_it(added) -> None:
    clone, said = added
    assert "Adding galore-torch: done" in said
    assert list(clone.venv.glob("lib/*/site-packages/galore_torch/__init__.py"))
    assert state(clone)["extras"] == {"galore": list(GALORE.packages)}
    later = clone.launch("chat", PIP_FIND_LINKS="")
    assert (later.stderr, later.returncode) == ("", 3)


def test_an_update_brings_extras_along_at_todays_pins(ready) -> None:
    """Else an update of Tunesmith leaves an optimizer of yesterday, or none after a new .venv."""
    ready.lock(PIP, "tiny-a==0.2")
    content = state(ready)
    content["extras"] = {"galore": ["galore-torch==0.9"], "an-extra-of-yesterday": ["x==1"]}
    (ready.venv / STATE_NAME).write_text(json.dumps(content))
    said = ready.launch("runs")
    assert said.stdout == "command ['runs'] 0.2\n", said.stderr
    assert "Adding galore-torch" in said.stderr
    assert state(ready)["extras"]["galore"] == list(GALORE.packages)


def test_an_extra_that_cannot_come_along_keeps_nothing_from_starting(ready) -> None:
    """After a new .venv too, which begins without them."""
    content = state(ready) | {"extras": {"lomo": []}}
    (ready.venv / STATE_NAME).write_text(json.dumps(content))
    said = ready.launch("runs")
    assert said.stdout == "command ['runs'] 0.1\n", said.stderr
    assert "lomo-optim was not brought along: No build of lomo-optim==0.1.1" in said.stderr
    assert EXTRAS["lomo"].command in said.stderr
    assert ready.launch("runs").stderr == ""


def test_an_extra_may_not_replace_what_tunesmith_runs_on(ready, monkeypatch) -> None:
    """A tracker that asks for another torch must fail, not exchange it."""
    source = (ready.root / "core/setup/extras.py").read_text()
    asked = source.replace(
        "_TABLE = (",
        '_TABLE = (\n    Extra("hungry", ("hungry==1.0",), "hungry", "", alone=False),',
    )
    (ready.root / "core/setup/extras.py").write_text(asked)
    wheel = pack(ready.index, "hungry", "1.0", {"__init__.py": ""}, "Requires-Dist: tiny-a>=0.2")
    said = ready.launch("setup", "--with", "hungry")
    wheel.unlink()
    assert said.returncode == 1
    assert "hungry 1.0 depends on tiny-a>=0.2" in said.stderr
    assert "Traceback" not in said.stderr
    assert ready.launch("runs").stdout == "command ['runs'] 0.1\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--with", "galor"], "There is no extra 'galor'; did you mean galore?"),
        (["--with"], "setup takes nothing but --with NAME[,NAME]. Names: galore, apollo"),
        (["--without", "x"], "setup takes nothing but --with"),
        (["--with=galore,,"], "There is no extra ''"),
    ],
)
def test_a_wrong_name_is_told_before_anything_is_done(tmp_path, words, says) -> None:
    clone = make_clone(tmp_path)
    said = clone.launch("setup", *words)
    assert says in said.stderr and said.returncode == 1
    assert not clone.venv.exists()


def test_no_network_is_told_in_a_sentence(ready) -> None:
    nowhere = {"PIP_NO_INDEX": "", "PIP_FIND_LINKS": "", "PIP_RETRIES": "1"}
    nowhere["PIP_INDEX_URL"] = "http://127.0.0.1:9/simple"
    said = ready.launch("setup", "--with", "lomo", **nowhere)
    assert said.returncode == 1
    assert "The package index cannot be reached. Check the network" in said.stderr
    assert "lomo" not in state(ready)["extras"]


def test_names_are_those_of_the_table() -> None:
    assert [extra.name for extra in find(["lomo", "galore"])] == ["lomo", "galore"]
    with pytest.raises(SetupError, match=r"did you mean galore\? There are: galore, "):
        find(["gallore"])


def test_pins_are_exact_and_torch_is_nobodys() -> None:
    """An extra that named torch could exchange the one that fits the machine's driver."""
    for extra in EXTRAS.values():
        names = [package.partition("==")[0] for package in extra.packages]
        assert all("==" in package for package in extra.packages)
        assert not {"torch", "transformers", "trl", "peft", "accelerate"} & set(names)
        assert extra.sentence.endswith(".")


def test_tests_run_on_the_versions_that_people_get() -> None:
    """Some extras are installed for the tests too; two pins of one would prove the wrong one."""
    pinned = {p.partition("==")[0]: p for e in EXTRAS.values() for p in e.packages}
    lines = (Path(PROJECT) / "requirements-test.lock").read_text().splitlines()
    for wanted in (Requirement(line) for line in lines if not line.startswith("#")):
        if wanted.marker is None or wanted.marker.evaluate():
            pin = f"{wanted.name}{wanted.specifier}"
            assert pin == pinned.get(wanted.name, pin)


def test_what_is_there_is_seen(monkeypatch, tmp_path) -> None:
    """A server that has looked before sees a package that was added since."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(EXTRAS, "new", type(GALORE)("new", ("new==1",), "new_here", "New."))
    assert missing(["new"]) == [EXTRAS["new"]]
    (tmp_path / "new_here").mkdir()
    (tmp_path / "new_here" / "__init__.py").touch()
    assert is_installed("new") and missing(["new"]) == []


@pytest.mark.parametrize(
    ("output", "share", "says"),
    [
        ("Collecting galore-torch==1.0", 0.05, "Looking for galore-torch"),
        (
            "  Downloading mlflow-3.18.0-py3-none-any.whl (9.1 MB)\nProgress 10 of 20\n",
            0.45,
            "Fetching mlflow 3.18.0 (9.1 MB)",
        ),
        ("Installing collected packages: galore-torch", 0.9, "Installing galore-torch"),
        ("WARNING: Retrying (Retry(total=4))", 0.0, "does not answer"),
    ],
)
def test_progress_is_read_from_what_pip_writes(output, share, says) -> None:
    fraction, text = progress_of(output, "galore-torch")
    assert fraction == pytest.approx(share) and says in text
