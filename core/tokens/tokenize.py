"""Standard rows to token ids and labels: the one place that decides which tokens carry loss.

The trainer and the preview both come through here, so what a person sees is what is learned.
Chat rows are rendered once with the tokenizer's own template; the span of each assistant turn
is found in `spans`, and a token carries loss when it overlaps such a span.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from core.errors import DataError
from core.language import N_, _
from core.tokens.learn import Learn
from core.tokens.spans import ChatRenderer, Rendered, render_plain, special_texts
from core.tokens.tool_turns import for_template, template_text

NO_LOSS = -100
"""The label that PyTorch's cross entropy leaves out."""

_BATCH = 256
_DEFAULT = Learn()

# The column by which a row's standard form is known, in the order in which they are looked for.
_FORM_OF_COLUMN = {
    "chosen": "preference",
    "labels": "labelled-text",
    "label": "unpaired-preference",
    "text": "text",
    "messages": "messages",
    "completion": "prompt-completion",
    "prompt": "prompt-only",
}
LEARNED_BY = {
    "preference": N_("preference training (DPO, ORPO, a reward model)"),
    "unpaired-preference": N_("training on single judged answers (KTO)"),
    "prompt-only": N_("training with a reward (GRPO)"),
    "labelled-text": "classification",
}
"""What the forms are for that supervised fine-tuning does not learn from."""


@dataclass(frozen=True, slots=True)
class TokenizedRow:
    """One row as the model sees it.

    `labels` is as long as `input_ids`: the token itself where it carries loss, else -100. The
    first label is always -100, for nothing comes before it that could predict it.
    `full_length` counts the tokens before the cut at max_length. `lost_thoughts` are those that the
    chat template took out of (earlier turns, the last turn).
    """

    input_ids: list[int]
    labels: list[int]
    full_length: int
    lost_thoughts: tuple[int, int] = (0, 0)

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

    def cut(self, max_length: int | None) -> TokenizedRow:
        """Its first `max_length` tokens; all of them with None."""
        ids, labels = self.input_ids[:max_length], self.labels[:max_length]
        return replace(self, input_ids=ids, labels=labels)


