"""How long the page takes to show any row of a large data set, as a reader waits for it.

    python tests/benchmarks/row_preview.py --rows 1000000 --workspace FOLDER

FOLDER is a workspace that has the starter model (any run fetches it); the made-up rows become a
data set of it that is deleted at the end. Serves it, opens it in Chromium and goes to rows by
chance, first as rows, then as the model sees them, and prints for each the middle, the 95th
percentile and the longest of the times from the key press to the row on the page, in milliseconds.
"""

from __future__ import annotations

import argparse
import random
import shutil
import statistics
import tempfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from core.data.prepare import import_dataset
from core.data.registry import delete_dataset
from core.workspace import Workspace
from tests.benchmarks.data_import import write_rows
from tests.conftest import CHROMIUM
from tests.e2e.serving import Served, cookie

LOOKS = 40
# Types a number and waits for its row, within the page: the way to the browser is not counted.
_GO = """([number, inside]) => new Promise((shown) => {
  const field = document.querySelector("#go-to-row input");
  const rows = document.querySelector("#rows");
  const there = () => rows.querySelector(`[data-row="${number - 1}"]${inside}`);
  const begun = performance.now();
  const look = () => there() && requestAnimationFrame(() => shown(performance.now() - begun));
  const watch = new MutationObserver(() => look() && watch.disconnect());
  watch.observe(rows, {childList: true, subtree: true, characterData: true});
  field.value = String(number);
  field.dispatchEvent(new Event("input", {bubbles: true}));
  field.dispatchEvent(new KeyboardEvent("keypress", {key: "Enter", bubbles: true}));
})"""


def looks(page: Page, rows: int, inside: str, seed: int) -> list[float]:
    """Milliseconds of each look; another `seed` goes to rows that were not seen before."""
    chance = random.Random(seed)
    return [page.evaluate(_GO, [chance.randint(4, rows), inside]) for _ in range(LOOKS)]


def tell(name: str, times: list[float]) -> None:
    late = statistics.quantiles(times, n=20)[-1]
    print(f"{name}: {statistics.median(times):.0f}, {late:.0f}, {max(times):.0f} ms", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--workspace", type=Path, required=True)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "rows.jsonl"
        write_rows(source, args.rows)
        workspace = Workspace.open(args.workspace, allowed=[Path(folder)])
        info = import_dataset(
            workspace,
            [source],
            mapping={"prompt": "query", "completion": "reply"},
            eval_fraction=0.0,
        )
    served = Served(args.workspace, afresh=True)
    try:
        with sync_playwright() as playwright:
            path = shutil.which("chromium") or shutil.which("chromium-browser")
            browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM)
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.context.add_cookies([cookie()])
            page.set_default_timeout(240_000)
            page.goto(f"{served.address}/?tab=data&dataset={info.id}")
            page.locator("#rows [data-row='0']").wait_for()
            looks(page, args.rows, "", 0)
            tell("as rows", looks(page, args.rows, "", 1))
            page.get_by_text("As the model sees them").click()
            page.locator("#rows [data-row] .t").first.wait_for()
            tell("as the model sees them", looks(page, args.rows, " .t", 2))
            browser.close()
    finally:
        served.end()
        delete_dataset(workspace, info.id)


if __name__ == "__main__":
    main()
