"""Which engine answers for which run, what is converted and kept, and what is refused."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx2 as httpx
import openai
import psutil
import pytest
from peft import PromptTuningConfig, get_peft_model
from transformers import AutoModel

from core.errors import ModelError
from core.jobs.events import read_events
from core.jobs.job import read_record
from core.jobs.task import Task
from core.models.hardware import probe
from core.models.trained import find_trained
from core.serve.examples import command_of_vllm, curl, python, vllm_command
from core.serve.front import EMBEDDINGS
from core.serve.servers import endpoint_key, servers
from core.serve.settings import serve_settings
from core.setup import extras
from core.worker.llama_cpp import memory
from core.worker.llama_cpp.kept import kept, kept_base
from core.worker.serve import run as run_module
from core.worker.serve.asked import find_asked
from core.workspace import Workspace
from tests.serve.conftest import Serving, save
from tests.serve.test_server import LEARNED, ask, mean_state
from tests.tiny_model import (
    TinyWorld,
    answer,
    colour_rows,
    teach,
    tiny_adapter,
    tiny_model,
    tiny_tokenizer,
)
from tests.training.labelled import WORDS, LabelWorld, label_world, labelled_rows


def test_a_model_trained_in_full_is_converted_as_a_whole(serving: Serving) -> None:
    run = serving.new_run("whole", {"adapter.method": "none"})
    model = tiny_model()
    teach(model, tiny_tokenizer(), colour_rows(), 100)
    save(model, run.model)
    serving.add(run)
    server = serving.start("whole")
    assert server.engine == "llama.cpp (f16)" and server.models == ("whole",)
    assert json.loads(ask(serving.client(server), "whole")) == LEARNED
    serving.stop(server)


def test_an_adapter_that_llama_cpp_cannot_lay_is_merged(serving: Serving) -> None:
    """A DoRA is more than a LoRA: laid on as one it would answer as nobody."""
    run = serving.new_run("dora", {"adapter.use_dora": True})
    model = tiny_adapter(tiny_model(), use_dora=True)
    teach(model, tiny_tokenizer(), colour_rows(), 80)
    save(model, run.adapter)
    serving.add(run)
    server = serving.start("dora")
    assert server.engine == "llama.cpp (f16)" and server.models == ("dora",)
    assert json.loads(ask(serving.client(server), "dora")) == LEARNED
    serving.stop(server)
    assert [path.suffix for path in run.gguf.iterdir() if path.name[0] != "."] == [".gguf"]


def test_transformers_answers_for_what_llama_cpp_cannot_read(serving: Serving) -> None:
    """Virtual tokens stand in no GGUF. Who asks gets the same form of answer, and is told."""
    run = serving.new_run("prompted", {"adapter.method": "prompt_tuning"})
    kind = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=8)
    model = get_peft_model(tiny_model(), kind)
    save(model.eval(), run.adapter)
    serving.add(run)
    server = serving.start("prompted")
    assert server.engine == "transformers" and "virtual tokens" in server.why
    events = read_events(serving.workspace.root / server.job.folder / "events.jsonl")
    assert any("transformers answers" in str(event.get("message")) for event in events)
    client = serving.client(server)
    tuned, base = ask(client, "prompted"), ask(client, "tiny")
    assert tuned != base
    turns = [{"role": "user", "content": "a red cup"}]
    how = {"model": "tiny", "messages": turns, "temperature": 0, "max_tokens": 40}
    pieces = list(client.chat.completions.create(**how, stream=True))
    assert "".join(p.choices[0].delta.content or "" for p in pieces) == base
    assert pieces[-1].choices[0].finish_reason in ("stop", "length")
    cut = client.chat.completions.create(**how, stop=base[3:5]).choices[0]
    assert cut.message.content == base[: base.index(base[3:5])] and cut.finish_reason == "stop"
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(lambda _n: ask(client, "tiny"), range(3))) == [base] * 3
    said = client.completions.create(model="tiny", prompt="a red", max_tokens=4, temperature=0)
    assert said.usage and said.usage.completion_tokens <= 4
    with pytest.raises(openai.BadRequestError, match="virtual|reads at most"):
        ask(client, "tiny", "a red cup " * 60_000)
    with pytest.raises(openai.BadRequestError, match="no answer at /v1/embeddings"):
        client.embeddings.create(model="tiny", input="a red cup")
    told = client.chat.completions.create(**{**how, "max_tokens": 100_000}, stream=True)
    next(iter(told))
    told.close()
    assert ask(client, "tiny") == base  # it waits for nobody who has gone
    serving.stop(server)


@pytest.fixture(scope="module")
def labelling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    world = label_world(tmp_path_factory.mktemp("labels"))
    world.data("rule", labelled_rows(240))
    run = world.train("learned", "rule", **{"evaluation.eval_strategy": "no"})
    made = Serving(world.workspace)
    made.add(run)
    yield made
    made.close()


def test_a_classifier_gives_labels_with_their_probabilities(labelling: Serving) -> None:
    server = labelling.start("learned")
    headers = {"Authorization": f"Bearer {endpoint_key(labelling.workspace)}"}
    address = f"{server.address}/v1/classify"
    texts = [f"here is {words[0]} and" for words in WORDS.values()]
    told = httpx.post(address, headers=headers, json={"input": texts}, timeout=60).json()
    assert told["model"] == "learned"
    for wanted, one in zip(WORDS, told["data"], strict=True):
        assert one["labels"] == [wanted]
        assert max(one["probabilities"], key=one["probabilities"].get) == wanted
        assert sum(one["probabilities"].values()) == pytest.approx(1, abs=1e-3)
    single = httpx.post(address, headers=headers, json={"input": texts[0]}, timeout=60).json()
    assert len(single["data"]) == 1
    assert httpx.post(address, json={"input": texts}).status_code == 401
    assert httpx.post(address, headers=headers, json={"input": 3}).status_code == 400
    chat = {"model": "learned", "messages": []}
    refused = httpx.post(f"{server.address}/v1/chat/completions", headers=headers, json=chat)
    assert "no answer at /v1/chat/completions" in refused.json()["error"]["message"]
    assert "/v1/classify" in curl(server) and "classify" in python(server)
    told = labelling.client(server).embeddings.create(model="learned", input=texts)
    alike = [one.embedding for one in told.data]
    assert [sum(x * x for x in one) for one in alike] == pytest.approx([1.0] * 3, abs=1e-3)


def test_an_encoder_gives_embeddings(labelling: Serving) -> None:
    world = LabelWorld(labelling.workspace)
    run = world.train(
        "filler",
        next(labelling.workspace.datasets.iterdir()).name,
        **{"method": "mlm", "evaluation.eval_strategy": "no", "training.max_steps": 2},
    )
    labelling.add(run)
    server = labelling.start("filler")
    client, texts = labelling.client(server), ["here is dog", "here is dog and cat", "red today"]
    together = [one.embedding for one in client.embeddings.create(model="filler", input=texts).data]
    alone = client.embeddings.create(model="filler", input=texts[1], encoding_format="float").data
    assert together[1] == pytest.approx(alone[0].embedding, abs=1e-6)
    base = AutoModel.from_pretrained(labelling.workspace.models / "tiny-bert")
    assert len(together[0]) == base.config.hidden_size
    assert together[0] != pytest.approx(together[2], abs=0.05)
    with pytest.raises(openai.BadRequestError, match="Text 1 has .* the model reads 1 to 64"):
        client.embeddings.create(model="filler", input=["dog", "dog " * 80])
    assert "/v1/embeddings" in curl(server) and "client.embeddings" in python(server)


def test_without_llama_cpp_transformers_answers_and_says_how_to_get_it(
    serving: Serving, world: TinyWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "missing", lambda names: extras.find(names))
    run = serving.workspace.run("taught")
    folder = run.root / "servers" / "none-yet"
    folder.mkdir(parents=True)
    settings = serve_settings({})
    asked = find_asked(serving.workspace, run, ["final"], settings, lambda share, message: None)
    engine = run_module._open(asked, Task(folder))
    assert engine.name == "transformers" and "setup --with gguf" in engine.why
    assert [model.id for model in engine.models] == ["taught", "tiny"]
    for model, adapter in zip(engine.models, (run.adapter, None), strict=True):
        told = asyncio.run(engine.answer(EMBEDDINGS, model, {"input": "a red cup"}))
        (one,) = json.loads(bytes(told.body))["data"]
        assert one["embedding"] == pytest.approx(mean_state(adapter, "a red cup"), abs=1e-2)
    engine.close()


def test_a_conversation_that_the_memory_does_not_hold(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other programs would be ended for it, or the machine stand still. transformers needs more."""
    little = replace(probe(), memory_available_bytes=10_000_000)
    monkeypatch.setattr(memory, "probe", lambda: little)
    run = serving.workspace.run("taught")
    folder = run.root / "servers" / "too-long"
    folder.mkdir(parents=True)
    settings = serve_settings({"context": 100_000})
    asked = find_asked(serving.workspace, run, ["final"], settings, lambda share, message: None)
    with pytest.raises(
        ModelError, match=r"llama.cpp needs .* GB of memory; 0.0 GB are free"
    ) as told:
        run_module._open(asked, Task(folder))
    assert "a shorter longest conversation" in told.value.hint


