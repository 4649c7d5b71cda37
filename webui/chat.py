"""Chat: up to four models side by side from one prompt, a column of equal width for each; what is
said of their answers becomes rows for the next run."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import gradio as gr
from gradio.components import Component
from gradio.context import get_blocks_context
from markupsafe import Markup

from core.chat.conversations import (
    FORMS,
    Conversation,
    Lane,
    Turn,
    delete_conversation,
    feedback_dataset,
    feedback_rows,
    list_conversations,
    load_conversation,
    save_conversation,
)
from core.chat.session import ChatSession, Column, ColumnState
from core.chat.settings import SAMPLINGS, ChatSettings, LoadedModels, chat_settings, sampling
from core.config import field_specs
from core.data.registry import load_dataset_info, read_rows
from core.errors import ConfigError, TunesmithError
from core.language import _, n_
from core.models.starter import STARTER_MODELS
from core.rules import load_config
from webui import labelling, messages, serve
from webui.beginning import Beginning
from webui.chat_lanes import lanes, speed
from webui.choice import Dropdown
from webui.context import CHOICE, QUIET, App, Shared, of_trigger
from webui.html import html
from webui.run_choice import checkpoint_choices, find_run, run_choices, trained_runs
from webui.tables import CLICKS

NOBODY = ""
# Seconds between two pictures of a growing answer: smooth to read, light to send.
PACE = 0.1
ROWS_TO_TRY = 40
Updates = dict[Component, Any]


def build(app: App, shared: Shared) -> None:
    _Chat(app, shared).wire()
    labelling.build(app, shared)
    serve.build(app, shared)


class _Chat:
    def __init__(self, app: App, shared: Shared) -> None:
        self.app, self.shared = app, shared
        self.talk = gr.State(None)
        self.marking = gr.State(None)  # the lane and turn of the answer that is being corrected
        self.beginning = Beginning(
            app,
            shared,
            _("No model of yours yet"),
            _("Train one first, and ask it beside its base. The base alone can be asked already."),
        )
        with gr.Row(elem_classes="picker"):
            self.left = Dropdown([], label=_("Left"), elem_id="chat-left", min_width=200)
            self.right = Dropdown([], label=_("Right"), elem_id="chat-right", min_width=200)
            self.third = Dropdown([], label=_("Third"), elem_id="chat-third", min_width=200)
            self.fourth = Dropdown([], label=_("Fourth"), elem_id="chat-fourth", min_width=200)
        self.models = [self.left, self.right, self.third, self.fourth]
        self.view = gr.HTML(
            elem_id="chat-view", apply_default_css=False, autoscroll=True, js_on_load=CLICKS
        )
        with gr.Column(visible=False, elem_id="chat-correct") as self.correcting:
            self.corrected = gr.Textbox(
                label=_("How the answer should have been"), lines=3, max_lines=12
            )
            with gr.Row(elem_classes="actions"):
                self.keep = gr.Button(_("Keep"), elem_id="chat-keep")
                self.cancel = gr.Button(_("Cancel"))
        self._build_ask()
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
            with gr.Row(elem_classes="actions"):
                self.samplings = {
                    gr.Button(_(title), size="sm", scale=0, elem_id=f"chat-{name}"): name
                    for name, (title, _values) in SAMPLINGS.items()
                }
            with gr.Row(elem_classes="picker"):
                self.settings = {spec.name: _control(spec) for spec in field_specs(ChatSettings)}
        with gr.Accordion(
            _("Conversations, and rows from them"),
            open=False,
            elem_classes="fold",
            elem_id="chat-kept",
        ):
            self._build_kept()
        self.inputs = {
            self.talk,
            self.prompt,
            *self.models,
            self.system,
            *self.settings.values(),
        }

    def _build_ask(self) -> None:
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
            self.clear = gr.Button(_("New conversation"), elem_id="chat-clear")
            self.unload = gr.Button(_("Unload"), elem_id="chat-unload")

    def _build_kept(self) -> None:
        with gr.Row(elem_classes="picker"):
            self.saved = Dropdown(
                [], label=_("Conversation"), elem_id="chat-saved", scale=3, min_width=220
            )
            self.name = gr.Textbox(
                label=_("Name"), max_lines=1, max_length=80, scale=2, elem_id="chat-name"
            )
        with gr.Row(elem_classes="actions"):
            self.rename = gr.Button(_("Save name"))
            self.remove = gr.Button(_("Delete"), variant="stop", elem_id="chat-remove")
            self.export = gr.DownloadButton(_("Download as JSON"), elem_id="chat-export")
        with gr.Row(elem_classes="picker"):
            self.form = gr.Radio(
                [(_(title), form) for form, title in FORMS.items()],
                value="preference",
                label=_("Rows from what you said of answers"),
                elem_id="chat-form",
                scale=3,
            )
            self.rows_name = gr.Textbox(
                label=_("Name of the data set"),
                placeholder=_("Feedback"),
                max_lines=1,
                elem_id="chat-rows-name",
                scale=1,
                min_width=180,
            )
        self.found = gr.HTML(elem_id="chat-found", apply_default_css=False)
        with gr.Row(elem_classes="actions"):
            self.make = gr.Button(_("Make a data set of it"), elem_id="chat-make")

    # -- handlers

    def open(self, data: Updates) -> Updates:
        """The models there are; on the left the base, on the right the selected run."""
        run_id = data[self.shared.run]
        choices, run = model_choices(self.app), find_run(self.app, run_id)
        known = {value for _title, value in choices}
        points = checkpoint_choices(run)
        base, tuned = choices[0][1], NOBODY
        if run is not None and points:
            base, tuned = f"base::{run.job.model}", f"run::{run.id}::{points[0][1]}"
        left, right = data[self.left], data[self.right]
        left = left if left in known and not run_id else base
        right = right if right in known and not run_id else tuned
        nobody = [*choices, (_("Nobody"), NOBODY)]
        shown = self.beginning.show(not trained_runs(self.app))
        return {
            **dict(zip(self.beginning.outputs, shown, strict=True)),
            self.left: gr.Dropdown(choices, value=left),
            self.right: gr.Dropdown(nobody, value=right),
            self.third: gr.Dropdown(nobody, value=NOBODY),
            self.fourth: gr.Dropdown(nobody, value=NOBODY),
            self.system: self._words(run_id)[0],
            **self._shown(None),
        }

    def answer(self, data: Updates, request: gr.Request) -> Iterator[Updates]:
        """Loads the models if need be and streams every column's answer."""
        prompt = (data[self.prompt] or "").strip()
        if not prompt:
            yield {self.told: messages.note(_("Type a message first."))}
            return
        yield from self._asked(data, prompt, request)

    def again(self, data: Updates, request: gr.Request, event: gr.EventData) -> Iterator[Updates]:
        """The question of a turn once more."""
        talk, lane, place = self._turn(data, event)
        if talk is None:
            yield {self.told: gr.skip()}
            return
        yield from self._asked(data, talk.back_to(place), request)

    def act(self, data: Updates, event: gr.EventData) -> Updates:
        """A button at a turn: a mark, a correction, the question in other words."""
        talk, lane, place = self._turn(data, event)
        if talk is None:
            return {self.marking: gr.skip()}
        turn, act = talk.lanes[lane].turns[place], str(event.act)
        if act == "rewrite":
            return {self.prompt: talk.back_to(place), **self._drawn(talk)}
        if act == "edit":
            return {
                self.marking: (lane, place),
                self.corrected: turn.edited or turn.content,
                self.correcting: gr.Column(visible=True),
            }
        if act == "better":
            talk.prefer(lane, place)
        elif act in ("up", "down"):
            turn.mark = "" if turn.mark == act else act  # type: ignore[assignment]
        save_conversation(self.app.workspace, talk)
        return {**self._drawn(talk), self.found: self.count(data[self.form])}

    def _turn(self, data: Updates, event: gr.EventData) -> tuple[Conversation | None, int, int]:
        """The conversation, and in it the column and turn whose button was clicked; no conversation
        where it is another by now."""
        talk: Conversation | None = data[self.talk]
        lane, place = (int(part) for part in str(event.id).split("."))
        known = talk and lane < len(talk.lanes) and place < len(talk.lanes[lane].turns)
        return talk if known else None, lane, place

    def correct(self, data: Updates) -> Updates:
        talk, at = data[self.talk], data[self.marking]
        hidden = {self.correcting: gr.Column(visible=False), self.marking: None}
        if talk is None or at is None:
            return hidden
        turn = talk.lanes[at[0]].turns[at[1]]
        text = data[self.corrected].strip()
        turn.edited = "" if text == turn.content.strip() else text
        save_conversation(self.app.workspace, talk)
        return {**hidden, **self._drawn(talk), self.found: self.count(data[self.form])}

    def _asked(self, data: Updates, prompt: str, request: gr.Request) -> Iterator[Updates]:
        try:
            settings = self._settings(data)
        except ConfigError as problem:
            yield {self.told: messages.error(problem)}
            return
        talk: Conversation = data[self.talk] or Conversation(lanes=self._lanes(data))
        if not talk.lanes:
            yield {self.told: messages.note(_("Choose a model first."))}
            return
        talk.system = data[self.system] or ""
        for lane in talk.lanes:
            lane.turns.append(Turn("user", prompt))
        yield {
            self.prompt: "",
            self.send: gr.Button(interactive=False),
            self.told: messages.progress(None, _("Loading the models")),
            self.view: lanes(talk.lanes, [ColumnState()] * len(talk.lanes)),
            self.stop: gr.Button(visible=True),
        }
        yield from self._stream(talk, prompt, settings, request)

    def _stream(
        self, talk: Conversation, prompt: str, settings: ChatSettings, request: gr.Request
    ) -> Iterator[Updates]:
        session = self.app.chats.setdefault(
            str(request.session_hash), ChatSession(self.app.workspace)
        )
        states: list[ColumnState] = []
        told = Markup()
        try:
            session.start([lane.column for lane in talk.lanes])
            yield {self.told: "", self.memory: loaded(session.loaded)}
            drawn = 0.0
            asked = [lane.messages(talk.system) for lane in talk.lanes]
            for states in session.ask(asked, settings):
                if time.monotonic() - drawn >= PACE:
                    drawn = time.monotonic()
                    yield {self.view: lanes(talk.lanes, states)}
        except TunesmithError as problem:
            told = messages.error(problem)
        ended = [*states, *[ColumnState()] * len(talk.lanes)][: len(talk.lanes)]
        talk.take([(state.text, speed(state) if state.text else "") for state in ended])
        is_kept = any(lane.turns for lane in talk.lanes)
        if is_kept:
            save_conversation(self.app.workspace, talk)
        yield {
            **self._drawn(talk),
            # A question that nobody answered can be asked again.
            self.prompt: gr.skip() if any(state.text for state in states) else prompt,
            self.saved: gr.Dropdown(_saved(self.app), value=talk.id if is_kept else None),
            self.told: told or _wrong(talk, states),
            self.send: gr.Button(interactive=True),
            self.stop: gr.Button(visible=False),
            self.memory: loaded(session.loaded),
        }

    def halt(self, request: gr.Request) -> None:
        session = self.app.chats.get(str(request.session_hash))
        if session is not None:
            session.stop()

    def forget(self) -> Updates:
        """A new conversation; the models stay loaded."""
        return self._shown(None)

    def reopen(self, chosen: str | None) -> Updates:
        """A conversation that was kept, with its models."""
        try:
            talk = load_conversation(self.app.workspace, chosen or "-")
        except TunesmithError as problem:
            return {self.told: messages.error(problem)}
        values = [_value(lane.column) for lane in talk.lanes]
        values += [NOBODY] * (len(self.models) - len(values))
        named = zip(self.models, values, strict=True)
        return {**self._shown(talk), **dict(named), self.system: talk.system}

    def call(self, data: Updates) -> Updates:
        """Gives the conversation a name."""
        talk = data[self.talk]
        if talk is None:
            return {self.told: messages.note(_("Ask something first."))}
        talk.name = data[self.name].strip()
        save_conversation(self.app.workspace, talk)
        return {self.talk: talk, self.saved: gr.Dropdown(_saved(self.app), value=talk.id)}

    def take_away(self, talk: Conversation | None) -> Updates:
        if talk is not None:
            delete_conversation(self.app.workspace, talk.id)
        return self._shown(None)

    def count(self, form: str) -> Markup:
        rows = feedback_rows(list_conversations(self.app.workspace), form)
        told = n_("{n} row of this kind so far.", "{n} rows of this kind so far.", len(rows))
        return html.plain.soft(told)

    def make_rows(self, form: str, name: str) -> Updates:
        """What was said of answers becomes a data set, which is selected."""
        try:
            info = feedback_dataset(self.app.workspace, form, name.strip())
        except TunesmithError as problem:
            return {self.found: messages.error(problem)}
        rows = info.counts.train + info.counts.eval + info.counts.test
        told = n_(
            "{name} has {n} row. It is the selected data set now: go on in Configure.",
            "{name} has {n} rows. It is the selected data set now: go on in Configure.",
            rows,
            name=info.name,
        )
        return {
            self.found: messages.note(told, "finished"),
            self.shared.dataset: info.id,
        }

    def _drawn(self, talk: Conversation) -> Updates:
        path = self.app.workspace.chats / f"{talk.id}.json"
        file = gr.DownloadButton(value=str(path) if path.is_file() else None)
        return {self.talk: talk, self.view: lanes(talk.lanes), self.export: file}

    def _shown(self, talk: Conversation | None) -> Updates:
        """Another conversation, or none yet."""
        shown = self._drawn(talk) if talk else {self.talk: None, self.view: ""}
        return {
            **shown,
            self.told: "",
            self.correcting: gr.Column(visible=False),
            self.name: talk.name if talk else "",
            self.saved: gr.Dropdown(_saved(self.app), value=talk.id if talk else None),
        }

    def drop(self, request: gr.Request) -> Markup:
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

    def _lanes(self, data: Updates) -> list[Lane]:
        labels = {value: label for label, value in model_choices(self.app)}
        chosen = [data[box] for box in self.models if data[box]]
        return [Lane(column_of(value, labels.get(value, value))) for value in chosen]

    def sample(self, event: gr.EventData) -> Updates:
        """The settings of how words are chosen, as a name has them."""
        values = sampling(of_trigger(event, self.samplings, "balanced"))
        return {self.settings[name]: value for name, value in values.items()}

    def _settings(self, data: Updates) -> ChatSettings:
        held = {name: data[box] for name, box in self.settings.items()}
        return chat_settings({name: None if one == "" else one for name, one in held.items()})

    # -- wiring

    def wire(self) -> None:
        quiet, run = QUIET, self.shared.run
        kept = {self.saved, self.name, self.export}
        shown = {self.talk, self.view, self.told, self.correcting, *kept}
        self.shared.on_show(
            "chat",
            self.open,
            {run, self.left, self.right},
            {*self.beginning.outputs, *self.models, self.system, *shown},
        )
        asking = {*shown, self.prompt, self.send, self.stop, self.memory}
        gr.on(
            [self.send.click, self.prompt.submit],
            self.answer,
            self.inputs,
            asking,
            concurrency_limit=None,
            **quiet,
        )
        self.view.retry(self.again, self.inputs, asking, concurrency_limit=None, **quiet)
        changed = {*shown, self.prompt, self.marking, self.corrected, self.found}
        self.view.apply(self.act, {self.talk, self.form}, changed, **CHOICE)
        correction = {self.talk, self.marking, self.corrected, self.form}
        corrected = {self.talk, self.view, self.export, self.correcting, self.marking, self.found}
        self.keep.click(self.correct, correction, corrected, **quiet)
        self.cancel.click(lambda: gr.Column(visible=False), None, self.correcting, **quiet)
        self.stop.click(self.halt, None, None, **quiet)
        clicks = [button.click for button in self.samplings]
        gr.on(clicks, self.sample, None, set(self.settings.values()), **CHOICE)
        gr.on(
            [self.clear.click, *(box.input for box in self.models)],
            self.forget,
            None,
            shown,
            trigger_mode="multiple",
            **quiet,
        )
        self.saved.input(self.reopen, self.saved, {*shown, *self.models, self.system}, **CHOICE)
        self.rename.click(self.call, {self.talk, self.name}, shown, **quiet)
        self.remove.click(self.take_away, self.talk, shown, **quiet)
        self.form.change(self.count, self.form, self.found, **quiet)
        made = {self.found, self.shared.dataset}
        self.make.click(self.make_rows, [self.form, self.rows_name], made, **quiet)
        self.unload.click(self.drop, None, self.memory, **quiet)
        self.try_row.click(self.next_row, [run, self.prompt], self.prompt, **quiet)
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
    choices: list[tuple[str, str]] = []
    choices += [(_("Base: {name}", name=name), f"base::{name}") for name in names]
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
    if spec.choices:
        return gr.Radio(
            [(_(choice), choice) for choice in spec.choices],
            value=spec.default,
            label=_(spec.label),
            info=_(spec.help),
            elem_id=f"chat-{spec.name}",
            min_width=200,
        )
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
    if spec.optional:  # a number box without a number shows and gives 0
        return gr.Textbox(
            label=_(spec.label),
            info=_(spec.help),
            max_lines=1,
            min_width=200,
            elem_id=f"chat-{spec.name}",
        )
    return gr.Number(
        spec.default,
        label=_(spec.label),
        info=_(spec.help),
        precision=0,
        min_width=200,
        elem_id=f"chat-{spec.name}",
    )


def _wrong(talk: Conversation, states: list[ColumnState]) -> Markup:
    """What went wrong in single columns."""
    told = [
        _("{name}: {text}", name=lane.column.label, text=state.error)
        for lane, state in zip(talk.lanes, states, strict=False)
        if state.error
    ]
    return messages.error(" ".join(told)) if told else Markup()


def _value(column: Column) -> str:
    """The choice that a column was made of."""
    if column.run_id is None:
        return f"base::{column.base}"
    return f"run::{column.run_id}::{column.checkpoint}"


def _saved(app: App) -> list[tuple[str, str]]:
    """The conversations that are kept."""
    return [(talk.title or talk.id, talk.id) for talk in list_conversations(app.workspace)]


def loaded(models: LoadedModels | None) -> Markup:
    """What is in memory."""
    if models is None:
        return html.plain.soft(_("No model is in memory. The first question loads them."))
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
    return html.plain.soft(told) + Markup().join(messages.note(text) for text in models.notes)


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
