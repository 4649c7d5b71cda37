"""The merged model with its weights in 8 bits, as vLLM, SGLang and transformers load them with
torchao."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from core.config import RunConfig
from core.export.format import Base, Exporting, Option, Part
from core.export.formats.bitsandbytes import Bitsandbytes
from core.language import N_
from core.methods import Makes

WEIGHTS = Option(
    "weights",
    N_("Kind of 8 bits"),
    N_("int8 stays nearer to the trained model; fp8 (e4m3) is what newer GPUs compute with."),
    (("int8", "int8"), ("fp8", "fp8")),
    ("int8",),
)


class Torchao(Bitsandbytes):
    name = "torchao"
    title = "torchao"
    meaning = N_(
        "The merged model in 8 bits, by torchao: half of the memory in vLLM, SGLang and "
        "transformers."
    )
    place = 7
    options: ClassVar[tuple[Option, ...]] = (WEIGHTS,)
    extra = "torchao"

    def bits(self, work: Exporting) -> str:
        return f"torchao_{work.chosen['weights'][0]}"

    def tags(self, config: RunConfig) -> list[str]:
        return ["torchao"]

    def what(self, of: str, data: str, config: RunConfig, dtype: str) -> str:
        return (
            f"{of[0].upper()}{of[1:]}, trained on {data}: a whole model, its weights in 8 bits by "
            "torchao."
        )

    def loading(self, base: Base, makes: Makes, parts: Sequence[Part] = ()) -> str:
        return (
            "In this folder, with vLLM and torchao:\n\n"
            "```sh\nvllm serve . --served-model-name tuned\n```\n\n"
            "or in Python, with torchao beside transformers:\n\n```python\n"
            "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
            'model = AutoModelForCausalLM.from_pretrained("path/to/this/folder", dtype="auto")\n'
            'tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")\n```\n\n'
            "transformers opened and compared it; vLLM was not tried here."
        )


FORMAT = Torchao()
