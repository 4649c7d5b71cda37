"""Names of base models that can be none."""

from __future__ import annotations

import pytest

from core.errors import ConfigError
from core.rules import parse_config


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("modelscope:foo", "no name of a model on ModelScope"),
        ("modelscope:", "no name of a model on ModelScope"),
        ("modelscope:a/b/c", "no name of a model on ModelScope"),
        ("https://huggingface.co/gpt2", "is an address"),
    ],
)
def test_what_can_be_no_name_is_told_at_its_field(name: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config({"model.model_name_or_path": name})
    [problem] = caught.value.problems
    assert problem.field == "model.model_name_or_path" and words in problem.message


@pytest.mark.parametrize("name", ["modelscope:a/b", "modelscope:a/b@v1", "gpt2", "a/b", "/a/b"])
def test_what_can_be_is_looked_for(name: str) -> None:
    parse_config({"model.model_name_or_path": name})
