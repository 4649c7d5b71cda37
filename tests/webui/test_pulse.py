"""When an open page looks anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.jobs.job import ACTIVE
from core.jobs.store import Store
from core.workspace import Workspace
from tests.webui.made_runs import make_run
from webui import pulse
from webui.pulse import Pulse


def test_the_mark_changes_with_the_jobs_and_each_second_while_one_is_at_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace.open(tmp_path / "workspace")
    store, elsewhere = Store.open(workspace), Store.open(workspace)
    now = [1000.0]
    monkeypatch.setattr(pulse.time, "monotonic", lambda: now[0])
    mark = Pulse(store).mark

    idle = mark()
    now[0] += 5
    assert mark() == idle, "Nothing happened."
    now[0] += 5
    assert mark() != idle, "What the store is not told of is looked for now and then."

    idle = mark()
    job = make_run(workspace, elsewhere, state="running")
    begun = mark()
    assert begun != idle, "Another program began a job."
    now[0] += 1
    assert mark() not in (begun, idle), "A job at work goes on."

    elsewhere.transition(job.id, ACTIVE, "finished")
    ended = mark()
    assert ended != begun
    now[0] += 1
    assert mark() == ended
    store.close()
    elsewhere.close()
