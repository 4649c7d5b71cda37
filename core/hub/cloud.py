"""Training in the cloud: a run's script, with its rows, on Hugging Face Jobs.

Script and rows go into a private repository; the machine that is rented reads them there and puts
what it trained into the same one, from where it comes back as a run. A job of the workspace follows
it: its log, its state, Stop.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from core.config.fields import Section, field_specs, knob
from core.config.problems import problems_of
from core.errors import ConfigError, HubError, JobError, ModelError, Problem, TunesmithError
from core.export.format import base_of_run
from core.hub.answers import client, told_plainly
from core.hub.brought import bring
from core.hub.plan import PushSettings, make_plan, parse_settings
from core.hub.push import be_silent, check_logged_in, check_private, export_to_push, send
from core.jobs.devices import DATA
from core.jobs.events import read_events
from core.jobs.job import Job
from core.jobs.kinds import KINDS
from core.jobs.queue import enqueue, new_folder
from core.jobs.store import Store
from core.jobs.task import Task, read_result
from core.language import _
from core.models.describe import describe_model
from core.models.location import ensure_model, local_model
from core.models.trained import find_trained
from core.progress import Stopped
from core.workspace import Workspace, write_atomic

KIND = "cloud"
RENTED = "rented.json"
TRAINED = "trained"
"""The folder of the repository that takes what was trained."""

# Dense 16-bit operations a second of one card, in 1e12, from their makers' data sheets.
_PEAK = {
    "T4": 65, "L4": 121, "A10G": 70, "L40S": 362, "A100": 312, "H100": 989, "H200": 989,
    "RTX PRO 6000": 503,
}  # fmt: skip
# What training makes of it with rows of a common length, and of a core without a card (1e12).
_SHARE, _CORE = 0.25, 0.02
# Packages and model are fetched first (seconds).
_SET_UP = 240.0
# From an empty machine to the trained model in the repository.
_COMMAND = (
    "set -e; cp -rL /given /tmp/run; cd /tmp/run; uv run train.py --output /tmp/output; "
    'uvx --from huggingface_hub hf upload "$REPOSITORY" /tmp/output/final ' + TRAINED
)
_STEPS = re.compile(r"\b(\d+)/(\d+) \[")
_WAITED = 0.15  # the share of the work until the first step


class CloudSettings(Section):
    """Where a run is trained once more, and how long at most."""

    repo_id: str = knob("", "Repository", level="basic")
    """OWNER/NAME on the Hub, made private if it is not there: it gets the script and your rows, and
    the trained model in its folder `trained`."""

    flavor: str = knob("", "Hardware", level="basic", min_length=1)
    """By its name in the list of Hugging Face Jobs, which has the price of a minute."""

    minutes: int = knob(60, "At most", level="basic", unit="minutes", ge=1, le=7 * 24 * 60)
    """The job ends then, trained or not: so much it can cost at most."""


@dataclass(frozen=True)
class Hardware:
    """A kind of machine. `price` is in US dollars a minute; `minutes` how long the run takes on it
    by the operations that it did, with the time to set up; None where that cannot be told."""

    name: str
    title: str
    detail: str
    price: float
    minutes: float | None

    @property
    def cost(self) -> float | None:
        return None if self.minutes is None else self.minutes * self.price


def cloud_settings(values: Mapping[str, Any]) -> CloudSettings:
    """Raises ConfigError, which names each wrong field."""
    problems: list[Problem] = []
    settings = CloudSettings()
    try:
        # A default is not validated: an empty one is found here.
        settings = CloudSettings.model_validate({**settings.model_dump(), **values})
    except ValidationError as error:
        specs = {spec.path: spec for spec in field_specs(CloudSettings)}
        problems += problems_of(error, specs)
    try:
        parse_settings({"repo_id": values.get("repo_id", "")})
    except ConfigError as error:
        problems += error.problems
    if problems:
        raise ConfigError(problems)
    return settings


def hardware(operations: float | None = None) -> list[Hardware]:
    """What can be rented now, cheapest first. Raises HubError, also for a list that cannot be
    read."""
    with told_plainly():
        try:
            found = [_hardware(one, operations) for one in client().list_jobs_hardware()]
        except (KeyError, TypeError, ValueError) as error:
            raise HubError(
                _("The Hub's list of hardware and prices cannot be read."),
                _("Look at the prices on huggingface.co; update Tunesmith if this lasts."),
            ) from error
    return sorted(found, key=lambda one: (one.price, one.name))


def _hardware(told: Any, operations: float | None) -> Hardware:
    unit = {"second": 60.0, "minute": 1.0, "hour": 1 / 60}[told.unit_label]
    card = told.accelerator
    detail = [told.cpu, told.ram]
    speed = _CORE * float(re.sub(r"\D", "", told.cpu) or 1)
    if card is not None:
        detail.insert(0, f"{card.quantity} x {card.model} ({card.vram})")
        known = next((peak for name, peak in _PEAK.items() if name == card.model), None)
        # The script trains in one process, whatever the number of cards.
        speed = known * _SHARE if known else 0.0
    minutes = None
    if operations and speed:
        minutes = (_SET_UP + operations / (speed * 1e12)) / 60
    return Hardware(
        told.name, told.pretty_name, ", ".join(detail), float(told.unit_cost_usd) * unit, minutes
    )


def operations_of(workspace: Workspace, run_id: str) -> float | None:
    """The operations of a run's training: six for each parameter and token (Kaplan et al. 2020,
    table 1). None where its tokens or its base are not known."""
    trained = find_trained(workspace.run(run_id))
    tokens = [
        event["num_tokens"]
        for event in read_events(trained.run.events)
        if event["kind"] == "metrics" and event.get("num_tokens")
    ]
    folder = local_model(workspace, trained.config.model.model_name_or_path)
    parameters = describe_model(folder).parameters if folder else None
    return 6.0 * parameters * tokens[-1] if tokens and parameters else None


def submit_cloud(workspace: Workspace, store: Store, run_id: str, settings: CloudSettings) -> Job:
    """Puts the training in the cloud into the queue. Raises ExportError where the run has no
    finished script, ModelError where its base is on this machine alone, ConfigError for hardware
    that there is not, and HubError where nobody is logged in or the Hub refuses."""
    check_logged_in()
    export = export_to_push(workspace, run_id, format="script")
    base = _public_base(workspace, run_id)
    prices = {one.name: one.price for one in hardware()}
    if settings.flavor not in prices:
        message = _(
            "{name} cannot be rented. There are: {known}.",
            name=settings.flavor,
            known=", ".join(prices),
        )
        raise ConfigError([Problem("flavor", message)])
    params = {"settings": settings.model_dump(), "price": prices[settings.flavor]}
    return _put(workspace, store, base, {**params, "run": run_id, "export": export.id})


def _public_base(workspace: Workspace, run_id: str) -> str:
    """The base's id on the Hub. Raises ModelError where it has none."""
    trained = find_trained(workspace.run(run_id))
    base = base_of_run(trained, str(ensure_model(trained.base, workspace, fetch=False)))
    if not base.is_public:
        raise ModelError(
            _(
                "{model} is not on the Hub, where a rented machine finds its base.",
                model=base.name,
            ),
            _("Push the base to the Hub and train from there."),
        )
    return base.name


