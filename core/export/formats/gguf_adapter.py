"""The adapter alone as GGUF: llama.cpp lays it onto the base's GGUF when it loads, or a request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from core.config import RunConfig
from core.export.format import Base, Exporting, Format, Part, writers_only
from core.export.package import folder_bytes
from core.language import N_, _
from core.methods import Makes
from core.models.trained import TrainedModel


class GgufAdapter(Format):
    name = "gguf_adapter"
    title = N_("GGUF adapter")
    meaning = N_(
        "Only what was learned, a few megabytes, for llama.cpp: it is loaded onto a GGUF of the "
        "base with --lora, or chosen by a request."
    )
    place = 3
    is_whole = False
    library = "gguf"
    relation = "adapter"
    extra = "gguf"

    def why_not(self, config: RunConfig) -> tuple[str, str] | None:
        adapter = config.adapter
        more = adapter.use_dora or adapter.modules_to_save or config.vocabulary.new_tokens
        if adapter.method == "lora" and not adapter.changes_base and not more:
            return writers_only(config)
        why = _("This run trained more than a plain LoRA, and llama.cpp reads nothing else.")
        return why, _("Export it as a merged model, or as GGUF.")

    def size_bytes(self, trained: TrainedModel, parameters: int, dtype_bytes: int) -> int:
        return 4 * parameters + folder_bytes(trained.folder)  # the base as GGUF, for the check

    def write(self, work: Exporting, model: Any) -> None:
        work.tell(0.45, _("Converting the adapter"))
        plain = work.folder / ".plain.gguf"
        base = work.folder / ".merged"
        work.save_merged(model.unload(), base)
        work.convert(base, plain, "f32")
        work.convert_adapter(base, work.folder / file_name(work))

    def parts(self, work: Exporting) -> list[Part]:
        return [Part(file_name(work), "f32")]

    def load(self, work: Exporting, part: Part) -> Any:
        return work.in_llama_cpp(work.folder / ".plain.gguf", work.folder / part.file)

    def tags(self, config: RunConfig) -> list[str]:
        return ["gguf", "llama-cpp", "lora"]

    def what(self, of: str, data: str, config: RunConfig, dtype: str) -> str:
        return (
            f"A LoRA adapter for {of}, trained on {data}, as GGUF. It holds only what was learned "
            "and needs a GGUF of its base to run."
        )

    def loading(self, base: Base, makes: Makes, parts: Sequence[Part] = ()) -> str:
        file = parts[0].file if parts else "adapter.gguf"
        return (
            f"It belongs to {base.name}. With a GGUF of that model, such as f16:\n\n"
            f"```sh\nllama-cli -m base.gguf --lora {file}\n"
            f"llama-server -m base.gguf --lora {file} --port 8080\n```\n\n"
            'A request to the server chooses its strength with `"lora": [{"id": 0, "scale": 1.0}]`.'
        )


def file_name(work: Exporting) -> str:
    return f"{work.trained.run.root.name}-lora-f32.gguf"


FORMAT = GgufAdapter()
