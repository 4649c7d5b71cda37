"""A search over settings, begun from those of Configure: which values are tried, and how."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import gradio as gr
from gradio.components import Component

from core.errors import ConfigError, Problem
from core.language import _
from core.runs.space import OVER, SweepSettings, sweep_settings
from core.runs.sweep import Sweep, submit_sweep
from core.setup.extras import Extra, missing
from webui import background, messages
from webui.configure.plan import not_started
from webui.context import QUIET, App, Shared
from webui.data.step_form import first_values, groups, marks, read_fields, section_specs
from webui.extras import ExtrasView
from webui.forms import Form
from webui.html import html

_SPECS = section_specs(SweepSettings, "sweep")
_FIELDS = {spec.name for spec in _SPECS}


class SweepForm:
    """A fold; its runs are watched in Runs."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.form = Form("sweep", first_values(_SPECS))
        with gr.Accordion(
            _("Try several values"), open=False, elem_classes="fold", elem_id="sweep"
        ):
            told = _(
                "Starts several runs with the settings above, each with other values of those "
                "named here, and tells which of them is best by the evaluation."
            )
            gr.HTML(html.plain.aside(told), apply_default_css=False)
            self.form.part(groups(_SPECS, "", ""))
            self.start = gr.Button(_("Start the search"), elem_id="sweep-start")
            self.said = gr.HTML(apply_default_css=False, elem_id="sweep-said")
        self.form.open_with(self.marks({}, ()))

    def marks(
        self, values: dict[str, Any], problems: tuple[Problem, ...] | None
    ) -> dict[Component, Any]:
        """Which settings the kind of search has, and what is wrong with one of them."""
        if problems:
            problems = tuple(replace(one, field=f"sweep.{one.field}") for one in problems)
        return marks(self.form, _SPECS, values or {"search": "grid"}, problems)

    def lacking(self, data: Mapping[Component, Any]) -> list[Extra]:
        """The package that the chosen search needs, if it is not there."""
        search = self.form.held(data)["sweep.search"]
        return missing(["optuna"] if search == "tpe" else [])

    def change(self, data: dict[Component, Any]) -> dict[Component, Any]:
        return self.marks(read_fields(_SPECS, self.form.held(data)), None)

    def begin(
        self, run: Form, shared: Shared, data: dict[Component, Any]
    ) -> Iterator[dict[Component, Any]]:
        """Puts the search into the queue and shows it in Runs; what is wrong is said at its field,
        or under the button where it is a setting of the runs."""
        values = read_fields(_SPECS, self.form.held(data))
        try:
            settings, config = sweep_settings(**values), run.config(data)
            _number = Sweep(config, settings).number  # before a model is fetched for nothing
        except ConfigError as error:
            yield self._refused(values, error)
            return
        submit = partial(submit_sweep, settings=settings)
        start = background.start_run(self.app.workspace, self.app.store, config, submit)
        for task in start.glances():
            yield {self.said: messages.progress(task.fraction, task.message)}
        if start.result is None:
            yield self._refused(values, start.error)
            return
        yield {
            self.said: "",
            shared.tabs: shared.go("runs"),
            **self.marks(values, ()),
        }

    def _refused(self, values: dict[str, Any], error: Any) -> dict[Component, Any]:
        problems = error.problems if isinstance(error, ConfigError) else ()
        mine = tuple(one for one in problems if one.field in _FIELDS)
        others = [one for one in problems if one.field not in _FIELDS]
        # A value of the list that is wrong is a setting's own problem, and stands in the list.
        over = {line.partition("=")[0].strip() for line in values.get(OVER) or []}
        typed = [one for one in others if one.field in over]
        told = [str(one.message) for one in mine if one.field == OVER] + [str(one) for one in typed]
        if told:
            mine = (*(one for one in mine if one.field != OVER), Problem(OVER, "\n".join(told)))
        left = [one for one in others if one not in typed]
        said = "" if not left and mine else not_started(ConfigError(left) if left else error)
        return {self.said: said, **self.marks(values, mine)}

    def wire(self, run: Form, shared: Shared, extras: ExtrasView) -> None:
        parts = {*self.form.parts, *run.parts}
        last: dict[str, Any] = {**QUIET, "trigger_mode": "always_last"}
        edited = gr.on(self.form.edits, self.change, parts, {self.form.marks}, **last)
        edited.then(lambda data: extras.follow(extras.lacking(data)), parts, extras.outputs, **last)
        self.start.click(
            partial(self.begin, run, shared),
            parts,
            {self.said, self.form.marks, shared.tabs},
            concurrency_limit=None,
            **QUIET,
        )
