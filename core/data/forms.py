"""The source forms: what people bring, the fields of each, and the standard form it becomes.

A mapping gives each field of a form a column, or a template such as "{question}\\n\\n{context}".
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from core.data.conversion import SEPARATORS, THOUGHT, UNASKED, WEIGHTS, WINNER, names_of
from core.data.read.row import Row, invalid_text
from core.data.values import root_of, template_of
from core.errors import DataError, did_you_mean
from core.language import N_, Said, _
from core.methods import StandardForm


@dataclass(frozen=True)
class Form:
    """A source form: its fields, and the standard form it becomes.

    `help` says what it is for. `settings` are entries of a mapping that are no columns, each
    with the values it may have, or none where it is names separated by commas.
    """

    name: str
    standard: StandardForm
    required: tuple[str, ...]
    title: Said = Said()
    optional: tuple[str, ...] = ()
    help: Said = Said("")
    settings: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def fields(self) -> tuple[str, ...]:
        return self.required + self.optional


FORMS: dict[str, Form] = {
    form.name: form
    for form in (
        Form(
            "text",
            "text",
            ("text",),
            N_("Plain text"),
            help=N_("Text to go on learning a language or a field from (continued pre-training)."),
        ),
        Form(
            "prompt-completion",
            "prompt-completion",
            ("prompt", "completion"),
            N_("Prompt and answer"),
            ("system", "history", "tools", THOUGHT),
            N_("Questions with the answers that the model shall learn (supervised fine-tuning)."),
        ),
        Form(
            "instruction",
            "prompt-completion",
            ("instruction", "output"),
            N_("Instruction, input, output (Alpaca)"),
            ("input", "system", "history", "tools", THOUGHT),
            N_("Tasks with the answers that the model shall learn (supervised fine-tuning)."),
        ),
        Form(
            "messages",
            "messages",
            ("messages",),
            N_("Messages (OpenAI)"),
            ("system", "tools", THOUGHT, WEIGHTS),
            N_("Conversations whose answers the model shall learn (supervised fine-tuning)."),
            {UNASKED: ("keep",)},
        ),
        Form(
            "sharegpt",
            "messages",
            ("conversations",),
            N_("Conversations (ShareGPT)"),
            ("system", "tools", THOUGHT, WEIGHTS),
            N_("Conversations whose answers the model shall learn (supervised fine-tuning)."),
            {UNASKED: ("keep",)},
        ),
        Form(
            "preference",
            "preference",
            ("chosen", "rejected"),
            N_("Preference (chosen and rejected)"),
            ("prompt", "input", "system", "history", "tools", WINNER),
            N_(
                "Pairs of a better and a worse answer, for DPO and reward models; without a "
                "prompt column, what both conversations share at their beginning is the prompt. "
                "Where a column names the better of the two, it is the winner, and their order "
                "says nothing."
            ),
        ),
        Form(
            "unpaired-preference",
            "unpaired-preference",
            ("completion", "label"),
            N_("Judged answers (good or bad)"),
            ("prompt", "input", "system", "history", "tools"),
            N_(
                "Single answers marked good or bad, for KTO; without a prompt column, the "
                "answer's column holds whole conversations."
            ),
        ),
        Form(
            "prompt-only",
            "prompt-only",
            ("prompt",),
            N_("Prompts"),
            ("answer", "input", "system", "history", "tools"),
            N_(
                "Prompts that the model answers while it is trained on rewards (GRPO), with a "
                "reference answer if there is one."
            ),
        ),
        Form(
            "labelled-text",
            "labelled-text",
            ("text", "label"),
            N_("Text with labels"),
            (),
            N_("Texts with one or several labels each, for classification."),
            {"separator": SEPARATORS, "label_names": ()},
        ),
    )
}

TURN_FIELDS = ("messages", "conversations", "history", "tools", WEIGHTS)
"""Fields that hold lists: a template, which makes text, cannot stand for them."""

_CONVERSATIONS = ("conversation", "chat", "dialog", "dialogue", "contents")

# Column names that are known to mean a field, best first.
NAMES: dict[str, tuple[str, ...]] = {
    "text": ("text", "content", "document", "body", "passage", "article", "sentence"),
    "prompt": ("prompt", "question", "query", "instruction", "user", "input", "source", "problem")
    + ("request", "message", "ticket", "human", "context", "document", "article"),
    "completion": ("completion", "response", "answer", "output", "assistant", "target", "reply")
    + ("solution", "label_text", "gpt", "bot", "summary", "highlights"),
    "instruction": ("instruction",),
    "output": ("output", "response", "answer", "completion"),
    "input": ("input", "context"),
    "system": ("system", "system_prompt", "systeminstruction", "system_instruction"),
    "history": ("history",),
    "messages": ("messages", "conversations", *_CONVERSATIONS),
    "conversations": ("conversations", "messages", *_CONVERSATIONS),
    "tools": ("tools", "functions"),
    THOUGHT: ("reasoning_content", "reasoning", "thinking", "thought", "thoughts", "cot")
    + ("chain_of_thought", "thinking_content", "reasoning_text", "thought_process", "scratchpad"),
    WEIGHTS: ("weights", "weight", "turn_weights", "loss_weights", "loss_weight", "loss_mask")
    + ("loss_masks", "train_mask", "train", "train_on_turn", "trainable", "learn", "loss"),
    "chosen": ("chosen", "chosen_response", "response_chosen", "answer_chosen", "preferred")
    + ("accepted", "winner", "better", "preferred_output", "preferred_response")
    + ("preferred_answer", "preferred_completion", "chosen_messages", "chosen_output")
    + ("chosen_answer", "chosen_completion", "good_answer", "good_response", "y_w"),
    "rejected": ("rejected", "rejected_response", "response_rejected", "answer_rejected")
    + ("dispreferred", "loser", "worse", "non_preferred_output", "non_preferred_response")
    + ("non_preferred_answer", "non_preferred_completion", "rejected_messages")
    + ("rejected_output", "rejected_answer", "rejected_completion", "dispreferred_output")
    + ("dispreferred_response", "non_preferred", "bad_answer", "bad_response", "y_l"),
    WINNER: ("winner", "winner_model", "preference", "preferred", "preferred_response", "choice")
    + ("better", "better_response", "better_answer", "best", "verdict", "vote", "selected")
    + ("judgement", "judgment", "human_preference", "label"),
    "answer": ("ground_truth", "reference_answer", "reference", "expected_answer", "expected")
    + ("gold", "gold_answer", "final_answer", "answer", "solution"),
    "label": ("label_text", "label_name", "label", "labels", "class", "category", "categories")
    + ("intent", "topic", "sentiment", "emotion", "tag", "tags", "target"),
}

BETTER_WORSE = (
    *(("chosen", "rejected"), ("preferred", "dispreferred"), ("preferred", "rejected")),
    *(("accepted", "rejected"), ("accepted", "declined"), ("accepted", "refused")),
    *(("accept", "reject"), ("winner", "loser"), ("winning", "losing"), ("win", "lose")),
    *(("won", "lost"), ("better", "worse"), ("best", "worst"), ("good", "bad")),
    *(("desirable", "undesirable"), ("correct", "incorrect"), ("correct", "wrong")),
    *(("right", "wrong"), ("positive", "negative"), ("pos", "neg")),
)
"""Words in which the names of two columns differ that hold a better and a worse answer."""

ANSWER_WORDS = (
    *("answer", "response", "completion", "output", "reply", "text", "message", "turn"),
    *("conversation", "solution", "generation", "sample", "model"),
)
"""What else may stand in such names, as one or several."""

ONLY_ANSWERS = NAMES["answer"][:8]
"""Names that mean an answer to compare with, never one to learn."""

ASKING = ("prompt", "question", "query", "instruction", "problem", "request", "prompts")
"""Names of a column that can stand alone as a prompt."""

JUDGED = (
    *("label", "labels", "kto_tag", "thumbs", "thumb", "thumbs_up", "feedback", "liked"),
    *("is_good", "good", "judgement", "judgment", "vote", "desirable", "is_desirable"),
    *("rating", "score", "helpful", "preferred"),
)
"""Names of a column that says whether an answer is good."""

_THOUGHT = N_("a thought before the answer")
MATTERS: dict[str, tuple[str, ...]] = {
    N_("a rating of the rows"): ("rating", "ratings", "score", "scores", "rank", "ranks", "stars")
    + ("overall_score", "quality_score", "helpfulness", "reward", "rewards", "votes", "upvotes"),
    N_("labels"): ("label", "labels", "label_text", "label_name", "kto_tag", "feedback", "thumbs")
    + ("thumb", "thumbs_up", "liked", "is_good", "desirable", "is_desirable"),
    N_("pictures"): ("image", "images", "picture", "pictures", "photo", "photos", "image_url")
    + ("image_urls", "image_path", "image_paths", "img", "pixel_values"),
    N_("sound"): ("audio", "audios", "sound", "sounds", "speech", "audio_path", "audio_url"),
    N_("films"): ("video", "videos", "video_path", "video_url"),
    N_("the row that each one answers"): ("parent_id", "parent", "parent_ids", "parent_message_id")
    + ("reply_to", "in_reply_to", "reply_to_id"),
    _THOUGHT: (*NAMES[THOUGHT], "rationale"),
}
"""What a column holds by its name that a model learns wrongly without, or not at all."""

MARKS = N_("marks of which turns are learned")
MAY_BE_MARKS = (*NAMES[WEIGHTS], "mask", "masks", "turn_mask", "masked", "skip", "ignore")
"""Names of a column beside conversations that may say what of them is learned."""

MENDED_BY: dict[str, str] = {_THOUGHT: THOUGHT, MARKS: WEIGHTS}
"""The field for what a column holds, in the forms that have it."""

TEXT_PAIRS = (
    ("premise", "hypothesis"),
    ("sentence1", "sentence2"),
    ("question1", "question2"),
    ("text_a", "text_b"),
    ("text1", "text2"),
    ("text", "text_pair"),
)
"""Columns that are judged together by one label."""

NOT_LABELS = (
    *("id", "idx", "index", "source", "src", "origin", "lang", "language", "url", "file"),
    *("filename", "path", "page", "heading", "sheet", "date", "time", "timestamp", "split"),
    *("meta", "metadata", "version", "license", "licence", "author", "user", "dataset"),
)
"""Names of columns that repeat their values and yet label nothing."""


LONGEST_META = 2000
"""Characters of a text that is kept beside a row."""


def check_field(form: Form, name: str, source: str, columns: Sequence[str]) -> None:
    """Raises DataError when a field of a form cannot be taken from `source`, a column or a
    template, or cannot be set to it."""
    if name in form.settings:
        allowed = form.settings[name]
        if allowed and source not in allowed:
            raise DataError(
                _("The {field} cannot be {value!r}.", field=name, value=source),
                _("Choose one of {allowed}", allowed=" ".join(allowed)),
            )
        if not allowed:
            _check_names(name, source)
        return
    if name not in form.fields:
        raise DataError(
            _("The form {form} has no field {field}.", form=form.name, field=name),
            _("Its fields are {fields}.", fields=", ".join([*form.fields, *form.settings])),
        )
    template = template_of(source)
    if template and name in TURN_FIELDS:
        raise DataError(
            _("The field {field} needs a column with a list, not a template.", field=name),
            _("Choose from {columns}.", columns=", ".join(columns)),
        )
    for column in template.columns if template else (source,):
        if root_of(column, columns) not in columns:
            raise DataError(
                _(
                    "There is no column {column}{end}",
                    column=column,
                    end=did_you_mean(column, columns),
                ),
                _("The columns are {columns}.", columns=", ".join(columns)),
            )


def _check_names(name: str, source: str) -> None:
    names = names_of(source)
    if not all(names) or len(set(names)) < max(len(names), 2) or template_of(source):
        raise DataError(
            _("The {field} cannot be {value!r}.", field=name, value=source),
            _("Write two names or more, each another one, separated by commas and without braces."),
        )


def is_template(source: str) -> bool:
    """Whether a mapping's value is a template such as "{question}: {context}", not a column."""
    return template_of(source) is not None


