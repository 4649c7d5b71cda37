"""What two models of a kind are asked, so that an export can be compared with what was trained."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from core.data.record import DatasetInfo, Part
from core.data.rowfile import rows_at
from core.evaluation.scoring import field_rules, score_answers
from core.models.labels import Labels, labels_of
from core.models.trained import TrainedModel
from core.tokens.learn import Learn
from core.tokens.prompts import prompt_ids
from core.tokens.sides import sides_of_rows
from core.tokens.tokenize import TokenizedRow, as_answered, tokenize_rows, with_system_prompt
from core.worker.evaluation.rows import question_and_answer, spread
from core.worker.export.check import (
    Check,
    check_ends,
    check_exported,
    check_learned,
    check_names,
    check_one_score,
    check_padding,
    check_prompts,
    check_same_scores,
    check_scores,
    check_tokens,
    check_trained,
    in_pieces,
    most_places,
    next_token_logits,
)
from core.worker.export.onnx_runtime import OnnxClassifier
from core.worker.llama_cpp.client import LlamaCpp, TopLogits
from core.worker.models.classifier import label_logits, open_with_head, pad_alike, text_ids
from core.worker.models.loading import open_model
from core.worker.models.masked import gap_rows, hidden_logits, open_masked

_ROWS, _TOKENS, _MOST_TEXTS = 8, 192, 32
# So many rows are answered to count the fields that are right, in so many tokens at most each.
_ANSWERED, _MOST_WRITTEN = 50, 512
# For the speed: so many tokens are read, and so many written.
_PROMPT_TOKENS, _WRITTEN_TOKENS = 32, 32
# Of a classifier: so many tokens a text, and so many texts.
_READ_TOKENS, _READ_TEXTS = 128, 10
# An end that the trained model gives at least this probability is one of its own.
_SURE = 0.8
_CONVERSATIONS: list[list[dict[str, str]]] = [
    [{"role": "user", "content": "What is 12 times 7?"}],
    [
        {"role": "user", "content": "Grüße, 你好!\n\n  def f(x): return x"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "Again, please: it's 3.14?"},
    ],
]
# Asked where the data set is no longer there.
_TEXTS = (
    "The quick brown fox jumps over the lazy dog, and then it asks the dog what it thinks of that.",
    "def area(width, height):\n    return width * height\n\nprint(area(3, 4))",
    "Dear customer, thank you for your message. We are sorry that the delivery came late.",
)


class Comparison(ABC):
    """How models of one kind are opened, asked and compared, on held-out rows of the run."""

    def __init__(self, trained: TrainedModel, tokenizer: Any, info: DatasetInfo | None) -> None:
        self.config, self.tokenizer, self.info = trained.config, tokenizer, info
        self.seed = trained.config.training.seed
        self.longest = min(trained.config.training.max_length, _TOKENS)
        self.labels = labels_of(trained.config.method, trained.folder)

    @abstractmethod
    def open(self, path: str | Path, **options: Any) -> Any:
        """The model in a folder; options are device, dtype and revision."""

    @abstractmethod
    def rows(self) -> Sequence[Any]:
        """What the models are asked."""

    @abstractmethod
    def scores(self, model: Any, rows: Sequence[Any]) -> Any:
        """What a model says to the rows, float32 on the CPU: (places, what there is to choose)."""

    def check_trained(self, base: Any, trained: Any) -> Check:
        """That training changed the scores. Raises ExportError."""
        return check_learned(base, trained)

    def perplexity(self, scores: Any, rows: Sequence[Any]) -> float | None:
        """Of what a model is to write, at the places of its `scores`; None where it writes none."""
        return None

    def speed(self, model: Any, rows: Sequence[Any]) -> float | None:
        """Tokens a second while it writes; of what gives labels or scores, while it reads one
        text after the other. None where neither can be told."""
        return None

    def fields_right(self, model: Any) -> float | None:
        """The share of the fields of JSON answers to held-out rows that it has right, where the
        rows have such answers and llama.cpp opened it; it can write so many."""
        return None

    def check_use(
        self, exported: Any, trained: Any, rows: Sequence[Any], precision: str
    ) -> list[Check]:
        """That what opened the export reads and ends texts as training did; `trained` are the
        trained model's scores, `precision` is that of `check`. Raises ExportError."""
        return []

    @abstractmethod
    def check(
        self, exported: Any, trained: Any, base: Any, precision: str, folder: Path, is_whole: bool
    ) -> list[Check]:
        """That the scores of an export are the trained model's. Raises ExportError."""

    def held_out(self, most: int, *forms: str, spread_evenly: bool = False) -> list[dict[str, Any]]:
        """Held-out rows, or training rows where there are none, if they are of these forms: the
        first ones or some of all."""
        if self.info is None or (forms and self.info.form not in forms):
            return []
        part: Part = "eval" if self.info.counts.eval else "train"
        path = self.info.rows_path(part)
        places = spread(getattr(self.info.counts, part), most) if spread_evenly else range(most)
        return list(rows_at(path, places).values())

    def texts(self) -> list[str]:
        found = [row["text"] for row in self.held_out(_MOST_TEXTS, "text", "labelled-text")]
        return found or list(_TEXTS)


