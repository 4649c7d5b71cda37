"""Chat: base and tuned side by side from one prompt; any run, any checkpoint. A column of equal
width for each model."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import gradio as gr
from gradio.context import get_blocks_context

from core.chat.session import ChatSession, Column, ColumnState
from core.chat.settings import ChatSettings, LoadedModels, chat_settings
from core.config import field_specs
from core.data.registry import load_dataset_info, read_rows
from core.errors import ConfigError, TunesmithError
from core.language import N_, _, n_
from core.models.starter import STARTER_MODELS
from core.rules import load_config
from webui import messages, serve
from webui.beginning import Beginning
from webui.choice import Dropdown
from webui.context import QUIET, App, Shared
from webui.run_choice import checkpoint_choices, find_run, run_choices, trained_runs

NOBODY = ""
# Seconds between two pictures of a growing answer: smooth to read, light to send.
PACE = 0.1
ROWS_TO_TRY = 40


def build(app: App, shared: Shared) -> None:
    _Chat(app, shared).wire()
    serve.build(app, shared)


class _Chat:
    def __init__(self, app: App, shared: Shared) -> None:
        self.app, self.shared = app, shared
        self.talk = gr.State([])
        self.beginning = Beginning(
            app,
            shared,
            _("No model of yours yet"),
            _("Train one first, and ask it beside its base. The base alone can be asked already."),
        )
        with gr.Row(elem_classes="picker"):
            self.left = Dropdown([], label=_("Left"), elem_id="chat-left", min_width=200)
            self.right = Dropdown([], label=_("Right"), elem_id="chat-right", min_width=200)
        self.view = gr.HTML(elem_id="chat-view", apply_default_css=False, autoscroll=True)
        self.told = gr.HTML(elem_id="chat-told", apply_default_css=False)
        with gr.Row(elem_classes="ask", equal_height=False):
            self.prompt = gr.Textbox(
                label=_("Your message"),
                elem_id="chat-prompt",
                lines=1,
                max_lines=8,
                scale=6,
                placeholder=_("Enter sends, Shift+Enter begins a new line"),
                min_width=200,
            )
            with gr.Column(scale=1, min_width=110):
                self.send = gr.Button(_("Send"), variant="primary", elem_id="chat-send")
                self.stop = gr.Button(_("Stop"), visible=False, elem_id="chat-stop")
        with gr.Row(elem_classes="actions"):
            self.try_row = gr.Button(_("Try a held-out row"), elem_id="chat-row")
            self.clear = gr.Button(_("Clear"), elem_id="chat-clear")
            self.unload = gr.Button(_("Unload"), elem_id="chat-unload")
        self.memory = gr.HTML(loaded(None), elem_id="chat-memory", apply_default_css=False)
        with gr.Accordion(_("System prompt and sampling"), open=False, elem_classes="fold"):
            self.system = gr.Textbox(
                label=_("System prompt"),
                elem_id="chat-system",
                lines=2,
                max_lines=6,
                info=_(
                    "Taken from the run's data set: a model answers best to the words it learned."
                ),
            )
            with gr.Row(elem_classes="picker"):
                self.settings = {spec.name: _control(spec) for spec in field_specs(ChatSettings)}
        self.inputs = {
            self.talk,
            self.prompt,
            self.left,
            self.right,
            self.system,
            *self.settings.values(),
        }

    # -- handlers

    def open(self, run_id: str, left: str | None, right: str | None):
        """The models there are; on the left the base, on the right the selected run."""
        choices, run = model_choices(self.app), find_run(self.app, run_id)
        known = {value for _title, value in choices}
        points = checkpoint_choices(run)
        base, tuned = choices[0][1], NOBODY
        if run is not None and points:
            base, tuned = f"base::{run.job.model}", f"run::{run.id}::{points[0][1]}"
        left = left if left in known and not run_id else base
        right = right if right in known and not run_id else tuned
        system = self._words(run_id)[0]
        nobody = [*choices, (_("Nobody"), NOBODY)]
        lists = gr.Dropdown(choices, value=left), gr.Dropdown(nobody, value=right)
        return *self.beginning.show(not trained_runs(self.app)), *lists, system, [], ""

    def answer(self, data: dict[Any, Any], request: gr.Request) -> Iterator[dict[Any, Any]]:
        """Loads the models if need be and streams every column's answer."""
        prompt = (data[self.prompt] or "").strip()
        if not prompt:
            yield {self.told: messages.note(_("Type a message first."))}
            return
        try:
            settings = self._settings(data)
        except ConfigError as problem:
            yield {self.told: messages.error(problem)}
            return
        talk: list[Lane] = data[self.talk] or self._lanes(data)
        for lane in talk:
            lane.turns.append({"role": "user", "content": prompt})
        busy = {self.prompt: "", self.send: gr.Button(interactive=False)}
        waiting = messages.progress(None, _("Loading the models"))
        yield {
            **busy,
            self.told: waiting,
            self.view: lanes(talk),
            self.stop: gr.Button(visible=True),
        }
        yield from self._stream(talk, data[self.system] or "", settings, request)

    def _stream(
        self, talk: list[Lane], system: str, settings: ChatSettings, request: gr.Request
    ) -> Iterator[dict[Any, Any]]:
        session = self.app.chats.setdefault(
            str(request.session_hash), ChatSession(self.app.workspace)
        )
        states: list[ColumnState] = []
        told = ""
        try:
            session.start([lane.column for lane in talk])
            yield {self.told: "", self.memory: loaded(session.loaded)}
            drawn = 0.0
            for states in session.ask([lane.conversation(system) for lane in talk], settings):
                if time.monotonic() - drawn >= PACE:
                    drawn = time.monotonic()
                    yield {self.view: lanes(talk, states)}
        except TunesmithError as problem:
            told = messages.error(problem)
        _keep(talk, states)
        yield {
            self.talk: talk,
            self.view: lanes(talk),
            self.told: told or _wrong(talk, states),
            self.send: gr.Button(interactive=True),
            self.stop: gr.Button(visible=False),
            self.memory: loaded(session.loaded),
        }

    def halt(self, request: gr.Request) -> None:
        session = self.app.chats.get(str(request.session_hash))
        if session is not None:
            session.stop()

    def forget(self):
        """A new conversation; the models stay loaded."""
        return [], "", ""

    def drop(self, request: gr.Request) -> str:
        """Ends the models' process: its memory is free when this returns."""
        session = self.app.chats.pop(str(request.session_hash), None)
        if session is not None:
            session.close()
        return loaded(None)

    def next_row(self, run_id: str, current: str) -> str:
        """The next question of the rows that were held out."""
        questions = self._words(run_id)[1]
        if not questions:
            return current
        place = questions.index(current) + 1 if current in questions else 0
        return questions[place % len(questions)]

    def _words(self, run_id: str) -> tuple[str, list[str]]:
        run = find_run(self.app, run_id)
        try:
            config = load_config(run.folder.config) if run else None
            dataset = config.data.dataset if config else "sample"
            held_out = load_dataset_info(self.app.workspace, dataset).counts.eval
            part = "eval" if held_out else "train"
            rows = read_rows(self.app.workspace, dataset, part, 0, ROWS_TO_TRY)
        except TunesmithError:
            return "", []  # the data set was deleted; the chat works without
        system, questions = first_words(rows)
        return system or (config.data.system_prompt if config else ""), questions

    def _lanes(self, data: dict[Any, Any]) -> list[Lane]:
        labels = {value: label for label, value in model_choices(self.app)}
        chosen = [value for value in (data[self.left], data[self.right]) if value]
        return [Lane(column_of(value, labels.get(value, value))) for value in chosen]

    def _settings(self, data: dict[Any, Any]) -> ChatSettings:
        return chat_settings({name: data[box] for name, box in self.settings.items()})

    # -- wiring

    def wire(self) -> None:
        quiet = QUIET
        conversation = [self.talk, self.view, self.told]
        self.shared.on_show(
            "chat",
            self.open,
            [self.shared.run, self.left, self.right],
            [*self.beginning.outputs, self.left, self.right, self.system, self.talk, self.view],
        )
        gr.on(
            [self.send.click, self.prompt.submit],
            self.answer,
            self.inputs,
            {*conversation, self.prompt, self.send, self.stop, self.memory},
            concurrency_limit=None,
            **quiet,
        )
        self.stop.click(self.halt, None, None, **quiet)
        gr.on(
            [self.clear.click, self.left.input, self.right.input],
            self.forget,
            None,
            conversation,
            trigger_mode="multiple",
            **quiet,
        )
        self.unload.click(self.drop, None, self.memory, **quiet)
        self.try_row.click(self.next_row, [self.shared.run, self.prompt], self.prompt, **quiet)
        page = get_blocks_context()
        if isinstance(page, gr.Blocks):
            page.unload(self.leave)

    def leave(self, request: gr.Request) -> None:
        """The browser has gone: its models go too."""
        self.drop(request)


