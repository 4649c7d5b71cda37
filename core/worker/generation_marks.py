"""What a chat template marks as the assistant's words, by transformers' own extension of Jinja."""

from __future__ import annotations

from typing import Any

from transformers.utils.chat_template_utils import render_jinja_template


def generated(
    messages: list[dict[str, Any]], tools: list[Any] | None, template: str, tokenizer: Any
) -> list[tuple[int, int]]:
    """(begin, end) in characters of the rendered text for each `{% generation %}` block.

    Raises whatever the template raises; TypeError where it wants the arguments of calls as text.
    """
    _, found = render_jinja_template(
        conversations=[messages],
        tools=tools,
        chat_template=template,
        return_assistant_tokens_mask=True,
        **tokenizer.special_tokens_map,
    )
    return list(found[0])
