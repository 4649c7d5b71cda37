"""An import is whole or not there at all, and no row goes missing without being counted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from core.data.prepare import ensure_sample, import_dataset
from core.data.record import LISTED_DROPS, DatasetInfo
from core.data.registry import list_datasets, load_dataset_info, read_rows
from core.errors import DataError, WorkspaceError
from core.workspace import Workspace

ROOT = Path(__file__).parents[2]


def write_rows(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def questions(count: int, start: int = 0) -> list[dict[str, str]]:
    return [{"prompt": f"Question {n}", "answer": f"Answer {n}"} for n in range(start, count)]


def answers(workspace: Workspace, info: DatasetInfo, part: str) -> list[str]:
    rows = read_rows(workspace, info.id, part, limit=10**6)
    return [row["completion"][0]["content"] for row in rows]


def left_behind(workspace: Workspace) -> list[str]:
    return sorted(path.name for path in workspace.datasets.iterdir())


def test_an_import_tells_all_of_itself(open_workspace: Workspace, tmp_path: Path) -> None:
    path = write_rows(
        tmp_path / "My Tickets!.jsonl", [*questions(20), {"prompt": "", "answer": "x"}]
    )
    heard: list[tuple[float, str]] = []
    info = import_dataset(
        open_workspace,
        [path],
        system_prompt="Be brief.",
        task={"fields": []},
        progress=lambda fraction, message: heard.append((fraction, message)),
    )
    assert (info.id, info.name, info.form) == ("my-tickets", "My Tickets!", "prompt-completion")
    assert info.counts.model_dump() == {"read": 21, "train": 18, "eval": 2, "test": 0, "dropped": 1}
    assert [(drop.line, drop.part, drop.reason) for drop in info.dropped] == [
        (21, "train", "the prompt is empty")
    ]
    assert info.sources[0].rows == 21 and len(info.sources[0].sha256) == 64
    assert info.mapping == {"prompt": "prompt", "completion": "answer"}
    assert info.task == {"fields": []} and info.created_at and len(info.fingerprint) == 64
    assert info == load_dataset_info(open_workspace, "my-tickets")
    assert left_behind(open_workspace) == ["my-tickets"]
    files = sorted(str(p.relative_to(info.folder)) for p in info.folder.rglob("*") if p.is_file())
    assert files == [
        "dataset.json",
        "imported/train.parquet",
        "versions/1/eval.parquet",
        "versions/1/train.parquet",
    ]
    assert [step.step["op"] for step in info.steps] == ["split"]
    assert read_rows(open_workspace, info.id, limit=1)[0]["prompt"][0] == {
        "role": "system",
        "content": "Be brief.",
    }
    fractions = [fraction for fraction, _ in heard]
    assert fractions == sorted(fractions) and fractions[-1] == 1.0
    assert heard[0][1] == "Reading My Tickets!.jsonl"


def test_the_same_seed_gives_the_same_split(open_workspace: Workspace, tmp_path: Path) -> None:
    """A comparison of two runs means nothing if their held-out rows differ."""
    path = write_rows(tmp_path / "t.jsonl", questions(2500))
    first, second, other = (
        import_dataset(open_workspace, [path], eval_fraction=0.2, seed=seed) for seed in (1, 1, 2)
    )
    held_out = answers(open_workspace, first, "eval")
    kept = answers(open_workspace, first, "train")
    assert len(held_out) == 500
    assert sorted(held_out + kept) == sorted(row["answer"] for row in questions(2500))
    assert answers(open_workspace, second, "eval") == held_out
    assert second.fingerprint == first.fingerprint
    assert answers(open_workspace, other, "eval") != held_out
    assert other.fingerprint != first.fingerprint


def test_a_second_file_is_held_out_whole(open_workspace: Workspace, tmp_path: Path) -> None:
    train = write_rows(tmp_path / "train.jsonl", questions(5))
    held_out = write_rows(
        tmp_path / "eval.jsonl", [{"instruction": "Q", "output": "A"}, {"instruction": "Q"}]
    )
    info = import_dataset(open_workspace, [train], eval_source=held_out)
    assert info.counts.model_dump() == {"read": 7, "train": 5, "eval": 1, "test": 0, "dropped": 1}
    assert answers(open_workspace, info, "eval") == ["A"]
    assert answers(open_workspace, info, "train") == [row["answer"] for row in questions(5)]
    assert (info.dropped[0].part, info.dropped[0].file) == ("eval", "eval.jsonl")
    assert info.split.eval_source == "eval.jsonl" and info.split.eval_fraction == 0


def test_an_eval_file_of_another_form_is_refused(open_workspace: Workspace, tmp_path: Path) -> None:
    train = write_rows(tmp_path / "train.jsonl", questions(5))
    held_out = write_rows(tmp_path / "eval.jsonl", [{"text": "t"}])
    with pytest.raises(DataError, match=r"eval.jsonl holds text rows"):
        import_dataset(open_workspace, [train], eval_source=held_out)
    assert left_behind(open_workspace) == []


def test_several_files_are_one_set(open_workspace: Workspace, tmp_path: Path) -> None:
    csv = tmp_path / "b.csv"
    csv.write_text("prompt,answer\nQ,A\nQ\n", encoding="utf-8")
    one = write_rows(tmp_path / "a.jsonl", questions(3))
    info = import_dataset(open_workspace, [one, csv], eval_fraction=0)
    assert info.counts.model_dump() == {"read": 5, "train": 4, "eval": 0, "test": 0, "dropped": 1}
    assert [(source.file, source.rows) for source in info.sources] == [("a.jsonl", 3), ("b.csv", 2)]
    assert answers(open_workspace, info, "train")[-1] == "A"
    assert info.parts == ("train",)


def test_two_imports_of_one_name_at_once_both_stand(
    open_workspace: Workspace, tmp_path: Path
) -> None:
    """Two people on one machine bring data.jsonl: neither may lose or mix rows."""
    paths = []
    for person in range(6):
        (tmp_path / str(person)).mkdir()
        row = {"prompt": "Who?", "answer": f"person {person}"}
        paths.append(write_rows(tmp_path / str(person) / "data.jsonl", [row] * 50))
    ready = threading.Barrier(len(paths))
    infos: list[DatasetInfo] = []

    def bring(path: Path) -> None:
        ready.wait()
        infos.append(import_dataset(open_workspace, [path]))

    threads = [threading.Thread(target=bring, args=(path,)) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {info.id for info in infos} == {"data", *(f"data-{n}" for n in range(2, 7))}
    people = [set(answers(open_workspace, info, "train")) for info in infos]
    assert sorted(people, key=str) == [{f"person {n}"} for n in range(6)]
    assert len(left_behind(open_workspace)) == 6


@pytest.mark.parametrize(
    ("name", "expected"), [("Größe", "groe"), ("データ", "data"), ("sample", "sample-2")]
)
def test_ids_can_be_folders(
    open_workspace: Workspace, tmp_path: Path, name: str, expected: str
) -> None:
    path = write_rows(tmp_path / "t.jsonl", questions(2))
    assert import_dataset(open_workspace, [path], name=name).id == expected


def test_many_dropped_rows_are_counted_and_the_first_listed(
    open_workspace: Workspace, tmp_path: Path
) -> None:
    path = write_rows(tmp_path / "t.jsonl", [*questions(1), *[{"prompt": "x"}] * 1500])
    info = import_dataset(open_workspace, [path])
    assert info.counts.dropped == 1500
    assert len(info.dropped) == LISTED_DROPS == 1000


@pytest.mark.parametrize(
    ("rows", "settings", "message"),
    [
        ([{"prompt": "x", "answer": ""}] * 3, {}, r"the answer is empty \(3\)"),
        ([{"text": "t"}], {"system_prompt": "S"}, "no place for a system prompt"),
        (questions(3), {"eval_fraction": 1.0}, "eval fraction of 1.0"),
        (questions(3), {"form": "messages"}, "column for messages"),
        ([{"prompt": "p", "chosen": "c", "rejected": "c"}], {}, "are the same"),
        ([1, 2], {}, "no row that can be read"),
    ],
)
def test_an_import_that_cannot_be_leaves_nothing(
    open_workspace: Workspace,
    tmp_path: Path,
    rows: list[Any],
    settings: dict[str, Any],
    message: str,
) -> None:
    path = write_rows(tmp_path / "t.jsonl", rows)
    with pytest.raises(DataError, match=message) as caught:
        import_dataset(open_workspace, [path], **settings)
    assert caught.value.hint
    assert left_behind(open_workspace) == []


def test_a_file_that_breaks_in_the_middle_leaves_nothing(
    open_workspace: Workspace, tmp_path: Path
) -> None:
    path = tmp_path / "t.json"
    path.write_text(json.dumps(questions(3000))[:-20], encoding="utf-8")
    with pytest.raises(DataError, match="not valid JSON"):
        import_dataset(open_workspace, [path])
    assert left_behind(open_workspace) == []


def test_stopping_an_import_leaves_nothing(open_workspace: Workspace, tmp_path: Path) -> None:
    class StoppedError(Exception):
        pass

    def stop(fraction: float, message: str) -> None:
        if fraction > 0.3:
            raise StoppedError

    path = write_rows(tmp_path / "t.jsonl", questions(20_000))
    with pytest.raises(StoppedError):
        import_dataset(open_workspace, [path], progress=stop)
    assert left_behind(open_workspace) == []


def test_files_outside_the_allowed_folders_are_not_read(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Also not through a link: who may use the page may not read every file of the machine."""
    workspace = Workspace.open(tmp_path / "workspace")
    secret = write_rows(tmp_path_factory.mktemp("other") / "secret.jsonl", questions(3))
    link = workspace.root / "link.jsonl"
    link.symlink_to(secret)
    inside = write_rows(workspace.root / "t.jsonl", questions(3))
    for path in (secret, link, workspace.root / "none.jsonl"):
        with pytest.raises(WorkspaceError):
            import_dataset(workspace, [path])
        with pytest.raises(WorkspaceError):
            import_dataset(workspace, [inside], eval_source=path)
    with pytest.raises(WorkspaceError):
        import_dataset(workspace, [workspace.root])  # the folder holds the link


