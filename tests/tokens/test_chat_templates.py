"""The templates that come along, the owner's own, and what is said of one that is broken."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from core.errors import DataError
from core.tokens.chat_templates import (
    FROM_TRL,
    RENDERING,
    check_template,
    delete_template,
    keep_with_run,
    left_out_stop,
    list_templates,
    load_template,
    names_used,
    save_template,
    split_marks,
    template_of_model,
    template_remarks,
    use_runs_own,
    use_template,
)
from core.workspace import Workspace
from tests.tokens.conftest import CHATML, build_tokenizer
from tests.tokens.template_rows import TEMPLATES, tokenizer_with_marks

OWN = "{% for m in messages %}[{{ m.role }}] {{ m.content }}{{ eos_token }}\n{% endfor %}"


def test_the_usual_formats_come_along_with_a_title(open_workspace: Workspace) -> None:
    found = {template.name: template for template in list_templates(open_workspace)}
    wanted = "alpaca baichuan2 chatglm3 chatml deepseek gemma llama3 mistral plain"
    assert set(found) == {*wanted.split(), *FROM_TRL}
    assert found["chatml"].title.startswith("ChatML") and found["chatml"].source == "bundled"


@pytest.mark.parametrize("name", [*TEMPLATES, *FROM_TRL])
def test_every_bundled_template_is_sound(open_workspace: Workspace, name: str) -> None:
    text = load_template(name, open_workspace)
    assert check_template(text) is None and left_out_stop(text) == ""


def test_a_template_that_an_owner_had_before_stays_the_owners(open_workspace: Workspace) -> None:
    """An update that brings a template of the same name would change the next run."""
    folder = open_workspace.root / "templates"
    folder.mkdir()
    (folder / "qwen3.jinja").write_text(OWN)
    assert load_template("qwen3", open_workspace) == OWN
    assert save_template(open_workspace, "qwen3", OWN + "more").source == "own"
    with pytest.raises(DataError, match="comes with Tunesmith"):
        save_template(open_workspace, "gpt-oss", OWN)


MARKED = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}"
    "{% generation %}{{ m.content }}INSIDE{% endgeneration %}{% else %}{{ m.content }}{% endif %}"
    "OUTSIDE\n{% endfor %}"
)


@pytest.mark.parametrize(
    ("inside", "outside", "left_out"),
    [
        ("", "<|im_end|>", "<|im_end|>"),
        ("", "{{ eos_token }}", "</s>"),
        ("", " - and so on", "the end of a turn"),
        ("<|im_end|>", "", ""),
        ("{{ eos_token }}", "", ""),
    ],
)
def test_marks_that_leave_out_the_end_of_a_turn_are_named(
    inside: str, outside: str, left_out: str
) -> None:
    """Its own library would train a model on them that never stops."""
    text = MARKED.replace("INSIDE", inside).replace("OUTSIDE", outside)
    assert check_template(text) is None
    assert left_out_stop(text) == left_out
    assert any("marks leave out" in one for one in template_remarks(text)) is bool(left_out)


@pytest.mark.parametrize(
    ("marked", "said"),
    [
        ("{% generation %}{% endgeneration %}{{ m.content }}<|im_end|>", "marks are empty"),
        ("{{ m.content }}<|im_end|>{% generation %} {% endgeneration %}", "marks are empty"),
        ("{{ m.content }}{% generation %}<|im_end|>{% endgeneration %}", "leave out the words"),
    ],
)
def test_marks_around_nothing_are_unfit(marked: str, said: str) -> None:
    """A run through its own library would learn nothing of such a template's answers."""
    text = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}"
        f"{marked}{{% else %}}{{{{ m.content }}}}<|im_end|>{{% endif %}}\n{{% endfor %}}"
    )
    problem = check_template(text)
    assert problem is not None and said in problem.message


@pytest.mark.parametrize(
    ("turn", "fit"),
    [
        ("{{ m.role }}: {{ m.content }}\n", False),
        ("[{{ m.role }}] {{ m.content }}\n", False),
        ("<|im_start|>{{ m.role }}\n{{ m.content }}\n", False),
        ("<|{{ m.role }}|>{{ m.content }}", True),
        ("{{ m.role }}: {{ m.content }}\n### End\n\n", True),
        ("{{ m.role }}: {{ m.content }}{{ eos_token }}\n", True),
    ],
)
def test_a_template_that_ends_no_answer_is_not_called_fit(turn: str, fit: bool) -> None:
    """A model that learns no end of a turn talks on for ever, in both roles."""
    asking = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    if "{{ m.role }}|>" in turn:
        asking = "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    problem = check_template("{% for m in messages %}" + turn + "{% endfor %}" + asking)
    assert (problem is None) is fit
    assert problem is None or "never learn to stop" in problem.message


