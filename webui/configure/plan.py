"""The summary card of Configure: what a run will be, told before it starts. Will it fit, how long:
memory part by part, what would make it fit, and two steps tried beforehand."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import gradio as gr
import psutil
from gradio.components import Component
from markupsafe import Markup

from core.config import RunConfig, nest
from core.config.run import device_count
from core.errors import ConfigError, Problem, TunesmithError
from core.estimate.auto import device_of
from core.estimate.changes import Change, changes_that_fit
from core.estimate.memory import MemoryEstimate
from core.estimate.pace import Pace, pace_from_runs, seconds_of, try_run
from core.estimate.plan import RunEstimate, estimate_run
from core.estimate.summary import Summary, optimizer_steps, rows_of_trainer, step_text, summarize
from core.language import _, n_
from core.models.hardware import Device, Hardware
from core.models.location import ensure_model, local_model
from core.rules import parse_config
from core.runs.naming import dataset_title
from core.tokens.lens import Lens
from webui import background, messages
from webui.context import QUIET, App, of_trigger
from webui.forms import Form, said, setting_label
from webui.html import html
from webui.tokens import count_tokens, finished


def checked(
    values: Mapping[str, Any], problems: Sequence[Problem]
) -> tuple[RunConfig | None, tuple[Problem, ...]]:
    """The configuration of `values`, or None and every problem."""
    try:
        config = parse_config(nest(dict(values)))
    except ConfigError as error:
        unread = {problem.field for problem in problems}
        more = [problem for problem in error.problems if problem.field not in unread]
        return None, (*problems, *more)
    return (config, ()) if not problems else (None, tuple(problems))


def card(
    app: App,
    config: RunConfig | None,
    problems: Sequence[Problem] = (),
    trial: Mapping[str, Any] | None = None,
    refused: Sequence[Problem] = (),
) -> Markup:
    """The card's HTML: figures, memory, what needs attention; with problems, what to mend.

    `trial` is what two steps with these settings measured (core.estimate.pace); `refused` what
    keeps the run from starting although its settings can be read.
    """
    if config is None:
        return html.plan.card(_to_mend(problems), Markup())
    counting = count_tokens(app, config.data.dataset, Lens.of(config))
    counts = finished(counting)
    summary = summarize(app.workspace, config, counts, refused)
    estimate = estimate_of(app, config, summary.train_rows, counts)
    waiting = counting is not None and not counting.done()
    # What is on auto a cluster's node chooses for itself.
    settled = config if config.training.ray_address else estimate.config or config
    facts: dict[str, str] = {
        _("Base model"): summary.base,
        _("Parameters"): _parameters(summary),
        _("Trained"): _trained(summary),
        _("Data set"): dataset_title(app.workspace, config.data.dataset),
        _("Rows"): _rows(summary),
        _("Tokens"): _("counting") if waiting else _tokens(summary, counts),
        _("Training steps"): _steps(summary, settled, counts),
        _("Rows a step"): step_text(settled) or _("when it starts"),
        _("Time"): time_text(app, estimate, counts, trial),
    }
    chosen = [
        (setting_label(field), value, reason)
        for field, value, reason in foreseen(config, app.hardware, estimate)
    ]
    plan = html.plan.plan(
        messages.facts(facts), memory_html(estimate), chosen, _lines(summary.warnings)
    )
    return html.plan.card(_to_mend(refused) if refused else Markup(), plan)


_BY_MEMORY = ("training.per_device_train_batch_size", "training.gradient_checkpointing")


def foreseen(
    config: RunConfig, hardware: Hardware, estimate: RunEstimate | None = None
) -> list[tuple[str, str, str]]:
    """(field, value, reason) of what is on auto, as far as it can be told without torch.

    The worker decides; tests hold this against what it says (core.worker.training.resolve).
    """
    if config.training.ray_address:
        return [
            (path, _("when it starts"), _("from what the cluster's node has"))
            for path in ("training.device", "training.precision", *_BY_MEMORY)
            if config.values()[path] == "auto"
        ]
    device = device_of(config, hardware)
    found = []
    if config.training.device == "auto":
        reason = _("no accelerator was found") if device.kind == "cpu" else device.name
        found.append(("training.device", device.label, reason))
    if config.training.precision == "auto":
        found.append(("training.precision", *hardware.precision_on(device)))
    values, chosen = config.values(), dict(estimate.chosen) if estimate else {}
    for path in _BY_MEMORY:
        if values[path] != "auto":
            continue
        if path in chosen:
            reason = _("if as much memory is free when it starts")
            found.append((path, said(chosen[path]), reason))
        else:
            reason = _("from the memory that is free then")
            found.append((path, _("when it starts"), reason))
    return found


def _to_mend(problems: Sequence[Problem]) -> Markup:
    """What keeps the run from starting."""
    return html.plan.to_mend(len({problem.field for problem in problems}), _lines(problems))


def not_started(error: TunesmithError | None) -> Markup:
    """Why a start did not come about, under its button."""
    if isinstance(error, ConfigError):
        return _to_mend(error.problems)
    return messages.error(error or _("Not started."))


def _lines(problems: Sequence[Problem]) -> list[tuple[str, str]]:
    """Each with the name that its setting has in the form."""
    return [(setting_label(problem.field), problem.message) for problem in problems]


def _parameters(summary: Summary) -> str:
    if summary.parameters is None:
        return _("known once fetched")
    amount = messages.short(summary.parameters)
    return amount if summary.parameters_exact else _about(amount)


def _trained(summary: Summary) -> str:
    if summary.trainable is None:
        return "-"
    share = summary.trainable_share
    if share is None:
        return messages.short(summary.trainable)
    percent = 100 * share
    digits = 0 if percent >= 10 else 1 if percent >= 1 else 2
    return f"{messages.short(summary.trainable)} ({percent:.{digits}f} %)"


def _rows(summary: Summary) -> str:
    if summary.train_rows is None:
        return "-"
    held_out = summary.eval_rows or 0
    return _(
        "{rows} to learn, {held_out} held out",
        rows=messages.count(summary.train_rows),
        held_out=messages.count(held_out),
    )


def _tokens(summary: Summary, counts: Mapping[str, Any] | None) -> str:
    if counts and counts.get("estimated"):
        return _about(messages.short(summary.tokens))
    return messages.count(summary.tokens)


def _steps(summary: Summary, config: RunConfig, counts: Mapping[str, Any] | None) -> str:
    """`config` has what auto becomes, as far as it is known."""
    exact, steps = summary.steps_exact, summary.steps
    if steps is None:
        rows = rows_of_trainer(config, summary.train_rows, counts)
        exact, steps = False, optimizer_steps(config, rows)
        if rows is None and summary.train_rows:
            return _("known when the tokens are")
    if steps is None:
        return _("known when the batch size is")
    epochs = config.training.num_train_epochs
    if config.training.max_steps > 0:
        return messages.count(steps)
    amount = messages.count(steps) if exact else _about(messages.count(steps))
    return n_("{steps} in {n:g} epoch", "{steps} in {n:g} epochs", epochs, steps=amount)


def _about(amount: str) -> str:
    return _("about {amount}", amount=amount)


# Above this share of what is free a run fits, but hardly.
_TIGHT = 0.9
_MOST_CHANGES = 4
# What neither the time nor the memory of a step is changed by.
_NO_MATTER = (
    "name",
    "evaluation.",
    "tracking.",
    "training.num_train_epochs",
    "training.max_steps",
    "training.learning_rate",
    "training.lr_scheduler",
    "training.warmup",
    "training.weight_decay",
    "training.max_grad_norm",
    "training.seed",
)


def estimate_of(
    app: App, config: RunConfig, rows: int | None, counts: Mapping[str, Any] | None
) -> RunEstimate:
    """The estimate of a run on this machine as it is now."""
    try:
        folder = local_model(app.workspace, config.model.model_name_or_path)
    except TunesmithError:
        folder = None  # the card's warnings say why
    hardware = _now(app.hardware)
    return estimate_run(folder, config, hardware, rows=rows, token_counts=counts)


def _now(hardware: Hardware) -> Hardware:
    """With the machine's memory that is free at this moment."""
    free = int(psutil.virtual_memory().available)
    devices = tuple(
        dataclasses.replace(device, memory_free_bytes=min(free, device.memory_total_bytes))
        if device.kind == "cpu"
        else device
        for device in hardware.devices
    )
    return dataclasses.replace(hardware, devices=devices)


