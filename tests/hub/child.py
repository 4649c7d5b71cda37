"""What a worker and the page do with the Hub, for tests: in a process of its own, whose environment
names the stand-in before huggingface_hub reads it. One case a line on standard input, what came of
it on standard output."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Any

from core.errors import ConfigError, TunesmithError
from core.hub.account import log_in, log_out, who_am_i
from core.hub.plan import parse_settings
from core.hub.push import export_to_push, plan_push, pushed, run_push, submit_push
from core.jobs.store import Store
from core.jobs.task import read_result
from core.workspace import Workspace


def _account(case: dict[str, Any]) -> dict[str, Any]:
    if case["do"] == "login":
        account = log_in(case["token"])
    elif case["do"] == "logout":
        return {"logged_out": log_out()}
    else:
        account = who_am_i(anew=True)
    return {"account": {**asdict(account), "may": account.may()} if account else None}


def _push(case: dict[str, Any]) -> dict[str, Any]:
    workspace = Workspace.open(case["workspace"])
    settings = parse_settings(case["settings"])
    what: dict[str, Any] = {"dataset_id": case.get("dataset", "")}
    if "run" in case:
        which = (case.get("export", ""), case.get("format", ""), case.get("force", False))
        what["export"] = export_to_push(workspace, case["run"], *which)
    if case["do"] == "plan":
        return plan_push(workspace, settings, **what).as_dict()
    job = submit_push(workspace, Store.open(workspace), settings, **what)
    folder = workspace.root / job.folder
    print(json.dumps({"folder": str(folder)}), flush=True)
    state = run_push(folder, workspace.root)
    result = read_result(folder) or {}
    return {"state": state, **result, "told": pushed(job, result) if result else ""}


def run_case(case: dict[str, Any]) -> dict[str, Any]:
    try:
        return (_push if case["do"] in ("plan", "push") else _account)(case)
    except ConfigError as error:
        return {"fields": {one.field: one.message for one in error.problems}}
    except TunesmithError as error:
        return {"error": error.message, "hint": error.hint, "type": type(error).__name__}


if __name__ == "__main__":
    for text in sys.stdin:
        print(json.dumps({"came": run_case(json.loads(text))}), flush=True)
