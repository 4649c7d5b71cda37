"""Ollama: a GGUF with the Modelfile that makes a model of it there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from core.config import RunConfig
from core.export.format import Base, Exporting, Part
from core.export.formats.gguf import Gguf
from core.export.ollama_template import around_of
from core.language import N_
from core.methods import Makes


class Ollama(Gguf):
    name = "ollama"
    title = "Ollama"
    meaning = N_(
        "A GGUF with a Modelfile: chat template, system prompt and stop words as in training, and "
        "the two commands to type."
    )
    place = 4

    def write(self, work: Exporting, model: Any) -> None:
        super().write(work, model)
        text = modelfile(work, [part.file for part in self.parts(work)])
        (work.folder / "Modelfile").write_text(text, encoding="utf-8")

    def tags(self, config: RunConfig) -> list[str]:
        return [*super().tags(config), "ollama"]

    def loading(self, base: Base, makes: Makes, parts: Sequence[Part] = ()) -> str:
        return (
            "In this folder:\n\n```sh\nollama create tuned -f Modelfile\nollama run tuned\n```\n\n"
            "The Modelfile says which file it takes. What Ollama makes of it was not tried here; "
            f"the file itself was opened and compared by llama.cpp.\n\n"
            f"{super().loading(base, makes, parts)}"
        )


def modelfile(work: Exporting, files: list[str]) -> str:
    """What Ollama makes a model of: the first file; the others stand beside it to be chosen."""
    tokenizer = work.tokenizer
    lines = [f"FROM ./{files[0]}", *(f"# FROM ./{file}" for file in files[1:])]
    found = None
    if tokenizer.chat_template:

        def render(messages: list[dict[str, str]], waits: bool) -> str:
            return str(
                tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=waits)
            )

        found = around_of(render, tokenizer.eos_token or "")
    system = work.trained.config.data.system_prompt
    if found is None:
        lines.append(
            "# The chat template does more than to frame each turn, so none is written here:\n"
            "# Ollama takes the one that it knows for this family (ollama show --template tuned)."
        )
    else:
        begin = tokenizer.bos_token or ""
        adds_begin = list(tokenizer("a")["input_ids"])[:1] == [tokenizer.bos_token_id]
        lines.append(f'TEMPLATE """{found.in_go(begin if adds_begin else "")}"""')
        system = system or found.default
    if system:
        lines.append(f'SYSTEM """{system}"""')
    stops = [tokenizer.eos_token, found.assistant[1].strip() if found else ""]
    lines += [f'PARAMETER stop "{stop}"' for stop in dict.fromkeys(filter(None, stops))]
    return "\n".join(lines) + "\n"


FORMAT = Ollama()
