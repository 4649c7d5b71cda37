"""A job seen through: its events as lines and a progress bar on standard error, Ctrl-C, and the
exit code it ends with."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from core.commands.output import DONE, FAILED, STOPPED, Output, spell_seconds
from core.language import _

if TYPE_CHECKING:
    from core.jobs.job import Job
    from core.jobs.store import Store
    from core.workspace import Workspace


def follow(
    workspace: Workspace, store: Store, job: Job, output: Output, view: JobView | None = None
) -> tuple[Job, dict[str, Any]]:
    """Sees the job to its end: in this process, or where a server runs, in that one.

    Returns the ended job and its result event. Ctrl-C stops it with a checkpoint. What `view`
    raises leaves the job to itself.
    """
    from core.jobs.scheduler import Scheduler, live_server
    from core.models.hardware import local_devices

    is_served = live_server(workspace) is not None
    # Without devices it starts no worker, and still looks after one whose server has gone.
    scheduler = Scheduler(workspace, store, [] if is_served else local_devices())
    if not is_served:
        scheduler.warm()
    view = view or JobView()

    def tell(pressed: int) -> None:
        told = _("Stopping now.")
        if pressed == 1 and job.kind == "train":
            told = _("Stopping with a checkpoint; Ctrl-C again stops at once.")
        elif pressed == 1:
            told = _("Stopping at the next chance; Ctrl-C again stops at once.")
        view.say(f"\n{told}")

    try:
        ended = scheduler.run_until_done(job.id, view, tell)
    finally:
        view.close()
        scheduler.close()
    return ended, view.last_result


def exit_code(job: Job) -> int:
    return {"finished": DONE, "stopped": STOPPED}.get(job.state, FAILED)


def say_end(job: Job, output: Output) -> None:
    """How the job ended, and what to do next where it did not finish."""
    from core.jobs.kinds import KINDS

    doing = _(KINDS[job.kind].doing).format(name=job.name)
    told = {"what": _("Run") if job.kind == "train" else doing, "id": job.id}
    if job.state == "finished":
        return
    if job.state == "died":
        output.say(_("{what} {id} died (signal {signal}).", **told, signal=job.signal))
    elif job.state == "failed":
        output.say(_("{what} {id} failed: {error}", **told, error=job.error))
        if job.advice:
            output.say(job.advice)
    elif job.kind == "train":
        output.say(_("{what} {id} stopped at step {step}.", **told, step=job.step))
    else:
        output.say(_("{what} {id} stopped.", **told))
    if job.kind == "train":
        output.say(_("Go on from its last checkpoint: {command}", command=f"runs resume {job.id}"))


# How often progress is told where no bar can be drawn (seconds).
_PLAIN_INTERVAL = 10.0


class JobView:
    """Draws what a job's events tell. Use as `on_event`; `close` ends the bar."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._terminal = sys.stderr.isatty()
        self._loss: float | None = None
        self._told_at = 0.0
        self._told = ""
        self.last_result: dict[str, Any] = {}

    def __call__(self, event: dict[str, Any]) -> None:
        show = getattr(self, f"_show_{event.get('kind')}", None)
        if show is not None:
            show(event)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def say(self, text: str) -> None:
        """A line above the bar."""
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        else:
            print(text, file=sys.stderr, flush=True)

    def _show_log(self, event: dict[str, Any]) -> None:
        if event.get("message"):
            self.say(str(event["message"]))

    def _show_error(self, event: dict[str, Any]) -> None:
        self.say(_("Error: {error}", error=event.get("message", "")))

    def _show_result(self, event: dict[str, Any]) -> None:
        self.last_result = {k: v for k, v in event.items() if k not in ("kind", "time")}

    def _show_metrics(self, event: dict[str, Any]) -> None:
        if event.get("loss") is not None:
            self._loss = float(event["loss"])
        if event.get("eval_loss") is not None:
            self.say(
                _(
                    "Step {step}: eval loss {loss:.4f}",
                    step=event.get("step"),
                    loss=event["eval_loss"],
                )
            )

    def _show_sample(self, event: dict[str, Any]) -> None:
        prompt = event.get("prompt") or []
        last = prompt[-1] if isinstance(prompt, list) and prompt else prompt
        question = str(last.get("content", "") if isinstance(last, dict) else last)
        asked = _("Step {step}: {prompt}", step=event.get("step"), prompt=_short(question))
        self.say(f"{asked}\n  -> {_short(event['answer'])}")

    def _show_progress(self, event: dict[str, Any]) -> None:
        if not event.get("max_steps") and event.get("fraction") is None:
            self._doing(str(event.get("message") or ""))
            return
        done, total = self._done(event)
        if self._terminal:
            self._draw(done, total, event)
        elif time.monotonic() - self._told_at >= _PLAIN_INTERVAL:
            self._told_at = time.monotonic()
            self.say(self._plain(done, total, event))

    def _doing(self, message: str) -> None:
        """Work whose length is not known, told once."""
        if message and message != self._told:
            self._told = message
            self.say(message)

    def _done(self, event: dict[str, Any]) -> tuple[float, float]:
        """(done, of) in steps for a training and in hundredths for the rest."""
        if event.get("max_steps"):
            return float(event.get("step") or 0), float(event["max_steps"])
        return round(100.0 * float(event.get("fraction") or 0.0)), 100.0

    def _draw(self, done: float, total: float, event: dict[str, Any]) -> None:
        from tqdm import tqdm

        if self._bar is None:
            self._bar = tqdm(
                total=total,
                file=sys.stderr,
                dynamic_ncols=True,
                bar_format="{desc}{percentage:3.0f}% |{bar}| {n:.0f}/{total:.0f}{postfix}",
            )
        self._bar.total = total
        self._bar.n = done
        self._bar.set_postfix_str(", ".join(self._facts(event)), refresh=False)
        self._bar.refresh()

    def _plain(self, done: float, total: float, event: dict[str, Any]) -> str:
        place = (
            _("step {done:.0f} of {total:.0f}", done=done, total=total)
            if event.get("max_steps")
            else f"{done:.0f} %"
        )
        return ", ".join([place, *self._facts(event)])

    def _facts(self, event: dict[str, Any]) -> list[str]:
        message = str(event.get("message") or "")
        facts = [message] if message not in ("", _("Training")) else []
        if self._loss is not None:
            facts.append(_("loss {loss:.4f}", loss=self._loss))
        if event.get("eta_seconds") is not None:
            facts.append(_("{time} left", time=spell_seconds(event["eta_seconds"])))
        return facts


def fetch_progress(fraction: float | None, message: str = "") -> None:
    """Progress of a download or an import, told on one line that is drawn again."""
    if not sys.stderr.isatty():
        return
    share = "" if fraction is None else f" {100 * fraction:.0f} %"
    print(f"\r\033[K{message}{share}", end="", file=sys.stderr, flush=True)
    if fraction is not None and fraction >= 1:
        print(file=sys.stderr)


def _short(text: Any, most: int = 100) -> str:
    line = " ".join(str(text).split())
    return line if len(line) <= most else line[: most - 3] + "..."
