"""Jobs that ask for several devices: which they get, in which order, and who may pass."""

from __future__ import annotations

import os

import pytest

from core.jobs.devices import next_job, serves, slots_for
from core.jobs.job import Job
from core.jobs.queue import stop_job
from core.jobs.worker import device_environment
from tests.jobs.bench import Bench

FOUR = ["cuda:0", "cuda:1", "cuda:2", "cuda:3", "cpu"]


def job(name: str, devices: str = "1", device: str = "auto") -> Job:
    return Job(name, "train", name, name, device=device, params={"devices": devices})


def given(queue: list[Job], *busy: str, devices: list[str] = FOUR) -> dict[str, str]:
    """What each free slot takes, one after the other: the job by its first slot, and all of its
    slots."""
    slots, held, found = slots_for(devices), set(busy), {}
    left = list(queue)
    for slot in slots:
        chosen = None if slot.name in held else next_job(left, held, slot, slots)
        if chosen is not None:
            one, got = chosen
            left.remove(one)
            held |= {each.name for each in got}
            found[one.id] = ",".join(each.name for each in got)
    return found


@pytest.mark.parametrize(
    ("queue", "busy", "wanted"),
    [
        ([job("a", "2")], (), {"a": "cuda:0,cuda:1"}),
        ([job("a", "4", "cuda")], (), {"a": "cuda:0,cuda:1,cuda:2,cuda:3"}),
        ([job("a", "1,3")], (), {"a": "cuda:1,cuda:3"}),
        ([job("a"), job("b", "2")], (), {"a": "cuda:0", "b": "cuda:1,cuda:2"}),
        # It waits for a second card and keeps the first: who comes later would put it off.
        ([job("a", "2"), job("b")], ("cuda:0", "cuda:1", "cuda:2"), {}),
        # It needs two others: who comes later has the rest.
        ([job("a", "0,1"), job("b")], ("cuda:0",), {"b": "cuda:2"}),
        ([job("a", "0,1"), job("b", "2"), job("c")], ("cuda:0",), {"b": "cuda:2,cuda:3"}),
        # The CPU is one place, however many processes share it.
        ([job("a", "3", "cpu"), job("b", "1", "cpu")], (), {"a": "cpu"}),
    ],
)
def test_who_gets_which_devices(
    queue: list[Job], busy: tuple[str, ...], wanted: dict[str, str]
) -> None:
    assert given(queue, *busy) == wanted


def test_more_than_there_are_is_served_by_nobody() -> None:
    assert serves(FOUR, "auto", "4") and not serves(FOUR, "auto", "5")
    assert serves(FOUR, "cuda", "0,3") and not serves(FOUR, "cuda", "0,4")
    assert serves(["cpu"], "cpu", "2")


def test_a_run_on_two_cards_holds_both_and_sees_both(bench: Bench) -> None:
    """Else the next run would be started on a card that is in use."""
    both = bench.add(steps=1, gated=True, devices="2")
    later = bench.add(steps=1, gated=True)
    bench.scheduler(devices=["cuda:0", "cuda:1", "cpu"])
    assert bench.wait_state(both, "running").device == "cuda:0,cuda:1"
    assert bench.store.get(later.id).state == "queued"
    bench.allow(both, 1)
    bench.wait_state(both, "finished")
    assert bench.wait_state(later, "running").device in ("cuda:0", "cuda:1")
    bench.allow(later, 1)
    bench.wait_state(later, "finished")


def test_a_run_for_more_cards_than_there_are_fails(bench: Bench) -> None:
    lost = bench.add(steps=1, devices="3")
    bench.scheduler(devices=["cuda:0", "cuda:1", "cpu"])
    assert "asks for the devices 3" in (bench.wait_state(lost, "failed").error or "")


def test_a_run_that_waits_for_cards_can_be_taken_out(bench: Bench) -> None:
    first = bench.add(steps=1, gated=True)
    waits = bench.add(steps=1, devices="2")
    bench.scheduler(devices=["cuda:0", "cuda:1", "cpu"])
    bench.wait_state(first, "running")
    assert stop_job(bench.workspace, bench.store, waits.id).state == "stopped"
    bench.allow(first, 1)
    bench.wait_state(first, "finished")


def test_a_worker_sees_its_own_cards_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """TRL's trainers would spread over all that they see."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert device_environment("cuda:1")["CUDA_VISIBLE_DEVICES"] == "1"
    assert device_environment("cuda:0,cuda:2")["CUDA_VISIBLE_DEVICES"] == "0,2"
    monkeypatch.setitem(os.environ, "CUDA_VISIBLE_DEVICES", "4,5,6")
    assert device_environment("cuda:0,cuda:2")["CUDA_VISIBLE_DEVICES"] == "4,6"
    assert device_environment("cpu")["CUDA_VISIBLE_DEVICES"] == ""