def model_choices(app: App) -> list[tuple[str, str]]:
    """Label and value of every model: bases first, then each run with its checkpoints."""
    runs = trained_runs(app)
    names = dict.fromkeys([*(run.job.model for run in runs), next(iter(STARTER_MODELS))])
    choices = [(_("Base: {name}", name=name), f"base::{name}") for name in names]
    for label, run_id in run_choices(runs):
        run = next(item for item in runs if item.id == run_id)
        choices += [
            (_("{name}: {text}", name=label, text=words), f"run::{run_id}::{name}")
            for words, name in checkpoint_choices(run)
        ]
    return choices


def column_of(value: str, label: str) -> Column:
    """The chat's column for a choice's value."""
    kind, _, rest = value.partition("::")
    if kind == "base":
        return Column(base=rest, label=label)
    run_id, _, checkpoint = rest.partition("::")
    return Column(run_id=run_id, checkpoint=checkpoint, label=label)


def _control(spec: Any) -> Any:
    """A number box or slider for one setting of the chat."""
    if spec.maximum is not None and spec.maximum <= 2:
        return gr.Slider(
            spec.minimum,
            spec.maximum,
            value=spec.default,
            step=0.05,
            label=_(spec.label),
            info=_(spec.help),
            elem_id=f"chat-{spec.name}",
            min_width=200,
        )
    return gr.Number(
        spec.default,
        label=_(spec.label),
        info=_(spec.help),
        precision=0,
        min_width=200,
        elem_id=f"chat-{spec.name}",
    )


