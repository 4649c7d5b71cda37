"""Model, data, evaluation, and what small sections add: plain text, labels, new tokens. The
settings around the training itself. Names are transformers' where it has them."""

from __future__ import annotations

from typing import Any, Literal

from core.config.fields import Section, knob
from core.methods import WRITTEN_FORMS, named

RUN_PATTERN = r"^([a-z0-9][a-z0-9-]{0,79}(@(final|checkpoint-\d+))?)?$"
"""An id of a run, or an id with a checkpoint behind an @; or nothing."""

FROM_RUN: dict[str, list[Any]] = {"model.start_from": ["merge", "stack", "continue"]}
# Methods whose rows are conversations, and those whose model writes answers or texts.
CONVERSING: dict[str, list[Any]] = {"method": named(converses=True)}
WRITING: dict[str, list[Any]] = {"method": named(writes=True)}
LearnedTurns = Literal["answers", "last_answer", "marked", "everything"]
LearnedThoughts = Literal["all", "not_empty", "none"]
EVALUATING: dict[str, list[Any]] = {"evaluation.eval_strategy": ["steps", "epoch"]}


class ModelSection(Section):
    """Which model is trained."""

    model_name_or_path: str = knob(
        "SmolLM2-135M-Instruct", "Base model", level="basic", min_length=1
    )
    """A starter model, a folder, a name on the Hugging Face Hub, or modelscope:OWNER/NAME for one
    on ModelScope. A larger model answers better and needs more memory and time."""

    model_revision: str = knob("main", "Revision", min_length=1)
    """Branch, tag or commit on the Hub. A commit keeps the run repeatable if the model changes."""

    attn_implementation: Literal["auto", "sdpa", "eager", "flash_attention_2"] = knob(
        "auto", "Attention"
    )
    """How attention is computed. Auto never computes padding; the others follow transformers."""

    start_from: Literal["base", "merge", "stack", "continue"] = knob("base", "Start from")
    """The base model, or another run: merge writes its model out whole and trains on that; stack
    leaves its adapter frozen beneath a new one, which takes little disk; continue trains its
    adapter further."""

    from_run: str = knob("", "Run to start from", when=FROM_RUN, pattern=RUN_PATTERN)
    """The id of a run, with @checkpoint-40 behind it for one of its checkpoints."""


class DataSection(Section):
    """What the model learns from."""

    dataset: str = knob("sample", "Data set", level="basic", min_length=1)
    """A prepared data set. `sample` is the support-ticket set that comes with Tunesmith."""

    dataset_fingerprint: str = knob("", "Fingerprint of the data")
    """Filled in when a run starts: what exactly the run learned from."""

    max_train_samples: int | None = knob(None, "Use at most this many rows", ge=1)
    """Fewer rows give a quick trial before the long run. Empty uses them all."""

    chat_template: str = knob("model", "Chat template", when=CONVERSING, min_length=1)
    """How a conversation becomes one text. `model` is the model's own; otherwise the name of one
    that comes with Tunesmith or of your own. It is saved with the trained model."""

    learn: LearnedTurns = knob("answers", "Learn", when={"method": named(may_learn_questions=True)})
    """Every answer, the last answer of each conversation, the answers that the rows mark with a
    weight above 0, or everything, the questions too. An answer of weight 0 is only read, but for
    everything; a weight between 0 and 1 counts as 1. It was assistant_only_loss before."""

    learn_thoughts: LearnedThoughts = knob(
        "all",
        "Learn thoughts",
        when={
            "method": named(forms=WRITTEN_FORMS),
            "data.learn": ["answers", "last_answer", "marked"],
        },
    )
    """What is learned of the thoughts before an answer, such as <think> ... </think> or
    <reasoning> ... </reasoning>: all of them, all but empty blocks, or none, so that they are only
    read."""

    system_prompt: str = knob(
        "", "System prompt for rows without one", when=CONVERSING, free_text=True
    )
    """Put before each conversation that has no system message. Use the same words when you chat."""


