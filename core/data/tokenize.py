"""Standard rows to token ids and labels: the one place that decides which tokens carry loss.

The trainer and the preview both come through here, so what a person sees is what is learned.
Chat rows are rendered once with the tokenizer's own template; the span of each assistant turn
is found in `spans`, and a token carries loss when it overlaps such a span.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from core.data.spans import ChatRenderer, Rendered, render_plain
from core.errors import DataError

NO_LOSS = -100
"""The label that PyTorch's cross entropy leaves out."""

_BATCH = 256


@dataclass(frozen=True, slots=True)
class TokenizedRow:
    """One row as the model sees it.

    `labels` is as long as `input_ids`: the token itself where it carries loss, else -100. The
    first label is always -100, for nothing comes before it that could predict it.
    `full_length` counts the tokens before the cut at max_length.
    """

    input_ids: list[int]
    labels: list[int]
    full_length: int

    @property
    def length(self) -> int:
        return len(self.input_ids)

    @property
    def loss_tokens(self) -> int:
        return sum(label != NO_LOSS for label in self.labels)

    @property
    def has_loss(self) -> bool:
        """False when nothing is learned from this row, as when the cut took the whole answer."""
        return any(label != NO_LOSS for label in self.labels)

    @property
    def is_cut(self) -> bool:
        return self.full_length > len(self.input_ids)


def tokenize_row(
    row: dict[str, Any],
    tokenizer: Any,
    *,
    max_length: int | None,
    assistant_only_loss: bool,
    system_prompt: str = "",
) -> TokenizedRow:
    """One standard row (text, prompt-completion or messages) as ids and labels.

    Text: its tokens and the end-of-text token, loss on all. Chat: loss on each assistant turn
    (for prompt-completion, on those of the completion) with its end-of-turn token, or on every
    token without `assistant_only_loss`. `system_prompt` goes before a conversation that has
    none. A tokenizer without a chat template gets prompt and answer as plain lines.
    Raises DataError when the row cannot be rendered, with the reason.
    """
    result = tokenize_all(
        [row],
        tokenizer,
        max_length=max_length,
        assistant_only_loss=assistant_only_loss,
        system_prompt=system_prompt,
    )[0]
    if isinstance(result, DataError):
        raise result
    return result


def tokenize_rows(
    rows: Sequence[dict[str, Any]],
    tokenizer: Any,
    *,
    max_length: int | None,
    assistant_only_loss: bool,
    system_prompt: str = "",
    progress: Callable[[float], None] | None = None,
) -> tuple[list[TokenizedRow], list[tuple[int, str]]]:
    """Every row that can be learned from, in order, and (index, reason) of each that cannot."""
    results = tokenize_all(
        rows,
        tokenizer,
        max_length=max_length,
        assistant_only_loss=assistant_only_loss,
        system_prompt=system_prompt,
        progress=progress,
    )
    usable: list[TokenizedRow] = []
    unusable: list[tuple[int, str]] = []
    for index, result in enumerate(results):
        if isinstance(result, DataError):
            unusable.append((index, str(result)))
        elif not result.has_loss:
            unusable.append((index, no_loss_reason(result)))
        else:
            usable.append(result)
    return usable, unusable


def no_loss_reason(row: TokenizedRow) -> str:
    """Why nothing is learned from a row without loss tokens, and what to do."""
    if row.is_cut:
        return (
            f"No answer is left in its first {row.length} tokens of {row.full_length}. "
            "Raise max_length or shorten the prompt."
        )
    return "No token of it carries loss."


def tokenize_all(
    rows: Sequence[dict[str, Any]],
    tokenizer: Any,
    *,
    max_length: int | None,
    assistant_only_loss: bool,
    system_prompt: str = "",
    progress: Callable[[float], None] | None = None,
) -> list[TokenizedRow | DataError]:
    """A result for each row, in order: its tokens, or the DataError that says why it has none.

    Encodes in batches, which is several times faster than row by row.
    """
    results: list[TokenizedRow | DataError] = []
    chat = ChatRenderer(tokenizer) if tokenizer.chat_template else None
    for start in range(0, len(rows), _BATCH):
        rendered: list[Rendered | DataError] = []
        for row in rows[start : start + _BATCH]:
            try:
                item = _render(row, chat, tokenizer.eos_token or "", system_prompt)
                rendered.append(item if assistant_only_loss else item.with_loss_everywhere())
            except DataError as error:
                rendered.append(error)
        good = [item for item in rendered if not isinstance(item, DataError)]
        encoded = iter(_encode(good, tokenizer))
        for place in rendered:
            if isinstance(place, DataError):
                results.append(place)
            else:
                results.append(_cut(*next(encoded), max_length))
        if progress:
            progress(len(results) / len(rows))
    return results


def _render(
    row: dict[str, Any], chat: ChatRenderer | None, eos: str, system_prompt: str
) -> Rendered:
    if "text" in row:
        return Rendered(row["text"], None, add_special_tokens=True, end=True)
    if "messages" in row:
        messages, learned_from = list(row["messages"]), 0
    elif "prompt" in row and "completion" in row:
        messages, learned_from = [*row["prompt"], *row["completion"]], len(row["prompt"])
    else:
        raise DataError(
            f"A row with the columns {', '.join(row)} has no standard form.",
            "Import the file again, so that it becomes text, prompt-completion or messages.",
        )
    if system_prompt and not any(message["role"] == "system" for message in messages):
        messages.insert(0, {"role": "system", "content": system_prompt})
        learned_from += 1
    if chat:
        return chat.render(messages, learned_from)
    return render_plain(messages, learned_from, eos)


