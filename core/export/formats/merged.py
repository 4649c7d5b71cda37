"""A whole model: the adapter made part of the base's weights, or the model that was trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from core.config import RunConfig
from core.export.deployment import write_deployment
from core.export.format import (
    DTYPE,
    Base,
    Exporting,
    Format,
    Part,
    auto_class,
    prompt_reason,
    scorer_code,
)
from core.language import N_
from core.methods import Makes
from core.models.trained import TrainedModel

_FOLDER = '"path/to/this/folder"'


class Merged(Format):
    name = "merged"
    title: ClassVar[str] = N_("Merged model")
    meaning = N_(
        "One folder of safetensors that works wherever transformers works. As large as "
        "the base model."
    )
    place = 0
    is_whole = True
    library = "transformers"
    relation = "finetune"
    options = (DTYPE,)

    def why_not(self, config: RunConfig) -> tuple[str, str] | None:
        return prompt_reason(config)

    def size_bytes(self, trained: TrainedModel, parameters: int, dtype_bytes: int) -> int:
        return parameters * dtype_bytes

    def write(self, work: Exporting, model: Any) -> None:
        work.save_merged(model, work.folder)
        if work.trained.config.training_method.makes == "classifier":
            write_deployment(work.folder, work.trained.config, "auto")

    def load(self, work: Exporting, part: Part) -> Any:
        return work.open(work.folder)

    def what(self, of: str, data: str, config: RunConfig, dtype: str) -> str:
        return (
            f"{of[0].upper()}{of[1:]}, trained on {data}: a whole model that needs nothing else. "
            f"Its weights are in {dtype}."
        )

    def loading(self, base: Base, makes: Makes, parts: Sequence[Part] = ()) -> str:
        if makes == "classifier":
            code = (
                "from transformers import pipeline\n\n"
                f'give_labels = pipeline("text-classification", {_FOLDER}, top_k=None)\n'
                'print(give_labels("A text."))'
            )
        elif makes == "scorer":
            code = scorer_code(
                f"AutoModelForSequenceClassification.from_pretrained({_FOLDER}, num_labels=1)"
            )
        else:
            kind = auto_class(makes)
            code = (
                f"from transformers import {kind}, AutoTokenizer\n\n"
                f'model = {kind}.from_pretrained({_FOLDER}, dtype="auto")\n'
                f"tokenizer = AutoTokenizer.from_pretrained({_FOLDER})"
            )
        return f"```python\n{code}\n```"


FORMAT = Merged()
