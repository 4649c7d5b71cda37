"""What the Hub answers, in words for a person: every refusal is a HubError with the next step."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from core.errors import HubError
from core.language import _
from core.models.hub import way_round

if TYPE_CHECKING:
    from huggingface_hub import HfApi

ANSWER_SECONDS = 60.0
_CONNECT_SECONDS = 10.0
_TRIES = 5  # of what the Hub asked to send later
_LONGEST_WAIT = 600
_SECRET = re.compile(r"\b(hf_|api_org_)\w+|(?<=Bearer )[^\s'\"]+")
_MOST_CHARACTERS = 300


def client() -> HfApi:
    """The client of this process, with limits of time: it has none, and would wait for ever."""
    import httpx2
    from huggingface_hub import get_session

    # The library makes another session after some failures.
    get_session().timeout = httpx2.Timeout(ANSWER_SECONDS, connect=_CONNECT_SECONDS)
    return _client()


@cache
def _client() -> HfApi:
    from huggingface_hub import HfApi

    return HfApi()


def endpoint() -> str:
    from huggingface_hub import constants

    return constants.ENDPOINT


@contextmanager
def told_plainly(repo_id: str = "") -> Iterator[None]:
    """Turns what the library raises into a HubError without a token in it."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

    try:
        yield
    except OfflineModeIsEnabled as error:
        raise offline() from error
    except LocalTokenNotFoundError as error:
        raise not_logged_in() from error
    except HfHubHTTPError as error:
        raise _refused(error, repo_id) from error
    except RuntimeError as error:  # an upload: what went wrong is its cause
        if isinstance(error.__cause__, HfHubHTTPError):
            raise _refused(error.__cause__, repo_id) from error
        if isinstance(error.__cause__, httpx2.HTTPError):
            raise _silent(error.__cause__) from error
        raise _failed(error) from error
    except httpx2.HTTPError as error:
        raise _silent(error) from error
    except (ConnectionError, TimeoutError) as error:
        raise _silent(error) from error
    except ValueError as error:
        raise _failed(error) from error


def patiently(call: Callable[[], Any], wait: Callable[[int], None]) -> Any:
    """What `call` gives; while the Hub has too many requests, after the time that it asks for.
    `wait` is told the seconds."""
    from huggingface_hub.errors import HfHubHTTPError

    for last in (*[False] * (_TRIES - 1), True):
        client()  # sets the limits of time
        try:
            return call()
        except HfHubHTTPError as error:
            seconds = _seconds_to_wait(error)
            if error.response.status_code != 429 or last or seconds > _LONGEST_WAIT:
                raise
        wait(seconds)
        time.sleep(seconds)


def _seconds_to_wait(error: Any) -> int:
    found = error.response.headers.get("Retry-After", "")
    return int(found) if found.isdigit() else 60


def offline() -> HubError:
    return HubError(
        _("HF_HUB_OFFLINE forbids asking the Hub."),
        _("Unset HF_HUB_OFFLINE, then start Tunesmith again."),
    )


def not_logged_in() -> HubError:
    return HubError(
        _("You are not logged in to the Hub."),
        _(
            "Make a token at {place}, then log in with it in the page's Export tab or with the "
            "command hub login.",
            place=token_page(),
        ),
    )


def not_the_hub() -> HubError:
    return HubError(
        _("What answers at {endpoint} is not the Hub.", endpoint=endpoint()),
        _("Look at HF_ENDPOINT, and whether the network asks for a login."),
    )


def token_page() -> str:
    return f"{endpoint()}/settings/tokens"


def _again() -> str:
    return _("Try again in a while. What is on the Hub already is not sent again.")


def _refused(error: Any, repo_id: str) -> HubError:
    """What an answer of the Hub means, by its status."""
    from huggingface_hub.errors import (
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    status = error.response.status_code
    if isinstance(error, GatedRepoError):
        return HubError(
            _("{repo} is gated: its owner gives access on request.", repo=repo_id),
            _(
                "Ask for it on the page of {repo} at {place}, then log in with: hub login",
                repo=repo_id,
                place=endpoint(),
            ),
        )
    if isinstance(error, RevisionNotFoundError):
        return HubError(
            _("{repo} has no such branch.", repo=repo_id), _("Look at its branches on the Hub.")
        )
    if isinstance(error, RepositoryNotFoundError) or status == 404:
        return HubError(
            _("The Hub has no repository {repo}, or hides it from your token.", repo=repo_id),
            _("Look at its name, and at what your token may see."),
        )
    if status == 401:
        return HubError(
            _("The Hub does not accept your token: it is wrong, has expired, or was taken back."),
            _("Make another one at {place}, and log in with it.", place=token_page()),
        )
    if status == 403:
        return HubError(
            _("Your token may not write to {repo}: {reason}", repo=repo_id, reason=_reason(error)),
            _(
                "Log in with a token that may write there, take a repository of your own, or push "
                "as a pull request."
            ),
        )
    if status in (409, 412):
        return HubError(_("{repo} was changed by somebody else meanwhile.", repo=repo_id), _again())
    if status == 429:
        seconds = _seconds_to_wait(error)
        return HubError(
            _("The Hub has had too many requests from you."),
            _("Try again in {seconds} s.", seconds=seconds),
        )
    if status >= 500:
        return HubError(
            _("The Hub has a fault of its own (HTTP {status}).", status=status),
            _again(),
        )
    return HubError(
        _("The Hub refused (HTTP {status}): {reason}", status=status, reason=_reason(error)),
        _("Mend what it names, then try again."),
    )


def _silent(error: BaseException) -> HubError:
    """Of a request that got no answer, or not all of one."""
    import httpx2

    never = httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout
    if isinstance(error, never):
        return HubError(
            _("{endpoint} cannot be reached.", endpoint=endpoint()),
            _("Look at the network. {way_round}", way_round=way_round()),
        )
    if isinstance(error, httpx2.TimeoutException | TimeoutError):
        return HubError(
            _("{endpoint} does not answer.", endpoint=endpoint()),
            _again(),
        )
    return HubError(
        _("The connection to {endpoint} broke off.", endpoint=endpoint()),
        _again(),
    )


def _failed(error: BaseException) -> HubError:
    """Of an answer that cannot be understood, such as the login page of a network."""
    if isinstance(error, json.JSONDecodeError):
        return not_the_hub()
    return HubError(
        _("The Hub refused: {reason}", reason=without_token(str(error))),
        _("Mend what it names, then try again."),
    )


def _reason(error: Any) -> str:
    return without_token(error.server_message or error.response.reason_phrase or "?")


def without_token(text: str) -> str:
    """The text in one line, without what looks like a token, or is ours."""
    from huggingface_hub import get_token

    plain = _SECRET.sub("(token)", " ".join(text.split()))
    own = get_token()
    plain = plain.replace(own, "(token)") if own else plain
    return plain[:_MOST_CHARACTERS]