def test_a_server_whose_llama_cpp_died_has_failed(serving: Serving) -> None:
    """It would go on to say that it answers, and answer nobody."""
    server = serving.start("taught", "final")
    worker = read_record(serving.workspace.root / server.job.folder)["pid"]
    children = psutil.Process(worker).children()
    (llama,) = [one for one in children if "core.worker.llama_cpp.process" in one.cmdline()]
    llama.kill()
    job = serving.ended(server.job)
    assert job.state == "failed" and "llama.cpp's process ended" in str(job.error)


def test_what_left_no_model_is_refused_at_once(serving: Serving) -> None:
    run = serving.new_run("empty", {})
    serving.add(run)
    with pytest.raises(ModelError, match="no whole model"):
        serving.submit("empty")
    with pytest.raises(ModelError, match="no whole model 'checkpoint-7'"):
        serving.submit("taught", "checkpoint-7")


def test_a_base_that_is_gone_is_named(serving: Serving) -> None:
    run = serving.new_run("orphan", {"model.model_name_or_path": "gone-model"})
    shutil.copytree(serving.workspace.run("taught").adapter, run.adapter)
    serving.add(run)
    job = serving.ended(serving.submit("orphan"))
    assert job.state == "failed" and "gone-model" in str(job.error)


def test_a_port_that_is_taken_is_named(serving: Serving) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        job = serving.ended(serving.submit("taught", port=port))
        assert job.state == "failed" and f"Port {port} is taken" in str(job.error)


