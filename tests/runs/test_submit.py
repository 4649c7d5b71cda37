"""What people ask of runs: start, stop, resume, rename, delete; and what is refused, and why."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace

import pytest

from core.config import RunConfig
from core.data.prepare import import_dataset
from core.data.registry import load_dataset_info
from core.errors import ConfigError, ExportError, JobError, ModelError, WorkspaceError
from core.jobs.events import read_events
from core.jobs.job import read_record
from core.jobs.queue import stop_job
from core.jobs.store import Store
from core.rules import load_config, parse_config
from core.runs.curves import curves
from core.runs.records import delete_run, note_run, rename_run
from core.runs.resume import resume_run
from core.runs.submit import submit_evaluation, submit_export, submit_run
from core.setup.extras import EXTRAS
from core.tokens.chat_templates import delete_template, save_template
from tests.jobs.bench import Bench, for_slot
from tests.jobs.fake_jobs import write_checkpoint

CPU = ["cpu"]


def problems(bench: Bench, devices: list[str], **values: object) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        submit_run(bench.workspace, bench.store, parse_config(values), devices=devices)
    assert bench.store.list() == []
    assert list(bench.workspace.runs.iterdir()) == []
    return {problem.field: problem.message for problem in caught.value.problems}


def test_a_run_is_a_folder_and_a_row_in_the_queue(bench: Bench) -> None:
    """The sample data set is there without being asked for: one click must train."""
    job = submit_run(bench.workspace, bench.store, RunConfig(name="first"), devices=CPU)
    assert (job.state, job.name, job.dataset, job.device) == ("queued", "first", "sample", "auto")
    assert job.model == "SmolLM2-135M-Instruct"
    folder = bench.workspace.run(job.id)
    written = load_config(folder.config).values()
    assert written.pop("data.dataset_fingerprint")
    assert written.items() <= RunConfig(name="first").values().items()
    assert read_record(folder.root)["state"] == "queued"
    assert Store.open(bench.workspace).get(job.id) == job


def test_a_run_waits_with_its_own_copy_of_its_chat_template(bench: Bench) -> None:
    """The template is changed or deleted while the run waits in the queue."""
    text = "{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"
    save_template(bench.workspace, "mine", text)
    config = parse_config({"data.chat_template": "mine"})
    job = submit_run(bench.workspace, bench.store, config, devices=CPU)
    delete_template(bench.workspace, "mine")
    assert bench.workspace.run(job.id).chat_template.read_text() == text


def test_a_chat_template_that_is_not_there_is_told_at_its_field(bench: Bench) -> None:
    found = problems(bench, CPU, **{"data.chat_template": "lama3"})
    assert "no chat template 'lama3'. Choose model, or llama3" in found["data.chat_template"]


def test_what_does_not_fit_is_told_at_its_field_before_anything_is_queued(bench: Bench) -> None:
    """A run that fails an hour later for a typing error has cost an hour."""
    assert "cuda:7" in problems(bench, CPU, **{"training.device": "cuda:7"})["training.device"]
    found = problems(bench, CPU, **{"training.precision": "fp16"})
    assert "bf16 or fp32" in found["training.precision"]
    assert "data.dataset" in problems(bench, CPU, **{"data.dataset": "no-such-data"})


def test_fp16_is_right_where_there_is_a_gpu(bench: Bench) -> None:
    """The rule is for CPUs."""
    config = parse_config({"training.precision": "fp16", "training.device": "cuda"})
    devices = ["cuda:0", "cpu"]
    assert submit_run(bench.workspace, bench.store, config, devices=devices).device == "cuda"


def test_evaluation_needs_evaluation_rows(bench: Bench) -> None:
    """Else the trainer stops at the first evaluation."""
    source = bench.workspace.uploads / "rows.jsonl"
    source.parent.mkdir()
    source.write_text('{"text": "one"}\n{"text": "two"}\n')
    info = import_dataset(bench.workspace, [source], eval_fraction=0.0)
    assert info.counts.eval == 0
    config = {"data.dataset": info.id, "evaluation.eval_strategy": "steps"}
    assert "needs held-out rows" in problems(bench, CPU, **config)["evaluation.eval_strategy"]
    without = parse_config({**config, "evaluation.eval_strategy": "no"})
    assert submit_run(bench.workspace, bench.store, without, devices=CPU).dataset == info.id


def test_a_checkpoint_to_begin_from_must_be_in_the_workspace(bench: Bench) -> None:
    """Its optimizer state is read as a pickle: not from anywhere."""
    with pytest.raises(WorkspaceError, match="outside"):
        submit_run(bench.workspace, bench.store, RunConfig(), resume_from="/etc", devices=CPU)
    inside = bench.workspace.runs / "old" / "checkpoints" / "checkpoint-1"
    write_checkpoint(inside, 1)
    job = submit_run(
        bench.workspace, bench.store, RunConfig(), resume_from=str(inside), devices=CPU
    )
    assert job.params == {"device": "auto", "resume_from": str(inside)}


def test_a_waiting_run_is_cancelled(bench: Bench) -> None:
    """It has nothing to save, and must not begin after all."""
    job = bench.add(steps=1)
    assert stop_job(bench.workspace, bench.store, job.id).state == "stopped"
    assert read_events(bench.folder(job) / "events.jsonl")[-1]["reason"] == "cancelled"
    assert read_record(bench.folder(job))["state"] == "stopped"
    after = bench.add(steps=1)
    bench.scheduler()
    bench.wait_state(after, "finished")
    assert bench.store.get(job.id).state == "stopped"
    with pytest.raises(JobError, match="not running"):
        stop_job(bench.workspace, bench.store, job.id)


def test_a_stop_before_the_worker_is_ready_is_heeded(bench: Bench) -> None:
    """The first worker takes ten seconds to come, and people change their minds in less."""
    job = bench.add(steps=3)
    claimed = bench.store.claim(choose=for_slot("cpu"), owner=(os.getpid(), 0.0))
    assert claimed is not None
    stop_job(bench.workspace, bench.store, job.id)
    bench.scheduler()  # adopts it, since no process of that start time exists
    bench.wait_state(job, "stopped")
    assert not curves(bench.folder(job))


def test_a_died_run_goes_on_from_its_last_checkpoint(bench: Bench) -> None:
    """Same run, same folder, one curve."""
    job = bench.add(steps=4, gated=True, save=True)
    bench.scheduler()
    bench.allow(job, 2)
    before = bench.wait_step(job, 2)
    os.kill(before.pid or 0, signal.SIGKILL)
    bench.wait_state(job, "died")
    bench.allow(job, 4)
    again = resume_run(bench.workspace, bench.store, job.id)
    assert (again.id, again.error, again.signal, again.ended_at) == (job.id, None, None, None)
    assert again.earlier_seconds > 0
    done = bench.wait_state(job, "finished")
    assert done.pid != before.pid
    assert "begins after step 2" in (bench.folder(job) / "worker.log").read_text()
    assert [step for step, _ in curves(bench.folder(job))["loss"]] == [1, 2, 3, 4]


def test_a_broken_last_checkpoint_is_not_resumed_from(bench: Bench) -> None:
    """The kill came while it saved: the one before it is whole, and the log says so."""
    job = bench.add(steps=3, save=True, behaviour="raise")
    bench.scheduler()
    bench.wait_state(job, "failed")
    (bench.folder(job) / "checkpoints/checkpoint-3/trainer_state.json").unlink()
    assert resume_run(bench.workspace, bench.store, job.id).step == 2
    bench.wait_state(job, "failed")
    assert "begins after step 2" in (bench.folder(job) / "worker.log").read_text()
    messages = [
        event.get("message", "") for event in read_events(bench.folder(job) / "events.jsonl")
    ]
    assert any("checkpoint-3 cannot be used" in message for message in messages)


def test_a_stopped_run_can_be_stopped_and_resumed_again(bench: Bench) -> None:
    """The stop request of the first time must not end the second attempt at once."""
    job = bench.add(steps=3, gated=True)
    bench.scheduler()
    for step in (1, 2):
        bench.allow(job, step)
        bench.wait_step(job, step)
        stop_job(bench.workspace, bench.store, job.id)
        bench.wait_state(job, "stopped")
        bench.allow(job, step + 1)
        resume_run(bench.workspace, bench.store, job.id)
    bench.wait_state(job, "finished")
    assert [step for step, _ in curves(bench.folder(job))["loss"]] == [1, 2, 3]


def test_a_resumed_run_takes_the_device_it_asked_for(bench: Bench) -> None:
    """Not the one it happened to get: with auto, the next free one will do."""
    job = bench.add(steps=2, gated=True, save=True)
    first = bench.scheduler(devices=["cuda:1", "cpu"])
    bench.allow(job, 1)
    assert bench.wait_step(job, 1).device == "cuda:1"
    stop_job(bench.workspace, bench.store, job.id)
    bench.wait_state(job, "stopped")
    first.close()
    bench.allow(job, 2)
    assert resume_run(bench.workspace, bench.store, job.id).device == "auto"
    bench.scheduler(devices=["cpu"])
    assert bench.wait_state(job, "finished").device == "cpu"


def test_what_cannot_be_resumed_says_why(bench: Bench) -> None:
    """And what to do instead."""
    job = bench.add()
    with pytest.raises(JobError, match="is queued and cannot"):
        resume_run(bench.workspace, bench.store, job.id)
    bench.store.transition(job.id, {"queued"}, "died")
    with pytest.raises(JobError, match="no checkpoint"):
        resume_run(bench.workspace, bench.store, job.id)
    bench.store.transition(job.id, {"died"}, "finished")
    with pytest.raises(JobError, match="finished and cannot"):
        resume_run(bench.workspace, bench.store, job.id)


def test_delete_removes_the_run_with_all_that_belongs_to_it(bench: Bench) -> None:
    """Disk space is what people delete for; a row without a folder would come back to haunt."""
    job = bench.add(steps=1)
    task = bench.add("export", run_id=job.id)
    other = bench.add()
    delete_run(bench.workspace, bench.store, job.id)
    assert [item.id for item in bench.store.list()] == [other.id]
    assert [path.name for path in bench.workspace.runs.iterdir()] == [other.id]
    assert bench.store.rebuild(bench.workspace) == 0
    with pytest.raises(JobError, match="no run"):
        delete_run(bench.workspace, bench.store, task.run_id)


def test_a_run_at_work_is_not_deleted(bench: Bench) -> None:
    """Neither while it trains nor while it is being exported."""
    run = bench.add(steps=1)
    bench.scheduler()
    bench.wait_state(run, "finished")
    task = bench.add("export", run_id=run.id, gated=True)
    bench.wait_state(task, "running")
    with pytest.raises(JobError, match="Export: running"):
        delete_run(bench.workspace, bench.store, run.id)
    bench.allow(task, 1)
    bench.wait_state(task, "finished")
    delete_run(bench.workspace, bench.store, run.id)


def test_names_and_notes_stay_with_the_folder(bench: Bench) -> None:
    """A run copied to another machine keeps what was written on it."""
    job = bench.add()
    assert rename_run(bench.workspace, bench.store, job.id, "  tickets v2 ").name == "tickets v2"
    assert note_run(bench.workspace, bench.store, job.id, "best so far").note == "best so far"
    record = read_record(bench.folder(job))
    assert (record["name"], record["note"]) == ("tickets v2", "best so far")
    assert rename_run(bench.workspace, bench.store, job.id, "").name == job.id
    with pytest.raises(JobError, match="too long"):
        rename_run(bench.workspace, bench.store, job.id, "x" * 81)


def test_evaluations_and_exports_lie_in_their_runs_folder(bench: Bench) -> None:
    """All of a run is in one place."""
    run = submit_run(bench.workspace, bench.store, RunConfig(), devices=CPU)
    with pytest.raises(ModelError, match="no whole model 'final'"):
        submit_evaluation(bench.workspace, bench.store, run.id, {"max_rows": 5})
    write_checkpoint(bench.folder(run) / "checkpoints/checkpoint-20", 20)
    chosen = {"checkpoint": "checkpoint-20"}
    evaluation = submit_evaluation(bench.workspace, bench.store, run.id, chosen)
    asked = {"format": "adapter", **chosen}
    export = submit_export(bench.workspace, bench.store, run.id, asked)
    assert evaluation.folder == f"runs/{run.id}/evaluations/{evaluation.id}"
    assert export.folder == f"runs/{run.id}/exports/{export.id}"
    assert read_record(bench.folder(evaluation))["params"] == chosen
    assert {job.id for job in bench.store.list(run_id=run.id)} == {
        run.id,
        evaluation.id,
        export.id,
    }
    with pytest.raises(JobError, match="no run"):
        submit_export(bench.workspace, bench.store, evaluation.id, asked)
    for wrong, said in (
        ({"format": "tarball"}, "no format 'tarball'. Take adapter, "),
        ({"format": "merged", "dtype": "int3"}, "'int3' is no choice for dtype. Take auto, "),
        ({"format": "merged", "dtype": ["float16", "auto"]}, "Choose one dtype"),
        ({"format": "gguf", "quantization": ["q8_0", "Q9"]}, "'Q9' is no choice for quantiz"),
        ({"format": "gguf", "quantization": []}, "Choose at least one"),
    ):
        with pytest.raises(ExportError, match=said):
            submit_export(bench.workspace, bench.store, run.id, {**chosen, **wrong})


def test_an_export_whose_packages_are_missing_says_how_to_have_them(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would wait its turn and then fail."""
    run = submit_run(bench.workspace, bench.store, RunConfig(), devices=CPU)
    write_checkpoint(bench.folder(run) / "checkpoints/checkpoint-20", 20)
    monkeypatch.setitem(EXTRAS, "gguf", replace(EXTRAS["gguf"], import_name="not_here"))
    asked = {"format": "gguf", "checkpoint": "checkpoint-20"}
    with pytest.raises(ExportError, match="xllamacpp, .* is not installed. Install it with: "):
        submit_export(bench.workspace, bench.store, run.id, asked)


def test_rows_of_a_form_that_the_method_cannot_learn_from_are_refused(
    bench: Bench,
) -> None:
    """Preference pairs trained as plain text would teach both answers."""
    path = bench.workspace.root / "pairs.jsonl"
    row = {"prompt": "P", "chosen": "good", "rejected": "bad"}
    path.write_text(f"{json.dumps(row)}\n" * 4, encoding="utf-8")
    pairs = import_dataset(bench.workspace, [path])
    values = {"data.dataset": pairs.id, "evaluation.eval_strategy": "no"}
    assert "preference rows" in problems(bench, CPU, **values)["data.dataset"]


def test_a_run_learns_from_the_rows_as_they_were_when_it_was_started(
    bench: Bench,
) -> None:
    info = load_dataset_info(bench.workspace, "sample")
    job = submit_run(bench.workspace, bench.store, RunConfig(), devices=CPU)
    written = load_config(bench.workspace.run(job.id).config)
    assert written.data.dataset_fingerprint == info.fingerprint