class Writers(Comparison):
    vocabulary = 0  # of the model whose scores were last asked for

    def open(self, path: str | Path, **options: Any) -> Any:
        return open_model(path, **options)

    def rows(self) -> list[TokenizedRow]:
        raw = [row for one in self.held_out(_ROWS) if (row := as_answered(one)) is not None]
        found, _unusable = tokenize_rows(
            raw,
            self.tokenizer,
            max_length=_TOKENS,
            learn=Learn.of(self.config),
            system_prompt=self.config.data.system_prompt,
        )
        if found:
            return found
        texts = [list(self.tokenizer(text)["input_ids"]) for text in _TEXTS]
        return [TokenizedRow(ids, [-100, *ids[1:]], len(ids)) for ids in texts]

    def scores(self, model: Any, rows: Sequence[TokenizedRow]) -> Any:
        ids = [row.input_ids for row in rows]
        if isinstance(model, LlamaCpp):
            return model.top(ids, most_places(self.vocabulary, len(rows)))
        self.vocabulary = int(model.get_input_embeddings().weight.shape[0])
        return next_token_logits(model, ids)

    def perplexity(self, scores: Any, rows: Sequence[TokenizedRow]) -> float | None:
        most = most_places(self.vocabulary, len(rows))
        # What comes after a place; after the last of a row there is nothing.
        targets = torch.tensor([label for row in rows for label in [*row.labels[1:], -100][-most:]])
        learned = targets != -100
        if not learned.any():
            return None
        wanted = targets.clamp(min=0)
        if isinstance(scores, TopLogits):
            found = scores.log_probabilities(wanted, self.vocabulary)
        else:
            pieces = in_pieces(scores, wanted)
            found = torch.cat([-cross_entropy(one, to, reduction="none") for one, to in pieces])
        return float((-found[learned].mean()).exp())

    def speed(self, model: Any, rows: Sequence[TokenizedRow]) -> float | None:
        prompt = rows[0].input_ids[:_PROMPT_TOKENS]
        if isinstance(model, LlamaCpp):
            return model.tokens_per_second(prompt, _WRITTEN_TOKENS)
        ids = torch.tensor([prompt], device=model.device)
        begun = time.perf_counter()
        with torch.inference_mode():
            model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                min_new_tokens=_WRITTEN_TOKENS,
                max_new_tokens=_WRITTEN_TOKENS,
                pad_token_id=self.tokenizer.pad_token_id,
            )
        return _WRITTEN_TOKENS / (time.perf_counter() - begun)

    def fields_right(self, model: Any) -> float | None:
        if not isinstance(model, LlamaCpp) or self.info is None:
            return None
        prompts, expected = self._questions()
        rules = field_rules(self.info.task, expected)
        if not rules:
            return None
        longest = max(map(len, self.tokenizer(expected, add_special_tokens=False)["input_ids"]))
        most = min(2 * longest, _MOST_WRITTEN)
        with ThreadPoolExecutor(model.at_once) as pool:
            answers = list(pool.map(lambda prompt: model.answer(prompt, most), prompts))
        return float(score_answers(answers, expected, rules).scores.mean())

    def _questions(self) -> tuple[list[list[int]], list[str]]:
        """(prompts, expected answers) of held-out rows, spread evenly over them."""
        prompts, expected = [], []
        for row in self.held_out(_ANSWERED, spread_evenly=True):
            answered = as_answered(row)
            pair = question_and_answer(answered) if answered else None
            if pair:
                asked = with_system_prompt(pair[0], self.config.data.system_prompt)
                prompts.append(prompt_ids(asked, self.tokenizer, tools=row.get("tools")))
                expected.append(pair[1])
        return prompts, expected

    def check_trained(self, base: Any, trained: Any) -> Check:
        return check_trained(base, trained)

    def check_use(
        self, exported: Any, trained: Any, rows: Sequence[TokenizedRow], precision: str
    ) -> list[Check]:
        if not isinstance(exported, LlamaCpp):
            return []
        found = []
        if self.tokenizer.chat_template:
            mine = [self._prompt_ids(messages) for messages in _CONVERSATIONS]
            found.append(check_prompts(mine, [exported.prompt_ids(m) for m in _CONVERSATIONS]))
        ends = self._ends(trained, rows)
        if ends:
            found.append(check_ends([exported.stops_after(tokens) for tokens in ends]))
        return found

    def _prompt_ids(self, messages: list[dict[str, str]]) -> list[int]:
        text = self.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _ends(self, trained: Any, rows: Sequence[TokenizedRow]) -> list[list[int]]:
        """Answers without their end, of those that the trained model would end there."""
        most, found, place = most_places(self.vocabulary, len(rows)), [], 0
        for row in rows:
            first = max(0, row.length - most)
            for at in range(first, row.length - 1):
                is_end = row.input_ids[at + 1] == self.tokenizer.eos_token_id
                scores = trained[place + at - first].log_softmax(dim=-1)
                sure = float(scores[row.input_ids[at + 1]].exp()) > _SURE
                if is_end and sure and row.labels[at + 1] != -100:
                    found.append(row.input_ids[: at + 1])
            place += row.length - first
        return found[:_ROWS]

    def check(
        self, exported: Any, trained: Any, base: Any, precision: str, folder: Path, is_whole: bool
    ) -> list[Check]:
        if isinstance(exported, TopLogits):
            trained, base = exported.same_of(trained), exported.same_of(base)
            exported = exported.logits
        return check_exported(exported, trained, base, precision)