def _keep(talk: list[Lane], states: list[ColumnState]) -> None:
    """The finished answers become turns; a question without any answer is taken back."""
    for place, lane in enumerate(talk):
        state = states[place] if place < len(states) else ColumnState()
        if state.text:
            turn = {"role": "assistant", "content": state.text, "note": speed(state)}
            lane.turns.append(turn)
        elif lane.turns:
            lane.turns.pop()


def _wrong(talk: list[Lane], states: list[ColumnState]) -> str:
    """What went wrong in single columns."""
    told = [
        _("{name}: {text}", name=lane.column.label, text=state.error)
        for lane, state in zip(talk, states, strict=False)
        if state.error
    ]
    return messages.error(" ".join(told)) if told else ""


_ENDS = {"length": N_("cut at the longest answer"), "stopped": N_("stopped")}


@dataclass
class Lane:
    """One column of the conversation. `turns` are {role, content, note}; note is small print."""

    column: Column
    turns: list[dict[str, str]] = field(default_factory=list)

    def conversation(self, system: str) -> list[dict[str, str]]:
        """The turns as the model takes them, with the system prompt in front if there is one."""
        first = [{"role": "system", "content": system}] if system.strip() else []
        return first + [{"role": t["role"], "content": t["content"]} for t in self.turns]


def lanes(columns: Sequence[Lane], states: Sequence[ColumnState] | None = None) -> str:
    """The conversation; `states` are answers that are being written."""
    drawn = "".join(
        _lane(lane, states[place] if states else None) for place, lane in enumerate(columns)
    )
    return f'<div class="lanes" aria-live="polite">{drawn}</div>'


def _lane(lane: Lane, state: ColumnState | None) -> str:
    turns = "".join(
        _turn(turn["role"], turn["content"], turn.get("note", "")) for turn in lane.turns
    )
    if state is not None:
        text = state.text if state.text or state.done else "..."
        turns += _turn("assistant", text, speed(state), state.error)
    return (
        f'<section class="lane"><h3>{messages.escape(lane.column.label)}</h3>'
        f'<div class="turns">{turns}</div></section>'
    )


def _turn(role: str, content: str, note: str = "", error: str = "") -> str:
    wrong = messages.error(error) if error else ""
    small = f"<small>{messages.escape(note)}</small>" if note else ""
    return (
        f'<div class="said said-{messages.escape(role)}">'
        f'<div class="words">{messages.escape(content)}</div>{wrong}{small}</div>'
    )


def speed(state: ColumnState) -> str:
    """Tokens, tokens per second, and why the answer ended if not by itself."""
    if not state.tokens:
        return ""
    told = n_(
        "{n} token, {speed:.0f} tokens/s",
        "{n} tokens, {speed:.0f} tokens/s",
        state.tokens,
        speed=state.tokens_per_second,
    )
    end = _ENDS.get(state.reason)
    return _("{speed}, {end}", speed=told, end=end) if end else told


def loaded(models: LoadedModels | None) -> str:
    """What is in memory."""
    if models is None:
        told = _("No model is in memory. The first question loads them.")
        return f'<p class="soft">{told}</p>'
    kinds = ", ".join(dict.fromkeys(models.dtypes))
    memory = messages.size(models.gpu_memory_bytes or models.memory_bytes)
    told = n_(
        "In memory: {memory} for one column, {kinds} on {device}.",
        "In memory: {memory} for {n} columns, {kinds} on {device}.",
        len(models.columns),
        memory=memory,
        kinds=kinds,
        device=models.device,
    )
    return f'<p class="soft">{messages.escape(told)}</p>'


def first_words(rows: Sequence[dict[str, Any]]) -> tuple[str, list[str]]:
    """(system prompt, questions) of data set rows, to try a model on what it was trained for."""
    system, questions = "", []
    for row in rows:
        if "labels" in row and row.get("text"):
            questions.append(str(row["text"]))
        turns = row.get("messages") or row.get("prompt") or []
        for turn in turns if isinstance(turns, list) else []:
            if turn.get("role") == "system" and not system:
                system = str(turn.get("content", ""))
            if turn.get("role") == "user":
                questions.append(str(turn.get("content", "")))
                break
    return system, questions
