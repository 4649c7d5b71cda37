"""`python -m core.worker FOLDER`: does the job in a folder as the fork server's workers do.

For where there is no fork server, or another program starts the worker (accelerate, Ray). What the
folder's job.json says of device and checkpoint holds; stdout and stderr go to its worker.log. The
exit code is 0 for finished or stopped, 1 for failed, 75 when another worker is at it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from core.jobs.devices import next_job, slots_for
from core.jobs.job import Job, read_record
from core.jobs.worker import main as work
from core.models.hardware import local_devices
from core.workspace import Workspace


def main(argv: Sequence[str]) -> int:
    """Returns 2 where there is no such job; otherwise the process ends with the job."""
    folder = Path(argv[0]).resolve() if len(argv) == 1 else Path()
    record = read_record(folder) if len(argv) == 1 else {}
    root = _root(folder, str(record.get("folder", "")))
    if root is None:
        print(__doc__ if len(argv) != 1 else f"{argv[0]} is no job's folder.", file=sys.stderr)
        return 2
    workspace = Workspace.open(root)
    resume = record.get("params", {}).get("resume_from")
    work(
        str(folder),
        str(root),
        str(workspace.confine(folder / resume)) if resume else None,
        _device(
            str(record.get("device", "auto")), str(record.get("params", {}).get("devices", "1"))
        ),
        allowed=[str(path) for path in workspace.allowed],
    )
    return 0


def _root(folder: Path, place: str) -> Path | None:
    """The workspace of a job whose folder lies at `place` in it."""
    parts = Path(place).parts
    if not parts or folder.parts[-len(parts) :] != parts:
        return None
    return folder.parents[len(parts) - 1]


def _device(asked: str, number: str) -> str:
    """The devices to work on: those that a slot gave, or else the first that will do."""
    slots = slots_for(local_devices())
    job = Job("", "train", "", "", device=asked, params={"devices": number})
    found = next((next_job([job], (), slot, slots) for slot in slots), None)
    return ",".join(slot.device for slot in found[1]) if found else asked


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
