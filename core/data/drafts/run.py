"""The long work of a task, in a process of its own: asks, reads the replies, writes drafts down.

Each request has a number that fixes which rows it shows. What was answered is on the disk before
the next is asked, so a task that was stopped or killed goes on with the numbers that are missing.
"""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Protocol

from core.data.drafts.prompting import Ask, Reading, read_reply, word_request
from core.data.drafts.rows import likeness
from core.data.drafts.tasks import (
    DraftTask,
    append,
    at_work,
    load_task,
    read_log,
    seed_rows,
    tally_of,
)
from core.data.registry import load_dataset_info
from core.data.rowfile import iter_rows, rows_at
from core.data.values import Unusable
from core.errors import DataError, TunesmithError
from core.jobs.process import named
from core.language import N_, _, n_, pack
from core.progress import Stopped, Tell
from core.remote.endpoint import (
    FIRST_WAIT,
    EndpointModel,
    Message,
    Pace,
    Refused,
    Reply,
    endpoint_from,
    estimate_tokens,
)
from core.workspace import Workspace

_FRUITLESS = 10
"""So many requests in a row without a new row, and it is no use to go on."""

_ALL_ASKED = N_("Every prompt of the data set was asked once.")
_SKIPPED = 1000
_LOOK_SECONDS = 0.25
_GRACE_SECONDS = 3.0
_ONE_PASS = ("answer_prompts", "preference_pairs")
_TOKENS_AROUND_A_TURN = 8


class Model(Protocol):
    """What answers requests: an endpoint or a local model."""

    async def ask(self, messages: Sequence[Message]) -> Reply: ...

    async def __aenter__(self) -> Any: ...

    async def __aexit__(self, *error: Any) -> None: ...


def run_drafts(
    workspace_root: str | Path,
    dataset_id: str,
    task_id: str,
    progress: Tell | None = None,
    *,
    first_wait: float = FIRST_WAIT,
) -> DraftTask:
    """Works on a task until it has its rows, or goes on with one that was interrupted.

    `progress` gets (fraction, message) several times a second and may raise to stop; so do
    Ctrl-C and SIGTERM. Replies on their way get a moment to arrive. What was written stays.
    `first_wait` are the seconds before a request that failed is sent again.
    Raises TunesmithError when the task cannot go on.
    """
    workspace = Workspace.open(workspace_root)
    task = load_task(workspace, dataset_id, task_id)
    with at_work(task):
        task.state, task.reason = "working", ""
        task.save()
        work = _Work(workspace, task, progress)
        try:
            work.look_around()
            model = _model(workspace, task, work, first_wait)
            task.state, task.reason = asyncio.run(work.through(model))
        except BaseException as error:
            # A bug is a failure; whatever `progress` or a signal raises means: stop.
            is_stop = not isinstance(error, Exception) or error is work.stopped_by
            task.state = "stopped" if is_stop else "failed"
            known = isinstance(error, TunesmithError)
            if is_stop:
                task.reason = _("Stopped.")
            else:
                task.reason = str(error) if known else type(error).__name__
            if isinstance(error, asyncio.CancelledError):  # by SIGTERM
                raise Stopped from None
            raise
        finally:
            info = load_dataset_info(workspace, dataset_id)
            task.tally = tally_of(task, read_log(task.log), info)
            task.save()
    return task


def _model(workspace: Workspace, task: DraftTask, work: _Work, first_wait: float) -> Model:
    settings = task.settings
    if settings.source == "local":
        work.say(_("Loading {model}", model=settings.model))
        local: Model = named("core.worker.local_writer:LocalModel")(workspace, settings)
        return local
    pace = Pace(settings.requests_per_minute, first_wait=first_wait)
    return EndpointModel(endpoint_from(), settings, pace)


@dataclass
class _Done:
    """What came of a request: a reply, or the reason why there is none."""

    ask: Ask
    reply: Reply | None = None
    reason: str = ""


