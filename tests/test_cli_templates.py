"""Chat templates and tokens from a shell: what the page shows and does, without the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core import cli
from core.jobs.limits import Limit
from tests.cli_bench import make_chat_model, write_rows

OWN = "{# Mine #}{% for m in messages %}{{ m.role }}: {{ m.content }}<|im_end|>\n{% endfor %}"


@pytest.fixture(autouse=True)
def here(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNESMITH_WORKSPACE", str(workspace))
    monkeypatch.setenv("TUNESMITH_ALLOW", "")


def test_an_own_template_is_checked_saved_shown_and_deleted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = tmp_path / "good.jinja", tmp_path / "bad.jinja"
    good.write_text(OWN)
    bad.write_text("{% for m in messages %}\n{{ m.content }")
    assert cli.main(["templates", "check", str(good)]) == 0
    capsys.readouterr()
    assert cli.main(["templates", "check", str(bad), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["ok"], told["line"]) == (False, 2)
    assert cli.main(["templates", "save", "mine", str(bad)]) == 1
    assert cli.main(["templates", "save", "mine", str(good)]) == 0
    capsys.readouterr()
    assert cli.main(["templates", "list", "--json"]) == 0
    listed = {one["name"]: one for one in json.loads(capsys.readouterr().out)["templates"]}
    assert listed["mine"]["title"] == "Mine" and listed["chatml"]["source"] == "bundled"
    assert cli.main(["templates", "show", "mine"]) == 0
    assert capsys.readouterr().out.strip() == OWN.strip()
    assert cli.main(["templates", "delete", "mine"]) == 0
    assert cli.main(["templates", "show", "mine"]) == 1
    assert "no chat template 'mine'" in capsys.readouterr().err


def test_a_shell_sees_what_is_read_learned_and_cut(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Somebody on a server without a browser has to see why nothing is learned, too."""
    model = make_chat_model(tmp_path / "model")
    rows = write_rows(tmp_path / "rows.jsonl")
    draft = tmp_path / "draft.jinja"
    draft.write_text(OWN)
    assert cli.main(["data", "import", str(rows), "--eval-fraction", "0"]) == 0
    capsys.readouterr()
    words = ["data", "tokens", "rows", "--model", str(model), "--row", "3", "--max-length", "22"]
    assert cli.main(words) == 0
    shown = capsys.readouterr().out
    assert "Row 3" in shown and "<|im_start|>assistant↵" in shown
    learned = [line for line in shown.splitlines() if line.startswith("  learned")]
    assert learned and "cut off" in shown
    assert cli.main([*words, "--template-file", str(draft), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    text = "".join(token[0] for token in [*row["tokens"], *row["cut_tokens"]])
    assert text == "user: What is 2?<|im_end|>\nassistant: It is 2.<|im_end|>\n"
    assert cli.main([*words, "--row", "0"]) == 2
    draft.write_text("{% for turn in mesages %}{{ turn.content }}{% endfor %}")
    assert cli.main([*words, "--template-file", str(draft)]) == 1
    assert "The template cannot be used." in capsys.readouterr().err


LATE_LOOP = (
    OWN + "{% if messages | length > 11 %}{% for a in range(99999) %}{% for b in range(99999) %}"
    "{% endfor %}{% endfor %}{% endif %}"
)


@pytest.mark.parametrize("command", ["tokens", "statistics"])
def test_a_template_without_end_is_ended_in_a_shell_too(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    """The page ends it after two minutes; a shell would hang until somebody kills it."""
    soon = Limit(seconds=1, memory_bytes=2**32)
    monkeypatch.setattr("core.jobs.limits.SHORT", soon)
    monkeypatch.setattr("core.worker.tokenizers.SHORT", soon)
    model = make_chat_model(tmp_path / "model")
    (model / "chat_template.jinja").write_text(LATE_LOOP)
    turns = [{"role": ("user", "assistant")[n % 2], "content": f"Turn {n}."} for n in range(12)]
    rows = tmp_path / "long.jsonl"
    rows.write_text(json.dumps({"messages": turns}) + "\n")
    assert cli.main(["data", "import", str(rows), "--eval-fraction", "0"]) == 0
    capsys.readouterr()
    assert cli.main(["data", command, "long", "--model", str(model)]) == 1
    assert "longer than 1 seconds" in capsys.readouterr().err


def test_a_check_says_what_a_sound_template_leaves_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Generation marks without the token that ends a turn, and thoughts that are taken out."""
    text = (
        "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}"
        "{{ m.content.split('</think>')[-1] }}{% endgeneration %}{% else %}{{ m.content }}"
        "{% endif %}<|im_end|>\n{% endfor %}"
    )
    file = tmp_path / "marks.jinja"
    file.write_text(text)
    assert cli.main(["templates", "check", str(file)]) == 0
    told = capsys.readouterr().out
    assert "fit" in told and "leave out <|im_end|>" in told and "takes the thoughts out" in told


def test_a_shell_chooses_what_is_learned_and_hears_which_thoughts_are_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = make_chat_model(tmp_path / "model")
    talk = [
        {"role": "user", "content": "Add one to 3."},
        {"role": "assistant", "content": "<think>\n3 and 1\n</think>\n\nIt is 4."},
        {"role": "user", "content": "And one more?"},
        {"role": "assistant", "content": "<think>\n4 and 1\n</think>\n\nNow 5."},
    ]
    rows = tmp_path / "thinking.jsonl"
    rows.write_text("".join(json.dumps({"messages": talk, "n": n}) + "\n" for n in range(3)))
    assert cli.main(["data", "import", str(rows), "--eval-fraction", "0"]) == 0
    capsys.readouterr()
    through = ["--model", str(model), "--chat-template", "glm-4.5", "--learn", "last_answer"]
    assert cli.main(["data", "tokens", "thinking", *through, "--learn-thoughts", "none"]) == 0
    shown = capsys.readouterr().out
    learned = [line for line in shown.splitlines() if line.startswith("  learned")]
    assert len(learned) == 1 and "Now 5." in learned[0] and "4 and 1" not in learned[0]
    assert "1 thought of earlier turns is taken out by this template." in shown
    assert cli.main(["data", "statistics", "thinking", *through]) == 0
    counted = capsys.readouterr().out
    assert "3 thoughts of earlier turns are taken out by this template." in counted
    assert cli.main(["data", "tokens", "thinking", "--model", str(model), "--learn", "all"]) != 0
    assert "last_answer" in capsys.readouterr().err
