"""ModelScope, which people in China use in place of the Hub: finding models, fetching them, and
what of them is in its cache.

A model there is named `modelscope:OWNER/NAME`, with `@REVISION` behind it for another one than
master. MODELSCOPE_ENDPOINT, MODELSCOPE_CACHE, MODELSCOPE_API_TOKEN and what `ms-hub login` keeps
are modelscope_hub's. It is installed when somebody wants it, and imported inside functions alone.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

from core.errors import ModelError, SetupError, TunesmithError, reason_of
from core.language import _
from core.models.hub import (
    MODEL_FILES,
    check_files,
    downloading,
    is_model_folder,
    progress_bar,
)
from core.progress import Tell
from core.setup.extras import missing

PREFIX = "modelscope:"
EXTRA = "modelscope"
# A part begins with a letter or a digit: none leads out of the cache.
_NAME = re.compile(rf"{PREFIX}(\w[\w.-]*/\w[\w.-]*)(?:@(\w[\w.-]*))?", re.ASCII)
# As modelscope_hub calls what is taken when nothing is said.
_REVISION = "master"
# Somebody waits for an answer, and the package would write beside our own progress.
_MANNERS = {"MODELSCOPE_API_MAX_RETRIES": "1", "MODELSCOPE_LOG_LEVEL": "CRITICAL"}
_MOST_CHARACTERS = 300


def is_named(name: str) -> bool:
    return name.startswith(PREFIX)


def why_no_name(name: str) -> str:
    """Why nothing can have this name; "" of one that may be there, or is none of ModelScope's."""
    try:
        if is_named(name):
            _parts(name)
    except ModelError as error:
        return str(error)
    return ""


def check(name: str) -> None:
    """Raises ModelError for what is no such name, and SetupError without the package."""
    _parts(name)
    _check_package()


def fetching_code(name: str) -> str:
    """An expression of Python that fetches a model with modelscope_hub and gives its folder."""
    repo_id, revision = _parts(name)
    chosen = {"revision": revision, "allow_patterns": MODEL_FILES}
    return f'HubApi().download_repo({repo_id!r}, "model", **{chosen!r})'


def cached_snapshot(name: str) -> Path | None:
    """The folder of a model in ModelScope's cache, if all of it is there."""
    if missing([EXTRA]) or not _NAME.fullmatch(name):
        return None
    folder = _begun(_api(), name)
    if folder is None or not is_model_folder(folder) or any(folder.glob("*.incomplete")):
        return None
    return folder


def cached_models() -> list[tuple[str, Path, int]]:
    """The name, the folder and the size in bytes of each model in the cache."""
    if missing([EXTRA]):
        return []
    return [
        (PREFIX + one.repo_id, Path(one.local_path), one.size_on_disk)
        for one in _api().scan_cache(_config().cache_dir).repos
        # Folders of the older packages are not told apart there.
        if Path(one.local_path).parent.name == "models" and _NAME.fullmatch(PREFIX + one.repo_id)
    ]


def search(words: str, most: int) -> list[Mapping[str, Any]]:
    """What ModelScope tells of the models with these words in their name, those that are downloaded
    most first. Raises ModelError, and SetupError without the package."""
    api = _api()
    with _told_plainly():
        told = api.openapi.list_models(search=words.strip(), sort="downloads", page_size=most)
    models = told.get("models") if isinstance(told, dict) else None
    if not isinstance(models, list) or not all(isinstance(one, dict) for one in models):
        raise _not_modelscope()
    return models


def page_of(name: str) -> str:
    """The page of a model, where access to a gated one is asked for."""
    return f"{_config().endpoint}/models/{_parts(name)[0]}"


def look(name: str) -> list[Any]:
    """The files of a model that would be fetched, with `path`, `size` and `sha256`.

    Raises ModelError also for what is no model that can be used, and SetupError without the
    package.
    """
    repo_id, revision = _parts(name)
    api = _api()
    with _told_plainly(name):
        api.get_repo(repo_id, "model")  # says at once that it is not there, or nobody answers
        there = api.list_repo_files(repo_id, "model", revision=revision)
    # In the first folder alone, where a model's own files are.
    wanted = [
        one
        for one in there
        if Path(one.path).name == one.path and any(fnmatch(one.path, kind) for kind in MODEL_FILES)
    ]
    check_files(name, [one.path for one in wanted])
    return wanted


def download(name: str, tell: Tell) -> Path:
    """Fetches a model into ModelScope's cache, where a later call goes on after a break; gives its
    folder. Raises as `look`."""
    wanted = look(name)
    repo_id, revision = _parts(name)
    api = _api()
    here = _begun(api, name)
    left = [one for one in wanted if here is None or not _has(here, one)]
    size = sum(one.size for one in left)
    fetch = partial(
        api.download_repo,
        repo_id,
        "model",
        revision=revision,
        progress_callbacks=[_counter(name, size, tell)],
    )
    with _told_plainly(name):
        # The config comes last: a folder with it has all the rest.
        for is_last in (False, True):
            part = [one for one in wanted if (one.path == "config.json") == is_last]
            folder = Path(fetch(file_list=[_listed(one) for one in part]))
    tell(1.0, downloading(_short(name), size, size))
    return folder


