"""Runs to talk to: one that learned the colours, one with another adapter, one trained whole."""

from __future__ import annotations

import pytest

from tests.tiny_model import (
    TinyWorld,
    colour_rows,
    teach,
    tiny_adapter,
    tiny_model,
    tiny_tokenizer,
    tiny_world,
)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> TinyWorld:
    made = tiny_world(tmp_path_factory.mktemp("chat") / "ws")
    tuned = made.run("tuned-run")
    model = tiny_adapter(tiny_model(), size=0.0)
    teach(model, tiny_tokenizer(), colour_rows())
    model.save_pretrained(tuned.adapter)
    tiny_tokenizer().save_pretrained(tuned.adapter)
    other = made.run("other-run")
    tiny_adapter(tiny_model(), seed=5).save_pretrained(other.adapter)
    whole = made.run("whole-run", {"adapter.method": "none"})
    tiny_model(seed=9).save_pretrained(whole.model)
    strict = made.run("strict-run")
    tiny_adapter(tiny_model(), seed=6).save_pretrained(strict.adapter)
    template = "{{ raise_exception('No system role here') if messages[0]['role'] == 'system' }}"
    tiny_tokenizer(template + "{{ messages[0]['content'] }}").save_pretrained(strict.adapter)
    return made
