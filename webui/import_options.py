"""What happens to rows on their way in: what is held out, a system prompt, a recipe of steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component

from core.config.fields import field_specs
from core.data.forms import FORMS
from core.data.inspection import SourceReport
from core.data.steps import parse_step, parse_steps, read_recipe
from core.data.steps.base import Step
from core.data.steps.split import Split
from core.errors import ConfigError, DataError, TunesmithError
from webui import messages

SHARE, SECOND_FILE, NONE = "share", "file", "none"
NO_GROUP = ""
_ABOUT_SECOND = (
    "<p class='aside'>Any file that can be imported, with the same kind of rows. All of it is held "
    "out; a test share is taken from the first file.</p>"
)
_NO_TURNS = ("text", "labelled-text")


class HoldOut:
    """Which rows are not learned; it becomes the step `split`."""

    def __init__(self) -> None:
        self.how = gr.Radio(
            [("a share", SHARE), ("a second file", SECOND_FILE), ("nothing", NONE)],
            value=SHARE,
            label="Hold out for evaluation",
            info="Rows that are never trained on show when to stop.",
        )
        self.second = gr.File(
            label="The held-out rows", visible=False, height=100, elem_id="second"
        )
        self.problem = gr.HTML(elem_id="second-told", apply_default_css=False)
        with gr.Row() as self.shares:
            self.fraction = gr.Number(0.1, label="Share", min_width=90, step=0.05)
            self.test = gr.Number(0.0, label="Test share", min_width=90, step=0.05)
            self.seed = gr.Number(42, label="Seed", precision=0, min_width=90)
        self.stratify = gr.Checkbox(
            False, label="Keep the mix of labels", visible=False,
            info="Each part gets its share of every label.",
        )
        self.group = gr.Dropdown(
            [("nothing", NO_GROUP)], label="Keep together by column", value=NO_GROUP,
            info="Rows with the same value, such as one customer, land in one part.",
        )

    @property
    def inputs(self) -> list[Component]:
        return [
            self.how, self.fraction, self.test, self.seed, self.second, self.stratify, self.group
        ]

    @property
    def outputs(self) -> set[Any]:
        return {
            self.shares, self.fraction, self.second, self.stratify, self.group, self.problem
        }

    def show(self, how: str) -> dict[Any, Any]:
        """Which of the settings matter for this choice."""
        return {
            self.shares: gr.Row(visible=how != NONE),
            self.fraction: gr.Number(visible=how == SHARE),
            self.second: gr.File(visible=how == SECOND_FILE),
            self.group: gr.Dropdown(visible=how != NONE),
            self.problem: self.about_second(how),
        }

    def about_second(self, how: str) -> str:
        """What a second file is for, until there is one."""
        return _ABOUT_SECOND if how == SECOND_FILE else ""

    def fit(self, standard: str) -> dict[Any, Any]:
        """The settings for rows of a standard form."""
        labelled = standard == "labelled-text"
        return {self.stratify: gr.Checkbox(visible=labelled, value=labelled)}

    def groups(self, columns: Sequence[str]) -> dict[Any, Any]:
        """The columns that rows can be kept together by: those that stay beside a row."""
        choices = [("nothing", NO_GROUP), *((name, name) for name in columns)]
        return {self.group: gr.Dropdown(choices)}

    def step(self, data: Mapping[Any, Any], standard: str) -> Step | None:
        """The split that was asked for. Raises DataError that names what is wrong."""
        how, share = data[self.how], data[self.fraction]
        if how == NONE:
            return None
        spec = {
            "op": "split",
            "eval_fraction": (0.0 if share is None else share) if how == SHARE else 0.0,
            "test_fraction": data[self.test] or 0.0,
            "seed": int(data[self.seed] or 0),
            "stratify": bool(data[self.stratify]) and standard == "labelled-text",
            "group_by": data[self.group] or "",
        }
        if not spec["eval_fraction"] and not spec["test_fraction"]:
            return None
        try:
            return parse_step(spec)
        except ConfigError as error:
            labels = {field.path: field.label for field in field_specs(Split)}
            raise DataError(_told(error, labels), "Change it under Hold out.") from error

    def tell_second(self, report: SourceReport) -> str:
        """What the second file holds."""
        name, rows = report.path.name, report.total_rows
        count = "its rows" if rows is None else "1 row" if rows == 1 else f"{rows:,} rows"
        told = f"{name}: {count} will be held out"
        if not report.problem_count:
            return messages.note(f"{told}.", "finished")
        first = report.problems[0]
        return messages.note(
            f"{told}, less {report.problem_count:,} that cannot be used (line {first['line']}: "
            f"{first['reason']}).", "stopped",
        )

    def second_file(self, data: Mapping[Any, Any]) -> str | None:
        """The file with the held-out rows, if one is wanted and there."""
        wanted = data[self.how] == SECOND_FILE and data[self.second]
        return str(data[self.second]) if wanted else None

    def second_source(self, data: Mapping[Any, Any]) -> str | None:
        """The file with the held-out rows, if there is to be one. Raises DataError."""
        if data[self.how] == SECOND_FILE and not data[self.second]:
            raise DataError("No second file was given.", "Drop one, or take a share.")
        return self.second_file(data)


class Recipe:
    """A list of steps from a file, done to the rows while they come in."""

    def __init__(self) -> None:
        with gr.Accordion("Apply a recipe of steps", open=False, elem_classes="fold"):
            gr.HTML(
                "<p class='aside'>A recipe is what Clean and shape recorded for another data set "
                "(Manage, Download the recipe), or a YAML file of your own. Its form and mapping "
                "are taken over where these columns allow it.</p>",
                apply_default_css=False,
            )
            self.file = gr.File(label="Recipe (YAML)", height=100)
            self.told = gr.HTML(apply_default_css=False)
        self.steps = gr.State([])

    def read(self, path: str | None) -> tuple[list[dict[str, Any]], dict[str, Any], str]:
        """(records of the steps, the whole recipe, what is shown of it)."""
        if not path:
            return [], {}, ""
        try:
            recipe = read_recipe(Path(path))
            steps = parse_steps(recipe["steps"])
        except ConfigError as error:
            return [], {}, messages.error(_told(error), "Mend the recipe and drop it again.")
        except TunesmithError as error:
            return [], {}, messages.error(error)
        lines = "".join(f"<li>{messages.escape(step.title)}</li>" for step in steps)
        told = f"<ol class='recipe'>{lines}</ol>" if steps else messages.note("It has no steps.")
        if any(step.op == "split" for step in steps):
            told += "<p class='aside'>Its own split is used instead of Hold out.</p>"
        return [step.spec() for step in steps], recipe, told


def has_turns(form: str) -> bool:
    """Whether rows of a source form have a place for a system prompt."""
    return FORMS[form].standard not in _NO_TURNS


def _told(error: ConfigError, labels: Mapping[str, str] | None = None) -> str:
    """Each problem after its field's name, or its label where `labels` knows one."""
    named = ((one.field.rpartition(".")[2], one.message) for one in error.problems)
    return "; ".join(f"{(labels or {}).get(name, name)}: {message}" for name, message in named)