def unfollowed(workspace: Workspace, store: Store, run_id: str) -> Job | None:
    """The job whose machine is rented for a run and that nobody follows any more: the server or
    this machine went down."""
    for job in store.list(kind=KIND, run_id=run_id):
        folder = workspace.root / job.folder
        if not job.ended or read_result(folder):
            return None  # it is followed, or was to its end
        if job.state != "stopped" and _written(folder):
            return job
    return None


def follow_again(workspace: Workspace, store: Store, run_id: str) -> Job:
    """Follows what is rented already. Raises JobError where there is nothing."""
    job = unfollowed(workspace, store, run_id)
    if job is None:
        raise JobError(_("Nothing of {run} goes on in the cloud unseen.", run=run_id))
    rented = _written(workspace.root / job.folder)
    return _put(workspace, store, job.model, {**job.params, "rented": rented})


def _put(workspace: Workspace, store: Store, model: str, params: dict[str, Any]) -> Job:
    run_id = params["run"]
    job_id, folder = new_folder(store, workspace.run(run_id).root / KINDS[KIND].folder)
    job = Job(
        id=job_id,
        kind=KIND,
        run_id=run_id,
        folder=folder.relative_to(workspace.root).as_posix(),
        name=params["settings"]["repo_id"],
        device=DATA,
        model=model,
        params=params,
    )
    return enqueue(workspace, store, job)


def run_cloud(folder: Path, workspace_root: Path) -> str:
    """Sends the script, rents the machine and follows it to its end. A stop ends what is rented.

    What is rented is written down at once: whoever follows it again rents no second one.
    """
    be_silent()
    task = Task(Path(folder))
    rented = task.params.get("rented")
    try:
        with task.interrupted_by_stop(), told_plainly():
            workspace = Workspace.open(workspace_root)
            if rented is None:
                rented = _rent(task, workspace)
            _follow(task, rented, workspace)
    except Stopped:
        rented = rented or _written(task.folder)
        if rented is not None:
            with told_plainly():
                client().cancel_job(job_id=rented["id"], namespace=rented["owner"])
        return "stopped"
    return "finished"


