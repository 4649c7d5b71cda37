"""The kinds of jobs: one record for each, and nothing else that has to know of it.

What does the work is named by text, so that only a worker imports it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from core.language import N_, Said


@dataclass(frozen=True)
class Kind:
    """`target` does the work, as "module:function", called with (folder, workspace_root) and for
    a training also the checkpoint to resume from; it returns "finished" or "stopped".

    `room` says which slots take it: a device's for trainings, a device's for what is shorter, one
    of those for data, which wait for no training, or one of those for servers and searches: they
    go on for as long as it takes, and nothing may wait for that. `folder` is where in its run's
    folder the folders of such jobs lie; a run is the run's folder itself, and work on data and
    searches lie in WORKSPACE/jobs/. `stop_seconds` is the grace time of a stop, if it is not the
    scheduler's.

    What a person reads takes {name} and {error} of the job: `doing` while it is at work, `stopped`
    and `failed` at its end; `result` names the function that tells what came of it, from the
    result that the work left. `with_less` is the advice when it was killed for want of memory, and
    `way_on` names the function that tells, from the folder of a job that died, what to do now.
    `recall` names the one that tells from the folder what the store is to know of a job whose
    job.json is torn. What is left of one on data is removed some time after its end, unless it is
    `kept` until somebody has put it away.
    """

    name: str
    target: str
    room: Literal["train", "short", "data", "serve"]
    doing: Said = Said()
    folder: str = ""
    stop_seconds: float | None = None
    stopped: Said = Said(N_("Stopped."))
    failed: Said = Said("{error}")
    result: str = ""
    with_less: Said = Said(N_("Nothing was left half done."))
    way_on: str = ""
    recall: str = ""
    kept: bool = False


_KINDS = (
    Kind(
        "train",
        "core.worker.training.run:run_training",
        "train",
        N_("Training"),
        with_less=N_("Go on with half the batch, or with shorter rows."),
        way_on="core.models.checkpoints:way_on",
        recall="core.runs.resume:recall",
    ),
    Kind(
        "evaluate",
        "core.worker.evaluation.run:run_evaluation",
        "short",
        N_("Evaluation"),
        folder="evaluations",
        stopped=N_(
            "Evaluation stopped. Answers so far are kept: the next evaluation goes on from them."
        ),
    ),
    Kind(
        "predict",
        "core.worker.evaluation.predict:run_predict",
        "short",
        N_("Labelling {name}"),
        folder="predictions",
        stopped=N_("Labelling stopped. Nothing was kept."),
    ),
    Kind(
        "export",
        "core.worker.export.run:run_export",
        "short",
        N_("Export"),
        folder="exports",
        stopped=N_("Export stopped. Nothing was kept."),
    ),
    Kind(
        "push",
        "core.hub.push:run_push",
        "data",
        N_("Push to the Hub"),
        folder="pushes",
        stop_seconds=10.0,
        stopped=N_("Push stopped. What was sent already is not sent again."),
        result="core.hub.push:pushed",
    ),
    Kind(
        "serve",
        "core.worker.serve.run:run_server",
        "serve",
        N_("Server"),
        folder="servers",
        stop_seconds=10.0,
        stopped=N_("The server was stopped."),
    ),
    Kind(
        "cloud",
        "core.hub.cloud:run_cloud",
        "serve",
        N_("Training in the cloud, to {name}"),
        folder="clouds",
        stop_seconds=20.0,
        stopped=N_("The training in the cloud was stopped; nothing more is paid for."),
        result="core.hub.cloud:trained_there",
        with_less=N_("What is rented goes on: follow it again, or look at huggingface.co/jobs."),
    ),
    Kind(
        "sweep",
        "core.runs.sweep:run_sweep",
        "serve",
        N_("Searching settings of {name}"),
        stop_seconds=10.0,
        stopped=N_("{name}: the search was stopped."),
        failed=N_("{name}: the search failed. {error}"),
        result="core.runs.sweep:searched",
        with_less=N_("Its runs are kept. Go on with the search: what they gave counts."),
        kept=True,
    ),
    Kind(
        "import",
        "core.data.jobs:run_import",
        "data",
        N_("Importing {name}"),
        stop_seconds=10.0,
        stopped=N_("Stopped. {name} was not imported."),
        failed=N_("{name} was not imported: {error}"),
        result="core.data.jobs:imported",
    ),
    Kind(
        "combine",
        "core.data.jobs:run_combine",
        "data",
        N_("Putting together {name}"),
        stop_seconds=10.0,
        stopped=N_("Stopped. {name} was not made."),
        failed=N_("{name} was not made: {error}"),
        result="core.data.jobs:combined",
    ),
    Kind(
        "prepare",
        "core.data.jobs:run_steps",
        "data",
        "{name}",
        stop_seconds=10.0,
        stopped=N_("Stopped. The data set is as it was."),
        result="core.data.jobs:prepared",
    ),
    Kind(
        "drafts",
        "core.data.jobs:run_writing",
        "data",
        N_("Writing drafts"),
        stop_seconds=10.0,
        stopped=N_("Stopped. What was written is kept; Go on continues."),
        with_less=N_("What was written is kept."),
    ),
    Kind(
        "add-drafts",
        "core.data.jobs:run_adding",
        "data",
        N_("Adding the accepted rows"),
        stop_seconds=10.0,
        stopped=N_("Stopped. The data set is as it was."),
        result="core.data.jobs:added",
    ),
)
KINDS = {kind.name: kind for kind in _KINDS}
