"""Runs as they lie on disk: folder, config, events and the store's row, without a worker."""

from __future__ import annotations

import json
import math
import shutil
import time
from pathlib import Path
from typing import Any

from core.config import RunConfig
from core.jobs.events import EventWriter
from core.jobs.job import Job, write_record
from core.jobs.store import Store
from core.language import _, pack
from core.workspace import RunFolder, Workspace, new_id

WRITTEN_BEFORE = Path(__file__).parents[1] / "evaluation" / "written_before"
# What a hostile data set or model may write.
HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"


def make_run(
    workspace: Workspace,
    store: Store,
    *,
    state: str = "finished",
    steps: int = 90,
    name: str = "a run",
    run_id: str = "",
    **fields: Any,
) -> Job:
    """A run of `steps` logged steps that is now in `state`."""
    run_id = run_id or new_id()
    folder = workspace.run(run_id)
    folder.root.mkdir(parents=True)
    RunConfig().save(folder.config)
    job = Job(
        id=run_id,
        kind="train",
        run_id=run_id,
        folder=f"runs/{run_id}",
        name=name,
        model="SmolLM2-135M-Instruct",
        dataset="sample",
        max_steps=steps,
    )
    write_record(folder.root, job)
    store.add(job)
    events = EventWriter(folder.events)
    events.write("state", state="queued")
    if state != "queued":
        events.write("state", state="running")
        write_steps(events, 1, steps, steps)
        now = time.time()
        ended = None if state in ("starting", "running", "stopping") else now
        moved = {"step": steps, "started_at": now - 160, "ended_at": ended, **fields}
        store.transition(run_id, {"queued"}, state, **moved)
    return store.get(run_id)


def write_steps(events: EventWriter, first: int, last: int, of: int) -> None:
    """Metrics and progress of the steps from `first` to `last`, samples at every fortieth."""
    for step in range(first, last + 1):
        loss = 0.4 + 2 * math.exp(-step / 20)
        events.write(
            "metrics",
            step=step,
            epoch=3 * step / of,
            loss=loss,
            grad_norm=1.0,
            learning_rate=1e-3,
            tokens_per_second=500 + step % 7,
            memory_bytes=2 * 2**30,
        )
        if step % 40 == 0:
            events.write("metrics", step=step, eval_loss=loss + 0.1)
            write_sample(events, step, f"answer at step {step}")
    events.write(
        "progress", step=last, max_steps=of, epoch=3 * last / of, eta_seconds=12.0, message=""
    )


def write_sample(events: EventWriter, step: int, answer: str) -> None:
    prompt = [{"role": "user", "content": f"What now? {HOSTILE}"}]
    events.write("sample", step=step, index=0, prompt=prompt, answer=answer, expected="the answer")


def evaluated(run: RunFolder, report: str) -> None:
    """An evaluation that was made with an earlier version: "fields" or "answers"."""
    folder = run.evaluations / new_id()
    folder.mkdir(parents=True)
    shutil.copy(WRITTEN_BEFORE / f"{report}.json", folder / "result.json")


def exported(run: RunFolder, identity: str = "") -> None:
    folder = run.exports / (identity or new_id())
    (folder / "run-merged").mkdir(parents=True)
    checks = [
        {
            "name": _("Answers as the trained model"),
            "ok": True,
            "detail": _("logits {apart} apart", apart="0 %"),
        }
    ]
    names = {"path": "run-merged", "size_bytes": 2, "checks": checks}
    result = {"format": "merged", "checkpoint": "final", **names}
    (folder / "result.json").write_text(json.dumps(pack(result)))
