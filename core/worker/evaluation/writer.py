"""A model that writes: its loss on the expected answers, and its own answers compared with them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from core.errors import ModelError
from core.evaluation.general import MOST_TOKENS, general_prompts, skills
from core.evaluation.metrics import Written
from core.evaluation.paired import compared
from core.evaluation.report import Note, Row, note
from core.evaluation.scoring import field_rules, score_answers
from core.evaluation.targets import Target
from core.jobs.events import Event, read_events
from core.language import _
from core.models.trained import FINAL, TrainedModel
from core.progress import Tell
from core.tokens.prompts import prompt_ids
from core.worker.chat.llama import LlamaVoice, Wanted, folder_of
from core.worker.evaluation.evaluator import ANSWERS_OF, LOSS_OF, MOST_SHOWN, Evaluator, sides_of
from core.worker.evaluation.kept import Answers
from core.worker.evaluation.llama import close_llama, llama_answers, open_llama
from core.worker.evaluation.measure import (
    Losses,
    answer_losses,
    longest_answer,
    too_long,
    write_answers,
)
from core.worker.evaluation.rows import EvalRow, HeldOut, load_eval_set, prompts_of
from core.worker.evaluation.targets import ASKED
from core.worker.models.loading import open_trained

TUNED, BASE = 0, 1
# What TRL logs of held-out pairs while a run learns from preferences.
_ACCURACY, _MARGIN = "eval_rewards/accuracies", "eval_rewards/margins"


class Writer(Evaluator[Written]):
    """max_new_tokens: half as many again as the longest expected answer."""

    kind = "answers"
    found: HeldOut[EvalRow]
    others: dict[str, Written]
    """What other models did, by the name of their part in answers.jsonl."""
    voices: Mapping[int, LlamaVoice] = MappingProxyType({})
    """By which llama.cpp answers as the tuned model and as its base; none of it where it cannot."""

    def open(self) -> Any:
        model, self.tokenizer = open_trained(
            self.trained, self.base_path, device=self.device, dtype=self.dtype
        )
        return model

    def prepare(self, model: Any) -> HeldOut[EvalRow]:
        found = load_eval_set(
            self.workspace, self.config, self.tokenizer, self.max_rows, self.learned
        )
        self.tokens = sum(row.tokens.loss_tokens for row in found.rows)
        if self.trained.new_tokens is not None:
            found.notes.append(note("new_tokens", tokens=len(self.trained.new_tokens.ids)))
        found.notes.extend(_order_in_training(self.trained))
        self.expected = [row.expected for row in found.rows if row.expected is not None]
        self.is_asked = len(self.expected) == len(found.rows)
        self.rules = field_rules(found.info.task, self.expected) if self.is_asked else []
        self.pattern = str(self.task.params.get("pattern") or "")
        self.general: dict[str, list[str]] = {}
        self.others = {}
        self.asks_general = bool(
            self.task.params.get("general", True) and self.is_asked and self.tokenizer.chat_template
        )
        asked = self.task.params.get("max_new_tokens")
        limit = longest_answer(asked, self.expected, self.tokenizer)
        if self.is_asked:
            self.max_new_tokens = limit
            self.prompts = prompts_of(found.rows, self.tokenizer)
            unread = too_long(model, self.prompts, limit)
            if unread:
                found.notes.append(note("too_long_wrong", rows=len(unread), limit=limit))
            longest = max(map(len, self.prompts)) + limit
            if self.asks_general:
                self.general_prompts = [
                    prompt_ids([{"role": "user", "content": one.prompt}], self.tokenizer)
                    for one in general_prompts()
                ]
                longest = max(longest, max(map(len, self.general_prompts)) + MOST_TOKENS)
            self._open_llama(found, longest)
        return found

    def _open_llama(self, found: HeldOut[EvalRow], longest: int) -> None:
        """Where llama.cpp can answer, it does."""
        trained, wanted = self.trained, dict[int, Wanted | None]()
        folder = folder_of(str(self.base_path))
        if folder is not None:
            wanted[TUNED] = Wanted(trained, folder, self.tokenizer, False)
            if self.task.params.get("compare_base", True):
                is_base = not trained.begun and trained.new_tokens is None
                wanted[BASE] = Wanted(None, folder, self.tokenizer, False) if is_base else None
        self.voices = open_llama(self, wanted, longest) if wanted else {}
        if self.voices:
            found.notes.append(note("by_llama", at_once=self.voices[TUNED].server.at_once))

    def close(self) -> None:
        close_llama(self.voices)
        self.voices = {}

    def measure(self, model: Any, tell: Tell, which: str) -> Written:
        losses = answer_losses(
            model,
            [row.tokens for row in self.found.rows],
            lambda share: tell(0.25 * share, LOSS_OF[which]),
        )
        if not self.is_asked:
            return Written(losses.sums, losses.tokens)
        share = 0.8 if self.asks_general else 1.0
        kept = self.kept.answers(self.who(which), self.prompts, self.max_new_tokens)
        begun = time.monotonic()
        answers = self._answers(
            model,
            which,
            self.prompts,
            max_new_tokens=self.max_new_tokens,
            tell=lambda done: tell(0.25 + (share - 0.25) * done, ANSWERS_OF[which]),
            lengths=list(map(len, self.expected)),
            kept=kept,
        )
        seconds = time.monotonic() - begun
        if self.asks_general:
            self.general[which] = self._general(
                model, which, lambda done: tell(share + (1 - share) * done, _("General prompts"))
            )
        return self._written(answers, losses, seconds, kept)

    def _answers(
        self, model: Any, which: str, prompts: Sequence[list[int]], **how: Any
    ) -> list[str]:
        voice = self.voices.get(TUNED if which == "tuned" else BASE)
        if voice is not None:
            del how["lengths"]  # of no use where each answer has its own place
            return llama_answers(voice, prompts, **how)
        found: list[str] = write_answers(model, self.tokenizer, prompts, **how)
        return found

    def who(self, which: str) -> list[object]:
        return [*super().who(which), *(["llama.cpp"] if self.voices else [])]

    def measure_other(self, target: Target, tell: Tell) -> tuple[str, Written]:
        """(what another model is called, what it did with the rows)."""
        asked = ASKED[target.kind](target, self, self.max_new_tokens)
        said = _("Answers of {model}", model=asked.title)
        rows = [row.prompt for row in self.found.rows]
        losses = asked.losses(self.found.rows, lambda done: tell(0.25 * done, said))
        kept = self.kept.answers(asked.who, rows, self.max_new_tokens)
        begun = time.monotonic()
        answers = asked.answers(self.found.rows, kept, lambda done: tell(0.25 + 0.75 * done, said))
        if len(asked.why_not) == len(rows):
            reason = asked.why_not[0]
            raise ModelError(
                _("{model} answered no row: {reason}", model=asked.title, reason=reason),
                _("Check the model's name, and how much it can read."),
            )
        if asked.at_once:
            told = note("other_by_llama", model=asked.title, at_once=asked.at_once)
            self.found.notes.append(told)
        return asked.title, self._written(answers, losses, time.monotonic() - begun, kept)

    def _written(
        self, answers: list[str], losses: Losses | None, seconds: float, kept: Answers
    ) -> Written:
        """`answers` as they are scored; those that were not `kept` took so many seconds."""
        new = [text for place, text in enumerate(answers) if place not in kept.known]
        tokens = (
            sum(map(len, self.tokenizer(new, add_special_tokens=False)["input_ids"])) if new else 0
        )
        return Written(
            losses.sums if losses else None,
            losses.tokens if losses else None,
            score_answers(answers, self.expected, self.rules),
            self.rules,
            self.expected,
            self.pattern,
            round(tokens / seconds, 1) if tokens and seconds > 0 else None,
        )

    def _general(self, model: Any, which: str, tell: Callable[[float], None]) -> list[str]:
        asked = self.general_prompts
        return self._answers(
            model,
            which,
            asked,
            max_new_tokens=MOST_TOKENS,
            tell=tell,
            lengths=None,
            kept=self.kept.answers(self.who(which), asked, MOST_TOKENS),
        )

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
        more: dict[str, Any] = {"rules": self.rules}
        if self.general:
            more["general"] = skills(self.general["tuned"], self.general.get("base"))
        if base is not None and tuned.scored and base.scored:
            more["compared"] = compared(tuned.scored.scores, base.scored.scores)
        return more

    def answers(self, tuned: Written, base: Written | None) -> Iterator[dict[str, Any]]:
        sides = {**sides_of(tuned, base), **self.others}
        for place, row in enumerate(self.found.rows):
            line: dict[str, Any] = {"index": row.index, "expected": row.expected}
            if self.is_asked:
                line |= {
                    "prompt": row.prompt,
                    "rendered": self.tokenizer.decode(self.prompts[place]),
                    "meta": row.meta,
                }
            for name, side in sides.items():
                if side.scored is not None:
                    line[name] = side.scored.answers[place]
                    line[f"{name}_score"] = float(side.scored.scores[place])
                    if self.rules:
                        line[f"{name}_fields_right"] = side.scored.right[place]
                if side.sums is not None:
                    line[f"{name}_loss"] = float(side.sums[place] / side.tokens[place])
            yield line

    def general_answers(self) -> Iterator[dict[str, Any]]:
        """What each general prompt was answered."""
        for place, one in enumerate(general_prompts()):
            line: dict[str, Any] = {"id": one.id, "area": one.area, "prompt": one.prompt}
            for name, answers in self.general.items():
                line[name] = answers[place]
                line[f"{name}_kept"] = one.is_kept(answers[place])
            yield line


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
