"""A whole model: the adapter made part of the base's weights, or the model that was trained."""

from __future__ import annotations

from typing import Any

from core.config import RunConfig
from core.errors import ExportError
from core.export.format import Base, Exporting, Format, auto_class, scorer_code
from core.language import N_, _
from core.methods import Makes
from core.models.trained import TrainedModel

_FOLDER = '"path/to/this/folder"'


class Merged(Format):
    name = "merged"
    title = N_("Merged model")
    meaning = N_(
        "One folder of safetensors that works wherever transformers works. As large as "
        "the base model."
    )
    place = 0
    is_whole = True
    library = "transformers"
    relation = "finetune"

    def why_not(self, config: RunConfig) -> tuple[str, str] | None:
        if not config.adapter.is_prompt:
            return None
        kind = config.adapter.method.replace("_", " ")
        why = _(
            "This run learned virtual tokens ({kind}), which stand before each text: no "
            "weights of the base can hold them.",
            kind=kind,
        )
        return why, _("Export it as an adapter.")

    def size_bytes(self, trained: TrainedModel, whole_bytes: int) -> int:
        return whole_bytes

    def write(self, work: Exporting, model: Any) -> None:
        work.tell(0.35, _("Merging"))
        if work.trained.is_adapter:
            try:
                model = model.merge_and_unload(safe_merge=True)
            except ValueError as error:
                raise ExportError(
                    _("The adapter cannot be merged: {error}", error=str(error)),
                    _("Export it as an adapter."),
                ) from error
        _untie_if_parted(model)
        work.tell(0.45, _("Saving the merged model"))
        model.to(work.dtype).save_pretrained(work.folder, max_shard_size="5GB")

    def load(self, work: Exporting) -> Any:
        return work.open(work.folder)

    def what(self, of: str, data: str, config: RunConfig, dtype: str) -> str:
        return (
            f"{of[0].upper()}{of[1:]}, trained on {data}: a whole model that needs nothing else. "
            f"Its weights are in {dtype}."
        )

    def loading(self, base: Base, makes: Makes) -> str:
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


def _untie_if_parted(model: Any) -> None:
    """Says in the config that the output layer has weights of its own, if training gave it some.

    Else it would be left out as a copy of the input's, and what it learned would be lost.
    """
    output = model.get_output_embeddings()
    if output is None or not getattr(model.config, "tie_word_embeddings", False):
        return
    if output.weight.data_ptr() != model.get_input_embeddings().weight.data_ptr():
        model.config.tie_word_embeddings = False


FORMAT = Merged()
