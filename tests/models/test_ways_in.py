"""Every way in that takes a model's name: all find the same model, and none reads a folder that the
owner did not open."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.data.prepare import import_dataset
from core.data.steps.base import Setting
from core.data.steps.model_files import tokenizer_file
from core.errors import WorkspaceError
from core.estimate.summary import summarize
from core.models.kinds import kind_in
from core.models.location import ensure_model, fetch_model, local_model
from core.rules import parse_config
from core.tokens.lens import Lens
from core.worker.tokenizers import open_tokenizer
from core.workspace import Workspace
from tests.models import tiny
from tests.tokens.conftest import CHATML, build_tokenizer
from tests.webui.fakes import fake_app
from webui.context import App
from webui.tokens import count_tokens, sample_statistics, view_rows

HUB_ID = "org/tiny"
REVISION = "0123456789012345678901234567890123456789"
Way = Callable[[App, str], Any]


def make_model(folder: Path) -> Path:
    tiny.make_model_folder(folder)
    build_tokenizer(CHATML).save_pretrained(folder)
    return folder


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model in the Hub's local cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    place = tmp_path / "hub/models--org--tiny"
    (place / "refs").mkdir(parents=True)
    (place / "refs/main").write_text(REVISION)
    return make_model(place / "snapshots" / REVISION)


@pytest.fixture
def app(tmp_path: Path) -> App:
    app = fake_app(tmp_path / "workspace")
    path = app.workspace.root / "rows.jsonl"
    path.write_text(json.dumps({"prompt": "What is it?", "answer": "A tree."}) + "\n")
    import_dataset(app.workspace, [path], name="rows", eval_fraction=0.0)
    return app


def _lens(model: str) -> Lens:
    return Lens.of(parse_config({"model.model_name_or_path": model}))


def _told(app: App, model: str) -> str:
    config = parse_config({"model.model_name_or_path": model, "data.dataset": "rows"})
    summary = summarize(app.workspace, config)
    told = [one.message for one in (*summary.refused, *summary.warnings)]
    return " ".join(text for text in told if model in text)


# What opens the model, or raises.
WAYS: dict[str, Way] = {
    "where it is": lambda app, model: local_model(app.workspace, model),
    "a run": lambda app, model: ensure_model(model, app.workspace),
    "fetching": lambda app, model: fetch_model(model, app.workspace, lambda share, text: None),
    "a step": lambda app, model: tokenizer_file(model, Setting(app.workspace, "text", Path())),
    "rows": lambda app, model: view_rows(app, "rows", "train", [0], _lens(model)),
    "its tokenizer": lambda app, model: open_tokenizer(app.workspace, _lens(model)),
    "statistics": lambda app, model: sample_statistics(app, "rows", _lens(model)),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_model_in_the_hubs_cache_is_found(app: App, cached: Path, way: str) -> None:
    """Its memory would be estimated and its tokens never counted."""
    found = WAYS[way](app, HUB_ID)
    if way in ("rows", "statistics"):
        assert found.result(60)
    elif way == "its tokenizer":
        assert found.chat_template == CHATML
    else:
        assert found in (cached, cached / "tokenizer.json", HUB_ID)


def test_its_tokens_are_counted_and_its_plan_made(app: App, cached: Path) -> None:
    counting = count_tokens(app, "rows", _lens(HUB_ID))
    assert counting is not None and counting.result(60)["train_tokens"] > 0
    assert _told(app, HUB_ID) == ""
    assert kind_in(cached) == "decoder"


@pytest.mark.parametrize("way", WAYS)
def test_a_folder_elsewhere_is_refused(app: App, tmp_path: Path, way: str) -> None:
    """A page open to others must not read files from all over the disk."""
    folder = make_model(tmp_path / "elsewhere")
    with pytest.raises(WorkspaceError, match="outside the folders that may be read"):
        WAYS[way](app, str(folder))
    allowed = Workspace(app.workspace.root, (tmp_path,))
    assert local_model(allowed, str(folder)) == folder


def test_what_is_refused_is_not_counted_and_the_plan_says_why(app: App, tmp_path: Path) -> None:
    folder = make_model(tmp_path / "elsewhere")
    assert count_tokens(app, "rows", _lens(str(folder))) is None
    assert "outside the folders that may be read" in _told(app, str(folder))


def test_names_that_lead_nowhere_are_no_models(app: App) -> None:
    """A name is typed letter by letter, and each is asked for."""
    assert local_model(app.workspace, " ") is None
    assert local_model(app.workspace, "org/nothing") is None
    assert local_model(app.workspace, "x" * 5000) is None
    for name in ("~nobody-here/model", "../../etc"):
        with pytest.raises(WorkspaceError):
            local_model(app.workspace, name)
