"""What is pushed must be what lies here, all of it and nothing else, and be sent once."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.workspace import RunFolder
from tests.hub.conftest import FILES, Client, environment, exported
from tests.hub.stand_in import FINE, READS, Entry, Hub
from tests.waiting import LIMIT
from tests.warm_python import with_commands

Push = Callable[..., dict[str, Any]]
LARGE = "adapter_model.safetensors"


def downloaded(hub: Hub, home: Path, repo: str, **how: str) -> dict[str, bytes]:
    """What plain huggingface_hub gets, as a person who uses the model."""
    code = (
        "import sys, json; from huggingface_hub import snapshot_download; "
        "print(snapshot_download(sys.argv[1], **json.loads(sys.argv[2])))"
    )
    done = subprocess.run(
        [with_commands(), "-c", code, repo, json.dumps(how)],
        env=environment(hub, home),
        capture_output=True,
        text=True,
        check=True,
    )
    folder = Path(done.stdout.splitlines()[-1])
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def test_what_is_pushed_can_be_downloaded_as_it_was(hub: Hub, client: Client, push: Push) -> None:
    result = push("ada/a-run")
    assert result["state"] == "finished", result
    assert result["url"] == f"{hub.endpoint}/ada/a-run" and result["sent"] == len(FILES)
    found = downloaded(hub, client.home, "ada/a-run")
    assert found.pop(".gitattributes") and found == FILES
    assert hub.repository("ada/a-run").titles[-1] == "Push adapter of run a-run with Tunesmith"
    assert not hub.repository("ada/a-run").private
    assert len(hub.uploads()) == 1, "the small files go with the commit"


def test_a_second_push_sends_what_changed_alone(hub: Hub, run: RunFolder, push: Push) -> None:
    push("ada/a-run", message="the first")
    hub.asked.clear()
    again = push("ada/a-run")
    assert again["sent"] == 0 and "all of it already" in again["told"] and again["commit"] is None
    assert not [one for one in hub.asked if one.startswith(("PUT", "POST"))]
    exported(run, "second", **{"adapter_config.json": b'{"r": 8}', "new.bin": b"\0" * 9})
    plan = push("ada/a-run", do="plan", export="second")
    states = {one["path"]: one["state"] for one in plan["files"]}
    assert states == dict.fromkeys(FILES, "same") | {
        "adapter_config.json": "changed",
        "new.bin": "new",
    }
    assert plan["bytes_to_send"] == 17
    result = push("ada/a-run", export="second")
    assert result["sent"] == 2 and len(hub.uploads()) == 1
    there = hub.repository("ada/a-run")
    assert there.files()["adapter_config.json"] == b'{"r": 8}' and there.files()[LARGE]
    assert there.titles[1] == "the first"


def test_a_plan_changes_nothing(hub: Hub, push: Push) -> None:
    plan = push("lab/a-run", do="plan", private=True, branch="first-try")
    assert hub.repositories == {} and not any(one.startswith("P") for one in hub.asked)
    assert (plan["exists"], plan["private"], plan["branch_exists"]) == (False, True, False)
    assert plan["account"] == "ada" and plan["url"] == f"{hub.endpoint}/lab/a-run"
    assert {one["path"]: one["size_bytes"] for one in plan["files"]} == {
        path: len(content) for path, content in FILES.items()
    }


def test_what_is_only_there_stays_and_is_told(hub: Hub, push: Push) -> None:
    hub.add("ada/a-run").commit("main", {"old.bin": Entry(b"old", True)}, "old")
    assert push("ada/a-run", do="plan")["others"] == 1
    push("ada/a-run")
    assert hub.repository("ada/a-run").files()["old.bin"] == b"old"


def test_a_private_repository_is_private_from_the_beginning(hub: Hub, push: Push) -> None:
    assert push("ada/a-run", private=True)["private"]
    assert hub.repository("ada/a-run").private
    assert push("ada/a-run")["private"], "it stays what it is"


def test_nothing_is_published_that_was_to_be_private(hub: Hub, push: Push) -> None:
    there = hub.add("ada/a-run")
    refused = push("ada/a-run", private=True)
    assert "is there already and public" in refused["error"] and len(there.titles) == 1


def test_a_branch_is_made_and_main_stays(hub: Hub, client: Client, push: Push) -> None:
    result = push("ada/a-run", branch="try/2")
    assert result["branch"] == "try/2"
    there = hub.repository("ada/a-run")
    assert set(there.files()) == {".gitattributes"} and LARGE in there.files("try/2")
    assert downloaded(hub, client.home, "ada/a-run", revision="try/2")[LARGE] == FILES[LARGE]
    assert push("ada/a-run", branch="try/2")["sent"] == 0


def test_a_pull_request_may_go_to_a_repository_of_others(hub: Hub, push: Push) -> None:
    there = hub.add("grace/model")
    result = push("grace/model", create_pr=True)
    assert result["pull_request"] == f"{hub.endpoint}/grace/model/discussions/1"
    assert result["pull_request"] in result["told"]
    assert LARGE not in there.files() and there.files("refs/pr/1")[LARGE] == FILES[LARGE]
    missing = push("ada/nothing", create_pr=True)
    assert "no repository ada/nothing to ask" in missing["error"]


def test_a_broken_push_goes_on_where_it_was(hub: Hub, push: Push) -> None:
    hub.fails("POST /api/models/ada/a-run/commit", cut=True)
    broken = push("ada/a-run")
    assert "broke off" in broken["error"] and "not sent again" in broken["hint"]
    assert len(hub.uploads()) == 1
    assert push("ada/a-run")["state"] == "finished"
    assert len(hub.uploads()) == 1, "the large file was there"
    assert hub.repository("ada/a-run").files()[LARGE] == FILES[LARGE]


def test_an_upload_that_is_cut_off_is_sent_again(hub: Hub, push: Push) -> None:
    hub.fails("PUT /upload/", cut=True)
    assert push("ada/a-run")["state"] == "finished"
    assert len(hub.uploads()) == 2
    assert hub.repository("ada/a-run").files()[LARGE] == FILES[LARGE]


def test_a_stop_ends_an_upload_in_the_middle(
    hub: Hub, client: Client, workspace: Path, push: Push
) -> None:
    held = hub.fails("PUT /upload/", hold=True)
    settings = {"repo_id": "ada/a-run"}
    client.begin(do="push", workspace=str(workspace), run="a-run", settings=settings)
    folder = Path(client.line()["folder"])
    assert held.reached.wait(LIMIT)
    (folder / "STOP").touch()
    assert client.end()["state"] == "stopped"
    assert set(hub.repository("ada/a-run").files()) == {".gitattributes"}, "nothing half done"
    assert push("ada/a-run")["state"] == "finished"


@pytest.mark.parametrize("where", ["repos/create", "commit/main", "preupload/main"])
def test_too_many_requests_are_waited_for(hub: Hub, push: Push, where: str) -> None:
    hub.fails(where, status=429, headers={"Retry-After": "0"})
    assert push("ada/a-run")["state"] == "finished"
    assert sum(where in one for one in hub.asked) >= 2


@pytest.mark.parametrize(
    ("fault", "error", "hint"),
    [
        (
            {"where": "/api/models/ada/a-run/tree", "status": 401},
            "does not accept your token",
            "settings/tokens",
        ),
        (
            {"where": "/commit/", "status": 403, "message": "no hf_secret123 here"},
            "may not write to ada/a-run: no (token) here",
            "pull request",
        ),
        ({"where": "/commit/", "status": 404}, "no repository ada/a-run", "Look at its name"),
        ({"where": "/commit/", "status": 409}, "changed by somebody else", "Try again in a while"),
        ({"where": "/commit/", "status": 400, "message": "too odd"}, "HTTP 400): too odd", "Mend"),
        ({"where": "/commit/", "status": 503}, "a fault of its own (HTTP 503)", "not sent again"),
        (
            {"where": "GET /api/models/ada/a-run", "status": 429, "headers": {"Retry-After": "7"}},
            "too many requests",
            "in 7 s",
        ),
        ({"where": "GET /api/models/ada/a-run", "cut": True}, "broke off", "Try again in a while"),
    ],
    ids=lambda one: str(one.get("status", "cut")) if isinstance(one, dict) else "",
)
def test_each_refusal_says_what_to_do(
    hub: Hub, push: Push, fault: dict[str, Any], error: str, hint: str
) -> None:
    hub.add("ada/a-run")
    hub.fails(**fault)
    refused = push("ada/a-run")
    assert error in refused["error"] and hint in refused["hint"], refused
    assert refused["type"] == "HubError"


def test_a_repository_that_is_hidden_or_of_others(hub: Hub, push: Push) -> None:
    hub.add("grace/hers", private=True)
    refused = push("grace/hers")
    assert "ada can make none there" in refused["error"] and "ada, lab" in refused["hint"]
    hub.add("grace/open")
    assert "may not write to grace/open" in push("grace/open")["error"]


@pytest.mark.parametrize(
    "name", ["a-run", "a/b/c", "ada/", "ada/-x", "ada/a--b", "ada/x.git", "ada/ö"]
)
def test_a_name_that_cannot_be_is_refused_before_anything_is_asked(
    hub: Hub, push: Push, name: str
) -> None:
    assert set(push(name)["fields"]) == {"repo_id"} and hub.asked == []


def test_a_branch_that_cannot_be_is_refused(hub: Hub, push: Push) -> None:
    for branch in ("refs/pr/1", "a b", "a..b", "-x", "x/"):
        assert set(push("ada/a", branch=branch)["fields"]) == {"branch"}, branch
    assert "goes to main" in push("ada/a", branch="b", create_pr=True)["fields"]["branch"]
    assert hub.asked == []


def test_a_token_that_may_only_read_sends_nothing(hub: Hub, client: Client, push: Push) -> None:
    client(do="login", token=READS)
    hub.asked.clear()
    assert "may only read" in push("ada/a-run")["error"]
    assert not any(one.startswith("P") for one in hub.asked)


def test_a_fine_grained_token_pushes_where_it_may(hub: Hub, client: Client, push: Push) -> None:
    client(do="login", token=FINE)
    assert push("lab/a-run")["state"] == "finished"
    assert "may not write to ada/a-run" in push("ada/a-run")["error"]


def test_an_export_with_a_failed_check_needs_force(hub: Hub, run: RunFolder, push: Push) -> None:
    exported(run, "wrong", ok=False)
    refused = push("ada/a-run", export="wrong")
    assert "Answers as the trained model" in refused["error"] and "--force" in refused["hint"]
    assert hub.asked == []
    assert push("ada/a-run", export="wrong", force=True)["state"] == "finished"
    assert "no such finished export" in push("ada/a-run", export="nothing")["error"]
    assert "--format merged" in push("ada/a-run", format="merged")["hint"]


def test_a_folder_of_this_machine_is_not_published(hub: Hub, run: RunFolder, push: Push) -> None:
    exported(run, "telling", **{"README.md": f"from {run.root.parents[1]}/models".encode()})
    assert "README.md names a folder of this machine" in push("ada/a", export="telling")["error"]
    assert hub.repositories == {}


def test_a_link_does_not_lead_out_of_the_export(hub: Hub, run: RunFolder, push: Push) -> None:
    """A run may come from somebody else, who would like to have the page's token."""
    (run.root.parents[1] / "token").write_text("secret")
    folder = exported(run, "linked")
    (folder / "notes.bin").symlink_to(run.root.parents[1] / "token")
    assert "notes.bin is a link" in push("ada/a", export="linked")["error"]
    folder.rename(folder.with_name("real"))
    folder.symlink_to(run.root.parents[1])
    assert "is a link" in push("ada/a", export="linked")["error"]
    assert hub.repositories == {}
