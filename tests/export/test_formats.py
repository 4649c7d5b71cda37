"""A form of export says in its own file all that the page, the shell and a worker ask of it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from core.export.format import Base
from core.export.formats import format_names, formats
from core.rules import parse_config

# What all whole models that write have beside those.
OTHERS = ("ollama", "vllm", "bitsandbytes", "torchao")
BASES = {
    "public": Base("org/model", True, "mit"),
    "folder": Base("my-model", False),
    "copy": Base("org/model", True, is_copy=True),
    "made": Base("run-1", False, made_of="org/model"),
}


def test_each_is_found_by_the_name_of_its_file() -> None:
    """What the shell offers could not be exported."""
    assert set(format_names()) == set(formats())
    assert list(formats())[0] == "merged"  # what most people want is chosen already
    assert all(form.title and form.meaning for form in formats().values())


@pytest.mark.parametrize(
    ("method", "fitting"),
    [
        ("lora", {"adapter", "merged", "gguf", "gguf_adapter", *OTHERS, "script"}),
        ("ia3", {"adapter", "merged", "gguf", *OTHERS, "script"}),
        ("prompt_tuning", {"adapter"}),
        ("prefix_tuning", {"adapter"}),
        ("none", {"merged", "gguf", *OTHERS, "script"}),
        ("freeze", {"merged", "gguf", *OTHERS}),
    ],
)
def test_a_run_is_offered_what_it_has(method: str, fitting: set[str]) -> None:
    """A person would wait for an export that cannot be."""
    config = parse_config({"adapter.method": method})
    refused = {name: form.why_not(config) for name, form in formats().items()}
    assert {name for name, why in refused.items() if why is None} == fitting
    for told in refused.values():
        assert told is None or (told[0].startswith("This run ") and told[1].startswith("Export it"))


@pytest.mark.parametrize(
    ("method", "fitting"),
    [
        ("classification", {"adapter", "merged", "onnx", "script"}),
        ("mlm", {"adapter", "merged", "script"}),
        ("reward", {"adapter", "merged", "script"}),
        ("dpo", {"adapter", "merged", "gguf", "gguf_adapter", *OTHERS, "script"}),
    ],
)
def test_what_a_method_makes_decides_too(method: str, fitting: set[str]) -> None:
    config = parse_config({"method": method})
    assert {name for name, form in formats().items() if form.why_not(config) is None} == fitting


@pytest.mark.parametrize("name", format_names())
@pytest.mark.parametrize("base", BASES.values(), ids=BASES)
def test_the_code_of_each_card_is_python(name: str, base: Base) -> None:
    """Nobody could load what was exported."""
    for makes in ("writer", "filler", "classifier", "scorer"):
        text = formats()[name].loading(base, makes)
        if name == "gguf_adapter":  # llama.cpp's own commands
            assert f"belongs to {base.name}" in text and "--lora adapter.gguf" in text
            continue
        if name == "script":
            assert ("--model path/to/the/base" in text) is not base.is_public
            continue
        note, _, code = text.partition("```python\n")
        code = code.partition("```")[0]
        compile(code, name, "exec")
        assert "path/to/this/folder" in code
        if name not in ("adapter", "merged"):
            continue
        needs_a_word = not base.is_public or base.is_copy
        assert bool(note) == (name == "adapter" and needs_a_word)


def test_they_are_known_without_torch() -> None:
    """The page and the shell list them; both must start quickly."""
    code = (
        "import sys; from core.export.formats import formats; print(len(formats())); "
        "print(sorted({'torch', 'transformers', 'peft', 'gradio'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(len(formats())), "[]"]