def fits(form: str, mapping: Mapping[str, str], columns: Collection[str]) -> bool:
    """Whether a mapping can be used on rows with these columns as it is."""
    if form not in FORMS or not set(FORMS[form].required) <= set(mapping):
        return False
    sources = {k: v for k, v in mapping.items() if v and k not in FORMS[form].settings}
    return used_columns(sources, columns) <= set(columns)


def meta_of(row: Row, mapping: Mapping[str, str]) -> dict[str, Any]:
    """The plain values (text up to 2,000 characters, numbers, true and false) of the columns
    that the mapping does not use as a whole; columns in templates are among them."""
    whole = _whole_columns(tuple(mapping.values()))
    return {
        name: value
        for name, value in row.items()
        if name not in whole and _is_plain(value) and not invalid_text(name)
    }


@lru_cache(maxsize=64)
def _whole_columns(sources: tuple[str, ...]) -> frozenset[str]:
    return frozenset(source for source in sources if not template_of(source))


def _is_plain(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= LONGEST_META and not invalid_text(value)
    if isinstance(value, float):
        return -1e308 < value < 1e308  # no infinity and nothing that is no number: JSON has none
    return isinstance(value, bool) or (isinstance(value, int) and -(2**63) <= value < 2**63)


def used_columns(mapping: Mapping[str, str], columns: Collection[str] = ()) -> set[str]:
    """The columns that a mapping names, alone or in a template; of the `columns` there are, those
    that names with dots lead to."""
    used: set[str] = set()
    for source in mapping.values():
        template = template_of(source)
        used |= set(template.columns) if template else {source}
    return {root_of(name, columns) for name in used}
