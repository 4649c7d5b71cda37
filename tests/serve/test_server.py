"""Programs ask what a run trained: the openai client, as somebody would use it."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2 as httpx
import openai
import pytest
from openai import OpenAI
from peft import PeftModel

from core.jobs.queue import stop_job
from core.serve.servers import Server, endpoint_key
from tests.serve.conftest import LONGEST, Serving
from tests.tiny_model import answer, tiny_model, tiny_tokenizer
from tests.waiting import until

CUP: Any = [{"role": "user", "content": "a red cup"}]
LEARNED = {"colour": "red", "thing": "cup"}


@pytest.fixture
def client(serving: Serving, server: Server) -> OpenAI:
    return serving.client(server)


def ask(client: OpenAI, model: str, content: str = "a red cup") -> str:
    said = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": content}],
        temperature=0,
        max_tokens=40,
    )
    assert said.model == model
    return said.choices[0].message.content or ""


def test_the_run_its_checkpoints_and_its_base_have_names(client: OpenAI, server: Server) -> None:
    assert server.engine == "llama.cpp (f16)" and server.why == ""
    found = {model.id: model for model in client.models.list()}
    assert list(found) == ["taught", "taught@checkpoint-10", "tiny"] == list(server.models)
    assert found["taught"].model_extra == {"parent": "tiny"}
    assert client.models.retrieve("tiny").owned_by == "tunesmith"


def test_each_of_them_answers_as_itself(client: OpenAI) -> None:
    """All come from one copy of the base: one that answered for another would go unseen."""
    for _again in range(2):
        assert json.loads(ask(client, "taught")) == LEARNED
        base, early = ask(client, "tiny"), ask(client, "taught@checkpoint-10")
        assert base != early and "colour" not in base + early


def test_an_answer_comes_piece_by_piece(client: OpenAI) -> None:
    pieces = list(
        client.chat.completions.create(
            model="taught",
            messages=[{"role": "user", "content": "a blue hat"}],
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    texts = [piece.choices[0].delta.content or "" for piece in pieces if piece.choices]
    assert "".join(texts) == answer("blue", "hat") and len(texts) > 5
    assert {piece.model for piece in pieces} == {"taught"}
    assert pieces[-1].usage and pieces[-1].usage.completion_tokens > 5


def test_a_text_is_written_on(client: OpenAI) -> None:
    said = client.completions.create(model="taught", prompt="a red", temperature=0, max_tokens=5)
    assert said.choices[0].text and said.model == "taught"
    assert said.usage and said.usage.completion_tokens == 5


def test_texts_are_embedded_by_the_model_that_is_named(client: OpenAI, serving: Serving) -> None:
    """Two texts must lie as far apart as that model has them, whoever was asked before."""
    texts = ["a red cup", "a blue hat and a door"]
    run = serving.workspace.run("taught")
    bodies = {
        "tiny": None,
        "taught": run.adapter,
        "taught@checkpoint-10": run.checkpoints / "checkpoint-10",
    }
    for name in [*bodies, *reversed(bodies)]:
        ask(client, "tiny")
        told = client.embeddings.create(model=name, input=texts)
        assert told.model == name and told.usage.prompt_tokens > 4
        for text, one in zip(texts, told.data, strict=True):
            assert one.embedding == pytest.approx(mean_state(bodies[name], text), abs=0.01)


def mean_state(adapter: Path | None, text: str) -> list[float]:
    model = tiny_model()
    whole = PeftModel.from_pretrained(model, str(adapter)).get_base_model() if adapter else model
    states = whole.model(tiny_tokenizer()(text, return_tensors="pt")["input_ids"])[0][0]
    mean = states.mean(dim=0)
    return (mean / mean.norm()).tolist()


def test_several_are_answered_at_once(client: OpenAI) -> None:
    """Each gets the answer to its own question, from the model that it named."""
    asked = [(colour, model) for colour in ("red", "green", "blue") for model in ("taught", "tiny")]
    with ThreadPoolExecutor(6) as pool:
        said = list(pool.map(lambda one: ask(client, one[1], f"a {one[0]} door"), asked))
    for (colour, model), text in zip(asked, said, strict=True):
        assert (text == answer(colour, "door")) == (model == "taught"), (colour, model, text)


def test_nobody_gets_in_without_the_key(serving: Serving, server: Server) -> None:
    with pytest.raises(openai.AuthenticationError) as wrong:
        ask(serving.client(server, "wrong"), "taught")
    assert wrong.value.code == "invalid_api_key"
    for path in ("models", "models/tiny", "chat/completions", "classify"):
        assert httpx.get(f"{server.address}/v1/{path}").status_code in (401, 405), path
    key = endpoint_key(serving.workspace)
    assert serving.workspace.endpoint_key.stat().st_mode & 0o077 == 0
    for path in serving.workspace.root.rglob("*"):
        if path.is_file() and path != serving.workspace.endpoint_key:
            assert key.encode() not in path.read_bytes(), path


def test_a_model_that_is_not_there_is_named(client: OpenAI) -> None:
    for name in ("nobody", "../../etc/passwd", "taught@checkpoint-99"):
        with pytest.raises(openai.NotFoundError, match="There are: taught, taught@") as unknown:
            ask(client, name)
        assert unknown.value.code == "model_not_found"


def test_what_cannot_be_answered_says_why(client: OpenAI, server: Server) -> None:
    with pytest.raises(openai.BadRequestError, match="exceeds the available context"):
        ask(client, "taught", "a red cup " * 100)
    with pytest.raises(openai.BadRequestError, match="Text 0 has .* the model reads 1 to"):
        client.embeddings.create(model="taught", input="a red cup " * 300)
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    for messages, told in (
        ([{"role": "user", "content": [picture]}], "'image_url'. The models here read text alone"),
        ([], "a list of one or more"),
        ([{"content": "Hello"}], "has no role"),
        ([{"role": "alien", "content": "Hello"}], "messages.0 has an unknown role"),
    ):
        with pytest.raises(openai.BadRequestError, match=told):
            client.chat.completions.create(model="taught", messages=messages)
    for wrong, told in (
        ({"temperature": -1}, "temperature has to be a number from 0 to 2"),
        ({"top_p": "all"}, "top_p has to be a number"),
        ({"max_tokens": 0}, "max_tokens has to be a whole number"),
        ({"stop": 5}, "stop has to be a text, or a list of texts"),
        ({"seed": "early"}, "seed has to be a whole number"),
    ):
        with pytest.raises(openai.BadRequestError, match=told):
            client.completions.create(model="taught", prompt="a red", **wrong)  # type: ignore[call-overload]
    with pytest.raises(openai.BadRequestError, match="number of dimensions"):
        client.embeddings.create(model="taught", input="a red cup", dimensions=8)
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="taught", messages="a red cup")  # type: ignore[call-overload]
    headers = {"Authorization": f"Bearer {client.api_key}"}
    asked = httpx.post(f"{server.address}/v1/chat/completions", headers=headers, content=b"{")
    assert asked.status_code == 400 and "no JSON" in asked.json()["error"]["message"]


def test_an_answer_ends_when_nobody_listens_or_the_server_is_stopped(serving: Serving) -> None:
    """A program that was ended would keep the machine busy; one that listens must not wait."""
    server = serving.start("taught", "final", quantization="q8_0", context=LONGEST)
    assert server.engine == "llama.cpp (q8_0)" and server.models == ("taught", "tiny")
    client, log = serving.client(server), serving.workspace.root / server.job.folder / "worker.log"
    cancelled = log.read_text().count("cancel task")
    for _stream in range(4):  # as many as are answered at once
        told = stream_endlessly(client)
        next(iter(told))
        told.close()
    until(lambda: log.read_text().count("cancel task") == cancelled + 4, log.read_text)
    assert json.loads(ask(client, "taught")) == LEARNED

    told = stream_endlessly(client)
    next(iter(told))
    stop_job(serving.workspace, serving.store, server.job.id)
    with pytest.raises(openai.APIError, match="was stopped"):
        for _piece in told:
            pass
    assert serving.ended(server.job).state == "stopped"
    with pytest.raises(openai.APIConnectionError):
        client.models.list()


def stream_endlessly(client: OpenAI) -> Any:
    return client.chat.completions.create(
        model="tiny", messages=CUP, stream=True, extra_body={"ignore_eos": True}
    )