def test_a_server_listens_where_it_was_asked_to(serving: Serving) -> None:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        port = place.getsockname()[1]
    server = serving.start("taught", "final", port=port)
    assert server.address == f"http://127.0.0.1:{port}"
    assert [one.job.id for one in servers(serving.workspace, serving.store, "taught")] == [
        server.job.id
    ]
    serving.stop(server)
    assert servers(serving.workspace, serving.store, "taught") == []


def test_a_base_is_converted_once_and_again_when_it_has_changed(
    world: TinyWorld, tmp_path: Path
) -> None:
    """Minutes at each start; or a server that answers from a model that is no longer there."""
    workspace = Workspace.open(tmp_path)
    base = shutil.copytree(world.base, tmp_path / "base")
    with ThreadPoolExecutor(2) as pool:
        files = set(pool.map(lambda _n: kept_base(workspace, base, "f16"), range(2)))
    (first,) = files
    written = first.stat()
    assert kept_base(workspace, base, "f16") == first
    assert first.stat().st_mtime_ns == written.st_mtime_ns
    assert kept_base(workspace, base, "q8_0").stat().st_size < written.st_size
    tiny_model(seed=7).save_pretrained(base)
    again = kept_base(workspace, base, "f16")
    assert again != first and not first.exists()
    assert again.read_bytes() != b"" and len(list(workspace.gguf.glob("*.gguf"))) == 2


def test_a_conversion_that_broke_off_leaves_nothing(tmp_path: Path) -> None:
    def fail(file: Path) -> None:
        file.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kept(tmp_path / "kept", "name", [], fail)
    assert list((tmp_path / "kept").glob("*.gguf")) == []
    assert (
        kept(tmp_path / "kept", "name", [], lambda f: f.write_text("whole")).read_text() == "whole"
    )  # type: ignore[arg-type,return-value]


def test_a_run_that_left_checkpoints_alone_is_served(serving: Serving) -> None:
    """One that was stopped, or that still trains."""
    run = serving.new_run("stopped", {})
    early = "checkpoints/checkpoint-10"
    shutil.copytree(serving.workspace.run("taught").root / early, run.root / early)
    serving.add(run)
    server = serving.start("stopped")
    assert server.models == ("stopped@checkpoint-10", "tiny")
    assert vllm_command(serving.workspace, server, ["cpu"]) == ""
    command = vllm_command(serving.workspace, server, ["cuda:0", "cpu"])
    assert f"stopped={run.root / early}" in command
    serving.stop(server)


def test_what_to_copy_names_what_is_served(serving: Serving) -> None:
    trained = find_trained(serving.workspace.run("taught"))
    command = command_of_vllm(trained)
    assert "--enable-lora --max-lora-rank 8 " in command and f"taught={trained.folder}" in command
    assert answer("red", "cup") not in command
