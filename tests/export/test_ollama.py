"""A Modelfile frames conversations as training did, or leaves it to Ollama and says so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from core.export.formats.vllm import _CLIENT, _COMPOSE
from core.export.ollama_template import Around, around_of
from core.workspace import RunFolder
from tests.export.test_gguf import cpu, export, taught, world  # noqa: F401
from tests.tiny_model import CHATML, TinyWorld, tiny_tokenizer

TEMPLATES = Path(__file__).parents[2] / "assets" / "templates"
TALK = [
    {"role": "system", "content": "Say {{ what }}."},
    {"role": "user", "content": "One?"},
    {"role": "assistant", "content": "Yes."},
    {"role": "user", "content": "Two?"},
]


def around(template: str, end: str = "<|im_end|>") -> Around | None:
    tokenizer = tiny_tokenizer(template)

    def render(messages: list[dict[str, str]], waits: bool) -> str:
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=waits)

    return around_of(render, end)


def in_go(template: str, messages: list[dict[str, str]]) -> str:
    """What Go makes of the few words of its language that a template of ours has."""
    literal = template.replace('{{"{{"}}', "\x00")
    begin, body, answer = re.fullmatch(
        r"(.*?)\{\{ range \.Messages \}\}\{\{ if (.*)\{\{ end \}\}\{\{ end \}\}(.*)",
        literal,
        re.DOTALL,
    ).groups()
    clauses = {}
    for clause in body.split("{{ else if "):
        role, text = re.fullmatch(r'eq \.Role "(\w+)" \}\}(.*)', clause, re.DOTALL).groups()
        clauses[role] = text
    said = [clauses[m["role"]].replace("{{ .Content }}", m["content"]) for m in messages]
    return (begin + "".join(said) + answer).replace("\x00", "{{")


@pytest.mark.parametrize("name", ["alpaca", "chatglm3", "chatml", "deepseek", "plain"])
def test_what_go_renders_is_what_jinja_renders(name: str) -> None:
    text = (TEMPLATES / f"{name}.jinja").read_text()
    found = around(text)
    assert found is not None
    wanted = tiny_tokenizer(text).apply_chat_template(
        TALK, tokenize=False, add_generation_prompt=True
    )
    assert in_go(found.in_go(""), TALK) == wanted
    begun = tiny_tokenizer(text).bos_token
    assert found.in_go(begun) == found.in_go("").removeprefix(begun)


def test_a_system_prompt_of_the_templates_own_is_the_models_default() -> None:
    own = "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nBe {{'{{'}}kind.<|im_end|>\n"
    found = around(f"{own}{{% endif %}}{CHATML}")
    assert found is not None and found.default == "Be {{kind."
    assert found.assistant == ("", "<|im_end|>\n")
    assert found.render([TALK[1]]).startswith("<|im_start|>system\nBe {{kind.<|im_end|>\n")


@pytest.mark.parametrize("name", ["gemma", "mistral"])
def test_a_template_that_does_more_has_none(name: str) -> None:
    """The system prompt would be lost, or stand where training had none."""
    assert around((TEMPLATES / f"{name}.jinja").read_text()) is None


def test_an_export_has_its_modelfile(world: TinyWorld, taught: RunFolder) -> None:  # noqa: F811
    folder, result = export(world, taught, "o1", format="ollama", quantization=["f16", "q8_0"])
    lines = (folder / "Modelfile").read_text()
    assert lines.startswith("FROM ./taught-f16.gguf\n# FROM ./taught-q8_0.gguf\n")
    template = re.search(r'TEMPLATE """(.*?)"""', lines, re.DOTALL)
    assert template is not None
    wanted = tiny_tokenizer().apply_chat_template(TALK, tokenize=False, add_generation_prompt=True)
    assert in_go(template[1], TALK) == wanted
    assert lines.endswith('PARAMETER stop "<|im_end|>"\n')
    assert "ollama create tuned -f Modelfile" in (folder / "README.md").read_text()
    assert [one["error"] for one in result["parts"]] == ["", ""]


def test_an_export_for_vllm_can_be_served(world: TinyWorld, taught: RunFolder) -> None:  # noqa: F811
    folder, result = export(world, taught, "v1", format="vllm")
    assert all(check["ok"] for check in result["checks"])
    assert (folder / "model.safetensors").is_file() and (folder / "tokenizer.json").is_file()
    assert "vllm serve . --served-model-name tuned" in (folder / "README.md").read_text()
    compile(_CLIENT, "client.py", "exec")
    served = yaml.safe_load(_COMPOSE)["services"]["tuned"]
    assert served["ports"] == ["127.0.0.1:8000:8000"]
