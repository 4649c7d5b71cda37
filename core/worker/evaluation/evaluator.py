"""What all evaluations share, and what each says for itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Generic, TypeVar

from core.evaluation.metrics import Measured
from core.evaluation.report import Kind, Note, Row, Settings
from core.jobs.task import Task
from core.language import N_
from core.models.trained import TrainedModel
from core.progress import Tell
from core.worker.evaluation.kept import Kept, stamp
from core.worker.evaluation.rows import HeldOut, held_out
from core.worker.models.loading import open_before, pick_device, pick_dtype, resolve_base
from core.workspace import Workspace

MOST_SHOWN = 200
"""So many rows a report shows; answers.jsonl has every one."""

LOSS_OF = {"tuned": N_("Loss of the tuned model"), "base": N_("Loss of the base model")}
ANSWERS_OF = {"tuned": N_("Answers of the tuned model"), "base": N_("Answers of the base model")}

M = TypeVar("M", bound=Measured)


class Evaluator(ABC, Generic[M]):
    """How one kind of model is measured; `core.worker.evaluation.run` goes through these in order.

    It keeps no model, so that the tuned one can make room for its base. Parameters (job.json):
    checkpoint ("final"), dataset (the run's own), max_rows (all), max_new_tokens, compare_base
    (true), benchmark (a file of questions in place of the data set, see
    `core.worker.evaluation.questions`), tasks (names of lm-eval's, in place of it too, see
    `core.worker.evaluation.harness`); of a writer also against (other models, see
    `core.evaluation.targets`), general (true: the general prompts too), pattern (a regular
    expression of right answers),
    judge (another model; without its kind, one of the endpoint) and rubric.
    """

    kind: ClassVar[Kind]
    forms: ClassVar[Sequence[str]] = ()  # of rows; empty for those that the method learns from
    found: HeldOut[Any]
    tokenizer: Any
    tokens = 0  # that were read
    max_new_tokens = 0

    def __init__(self, task: Task, workspace: Workspace, trained: TrainedModel) -> None:
        self.task, self.workspace, self.trained = task, workspace, trained
        self.kept = Kept(task.folder)
        self.config, self.learned = trained.config, True
        asked = str(task.params.get("dataset") or "")
        if asked and asked != self.config.data.dataset:
            self.learned = False
            other = {"dataset": asked, "dataset_fingerprint": ""}
            data = self.config.data.model_copy(update=other)
            self.config = self.config.model_copy(update={"data": data})
        self.device = pick_device()
        self.dtype = pick_dtype(self.config.training.precision, self.device)
        self.base_path = resolve_base(trained.base, workspace)
        self.max_length = self.config.training.max_length

    @abstractmethod
    def open(self) -> Any:
        """The tuned model."""

    def open_before(self) -> Any:
        """The model as it was when the run began."""
        return open_before(self.trained, self.base_path, device=self.device, dtype=self.dtype)

    @abstractmethod
    def prepare(self, model: Any) -> HeldOut[Any]:
        """The rows to measure, which are `found` from then on. Raises DataError."""

    @abstractmethod
    def measure(self, model: Any, tell: Tell, which: str) -> M:
        """What one model does with the rows; `which` is tuned or base."""

    def close(self) -> None:
        """Lets go of what has answered."""

    def notes(self, tuned: M) -> list[Note]:
        """What a reader must know beside the notes on the rows."""
        return []

    def rows_measured(self, tuned: M) -> int:
        return len(self.found.rows)

    @abstractmethod
    def differing(self, tuned: M, base: M | None) -> list[Row]:
        """The rows that tell most."""

    def more(self, tuned: M, base: M | None) -> dict[str, Any]:
        """Fields of the report that only this kind has."""
        return {}

    @abstractmethod
    def answers(self, tuned: M, base: M | None) -> Iterable[dict[str, Any]]:
        """What answers.jsonl says of each row."""

    def who(self, which: str) -> list[object]:
        """What the answers of a model depend on beside the prompts."""
        folders = [stamp(self.base_path)]
        if which == "tuned":
            folders.append(stamp(self.trained.folder))
        return [which, self.device, self.dtype, *folders]

    @property
    def max_rows(self) -> int | None:
        return self.task.params.get("max_rows")

    def held_out(self) -> HeldOut[dict[str, Any]]:
        """The rows as they stand in the data set."""
        return held_out(
            self.workspace, self.config, self.max_rows, forms=self.forms, learned=self.learned
        )

    def settings(self) -> Settings:
        return Settings(
            device=self.device,
            dtype=str(self.dtype).removeprefix("torch."),
            quantization=self.config.adapter.quantization,
            max_new_tokens=self.max_new_tokens,
            max_length=self.max_length,
        )


def sides_of(tuned: Any, base: Any) -> dict[str, Any]:
    """Each model's part by its name; the base's only where it was measured."""
    return {"tuned": tuned} if base is None else {"tuned": tuned, "base": base}
