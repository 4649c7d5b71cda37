"""The first thing a person types. It has to work, or say in a sentence why not."""

from __future__ import annotations

import ast
import errno
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from core.setup.environment import LOCK, Environment
from core.setup.report import explain, explain_os_error
from tests.clone import PIP, PROJECT, Clone, make_clone
from tests.waiting import LIMIT, end_of


@pytest.fixture(scope="module")
def first_start(tmp_path_factory) -> tuple[Clone, list[tuple[str, str, int]]]:
    """A clone after two first starts at once: output, errors and exit code of each."""
    clone = make_clone(tmp_path_factory.mktemp("first"))
    both = [clone.start("runs", "list", "--json") for _ in range(2)]
    said = [end_of(process) for process in both]
    return clone, [(*words, process.returncode) for words, process in zip(said, both, strict=True)]


@pytest.fixture
def fresh(tmp_path) -> Clone:
    return make_clone(tmp_path)


@pytest.fixture
def ready(first_start, tmp_path) -> Clone:
    """A clone that is set up, of this test's own."""
    clone = first_start[0]
    shutil.copytree(clone.root, tmp_path / "clone", symlinks=True)
    return Clone(tmp_path / "clone", clone.index)


def test_the_first_start_sets_up_and_runs_the_command(first_start) -> None:
    """Its progress stays off standard output, which belongs to --json."""
    for out, err, code in first_start[1]:
        assert (out, code) == ("command ['runs', 'list', '--json'] 0.1\n", 3), err


def test_two_first_starts_at_once_make_one_environment(first_start) -> None:
    """An impatient second start must not install into the first one's half-made folder."""
    worked = [err for _, err, _ in first_start[1] if "Setting up Tunesmith" in err]
    assert len(worked) == 1
    for step in ("1/4 Making", "2/4 Fetching", "3/4 Installing", "4/4 Preparing"):
        assert step in worked[0]
    assert "Ready after" in worked[0]


def test_the_packages_are_compiled(first_start) -> None:
    """Else every start compiles them again where bytecode is not written (a read-only home)."""
    library = next(first_start[0].venv.glob("lib/*/site-packages"))
    assert list((library / "tiny_a" / "__pycache__").glob("__init__.*.pyc"))


def test_later_starts_only_run_the_command(ready) -> None:
    """Without a network too: nothing is asked for."""
    said = ready.launch("chat", PIP_FIND_LINKS="")
    assert (said.stdout, said.stderr, said.returncode) == ("command ['chat'] 0.1\n", "", 3)


def test_setup_sets_up_and_no_more(ready) -> None:
    said = ready.launch("setup")
    assert (said.stdout, said.returncode) == ("", 0)
    assert "nothing to do" in said.stderr


def test_a_changed_lock_is_installed_over_what_is_there(ready) -> None:
    """After an update of the clone the next start just works, and is quick."""
    (ready.venv / "kept").touch()
    ready.lock(PIP, "tiny-a==0.2")
    said = ready.launch("runs")
    assert said.stdout == "command ['runs'] 0.2\n", said.stderr
    assert "Updating" in said.stderr
    assert (ready.venv / "kept").exists()


def test_an_update_that_fails_leaves_what_works(ready) -> None:
    """Offline after an update: going back to the old version must not need a network."""
    before = (ready.root / LOCK).read_text()
    ready.lock(PIP, "tiny-a==0.2", "tiny-b==1.0")
    failed = ready.launch("runs")
    assert failed.returncode == 1 and failed.stdout == ""
    assert "No build of tiny-b==1.0 was found" in failed.stderr
    assert str(ready.venv / "setup.log") in failed.stderr
    (ready.root / LOCK).write_text(before)
    assert ready.launch("runs", PIP_FIND_LINKS="").stdout == "command ['runs'] 0.1\n"


def test_no_network_is_told_in_a_sentence(ready) -> None:
    ready.lock(PIP, "tiny-c==1.0")
    nowhere = {"PIP_NO_INDEX": "", "PIP_INDEX_URL": "http://127.0.0.1:9/simple"}
    said = ready.launch("runs", PIP_RETRIES="1", **nowhere)
    assert said.returncode == 1
    assert "The package index cannot be reached. Check the network" in said.stderr
    assert "Traceback" not in said.stderr


def test_a_killed_setup_is_waited_for_and_mended(ready) -> None:
    """pip outlives a killed launch.py: the next start waits for it, then begins again.

    Half a package looks installed to pip, so only a new environment is sure to be whole.
    """
    (ready.venv / "half").touch()
    ready.lock(PIP, "tiny-a==0.2")
    with stalling_index(ready.index / "tiny_a-0.2-py3-none-any.whl") as index:
        online = {"PIP_NO_INDEX": "", "PIP_FIND_LINKS": "", "PIP_INDEX_URL": index.url}
        killed = ready.start("runs", **online)
        assert index.stalled.wait(LIMIT)
        killed.kill()
        killed.communicate()
        following = ready.start("runs")
        assert following.stderr is not None
        assert "is at work here; waiting" in following.stderr.readline()
        index.go_on.set()
        out, err = end_of(following)
    assert out == "command ['runs'] 0.2\n", err
    assert not (ready.venv / "half").exists()