def memory_html(estimate: RunEstimate) -> Markup:
    """The section of the summary card: whether it fits, a bar of the parts, and their list."""
    memory = estimate.memory
    if memory is None:
        return html.plan.memory_unknown(_("{reason}.", reason=_capital(estimate.why_not)))
    if estimate.config and estimate.config.training.ray_address:
        told = _(
            "About {size} on each device. What the nodes of the cluster have is not known here.",
            size=gigabytes(memory.total),
        )
        return html.plan.memory_unknown(told)
    free = memory.free_bytes or 0
    whole = max(memory.total, free, 1)
    word, state = _verdict(memory, free)
    amount = _("{size} of {free} free", size=gigabytes(memory.total), free=gigabytes(free))
    return html.plan.memory(
        state=state,
        fits=Markup(_("{name}: {text}")).format(name=html.plan.bold(word), text=amount),
        device=f"{estimate.device.name}{_each(estimate)}",
        amount=amount,
        parts=[
            (name, _capital(name), 100 * size / whole, gigabytes(size))
            for name, size in memory.parts.items()
        ],
        end=100 * free / whole if memory.total > free else None,
        doubts=_doubts(memory),
    )


def _each(estimate: RunEstimate) -> str:
    """Which of several devices the figures are of."""
    count = device_count(estimate.config) if estimate.config else 1
    return "" if count == 1 else n_(", on the one device", ", on each of {n} devices", count)


