"""An evaluation from folder to result, on a real model that really learned."""

from __future__ import annotations

import html
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from core.data.prepare import import_dataset
from core.errors import DataError, ModelError, TunesmithError
from core.evaluation.answer_rows import read_answers
from core.evaluation.document import ENDINGS, write_document
from core.evaluation.report import list_evaluations
from core.evaluation.verdict import verdict
from core.jobs.store import Store
from core.language import unpack
from core.runs.submit import submit_evaluation
from core.worker.chat import llama
from core.worker.evaluation import kept as kept_answers
from core.worker.evaluation import writer
from core.worker.evaluation.run import run_evaluation
from core.worker.llama_cpp import gguf_files
from core.workspace import RunFolder, Workspace
from tests.data.drafts.conftest import StandIn, completion, failure
from tests.tiny_model import (
    CHATML,
    TinyWorld,
    colour_rows,
    read_json_lines,
    shown_report,
    teach,
    tiny_adapter,
    tiny_model,
    tiny_tokenizer,
    tiny_world,
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> TinyWorld:
    return tiny_world(tmp_path_factory.mktemp("e") / "ws", eval_rows=colour_rows()[::2])


@pytest.fixture(scope="module")
def tuned(world: TinyWorld) -> RunFolder:
    """A run whose adapter learned all rows; its earlier checkpoint learned nothing."""
    run = world.run("tuned-run")
    model = tiny_adapter(tiny_model(), size=0.0)
    early = run.checkpoints / "checkpoint-1"
    model.save_pretrained(early)
    (early / "trainer_state.json").write_text('{"global_step": 1}')
    teach(model, tiny_tokenizer(), colour_rows())
    model.save_pretrained(run.adapter)
    tiny_tokenizer().save_pretrained(run.adapter)
    return run


def evaluate(
    world: TinyWorld, run: RunFolder, name: str, params: dict[str, Any] | None = None
) -> dict[str, Any]:
    folder = world.task(run, "evaluate", name, params or {})
    assert run_evaluation(folder, world.root) == "finished"
    return shown_report(folder)


def test_a_model_that_learned_is_told_from_its_base(world: TinyWorld, tuned: RunFolder) -> None:
    result = evaluate(world, tuned, "e1")
    assert (result["rows"], result["part"], result["checkpoint"]) == (6, "eval", "final")
    assert result["tuned"]["all_fields"]["value"] == 1.0
    assert result["base"]["all_fields"]["value"] == 0.0
    assert result["tuned"]["fields"].keys() == {"colour", "thing"}
    assert result["tuned"]["exact_rows"]["value"] == 1.0
    assert result["tuned"]["eval_loss"]["value"] < 0.1 < 2 < result["base"]["eval_loss"]["value"]
    assert result["difference"]["score"]["value"] == 1.0
    assert result["verdict"].startswith("The tuned model gets 100 % (61 to 100 %) of fields right")
    assert len(result["differences"]) == 6
    first = result["differences"][0]
    assert first["tuned"] == first["expected"] != first["base"]
    assert first["tuned_fields_right"] == ["colour", "thing"]
    assert first["base_fields_right"] == []

    folder = tuned.evaluations / "e1"
    assert len(read_json_lines(folder / "answers.jsonl")) == 6
    events = read_json_lines(folder / "events.jsonl")
    shares = [event["fraction"] for event in events if event["kind"] == "progress"]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert events[-1]["kind"] == "result"
    assert events[-1]["tuned"] == result["tuned"]
    stored = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    assert "verdict" not in stored and stored["version"] == 1


def test_the_base_is_measured_as_it_is_without_the_adapter(
    world: TinyWorld, tuned: RunFolder
) -> None:
    """The very numbers that the base has when nothing else was ever loaded."""
    plain = world.run("plain-run", {"adapter.method": "none"})
    tiny_model().save_pretrained(plain.model)
    alone = evaluate(world, plain, "e1", {"compare_base": False})["tuned"]["eval_loss"]
    beside = evaluate(world, tuned, "e2", {"max_new_tokens": 1})["base"]["eval_loss"]
    assert beside == pytest.approx(alone, rel=1e-6)


def test_an_adapter_that_trained_biases_is_compared_with_the_real_base(
    tmp_path: Path,
) -> None:
    """Switching such an adapter off leaves its biases on: the base must be loaded again."""
    world = tiny_world(tmp_path / "ws")
    tiny_model(attention_bias=True).save_pretrained(world.base)
    run = world.run("bias-run")
    model = tiny_adapter(tiny_model(attention_bias=True), bias="all")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 3.0)
    model.save_pretrained(run.adapter)
    both = evaluate(world, run, "e1", {"max_new_tokens": 1})
    plain = world.run("plain-run", {"adapter.method": "none"})
    tiny_model(attention_bias=True).save_pretrained(plain.model)
    alone = evaluate(world, plain, "e1", {"max_new_tokens": 1, "compare_base": False})
    assert both["base"]["eval_loss"] == pytest.approx(alone["tuned"]["eval_loss"], rel=1e-6)
    assert both["tuned"]["eval_loss"]["value"] != pytest.approx(
        both["base"]["eval_loss"]["value"], rel=1e-2
    )


