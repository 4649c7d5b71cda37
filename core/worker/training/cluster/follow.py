"""A run on a Ray cluster. One detached actor of its own name holds the cores and cards that the run
asks for and starts the training in a process on its node, which writes into the run's folder as
everywhere. The job's worker asks for the actor, waits with it for room, and follows it to its end;
when that worker is killed, the next one finds the actor by its name.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import core
import core.worker.training.cluster.actor as sent
from core.config import RunConfig
from core.config.run import devices_on_a_node
from core.errors import MemoryRanOut, TrainingError
from core.jobs.events import Event, EventReader, EventWriter
from core.jobs.job import ENDED
from core.language import _, n_, unpack
from core.progress import Stopped
from core.runs.cluster import nobody_answers
from core.workspace import RunFolder, Workspace, write_atomic

NAMESPACE = "tunesmith"
NOTE = "ray.json"
"""In a run's folder: its actor's name, and where in the events its attempt begins."""
NODE = "core.worker.training.cluster.node"
COMPANION = "core.worker.training.cluster.companion"
_SECONDS_BETWEEN_LOOKS = 1.0
# How long a run that is in the cluster is not given up where nobody answers, and how often tried.
_SECONDS_TO_COME_BACK, _SECONDS_BETWEEN_TRIES = 600.0, 5.0
# How long what a node has written may take to be seen here.
_SECONDS_TO_BE_SEEN = 10.0


def end_file(run: RunFolder) -> Path:
    """Where the node says how the training ended."""
    return run.root / ".ray-end.json"


def follow(run: RunFolder, workspace: Workspace, config: RunConfig, resume: Path | None) -> str:
    """As `core.worker.training.run.train_here`, on a node of the cluster. Raises TrainingError
    where the cluster cannot be asked or has no such node, and with what ended the run there."""
    # Before Ray is imported: nothing is sent to its makers; it asks a head once, not twenty times.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "1")
    from ray.exceptions import RayActorError

    events, address = EventWriter(run.events), config.training.ray_address
    try:
        if _is_sent(run):
            _wait_for_answer(run, address, events)
        with _connected(run, address):
            try:
                holder = _known(run) or _ask(run, workspace, config, resume)
                _tell_place(_wait_for_room(run, holder, events), events)
                while True:
                    time.sleep(_SECONDS_BETWEEN_LOOKS)
                    _place_of(holder)
            except (RayActorError, _Gone) as error:
                return _outcome(run, error)
    except Stopped:
        return "stopped"


@contextmanager
def _connected(run: RunFolder, address: str) -> Iterator[None]:
    import ray
    from ray.exceptions import RayError

    if reason := nobody_answers(address):  # Ray would try for minutes
        raise TrainingError(
            _("Nobody answers at {address}: {reason}.", address=address, reason=reason),
            _("Check training.ray_address and that the cluster runs (ray status)."),
        )
    handler = signal.getsignal(signal.SIGTERM)
    said = run.log.stat().st_size if run.log.exists() else 0
    try:
        ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, logging_level="ERROR")
    except (RayError, OSError, RuntimeError, ValueError, ImportError) as error:
        raise _refused(run, said, address, error) from error
    finally:
        signal.signal(signal.SIGTERM, handler)  # it asks to stop, which Ray's would not
    try:
        yield
    finally:
        ray.shutdown()


def _refused(run: RunFolder, begins: int, address: str, error: Exception) -> TrainingError:
    with run.log.open("rb") as log:
        log.seek(begins)
        said = log.read().decode(errors="replace")
    if "Unauthenticated" in said or "uthentication" in type(error).__name__:
        return TrainingError(
            _("The Ray cluster at {address} does not take this token.", address=address),
            _(
                "Start Tunesmith with RAY_AUTH_MODE=token and the cluster's own token in "
                "RAY_AUTH_TOKEN or in ~/.ray/auth_token."
            ),
        )
    if isinstance(error, ConnectionError):
        return TrainingError(
            _("What answers at {address} is no Ray cluster that can be used.", address=address),
            _("Check training.ray_address and that the cluster runs (ray status)."),
        )
    return TrainingError(
        _("Ray at {address}: {reason}", address=address, reason=str(error)),
        _("This machine's Ray and Python have to be of the cluster's versions."),
    )


def _note(run: RunFolder) -> tuple[str, list[Event]] | None:
    """The name of the actor that was asked for last, and what the run told since."""
    try:
        note = json.loads((run.root / NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return note["actor"], EventReader(run.events, note["offset"]).read_new()


def _is_sent(run: RunFolder) -> bool:
    """Whether this attempt is in the cluster already."""
    note = _note(run)
    return note is not None and not _is_over(note[1])


def _is_over(told: list[Event]) -> bool:
    return any(event.get("state") in ENDED for event in told)


def _wait_for_answer(run: RunFolder, address: str, events: EventWriter) -> None:
    """A run that goes on in the cluster is not given up because the way there is cut: this machine
    may just have started. Raises Stopped when nobody wants it any more."""
    begins = time.monotonic()
    while nobody_answers(address) and time.monotonic() - begins < _SECONDS_TO_COME_BACK:
        if run.stop_request.exists():
            raise Stopped
        events.write("progress", message=_("The cluster does not answer; it is tried again"))
        time.sleep(_SECONDS_BETWEEN_TRIES)


def _known(run: RunFolder) -> Any:
    """The actor of this attempt, if there is one; one of an attempt that has ended is ended. Raises
    _Gone where there was one that came to its end while nobody looked."""
    import ray

    note = _note(run)
    if note is None:
        return None
    name, told = note
    try:
        holder = ray.get_actor(name, namespace=NAMESPACE)
    except ValueError:
        if not _is_over(told) and any("node" in event for event in told):
            raise _Gone from None
        return None
    if _is_over(told):
        ray.kill(holder)
        return None
    return holder


class _Gone(Exception):
    """The actor has come to its end while nobody looked."""


def _ask(run: RunFolder, workspace: Workspace, config: RunConfig, resume: Path | None) -> Any:
    """A new actor, which waits in the cluster until there is room for it."""
    import ray

    cards, cores = _wanted(config), config.training.ray_num_cpus
    nodes = config.training.ray_num_nodes
    name = f"{run.root.name}-{secrets.token_hex(4)}"
    offset = run.events.stat().st_size
    end_file(run).unlink(missing_ok=True)
    write_atomic(run.root / NOTE, json.dumps({"actor": name, "offset": offset}))
    asked = {
        "actor": name,
        "module": NODE,
        "companion": COMPANION,
        "end": end_file(run).name,
        "note": NOTE,
        "offset": offset,
        "code": str(Path(core.__file__).parents[1]),
        "folder": str(run.root),
        "root": str(workspace.root),
        "allowed": os.environ.get("TUNESMITH_ALLOW", ""),
        "checkpoint": str(resume or ""),
        "cards": cards,
        "cores": cores,
        "nodes": nodes,
    }
    ray.cloudpickle.register_pickle_by_value(sent)
    kind = ray.remote(sent.Holder if nodes == 1 else sent.HolderOfSeveral)
    return kind.options(
        name=name,
        namespace=NAMESPACE,
        lifetime="detached",
        num_cpus=cores if nodes == 1 else 0,
        num_gpus=cards if nodes == 1 else 0,
        max_restarts=0,
    ).remote(asked)


def _wanted(config: RunConfig) -> int:
    """How many cards the run takes of each of its nodes. Raises TrainingError where too few nodes
    have as much as it asks for: Ray would wait for them for ever."""
    import ray

    training = config.training
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    has_cards = any(node.get("GPU", 0) for node in nodes)
    on_cards = training.device == "cuda" or (training.device == "auto" and has_cards)
    cards = devices_on_a_node(config) if on_cards else 0
    cores = training.ray_num_cpus
    fit = [node.get("GPU", 0) >= cards and node.get("CPU", 0) >= cores for node in nodes]
    if sum(fit) >= training.ray_num_nodes:
        return cards
    there = "; ".join(f"{node.get('CPU', 0):g} + {node.get('GPU', 0):g}" for node in nodes)
    if any(fit):
        raise TrainingError(
            n_(
                "The run asks for {nodes} nodes of the cluster, each with so many cores: {cores}, "
                "and GPUs: {cards}; {n} has them. Its nodes have (cores + GPUs): {there}.",
                "The run asks for {nodes} nodes of the cluster, each with so many cores: {cores}, "
                "and GPUs: {cards}; {n} have them. Its nodes have (cores + GPUs): {there}.",
                sum(fit),
                cores=cores,
                cards=cards,
                nodes=training.ray_num_nodes,
                there=there,
            ),
            _("Lower training.ray_num_nodes, or add such a node.")
            if training.device == "cpu" or not cards
            else _(
                "Lower training.ray_num_nodes, set training.device to cpu where no GPU is needed, "
                "or add such a node."
            ),
        )
    raise TrainingError(
        _(
            "No node of the cluster has {cores} cores and {cards} GPUs. Its nodes have (cores + "
            "GPUs): {there}.",
            cores=cores,
            cards=cards,
            there=there,
        ),
        _("Lower training.ray_num_cpus or training.devices, or add such a node."),
    )


def _wait_for_room(run: RunFolder, holder: Any, events: EventWriter) -> dict[str, Any]:
    """Where the actor is, once it is somewhere. Raises Stopped when nobody wants it any more."""
    import ray

    events.write("progress", message=_("Waits for room in the cluster"), waits=True)
    asked = holder.place.remote()
    while not ray.wait([asked], timeout=_SECONDS_BETWEEN_LOOKS)[0]:
        if run.stop_request.exists():
            ray.kill(holder)
            raise Stopped
    place: dict[str, Any] = ray.get(asked)
    if place["wrong"]:
        ray.kill(holder)
        raise _unfit(place)
    return place


def _place_of(holder: Any) -> dict[str, Any] | None:
    """Raises RayActorError once the actor is gone; a node that is out of reach may come back."""
    import ray
    from ray.exceptions import ActorUnavailableError

    try:
        place: dict[str, Any] = ray.get(holder.place.remote())
    except ActorUnavailableError:
        return None
    return place


def _unfit(place: dict[str, Any]) -> TrainingError:
    node, why = place["node"], place["why"]
    if place["wrong"] == "code":
        return TrainingError(
            _("The node {node} has no Tunesmith in {folder}.", node=node, folder=why),
            _("Put it into the same folder on each node, or into one that all share."),
        )
    if place["wrong"] == "environment":
        return TrainingError(
            _(
                "The node {node} is not in Tunesmith's environment ({why}).",
                node=node,
                why=why,
            ),
            _("Start Ray there with Tunesmith's own: .venv/bin/ray start --address ..."),
        )
    return TrainingError(
        _("The node {node} does not see the run's folder {folder}.", node=node, folder=why),
        _("The workspace has to be in a folder that all nodes share, under the same path."),
    )


def _tell_place(place: dict[str, Any], events: EventWriter) -> None:
    node, cards = place["node"], place["cards"]
    message = _("Trains on the node {node}.", node=node)
    if cards:
        message = _("Trains on the node {node}, GPU {cards}.", node=node, cards=cards)
    known = {"node": node, "node_id": place["id"], "cards": cards}
    events.write("log", level="info", message=message, **known)
    events.write("progress", message="")  # it waits no more


def _outcome(run: RunFolder, error: Exception) -> str:
    """How the run ended whose actor is gone. Raises what ended it."""
    waited = time.monotonic()
    while not end_file(run).exists() and time.monotonic() - waited < _SECONDS_TO_BE_SEEN:
        time.sleep(_SECONDS_BETWEEN_LOOKS / 4)
    try:
        end = unpack(json.loads(end_file(run).read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise TrainingError(
            _("The cluster lost the run: its process, or the node that it was on, is gone."),
            _("Resume it: it goes on from its last checkpoint, on any node that has room."),
        ) from error
    if "state" in end:
        return str(end["state"])
    if "code" in end:
        raise _killed(end["code"])
    kind = MemoryRanOut if end["memory"] else TrainingError
    raise kind(end["error"], end["advice"])


def _killed(code: int) -> TrainingError:
    """A process on the node that ended without having said why."""
    if code >= 0:
        message = _("The worker ended with exit code {code} before its work was done.", code=code)
        return TrainingError(message, _("See the end of worker.log."))
    hint = _("Short of memory? Go on with half the batch. Else resume it.")
    return TrainingError(_("The worker was killed (signal {number}).", number=-code), hint)
