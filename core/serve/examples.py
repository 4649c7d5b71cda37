"""How a program asks a server, and the command of a faster one where there is a GPU: text to copy,
in English as all code is."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from core.models.trained import FINAL, TrainedModel, adapter_settings, find_trained
from core.serve.front import CHAT, CLASSIFY, EMBEDDINGS
from core.serve.servers import Server
from core.workspace import Workspace

KEY_VARIABLE = "TUNESMITH_KEY"
_QUESTION = "Who are you?"
# The ranks that vLLM makes room for.
_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)


def curl(server: Server) -> str:
    """A question from the shell; the key comes from the environment."""
    route = CLASSIFY if CLASSIFY in server.routes else EMBEDDINGS
    body = '{"input": "A text"}'
    if CHAT in server.routes:
        turns = [{"role": "user", "content": _QUESTION}]
        route, body = CHAT, json.dumps({"model": server.models[0], "messages": turns})
    return (
        f"curl {server.address}{route} \\\n"
        f'  -H "Authorization: Bearer ${KEY_VARIABLE}" \\\n'
        f'  -H "Content-Type: application/json" \\\n'
        f"  -d {shlex.quote(body)}"
    )


def python(server: Server) -> str:
    """The same with the openai package, or for labels with httpx."""
    if CLASSIFY in server.routes:
        return (
            "import os\n\nimport httpx\n\n"
            f"answer = httpx.post(\n"
            f'    "{server.address}{CLASSIFY}",\n'
            f'    headers={{"Authorization": "Bearer " + os.environ["{KEY_VARIABLE}"]}},\n'
            '    json={"input": ["A text", "Another text"]},\n'
            ")\n"
            "print(answer.json())"
        )
    client = (
        "import os\n\nfrom openai import OpenAI\n\n"
        f'client = OpenAI(base_url="{server.address}/v1", api_key=os.environ["{KEY_VARIABLE}"])\n'
    )
    if CHAT not in server.routes:
        return (
            f"{client}answer = client.embeddings.create(\n"
            f"    model={json.dumps(server.models[0])},\n"
            '    input=["A text", "Another text"],\n'
            ")\n"
            "print([one.embedding for one in answer.data])"
        )
    return (
        f"{client}answer = client.chat.completions.create(\n"
        f"    model={json.dumps(server.models[0])},\n"
        f'    messages=[{{"role": "user", "content": {json.dumps(_QUESTION)}}}],\n'
        "    stream=True,\n"
        ")\n"
        "for piece in answer:\n"
        '    print(piece.choices[0].delta.content or "", end="")'
    )


def vllm_command(workspace: Workspace, server: Server, devices: Sequence[str]) -> str:
    """What serves a run with vLLM, where there is a GPU among the devices and vLLM can; else ""."""
    has_gpu = any(device.startswith("cuda") for device in devices)
    run, _at, checkpoint = server.models[0].partition("@")
    trained = find_trained(workspace.run(run), checkpoint or FINAL)
    return command_of_vllm(trained) if has_gpu else ""


def command_of_vllm(trained: TrainedModel) -> str:
    """What serves a checkpoint with vLLM; "" for an adapter that is no plain LoRA, and for a model
    that gives labels."""
    if trained.config.training_method.makes != "writer":
        return ""
    name, key = trained.run.root.name, f'--api-key "${KEY_VARIABLE}"'
    if trained.adapter is None:
        folder = shlex.quote(str(trained.folder))
        return f"vllm serve {folder} --served-model-name {name} --host 127.0.0.1 {key}"
    settings = adapter_settings(trained.folder)
    if trained.peft_type != "LORA" or settings.get("use_dora") or not trained.shares_base:
        return ""
    rank = max([int(settings["r"]), *(settings.get("rank_pattern") or {}).values()])
    room = next((known for known in _RANKS if known >= rank), rank)
    lora = shlex.quote(f"{name}={trained.folder}")
    return (
        f"vllm serve {shlex.quote(_place(trained.base))} --host 127.0.0.1 {key} \\\n"
        f"  --enable-lora --max-lora-rank {room} --lora-modules {lora}"
    )


def _place(base: str) -> str:
    return str(Path(base).resolve()) if Path(base).is_dir() else base