def test_a_model_equal_to_its_base_has_no_winner(world: TinyWorld, tuned: RunFolder) -> None:
    result = evaluate(world, tuned, "e3", {"checkpoint": "checkpoint-1", "max_rows": 2})
    assert result["checkpoint"] == "checkpoint-1"
    assert result["rows"] == 2
    assert result["difference"]["eval_loss"]["value"] == 0.0
    assert "There is no difference on these rows." in result["verdict"]
    assert "2 of 6 rows were measured, spread evenly." in result["notes"]


def test_a_quantized_base_is_measured_as_the_run_had_it(world: TinyWorld, tuned: RunFolder) -> None:
    """QLoRA is chosen where the base does not fit otherwise; and its loss is its own."""
    run = world.run("nf4-run", {"adapter.quantization": "nf4"})
    tiny_adapter(tiny_model()).save_pretrained(run.adapter)
    result = evaluate(world, run, "e1", {"max_new_tokens": 1})
    plain = evaluate(world, tuned, "unquantized", {"max_new_tokens": 1})
    assert result["settings"]["quantization"] == "nf4"
    quantized, exact = result["base"]["eval_loss"]["value"], plain["base"]["eval_loss"]["value"]
    assert quantized != exact
    assert quantized == pytest.approx(exact, rel=0.1)


def test_whole_models_are_loaded_one_after_the_other(world: TinyWorld) -> None:
    run = world.run("full-run", {"adapter.method": "none"})
    model = tiny_model()
    teach(model, tiny_tokenizer(), colour_rows(), steps=60)
    model.save_pretrained(run.model)
    result = evaluate(world, run, "e1", {"max_rows": 3})
    assert result["tuned"]["eval_loss"]["value"] < 0.5 < 2 < result["base"]["eval_loss"]["value"]


def test_without_held_out_rows_it_says_that_training_rows_were_measured(tmp_path: Path) -> None:
    """Else a person would take memory for skill."""
    world = tiny_world(tmp_path / "ws")
    run = world.run("a-run")
    tiny_adapter(tiny_model()).save_pretrained(run.adapter)
    result = evaluate(world, run, "e1", {"max_new_tokens": 2})
    assert result["part"] == "train"
    assert result["rows"] == 12
    assert "trained on" in result["notes"][0]
    assert "These are rows that it was trained on." in result["verdict"]


def test_plain_answers_are_scored_by_their_words(tmp_path: Path) -> None:
    rows = [
        {"prompt": "Capital of France?", "completion": "Paris of course"},
        {"prompt": "Capital of Italy?", "completion": "Rome"},
    ]
    world = tiny_world(tmp_path / "ws", rows=rows, eval_rows=rows)
    run = world.run("a-run")
    tiny_adapter(tiny_model()).save_pretrained(run.adapter)
    tuned = evaluate(world, run, "e1", {"max_new_tokens": 2})["tuned"]
    assert tuned["exact_match"]["value"] == 0.0
    assert tuned["token_f1"].keys() == {"value", "low", "high"}
    assert "fields" not in tuned


