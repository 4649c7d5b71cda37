"""Configure: a preset, the settings that matter, and what the run will be before it starts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import wait
from typing import Any

import gradio as gr
from gradio.components import Component

from core.config import SPEC_BY_PATH
from core.data.registry import list_datasets
from core.errors import ConfigError, TunesmithError
from core.language import _
from core.models.describe import describe_model
from core.models.location import local_model
from core.models.starter import STARTER_MODELS
from core.rules.command import as_command
from core.rules.machine import missing_extras
from core.rules.presets import DEFAULT, Preset, load_preset, preset_id, save_preset
from core.runs.check import start_problems
from core.setup.extras import Extra
from core.tokens.lens import Lens
from webui import background, forms, messages
from webui.configure import plan
from webui.configure.draft import DATASET, Draft
from webui.configure.find_model import ModelFinder
from webui.configure.plan import MemoryView
from webui.configure.presets import PresetChoice, when
from webui.configure.rewards import RewardEditor
from webui.configure.sweep import SweepForm
from webui.configure.verl import VerlView
from webui.configure.words import WordFinder
from webui.context import CHOICE, QUIET, App, Shared, of_trigger
from webui.extras import ExtrasView
from webui.forms import Form
from webui.html import html
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
                self.came_back = gr.HTML(apply_default_css=False, elem_id="came-back")
                self.reset = gr.Button(_("Back to the preset"), size="sm", elem_id="reset-settings")
                self.form = Form("run", first.config().values(), self._choices(), [DATASET])
                basics = forms.basics().specs
                place = [spec.path for spec in basics].index(MODEL) + 1
                self.form.part([forms.Group(basics[:place])])
                self.models = ModelFinder(app, self.form)
                self.form.part([forms.Group(basics[place:])])
                self.rewards = RewardEditor(app, self.form)
                self.form.part(forms.in_folds())
                with gr.Accordion(
                    _("Words worth a token of their own"), open=False, elem_classes="fold"
                ):
                    self.finder = WordFinder(app)
                self.sweep = SweepForm(app)
                self.draft = Draft(app, self.form)
                self._build_reuse()
            with gr.Column(scale=4, min_width=300, elem_classes="beside"):
                self.summary = gr.HTML(elem_id="summary", apply_default_css=False)
                self.extras = ExtrasView(app, "extras", self._lacking)
                self.start = gr.Button(_("Start training"), variant="primary", elem_id="start")
                self.status = gr.HTML(elem_id="start-status", apply_default_css=False)
                self.stop = gr.Button(_("Stop the download"), size="sm", visible=False)
                self.need = MemoryView(app)
        self.inputs = {*self.form.parts, self.preset, self.name_to_save, self.finder.known}
        self.inputs |= {*self.sweep.form.parts}
        self.shown = {self.form.marks, self.summary, self.start, shared.lens, self.verl.box}
        self.shown |= {*self.rewards.outputs, *self.need.outputs, self.need.box}
        self.shown |= {*self.extras.outputs, *self.finder.outputs}
        self.start_outputs = {*self.shown, self.status, self.stop, shared.run, shared.tabs}
        shared.settings = self.form

    @property
    def devices(self) -> list[str]:
        return [device.label for device in self.app.hardware.devices]

    def _build_reuse(self) -> None:
        with gr.Accordion(_("Keep or reuse these settings"), open=False, elem_classes="fold"):
            with gr.Row(equal_height=False):
                self.name_to_save = gr.Textbox(
                    label=_("Name of the preset"), placeholder=_("My LoRA"), max_lines=1, scale=3
                )
                self.save = gr.Button(_("Save as preset"), scale=1, min_width=140)
            with gr.Row():
                self.as_yaml = gr.Button(_("Copy as YAML"), min_width=140, elem_id="copy-yaml")
                self.as_command = gr.Button(_("Copy as command"), min_width=140)
            self.copied = gr.Code(
                label=_("Copied"), language=None, interactive=False, visible=False, elem_id="copied"
            )
            self.saved = gr.HTML(apply_default_css=False)
            self.verl = VerlView(self.app)

    def _choices(self) -> dict[str, list[Any]]:
        local = [path.name for path in sorted(self.app.workspace.models.glob("[!.]*/"))]
        datasets = [(info.name, info.id) for info in list_datasets(self.app.workspace)]
        if "sample" not in {identity for _name, identity in datasets}:
            datasets.insert(0, (_("Sample: support tickets"), "sample"))
        return {
            "training.device": [(_("auto"), "auto"), *self.devices],
            MODEL: [*dict.fromkeys([next(iter(STARTER_MODELS)), *local])],
            DATASET: datasets,
            TEMPLATE: template_choices(self.app),
        }

    # -- handlers

    def follow(self, data: dict[Component, Any]) -> dict[Component, Any]:
        """After every change: the summary, which fields matter, what differs, what is wrong."""
        values, problems = self.form.gather(data)
        config, problems = plan.checked(values, problems)
        preset = load_preset(data[self.preset], self.app.workspace)
        refused = start_problems(self.app.workspace, config, self.devices) if config else []
        held = self.form.held(data)
        marks = forms.marks(values, preset.config().values(), (*problems, *refused))
        return {
            self.form.marks: {**marks, "choices": {MODULES: self._modules(held[MODEL])}},
            **self.extras.follow(self._lacking(data, values)),
            **self.finder.follow(held[DATASET], held[MODEL], data[self.finder.known]),
            **self.verl.follow(held["method"]),
            self.summary: plan.card(
                self.app, config, problems, self.need.trial_of(config) if config else None, refused
            ),
            **self.need.follow(config),
            self.start: gr.Button(interactive=config is not None and not refused),
            self.shared.lens: Lens.of(config).write() if config else gr.skip(),
            **self.rewards.follow(held),
        }

    def edited(self, data: dict[Component, Any]) -> dict[Component, Any]:
        """After a person's change; what was said of a start holds for the settings before it."""
        return {**self.follow(data), self.status: ""}

    def wait_for_tokens(self, data: dict[Component, Any]) -> None:
        """Until the tokens of these settings are counted; `follow` then shows them.

        It shows nothing itself: by then the settings may be others.
        """
        config, _problems = plan.checked(*self.form.gather(data))
        if config is not None:
            counting = count_tokens(self.app, config.data.dataset, Lens.of(config))
            if counting is not None:
                wait([counting], timeout=PATIENCE)

    def choose(self, data: dict[Component, Any]) -> dict[Component, Any]:
        """Another preset: its values in the form; the run's name and the data set stay."""
        preset = load_preset(data[self.preset], self.app.workspace)
        kept = ["name"] if DATASET in preset.settings else ["name", DATASET]
        return {**self._filled(preset, data, kept), self.when: when(preset)}

    def back(self, data: dict[Component, Any]) -> dict[Component, Any]:
        """The chosen preset as it is; only the data set stays."""
        return self._filled(load_preset(data[self.preset], self.app.workspace), data, [DATASET])

    def _filled(
        self, preset: Preset, data: dict[Component, Any], kept: list[str]
    ) -> dict[Component, Any]:
        """The form with the values of a preset, but for those that are kept."""
        values = preset.config().values()
        changed = {path: value for path, value in values.items() if path not in kept}
        filled = self.form.fill(changed, data=data, preset=preset.name, kept=kept)
        return {**filled, self.came_back: ""}

    def restore(self, text: Any) -> dict[Component, Any]:
        """What was typed before the page was loaded again, or the last time with this data set."""
        found = self.draft.read(text)
        if found is None:
            return {self.came_back: ""}
        preset = found.preset
        values = {p: v for p, v in preset.config().values().items() if p != DATASET}
        note = _("The settings that you last used with this data set.")
        return {
            **self.form.fill(
                values, held=found.held, preset=preset.name, kept=list(found.held), at=found.at
            ),
            **self.presets.choose(preset),
            self.when: when(preset),
            self.came_back: html.plain.aside(note) if found.came_back else "",
        }

    def choose_sample(self) -> dict[Component, Any]:
        """The settings of a fresh start, whatever was changed since, and this tab to watch."""
        preset = load_preset(DEFAULT)
        return {
            **self.form.fill(preset.config().values(), preset=preset.name),
            **self.presets.choose(preset),
            self.when: when(preset),
            self.shared.dataset: preset.config().data.dataset,
            self.shared.tabs: self.shared.go("configure"),
        }

    def open(self, data: dict[Component, Any]) -> dict[Component, Any]:
        """The tab is opened, or another data set chosen: lists that may have grown."""
        choices = self._choices()
        known = {identity for _name, identity in choices[DATASET]}
        chosen = data[self.shared.dataset]
        values = {DATASET: chosen} if chosen in known else {}
        return {
            **self.form.fill(values, choices=choices, data=data),
            self.preset: self.presets.offer(data[self.presets.purpose], data[self.preset]),
        }

    def begin(self, data: dict[Component, Any], request: gr.Request) -> Iterator[dict[Any, Any]]:
        """Starts the run; while its model is fetched, says how far that is."""
        try:
            config = self.form.config(data)
        except ConfigError:
            yield self.follow(data)
            return
        start = background.start_run(self.app.workspace, self.app.store, config)
        for task in self.starting.watch(request.session_hash, start):
            if task.fraction is None:
                starting = _("Starting")
            else:
                starting = _("Starting {share:.0%}", share=task.fraction)
            yield {
                self.status: messages.progress(task.fraction, task.message),
                self.start: gr.Button(starting, interactive=False),
                self.stop: gr.Button(visible=True),
            }
        yield self._begun(start)

    def _begun(self, start: background.Task) -> dict[Component, Any]:
        ready = {
            self.start: gr.Button(_("Start training"), interactive=True),
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

    def _modules(self, model: str) -> list[str]:
        """The names that an adapter can be put on, read from the model that was chosen."""
        try:
            folder = local_model(self.app.workspace, model or "")
            names = describe_model(folder).linear_modules if folder else []
        except TunesmithError:
            names = []  # the plan says what is wrong with the model
        return [*SPEC_BY_PATH[MODULES].words, *names]

    def save_as(self, data: dict[Component, Any]) -> dict[Component, Any]:
        """Keeps the settings as a preset of the owner's."""
        title = (data[self.name_to_save] or "").strip()
        if not title:
            return {self.saved: messages.error(_("The preset has no name."), _("Type one first."))}
        try:
            config = self.form.config(data)
            name = preset_id(title)
            same = name == data[self.preset]
            preset = save_preset(self.app.workspace, name, title, config, replace=same)
        except TunesmithError as error:
            return {self.saved: messages.error(error)}
        return {
            # What was typed is the preset's now, also after a reload; the name is the run's own.
            **self.form.fill(data=data, preset=preset.name, kept=["name"]),
            **self.presets.choose(preset),
            self.saved: messages.note(_("Saved as {preset}.", preset=preset.title), "finished"),
        }

    def copy(self, data: dict[Component, Any], event: gr.EventData) -> Any:
        """The settings as YAML, or as a command."""
        try:
            config = self.form.config(data)
        except ConfigError as error:
            return gr.Code(f"# {error}", visible=True)
        if of_trigger(event, {self.as_yaml: True}, False):
            return gr.Code(config.to_yaml(full=False) or "{}\n", visible=True)
        preset = load_preset(data[self.preset], self.app.workspace)
        return gr.Code(as_command(config, preset), visible=True)

    def _lacking(
        self, data: Mapping[Component, Any], values: Mapping[str, Any] | None = None
    ) -> list[Extra]:
        """The packages that these settings need and that are not there."""
        values = self.form.gather(data)[0] if values is None else values
        return [*_extras(values), *self.sweep.lacking(data)]

    # -- wiring

    def wire(self) -> None:
        form, shown = self.form, self.shown
        quiet = QUIET
        # Whatever asked for it, one plan is made after the other: the last one shown is the last.
        # Of many changes at once only the last is answered.
        in_turn: dict[str, Any] = {"concurrency_id": "plan", "concurrency_limit": 1, **quiet}
        last: dict[str, Any] = {"trigger_mode": "always_last", **in_turn}

        def counted(event: Any) -> None:
            """The plan again when its tokens are counted."""
            event.then(
                self.wait_for_tokens,
                self.inputs,
                None,
                trigger_mode="multiple",
                concurrency_limit=None,
                **quiet,
            ).then(self.follow, self.inputs, shown, **last)

        def followed(event: Any) -> None:
            event.then(None, None, form.taken, js="() => String(Math.random())", **quiet)

        counted(gr.on(form.edits, self.edited, self.inputs, {*shown, self.status}, **last))
        counted(form.taken.change(self.follow, self.inputs, shown, **last))
        self.models.wire()
        self.finder.wire(form)
        self.rewards.wire()
        self.verl.wire(form, self.inputs)
        self.sweep.wire(form, self.shared, self.extras)
        followed(self.extras.wire({*form.parts, *self.sweep.form.parts}))
        self.preset.input(
            self.choose, self.inputs, {self.when, self.came_back, form.filled}, **CHOICE
        )
        self.reset.click(self.back, self.inputs, {self.came_back, form.filled}, **quiet)
        self.presets.wire()
        self._wire_lists()
        begun = self.start_outputs
        self.start.click(self.begin, self.inputs, begun, concurrency_limit=None, **quiet)
        self.stop.click(self.stop_start, None, None, **quiet)
        followed(self.need.wire(form, self.inputs))
        self._wire_reuse()
        form.wire()

    def _wire_lists(self) -> None:
        """Lists that grow with the workspace, and the data set, which all tabs share."""
        shared, form = self.shared, self.form
        quiet = QUIET
        opened = shared.shown["configure"].select(
            self.open,
            {*form.parts, shared.dataset, self.presets.purpose, self.preset},
            {form.filled, self.preset},
            **quiet,
        )
        shared.drawn("configure", opened)
        # In the browser, at once: a selection that is still on its way would come back as a newer.
        js = f"() => tunesmith.form.value('{form.name}', '{DATASET}')"
        gr.on([part.select for part in form.parts], None, None, shared.dataset, js=js, **quiet)

    def _wire_reuse(self) -> None:
        quiet = QUIET
        saved = {self.presets.purpose, self.preset, self.saved, self.form.filled}
        self.save.click(self.save_as, self.inputs, saved, **quiet)
        copying = [self.as_yaml.click, self.as_command.click]
        gr.on(copying, self.copy, self.inputs, self.copied, **quiet).then(
            None, self.copied, js="text => tunesmith.copy(text)"
        )

    def wire_draft(self) -> None:
        assert self.shared.page is not None
        self.form.render()
        self.sweep.form.marks.render()
        told = {self.presets.purpose, self.preset, self.when, self.came_back, self.form.filled}
        self.draft.wire(self.shared.page, self.restore, told)

    def wire_sample_buttons(self) -> None:
        """Start the sample run: back to the first settings, then as if Start were pressed here."""
        quiet = QUIET
        chosen = gr.on(
            [button.click for button in self.shared.sample_buttons],
            self.choose_sample,
            None,
            {
                self.form.filled,
                self.when,
                self.presets.purpose,
                self.preset,
                self.shared.tabs,
                self.shared.dataset,
            },
            **quiet,
        )
        self.form.take(chosen.then).then(
            self.begin, self.inputs, self.start_outputs, concurrency_limit=None, **quiet
        )


def _extras(values: Mapping[str, Any]) -> list[Extra]:
    """The packages that these settings need and that are not there."""
    asking = (MODEL, "training.optim", "training.ray_address", "tracking.report_to")
    found = [extra for path in asking for extra in missing_extras(path, values.get(path))]
    return list(dict.fromkeys(found))