def _cut(ids: list[int], learned: list[bool], max_length: int | None) -> TokenizedRow:
    labels = [token if flag else NO_LOSS for token, flag in zip(ids, learned, strict=True)]
    if labels:
        labels[0] = NO_LOSS
    return TokenizedRow(ids[:max_length], labels[:max_length], len(ids))


def _encode(rendered: list[Rendered], tokenizer: Any) -> list[tuple[list[int], list[bool]]]:
    """(ids, which of them carry loss) of each rendered row."""
    results: list[tuple[list[int], list[bool]]] = [([], [])] * len(rendered)
    for special in (False, True):
        places = [i for i, item in enumerate(rendered) if item.add_special_tokens is special]
        if not places:
            continue
        group = [rendered[i] for i in places]
        if tokenizer.is_fast:
            encoded = _encode_fast(group, tokenizer, special)
        else:
            encoded = [_encode_slow(item, tokenizer, special) for item in group]
        for place, item, (ids, learned) in zip(places, group, encoded, strict=True):
            if item.end and tokenizer.eos_token_id is not None:
                ids, learned = _ended(ids, learned, tokenizer.eos_token_id)
            results[place] = (ids, learned)
    return results


def _ended(ids: list[int], learned: list[bool], eos: int) -> tuple[list[int], list[bool]]:
    """Ends with exactly one end-of-text token: some tokenizers add it themselves."""
    if ids and ids[-1] == eos:
        return ids, [*learned[:-1], True]
    return [*ids, eos], [*learned, True]


def _encode_fast(
    group: list[Rendered], tokenizer: Any, special: bool
) -> list[tuple[list[int], list[bool]]]:
    encoded = tokenizer(
        [item.text for item in group],
        add_special_tokens=special,
        return_offsets_mapping=True,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )
    return [
        (list(ids), _overlaps(offsets, item.spans))
        for item, ids, offsets in zip(
            group, encoded["input_ids"], encoded["offset_mapping"], strict=True
        )
    ]


def _overlaps(
    offsets: list[tuple[int, int]], spans: tuple[tuple[int, int], ...] | None
) -> list[bool]:
    """For each token's (begin, end) in the text, whether it overlaps a span; both are sorted.

    A token without width (a byte of a character that another token shows) counts as its place.
    """
    if spans is None:
        return [True] * len(offsets)
    learned = [False] * len(offsets)
    current = 0
    for place, (begin, end) in enumerate(offsets):
        while current < len(spans) and spans[current][1] <= begin:
            current += 1
        if current == len(spans):
            break
        learned[place] = max(end, begin + 1) > spans[current][0]
    return learned


def _encode_slow(item: Rendered, tokenizer: Any, special: bool) -> tuple[list[int], list[bool]]:
    """For tokenizers without offsets: where the ids of the text up to a span's ends part."""
    ids: list[int] = list(tokenizer(item.text, add_special_tokens=special)["input_ids"])
    if item.spans is None:
        return ids, [True] * len(ids)

    def tokens_before(place: int) -> int:
        if place == len(item.text):
            return len(ids)
        part = tokenizer(item.text[:place], add_special_tokens=special)["input_ids"]
        return next(
            (i for i, (a, b) in enumerate(zip(part, ids, strict=False)) if a != b),
            min(len(part), len(ids)),
        )

    learned = [False] * len(ids)
    for begin, end in item.spans:
        for place in range(tokens_before(begin), tokens_before(end)):
            learned[place] = True
    return ids, learned


def pieces(tokenized: TokenizedRow, tokenizer: Any) -> list[tuple[str, int, bool]]:
    """(text, id, carries loss) of each token, for showing them.

    The texts put together are the text of the row. A character that several tokens share stands
    with the first of them, and the others show an empty text.
    """
    ids = tokenized.input_ids
    texts: list[str] = []
    while len(texts) < len(ids):
        place = len(texts)
        text, width = _token_text(ids[place : place + 1], tokenizer), 1
        while "\ufffd" in text and width < 4 and place + width < len(ids):
            width += 1
            longer = tokenizer.decode(ids[place : place + width])
            if "\ufffd" not in longer:
                text = longer
                break
        else:
            width = 1
        texts += [text] + [""] * (width - 1)
    return [
        (text, token, label != NO_LOSS)
        for text, token, label in zip(texts, ids, tokenized.labels, strict=True)
    ]


def _token_text(ids: list[int], tokenizer: Any) -> str:
    """Decodes one token; a SentencePiece tokenizer would drop the space before a word."""
    text = str(tokenizer.decode(ids, clean_up_tokenization_spaces=False))
    raw = tokenizer.convert_ids_to_tokens(ids)[0]
    if isinstance(raw, str) and raw.startswith("▁") and not text.startswith(" "):
        return " " + text
    return text
