"""How long the page takes in a browser: until its first rows are seen, against a minimal page of
Gradio in the same run; then a tab, a changed setting and a preset.

    python -m tests.benchmarks.page_speed [--times 10] [--training]

Each page is opened in a browser context of its own, the two in turn, so that a busy machine slows
both. `--training` measures beside a run at work on a tiny model, and what it costs to watch that:
the bytes that the page gets, for each second and each step, and the web process's share of a core.
"""

from __future__ import annotations

import argparse
import json
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import psutil
from playwright.sync_api import Browser, Page, sync_playwright

from core.config import RunConfig
from core.jobs.queue import stop_job
from core.jobs.store import Store
from core.runs.submit import submit_run
from core.workspace import Workspace
from tests.conftest import CHROMIUM
from tests.e2e.serving import Served, cookie
from tests.tiny_model import tiny_model, tiny_tokenizer
from tests.waiting import until

MINIMAL = """
import sys, gradio as gr
with gr.Blocks() as page:
    gr.Textbox(label="Words")
    gr.Button("Press")
    gr.HTML("<p id=seen>Seen</p>")
page.launch(server_port=int(sys.argv[1]), quiet=True)
"""
STARTER = "SmolLM2-135M-Instruct"
# Notes when the first frame with `seen` in it is there: a task after its animation frame.
_DRAWN = """
window.drawn = new Promise((done) => {
  const look = () => document.querySelector(%s)?.getClientRects().length
    ? requestAnimationFrame(() => setTimeout(() => done(performance.now())))
    : requestAnimationFrame(look);
  look();
});
"""
# Milliseconds from `act` until `seen` is true in a drawn frame.
_TIMED = """([act, seen]) => new Promise((done) => {
  const begun = performance.now(), is = eval(seen);
  const look = () => is() ? requestAnimationFrame(() => done(performance.now() - begun))
    : setTimeout(look, 4);
  eval(act)();
  look();
})"""
_RATE = "#field-training-learning_rate textarea"
_TABS = ("train", "evaluate", "chat", "export", "runs", "data", "configure")


def opened(browser: Browser, address: str, seen: str) -> tuple[Page, float]:
    """A page, and the seconds from navigation until `seen` is drawn, which the page notes itself:
    Playwright looks twice a second."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.add_cookies([cookie()])
    context.add_init_script(_DRAWN % json.dumps(seen))
    page = context.new_page()
    page.goto(address, wait_until="commit")
    page.locator(seen).first.wait_for()
    return page, float(page.evaluate("window.drawn")) / 1000


def timed(page: Page, act: str, seen: str) -> float:
    return float(page.evaluate(_TIMED, [f"() => {act}", f"() => {seen}"])) / 1000


def typed(path: str, value: str) -> str:
    """Types a value into a setting."""
    box = f"document.querySelector('#field-{path} textarea')"
    return (
        f"{{ const box = {box}; box.value = '{value}'; "
        "box.dispatchEvent(new Event('input', { bubbles: true })); }"
    )


def used(page: Page, times: int) -> dict[str, list[float]]:
    """Seconds of a tab, a setting and a preset."""
    found: dict[str, list[float]] = {"tab": [], "setting": [], "preset": []}
    for number in range(times):
        for name in _TABS:
            seconds = timed(
                page,
                f"document.querySelector('#tab-{name}-button').click()",
                f"document.querySelector('#tab-{name}')?.offsetParent",
            )
            if number:  # the first time a tab is drawn, not only shown
                found["tab"].append(seconds)
            page.wait_for_timeout(300)
        epochs = 4 + number
        steps = f"document.querySelector('#summary')?.innerText.includes('in {epochs} epochs')"
        found["setting"].append(timed(page, typed("training-num_train_epochs", str(epochs)), steps))
        page.wait_for_timeout(500)
        for title, rate in (("Full fine-tune of a small model", "5e-5"), ("Quick start", "0.002")):
            found["preset"].append(
                timed(
                    page,
                    "[...document.querySelectorAll('#preset label')]"
                    f".find((one) => one.innerText.trim() === '{title}').click()",
                    f"document.querySelector('{_RATE}').value === '{rate}'",
                )
            )
            page.wait_for_timeout(1500)
    return found


def watched(page: Page, served: Served, job: str, seconds: float = 20.0) -> dict[str, float]:
    """What the page costs while it shows a run that learns."""
    got = [0]
    network = page.context.new_cdp_session(page)
    network.on("Network.dataReceived", lambda data: got.__setitem__(0, got[0] + data["dataLength"]))
    page.goto(f"{served.address}/?tab=train&run={job}")
    page.locator("#run .headline").wait_for()
    page.wait_for_timeout(5000)  # what is drawn once is not counted
    network.send("Network.enable")
    server = psutil.Process(served.process.pid)
    events = served.workspace / "runs" / job / "events.jsonl"

    def state() -> tuple[float, float, int]:
        used = server.cpu_times()
        return time.monotonic(), used.user + used.system, events.read_text().count('"loss"')

    before = state()
    page.wait_for_timeout(seconds * 1000)
    took, spent, steps = (now - then for now, then in zip(state(), before, strict=True))
    return {
        "bytes_a_second": round(got[0] / took),
        "bytes_a_step": round(got[0] / max(steps, 1)),
        "steps_a_second": round(steps / took, 1),
        "share_of_a_core": round(spent / took, 3),
    }


def stocked(root: Path) -> Workspace:
    """A workspace with a tiny model in the starter's place."""
    workspace = Workspace.open(root)
    tiny_model().save_pretrained(workspace.models / STARTER)
    tiny_tokenizer().save_pretrained(workspace.models / STARTER)
    return workspace


