"""A run on a Ray cluster, as far as it can be told without Ray: whether the cluster answers, and
where the run is."""

from __future__ import annotations

import socket

from core.config import RunConfig
from core.errors import Problem
from core.jobs.events import Event, read_attempt
from core.language import _
from core.workspace import RunFolder

_SECONDS_TO_ANSWER = 5.0


def nobody_answers(address: str) -> str:
    """Why nothing can be sent to a cluster's address; "" where somebody answers there."""
    if address == "auto":
        return ""
    host, _colon, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _SECONDS_TO_ANSWER).close()
    except (OSError, OverflowError) as error:
        return str(error)
    return ""


def cluster_problems(config: RunConfig) -> list[Problem]:
    """What is said before a run is put in the queue: it takes seconds where a host is down."""
    address = config.training.ray_address
    reason = nobody_answers(address) if address else ""
    if not reason:
        return []
    message = _(
        "nobody answers at {address} ({reason}). Check it, and that the cluster runs (ray status).",
        address=address,
        reason=reason,
    )
    return [Problem("training.ray_address", message)]


def place_in_cluster(run: RunFolder) -> str:
    """The node that a run trains on or was on last, with its cards; what it waits for where it is
    on none yet; "" for a run that was never sent to a cluster."""
    attempt = read_attempt(run.events)
    told = [event for event in attempt if "node" in event or event.get("waits")]
    if not told:
        return ""
    return place_text(told[-1]) if "node" in told[-1] else _("waits for room in the cluster")


def place_text(event: Event) -> str:
    """The node that the event tells of, with the run's cards on it."""
    node, cards = event["node"], event["cards"]
    return _("{node}, GPU {cards}", node=node, cards=cards) if cards else str(node)
