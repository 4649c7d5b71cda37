"""Configure: a preset, the settings that matter, and what the run will be before it starts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import wait
from typing import Any

import gradio as gr
from gradio.components import Component

from core.config import SPEC_BY_PATH, RunConfig
from core.data.registry import list_datasets
from core.errors import ConfigError, TunesmithError
from core.models.describe import describe_model
from core.models.location import local_model
from core.models.starter import STARTER_MODELS
from core.rules import parse_config
from core.rules.command import as_command
from core.rules.presets import DEFAULT, Preset, load_preset, preset_id, save_preset
from core.runs.check import start_problems
from core.tokens.lens import Lens
from webui import background, forms, messages
from webui.configure import plan
from webui.configure.draft import Draft
from webui.configure.extras import ExtrasView
from webui.configure.plan import MemoryView
from webui.configure.presets import PresetChoice, when
from webui.configure.rewards import RewardEditor
from webui.configure.verl import VerlView
from webui.configure.words import WordFinder
from webui.context import App, Shared
from webui.forms import Filling
from webui.template_choice import template_choices
from webui.tokens import count_tokens

# How long the page waits for a count of tokens, in seconds; it is asked for again at a change.
PATIENCE = 120
MODULES = "adapter.target_modules"
MODEL, TEMPLATE = "model.model_name_or_path", "data.chat_template"


def build(app: App, shared: Shared) -> None:
    tab = _Configure(app, shared)
    tab.wire()
    # The tabs after this one have such buttons too: they are wired when all are there.
    shared.finally_wire += [tab.wire_sample_buttons, tab.wire_draft]


class _Configure:
    def __init__(self, app: App, shared: Shared) -> None:
        self.app, self.shared = app, shared
        self.starting = background.Tasks()
        first = load_preset(DEFAULT)
        with gr.Row(elem_classes="split"):
            with gr.Column(scale=7, min_width=320):
                self.presets = PresetChoice(app, first)
                self.preset, self.when = self.presets.field, self.presets.when
                self.reset = gr.Button("Back to the preset", size="sm", elem_id="reset-settings")
                self.form = forms.build(
                    first.config().values(),
                    self._choices(),
                    {"vocabulary": self._find_words, **self._offers()},
                    self._build_rewards,
                )
                self.filling = Filling(self.form)
                self.draft = Draft(app, self.form)
                self._build_reuse()
            with gr.Column(scale=4, min_width=300, elem_classes="beside"):
                self.summary = gr.HTML(elem_id="summary", apply_default_css=False)
                self.start = gr.Button("Start training", variant="primary", elem_id="start")
                self.status = gr.HTML(elem_id="start-status", apply_default_css=False)
                self.stop = gr.Button("Stop the download", size="sm", visible=False)
                self.need = MemoryView(app)
        self.inputs = {*self.form.fields.values(), self.preset, self.name_to_save}
        self.inputs.add(self.draft.opened)
        self.shown = {self.draft.kept, self.form.marks, self.summary, self.start, shared.lens}
        self.shown |= {*self.rewards.outputs, *self.need.outputs, self.need.box}
        self.shown |= {part for offer in self.offers.values() for part in offer.outputs}
        self.start_outputs = {*self.shown, self.status, self.stop, shared.run, shared.tabs}
        shared.settings = self.form.fields

    def _find_words(self) -> None:
        self.finder = WordFinder(self.app)

    @property
    def devices(self) -> list[str]:
        return [device.label for device in self.app.hardware.devices]

    def _offers(self) -> dict[str, Callable[[], None]]:
        """What builds the offer to install what a choice needs, by the setting it stands under."""
        self.offers: dict[str, ExtrasView] = {}

        def builder(path: str) -> Callable[[], None]:
            return lambda: self.offers.update({path: ExtrasView(self.app, path)})

        return {path: builder(path) for path in ("training.optim", "tracking.report_to")}

    def _build_rewards(self, fields: dict[str, Component]) -> None:
        self.rewards = RewardEditor(self.app, fields)

    def _build_reuse(self) -> None:
        with gr.Accordion("Keep or reuse these settings", open=False, elem_classes="fold"):
            with gr.Row(equal_height=False):
                self.name_to_save = gr.Textbox(
                    label="Name of the preset", placeholder="My LoRA", max_lines=1, scale=3
                )
                self.save = gr.Button("Save as preset", scale=1, min_width=140)
            with gr.Row():
                self.as_yaml = gr.Button("Copy as YAML", min_width=140)
                self.as_command = gr.Button("Copy as command", min_width=140)
            self.copied = gr.Code(
                label="Copied", language=None, interactive=False, visible=False, elem_id="copied"
            )
            self.saved = gr.HTML(apply_default_css=False)
            self.verl = VerlView(self.app)

    def _choices(self) -> dict[str, list[Any]]:
        local = [path.name for path in sorted(self.app.workspace.models.glob("[!.]*/"))]
        datasets = [(info.name, info.id) for info in list_datasets(self.app.workspace)]
        if "sample" not in {identity for _, identity in datasets}:
            datasets.insert(0, ("Sample: support tickets", "sample"))
        return {
            "training.device": ["auto", *self.devices],
            MODEL: [*dict.fromkeys([next(iter(STARTER_MODELS)), *local])],
            "data.dataset": datasets,
            TEMPLATE: template_choices(self.app),
        }

    # -- handlers

    def follow(self, data: dict[Component, Any]) -> dict[Component, Any]:
        """After every change: the summary, which fields matter, what differs, what is wrong."""
        values, problems = self.form.gather(data)
        config, problems = plan.checked(values, problems)
        preset = load_preset(data[self.preset], self.app.workspace)
        refused = start_problems(self.app.workspace, config, self.devices) if config else []
        offers = [offer.follow(values.get(path)) for path, offer in self.offers.items()]
        return {
            **{part: update for offer in offers for part, update in offer.items()},
            self.form.marks: forms.marks(values, preset.config().values(), (*problems, *refused)),
            self.summary: plan.card(
                self.app, config, problems, self.need.trial_of(config) if config else None, refused
            ),
            **self.need.follow(config),
            self.start: gr.Button(interactive=config is not None and not refused),
            self.shared.lens: Lens.of(config).write() if config else gr.skip(),
            **self.draft.keep(preset, data),
            **self.rewards.follow(data[self.form.fields["method"]], data[self.rewards.field]),
        }

    def edited(self, data: dict[Component, Any]) -> dict[Component, Any]:
        """After a person's change; what was said of a start holds for the settings before it."""
        return {**self.follow(data), self.status: ""}

    def wait_for_tokens(self, data: dict[Component, Any]) -> None:
        """Until the tokens of these settings are counted; `follow` then shows them.

        It shows nothing itself: by then the settings may be others.
        """
        config, _ = plan.checked(*self.form.gather(data))
        if config is not None:
            counting = count_tokens(self.app, config.data.dataset, Lens.of(config))
            if counting is not None:
                wait([counting], timeout=PATIENCE)

    def choose(self, data: dict[Component, Any]) -> dict[Component, Any]:
        """Another preset: its values in the form; the run's name and the data set stay."""
        preset = load_preset(data[self.preset], self.app.workspace)
        kept = {"name": data[self.form.fields["name"]]}
        if "data.dataset" not in preset.settings:
            kept["data.dataset"] = data[self.form.fields["data.dataset"]]
        return {**self.filling.values(_with(preset, kept)), self.when: when(preset)}

    def back(self, data: dict[Component, Any]) -> dict[Component, Any]:
        """The chosen preset as it is; only the data set stays."""
        preset = load_preset(data[self.preset], self.app.workspace)
        kept = {"data.dataset": data[self.form.fields["data.dataset"]]}
        return self.filling.values(_with(preset, kept))

    def restore(self, kept: Any) -> dict[Component, Any]:
        """What was typed before the page was loaded again."""
        opened: dict[Component, Any] = {self.draft.opened: "yes"}
        found = self.draft.read(kept)
        if found is None:
            return opened
        preset, held = found
        return {**opened, **held, **self.presets.choose(preset), self.when: when(preset)}

    def choose_sample(self) -> dict[Component, Any]:
        """The settings of a fresh start, whatever was changed since, and this tab to watch."""
        preset = load_preset(DEFAULT)
        return {
            **self.form.show(preset.config()),
            **self.presets.choose(preset),
            self.when: when(preset),
            self.shared.dataset: preset.config().data.dataset,
            self.shared.tabs: self.shared.go("configure"),
        }

    def open(self, dataset: str, held: str, purpose: str, preset: str) -> dict[Component, Any]:
        """The tab is opened, or another data set chosen: lists that may have grown. What the form
        holds already is not written again: by then it may be another."""
        choices = self._choices()
        fields = self.form.fields
        known = {identity for _, identity in choices["data.dataset"]}
        dataset_field = fields["data.dataset"]
        chosen = {"value": dataset} if dataset in known and dataset != held else {}
        return {
            dataset_field: gr.Dropdown(choices=choices["data.dataset"], **chosen),
            fields[MODEL]: gr.Dropdown(choices=choices[MODEL]),
            fields[TEMPLATE]: gr.Dropdown(choices=choices[TEMPLATE]),
            self.preset: self.presets.offer(purpose, preset),
        }

    def begin(self, data: dict[Component, Any], request: gr.Request) -> Iterator[dict]:
        """Starts the run; while its model is fetched, says how far that is."""
        try:
            config = self.form.config(data)
        except ConfigError:
            yield self.follow(data)
            return
        start = background.start_run(self.app.workspace, self.app.store, config)
        for task in self.starting.watch(request.session_hash, start):
            share = "" if task.fraction is None else f" {task.fraction:.0%}"
            yield {
                self.status: messages.progress(task.fraction, task.message),
                self.start: gr.Button(f"Starting{share}", interactive=False),
                self.stop: gr.Button(visible=True),
            }
        yield self._begun(start)

    def _begun(self, start: background.Task) -> dict[Component, Any]:
        ready = {
            self.start: gr.Button("Start training", interactive=True),
            self.stop: gr.Button(visible=False),
        }
        if start.result is None:
            return {**ready, self.status: plan.not_started(start.error)}
        return {
            **ready,
            self.status: "",
            self.shared.run: start.result.id,
            self.shared.tabs: self.shared.go("train"),
        }

    def stop_start(self, request: gr.Request) -> None:
        self.starting.stop(request.session_hash)

    def list_modules(self, model: str) -> Any:
        """The names that an adapter can be put on, read from the model that was chosen."""
        try:
            folder = local_model(self.app.workspace, model or "")
            names = describe_model(folder).linear_modules if folder else []
        except TunesmithError:
            names = []  # the plan says what is wrong with the model
        words = SPEC_BY_PATH[MODULES].words
        return gr.Dropdown(choices=[*words, *names])

    def save_as(self, data: dict[Component, Any]) -> dict[Component, Any]:
        """Keeps the settings as a preset of the owner's."""
        title = (data[self.name_to_save] or "").strip()
        if not title:
            return {self.saved: messages.error("The preset has no name.", "Type one first.")}
        try:
            config = self.form.config(data)
            name = preset_id(title)
            same = name == data[self.preset]
            preset = save_preset(self.app.workspace, name, title, config, replace=same)
        except TunesmithError as error:
            return {self.saved: messages.error(error)}
        return {
            **self.presets.choose(preset),
            self.saved: messages.note(f"Saved as {preset.title}.", "finished"),
        }

    def copy_yaml(self, data: dict[Component, Any]) -> Any:
        return self._copy(data, lambda config: config.to_yaml(full=False) or "{}\n")

    def copy_command(self, data: dict[Component, Any]) -> Any:
        preset = load_preset(data[self.preset], self.app.workspace)
        return self._copy(data, lambda config: as_command(config, preset))

    def _copy(self, data: dict[Component, Any], write: Any) -> Any:
        try:
            return gr.Code(write(self.form.config(data)), visible=True)
        except ConfigError as error:
            return gr.Code(f"# {error}", visible=True)

    # -- wiring

    def wire(self) -> None:
        shared, form = self.shared, self.form
        quiet: dict[str, Any] = {"show_progress": "hidden"}
        # Whatever asked for it, one plan is made after the other: the last one shown is the last.
        in_turn: dict[str, Any] = {"concurrency_id": "plan", "concurrency_limit": 1, **quiet}
        shown = self.shown
        fields = list(form.fields.values())

        def refreshed(event: Any) -> None:
            """What follows a change: at once the plan, and again when its tokens are counted."""
            event.then(
                self.wait_for_tokens,
                self.inputs,
                None,
                trigger_mode="multiple",
                concurrency_limit=None,
                **quiet,
            ).then(self.follow, self.inputs, shown, trigger_mode="always_last", **in_turn)

        def refreshed_now(event: Any) -> None:
            refreshed(event.then(self.follow, self.inputs, shown, **in_turn))

        shared.follow_settings = refreshed_now
        self.finder.wire(form, shared)
        self.rewards.wire()
        self.verl.wire(form, self.inputs)
        for path, offer in self.offers.items():
            refreshed_now(offer.wire(form.fields[path]))
        # Of many changes at once (a preset) only the last is answered. That needs the events for
        # itself (webui/app.py), so the data set, which another handler follows, is left out.
        dataset = form.fields["data.dataset"]
        edits = [_edited(field) for field in fields if field is not dataset]
        told = {*shown, self.status}
        refreshed(
            gr.on(edits, self.edited, self.inputs, told, trigger_mode="always_last", **in_turn)
        )
        refreshed_now(self.filling.wire(self.preset.input, self.choose, self.inputs, {self.when}))
        refreshed_now(self.filling.wire(self.reset.click, self.back, self.inputs))
        self.presets.wire()
        self._wire_lists(refreshed_now)
        begun = self.start_outputs
        self.start.click(self.begin, self.inputs, begun, concurrency_limit=None, **quiet)
        self.stop.click(self.stop_start, None, None, **quiet)
        self.need.wire(form, self.filling, self.inputs, refreshed_now)
        self._wire_reuse()

    def _wire_lists(self, refreshed_now: Callable[[Any], None]) -> None:
        """Lists that grow with the workspace, and the data set, which all tabs share."""
        shared, form = self.shared, self.form
        quiet: dict[str, Any] = {"show_progress": "hidden"}
        dataset = form.fields["data.dataset"]
        lists = [*(form.fields[path] for path in ("data.dataset", MODEL, TEMPLATE)), self.preset]
        opened = gr.on(
            [shared.tab["configure"].select, shared.dataset.change],
            self.open,
            [shared.dataset, dataset, self.presets.purpose, self.preset],
            lists,
            **quiet,
        )
        refreshed_now(opened)
        model = form.fields[MODEL]
        gr.on(
            [model.change, shared.tab["configure"].select],
            self.list_modules,
            model,
            form.fields[MODULES],
            **quiet,
        )
        # In the browser, at once: a selection that is still on its way would come back as a newer.
        refreshed_now(
            dataset.input(None, dataset, shared.dataset, js="dataset => dataset", **quiet)
        )

    def _wire_reuse(self) -> None:
        quiet: dict[str, Any] = {"show_progress": "hidden"}
        saved = {self.presets.purpose, self.preset, self.saved}
        self.save.click(self.save_as, self.inputs, saved, **quiet)
        for button, copy in ((self.as_yaml, self.copy_yaml), (self.as_command, self.copy_command)):
            button.click(copy, self.inputs, self.copied, **quiet).then(
                None, self.copied, js="text => tunesmith.copy(text)"
            )

    def wire_draft(self) -> None:
        assert self.shared.page is not None
        chosen = {self.presets.purpose, self.preset, self.when}
        told = {*self.form.fields.values(), *chosen, self.draft.opened}
        opened = self.draft.wire(self.shared.page, self.restore, told)
        self.shared.follow_settings(opened)

    def wire_sample_buttons(self) -> None:
        """Start the sample run: back to the first settings, then as if Start were pressed here."""
        quiet: dict[str, Any] = {"show_progress": "hidden"}
        fields = list(self.form.fields.values())
        gr.on(
            [button.click for button in self.shared.sample_buttons],
            self.choose_sample,
            None,
            {
                *fields,
                self.when,
                self.presets.purpose,
                self.preset,
                self.shared.tabs,
                self.shared.dataset,
            },
            **quiet,
        ).then(self.begin, self.inputs, self.start_outputs, concurrency_limit=None, **quiet)


def _edited(field: Component) -> Any:
    """The event of a person's edit. A text box fires `input` at key presses only: not when text is
    pasted or deleted."""
    return field.change if isinstance(field, gr.Textbox) else field.input


def _with(preset: Preset, kept: dict[str, Any]) -> RunConfig:
    """The preset's configuration with values that stay as they are."""
    return parse_config({**preset.config().values(), **kept})
