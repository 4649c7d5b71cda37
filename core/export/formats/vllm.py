"""vLLM and SGLang: the merged model with what serves it and what asks it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from core.config import RunConfig
from core.export.format import Base, Exporting, Part, writers_only
from core.export.formats.merged import Merged
from core.language import N_
from core.methods import Makes

_COMPOSE = """services:
  tuned:
    image: vllm/vllm-openai:latest
    command: --model /model --served-model-name tuned
    ipc: host
    ports: ["127.0.0.1:8000:8000"]
    volumes: [".:/model:ro"]
    deploy:
      resources:
        reservations:
          devices: [{driver: nvidia, count: all, capabilities: [gpu]}]
"""
_CLIENT = '''"""Asks the served model. Needs: pip install openai"""

import sys

from openai import OpenAI

client = OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="none")
question = " ".join(sys.argv[1:]) or "Who are you?"
answer = client.chat.completions.create(
    model="tuned", messages=[{"role": "user", "content": question}]
)
print(answer.choices[0].message.content)
'''


class Vllm(Merged):
    name = "vllm"
    title = "vLLM, SGLang"
    meaning = N_(
        "The merged model with the command that serves it, a compose file and a client: an "
        "OpenAI-compatible server on a machine with a GPU."
    )
    place = 5

    def why_not(self, config: RunConfig) -> tuple[str, str] | None:
        return writers_only(config)

    def write(self, work: Exporting, model: Any) -> None:
        super().write(work, model)
        (work.folder / "compose.yaml").write_text(_COMPOSE, encoding="utf-8")
        (work.folder / "client.py").write_text(_CLIENT, encoding="utf-8")

    def loading(self, base: Base, makes: Makes, parts: Sequence[Part] = ()) -> str:
        return (
            "In this folder, with vLLM, with Docker, or with SGLang:\n\n"
            "```sh\nvllm serve . --served-model-name tuned\ndocker compose up\n"
            "python -m sglang.launch_server --model-path . --served-model-name tuned --port 8000\n"
            "```\n\nThen ask it: `python client.py A question`. The weights were opened and "
            "compared by transformers; neither server was tried here.\n\n"
            f"{super().loading(base, makes, parts)}"
        )


FORMAT = Vllm()
