"""A run that learned from rewards, on held-out prompts: the mean reward of its answers and of its
base's, by the run's own reward functions.

Both models answer with their most probable words (greedy), so that the numbers are the same again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from core.errors import DataError, ModelError
from core.evaluation.metrics import Rewarded
from core.evaluation.report import Note, Row, note
from core.language import _
from core.progress import Tell
from core.rewards.build import reward_functions
from core.rewards.specs import parse_rewards
from core.tokens.prompts import Prompted, prompt_ids, prompted
from core.worker.evaluation.evaluator import ANSWERS_OF, MOST_SHOWN, Evaluator, sides_of
from core.worker.evaluation.measure import too_long, write_answers
from core.worker.evaluation.rows import HeldOut
from core.worker.models.loading import open_trained
from core.worker.rewards import reward_model


class RewardedWriter(Evaluator[Rewarded]):
    """max_new_tokens: the run's longest answer."""

    kind = "rewards"
    found: HeldOut[Prompted]

    def open(self) -> Any:
        section = self.config.reinforcement
        self.specs = parse_rewards(section.rewards)
        model, self.tokenizer = open_trained(
            self.trained, self.base_path, device=self.device, dtype=self.dtype
        )
        self.functions = reward_functions(
            self.specs, self.workspace, self.tokenizer, self.device, reward_model
        )
        asked = self.task.params.get("max_new_tokens")
        self.max_new_tokens = int(asked or section.max_completion_length)
        return model

    def prepare(self, model: Any) -> HeldOut[Prompted]:
        raw = self.held_out()
        self.ids: list[list[int]] = []
        kept: list[tuple[int, Prompted]] = []
        reasons: list[str] = []
        for place, one in enumerate(raw.rows):
            try:
                row = prompted(one, self.config.data.system_prompt)
                self.ids.append(prompt_ids(row.prompt, self.tokenizer, tools=row.tools))
                kept.append((place, row))
            except (DataError, ModelError) as error:
                reasons.append(str(error))
        found = raw.measurable(kept, reasons)
        self.tokens = sum(map(len, self.ids))
        unread = too_long(model, self.ids, self.max_new_tokens)
        if unread:
            counts = {"rows": len(unread), "limit": self.max_new_tokens}
            found.notes.append(note("too_long_empty", **counts))
        return found

    def measure(self, model: Any, tell: Tell, which: str) -> Rewarded:
        answers = write_answers(
            model,
            self.tokenizer,
            self.ids,
            max_new_tokens=self.max_new_tokens,
            tell=lambda done: tell(done, ANSWERS_OF[which]),
        )
        prompts = [row.prompt for row in self.found.rows]
        completions = [[{"role": "assistant", "content": answer}] for answer in answers]
        columns = {
            "answer": [row.answer for row in self.found.rows],
            "row": [index + 1 for index in self.found.indices],
        }
        given = [function(prompts, completions, **columns) for function in self.functions]
        filled = [[np.nan if value is None else value for value in one] for one in given]
        found = Rewarded(
            answers,
            np.array(filled, dtype=float).T,
            [spec.name for spec in self.specs],
            np.array([spec.weight for spec in self.specs]),
        )
        if np.isnan(found.totals).all():
            raise DataError(
                _("No reward function applies to any of the rows."),
                _("Give the data set reference answers, or train with another function."),
            )
        return found

    def rows_measured(self, tuned: Rewarded) -> int:
        return int((~np.isnan(tuned.totals)).sum())

    def notes(self, tuned: Rewarded) -> list[Note]:
        without = len(self.found.rows) - self.rows_measured(tuned)
        return [note("no_reward", rows=without)] if without else []

    def differing(self, tuned: Rewarded, base: Rewarded | None) -> list[Row]:
        """The rows whose tuned answer is rewarded least first."""
        rows, after, before = self.found.rows, tuned.totals, base.totals if base else None
        # NaN, where no function applies, comes last.
        order = np.argsort(after, kind="stable")[: self.rows_measured(tuned)]
        return [
            Row(
                index=self.found.indices[place],
                prompt=rows[place].prompt,
                expected=rows[place].answer,
                base=base.answers[place] if base else None,
                tuned=tuned.answers[place],
                base_reward=_plain(before[place]) if before is not None else None,
                tuned_reward=_plain(after[place]),
            )
            for place in order[:MOST_SHOWN]
        ]

    def answers(self, tuned: Rewarded, base: Rewarded | None) -> Iterator[dict[str, Any]]:
        for place, row in enumerate(self.found.rows):
            line: dict[str, Any] = {"index": self.found.indices[place], "expected": row.answer}
            for name, side in sides_of(tuned, base).items():
                line[name] = side.answers[place]
                given = zip(side.names, side.given[place], strict=True)
                line[f"{name}_rewards"] = {one: _plain(value) for one, value in given}
            yield line


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 4)
