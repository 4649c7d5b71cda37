"""Model, data, adapter, evaluation and tracking: the settings around the training itself."""

from __future__ import annotations

from typing import Any, Literal

from core.config.fields import Section, knob

LORA: dict[str, list[Any]] = {"adapter.method": ["lora"]}
FOUR_BIT: dict[str, list[Any]] = {"adapter.quantization": ["nf4", "fp4"]}
EVALUATING: dict[str, list[Any]] = {"evaluation.eval_strategy": ["steps", "epoch"]}


class ModelSection(Section):
    """Which model is trained."""

    model_name_or_path: str = knob(
        "SmolLM2-135M-Instruct", "Base model", level="basic", min_length=1
    )
    """A starter model, a folder, or a name on the Hugging Face Hub. A larger model answers better
    and needs more memory and time."""

    model_revision: str = knob("main", "Revision", min_length=1)
    """Branch, tag or commit on the Hub. A commit keeps the run repeatable if the model changes."""

    attn_implementation: Literal["auto", "sdpa", "eager", "flash_attention_2"] = knob(
        "auto", "Attention"
    )
    """How attention is computed. Auto never computes padding; the others follow transformers."""


class DataSection(Section):
    """What the model learns from."""

    dataset: str = knob("sample", "Data set", level="basic", min_length=1)
    """A prepared data set. `sample` is the support-ticket set that comes with Tunesmith."""

    dataset_fingerprint: str = knob("", "Fingerprint of the data")
    """Filled in when a run starts: what exactly the run learned from."""

    max_train_samples: int | None = knob(None, "Use at most this many rows", ge=1)
    """Fewer rows give a quick trial before the long run. Empty uses them all."""

    assistant_only_loss: bool = knob(True, "Learn only from the answers")
    """On, the model learns to write answers. Off, it also learns to write the questions."""

    system_prompt: str = knob("", "System prompt for rows without one", free_text=True)
    """Put before each conversation that has no system message. Use the same words when you chat."""


class AdapterSection(Section):
    """What is trained: a small adapter on a frozen model, or the whole model."""

    method: Literal["lora", "none"] = knob("lora", "Train", level="basic")
    """LoRA trains a small adapter and needs little memory. None trains every weight (full
    fine-tuning): it learns most and needs about eight times the memory."""

    quantization: Literal["none", "nf4", "fp4", "int8"] = knob(
        "none", "Quantize the base (QLoRA)", level="basic"
    )
    """Holds the frozen base in fewer bits: nf4 needs about a quarter of the memory, trains slower
    and loses a little accuracy."""

    r: int = knob(16, "LoRA rank (r)", level="basic", when=LORA, ge=1, le=1024)
    """Higher can learn more and overfits sooner. 8 to 32 suit most tasks."""

    lora_alpha: int = knob(32, "LoRA alpha", when=LORA, ge=1, le=4096)
    """Scales what the adapter adds: alpha / r. Twice the rank is a good start; higher learns faster
    and is less steady."""

    lora_dropout: float = knob(0.0, "LoRA dropout", when=LORA, ge=0, lt=1)
    """Above 0 it overfits less on small sets and learns more slowly."""

    target_modules: Literal["all-linear"] | list[str] = knob(
        "all-linear", "Modules with an adapter", when=LORA
    )
    """All linear layers learn best. Fewer, such as q_proj and v_proj, make a smaller adapter."""

    bias: Literal["none", "all", "lora_only"] = knob("none", "Train biases", when=LORA)
    """Anything but none changes the model even with the adapter switched off."""

    use_dora: bool = knob(False, "DoRA", when=LORA)
    """Splits each weight into size and direction. Often better at low rank, and slower."""

    use_rslora: bool = knob(False, "Rank-stabilised LoRA", when=LORA)
    """Scales by the root of the rank, so that ranks above 32 keep learning."""

    init_lora_weights: Literal["default", "gaussian", "pissa", "olora"] = knob(
        "default", "Initial weights", when=LORA
    )
    """Default starts exactly at the base model. PiSSA and OLoRA start from its main directions and
    learn faster, but take a while to compute."""

    modules_to_save: list[str] = knob([], "Modules trained in full", when=LORA)
    """Trained and saved whole beside the adapter, such as embed_tokens for new words. Large."""

    bnb_4bit_use_double_quant: bool = knob(True, "Double quantization", when=FOUR_BIT)
    """Saves another 0.4 bit for each weight at hardly any cost."""

    bnb_4bit_compute_dtype: Literal["auto", "bfloat16", "float16", "float32"] = knob(
        "auto", "Compute type of the 4-bit base", when=FOUR_BIT
    )
    """The type in which the unpacked weights are multiplied. Auto follows the precision."""


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

    sample_max_new_tokens: int = knob(64, "Longest sample answer", unit="tokens", ge=0, le=2048)
    """Longer answers take longer at each evaluation. 0 writes none."""


class TrackingSection(Section):
    """What is written down."""

    logging_steps: int = knob(1, "Log every", unit="steps", ge=1)
    """Each log is one point of the curves."""

    save_strategy: Literal["steps", "epoch", "no"] = knob("steps", "Save checkpoints")
    """A run can be resumed from its last checkpoint, and each can be tried in Chat."""

    save_steps: int = knob(
        20, "Save every", when={"tracking.save_strategy": ["steps"]}, unit="steps", ge=1
    )
    """Smaller loses less when something breaks, and writes more."""

    save_total_limit: int | None = knob(3, "Keep at most", unit="checkpoints", ge=1)
    """Older ones are deleted. Empty keeps them all."""
