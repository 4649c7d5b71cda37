"""A model on this machine writes rows in the process that does the work."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.data.drafts.review import read_drafts
from core.data.drafts.run import run_drafts
from core.data.drafts.settings import draft_settings
from core.data.drafts.tasks import begin, load_task
from core.errors import DataError, ModelError
from core.worker.local_writer import LocalModel
from tests.tiny_model import TinyWorld, tiny_adapter, tiny_model, tiny_tokenizer, tiny_world

ROOT = Path(__file__).parents[3]
LOCAL: dict[str, Any] = {"source": "local", "model": "tiny", "max_new_tokens": 12}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TinyWorld]:
    yield tiny_world(tmp_path_factory.mktemp("local") / "workspace")


def run(world: TinyWorld, progress: Any = None, **settings: Any) -> Any:
    task = begin(world.workspace, world.dataset.id, {**LOCAL, **settings})
    try:
        return run_drafts(world.root, world.dataset.id, task.id, progress)
    except DataError:
        return load_task(world.workspace, world.dataset.id, task.id)


def test_any_text_is_the_worse_answer_of_a_pair(world: TinyWorld) -> None:
    """The data set's own answer is the better one."""
    done = run(world, kind="preference_pairs", rows=4)
    assert done.state == "finished" and done.tally.drafts == done.tally.requests == 4
    assert done.tally.cost == 0 and 4 <= done.tally.output_tokens <= 4 * 12
    drafts, _ = read_drafts(world.workspace, world.dataset.id, done.id)
    for draft in drafts:
        chosen = draft.row["chosen"][0]["content"]
        assert chosen.startswith('{"colour"') and draft.row["rejected"][0]["content"] != chosen
    assert len({draft.seeds for draft in drafts}) == 4


def test_an_answer_that_ran_into_its_length_is_no_draft(world: TinyWorld) -> None:
    """Half an answer teaches to stop in the middle; it is counted instead."""
    done = run(world, kind="answer_prompts", rows=2, max_new_tokens=8, temperature=1.5)
    assert done.tally.requests >= 1
    unusable = sum(done.tally.unusable.values())
    assert done.tally.drafts + unusable + done.tally.duplicates == done.tally.requests
    assert set(done.tally.unusable) <= {"the reply was cut at its longest length"}


def test_garbage_of_a_small_model_is_counted(world: TinyWorld) -> None:
    folder = world.workspace.models / "long"
    tiny_model(max_position_embeddings=2048).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    done = run(world, model="long", rows=3, examples=1)
    assert done.state == "failed" and "gave no new row" in done.reason
    assert done.tally.requests == 10 == sum(done.tally.unusable.values())
    assert done.tally.output_tokens >= 10 and done.tally.drafts == 0


def test_a_request_longer_than_the_model_reads_is_told(world: TinyWorld) -> None:
    done = run(world, rows=3, examples=1)
    assert done.state == "failed" and done.tally.tokens == 0
    (reason,) = done.tally.unusable
    assert "more tokens than the model reads; show it fewer example rows" in reason


def test_a_run_s_own_model_writes(world: TinyWorld) -> None:
    """A tuned model can make the pairs that it is then trained on."""
    folder = world.run("20261122-0700-tuned-fox")
    tiny_adapter(tiny_model()).save_pretrained(folder.adapter)
    done = run(world, kind="preference_pairs", rows=1, model="20261122-0700-tuned-fox")
    assert done.state == "finished" and done.tally.drafts == 1


def test_a_stop_takes_effect_within_an_answer(world: TinyWorld) -> None:
    calls: list[str] = []

    class Stop(Exception):
        pass

    def stop_in_the_middle(fraction: float, message: str) -> None:
        calls.append(message)
        if any("drafts" in said for said in calls):
            raise Stop

    task = begin(
        world.workspace,
        world.dataset.id,
        {**LOCAL, "kind": "preference_pairs", "rows": 9, "max_new_tokens": 200, "temperature": 0},
    )
    with pytest.raises(Stop):
        run_drafts(world.root, world.dataset.id, task.id, stop_in_the_middle)
    stopped = load_task(world.workspace, world.dataset.id, task.id)
    assert stopped.state == "stopped" and stopped.tally.requests < 9
    assert "Loading tiny" in calls


def test_a_model_that_is_not_there_is_an_error(world: TinyWorld) -> None:
    task = begin(world.workspace, world.dataset.id, {**LOCAL, "model": "./nowhere"})
    with pytest.raises(Exception, match="nowhere") as caught:
        run_drafts(world.root, world.dataset.id, task.id)
    assert not isinstance(caught.value, AssertionError)
    failed = load_task(world.workspace, world.dataset.id, task.id)
    assert failed.state == "failed" and "nowhere" in failed.reason
    with pytest.raises(ModelError):
        LocalModel(world.workspace, draft_settings({**LOCAL, "model": "no such model"}))


def test_an_endpoint_task_needs_no_torch() -> None:
    """The page and the shell stay small."""
    code = (
        "import sys, core.data.drafts.run, core.data.drafts.review, core.commands.data_drafts\n"
        "assert not {'torch', 'transformers', 'httpx2'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
