"""GGUF: one file that llama.cpp, Ollama, LM Studio and others read, in one size or in several."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core.config import RunConfig
from core.export.format import Base, Exporting, Format, Option, Part, writers_only
from core.export.precision import GGUF, PRECISIONS
from core.language import N_, _
from core.methods import Makes
from core.models.trained import TrainedModel

QUANTIZATION = Option(
    "quantization",
    N_("Size of the weights"),
    N_(
        "q8_0 answers nearly as the trained model. The K kinds are smaller and lose more, much "
        "more on a small model: the table of exports shows how much."
    ),
    tuple((one.name, _("{name} ({bits:g} bits)", name=one.name, bits=one.bits)) for one in GGUF),
    ("q8_0",),
    several=True,
)


class Gguf(Format):
    name = "gguf"
    title = "GGUF"
    meaning = N_(
        "One file for llama.cpp, Ollama, LM Studio and others, with the tokenizer and the chat "
        "template in it."
    )
    place = 2
    is_whole = True
    library = "gguf"
    relation = "quantized"
    options = (QUANTIZATION,)
    extra = "gguf"

    def why_not(self, config: RunConfig) -> tuple[str, str] | None:
        return writers_only(config)

    def size_bytes(self, trained: TrainedModel, parameters: int, dtype_bytes: int) -> int:
        # The merged model, the same as GGUF, and what is kept.
        return parameters * (2 * dtype_bytes + 2)

    def write(self, work: Exporting, model: Any) -> None:
        whole, plain = work.folder / ".merged", work.folder / ".plain.gguf"
        work.save_merged(model, whole)
        asked = [PRECISIONS[name] for name in work.chosen["quantization"]]
        made_of: dict[str, Path] = {}
        for at, one in enumerate(one for one in asked if one.outtype):
            work.tell(0.45 + 0.01 * at, one.name)
            made_of[one.outtype] = work.folder / file_name(work, one.name)
            work.convert(whole, made_of[one.outtype], one.outtype)
        blocks = [one for one in asked if one.ftype]
        if blocks:
            exact = {"float32": "f32", "float16": "f16"}.get(work.dtype, "bf16")
            source = made_of.get(exact) or plain
            if source == plain:
                work.convert(whole, plain, exact)
            for at, one in enumerate(blocks):
                work.tell(0.5 + 0.01 * at, one.name)
                work.quantize(source, work.folder / file_name(work, one.name), one.name)

    def parts(self, work: Exporting) -> list[Part]:
        return [Part(file_name(work, name), name) for name in work.chosen["quantization"]]

    def load(self, work: Exporting, part: Part) -> Any:
        return work.in_llama_cpp(work.folder / part.file)

    def tags(self, config: RunConfig) -> list[str]:
        return ["gguf", "llama-cpp"]

    def what(self, of: str, data: str, config: RunConfig, dtype: str) -> str:
        return (
            f"{of[0].upper()}{of[1:]}, trained on {data}, as GGUF: a whole model with its "
            "tokenizer and chat template in one file."
        )

    def loading(self, base: Base, makes: Makes, parts: Sequence[Part] = ()) -> str:
        file = parts[0].file if parts else "model.gguf"
        return (
            f"```sh\nllama-cli -m {file}\nllama-server -m {file} --port 8080\n```\n\n"
            "or in Python with xllamacpp:\n\n```python\nimport xllamacpp\n\n"
            f'params = xllamacpp.CommonParams()\nparams.model.path = "path/to/this/folder/{file}"'
            "\nserver = xllamacpp.Server(params)\n"
            'turns = [{"role": "user", "content": "A question"}]\n'
            'print(server.handle_chat_completions({"messages": turns}))\n```'
        )


def file_name(work: Exporting, kind: str) -> str:
    """Of the file of one kind, as llama.cpp's own names end."""
    return f"{work.trained.run.root.name}-{kind}.gguf"


FORMAT = Gguf()
