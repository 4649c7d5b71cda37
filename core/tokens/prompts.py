"""From a conversation to the tokens a model continues, and the tokens that end its answer; a row as
a prompt to answer and the reference answer that a reward may compare with.

Training (`core.tokens.tokenize`), chat, evaluation and export must agree on both, or a model is
asked something else than what it learned. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from core.data.record import DatasetInfo
from core.errors import DataError, ModelError
from core.language import _
from core.tokens.learn import last_good_answer
from core.tokens.tokenize import with_system_prompt
from core.tokens.tool_turns import answer_text, for_template, rendered_with_calls, template_text

Message = dict[str, Any]

_MARKER = "TUNESMITHMARKER"


def prompt_ids(
    messages: Sequence[Message],
    tokenizer: Any,
    *,
    continue_text: bool = False,
    tools: Any = None,
    **variables: Any,
) -> list[int]:
    """The tokens of a conversation up to where the model's answer begins.

    `tools` that the model may call, a list or its JSON text, and calls in the turns are handed to
    the chat template; one that knows none gets them as text, as in training. `variables` are the
    template's own, such as enable_thinking.
    A tokenizer without a chat template gets each turn on lines of its own, as in training; with
    `continue_text` it gets the words as they are, to write on from the last one.
    Raises ModelError when the template refuses the conversation.
    """
    how = {"continue_text": continue_text, "tools": tools, **variables}
    text, special = prompt_text(messages, tokenizer, **how)
    ids: list[int] = list(tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"])
    if special and ids and ids[-1] == tokenizer.eos_token_id:
        ids.pop()  # some tokenizers end every text; an answer cannot follow that
    if not ids:
        raise ModelError(_("There is nothing to answer."), _("Write a message first."))
    return ids


def prompt_text(
    messages: Sequence[Message],
    tokenizer: Any,
    *,
    continue_text: bool = False,
    tools: Any = None,
    **variables: Any,
) -> tuple[str, bool]:
    """(the text of `prompt_ids`, whether the tokenizer is to set its own marks around it)."""
    template = template_text(tokenizer, with_tools=bool(tools))
    messages, listed = for_template(list(messages), tools, template)
    if tokenizer.chat_template:
        return _rendered(messages, tokenizer, listed, variables), False
    if continue_text:
        return "".join(str(message["content"]) for message in messages), True
    eos = tokenizer.eos_token or ""
    ends = {"assistant": eos + "\n"}
    turns = (str(m["content"]) + ends.get(m["role"], "\n") for m in messages)
    return "".join(turns), True


def end_of_answer_ids(model: Any, tokenizer: Any) -> list[int]:
    """The tokens at which an answer is over, sorted.

    Those of the tokenizer and of the model's generation config, and the one with which the chat
    template ends a turn: a model tuned on that template has learned to stop there.
    """
    found: set[int] = set()
    own = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    for value in (tokenizer.eos_token_id, own, _end_of_turn(tokenizer)):
        if isinstance(value, int):
            found.add(value)
        elif value is not None:
            found.update(int(item) for item in value)
    return sorted(found)


def _end_of_turn(tokenizer: Any) -> int | None:
    if not tokenizer.chat_template:
        return None
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": _MARKER}]
    try:
        text = str(tokenizer.apply_chat_template(turns, tokenize=False))
    except Exception:  # noqa: BLE001 - a template may refuse this probe; it then names no end
        return None
    after = text.partition(_MARKER)[2]
    ids = tokenizer(after, add_special_tokens=False, verbose=False)["input_ids"] if after else []
    if not ids:
        return None
    added = tokenizer.added_tokens_decoder.get(ids[0])
    return ids[0] if ids[0] in tokenizer.all_special_ids or (added and added.special) else None


def _rendered(
    messages: list[Message], tokenizer: Any, tools: list[Any] | None, variables: dict[str, Any]
) -> str:
    how = {"add_generation_prompt": True, **variables}
    try:
        return rendered_with_calls(messages, tokenizer, tools, **how)
    except Exception as error:  # a template is a program: it raises what it likes
        raise ModelError(
            _(
                "The model's chat template cannot take this conversation: {error}.",
                error=str(error).rstrip("."),
            ),
            _("Leave out the system prompt, or clear the chat; some models want turns by turns."),
        ) from error


@dataclass(frozen=True)
class Prompted:
    """`prompt` ends where the model is to answer; `answer` is None where the row has none."""

    prompt: list[dict[str, Any]]
    answer: str | None
    tools: Any = None


def prompted(row: dict[str, Any], system_prompt: str = "") -> Prompted:
    """The prompt of a row and its reference answer.

    Rows of conversations give their last answer that is not of weight 0, and what comes before it
    as the prompt. Raises DataError when there is nothing to answer.
    """
    if "prompt" in row and "completion" not in row:
        prompt, answer = list(row["prompt"]), row.get("answer")
    else:
        turns = [*(row.get("prompt") or []), *(row.get("completion") or row.get("messages") or [])]
        last = last_good_answer(turns)
        if last is None:
            raise DataError(_("No turn of it is an answer."), _("Import it as prompt-only rows."))
        prompt, answer = turns[:last], answer_text(turns[last])
    if not prompt:
        raise DataError(_("It has nothing to answer."), _("Import it with a prompt."))
    return Prompted(with_system_prompt(prompt, system_prompt), answer, row.get("tools"))


def has_answers(info: DatasetInfo) -> bool | None:
    """Whether rows of the train part have reference answers; None where that cannot be told.

    Told by the file's own counts, without reading the rows.
    """
    if info.form in ("prompt-completion", "messages"):
        return True
    if info.form != "prompt-only":
        return None
    import pyarrow.parquet as pq

    path = info.rows_path("train")
    if not path.is_file():
        return None
    meta = pq.read_metadata(path)
    for number in range(meta.num_row_groups):
        group = meta.row_group(number)
        columns = [group.column(place) for place in range(group.num_columns)]
        answers = next((one for one in columns if one.path_in_schema == "answer"), None)
        if answers is None or answers.statistics is None:
            return None
        if answers.statistics.null_count < group.num_rows:
            return True
    return False
