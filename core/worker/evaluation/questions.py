"""A model that writes, asked the questions of a file: of several choices the one that it finds most
probable counts, else what it answers.

A choice's log-likelihood is divided by its length in characters, as in lm-eval's acc_norm: the sum
alone prefers the short ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.data.record import DatasetInfo
from core.errors import ModelError
from core.evaluation.benchmark import Question, read_benchmark
from core.evaluation.metrics import Chosen
from core.evaluation.paired import compared
from core.evaluation.report import Note, Row, note
from core.evaluation.targets import Target
from core.language import _
from core.progress import Tell
from core.tokens.prompts import prompt_ids
from core.tokens.tokenize import NO_LOSS, TokenizedRow
from core.worker.evaluation.evaluator import ANSWERS_OF, MOST_SHOWN, Evaluator, sides_of
from core.worker.evaluation.measure import (
    Share,
    answer_losses,
    choice_losses,
    longest_answer,
    most_positions,
    write_answers,
)
from core.worker.evaluation.rows import OTHER_ROWS, HeldOut, spread
from core.worker.evaluation.targets import ASKED, Loaded
from core.worker.models.loading import open_trained, virtual_tokens


@dataclass(frozen=True)
class _Side:
    """A model that is asked: `rows` are the tokens of the questions, `who` what its answers depend
    on, `said` what is told while it is asked."""

    model: Any
    tokenizer: Any
    rows: list[list[TokenizedRow]]
    who: list[object]
    said: str


def _tokens(one: Question, tokenizer: Any) -> list[TokenizedRow]:
    """The tokens of a question with each choice behind them; without choices its own alone. Raises
    ModelError where the chat template refuses it."""
    before = prompt_ids([{"role": "user", "content": one.text}], tokenizer)
    if not one.choices:
        return [TokenizedRow(before, [NO_LOSS] * len(before), len(before))]
    rows = []
    for choice in one.choices:
        ids = list(tokenizer(choice, add_special_tokens=False)["input_ids"])
        labels = [NO_LOSS] * len(before) + ids
        rows.append(TokenizedRow(before + ids, labels, len(labels)))
    return rows


class Questions(Evaluator[Chosen]):
    """benchmark: a file in the evaluation's folder; benchmark_name: what it was called."""

    kind = "questions"
    found: HeldOut[Question]
    others: dict[str, Chosen]

    def open(self) -> Any:
        model, self.tokenizer = open_trained(
            self.trained, self.base_path, device=self.device, dtype=self.dtype
        )
        return model

    def prepare(self, model: Any) -> HeldOut[Question]:
        file = self.task.folder / str(self.task.params["benchmark"])
        questions, problems = read_benchmark(file)
        self.others = {}
        places = spread(len(questions), self.max_rows)
        name = str(self.task.params.get("benchmark_name") or file.name)
        fingerprint = hashlib.sha256(file.read_bytes()).hexdigest()
        info = DatasetInfo(id="", name=name, form="prompt-completion", fingerprint=fingerprint)
        rows = [questions[place] for place in places]
        notes = self._notes(rows, len(questions))
        self.max_new_tokens = longest_answer(
            self.task.params.get("max_new_tokens"),
            [answer for one in rows for answer in one.answers],
            self.tokenizer,
        )
        raw = HeldOut(info, OTHER_ROWS, [one.index for one in rows], rows, notes)
        most = most_positions(model)
        self.asked: list[list[TokenizedRow]] = []
        kept, reasons = [], list(problems)
        for place, one in enumerate(rows):
            try:
                choices = _tokens(one, self.tokenizer)
            except ModelError as error:
                reasons.append(str(error))
                continue
            length = max(row.length for row in choices)
            if most is not None and length + (0 if one.choices else self.max_new_tokens) > most:
                reasons.append(_("it has more tokens than the model reads ({limit})", limit=most))
                continue
            self.asked.append(choices)
            kept.append((place, one))
        self.tokens = sum(row.length for choices in self.asked for row in choices)
        return raw.measurable(kept, reasons)

    def _notes(self, rows: Sequence[Question], total: int) -> list[Note]:
        chances = [1 / len(one.choices) for one in rows if one.choices]
        notes = [note("chance", share=100 * float(np.mean(chances)))] if chances else []
        if len(rows) < total:
            notes.append(note("spread", measured=len(rows), total=total))
        return notes

    def _rendered(self, place: int) -> str:
        """A question as the model reads it."""
        row = self.asked[place][0]
        return str(self.tokenizer.decode(row.input_ids[: row.labels.count(NO_LOSS)]))

    def measure(self, model: Any, tell: Tell, which: str) -> Chosen:
        side = _Side(model, self.tokenizer, self.asked, self.who(which), ANSWERS_OF[which])
        return self._measured(side, tell)

    def measure_other(self, target: Target, tell: Tell) -> tuple[str, Chosen]:
        """(what another run or model is called, what it did), by its own tokenizer and template.
        Raises ModelError where it cannot read one of the questions."""
        other = ASKED[target.kind](target, self, self.max_new_tokens)
        assert isinstance(other, Loaded), "it was checked"
        tokenizer, said = other.tokenizer(), _("Answers of {model}", model=other.title)
        rows = [_tokens(one, tokenizer) for one in self.found.rows]
        longest = max(row.length for choices in rows for row in choices)
        most = most_positions(other.model)
        if most is not None and longest > most:
            raise ModelError(
                _(
                    "{model} reads {limit} tokens; a question has {tokens}.",
                    model=other.title,
                    limit=most,
                    tokens=longest,
                ),
                _("Leave it out."),
            )
        return other.title, self._measured(
            _Side(other.model, tokenizer, rows, other.who, said), tell
        )

    def _measured(self, side: _Side, tell: Tell) -> Chosen:
        questions, said = self.found.rows, side.said
        choosing = [place for place, one in enumerate(questions) if one.choices]
        writing = [place for place, one in enumerate(questions) if not one.choices]
        prompts = [side.rows[place][0].input_ids for place in writing]
        share = len(choosing) / len(questions)
        likely = [*self._losses(side, choosing, lambda done: tell(share * done, said))]
        answers = write_answers(
            side.model,
            side.tokenizer,
            prompts,
            max_new_tokens=self.max_new_tokens,
            tell=lambda done: tell(share + (1 - share) * done, said),
            kept=self.kept.answers(side.who, prompts, self.max_new_tokens),
        )
        written, chosen = iter(answers), iter(likely)
        given: list[str] = []
        right, unscaled = np.zeros(len(questions)), np.full(len(questions), np.nan)
        for place, one in enumerate(questions):
            if not one.choices:
                given.append(next(written))
                right[place] = one.is_answered(given[-1])
                continue
            sums = -np.array(next(chosen))
            best = int(np.argmax(sums / [len(choice) for choice in one.choices]))
            given.append(one.choices[best])
            right[place] = best == one.right
            unscaled[place] = int(np.argmax(sums)) == one.right
        return Chosen(given, right, unscaled)

    def _losses(self, side: _Side, places: Sequence[int], tell: Share) -> Iterator[list[float]]:
        """Of each choice of each of these questions, but for those that are kept."""
        asked = [[(row.input_ids, row.loss_tokens) for row in side.rows[at]] for at in places]
        kept = self.kept.answers([*side.who, "choices"], asked, 0)
        for number, place in enumerate(places):
            if number in kept.known:
                yield json.loads(kept.known[number])
                continue
            rows = side.rows[place]
            if virtual_tokens(side.model):
                losses = answer_losses(side.model, rows, lambda done: None).sums.tolist()
            else:
                losses = choice_losses(side.model, rows)
            kept.wrote(number, json.dumps(losses))
            yield losses
            tell((number + 1) / len(places))

    def more(self, tuned: Chosen, base: Chosen | None) -> dict[str, Any]:
        return {} if base is None else {"compared": compared(tuned.right, base.right)}

    def differing(self, tuned: Chosen, base: Chosen | None) -> list[Row]:
        """The rows that the tuned model has wrong, those first that the base has right."""
        rows = [
            Row(
                index=one.index,
                prompt=[{"role": "user", "content": one.text}],
                expected=one.expected,
                base=base.given[place] if base else None,
                tuned=tuned.given[place],
                base_score=float(base.right[place]) if base else None,
                tuned_score=0.0,
            )
            for place, one in enumerate(self.found.rows)
            if not tuned.right[place]
        ]
        return sorted(rows, key=lambda row: (-(row.base_score or 0), row.index))[:MOST_SHOWN]

    def answers(self, tuned: Chosen, base: Chosen | None) -> Iterator[dict[str, Any]]:
        for place, one in enumerate(self.found.rows):
            line: dict[str, Any] = {
                "index": one.index,
                "prompt": [{"role": "user", "content": one.text}],
                "rendered": self._rendered(place),
                "expected": one.expected,
                "choices": one.choices,
                "meta": one.meta,
            }
            for name, side in {**sides_of(tuned, base), **self.others}.items():
                line[name] = side.given[place]
                line[f"{name}_score"] = float(side.right[place])
            yield line