class Fillers(Comparison):
    def open(self, path: str | Path, **options: Any) -> Any:
        return open_masked(path, seed=self.seed, **options)

    def rows(self) -> list[Any]:
        return gap_rows(self.tokenizer, self.config, self.texts(), _TOKENS)

    def scores(self, model: Any, rows: Sequence[Any]) -> Any:
        return hidden_logits(model, self.tokenizer, rows)

    def check_trained(self, base: Any, trained: Any) -> Check:
        return check_trained(base, trained)

    def check(
        self, exported: Any, trained: Any, base: Any, precision: str, folder: Path, is_whole: bool
    ) -> list[Check]:
        return check_exported(exported, trained, base, precision)


class Classifiers(Comparison):
    labels: Labels

    def open(self, path: str | Path, **options: Any) -> Any:
        model = open_with_head(path, self.labels, seed=self.seed, **options)
        pad_alike(model, self.tokenizer)
        return model

    def rows(self) -> list[list[int]]:
        return [ids for ids in text_ids(self.tokenizer, self.texts(), self.longest) if ids]

    def scores(self, model: Any, rows: Sequence[list[int]]) -> Any:
        return label_logits(model, self.tokenizer, rows)

    def speed(self, model: Any, rows: Sequence[list[int]]) -> float | None:
        """Tokens a second of texts of 128 tokens, one at a time: 128 times the texts a second."""
        length = min(_READ_TOKENS, self.longest)
        text = (rows[0] * length)[:length]
        self.scores(model, [text])  # the first one takes longer
        begun = time.perf_counter()
        for _text in range(_READ_TEXTS):
            self.scores(model, [text])
        return _READ_TEXTS * length / (time.perf_counter() - begun)

    def check_use(
        self, exported: Any, trained: Any, rows: Sequence[list[int]], precision: str
    ) -> list[Check]:
        if not isinstance(exported, OnnxClassifier):
            return []
        texts = self.texts()
        mine = exported.ids_of(texts, self.longest)
        some = [*rows[:_ROWS], (rows[0] * self.longest)[: self.longest]]
        alone = torch.cat([self.scores(exported, [row]) for row in some])
        return [
            check_tokens(mine, text_ids(self.tokenizer, texts, self.longest)),
            check_padding(alone, self.scores(exported, some), precision),
        ]

    def check(
        self, exported: Any, trained: Any, base: Any, precision: str, folder: Path, is_whole: bool
    ) -> list[Check]:
        return [
            *check_scores(exported, trained, self.labels, precision),
            check_names(folder, self.labels, merged=is_whole),
        ]


class Scorers(Classifiers):
    def rows(self) -> list[list[int]]:
        """Both answers of pairs, by turns."""
        both = sides_of_rows(
            self.held_out(_MOST_TEXTS // 2, "preference"),
            self.tokenizer,
            max_length=self.longest,
            system_prompt=self.config.data.system_prompt,
        )
        texts = [[s.tokens for s in sides if isinstance(s.tokens, TokenizedRow)] for sides in both]
        pairs = [one.input_ids for pair in texts if len(pair) == 2 for one in pair]
        return pairs or text_ids(self.tokenizer, [*_TEXTS, _TEXTS[0]], _TOKENS)

    def check(
        self, exported: Any, trained: Any, base: Any, precision: str, folder: Path, is_whole: bool
    ) -> list[Check]:
        return [
            *check_same_scores(exported, trained, precision),
            check_one_score(folder, merged=is_whole),
        ]


COMPARISONS: dict[str, type[Comparison]] = {
    "writer": Writers,
    "filler": Fillers,
    "classifier": Classifiers,
    "scorer": Scorers,
}
"""By what the method makes."""