# A tenth of the time that a template may take.
SOON = replace(RENDERING, seconds=1)
_ROUND = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


@pytest.mark.parametrize(
    "when",
    ["messages | length > 8", "tools and messages | length > 8 and messages[0].role == 'system'"],
)
def test_a_loop_that_begins_in_a_longer_conversation_is_found(when: str) -> None:
    """It passed with two turns; everything else that renders rows would then stand still."""
    problem = check_template(f"{OWN}{{% if {when} %}}{_ROUND}{{% endif %}}", SOON)
    assert problem is not None and "longer than 1 seconds" in problem.message


def test_words_that_are_left_out_of_a_longer_conversation_are_named() -> None:
    text = OWN.replace("in messages", "in messages[:5]")
    problem = check_template(text)
    assert problem is not None and "the assistant in turn 6 of 9" in problem.message


def test_a_template_may_refuse_what_it_does_not_know() -> None:
    """Gemma's refuses a system turn, and is a good template for all other rows."""
    refusing = "{% if messages[0].role == 'system' %}{{ raise_exception('No system') }}{% endif %}"
    assert check_template(refusing + OWN) is None


def test_an_own_template_is_kept_listed_and_deleted(open_workspace: Workspace) -> None:
    saved = save_template(open_workspace, "mine", OWN)
    assert (saved.source, saved.text) == ("own", OWN)
    assert load_template("mine", open_workspace) == OWN
    delete_template(open_workspace, "mine")
    with pytest.raises(DataError, match="no chat template 'mine'"):
        load_template("mine", open_workspace)


@pytest.mark.parametrize("name", ["../up", "a/b", "", "Mine", ".hidden", "model", "chatml"])
def test_a_name_cannot_lead_elsewhere_or_take_a_bundled_ones_place(
    open_workspace: Workspace, name: str
) -> None:
    with pytest.raises(DataError):
        save_template(open_workspace, name, OWN)
    if name != "chatml":
        with pytest.raises(DataError):
            load_template(name, open_workspace)
    with pytest.raises(DataError):
        delete_template(open_workspace, name)


def test_an_unknown_name_is_answered_with_a_near_one(open_workspace: Workspace) -> None:
    with pytest.raises(DataError, match="llama3"):
        load_template("llama-3", open_workspace)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a\n{% for m in messages %}\n{{ m.content }", 3, "Unexpected"),
        ("a\n\n{{ messages[0].content + 1 }}", 3, "concatenate"),
        ("\n{{ raise_exception('Not for you') }}", 2, "Not for you"),
        ("{{ nothing.at.all }}", 1, "undefined"),
        ("{% for m in messages %}\n{{ m.content.upper( }}", 2, "Unexpected"),
        ("{% for m in messages %}\n{% if %}", 2, "Expected an expression"),
        ("{% for m in messages %}{{ m.role }}{% endfor %}", None, "words of the user"),
        (
            "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}",
            None,
            "words of the assistant",
        ),
        ("  ", None, "empty"),
        ("{{ ''.__class__.__mro__ }}{{ messages }}", 1, "unsafe"),
    ],
)
def test_what_is_wrong_is_told_at_its_line(text: str, line: int | None, message: str) -> None:
    """A person edits a template in the page and has to find the mistake."""
    problem = check_template(text)
    assert problem is not None
    assert problem.line == line and message in problem.message


@pytest.mark.parametrize(
    "text",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}"
        "{% endfor %}{% endfor %}{% endfor %}",
        "{{ 10 ** 1000000000 }}",
    ],
    ids=["loops", "number"],
)
def test_a_template_without_end_is_ended(text: str) -> None:
    """It was typed in a page: the server would stand still, for everybody."""
    problem = check_template(text, SOON)
    assert problem is not None and "longer than 1 seconds" in problem.message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{ 'a' * 1500000000 }}", "more than 1 GB of memory"),
        (
            "{% set n = namespace(x='ab') %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}"
            "{% endfor %}",
            "more than 1 GB of memory",
        ),
        ("{{ '%1500000000d' % 3 }}", "more than 1 GB of memory"),
        ("{{" + "(" * 40_000 + "1" + ")" * 40_000 + "}}", "nested too deeply"),
    ],
    ids=["text", "doubled", "width", "brackets"],
)
def test_a_template_that_takes_all_memory_is_ended(text: str, message: str) -> None:
    before = psutil.Process().memory_info().rss
    problem = check_template(text)
    assert problem is not None and message in problem.message
    assert psutil.Process().memory_info().rss < before + 200 * 2**20