def _written(folder: Path) -> dict[str, str] | None:
    """What was rented by the job in a folder."""
    try:
        found: dict[str, str] = json.loads((folder / RENTED).read_text(encoding="utf-8"))
    except OSError:
        return None
    return found


def _rent(task: Task, workspace: Workspace) -> dict[str, str]:
    """The job on the Hub, begun: its id, owner and address."""
    from huggingface_hub import Volume, get_token
    from huggingface_hub._jobs_api import DEFAULT_UV_IMAGE

    settings = CloudSettings(**task.params["settings"])
    export = export_to_push(workspace, task.params["run"], task.params["export"])
    assert export.path is not None
    check_private(workspace, export.path, export.folder)
    task.tell(0.0, _("Sending the script and the rows"))
    to = PushSettings(repo_id=settings.repo_id, private=True)
    plan = make_plan(export.path, "model", to, task.part(0.0, 0.05))
    send(
        plan, export.path, f"Script of run {task.params['run']} from Tunesmith", task.part(0.0, 0.1)
    )
    task.tell(0.1, _("Asking for the machine"))
    with told_plainly(settings.repo_id):
        job = client().run_job(
            image=DEFAULT_UV_IMAGE,
            command=["bash", "-c", _COMMAND],
            env={"REPOSITORY": settings.repo_id},
            secrets={"HF_TOKEN": get_token()},
            flavor=settings.flavor,
            timeout=f"{settings.minutes}m",
            volumes=[Volume(type="model", source=settings.repo_id, mount_path="/given")],
            labels={"tunesmith-run": task.params["run"]},
        )
    rented = {"id": job.id, "owner": job.owner.name, "url": job.url}
    write_atomic(task.folder / RENTED, json.dumps(rented))
    task.log(_("The job is at {url}.", url=job.url))
    return rented


def _follow(task: Task, rented: Mapping[str, str], workspace: Workspace) -> None:
    """The log of the rented machine as that of this job, its end, and what it trained. Raises
    HubError when it did not come to a good one."""
    where: dict[str, Any] = {"job_id": rented["id"], "namespace": rented["owner"]}
    task.tell(0.1, _("Waits for the machine"))
    last = ""
    for line in _lines(client().fetch_job_logs(**where, follow=True)):
        last = line
        task.log(line)
        if found := _STEPS.search(line):
            done, of = int(found[1]), int(found[2])
            share = done / of if of else 0.0
            task.tell(
                _WAITED + (0.97 - _WAITED) * share,
                _("Training in the cloud, step {done} of {of}", done=done, of=of),
            )
    job = client().inspect_job(**where)
    if job.status.stage != "COMPLETED":
        said = job.status.message or last or str(job.status.stage)
        raise HubError(
            _(
                "The job in the cloud ended with {stage}: {said}",
                stage=job.status.stage.lower(),
                said=said,
            ),
            _("Its log is at {url}.", url=rented["url"]),
        )
    settings = CloudSettings(**task.params["settings"])
    seconds = job.durations.running_secs if job.durations else None
    task.tell(0.97, _("Fetching what was trained"))
    brought = ""
    try:
        brought = bring(workspace, task.params["run"], settings.repo_id, TRAINED, seconds or 0.0)
    except (TunesmithError, OSError) as error:  # it is paid for, and lies there
        task.log(_("It did not come here as a run: {why}", why=str(error)), "warning")
    task.finish(
        {
            "url": rented["url"],
            "repo_id": settings.repo_id,
            "seconds": seconds,
            "cost": None if seconds is None else task.params["price"] * seconds / 60,
            "brought": brought,
        }
    )


def _lines(told: Any) -> Iterator[str]:
    """A bar is drawn again on the same line: its last state counts."""
    for text in told:
        line = str(text).rstrip().rpartition("\r")[2].strip()
        if line:
            yield line


# What a person reads of it.


def trained_there(job: Job, result: Mapping[str, Any]) -> str:
    where = {"repository": result["repo_id"], "folder": TRAINED}
    if result.get("cost") is None:
        told = _("Trained: {repository}, folder {folder}.", **where)
    else:
        told = _(
            "Trained for about ${cost:.2f}: {repository}, folder {folder}.",
            cost=result["cost"],
            **where,
        )
    if not result.get("brought"):
        return told
    return _("{told} Here it is the run {run}.", told=told, run=result["brought"])
