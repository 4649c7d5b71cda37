"""The source forms: what people bring, the fields of each, and the standard form it becomes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from core.data.conversion_labels import SEPARATORS

Standard = Literal[
    "text",
    "prompt-completion",
    "messages",
    "preference",
    "unpaired-preference",
    "prompt-only",
    "labelled-text",
]


@dataclass(frozen=True)
class Form:
    """A source form: its fields, and the standard form it becomes.

    `help` says what it is for. `settings` are entries of a mapping that are no columns, each
    with the values it may have.
    """

    name: str
    title: str
    standard: Standard
    required: tuple[str, ...]
    optional: tuple[str, ...] = ()
    help: str = ""
    settings: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def fields(self) -> tuple[str, ...]:
        return self.required + self.optional


FORMS: dict[str, Form] = {
    form.name: form
    for form in (
        Form(
            "text",
            "Plain text",
            "text",
            ("text",),
            help="Text to go on learning a language or a field from (continued pre-training).",
        ),
        Form(
            "prompt-completion",
            "Prompt and answer",
            "prompt-completion",
            ("prompt", "completion"),
            ("system", "history", "tools"),
            "Questions with the answers that the model shall learn (supervised fine-tuning).",
        ),
        Form(
            "instruction",
            "Instruction, input, output (Alpaca)",
            "prompt-completion",
            ("instruction", "output"),
            ("input", "system", "history", "tools"),
            "Tasks with the answers that the model shall learn (supervised fine-tuning).",
        ),
        Form(
            "messages",
            "Messages (OpenAI)",
            "messages",
            ("messages",),
            ("system", "tools"),
            "Conversations whose answers the model shall learn (supervised fine-tuning).",
        ),
        Form(
            "sharegpt",
            "Conversations (ShareGPT)",
            "messages",
            ("conversations",),
            ("system", "tools"),
            "Conversations whose answers the model shall learn (supervised fine-tuning).",
        ),
        Form(
            "preference",
            "Preference (chosen and rejected)",
            "preference",
            ("chosen", "rejected"),
            ("prompt", "input", "system", "history", "tools"),
            "Pairs of a better and a worse answer, for DPO and reward models; without a prompt "
            "column, what both conversations share at their beginning is the prompt.",
        ),
        Form(
            "unpaired-preference",
            "Judged answers (good or bad)",
            "unpaired-preference",
            ("completion", "label"),
            ("prompt", "input", "system", "history", "tools"),
            "Single answers marked good or bad, for KTO; without a prompt column, the answer's "
            "column holds whole conversations.",
        ),
        Form(
            "prompt-only",
            "Prompts",
            "prompt-only",
            ("prompt",),
            ("answer", "input", "system", "history", "tools"),
            "Prompts that the model answers while it is trained on rewards (GRPO), with a "
            "reference answer if there is one.",
        ),
        Form(
            "labelled-text",
            "Text with labels",
            "labelled-text",
            ("text", "label"),
            (),
            "Texts with one or several labels each, for classification.",
            {"separator": SEPARATORS},
        ),
    )
}

TURN_FIELDS = ("messages", "conversations", "history", "tools")
"""Fields that hold lists: a template, which makes text, cannot stand for them."""

_CONVERSATIONS = ("conversation", "chat", "dialog", "dialogue")

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
    "system": ("system", "system_prompt"),
    "history": ("history",),
    "messages": ("messages", "conversations", *_CONVERSATIONS),
    "conversations": ("conversations", "messages", *_CONVERSATIONS),
    "tools": ("tools", "functions"),
    "chosen": ("chosen", "chosen_response", "response_chosen", "answer_chosen", "preferred")
    + ("accepted", "winner", "better"),
    "rejected": ("rejected", "rejected_response", "response_rejected", "answer_rejected")
    + ("dispreferred", "loser", "worse"),
    "answer": ("ground_truth", "reference_answer", "reference", "expected_answer", "expected")
    + ("gold", "gold_answer", "final_answer", "answer", "solution"),
    "label": ("label_text", "label_name", "label", "labels", "class", "category", "categories")
    + ("intent", "topic", "sentiment", "emotion", "tag", "tags", "target"),
}

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