def _verdict(memory: MemoryEstimate, free: int) -> tuple[str, str]:
    if memory.total > free:
        assumed = memory.batch is not None and memory.batch.is_assumed
        return (_("May not fit"), "tight") if assumed else (_("Does not fit"), "over")
    if memory.total > _TIGHT * free:
        return _("Just fits"), "tight"
    return _("Fits"), "fits"


def _capital(text: str) -> str:
    text = str(text)
    return text[:1].upper() + text[1:]


def _doubts(memory: MemoryEstimate) -> list[str]:
    lines: list[str] = []
    if memory.batch and memory.batch.is_assumed:
        lines.append(
            _("Each row is taken to be as long as it may be until the tokens are counted.")
        )
    if memory.doubt:
        lines.append(_("Less sure: {reason}.", reason=memory.doubt))
    return lines


def time_text(
    app: App,
    estimate: RunEstimate,
    counts: Mapping[str, Any] | None,
    trial: Mapping[str, Any] | None,
) -> Markup:
    """How long the training takes and how that is known, as HTML."""
    if estimate.config is None:
        return html.plan.told("-", "")
    if estimate.config.training.ray_address:
        return html.plan.told(_("not known of a cluster's node"), "")
    if trial:
        pace: Pace | None = Pace(trial["tokens_per_second"], _("from a trial of two steps"), True)
    else:
        kind = estimate.device.kind
        pace = pace_from_runs(app.workspace, app.store, estimate.config, kind)
    if pace is None:
        return html.plan.told(_("not known: try two steps"), _slow(app.hardware, estimate.device))
    seconds = seconds_of(estimate.config, pace, counts)
    speed = _("{speed:,.0f} tokens/s {origin}", speed=pace.tokens_per_second, origin=pace.origin)
    if trial:
        memory = gigabytes(trial["memory_bytes"])
        speed = _("{speed}, {memory} measured", speed=speed, memory=memory)
    known = _("known when the tokens are")
    told = known if seconds is None else _about(messages.duration(seconds))
    return html.plan.told(told, speed)


def _slow(hardware: Hardware, device: Device) -> str:
    """What to be ready for on a CPU that computes in 32 bits only."""
    if device.kind != "cpu" or hardware.precision_on(device)[0] == "bf16":
        return ""
    return _(
        "This CPU has no bf16 instructions: training on it is slow. The quick start takes about "
        "ten minutes here."
    )


def gigabytes(size: float) -> str:
    """3_812_000_000 -> "3.8 GB"; small amounts in MB."""
    return f"{size / 1e9:.1f} GB" if size >= 950e6 else f"{size / 1e6:.0f} MB"


