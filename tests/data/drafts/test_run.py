"""A task that asks an endpoint: nothing is asked twice, no limit is passed, nothing is lost."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from core.data.drafts.review import accept, read_drafts
from core.data.drafts.run import run_drafts
from core.data.drafts.tasks import begin, change_task, list_tasks, load_task, read_log
from core.errors import DataError, JobError, ModelError
from core.jobs.isolated import call_isolated
from core.language import speaking
from tests.data.drafts.conftest import KEY, completion, failure, new_rows, questions
from tests.waiting import LIMIT, until

QUICK: dict[str, Any] = {"model": "big", "requests_per_minute": 60_000}


def run(workspace: Any, task: Any, progress: Any = None) -> Any:
    """What fails is asked for again soon; what a server asks for is waited all the same."""
    return run_drafts(workspace.root, task.dataset, task.id, progress, first_wait=0.01)


def test_rows_are_written_and_counted(make_dataset: Any, endpoint: Any) -> None:
    """A person gets the rows asked for, and sees what they took."""
    workspace, info = make_dataset(questions())
    settings = {**QUICK, "rows": 12, "instruction": "Only sums.", "temperature": 0.5}
    told: list[tuple[float, str]] = []
    prices = {"input_price": 1.0, "output_price": 10.0}
    task = begin(workspace, info.id, {**settings, **prices})
    assert task.state == "stopped" and task.host == "127.0.0.1"
    done = run(workspace, task, lambda fraction, message: told.append((fraction, message)))
    assert done.state == "finished" and done.tally.drafts == done.tally.new == 12
    assert done.tally.requests == len(endpoint.bodies) == 3  # 5 + 5 + 2 rows
    assert (done.tally.input_tokens, done.tally.output_tokens) == (300, 60)
    assert done.tally.cost == pytest.approx(300e-6 + 600e-6)
    assert told[-1][0] == 1.0 and "12 of 12 drafts" in told[-1][1]
    body = endpoint.bodies[0]
    assert body["model"] == "big" and body["temperature"] == 0.5 and body["max_tokens"] == 2048
    assert "Only sums." in body["messages"][-1]["content"]
    shown = body["messages"][-1]["content"].count("capital of land")
    assert shown == 4
    drafts, count = read_drafts(workspace, info.id, task.id, 0, 5)
    assert count == 12 and len(drafts) == 5 and [d.id for d in drafts] == [1, 2, 3, 4, 5]
    assert all(
        len(set(draft.seeds)) == 4 and set(draft.seeds) <= set(range(12)) for draft in drafts
    )
    assert {draft.row["prompt"][0]["role"] for draft in drafts} == {"user"}
    assert set(endpoint.keys) == {f"Bearer {KEY}"}


def test_the_key_and_the_url_are_written_nowhere(
    make_dataset: Any, endpoint: Any, caplog: Any, capfd: Any
) -> None:
    """A key in a file or a log goes wherever the workspace is copied."""
    caplog.set_level(0)
    workspace, info = make_dataset(questions())

    def repeats_it(number: int, body: Any) -> Any:
        if number == 0:
            rows = [{"prompt": f"Whose key is {KEY}?", "completion": endpoint.url}]
            return completion(json.dumps(rows))
        return failure(401, f"Incorrect key {KEY} for {endpoint.url}")

    endpoint.answer = repeats_it
    messages: list[str] = []
    task = begin(workspace, info.id, {**QUICK, "rows": 9, "requests_at_once": 1})
    with pytest.raises(ModelError) as caught:
        run(workspace, task, lambda fraction, message: messages.append(message))
    assert "does not accept the key" in str(caught.value)
    assert list_tasks(workspace, info.id)[0].tally.drafts == 1
    files = [path for path in workspace.root.rglob("*") if path.is_file()]
    assert any(path.name == "drafts.jsonl" for path in files)
    said = capfd.readouterr()
    port = endpoint.url.split(":")[2]
    for text in (
        *(path.read_bytes().decode(errors="replace") for path in files),
        str(caught.value),
        repr(caught.value.__context__),
        *messages,
        said.out,
        said.err,
    ):
        assert KEY not in text and f":{port}" not in text
    assert KEY not in caplog.text


def test_a_busy_endpoint_is_left_alone_for_as_long_as_it_asks(
    make_dataset: Any, endpoint: Any
) -> None:
    workspace, info = make_dataset(questions())

    def busy(number: int, body: Any) -> Any:
        return failure(429, "slow down", Retry_After="1") if number == 0 else new_rows(number, body)

    endpoint.answer = busy
    done = run(workspace, begin(workspace, info.id, {**QUICK, "rows": 5}))
    assert done.state == "finished" and done.tally.drafts == 5
    assert len(endpoint.times) == 2 and endpoint.times[1] - endpoint.times[0] >= 0.95


def test_a_failing_server_is_asked_again(make_dataset: Any, endpoint: Any) -> None:
    workspace, info = make_dataset(questions())
    endpoint.answer = lambda number, body: (
        failure(500 + 3 * (number % 2)) if number < 3 else new_rows(number, body)
    )
    done = run(workspace, begin(workspace, info.id, {**QUICK, "rows": 5}))
    assert done.tally.drafts == 5 and len(endpoint.bodies) == 4 and done.tally.requests == 1


def test_a_server_that_only_fails_ends_the_task_and_it_can_go_on_later(
    make_dataset: Any, endpoint: Any
) -> None:
    workspace, info = make_dataset(questions())
    endpoint.answer = lambda number, body: failure(503, "overloaded")
    task = begin(workspace, info.id, {**QUICK, "rows": 5, "requests_at_once": 1})
    with pytest.raises(ModelError, match="in 6 tries: overloaded"):
        run(workspace, task)
    failed = load_task(workspace, info.id, task.id)
    assert failed.state == "failed" and "overloaded" in failed.reason
    endpoint.answer = new_rows
    assert run(workspace, task).state == "finished"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (failure(401), "does not accept the key"),
        (failure(403), "does not accept the key"),
        (failure(404, "no model big"), "knows no model big"),
        (failure(302, "", Location="http://127.0.0.1:9/"), "sends requests elsewhere"),
        (failure(429, "later", Retry_After="86400"), "takes no more requests for now"),
        (
            (429, {}, {"error": {"message": "pay", "code": "insufficient_quota"}}),
            "Is the credit used up",
        ),
    ],
)
def test_what_no_other_try_mends_is_told_at_once(
    make_dataset: Any, endpoint: Any, answer: Any, expected: str
) -> None:
    """Nobody waits for tries that cannot work."""
    workspace, info = make_dataset(questions())
    endpoint.answer = lambda number, body: answer
    task = begin(workspace, info.id, {**QUICK, "requests_at_once": 1})
    with pytest.raises(ModelError, match=expected):
        run(workspace, task)
    assert len(endpoint.bodies) == 1


def test_a_slow_reply_is_given_up_and_asked_for_again(make_dataset: Any, endpoint: Any) -> None:
    workspace, info = make_dataset(questions())
    let_go = threading.Event()

    def slow(number: int, body: Any) -> Any:
        if number == 0:
            let_go.wait(LIMIT)
        return new_rows(number, body)

    endpoint.answer = slow
    settings = {**QUICK, "rows": 5, "timeout_seconds": 0.4}
    done = run(workspace, begin(workspace, info.id, settings))
    let_go.set()
    assert done.tally.drafts == 5 and len(endpoint.bodies) == 2


def test_a_newer_name_of_the_length_limit_is_learned(make_dataset: Any, endpoint: Any) -> None:
    """Newer models refuse max_tokens and say what they want instead."""
    workspace, info = make_dataset(questions())

    def newer(number: int, body: Any) -> Any:
        if "max_tokens" in body:
            return failure(400, "Use 'max_completion_tokens' instead of 'max_tokens'.")
        return new_rows(number, body)

    endpoint.answer = newer
    settings = {**QUICK, "rows": 10, "requests_at_once": 1}
    done = run(workspace, begin(workspace, info.id, settings))
    assert done.tally.drafts == 10 and len(endpoint.bodies) == 3


def test_garbage_is_counted_and_ends_the_task_before_it_costs_much(
    make_dataset: Any, endpoint: Any
) -> None:
    workspace, info = make_dataset(questions())
    kinds = [completion("I would rather not."), (200, {}, "<html>"), failure(400, "bad words")]
    endpoint.answer = lambda number, body: kinds[number % 3]
    task = begin(workspace, info.id, {**QUICK, "rows": 100, "requests_at_once": 1})
    with pytest.raises(DataError, match="10 requests one after the other gave no new row"):
        run(workspace, task)
    tally = load_task(workspace, info.id, task.id).tally
    assert len(endpoint.bodies) == tally.requests == 10 and tally.drafts == 0
    assert tally.unusable == {
        "the reply holds no JSON rows": 4,
        "the endpoint's reply is no chat completion": 3,
        "the endpoint refused the request (400: bad words)": 3,
    }
    with speaking("pseudo"):
        again = load_task(workspace, info.id, task.id)
        assert all(reason.startswith("⟦") for reason in [again.reason, *again.tally.unusable])


def test_reasons_that_were_written_as_plain_text_are_counted(tmp_path: Path) -> None:
    line = {"request": 0, "seeds": [], "rows": [], "problems": {"the reply is empty": 2}}
    (tmp_path / "drafts.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
    assert read_log(tmp_path / "drafts.jsonl").unusable == {"the reply is empty": 2}


def test_rows_that_are_there_already_are_counted_and_not_offered(
    make_dataset: Any, endpoint: Any
) -> None:
    workspace, info = make_dataset(questions())
    own = {"prompt": "what is the CAPITAL of land 3", "completion": "Town 3"}
    new = {"prompt": "Who lives in land 3?", "completion": "Nobody."}
    rows = [own, new, new, {"prompt": "", "completion": "x"}, {"prompt": "no answer"}]
    endpoint.answer = lambda number, body: (
        completion(json.dumps({"rows": rows})) if number == 0 else new_rows(number, body)
    )
    settings = {**QUICK, "rows": 4, "requests_at_once": 1}
    done = run(workspace, begin(workspace, info.id, settings))
    assert done.tally.duplicates == 2 and done.tally.drafts == 4
    assert done.tally.unusable == {
        "prompt, turn N: is empty": 1,
        "completion: is missing": 1,
    }


def test_requests_are_never_faster_than_the_limit(make_dataset: Any, endpoint: Any) -> None:
    """An account that goes too fast is blocked. Measured by the server."""
    workspace, info = make_dataset(questions())
    settings = {"model": "big", "rows": 8, "rows_per_request": 1, "requests_per_minute": 600}
    begun = time.monotonic()
    run(workspace, begin(workspace, info.id, settings))
    assert len(endpoint.times) == 8
    assert endpoint.times[-1] - begun >= 7 * 0.1  # without the limit a few milliseconds


def test_no_more_requests_at_once_than_the_limit(make_dataset: Any, endpoint: Any) -> None:
    workspace, info = make_dataset(questions())
    both = threading.Barrier(2)

    def together(number: int, body: Any) -> Any:
        both.wait(LIMIT)  # only two at the same time get past this
        return new_rows(number, body)

    endpoint.answer = together
    settings = {**QUICK, "rows": 6, "rows_per_request": 1, "requests_at_once": 2}
    run(workspace, begin(workspace, info.id, settings))
    assert endpoint.most_at_once == 2 and len(endpoint.bodies) == 6


@pytest.mark.parametrize("limit", [{"token_budget": 3000}, {"max_cost": 3.0}])
def test_a_budget_is_never_passed(make_dataset: Any, endpoint: Any, limit: Any) -> None:
    """Even if each reply is as long as it may be, and several are on their way."""
    workspace, info = make_dataset(questions())
    longest = 400
    endpoint.answer = lambda number, body: (
        *new_rows(number, body)[:2],
        {**new_rows(number, body)[2], "usage": {"prompt_tokens": 150, "completion_tokens": 400}},
    )
    settings = {**QUICK, "rows": 1000, "max_new_tokens": longest, **limit}
    prices = {"input_price": 1000.0, "output_price": 1000.0}
    task = begin(workspace, info.id, {**settings, **prices})
    done = run(workspace, task)
    assert done.state == "stopped" and "Raise it to go on" in done.reason
    assert 3000 - 2 * 1100 < done.tally.tokens <= 3000
    assert done.tally.tokens == 550 * len(endpoint.bodies)
    change_task(workspace, info.id, task.id, {name: 2 * value for name, value in limit.items()})
    more = run(workspace, task)
    assert done.tally.tokens < more.tally.tokens <= 6000
    assert len(set(endpoint.prompts())) == len(endpoint.prompts())


def test_a_stop_keeps_what_was_written_and_the_next_run_asks_for_the_rest(
    make_dataset: Any, endpoint: Any
) -> None:
    workspace, info = make_dataset(questions(40))
    settings = {**QUICK, "rows": 20, "rows_per_request": 1, "requests_at_once": 2}
    task = begin(workspace, info.id, settings)

    class Stop(Exception):
        pass

    def stop_soon(fraction: float, message: str) -> None:
        if fraction >= 0.3:
            raise Stop

    with pytest.raises(Stop):
        run(workspace, task, stop_soon)
    stopped = load_task(workspace, info.id, task.id)
    assert stopped.state == "stopped" and 6 <= stopped.tally.drafts < 20
    assert run(workspace, task).tally.drafts == 20
    assert len(set(endpoint.prompts())) == len(endpoint.bodies) == 20


def test_a_killed_task_asks_again_only_for_what_it_never_got(
    make_dataset: Any, endpoint: Any
) -> None:
    """A crash must not cost the rows that were paid for."""
    workspace, info = make_dataset(questions(40))
    hang = threading.Event()

    def hangs_at_the_sixth(number: int, body: Any) -> Any:
        if number == 5:
            hang.wait(LIMIT)
        return new_rows(number, body)

    endpoint.answer = hangs_at_the_sixth
    settings = {**QUICK, "rows": 9, "rows_per_request": 1, "requests_at_once": 1}
    task = begin(workspace, info.id, settings)
    process = multiprocessing.get_context("fork").Process(
        target=run_drafts, args=(workspace.root, info.id, task.id)
    )
    process.start()
    until(lambda: len(endpoint.bodies) == 6)
    assert load_task(workspace, info.id, task.id).state == "working"
    with pytest.raises(JobError, match="at work already"):
        run(workspace, task)
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    hang.set()
    died = load_task(workspace, info.id, task.id)
    assert died.state == "stopped" and "process ended" in died.reason and died.tally.drafts == 5
    with (task.folder / "drafts.jsonl").open("a") as file:
        file.write('{"request": 5, "rows": [{"prompt"')  # as if it died while it wrote
    accept(workspace, info.id, task.id, [2])
    done = run(workspace, task)
    assert done.state == "finished" and done.tally.drafts == 9 and done.tally.accepted == 1
    asked = endpoint.prompts()
    assert len(asked) == 10 and len(set(asked)) == 9 and asked[5] in asked[6:]
    assert len(read_log(task.log).requests) == 9


def test_a_stop_from_another_process_keeps_the_replies(make_dataset: Any, endpoint: Any) -> None:
    """As the page does it: the work is in a process of its own, which is told to end."""
    workspace, info = make_dataset(questions(40))
    settings = {**QUICK, "rows": 12, "rows_per_request": 1, "requests_at_once": 2}
    task = begin(workspace, info.id, settings)
    on_their_way, later = threading.Event(), threading.Event()

    def waits_from_the_seventh(number: int, body: Any) -> Any:
        if number >= 6:
            (on_their_way if number < 8 else later).wait(LIMIT)
        return new_rows(number, body)

    class Stop(Exception):
        pass

    def stop_in_the_middle(fraction: float, message: str) -> None:
        if fraction >= 0.5:
            until(lambda: len(endpoint.bodies) >= 8)
            on_their_way.set()
            raise Stop

    endpoint.answer = waits_from_the_seventh
    spawned = {"workers": multiprocessing.get_context("spawn")}
    with pytest.raises(Stop):
        call_isolated(
            run_drafts, workspace.root, info.id, task.id, tell=stop_in_the_middle, **spawned
        )
    later.set()
    stopped = load_task(workspace, info.id, task.id)
    assert (stopped.state, stopped.reason) == ("stopped", "Stopped.")
    assert stopped.tally.drafts == 8
    call_isolated(run_drafts, workspace.root, info.id, task.id, **spawned)
    assert load_task(workspace, info.id, task.id).tally.drafts == 12
    assert len(set(endpoint.prompts())) == 12
