"""The merged model with its weights in 4 or 8 bits, as transformers and vLLM load them with
bitsandbytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from core.config import RunConfig
from core.export.format import Base, Exporting, Format, Option, Part, writers_only
from core.language import N_
from core.methods import Makes
from core.models.trained import TrainedModel

BITS = Option(
    "bits",
    N_("Weights in bits"),
    N_("nf4 takes 4 bits a weight, int8 takes 8 and loses less."),
    (("nf4", "nf4"), ("int8", "int8")),
    ("nf4",),
)


class Bitsandbytes(Format):
    name = "bitsandbytes"
    title = "bitsandbytes"
    meaning = N_(
        "The merged model in 4 or 8 bits: a third or half of the memory wherever transformers and "
        "bitsandbytes work. GPTQ and AWQ need packages of their own (GPTQModel, llm-compressor) "
        "and a GPU: make them from the merged model."
    )
    place = 6
    is_whole = True
    library = "transformers"
    relation = "quantized"
    options: ClassVar[tuple[Option, ...]] = (BITS,)

    def bits(self, work: Exporting) -> str:
        """How the weights are held, by a name of core.export.precision."""
        return work.chosen["bits"][0]

    def why_not(self, config: RunConfig) -> tuple[str, str] | None:
        return writers_only(config)

    def size_bytes(self, trained: TrainedModel, parameters: int, dtype_bytes: int) -> int:
        return parameters * (dtype_bytes + 1)  # the merged model too, while it is made

    def write(self, work: Exporting, model: Any) -> None:
        whole = work.folder / ".merged"
        work.save_merged(model, whole)
        work.save_in_bits(whole, work.folder, self.bits(work))
        work.add_tokenizer(work.folder)

    def parts(self, work: Exporting) -> list[Part]:
        return [Part("", self.bits(work))]

    def load(self, work: Exporting, part: Part) -> Any:
        return work.open_in_bits(work.folder)

    def tags(self, config: RunConfig) -> list[str]:
        return ["bitsandbytes"]

    def what(self, of: str, data: str, config: RunConfig, dtype: str) -> str:
        return (
            f"{of[0].upper()}{of[1:]}, trained on {data}: a whole model, its weights quantized by "
            "bitsandbytes."
        )

    def loading(self, base: Base, makes: Makes, parts: Sequence[Part] = ()) -> str:
        return (
            "Needs bitsandbytes beside transformers:\n\n```python\n"
            "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
            'model = AutoModelForCausalLM.from_pretrained("path/to/this/folder", dtype="auto")\n'
            'tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")\n```'
        )


FORMAT = Bitsandbytes()
