"""A server as a job: a port, then an engine, then the front before it, until somebody stops it."""

from __future__ import annotations

import errno
import socket
import threading
import time
from contextlib import closing
from pathlib import Path

import uvicorn

from core.errors import ExportError, SetupError
from core.jobs.events import EventWriter
from core.jobs.task import Task
from core.language import _
from core.progress import Stopped
from core.serve.front import Engine, Front
from core.serve.servers import SERVER, endpoint_key
from core.serve.settings import ServeSettings
from core.setup.extras import missing
from core.worker.serve.asked import Asked, find_asked
from core.worker.serve.embeddings import EmbeddingEngine
from core.worker.serve.labels import LabelEngine
from core.worker.serve.llama import LlamaEngine
from core.worker.serve.transformers import TransformersEngine
from core.workspace import Workspace

_LOOK_SECONDS = 0.2
# How long answers that are being given may take to end, and the server with them.
_END_SECONDS = 1


def run_server(folder: Path, workspace_root: Path) -> str:
    """Serves a run's models until it is stopped. Raises TunesmithError.

    Parameters (job.json): settings (ServeSettings) and checkpoints (their names; all if none).
    """
    task, workspace = Task(Path(folder)), Workspace.open(workspace_root)
    settings = ServeSettings(**task.params["settings"])
    with closing(_listening(settings.port)) as place:
        try:
            with task.interrupted_by_stop():
                task.tell(0.0, _("Looking at the model"))
                names = task.params.get("checkpoints") or []
                asked = find_asked(workspace, task.run, names, settings, task.part(0.0, 0.1))
                engine = _open(asked, task)
        except Stopped:
            return "stopped"
        with closing(engine):
            _serve(task, engine, endpoint_key(workspace), place)
    return "stopped"


def _listening(port: int) -> socket.socket:
    place = socket.socket()
    try:
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        place.bind(("127.0.0.1", port))
        place.listen()
    except OSError as error:
        place.close()
        taken = error.errno == errno.EADDRINUSE
        told = _("Port {port} is taken.", port=port) if taken else ""
        told = told or _("Port {port} cannot be used: {why}.", port=port, why=str(error.strerror))
        raise SetupError(told, _("Choose another, or 0 for a free one.")) from error
    return place


def _open(asked: Asked, task: Task) -> Engine:
    """The best engine for a run: llama.cpp, and for what that cannot transformers."""
    makes = asked.first.config.training_method.makes
    if makes in ("classifier", "filler"):
        return LabelEngine(asked) if makes == "classifier" else EmbeddingEngine(asked)
    lacking = missing(["gguf"])
    if lacking:
        why: str = _("llama.cpp is not installed ({command}).", command=lacking[0].command)
    else:
        try:
            return LlamaEngine(asked)
        except ExportError as error:
            why = error.message
    task.log(_("transformers answers, which is slower: {why}", why=why), level="warning")
    return TransformersEngine(asked, why)


def _serve(task: Task, engine: Engine, key: str, place: socket.socket) -> None:
    """Answers until somebody stops it. Raises what the engine's check raises."""
    config = uvicorn.Config(
        Front(engine, key).app,
        loop="asyncio",
        http="h11",
        lifespan="off",
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=_END_SECONDS,
    )
    server = uvicorn.Server(config)
    # Not in the main thread, where it would take a stop for its own.
    thread = threading.Thread(target=server.run, args=([place],), name="server", daemon=True)
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(_LOOK_SECONDS / 10)
        _announce(task, engine, place)
        while thread.is_alive():
            task.check_stop()
            engine.check()
            time.sleep(_LOOK_SECONDS)
        raise SetupError(
            _("The server ended by itself."), _("See worker.log, then start it again.")
        )
    except Stopped:
        return
    finally:
        engine.close()  # what it was answering ends with a word of that
        server.should_exit = True
        thread.join(5 * _END_SECONDS)


def _announce(task: Task, engine: Engine, place: socket.socket) -> None:
    address = f"http://127.0.0.1:{place.getsockname()[1]}"
    told = _("{engine} answers at {address}", engine=engine.name, address=address)
    events = EventWriter(task.folder / "events.jsonl")
    events.write("progress", message=told)
    events.write(
        SERVER,
        address=address,
        engine=engine.name,
        why=engine.why,
        models=[model.id for model in engine.models],
        routes=list(engine.routes),
    )