class MemoryView:
    """The buttons under the summary: changes that make a run fit, and the trial."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.trying = background.Tasks()
        self.trials: dict[str, dict[str, Any]] = {}
        with gr.Column(visible=False, elem_id="fit") as self.box:
            self.lead = gr.HTML(apply_default_css=False)
            self.buttons = [
                gr.Button(
                    visible=False, size="sm", elem_classes="change", elem_id=f"change-{place}"
                )
                for place in range(_MOST_CHANGES)
            ]
        self.start = gr.Button(_("Try two steps"), size="sm", elem_id="try")
        self.stop = gr.Button(_("Stop the trial"), size="sm", visible=False)
        self.status = gr.HTML(elem_id="try-status", apply_default_css=False)
        self.outputs: set[Component] = {self.lead, *self.buttons}

    def trial_of(self, config: RunConfig) -> dict[str, Any] | None:
        """What a trial with these settings measured."""
        return self.trials.get(_key(config))

    def follow(self, config: RunConfig | None) -> dict[Any, Any]:
        """The changes for these settings, where they do not fit."""
        changes = self._changes(config) if config else []
        lead = ""
        if changes:
            fits = changes[0].fits
            any_of = _("Any of these makes it fit:")
            lead = any_of if fits else _("Nothing makes it fit; the smallest:")
        found: dict[Any, Any] = {
            self.box: gr.Column(visible=bool(changes)),
            self.lead: html.plan.lead(lead),
        }
        for place, button in enumerate(self.buttons):
            shown = place < len(changes)
            label = _label(changes[place]) if shown else ""
            found[button] = gr.Button(label, visible=shown)
        return found

    def apply(self, config: RunConfig, label: str) -> RunConfig:
        """The settings with the change of the button with this label. Memory that has become free
        or was taken meanwhile may have made it another one; then nothing changes."""
        for change in self._changes(config):
            if label.startswith(f"{change.title}: "):
                return parse_config(config.values() | change.settings)
        return config

    def _changes(self, config: RunConfig) -> list[Change]:
        counting = count_tokens(self.app, config.data.dataset, Lens.of(config))
        counts = finished(counting)
        rows = counts["train_rows"] if counts else None
        return changes_that_fit(estimate_of(self.app, config, rows, counts))

    def attempt(
        self, read: Callable[[], RunConfig], session: str | None
    ) -> Iterator[dict[Component, Any]]:
        """Tries two steps of what `read` gives, and says meanwhile what is being done."""
        try:
            config = read()
        except ConfigError:
            yield {self.status: messages.note(_("Mend the settings first."), "stopped")}
            return
        workspace = self.app.workspace

        def work(task: background.Task) -> dict[str, Any]:
            ensure_model(config.model.model_name_or_path, workspace, task.tell)
            return try_run(workspace, config, task.tell)

        trial = background.begin(work, _("Looking for the model"))
        for task in self.trying.watch(session or "", trial):
            yield {
                self.status: messages.progress(None, _so_far(task)),
                self.start: gr.Button(interactive=False),
                self.stop: gr.Button(visible=True),
            }
        if trial.result is not None:
            self.trials[_key(config)] = trial.result
        yield {
            self.status: "" if trial.result else messages.error(trial.error or _("Not tried.")),
            self.start: gr.Button(interactive=True),
            self.stop: gr.Button(visible=False),
        }

    def stop_trial(self, request: gr.Request) -> None:
        self.trying.stop(request.session_hash or "")

    def wire(
        self,
        form: Form,
        inputs: set[Component],
    ) -> Any:
        """The event after which the plan has something new to show."""
        quiet = QUIET

        def change(data: dict[Component, Any], event: gr.EventData) -> dict[Component, Any]:
            label = of_trigger(event, {button: data[button] for button in self.buttons}, "")
            config = self.apply(form.config(data), label)
            return form.fill(config.values(), data=data)

        def attempt(
            data: dict[Component, Any], request: gr.Request
        ) -> Iterator[dict[Component, Any]]:
            yield from self.attempt(lambda: form.config(data), request.session_hash)

        clicks = [button.click for button in self.buttons]
        gr.on(clicks, change, {*inputs, *self.buttons}, {form.filled}, **quiet)
        outputs = {self.status, self.start, self.stop}
        self.stop.click(self.stop_trial, None, None, **quiet)
        return self.start.click(attempt, inputs, outputs, concurrency_limit=None, **quiet)


def _label(change: Change) -> str:
    """The style shows the first line bold."""
    return f"{change.title}: {gigabytes(change.total)}\n{change.costs}"


def _so_far(task: background.Task) -> str:
    """What is being done and since when: how long a step takes is what a trial is to tell."""
    since = messages.duration(time.monotonic() - task.begun)
    return _("{name}: {text}", name=task.message, text=since)


def _key(config: RunConfig) -> str:
    values = {
        path: value for path, value in config.values().items() if not path.startswith(_NO_MATTER)
    }
    return json.dumps(values, sort_keys=True, default=str)
