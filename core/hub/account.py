"""Who is logged in to the Hub and what the token may do; logging in and out.

The token is kept by huggingface_hub's own store (HF_TOKEN_PATH) or comes from HF_TOKEN, and goes
nowhere else.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from core.errors import HubError
from core.hub.answers import client, endpoint, not_the_hub, offline, token_page, told_plainly
from core.language import N_, _
from core.models.hub import is_offline

READ, WRITE, FINE_GRAINED = "read", "write", "fineGrained"
ROLES = {
    READ: N_("may read"),
    WRITE: N_("may read and write"),
    FINE_GRAINED: N_("may do what was chosen for it (fine-grained)"),
}
_TOKEN = re.compile(r"[\x21-\x7e]{4,1000}")
_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


@dataclass(frozen=True)
class Account:
    """Whom a token belongs to. `role` is what it may do, as the Hub calls it ("" if it does not
    say); `writes` names what a fine-grained one may write to."""

    name: str
    organizations: tuple[str, ...]
    token_name: str
    role: str
    writes: tuple[str, ...]
    endpoint: str
    from_environment: bool

    @property
    def namespaces(self) -> tuple[str, ...]:
        return (self.name, *self.organizations)

    def may(self) -> str:
        """What the token may do, in words."""
        known = _(ROLES[self.role]) if self.role in ROLES else _("may do what it was made for")
        if not self.writes:
            return known
        return _("{known}; writes to {names}", known=known, names=", ".join(self.writes))


def who_am_i(*, anew: bool = False) -> Account | None:
    """The account that is logged in, None if there is none. The Hub is asked once for each token,
    or `anew`; raises HubError when it refuses or does not answer."""
    from huggingface_hub import get_token

    if is_offline():
        raise offline()
    token = get_token()
    if token is None:
        return None
    _check_form(token)
    with told_plainly():
        told = client().whoami(token=token, cache=not anew)
    return _account(told)


def log_in(token: str) -> Account:
    """Keeps a token, once the Hub knows it. Raises HubError otherwise."""
    from huggingface_hub import login

    token = token.strip()
    if is_offline():
        raise offline()
    _check_form(token)
    if set_by := _variable():
        raise HubError(
            _("{name} is set, and counts more than a login.", name=set_by),
            _("Put the token there, or unset it and start Tunesmith again."),
        )
    client()  # with its limits of time
    with told_plainly():
        login(token=token, skip_if_logged_in=False)
    account = who_am_i()
    assert account is not None
    return account


def log_out() -> bool:
    """Forgets every token that was kept; False when there was none. Raises HubError while one is
    set in the environment."""
    from huggingface_hub import get_token, logout

    known = get_token() is not None
    try:
        logout()
    except OSError as error:  # of the environment, or there is no git, which need not know
        if get_token() is not None:
            raise HubError(
                _("{name} is set, so you are still logged in.", name=_variable() or "HF_TOKEN"),
                _("Unset it, and start Tunesmith again."),
            ) from error
    return known


def _check_form(token: str) -> None:
    """Raises HubError for what can be no token, before it is sent: some errors of a request name
    what could not be sent."""
    if not _TOKEN.fullmatch(token):
        raise HubError(
            _("This is no token: one has letters, digits and signs, without blanks."),
            _("Copy it again from {place}.", place=token_page()),
        )
    if token.startswith("api_org"):
        raise HubError(
            _("This is the token of an organization, which the Hub no longer takes."),
            _("Make one of your own at {place}.", place=token_page()),
        )


def _variable() -> str:
    return next((name for name in _VARIABLES if os.environ.get(name)), "")


def _account(told: object) -> Account:
    if not isinstance(told, dict) or "name" not in told:
        raise not_the_hub()
    auth = told.get("auth")
    token = auth.get("accessToken") if isinstance(auth, dict) else None
    token = token if isinstance(token, dict) else {}
    return Account(
        name=str(told["name"]),
        organizations=_names(told.get("orgs")),
        token_name=str(token.get("displayName") or ""),
        role=str(token.get("role") or ""),
        writes=_writes(token.get("fineGrained")),
        endpoint=endpoint(),
        from_environment=bool(_variable()),
    )


def _names(told: object) -> tuple[str, ...]:
    items = told if isinstance(told, list) else []
    return tuple(str(one["name"]) for one in items if isinstance(one, dict) and one.get("name"))


def _writes(told: object) -> tuple[str, ...]:
    """The names that a fine-grained token may write to."""
    scoped = told.get("scoped") if isinstance(told, dict) else None
    return tuple(
        str(one["entity"]["name"])
        for one in (scoped if isinstance(scoped, list) else [])
        if "repo.write" in (one.get("permissions") or ()) and (one.get("entity") or {}).get("name")
    )