class EvaluationSection(Section):
    """How the model is watched while it learns."""

    eval_strategy: Literal["no", "steps", "epoch"] = knob("steps", "Evaluate")
    """On held-out rows, which shows when the model stops learning and starts memorising."""

    eval_steps: int = knob(
        20, "Evaluate every", when={"evaluation.eval_strategy": ["steps"]}, unit="steps", ge=1
    )
    """Smaller shows more and takes more time."""

    per_device_eval_batch_size: int = knob(8, "Rows at once in evaluation", when=EVALUATING, ge=1)
    """Only memory and speed depend on it."""

    load_best_model_at_end: bool = knob(
        False, "Keep the best checkpoint at the end", when=EVALUATING
    )
    """The run ends with the checkpoint that scored best instead of the last one."""

    metric_for_best_model: str = knob("eval_loss", "Best means", when=EVALUATING, min_length=1)
    """The metric that decides which checkpoint is best and when to stop early."""

    greater_is_better: bool = knob(False, "Higher is better", when=EVALUATING)
    """Off for a loss, on for an accuracy."""

    early_stopping_patience: int | None = knob(
        None, "Stop early after", when=EVALUATING, unit="evaluations", ge=1
    )
    """Stops when the metric has not improved for so many evaluations. Empty never stops early."""

    early_stopping_threshold: float = knob(0.0, "Smallest improvement", when=EVALUATING, ge=0)
    """A smaller change than this does not count as an improvement."""

    sample_prompts: list[str] = knob([], "Prompts to watch", free_text=True)
    """Answered at each evaluation, so that you see the model learn. Empty takes three held-out
    rows."""

    sample_max_new_tokens: int = knob(
        64, "Longest sample answer", when=WRITING, unit="tokens", ge=0, le=2048
    )
    """Longer answers take longer at each evaluation. 0 writes none."""


CPT: dict[str, list[Any]] = {"method": named(fills_blocks=True)}
MLM: dict[str, list[Any]] = {"method": named(makes="filler")}


class TextSection(Section):
    """How plain text is learned."""

    documents: Literal["auto", "apart", "joined"] = knob("auto", "Documents in one block", when=CPT)
    """Texts are joined and cut into full blocks. Apart, none sees the one before it; joined, it
    does, as in most pre-training. Auto keeps them apart where the model's attention can."""

    mlm_probability: float = knob(
        0.15, "Share of tokens to hide", level="basic", when=MLM, gt=0, lt=1
    )
    """The model learns to guess so many of the tokens from the others. 0.15 is BERT's, 0.3 is
    ModernBERT's."""

    whole_word_mask: bool = knob(False, "Hide whole words", when=MLM)
    """Hides all pieces of a word together, which is harder to guess than one of them."""


CLASSIFYING: dict[str, list[Any]] = {"method": named(makes="classifier")}


class ClassificationSection(Section):
    """How labels are learned."""

    problem_type: Literal["auto", "single_label_classification", "multi_label_classification"] = (
        knob("auto", "Labels of a row", when=CLASSIFYING)
    )
    """Single takes the most probable label, multi any number of them. Auto is multi when any row
    has not exactly one label."""

    threshold: float = knob(0.5, "Multi-label threshold", when=CLASSIFYING, gt=0, lt=1)
    """With several labels a row, one is given from this probability on. Lower finds more and errs
    more."""

    class_weights: Literal["none", "balanced", "own"] = knob(
        "none", "Class weights", level="basic", when=CLASSIFYING
    )
    """Balanced makes rare labels count as much as frequent ones; own takes your weights."""

    own_weights: dict[str, Any] = knob(
        {}, "Own weights", when={**CLASSIFYING, "classification.class_weights": ["own"]}
    )
    """A weight for a label by its name, such as spam=2. Labels that are not named count 1."""

    loss: Literal["cross_entropy", "focal"] = knob("cross_entropy", "Loss", when=CLASSIFYING)
    """Focal gives rows that the model already knows less weight, so that hard and rare ones decide
    (Lin et al. 2017)."""

    focal_gamma: float = knob(
        2.0,
        "Focal gamma",
        when={**CLASSIFYING, "classification.loss": ["focal"]},
        ge=0,
        le=10,
    )
    """Higher looks more at the hard rows; 0 is cross entropy."""

    quick: bool = knob(False, "Quick trial", level="basic", when=CLASSIFYING)
    """One epoch in small batches and without evaluation, to see within minutes whether it runs."""


_LEARNING: dict[str, list[Any]] = {"method": named(learns_new_tokens=True)}


class VocabularySection(Section):
    """Tokens that the tokenizer does not have yet."""

    new_tokens: list[str] = knob([], "New tokens", when=_LEARNING)
    """Words or marks that become one token each. Each begins at the mean of its former pieces.
    Worth it for words that are frequent in the data and fall into many pieces."""

    train: Literal["rows", "embeddings"] = knob(
        "rows", "Train for new tokens", when={**_LEARNING, "adapter.method": ["lora"]}
    )
    """Rows trains nothing but the new tokens' own weights beside the adapter. Embeddings trains
    those of all tokens: it learns more, and the adapter grows by hundreds of megabytes."""