def test_a_broken_template_is_not_kept(open_workspace: Workspace) -> None:
    with pytest.raises(DataError, match="Line 1"):
        save_template(open_workspace, "broken", "{{ messages[0].content")
    assert "broken" not in [template.name for template in list_templates(open_workspace)]


def test_what_transformers_takes_is_taken_here() -> None:
    """Templates of real models use these; a check that refuses them would be in the way."""
    text = (
        "{%- for m in messages -%}{%- if loop.index > 9 -%}{%- break -%}{%- endif -%}"
        "{%- generation -%}{{ m.content }}{%- endgeneration -%}{%- endfor -%}"
        "{{ strftime_now('%Y') }}{{ messages | tojson(indent=2) }}"
    )
    assert check_template(text) is None
    assert names_used(text) == {"generation"}
    assert names_used(TEMPLATES["llama3"]) == {"tools", "tool_calls"}
    assert names_used("{# tools #}{{ messages }}") == set()


def test_marks_that_the_model_would_have_to_spell_are_named() -> None:
    """Such a model learns marks letter by letter and may never end its answers."""
    tokenizer = build_tokenizer(CHATML)
    assert split_marks(TEMPLATES["chatml"], tokenizer) == []
    found = split_marks(TEMPLATES["llama3"], tokenizer)
    assert [line.split()[0] for line in found] == [
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eot_id|>",
    ]
    count = len(tokenizer("<|eot_id|>")["input_ids"])
    assert count > 1 and found[2] == f"<|eot_id|> is {count} tokens for this model"
    assert split_marks(TEMPLATES["mistral"], tokenizer_with_marks(None)) == []
    # The mark is put together from the role while rendering, so it stands nowhere in the text.
    assert any("<|assistant|>" in line for line in split_marks(TEMPLATES["chatglm3"], tokenizer))


@pytest.mark.parametrize("begins", [True, False])
def test_a_begin_token_is_set_where_the_tokenizer_sets_one(
    open_workspace: Workspace, begins: bool
) -> None:
    """Llama without its begin token answers badly; SmolLM2 with one has never seen it there."""
    tokenizer = tokenizer_with_marks(None, begins=begins)
    for name in ("llama3", "alpaca", "plain", "mistral", "gemma", "deepseek"):
        use_template(tokenizer, load_template(name, open_workspace))
        text = tokenizer.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False)
        assert text.startswith("<s>") is begins and text.count("<s>") == int(begins)


def test_a_run_keeps_the_template_it_began_with(open_workspace: Workspace, tmp_path: Path) -> None:
    """Resumed after the template was changed, the run would learn two formats."""
    save_template(open_workspace, "mine", OWN)
    run = tmp_path / "run"
    run.mkdir()
    keep_with_run(run, "mine", open_workspace)
    save_template(open_workspace, "mine", OWN + "changed")
    keep_with_run(run, "mine", open_workspace)
    assert use_runs_own(tokenizer_with_marks(CHATML), run).chat_template == OWN
    other = tmp_path / "other"
    other.mkdir()
    keep_with_run(other, "model", open_workspace)
    assert list(other.iterdir()) == []
    assert use_runs_own(tokenizer_with_marks(CHATML), other).chat_template == CHATML


def test_the_models_own_template_can_be_shown_for_editing(tmp_path: Path) -> None:
    build_tokenizer(CHATML).save_pretrained(tmp_path / "new")
    assert template_of_model(tmp_path / "new") == CHATML
    old = tmp_path / "old"
    old.mkdir()
    assert template_of_model(old) == ""
    (old / "tokenizer_config.json").write_text(
        '{"chat_template": [{"name": "tool_use", "template": "b"},'
        ' {"name": "default", "template": "a"}]}'
    )
    assert template_of_model(old) == "a"