@contextmanager
def training(workspace: Workspace) -> Iterator[str]:
    """A run that lasts as long as the measuring."""
    store = Store.open(workspace)
    config = RunConfig.model_validate({"training": {"max_steps": 1_000_000}})
    job = submit_run(workspace, store, config)
    try:
        yield job.id
    finally:
        stop_job(workspace, store, job.id)
        until(lambda: store.get(job.id).ended)
        store.close()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def minimal_page() -> tuple[subprocess.Popen[bytes], str]:
    port = free_port()
    process = subprocess.Popen([sys.executable, "-c", MINIMAL, str(port)])
    for _ in range(1200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return process, f"http://127.0.0.1:{port}/"
        threading.Event().wait(0.05)
    raise SystemExit("The minimal page was not served within a minute.")


def measure(times: int, served: Served, job: str | None) -> None:
    bare, bare_address = minimal_page()
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=CHROMIUM)
            pairs: list[tuple[float, float]] = []
            for number in range(times + 1):
                page, minimal = opened(browser, bare_address, "#seen")
                page.context.close()
                page, ours = opened(browser, f"{served.address}/", "#rows .row-card")
                if number:
                    pairs.append((minimal, ours))
                if number < times:
                    page.context.close()
            tell(pairs, used(page, times))
            if job:
                print(json.dumps(watched(page, served, job)))
            browser.close()
    finally:
        bare.terminate()
        bare.wait()


def tell(pairs: list[tuple[float, float]], found: dict[str, list[float]]) -> None:
    middle: Callable[[list[float]], float] = statistics.median
    minimal, ours = (middle([pair[which] for pair in pairs]) for which in (0, 1))
    ratio = middle([mine / bare for bare, mine in pairs])
    print(f"minimal {minimal:.2f} s, rows seen {ours:.2f} s, ratio of pairs {ratio:.2f} (medians)")
    print(json.dumps({name: round(middle(times), 3) for name, times in found.items()}))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--times", type=int, default=10, help="of each (%(default)s)")
    parser.add_argument("--training", action="store_true", help="beside a run at work")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the run goes on by itself else
    with tempfile.TemporaryDirectory() as folder:
        workspace = stocked(Path(folder) / "workspace")
        served = Served(workspace.root, "--port", str(free_port()), afresh=True)
        try:
            with training(workspace) if given.training else nullcontext() as job:
                measure(given.times, served, job)
        finally:
            served.end()


if __name__ == "__main__":
    main()