@dataclass
class _Work:
    """A task at work: what is known, what is asked at this moment, what may still be asked."""

    workspace: Workspace
    task: DraftTask
    progress: Tell | None
    stopped_by: BaseException | None = None
    drafts: int = 0
    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    likenesses: set[bytes] = field(default_factory=set)
    asks: Iterator[Ask] = iter(())
    pending: dict[asyncio.Task[_Done], Ask] = field(default_factory=dict)
    fruitless: Counter[str] = field(default_factory=Counter)
    since_last_row: int = 0

    def look_around(self) -> None:
        """Reads what was written before and what the data set holds already."""
        info = load_dataset_info(self.workspace, self.task.dataset)
        written = read_log(self.task.log)
        self.drafts, self.requests = len(written.drafts), len(written.requests)
        self.input_tokens, self.output_tokens = written.input_tokens, written.output_tokens
        self.likenesses = {likeness(draft.row) for draft in written.drafts}
        for part in info.parts:
            for batch in iter_rows(info.rows_path(part)):
                self.likenesses.update(map(likeness, batch))
                self.say(_("Reading the rows that are there"))
        path, places = seed_rows(info, self.task)
        self.asks = self._plan(path, places, frozenset(written.requests))

    def say(self, message: str) -> None:
        if self.progress is None:
            return
        try:
            self.progress(min(self.drafts / self.task.settings.rows, 1.0), message)
        except BaseException as error:
            self.stopped_by = error
            raise

    async def through(self, model: Model) -> tuple[Any, str]:
        """(state, reason) at the end of the work. In between, replies are written as they come."""
        settings = self.task.settings
        at_once = settings.requests_at_once if settings.source == "endpoint" else 1
        pending = self.pending
        waiting: Ask | None = None
        reason = ""
        async with model, _cancelled_by_sigterm():
            try:
                while True:
                    while not reason and len(pending) < at_once and self._wants() > 0:
                        waiting = waiting or next(self.asks, None)
                        reason = self._limit(waiting)
                        if reason or waiting is None:
                            break
                        pending[asyncio.create_task(_ask(model, waiting))] = waiting
                        waiting = None
                    if not pending:
                        return self._end(reason)
                    # What a request in flight turns out to cost may leave room for another.
                    reason = ""
                    await asyncio.wait(
                        pending, timeout=_LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED
                    )
                    self._collect()
                    self.say(self._so_far())
            finally:
                await self._wind_up()

    def _wants(self) -> int:
        """How many rows no request is out for yet."""
        expected = sum(ask.wanted for ask in self.pending.values())
        return self.task.settings.rows - self.drafts - expected

    def _limit(self, ask: Ask | None) -> str:
        """Why this request must not be made, or "". Those in flight count at their most."""
        settings = self.task.settings
        if ask is None:
            return _ALL_ASKED
        read = self.input_tokens + sum(map(_most_read, [*self.pending.values(), ask]))
        wrote = self.output_tokens + settings.max_new_tokens * (len(self.pending) + 1)
        if settings.token_budget is not None and read + wrote > settings.token_budget:
            return _(
                "The next request could pass the budget of {budget:,} tokens "
                "({spent:,} are spent). Raise it to go on.",
                budget=settings.token_budget,
                spent=self.input_tokens + self.output_tokens,
            )
        cost = settings.cost(read, wrote)
        if settings.max_cost is not None and cost is not None and cost > settings.max_cost:
            return _(
                "The next request could pass the highest cost of {max_cost:g}. Raise it to go on.",
                max_cost=settings.max_cost,
            )
        return ""

    def _end(self, reason: str) -> tuple[str, str]:
        if self.drafts >= self.task.settings.rows:
            return "finished", ""
        return ("finished" if reason in ("", _ALL_ASKED) else "stopped"), reason

    def _collect(self) -> None:
        for task in [task for task in self.pending if task.done()]:
            del self.pending[task]
            self._write(task.result())

    async def _wind_up(self) -> None:
        """Replies that are on their way are paid for: they get a moment to arrive. Not so those
        of a local model."""
        pending = list(self.pending)
        if pending and self.task.settings.source == "endpoint":
            await asyncio.wait(pending, timeout=_GRACE_SECONDS)
        for task in pending:
            if not task.done():
                task.cancel()
            elif not task.cancelled() and task.exception() is None:
                self._write(task.result(), gives_up=False)
        await asyncio.gather(*pending, return_exceptions=True)

    def _write(self, done: _Done, *, gives_up: bool = True) -> None:
        """Writes a reply down. Raises DataError when too many in a row gave nothing."""
        reading = Reading(problems=Counter([done.reason] if done.reason else []))
        reply, task = done.reply, self.task
        if reply is not None:
            reading = read_reply(reply.text, done.ask, task.drafts_form, task.labels, cut=reply.cut)
            self.input_tokens += reply.input_tokens
            self.output_tokens += reply.output_tokens
        fresh = []
        for row in reading.rows:
            key = likeness(row)
            if key not in self.likenesses:
                self.likenesses.add(key)
                fresh.append(row)
        line: dict[str, Any] = {
            "request": done.ask.number,
            "seeds": list(done.ask.seeds),
            "rows": fresh,
            "duplicates": len(reading.rows) - len(fresh),
            "problems": _packed(reading.problems),
        }
        if reply is not None:
            line |= {"input_tokens": reply.input_tokens, "output_tokens": reply.output_tokens}
            line |= {"estimated": True} if reply.estimated else {}
        append(task.log, line)
        self.drafts += len(fresh)
        self.requests += 1
        self._count_fruitless(bool(fresh), reading, line["duplicates"], gives_up)

    def _count_fruitless(
        self, fruitful: bool, reading: Reading, duplicates: int, gives_up: bool
    ) -> None:
        if fruitful:
            self.since_last_row = 0
            self.fruitless.clear()
            return
        self.since_last_row += 1
        self.fruitless.update(reading.problems)
        self.fruitless[_("the rows were there already")] += duplicates
        if gives_up and self.since_last_row >= _FRUITLESS:
            most = self.fruitless.most_common(1)[0][0]
            raise DataError(
                _(
                    "{requests} requests one after the other gave no new row; mostly {reason}.",
                    requests=_FRUITLESS,
                    reason=most,
                ),
                _(
                    "Try a larger model, a longer reply, other words in `What to vary`, or a "
                    "higher temperature. What was written so far is kept."
                ),
            )

    def _plan(self, path: Path, places: Sequence[int], asked: frozenset[int]) -> Iterator[Ask]:
        """The requests that were not answered yet, in their order. What cannot be asked is
        written down with its reason."""
        settings = self.task.settings
        writes_rows = settings.kind in ("more_like", "paraphrase")
        size = min(settings.examples, len(places)) if writes_rows else 1
        order: Sequence[int] = []
        if settings.kind != "more_like":
            order = random.Random(settings.seed).sample(places, len(places))
        skipped = 0
        for number in count():
            if settings.kind in _ONE_PASS and number >= len(places):
                return
            if number in asked:
                continue
            if settings.kind == "more_like":
                chance = random.Random(f"{settings.seed} {number}")
                seeds = chance.sample(places, size)
            else:
                seeds = [order[(number * size + i) % len(order)] for i in range(size)]
            found = rows_at(path, seeds)
            rows = [found[seed] for seed in seeds]
            wanted = max(min(settings.rows_per_request, self._wants()), 1)
            try:
                ask = word_request(
                    settings, self.task.form, self.task.labels, number, seeds, rows, wanted
                )
            except Unusable as error:
                skipped += 1
                self._skip(number, seeds, error.args[0], skipped)
                continue
            skipped = 0
            yield ask

    def _skip(self, number: int, seeds: Sequence[int], reason: str, skipped: int) -> None:
        line = {
            "request": number,
            "seeds": list(seeds),
            "rows": [],
            "problems": _packed({reason: 1}),
        }
        append(self.task.log, line)
        self.say(self._so_far())
        if skipped >= _SKIPPED:
            raise DataError(
                _(
                    "{rows} rows one after the other cannot be shown to a model: {reason}.",
                    rows=_SKIPPED,
                    reason=reason,
                ),
                _("Choose another kind, or cut the rows first."),
            )

    def _so_far(self) -> str:
        settings = self.task.settings
        tokens = self.input_tokens + self.output_tokens
        said = n_(
            "{drafts} of {rows} drafts, {n} request, {tokens:,} tokens",
            "{drafts} of {rows} drafts, {n} requests, {tokens:,} tokens",
            self.requests,
            drafts=self.drafts,
            rows=settings.rows,
            tokens=tokens,
        )
        cost = settings.cost(self.input_tokens, self.output_tokens)
        return _("{so_far}, cost {cost:.4f}", so_far=said, cost=cost) if cost else said


@asynccontextmanager
async def _cancelled_by_sigterm() -> AsyncIterator[None]:
    """While it lasts, SIGTERM cancels this task alone, as Ctrl-C does: an exception out of the
    signal would end the requests that are on their way, too."""
    main, loop = asyncio.current_task(), asyncio.get_running_loop()
    before = signal.getsignal(signal.SIGTERM)
    assert main is not None
    try:
        loop.add_signal_handler(signal.SIGTERM, main.cancel)
    except (NotImplementedError, RuntimeError, ValueError):  # Windows, or not the main thread
        yield
        return
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
        signal.signal(signal.SIGTERM, before)


async def _ask(model: Model, ask: Ask) -> _Done:
    try:
        return _Done(ask, await model.ask(ask.messages))
    except Refused as error:
        return _Done(ask, reason=error.args[0])


def _packed(problems: Mapping[str, int]) -> list[dict[str, Any]]:
    return [{"reason": pack(reason), "count": count} for reason, count in problems.items()]


def _most_read(ask: Ask) -> int:
    return estimate_tokens(ask.chars) + _TOKENS_AROUND_A_TURN * len(ask.messages)
