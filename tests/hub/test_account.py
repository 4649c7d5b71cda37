"""Who is logged in, and where the token is: in huggingface_hub's store and nowhere else."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import httpx2
import pytest
from huggingface_hub.utils import get_session

from core.errors import HubError
from core.hub import answers
from tests.hub.conftest import ROOT, Client, environment
from tests.hub.stand_in import FINE, READS, WRITES, Hub
from tests.warm_python import with_commands


def command(hub: Hub, home: Path, *words: str, text: str = "", **more: str) -> Any:
    return subprocess.run(
        [with_commands(), "-m", "core.cli", *words],
        env=environment(hub, home, **more),
        cwd=ROOT,
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_login_is_kept_until_the_logout(hub: Hub, client: Client) -> None:
    for token, role in ((READS, "may read"), (FINE, "writes to lab"), (WRITES, "read and write")):
        account = client(do="login", token=f" {token}\n")["account"]
        assert (account["name"], account["organizations"]) == ("ada", ["lab"])
        assert role in account["may"] and token not in str(account)
        assert client(do="whoami")["account"] == account
    assert (client.home / "token").read_text() == WRITES
    assert client(do="logout") == {"logged_out": True}
    assert client(do="whoami") == {"account": None} and client(do="logout") == {"logged_out": False}
    assert WRITES not in "".join(
        path.read_text() for path in client.home.rglob("*") if path.is_file()
    )


def test_a_wrong_token_is_not_kept(hub: Hub, client: Client) -> None:
    before = client(do="whoami")
    refused = client(do="login", token="hf_nobodyHasThis")
    assert "does not accept your token" in refused["error"] and hub.endpoint in refused["hint"]
    assert client(do="whoami") == before


@pytest.mark.parametrize("token", ["", "two words", "hf_ü", "a\nb", "api_org_old"])
def test_what_can_be_no_token_is_not_sent(hub: Hub, client: Client, token: str) -> None:
    refused = client(do="login", token=token)
    assert "token" in refused["error"] and hub.asked == []
    assert not token or token not in refused["error"] + refused["hint"]


def test_a_page_in_between_is_not_taken_for_the_hub(hub: Hub, client: Client) -> None:
    for page in ("<html>", "{}"):
        hub.fails("whoami", status=200, message=page)
        assert "is not the Hub" in client(do="whoami")["error"]


def test_the_commands(hub: Hub, tmp_path: Path) -> None:
    done = command(hub, tmp_path, "hub", "whoami")
    assert done.returncode == 1 and "hub login" in done.stdout
    done = command(hub, tmp_path, "hub", "login", "--json", text=WRITES + "\n")
    assert done.returncode == 0 and '"name": "ada"' in done.stdout, done.stderr
    assert WRITES not in done.stdout + done.stderr
    assert command(hub, tmp_path, "hub", "login", WRITES).returncode == 2, "never an argument"
    assert "ada" in command(hub, tmp_path, "hub", "whoami").stdout
    assert command(hub, tmp_path, "hub", "logout").returncode == 0
    assert not (tmp_path / "token").exists()


def test_a_token_of_the_environment_counts_more(hub: Hub, tmp_path: Path) -> None:
    who = command(hub, tmp_path, "hub", "whoami", HF_TOKEN=READS)
    assert "may read" in who.stdout
    refused = command(hub, tmp_path, "hub", "login", text=WRITES, HF_TOKEN=READS)
    assert refused.returncode == 1 and "HF_TOKEN is set" in refused.stderr
    refused = command(hub, tmp_path, "hub", "logout", HF_TOKEN=READS)
    assert refused.returncode == 1 and "still logged in" in refused.stderr
    odd = command(hub, tmp_path, "hub", "whoami", HF_TOKEN="hf_a b")
    assert odd.returncode == 1 and "no token" in odd.stderr and "hf_a" not in odd.stderr


def test_offline_and_out_of_reach(hub: Hub, tmp_path: Path) -> None:
    refused = command(hub, tmp_path, "hub", "whoami", HF_HUB_OFFLINE="1")
    assert refused.returncode == 1 and "HF_HUB_OFFLINE forbids" in refused.stderr
    nobody = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_TOKEN": WRITES}
    refused = command(hub, tmp_path, "hub", "whoami", **nobody)
    assert refused.returncode == 1 and "cannot be reached" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_hub_that_says_nothing_is_given_up() -> None:
    """Without a limit the page would wait for ever."""
    answers.client()
    limits = get_session().timeout
    assert limits.connect and limits.read and limits.write
    with pytest.raises(HubError, match="does not answer"), answers.told_plainly():
        raise httpx2.ReadTimeout("")
