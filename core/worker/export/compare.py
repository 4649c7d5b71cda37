"""What two models of a kind are asked, so that an export can be compared with what was trained."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core.data.record import DatasetInfo
from core.data.rowfile import read_slice
from core.models.labels import Labels, labels_of
from core.models.trained import TrainedModel
from core.tokens.learn import EVERYTHING
from core.tokens.sides import sides_of_rows
from core.tokens.tokenize import TokenizedRow, as_answered, tokenize_rows
from core.worker.export.check import (
    Check,
    check_exported,
    check_learned,
    check_names,
    check_one_score,
    check_same_scores,
    check_scores,
    check_trained,
    next_token_logits,
)
from core.worker.models.classifier import label_logits, open_with_head, pad_alike, text_ids
from core.worker.models.loading import open_model
from core.worker.models.masked import gap_rows, hidden_logits, open_masked

_ROWS, _TOKENS, _MOST_TEXTS = 4, 256, 32
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

    @abstractmethod
    def check(
        self, exported: Any, trained: Any, base: Any, dtype: Any, folder: Path, is_whole: bool
    ) -> list[Check]:
        """That the scores of an export are the trained model's. Raises ExportError."""

    def held_out(self, most: int, *forms: str) -> list[dict[str, Any]]:
        """Held-out rows, or training rows where there are none, if they are of these forms."""
        if self.info is None or (forms and self.info.form not in forms):
            return []
        part = "eval" if self.info.counts.eval else "train"
        return read_slice(self.info.rows_path(part), 0, most)

    def texts(self) -> list[str]:
        found = [row["text"] for row in self.held_out(_MOST_TEXTS, "text", "labelled-text")]
        return found or list(_TEXTS)


class Writers(Comparison):
    def open(self, path: str | Path, **options: Any) -> Any:
        return open_model(path, **options)

    def rows(self) -> list[list[int]]:
        raw = [row for one in self.held_out(_ROWS) if (row := as_answered(one)) is not None]
        found, _ = tokenize_rows(
            raw,
            self.tokenizer,
            max_length=_TOKENS,
            learn=EVERYTHING,
            system_prompt=self.config.data.system_prompt,
        )
        rows = [row.input_ids for row in found]
        return rows or [list(self.tokenizer(text)["input_ids"]) for text in _TEXTS]

    def scores(self, model: Any, rows: Sequence[list[int]]) -> Any:
        return next_token_logits(model, rows)

    def check_trained(self, base: Any, trained: Any) -> Check:
        return check_trained(base, trained)

    def check(
        self, exported: Any, trained: Any, base: Any, dtype: Any, folder: Path, is_whole: bool
    ) -> list[Check]:
        return check_exported(exported, trained, base, dtype)


class Fillers(Writers):
    def open(self, path: str | Path, **options: Any) -> Any:
        return open_masked(path, seed=self.seed, **options)

    def rows(self) -> list[Any]:
        return gap_rows(self.tokenizer, self.config, self.texts(), _TOKENS)

    def scores(self, model: Any, rows: Sequence[Any]) -> Any:
        return hidden_logits(model, self.tokenizer, rows)


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

    def check(
        self, exported: Any, trained: Any, base: Any, dtype: Any, folder: Path, is_whole: bool
    ) -> list[Check]:
        return [
            *check_scores(exported, trained, self.labels, dtype),
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
        self, exported: Any, trained: Any, base: Any, dtype: Any, folder: Path, is_whole: bool
    ) -> list[Check]:
        return [
            *check_same_scores(exported, trained, dtype),
            check_one_score(folder, merged=is_whole),
        ]


COMPARISONS: dict[str, type[Comparison]] = {
    "writer": Writers,
    "filler": Fillers,
    "classifier": Classifiers,
    "scorer": Scorers,
}
"""By what the method makes."""