def tokenize_row(
    row: dict[str, Any],
    tokenizer: Any,
    *,
    max_length: int | None,
    learn: Learn = _DEFAULT,
    system_prompt: str = "",
) -> TokenizedRow:
    """One standard row (text, prompt-completion or messages) as ids and labels.

    Text: its tokens and the end-of-text token, loss on all. Chat: loss on each assistant turn
    (for prompt-completion, on those of the completion) with its end-of-turn token, as far as
    `learn` takes it. `system_prompt` goes before a conversation that has
    none. A tokenizer without a chat template gets prompt and answer as plain lines.
    Raises DataError when the row cannot be rendered, with the reason.
    """
    result = tokenize_all(
        [row],
        tokenizer,
        max_length=max_length,
        learn=learn,
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
    learn: Learn = _DEFAULT,
    system_prompt: str = "",
    progress: Callable[[float], None] | None = None,
) -> tuple[list[TokenizedRow], list[tuple[int, str]]]:
    """Every row that can be learned from, in order, and (index, reason) of each that cannot."""
    results = tokenize_all(
        rows,
        tokenizer,
        max_length=max_length,
        learn=learn,
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
        return _(
            "No answer is left in its first {kept} tokens of {tokens}. Raise max_length or shorten "
            "the prompt.",
            kept=row.length,
            tokens=row.full_length,
        )
    return _(
        "No token of it carries loss: data.learn and the weights of its turns leave "
        "nothing to learn."
    )


def tokenize_all(
    rows: Sequence[dict[str, Any]],
    tokenizer: Any,
    *,
    max_length: int | None,
    learn: Learn = _DEFAULT,
    system_prompt: str = "",
    progress: Callable[[float], None] | None = None,
) -> list[TokenizedRow | DataError]:
    """A result for each row, in order: its tokens, or the DataError that says why it has none."""

    def draw(row: dict[str, Any], chat: ChatRenderer | None) -> list[Rendered | DataError]:
        try:
            return [render_row(row, tokenizer, chat, system_prompt, learn)]
        except DataError as error:
            return [error]

    drawn = encode_batches(rows, tokenizer, draw, max_length=max_length, progress=progress)
    return [one for (one,) in drawn]


def encode_batches(
    rows: Sequence[dict[str, Any]],
    tokenizer: Any,
    draw: Callable[[dict[str, Any], ChatRenderer | None], list[Rendered | DataError]],
    *,
    max_length: int | None,
    progress: Callable[[float], None] | None = None,
) -> Iterator[list[TokenizedRow | DataError]]:
    """For each row, in order, the tokens of the texts that `draw` makes of it; an error stays in
    its place. `draw` is given what renders with the tokenizer's template, None where it has none.

    Encodes in batches, which is several times faster than row by row.
    """
    chat = ChatRenderer(tokenizer) if tokenizer.chat_template else None
    for start in range(0, len(rows), _BATCH):
        drawn = [draw(row, chat) for row in rows[start : start + _BATCH]]
        good = [one for texts in drawn for one in texts if not isinstance(one, DataError)]
        encoded = iter(_encode(good, tokenizer))
        for texts in drawn:
            yield [
                one
                if isinstance(one, DataError)
                else _labelled(*next(encoded), one.lost_thoughts).cut(max_length)
                for one in texts
            ]
        if progress:
            progress(min(len(rows), start + _BATCH) / len(rows))


def form_of(row: dict[str, Any]) -> str:
    """The standard form of a row. Raises DataError when it has none."""
    form = next((form for column, form in _FORM_OF_COLUMN.items() if column in row), None)
    if form is None:
        raise DataError(
            _("A row with the columns {columns} has no standard form.", columns=", ".join(row)),
            _("Import the file again, so that it becomes text, prompt-completion or messages."),
        )
    return form


def answer_wanted(row: dict[str, Any]) -> list[dict[str, Any]] | None:
    """The answer that a row with a prompt holds up as good: of a preference the better one. None
    where it has none, as when its answer was judged bad."""
    if "chosen" in row:
        return list(row["chosen"])
    if "completion" not in row or row.get("label", True) is not True:
        return None
    return list(row["completion"])


def as_answered(row: dict[str, Any]) -> dict[str, Any] | None:
    """A judged row as the question and answer that its good answer makes; rows of forms for
    supervised fine-tuning as they are. None where the answer was judged bad."""
    if "chosen" not in row and "label" not in row:
        return row
    answer = answer_wanted(row)
    if answer is None:
        return None
    names = ("prompt", "tools", "meta")
    return {name: row[name] for name in names if name in row} | {"completion": answer}


def need_sft_form(form: str, found: str) -> None:
    """Raises DataError when supervised fine-tuning cannot learn from a form; `found` says what
    has it."""
    if form in LEARNED_BY:
        raise DataError(
            _(
                "{found}, which is for {method}; supervised fine-tuning learns from text, "
                "prompt-completion or messages.",
                found=found,
                method=LEARNED_BY[form],
            ),
            _("Choose another data set or method, or import the file again in one of these forms."),
        )


def render_row(
    row: dict[str, Any],
    tokenizer: Any,
    chat: ChatRenderer | None,
    system_prompt: str = "",
    learn: Learn = _DEFAULT,
) -> Rendered:
    """A row of a form for supervised fine-tuning as one text, with what `learn` takes of it.
    `chat` renders with the tokenizer's template; None where it has none. Raises DataError."""
    form = form_of(row)
    if form in LEARNED_BY:
        columns = ", ".join(name for name in row if name != "meta")
        found = _("A row with the columns {columns} is {form} data", columns=columns, form=form)
        need_sft_form(form, found)
    if form == "text":
        return Rendered(row["text"], None, add_special_tokens=True, end=True)
    turns, before = list(row.get("messages", ())), 0
    if form != "messages":
        turns, before = [*row["prompt"], *row["completion"]], len(row["prompt"])
    answers = learn.answers_of(turns, before)
    messages, tools = chat_turns(turns, row.get("tools"), tokenizer, system_prompt)
    # Turns may have been put before the others.
    answers = [False] * (len(messages) - len(turns)) + answers
    if chat:
        item = chat.render(messages, answers, tools, learn.thoughts)
    else:
        item = render_plain(messages, answers, tokenizer.eos_token or "", learn.thoughts)
    return item.with_loss_everywhere() if learn.everything else item


def chat_turns(
    messages: list[dict[str, Any]], tools: Any, tokenizer: Any, system_prompt: str
) -> tuple[list[dict[str, Any]], list[Any] | None]:
    """(turns, tools) as the tokenizer's template takes them, with the system prompt before a
    conversation that has none."""
    messages = with_system_prompt(messages, system_prompt)
    return for_template(messages, tools, template_text(tokenizer, with_tools=bool(tools)))


def with_system_prompt(messages: list[dict[str, Any]], system_prompt: str) -> list[dict[str, Any]]:
    """The conversation with the system prompt before it, if it has none of its own."""
    if system_prompt and not any(message["role"] == "system" for message in messages):
        return [{"role": "system", "content": system_prompt}, *messages]
    return messages


def _labelled(ids: list[int], learned: list[bool], lost_thoughts: tuple[int, int]) -> TokenizedRow:
    labels = [token if flag else NO_LOSS for token, flag in zip(ids, learned, strict=True)]
    if labels:
        labels[0] = NO_LOSS
    return TokenizedRow(ids, labels, len(ids), lost_thoughts)


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


def pieces(tokenized: TokenizedRow, tokenizer: Any) -> list[tuple[str, int, bool, bool]]:
    """(text, id, carries loss, is special) of each token, for showing them.

    The texts put together are the text of the row. A character that several tokens share stands
    with the first of them, and the others show an empty text. Special are the tokens that stand
    for no words: begin, end, the marks of turns.
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
    special = set(tokenizer.convert_tokens_to_ids(list(special_texts(tokenizer))))
    return [
        (text, token, label != NO_LOSS, token in special)
        for text, token, label in zip(texts, ids, tokenized.labels, strict=True)
    ]


def _token_text(ids: list[int], tokenizer: Any) -> str:
    """Decodes one token; a SentencePiece tokenizer would drop the space before a word."""
    text = str(tokenizer.decode(ids, clean_up_tokenization_spaces=False))
    raw = tokenizer.convert_ids_to_tokens(ids)[0]
    if isinstance(raw, str) and raw.startswith("▁") and not text.startswith(" "):
        return " " + text
    return text