def test_rows_too_long_to_be_read_are_named_and_count_as_wrong(tmp_path: Path) -> None:
    """A crash, or an answer to half a question, would both hide what the model can do."""
    rows = colour_rows()[:3]
    rows[1]["messages"][0]["content"] = "hat " * 100 + "a red hat"
    world = tiny_world(tmp_path / "ws", eval_rows=rows)
    run = world.run("a-run", {"training.max_length": 512})
    tiny_adapter(tiny_model()).save_pretrained(run.adapter)
    result = evaluate(world, run, "e1", {"max_new_tokens": 200})
    assert result["notes"] == [
        "Too long for the model to read and answer with 200 tokens, and counted as wrong: 1 row."
    ]
    (long,) = [row for row in result["differences"] if row["index"] == 1]
    assert long["tuned"] == ""


def test_plain_text_has_a_loss_and_no_answers(tmp_path: Path) -> None:
    rows = [{"text": "Once upon a time"}, {"text": "there was a cup"}]
    world = tiny_world(tmp_path / "ws", rows=rows, eval_rows=rows)
    run = world.run("a-run")
    tiny_adapter(tiny_model()).save_pretrained(run.adapter)
    result = evaluate(world, run, "e1")
    assert result["tuned"].keys() == {"eval_loss", "perplexity"}
    assert result["differences"] == []
    assert result["verdict"].startswith("The tuned model has a loss of")


def test_a_stop_leaves_nothing_half_written(world: TinyWorld, tuned: RunFolder) -> None:
    folder = world.task(tuned, "evaluate", "stopped", {})
    (folder / "STOP").touch()
    assert run_evaluation(folder, world.root) == "stopped"
    assert not (folder / "result.json").exists()
    assert not (folder / "answers.jsonl").exists()


