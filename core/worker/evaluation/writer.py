"""A model that writes: its loss on the expected answers, and its own answers compared with them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from core.errors import TunesmithError
from core.evaluation.metrics import Written
from core.evaluation.report import Note, Row, note
from core.evaluation.scoring import field_rules, score_answers
from core.jobs.events import Event, read_events
from core.language import _
from core.models.trained import FINAL, TrainedModel
from core.progress import Tell
from core.worker.evaluation.evaluator import ANSWERS_OF, LOSS_OF, MOST_SHOWN, Evaluator, sides_of
from core.worker.evaluation.measure import answer_losses, too_long, write_answers
from core.worker.evaluation.rows import EvalRow, HeldOut, load_eval_set, prompts_of
from core.worker.models.loading import open_trained

# Room for answers of new rows beyond the longest expected one, when no length was asked for.
_SPARE_TOKENS, _MOST_TOKENS = 16, 1024
# What TRL logs of held-out pairs while a run learns from preferences.
_ACCURACY, _MARGIN = "eval_rewards/accuracies", "eval_rewards/margins"


class Writer(Evaluator[Written]):
    """max_new_tokens: half as many again as the longest expected answer."""

    kind = "answers"
    found: HeldOut[EvalRow]

    def open(self) -> Any:
        model, self.tokenizer = open_trained(
            self.trained, self.base_path, device=self.device, dtype=self.dtype
        )
        return model

    def prepare(self, model: Any) -> HeldOut[EvalRow]:
        found = load_eval_set(self.workspace, self.config, self.tokenizer, self.max_rows)
        self.tokens = sum(row.tokens.loss_tokens for row in found.rows)
        if self.trained.new_tokens is not None:
            found.notes.append(note("new_tokens", tokens=len(self.trained.new_tokens.ids)))
        found.notes.extend(_order_in_training(self.trained))
        self.expected = [row.expected for row in found.rows if row.expected is not None]
        self.is_asked = len(self.expected) == len(found.rows)
        self.rules = field_rules(found.info.task, self.expected) if self.is_asked else []
        limit = self._longest_answer()
        if self.is_asked:
            self.max_new_tokens = limit
            self.prompts = prompts_of(found.rows, self.tokenizer)
            unread = too_long(model, self.prompts, limit)
            if unread:
                found.notes.append(note("too_long_wrong", rows=len(unread), limit=limit))
        return found

    def measure(self, model: Any, tell: Tell, which: str) -> Written:
        losses = answer_losses(
            model,
            [row.tokens for row in self.found.rows],
            lambda share: tell(0.25 * share, LOSS_OF[which]),
        )
        scored = None
        if self.is_asked:
            answers = write_answers(
                model,
                self.tokenizer,
                self.prompts,
                max_new_tokens=self.max_new_tokens,
                tell=lambda share: tell(0.25 + 0.75 * share, ANSWERS_OF[which]),
                lengths=list(map(len, self.expected)),
            )
            scored = score_answers(answers, self.expected, self.rules)
        return Written(losses.sums, losses.tokens, scored, self.rules)

    def differing(self, tuned: Written, base: Written | None) -> list[Row]:
        """The rows where the two answers differ or the tuned one is not right, worst of tuned
        first."""
        after, before = tuned.scored, base.scored if base else None
        if after is None:
            return []
        shown = [
            Row(
                index=row.index,
                prompt=row.prompt,
                expected=row.expected,
                base=before.answers[place] if before else None,
                tuned=after.answers[place],
                base_fields_right=before.right[place] if before and self.rules else None,
                tuned_fields_right=after.right[place] if self.rules else None,
                base_score=float(before.scores[place]) if before else None,
                tuned_score=float(after.scores[place]),
            )
            for place, row in enumerate(self.found.rows)
            if after.scores[place] != 1.0
            or (before is not None and before.answers[place] != after.answers[place])
        ]
        shown.sort(key=lambda row: (row.tuned_score or 0, -(row.base_score or 0), row.index))
        return shown[:MOST_SHOWN]

    def more(self, tuned: Written, base: Written | None) -> dict[str, Any]:
        return {"rules": self.rules}

    def answers(self, tuned: Written, base: Written | None) -> Iterator[dict[str, Any]]:
        for place, row in enumerate(self.found.rows):
            line: dict[str, Any] = {"index": row.index, "expected": row.expected}
            for name, side in sides_of(tuned, base).items():
                line[name] = side.scored.answers[place] if side.scored else None
                line[f"{name}_loss"] = float(side.sums[place] / side.tokens[place])
            yield line

    def _longest_answer(self) -> int:
        """How long an answer may become, in tokens."""
        asked = self.task.params.get("max_new_tokens")
        if asked is not None:
            if int(asked) < 1:
                raise TunesmithError(
                    _("max_new_tokens must be at least 1."), _("Leave it out, or raise it.")
                )
            return int(asked)
        expected = [text for text in self.expected if text]
        if not expected:
            return _SPARE_TOKENS
        longest = max(map(len, self.tokenizer(expected, add_special_tokens=False)["input_ids"]))
        return min(longest + longest // 2 + _SPARE_TOKENS, _MOST_TOKENS)


def _order_in_training(trained: TrainedModel) -> list[Note]:
    """How often the better answer of a held-out pair got the higher reward, by the run's own
    evaluation at this checkpoint (the last one for the final model), where it made one."""
    found: Event | None = None
    for event in read_events(trained.run.events):
        if event["kind"] != "metrics" or _ACCURACY not in event:
            continue
        if trained.checkpoint in (FINAL, f"checkpoint-{event.get('step')}"):
            found = event
    if found is None:
        return []
    values = {"step": found["step"], "accuracy": found[_ACCURACY]}
    if found.get(_MARGIN) is None:
        return [note("order_in_training", **values)]
    return [note("margin_in_training", **values, margin=found[_MARGIN])]