def _parts(name: str) -> tuple[str, str]:
    """OWNER/NAME and the revision. Raises ModelError."""
    found = _NAME.fullmatch(name)
    if found is None:
        raise ModelError(
            _("{name} is no name of a model on ModelScope.", name=repr(name)),
            _("One looks like modelscope:OWNER/NAME, or modelscope:OWNER/NAME@REVISION."),
        )
    return found[1], found[2] or _REVISION


def _short(name: str) -> str:
    return name.rsplit("/", 1)[-1]


def _api() -> Any:
    """The package's client, with the token and the endpoint of now. Raises SetupError."""
    _check_package()
    for variable, value in _MANNERS.items():
        os.environ.setdefault(variable, value)
    from modelscope_hub import HubApi, _download
    from tqdm import tqdm

    _download.tqdm = partial(tqdm, disable=True)  # its bars cannot be switched off
    return HubApi(_config())


def _check_package() -> None:
    for extra in missing([EXTRA]):
        raise SetupError(
            _("{packages} is not installed.", packages=extra.title),
            _("Install it with: {command}", command=extra.command),
        )


def _config() -> Any:
    from modelscope_hub import HubConfig

    return HubConfig()


def _begun(api: Any, name: str) -> Path | None:
    """Where a model lies or was begun to be fetched to."""
    from modelscope_hub import HubError

    repo_id, revision = _parts(name)
    try:
        return Path(api.download_repo(repo_id, "model", revision=revision, local_files_only=True))
    except (HubError, OSError):
        return None


def _has(folder: Path, file: Any) -> bool:
    try:
        return bool((folder / file.path).stat().st_size == file.size)
    except OSError:
        return False


def _listed(file: Any) -> dict[str, Any]:
    """A file as ModelScope's own list has it."""
    return {"Path": file.path, "Size": file.size, "Sha256": file.sha256}


def _counter(name: str, size: float, tell: Tell) -> type[Any]:
    """What the package calls with the bytes of each file, from several threads. What `tell` raises
    ends the download."""
    from modelscope_hub import ProgressCallback

    def said(done: float) -> None:
        tell(min(done / max(size, 1), 1.0), downloading(_short(name), done, size))

    lock, bar = threading.Lock(), progress_bar(said)(unit="B")

    class Counter(ProgressCallback):
        def update(self, more: int) -> None:
            with lock:
                bar.update(more)

    return Counter


@contextmanager
def _told_plainly(name: str = "") -> Iterator[None]:
    """Turns what the package raises into a ModelError."""
    from modelscope_hub.errors import FileDownloadError, HubError
    from requests import RequestException

    try:
        yield
    except FileDownloadError as error:
        raise _refused(next(iter(error.failed_files.values()), error), name) from error
    except (HubError, RequestException, OSError, ValueError) as error:
        raise _refused(error, name) from error


def _refused(error: BaseException, name: str) -> TunesmithError:
    from modelscope_hub import errors
    from requests import JSONDecodeError, RequestException

    login = _(
        "Log in with modelscope-hub's `ms-hub login`, or set MODELSCOPE_API_TOKEN before the start."
    )
    match error:
        case errors.NotExistError():
            return ModelError(
                _("There is no {name} on ModelScope, or it is private.", name=name),
                _("Check the spelling. {login}", login=login),
            )
        case errors.AuthenticationError():
            return ModelError(_("ModelScope asks for a login, or for a valid token."), login)
        case errors.PermissionDeniedError():
            return ModelError(
                _("{repo} is gated: its owner gives access on request.", repo=name),
                _("Ask for it at {place}. {login}", place=page_of(name), login=login),
            )
        case errors.RateLimitError():
            return ModelError(
                _("ModelScope has had too many requests from you."), _("Try again later.")
            )
        case JSONDecodeError():
            return _not_modelscope()
        case errors.NetworkError() | errors.ServerError() | RequestException():
            return ModelError(
                _("ModelScope gives no answer at {place}.", place=_config().endpoint),
                _(
                    "Look at the network, then try again: what was fetched is kept. "
                    "MODELSCOPE_ENDPOINT names another address."
                ),
            )
        case errors.HubError() | ValueError():
            reason = " ".join(str(error).splitlines()[:1])[:_MOST_CHARACTERS]
            return ModelError(
                _("ModelScope refused: {reason}", reason=reason),
                _("Mend what it names, then try again."),
            )
    return ModelError(
        _("{name} could not be fetched: {reason}.", name=name, reason=reason_of(error)),
        _("Try again: it goes on where it broke off."),
    )


def _not_modelscope() -> ModelError:
    return ModelError(
        _("What answers at {place} is not ModelScope.", place=_config().endpoint),
        _("Look at the network and at MODELSCOPE_ENDPOINT."),
    )