def test_a_stop_in_the_middle_of_answers_is_honoured(
    world: TinyWorld, tuned: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = world.task(tuned, "evaluate", "stopped-later", {"max_new_tokens": 200})
    real = writer.write_answers

    def ask_to_stop_then_write(*arguments: Any, **options: Any) -> list[str]:
        (folder / "STOP").touch()
        return real(*arguments, **options)

    monkeypatch.setattr(writer, "write_answers", ask_to_stop_then_write)
    assert run_evaluation(folder, world.root) == "stopped"
    assert not (folder / "result.json").exists()


def test_an_evaluation_goes_on_from_the_answers_of_one_that_did_not_end(
    world: TinyWorld, tuned: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a line that was torn; with other weights, or longer answers, they are others."""
    asked = {"general": False, "max_new_tokens": 30}
    whole = evaluate(world, tuned, "whole", asked)
    folder = world.task(tuned, "evaluate", "broken-off", asked)
    real, calls = writer.write_answers, []

    def stop_at_the_base(*arguments: Any, **options: Any) -> list[str]:
        calls.append(1)
        if len(calls) == 2:
            (folder / "STOP").touch()
        return real(*arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(writer, "write_answers", stop_at_the_base)
        assert run_evaluation(folder, world.root) == "stopped"
    kept = folder / kept_answers.NAME
    assert len(read_json_lines(kept)) == whole["rows"]
    with kept.open("a") as file:
        file.write('["torn')

    longer = evaluate(world, tuned, "longer", asked | {"max_new_tokens": 31, "compare_base": False})
    assert not any("taken over" in one for one in longer["notes"])
    resumed = evaluate(world, tuned, "resumed", asked)
    told = f"Answers taken over from an evaluation that did not come to its end: {whole['rows']}."
    assert told in resumed["notes"]
    assert not kept.exists(), "They stand in a report now."
    assert not (tuned.evaluations / "resumed" / kept_answers.NAME).exists()
    for side in ("tuned", "base"):
        assert resumed[side]["all_fields"] == whole[side]["all_fields"]


def test_what_cannot_be_evaluated_is_told(world: TinyWorld, tuned: RunFolder) -> None:
    folder = world.task(tuned, "evaluate", "wrong", {"checkpoint": "checkpoint-7"})
    with pytest.raises(ModelError, match="Choose one of: checkpoint-1, final"):
        run_evaluation(folder, world.root)
    orphan = world.run("orphan-run", {"data.dataset": "gone"})
    tiny_adapter(tiny_model()).save_pretrained(orphan.adapter)
    with pytest.raises(DataError, match="gone"):
        run_evaluation(world.task(orphan, "evaluate", "e1", {}), world.root)


def test_evaluations_are_listed_without_torch(world: TinyWorld, tuned: RunFolder) -> None:
    """The web process lists them; it must stay small."""
    evaluate(world, tuned, "listed", {"max_rows": 1, "max_new_tokens": 1})
    reports = {one.id: one.report for one in list_evaluations(tuned.root)}
    assert reports["listed"] is not None and verdict(reports["listed"])
    code = (
        "import sys; from pathlib import Path; import core.evaluation.report as r; "
        f"print(len(r.list_evaluations(Path({str(tuned.root)!r})))); "
        "print(sorted({'torch', 'transformers', 'gradio'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == [str(len(reports)), "[]"]


def test_other_models_answer_the_same_rows(world: TinyWorld, tuned: RunFolder) -> None:
    """An earlier checkpoint that learned nothing is the base in all but its name; a copy of the
    base in a folder too."""
    folder = world.root / "models" / "copy"
    shutil.copytree(world.base, folder)
    targets = ["run:tuned-run@checkpoint-1", f"model:{folder}"]
    result = evaluate(world, tuned, "against", {"against": targets})
    assert [one["target"] for one in result["others"]] == targets
    for other in result["others"]:
        assert other["numbers"]["all_fields"] == result["base"]["all_fields"]
        assert other["numbers"]["eval_loss"] == pytest.approx(result["base"]["eval_loss"])
        assert other["difference"]["score"]["value"] == 1.0
        assert (other["compared"]["wins"], other["compared"]["losses"]) == (6, 0)
    rows = read_answers(tuned.evaluations / "against")
    assert {tuple(row.sides) for row in rows} == {("tuned", "base", "other1", "other2")}
    assert all(row.sides["other1"].text == row.sides["base"].text for row in rows)
    assert rows[0].prompt and "colour" in rows[0].expected and rows[0].rendered


def test_an_endpoint_answers_the_same_rows(
    world: TinyWorld, tuned: RunFolder, endpoint: StandIn
) -> None:
    expected = colour_rows()[0]["messages"][-1]["content"]
    endpoint.answer = lambda number, body: completion(expected)
    result = evaluate(world, tuned, "endpoint", {"against": ["endpoint:big"], "max_rows": 4})
    other = result["others"][0]
    assert other["title"] == "big" and "eval_loss" not in other["numbers"]
    assert 0 < other["numbers"]["all_fields"]["value"] < 1


def of_tuned(world: TinyWorld, tuned: RunFolder) -> Any:
    base = AutoModelForCausalLM.from_pretrained(world.base)
    return PeftModel.from_pretrained(base, str(tuned.adapter)).merge_and_unload().eval()


def test_a_gguf_file_has_the_loss_of_the_model_that_it_is(
    world: TinyWorld, tuned: RunFolder
) -> None:
    """Another engine's loss would say nothing; of another template or vocabulary there is none."""
    folder, files = world.root / "models" / "merged", []
    of_tuned(world, tuned).save_pretrained(folder)
    for name, template in (("same", CHATML), ("other", CHATML.replace("|im_start|", "|im_end|"))):
        tiny_tokenizer(template).save_pretrained(folder)
        files.append(world.workspace.uploads / f"{name}.gguf")
        gguf_files.convert(folder, files[-1], "f32", name)
    targets = [f"gguf:{file}" for file in files]
    asked = {"against": targets, "general": False, "max_new_tokens": 2, "compare_base": False}
    result = evaluate(world, tuned, "gguf-loss", asked)
    (same, other), tuned_loss = result["others"], result["tuned"]["eval_loss"]["value"]
    assert same["numbers"]["eval_loss"]["value"] == pytest.approx(tuned_loss, rel=1e-5)
    assert same["numbers"]["perplexity"]["value"] == pytest.approx(math.exp(tuned_loss), rel=1e-5)
    assert "eval_loss" not in other["numbers"]


def test_an_endpoint_that_tells_probabilities_has_a_loss(
    world: TinyWorld, tuned: RunFolder, endpoint: StandIn
) -> None:
    """Only of the same tokens: those of another vocabulary would be another text."""
    model, tokenizer, shift = of_tuned(world, tuned), tiny_tokenizer(), 0

    def complete(number: int, body: dict[str, Any]) -> Any:
        ids = torch.tensor([body["prompt"]])
        logprobs = model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
        told = {
            "tokens": [*(tokenizer.decode([one + shift]) for one in body["prompt"]), "{"],
            "token_logprobs": [None, *logprobs.tolist(), -1.0],
        }
        return 200, {}, {"choices": [{"text": "", "logprobs": told}]}

    endpoint.answer, endpoint.complete = lambda number, body: completion("{}"), complete
    asked: dict[str, Any] = {"against": ["endpoint:big"], "general": False, "max_new_tokens": 2}
    asked["compare_base"] = False
    result = evaluate(world, tuned, "endpoint-loss", asked)
    loss = result["others"][0]["numbers"]["eval_loss"]["value"]
    assert loss == pytest.approx(result["tuned"]["eval_loss"]["value"], rel=1e-5)
    shift = 1
    result = evaluate(world, tuned, "other-tokens", {**asked, "max_rows": 2})
    assert "eval_loss" not in result["others"][0]["numbers"]


@pytest.mark.parametrize(
    "target, said",
    [
        ("nothing", "names no model"),
        ("run:not-there", "There is no run"),
        ("run:tuned-run@checkpoint-9", "has no whole model"),
        ("model:/etc", "outside the folders"),
        ("gguf:/etc/passwd", "outside the folders"),
        ("gguf:ROOT/not-there.gguf", "does not exist"),
        ("model:no/model/so", "neither a folder nor a model's id"),
        ("model:ROOT/runs", "holds no model"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_the_work(
    world: TinyWorld, tuned: RunFolder, target: str, said: str
) -> None:
    workspace = Workspace.open(world.root)
    store, target = Store.open(workspace), target.replace("ROOT", str(world.root))
    with pytest.raises(TunesmithError, match=said):
        submit_evaluation(workspace, store, tuned.root.name, {"against": [target]})
    if target != "nothing":  # as a judge it is a model of the endpoint
        with pytest.raises(TunesmithError, match=said):
            submit_evaluation(workspace, store, tuned.root.name, {"judge": target})


@pytest.mark.parametrize("judge", ["model:nobody/no-model", "unknown"])
def test_a_judge_that_is_not_there_is_told_before_anything_is_answered(
    world: TinyWorld, tuned: RunFolder, endpoint: StandIn, judge: str
) -> None:
    endpoint.answer = lambda number, body: failure(404, "no such model")
    folder = world.task(tuned, "evaluate", f"no-{judge[:5]}", {"judge": judge})
    with pytest.raises(ModelError, match="not on this machine|knows no model unknown"):
        run_evaluation(folder, world.root)
    assert not (folder / kept_answers.NAME).exists()


def test_a_judge_is_asked_in_both_orders(
    world: TinyWorld, tuned: RunFolder, endpoint: StandIn
) -> None:
    """One that likes what stands first decides nothing; one that reads decides; its words are
    kept."""

    def reads(number: int, body: dict[str, Any]) -> Any:
        if len(body["messages"]) == 1:
            return completion("Hello, I am here.")
        shown = json.loads(body["messages"][1]["content"])
        better = "A" if shown["answer A"] == shown["reference answer"] else "B"
        return completion(json.dumps({"why": "it is the same", "better": better}))

    endpoint.answer = lambda number, body: completion('{"why": "first", "better": "A"}')
    first = evaluate(world, tuned, "j1", {"judge": "j"})["judged"]
    assert (first["wins"], first["losses"], first["ties"], first["turned"]) == (0, 0, 6, 6)
    endpoint.answer = reads
    result = evaluate(world, tuned, "j2", {"judge": "j", "rubric": "Only the truth."})
    assert (result["judged"]["wins"], result["judged"]["losses"]) == (6, 0)
    assert "The judge j prefers it on 6 rows" in result["verdict"]
    assert "Only the truth." in endpoint.bodies[-1]["messages"][0]["content"]
    lines = read_json_lines(tuned.evaluations / "j2" / "judged.jsonl")
    assert [line["verdict"] for line in lines] == ["win"] * 6
    assert {order["tuned_first"] for order in lines[0]["orders"]} == {True, False}
    assert "it is the same" in lines[0]["orders"][0]["reply"]


def test_a_judge_that_talks_nonsense_ends_it_with_a_reason(
    world: TinyWorld, tuned: RunFolder, endpoint: StandIn
) -> None:
    endpoint.answer = lambda number, body: completion("I like both.")
    with pytest.raises(ModelError, match="no verdict on any row.*asked twice"):
        evaluate(world, tuned, "j3", {"judge": "j"})


def test_a_judge_is_asked_again_and_what_gives_no_verdict_is_told(
    world: TinyWorld, tuned: RunFolder, endpoint: StandIn
) -> None:
    """One order of the first row is never readable, another one only when asked again, and a
    request is refused."""
    rows = [row["messages"][0]["content"] for row in colour_rows()[::2]]

    def answer(number: int, body: dict[str, Any]) -> Any:
        asked = json.loads(body["messages"][-1]["content"]) if len(body["messages"]) == 2 else {}
        if asked.get("prompt") == rows[2]:
            return failure(400, "not this one")
        is_first = rows[0] in str(body["messages"])
        nonsense = is_first or asked.get("prompt") == rows[1]
        return completion("Hm." if nonsense else '{"better": "tie"}')

    endpoint.answer = answer
    result = evaluate(world, tuned, "j4", {"judge": "j"})
    assert (result["judged"]["ties"], result["judged"]["unread"]) == (4, 2)
    assert any("no verdict on 2 rows; the first: Its reply" in text for text in result["notes"])
    lines = read_json_lines(tuned.evaluations / "j4" / "judged.jsonl")
    assert [line["verdict"] for line in lines] == [None, "tie", None, "tie", "tie", "tie"]
    assert "asked twice" in unpack(lines[0]["orders"][0]["why_not"])
    assert "not this one" in unpack(lines[2]["orders"][0]["why_not"])


@pytest.mark.parametrize("kind", ["model", "run", "gguf"])
def test_a_model_of_this_machine_judges(
    world: TinyWorld, tuned: RunFolder, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """llama.cpp holds it to the form of a verdict, so that even one that has learned nothing of
    judging gives one; what it was asked and what it said can be read."""
    monkeypatch.setenv("TUNESMITH_DEVICE", "cpu")
    monkeypatch.setattr(llama, "LEAST_BYTES", 0)
    name = f"judge-{kind}"
    folder, file = world.workspace.models / name, world.workspace.uploads / "judge.gguf"
    model = tiny_model(max_position_embeddings=2048)
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    if kind == "gguf":
        gguf_files.convert(folder, file, "f16", "judge")
    elif kind == "run":
        run = world.run(name, {"model.model_name_or_path": name})
        tiny_adapter(model).save_pretrained(run.adapter)
    asked = f"{kind}:{file if kind == 'gguf' else name}"
    result = evaluate(world, tuned, f"local-{kind}", {"judge": asked})
    judged = result["judged"]
    assert judged["wins"] + judged["losses"] + judged["ties"] == 6 and judged["unread"] == 0
    lines = read_json_lines(tuned.evaluations / f"local-{kind}" / "judged.jsonl")
    for order in (order for line in lines for order in line["orders"]):
        assert json.loads(order["reply"])["better"] in ("A", "B", "tie")
        assert "answer A" in json.loads(order["asked"])
    with pytest.raises(ModelError, match=r"no verdict on any row.*takes .* the model reads"):
        evaluate(world, tuned, f"long-{kind}", {"judge": asked, "rubric": "Be fair. " * 3000})


def test_llama_cpp_answers_as_the_model_does(
    world: TinyWorld, tuned: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tuned model, its base and another run, and the report says so."""
    monkeypatch.setenv("TUNESMITH_DEVICE", "cpu")
    params = {"against": [f"run:{tuned.root.name}@checkpoint-1"]}
    slow = evaluate(world, tuned, "by-transformers", params)
    monkeypatch.setattr(llama, "LEAST_BYTES", 0)
    fast = evaluate(world, tuned, "by-llama", params)
    assert any("llama.cpp wrote the answers, in float16" in text for text in fast["notes"])
    assert any("wrote the answers of tuned-run, checkpoint-1" in text for text in fast["notes"])
    assert not any("llama.cpp" in text for text in slow["notes"])
    both = [
        read_json_lines(tuned.evaluations / name / "answers.jsonl")
        for name in ("by-transformers", "by-llama")
    ]
    alike = 0
    for one, other in zip(*both, strict=True):
        assert one["tuned"] == other["tuned"]
        assert other["base"][:2] == other["other1"][:2]
        alike += one["base"][:2] == other["base"][:2]
    # Of random weights float16 writes the beginning that float32 does, but where two words are
    # as likely.
    assert alike > len(both[0]) / 2
    assert fast["tuned"]["eval_loss"] == slow["tuned"]["eval_loss"]
    assert len(read_json_lines(tuned.evaluations / "by-llama" / "general.jsonl")) == 40


def test_rows_of_another_data_set_are_all_measured(world: TinyWorld, tuned: RunFolder) -> None:
    file = world.root / "others.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in colour_rows()))
    info = import_dataset(Workspace.open(world.root), [file], name="others", eval_fraction=0.0)
    result = evaluate(world, tuned, "others", {"dataset": info.id})
    assert (result["rows"], result["part"]) == (len(colour_rows()), "other")
    assert result["dataset"]["name"] == "others"
    assert not any("trained on" in text for text in [result["verdict"], *result["notes"]])


def test_general_prompts_are_asked_before_and_after(world: TinyWorld, tuned: RunFolder) -> None:
    result = evaluate(world, tuned, "general")
    assert sum(one["prompts"] for one in result["general"]) == 40
    assert all(one["base"] is not None for one in result["general"])
    lines = read_json_lines(tuned.evaluations / "general" / "general.jsonl")
    assert len(lines) == 40 and {"tuned", "base", "tuned_kept"} <= lines[0].keys()
    assert not evaluate(world, tuned, "without", {"general": False})["general"]


def test_the_report_can_be_taken_along(world: TinyWorld, tuned: RunFolder, tmp_path: Path) -> None:
    evaluate(world, tuned, "document", {"pattern": "colour"})
    folder = tuned.evaluations / "document"
    for ending in ENDINGS:
        write_document(folder, tmp_path / f"report{ending}")
    said = json.loads((tmp_path / "report.json").read_text())["verdict"]
    for ending in (".md", ".html"):
        text = (tmp_path / f"report{ending}").read_text(encoding="utf-8")
        assert said in html.unescape(text)
        assert "Matches the pattern" in text and "Fields right" in text and "Row 1" in text
    assert len(read_json_lines(tmp_path / "report.jsonl")) == 6
    with pytest.raises(DataError, match="cannot be written as .pdf"):
        write_document(folder, tmp_path / "report.pdf")