def test_an_environment_of_somebody_else_is_left_alone(fresh) -> None:
    """Many keep their own .venv in a clone; deleting it would cost them their work."""
    fresh.venv.mkdir()
    (fresh.venv / "pyvenv.cfg").write_text("theirs")
    said = fresh.launch("setup")
    assert said.returncode == 1
    assert "Tunesmith did not make it. Move or delete it" in said.stderr
    assert (fresh.venv / "pyvenv.cfg").read_text() == "theirs"


def test_another_interpreter_behind_the_environment_is_noticed(ready) -> None:
    """A system upgrade swaps it, and every import would fail."""
    environment = Environment(ready.root)
    assert environment.is_ready([LOCK])
    state = environment.state()
    environment.state_file.write_text(json.dumps(state | {"interpreter": "/usr/bin/python3.99"}))
    assert not environment.is_ready([LOCK])
    environment.state_file.write_text("{ half a sta")
    assert not environment.is_ready([LOCK])


def test_test_runs_pytest_on_all_cores_unless_it_is_told_how(ready) -> None:
    """A person's own words come last, where they win; without xdist its options are unknown."""
    spread = ["-n", "auto", "--dist", "loadfile", "--no-loadscope-reorder"]
    for words, expected in {
        (): spread,
        ("-k", "one", "-n", "0"): [*spread, "-k", "one", "-n", "0"],
        ("-p", "no:xdist"): ["-p", "no:xdist"],
    }.items():
        said = ready.launch("test", *words)
        assert said.stdout == f"tool pytest {['--durations=10', *expected]}\n", said.stderr
        assert said.returncode == 0
    assert ready.launch("test", "-x", pytest_exits="5").returncode == 1


def test_a_python_that_is_too_old_is_told(ready) -> None:
    code = (
        "import runpy, sys\n"
        "sys.version_info = (3, 8, 10, 'final', 0)\n"
        f"sys.argv = ['launch.py']\nrunpy.run_path({str(ready.root / 'launch.py')!r}, "
        "run_name='__main__')"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert said.returncode == 1
    assert "Tunesmith needs Python 3.11 or newer; this is 3.8.10" in said.stderr


def test_launch_parses_on_old_pythons() -> None:
    """Else they say SyntaxError instead of what is wrong."""
    source = (PROJECT / "launch.py").read_text("utf-8")
    tree = ast.parse(source, feature_version=(3, 6))
    at_the_top = {
        name.name for node in tree.body if isinstance(node, ast.Import) for name in node.names
    }
    assert at_the_top == {"os", "sys"}
    assert not any(isinstance(node, ast.ImportFrom) for node in tree.body)


OFFLINE = """\
WARNING: Retrying (Retry(total=4, connect=None, read=None, redirect=None, status=None)) after \
connection broken by 'NewConnectionError("HTTPSConnection(host='pypi.org', port=443): Failed to \
establish a new connection: [Errno -3] Temporary failure in name resolution")': /simple/gradio/
ERROR: No matching distribution found for gradio==6.31.0
"""
UNTRUSTED = """\
WARNING: Retrying (Retry(total=0)) after connection broken by 'SSLError(SSLCertVerificationError(\
1, '[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed (_ssl.c:1006)'))': /simple/gradio/
ERROR: No matching distribution found for gradio==6.31.0
"""
FULL = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n"
NO_VENV = (
    "The virtual environment was not created successfully because ensurepip is not\navailable."
)


@pytest.mark.parametrize(
    ("output", "says"),
    [
        (OFFLINE, "The package index cannot be reached"),
        (UNTRUSTED, "PIP_CERT"),
        (FULL, "The disk is full"),
        (NO_VENV, "sudo apt install python3"),
        ("ERROR: No matching distribution found for torch==2.13.0", "No build of torch==2.13.0"),
        ("ERROR: Wheel 'x' is invalid.", "Wheel 'x' is invalid."),
        ("", "no reason given"),
    ],
)
def test_what_pip_says_becomes_a_sentence(tmp_path, output, says) -> None:
    assert says in str(explain(output, tmp_path / "setup.log"))


@pytest.mark.parametrize(
    ("number", "says"),
    [(errno.ENOSPC, "The disk is full"), (errno.EROFS, "cannot be written"), (errno.EIO, "error")],
)
def test_what_the_system_says_becomes_a_sentence(tmp_path, number, says) -> None:
    error = OSError(number, "Input/output error", str(tmp_path))
    assert says in str(explain_os_error(error, tmp_path / ".venv"))


class Index:
    """A package index on loopback that sends the wheel only after `go_on` is set."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.stalled = threading.Event()
        self.go_on = threading.Event()


@contextmanager
def stalling_index(wheel: Path) -> Iterator[Index]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith("/files/"):
                index.stalled.set()
                index.go_on.wait()
                body = wheel.read_bytes()
            elif self.path == "/simple/tiny-a/":
                body = f'<a href="/files/{wheel.name}">{wheel.name}</a>'.encode()
            else:
                return self.send_error(404)
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            return self.wfile.write(body) and None

        def log_message(self, *_: object) -> None:
            """Nothing: the test's output is for the test."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    index = Index(f"http://127.0.0.1:{server.server_address[1]}/simple")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield index
    finally:
        index.go_on.set()
        server.shutdown()
        server.server_close()