CHILD = """
import os, resource, signal, sys
from pathlib import Path
from core.data.prepare import import_dataset
from core.errors import DataError
from core.workspace import Workspace
how, root, path = sys.argv[1:]
workspace = Workspace.open(root, allowed=[Path(path).parent])

def killed(fraction, message):
    if fraction > 0.5:
        os.kill(os.getpid(), signal.SIGKILL)

if how == "full":
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    import_dataset(workspace, [path], progress=killed if how == "killed" else None)
except DataError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="uses POSIX limits and signals")
@pytest.mark.parametrize("how", ["full", "killed"])
def test_a_full_disk_or_a_kill_registers_nothing(
    open_workspace: Workspace, tmp_path: Path, how: str
) -> None:
    """Half a data set that looks whole would train on half the rows."""
    rows = [
        {"prompt": f"Question {n}", "answer": f"{n * 7919 % 10007} " * 20} for n in range(20_000)
    ]
    path = write_rows(tmp_path / "t.jsonl", rows)
    command = [sys.executable, "-c", CHILD, how, str(open_workspace.root), str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if how == "full":
        assert done.returncode == 0, done.stderr
        assert "could not be written: File too large" in done.stdout
        assert "free space" in done.stdout
        assert left_behind(open_workspace) == []
    else:
        assert done.returncode == -9
    assert list_datasets(open_workspace) == []
    assert import_dataset(open_workspace, [path]).id == "t"


def test_what_was_left_behind_long_ago_is_cleared(
    open_workspace: Workspace, tmp_path: Path
) -> None:
    """Killed imports must not fill the disk; one that is under way must not be touched."""
    for name in (".import-old", ".deleted-old", ".import-new", ".mine-old", "set-old"):
        (open_workspace.datasets / name).mkdir()
        if name.endswith("old"):
            os.utime(open_workspace.datasets / name, (0, 0))
    import_dataset(open_workspace, [write_rows(tmp_path / "t.jsonl", questions(2))])
    assert left_behind(open_workspace) == [".import-new", ".mine-old", "set-old", "t"]


def test_the_sample_is_imported_once(open_workspace: Workspace) -> None:
    first = ensure_sample(open_workspace)
    assert (first.id, first.form) == ("sample", "messages")
    assert first.counts.eval == 40 and first.counts.dropped == 0
    assert first.task and first.task["fields"]
    assert ensure_sample(open_workspace) == first


def test_the_sample_asked_for_at_once_is_one(open_workspace: Workspace) -> None:
    """The page and a command may both start with it."""
    ready = threading.Barrier(4)
    infos: list[DatasetInfo] = []

    def ask() -> None:
        ready.wait()
        infos.append(load_dataset_info(open_workspace, "sample"))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [info.id for info in infos] == ["sample"] * 4
    assert left_behind(open_workspace) == ["sample"]


def test_importing_needs_no_torch() -> None:
    """The web process imports these modules: with torch it would open in ten seconds, not five."""
    code = (
        "import sys, core.data.registry, core.data.prepare, core.data.inspection;"
        "import core.tokens.preview;"
        "print([m for m in ('torch', 'transformers', 'datasets', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
