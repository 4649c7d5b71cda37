"""What a worker does with Hub data sets, for tests: the cases on standard input, one after the
other in one process, because `datasets` takes seconds to load; what came of each on standard
output."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from core.errors import TunesmithError


def run_case(case: dict[str, Any]) -> dict[str, Any]:
    from core.data.read.sources import parse_hub_source
    from core.worker.hub_rows import download, first_rows

    os.environ.pop("HF_TOKEN", None)
    os.environ.update({"HF_TOKEN": case["token"]} if "token" in case else {})
    told: list[str] = []
    try:
        source = parse_hub_source(case["source"])
        if "limit" in case:
            return {"rows": first_rows(source, case["limit"])}
        folder = Path(tempfile.mkdtemp(dir=os.environ["HF_HOME"]))
        path, origin = download(source, folder, lambda share, message: told.append(message))
    except TunesmithError as error:
        return {"error": error.message, "hint": error.hint}
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return {"rows": rows, "origin": origin, "told": told}


if __name__ == "__main__":
    for text in sys.stdin:
        print(json.dumps(run_case(json.loads(text))), flush=True)
