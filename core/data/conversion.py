"""One raw row to one row of a standard form, or the reason why it cannot be one.

The standard forms are those of `core.data.rowfile.SCHEMAS`. A turn is {"role", "content"} with
the roles system, user, assistant and tool, and where there are any `tool_calls` (JSON text of a
list), `tool_call_id` and `name`; `tools` of a row is JSON text of a list (see `conversion_tools`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache, partial

from core.data.conversion_judged import preference, unpaired_preference
from core.data.conversion_labels import labelled_text
from core.data.conversion_prompt import add_tools, asked, own_system, prompt_with
from core.data.conversion_tools import tool_text, tools_text
from core.data.conversion_turns import Turn, check_order, side_of, turns_of, with_system
from core.data.conversion_values import Fields, Unusable, template_of, text_of, written
from core.data.readers import Row

__all__ = ["Turn", "Unusable", "convert", "template_of", "tool_text", "tools_text"]


def convert(row: Row, form: str, mapping: Mapping[str, str], system_prompt: str = "") -> Row:
    """The row in its standard form, without `meta`. Raises Unusable with the reason.

    `mapping` gives each field of the source form (see `formats.FORMS`) a column, or a template
    such as "{question}\\n\\n{context}". `system_prompt` goes before a conversation that has no
    system turn.
    """
    return _conversion(form, tuple(mapping.items()), system_prompt)(row)


@lru_cache(maxsize=64)
def _conversion(
    form: str, mapping: tuple[tuple[str, str], ...], system_prompt: str
) -> Callable[[Row], Row]:
    """What makes standard rows; made once for all rows of an import, not for each."""
    return partial(_CONVERSIONS[form], Fields(dict(mapping)), system_prompt.strip())


def _text(fields: Fields, system_prompt: str, row: Row) -> Row:
    return {"text": text_of(fields.required(row, "text"), "text")}


def _prompt_completion(
    prompt_field: str, answer_field: str, fields: Fields, system_prompt: str, row: Row
) -> Row:
    prompt = asked(fields, row, prompt_field)
    completion = side_of(fields.required(row, answer_field), "assistant", "answer")
    result = {
        "prompt": prompt_with(fields, row, prompt, system_prompt),
        "completion": completion,
    }
    if completion[-1]["role"] != "assistant":
        raise Unusable(f"the answer ends with a turn of {completion[-1]['role']}")
    if len(prompt) + len(completion) > 2:
        check_order([*prompt, *completion])
    return add_tools(result, fields, row)


def _messages(field: str, fields: Fields, system_prompt: str, row: Row) -> Row:
    messages = turns_of(fields.required(row, field))
    roles = [turn["role"] for turn in messages]
    if all(role == "system" for role in roles):
        raise Unusable("the conversation is empty")
    if "assistant" not in roles:
        raise Unusable("no turn of the assistant, so there is nothing to learn")
    if roles[-1] != "assistant":
        raise Unusable(f"the last turn is of {roles[-1]}, not of the assistant")
    if "tool" in roles:
        check_order(messages)
    messages = with_system(messages, own_system(fields, row), system_prompt)
    return add_tools({"messages": messages}, fields, row)


def _prompt_only(fields: Fields, system_prompt: str, row: Row) -> Row:
    prompt = prompt_with(fields, row, asked(fields, row), system_prompt)
    if prompt[-1]["role"] not in ("user", "tool"):
        raise Unusable(f"the prompt ends with a turn of {prompt[-1]['role']}, which asks nothing")
    check_order(prompt)
    result: Row = {"prompt": prompt}
    answer = fields.optional(row, "answer")
    if answer is not None:
        result["answer"] = text_of(written(answer), "reference answer")
    return add_tools(result, fields, row)


_CONVERSIONS: dict[str, Callable[..., Row]] = {
    "text": _text,
    "prompt-completion": partial(_prompt_completion, "prompt", "completion"),
    "instruction": partial(_prompt_completion, "instruction", "output"),
    "messages": partial(_messages, "messages"),
    "sharegpt": partial(_messages, "conversations"),
    "preference": preference,
    "unpaired-preference": unpaired_preference,
    "prompt-only": _prompt_only,
    "labelled-text": labelled_text,
}
