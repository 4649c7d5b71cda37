"""A reward model: one score for a prompt with an answer.

The text is rendered and cut as in its training, with the chat template of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import DataError, ModelError, WorkspaceError
from core.language import _, n_
from core.models.labels import ScoreHead
from core.models.trained import TrainedModel, find_trained
from core.tokens.sides import sides_of_rows
from core.worker.models.classifier import (
    label_logits,
    longest_input,
    open_classifier,
    open_with_head,
    pad_alike,
)
from core.worker.models.loading import open_tokenizer, pick_dtype, resolve_base
from core.workspace import Workspace, checked_id

Turns = list[dict[str, Any]]


@dataclass(frozen=True)
class Scorer:
    """A reward model in memory. `longest` is how many tokens of a text it reads."""

    model: Any
    tokenizer: Any
    longest: int
    system_prompt: str = ""

    @property
    def dtype(self) -> str:
        return str(self.model.dtype).removeprefix("torch.")

    def scores(
        self,
        asked: Sequence[tuple[Turns, Turns]],
        tell: Callable[[float], None] = lambda share: None,
    ) -> list[float]:
        """The score of each (prompt, answer), as they come. Raises ModelError for one that cannot
        be rendered."""
        return self.scores_of(self.ids(asked), tell)

    def scores_of(
        self, rows: Sequence[list[int]], tell: Callable[[float], None] = lambda share: None
    ) -> list[float]:
        """The score of each tokenized text."""
        logits = label_logits(self.model, self.tokenizer, rows, tell)
        return [float(score) for score in logits[:, 0]]

    def ids(self, asked: Sequence[tuple[Turns, Turns]]) -> list[list[int]]:
        """The tokens of each (prompt, answer). Raises ModelError."""
        rows = [{"prompt": prompt, "completion": answer, "label": True} for prompt, answer in asked]
        found = []
        sides = sides_of_rows(
            rows, self.tokenizer, max_length=self.longest, system_prompt=self.system_prompt
        )
        for (side,) in sides:
            if isinstance(side.tokens, DataError):
                raise ModelError(
                    _("This cannot be scored: {message}", message=side.tokens.message),
                    side.tokens.hint,
                )
            found.append(side.tokens.input_ids)
        return found


def turns(text: Any, role: str) -> Turns:
    """A prompt or an answer as turns: a text becomes one of `role`."""
    if isinstance(text, str):
        return [{"role": role, "content": text}]
    return [dict(turn) for turn in text]


def open_scorer(trained: TrainedModel, base_path: str, *, device: str, dtype: Any) -> Scorer:
    """The reward model that a run of method reward left. Raises ModelError."""
    config = trained.config
    method: str = config.method
    if config.training_method.makes != "scorer":
        raise ModelError(
            _(
                "The run {name} was trained with method {method} and gives no scores.",
                name=trained.run.root.name,
                method=method,
            ),
            _("Choose a finished run of method reward."),
        )
    model, tokenizer, _labels = open_classifier(trained, base_path, device=device, dtype=dtype)
    longest = longest_input(model, tokenizer, config.training.max_length)
    return Scorer(model, tokenizer, longest, config.data.system_prompt)


def find_scorer(
    name: str, workspace: Workspace, *, device: str, max_length: int | None = None
) -> Scorer:
    """A reward model by the id of a run, a folder or a Hub name. Raises ModelError.

    `max_length`: where texts are cut, if not where the run cut them.
    """
    run = _run(name, workspace)
    if run is not None:
        base = resolve_base(run.base, workspace)
        dtype = pick_dtype(run.config.training.precision, device)
        found = open_scorer(run, base, device=device, dtype=dtype)
        longest = longest_input(found.model, found.tokenizer, max_length or found.longest)
        return Scorer(found.model, found.tokenizer, longest, found.system_prompt)
    path = resolve_base(name, workspace)
    _need_score(path)
    model = open_with_head(path, ScoreHead(), device=device, dtype=pick_dtype("auto", device))
    tokenizer = open_tokenizer(path)
    tokenizer.padding_side = "right"
    pad_alike(model, tokenizer)
    return Scorer(model, tokenizer, longest_input(model, tokenizer, max_length or 10**9))


def _run(name: str, workspace: Workspace) -> TrainedModel | None:
    try:
        run = workspace.run(checked_id(name))
    except WorkspaceError:
        return None
    return find_trained(run) if run.config.is_file() else None


def _need_score(path: str) -> None:
    """Raises ModelError for a folder whose model has no trained head of one score."""
    folder = Path(path)
    if not folder.is_dir():
        return
    if (folder / "adapter_config.json").is_file():
        raise ModelError(
            _("{name} holds an adapter, not a whole reward model.", name=folder.name),
            _("Name its run, or export it as a merged model."),
        )
    try:
        config: Mapping[str, Any] = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            _("The config of {name} cannot be read: {error}.", name=folder.name, error=str(error))
        ) from error
    named = config.get("architectures") or [""]
    labels = config.get("id2label") or {}
    if "SequenceClassification" not in str(named[0]) or len(labels) != 1:
        if labels:
            what = n_(
                "{name} is no reward model: it gives {n} label, not one score.",
                "{name} is no reward model: it gives {n} labels, not one score.",
                len(labels),
                name=folder.name,
            )
        else:
            what = _("{name} is no reward model: it gives text, not one score.", name=folder.name)
        raise ModelError(
            what, _("Choose a finished run of method reward, or a model with one score.")
        )
