"""What is trained of a model: all of it, a part, or an adapter of one of PEFT's kinds.

The fields have PEFT's names; those of `freeze` have LLaMA-Factory's.
"""

from __future__ import annotations

from typing import Any, Literal

from core.config.fields import Section, knob
from core.language import N_

# Kinds that put something into the model's layers, by PEFT's names in lower case.
TUNERS = ("lora", "adalora", "loha", "lokr", "vera", "oft", "ia3")
# Kinds that put virtual tokens before every text.
PROMPTS = ("prompt_tuning", "prefix_tuning")
NAMES = {
    "lora": "LoRA",
    "adalora": "AdaLoRA",
    "loha": "LoHa",
    "lokr": "LoKr",
    "vera": "VeRA",
    "oft": "OFT",
    "ia3": "IA3",
    "prompt_tuning": N_("prompt tuning"),
    "prefix_tuning": N_("prefix tuning"),
    "freeze": N_("some of the layers"),
    "none": N_("every weight"),
}
"""What is trained, in words."""

# Initial weights of LoRA that begin with a part of the base taken out of it.
FROM_BASE = ("pissa", "olora", "loftq")

_KIND = "adapter.method"
TUNED: dict[str, list[Any]] = {_KIND: list(TUNERS)}
ADAPTED: dict[str, list[Any]] = {_KIND: [*TUNERS, *PROMPTS]}
LORA: dict[str, list[Any]] = {_KIND: ["lora"]}
LORAS: dict[str, list[Any]] = {_KIND: ["lora", "adalora"]}
RANKED: dict[str, list[Any]] = {_KIND: ["lora", "loha", "lokr", "vera"]}
LYCORIS: dict[str, list[Any]] = {_KIND: ["loha", "lokr"]}
ADALORA: dict[str, list[Any]] = {_KIND: ["adalora"]}
VERA: dict[str, list[Any]] = {_KIND: ["vera"]}
OFT: dict[str, list[Any]] = {_KIND: ["oft"]}
PROMPTED: dict[str, list[Any]] = {_KIND: list(PROMPTS)}
PREFIXED: dict[str, list[Any]] = {_KIND: ["prefix_tuning"]}
FROZEN: dict[str, list[Any]] = {_KIND: ["freeze"]}
_LORA_OR_LYCORIS: dict[str, list[Any]] = {_KIND: ["lora", "loha", "lokr"]}
FOUR_BIT: dict[str, list[Any]] = {"adapter.quantization": ["nf4", "fp4"]}


class AdapterSection(Section):
    """What is trained: a small adapter on a frozen model, a part of it, or the whole model."""

    method: Literal[
        "lora",
        "adalora",
        "loha",
        "lokr",
        "vera",
        "oft",
        "ia3",
        "prompt_tuning",
        "prefix_tuning",
        "freeze",
        "none",
    ] = knob("lora", "Train", level="basic")
    """LoRA trains a small adapter, needs little memory and suits most tasks; the kinds after it
    save more or learn otherwise. Freeze trains some layers, none every weight (full fine-tuning):
    it learns most and needs about eight times the memory."""

    quantization: Literal["none", "nf4", "fp4", "int8"] = knob(
        "none", "Quantize the base (QLoRA)", level="basic", when=ADAPTED
    )
    """Holds the frozen base in fewer bits: nf4 needs about a quarter of the memory, trains slower
    and loses a little accuracy."""

    r: int = knob(16, "Rank (r)", level="basic", when=RANKED, ge=1, le=1024)
    """Higher can learn more and overfits sooner. 8 to 32 suit most tasks; VeRA takes about 256, of
    which it trains little."""

    lora_alpha: int = knob(
        32, "Alpha", when={_KIND: ["lora", "adalora", "loha", "lokr"]}, ge=1, le=4096
    )
    """Scales what the adapter adds: alpha / r. Twice the rank is a good start; higher learns faster
    and is less steady."""

    lora_dropout: float = knob(0.0, "LoRA dropout", when=LORAS, ge=0, lt=1)
    """Above 0 it overfits less on small sets and learns more slowly."""

    rank_dropout: float = knob(0.0, "Rank dropout", when=LYCORIS, ge=0, lt=1)
    """The share of ranks that sit out each step. Above 0 it overfits less."""

    module_dropout: float = knob(
        0.0, "Module dropout", when={_KIND: ["loha", "lokr", "oft"]}, ge=0, lt=1
    )
    """The share of adapted layers (with OFT: of blocks) that sit out each step."""

    vera_dropout: float = knob(0.0, "VeRA dropout", when=VERA, ge=0, lt=1)
    """Above 0 it overfits less on small sets and learns more slowly."""

    target_modules: Literal["all-linear"] | list[str] = knob(
        "all-linear", "Modules with an adapter", when=TUNED
    )
    """All linear layers learn best. Fewer, such as q_proj and v_proj, make a smaller adapter."""

    exclude_modules: list[str] = knob(
        [],
        "Modules without an adapter",
        when={_KIND: [kind for kind in TUNERS if kind != "vera"]},
    )
    """Left out although they are named above or are linear."""

    layers_to_transform: list[int] = knob(
        [],
        "Layers with an adapter",
        when={_KIND: [kind for kind in TUNERS if kind not in ("ia3", "adalora")]},
    )
    """Numbers of the layers, from 0. Empty takes them all. Needs modules that are named above."""

    rank_pattern: dict[str, int] = knob({}, "Ranks of single modules", when=_LORA_OR_LYCORIS)
    """Another rank for the modules that a name or regular expression fits, such as down_proj: 32.
    """

    alpha_pattern: dict[str, int] = knob({}, "Alphas of single modules", when=_LORA_OR_LYCORIS)
    """Another alpha for the modules that a name or regular expression fits."""

    bias: Literal["none", "all", "lora_only"] = knob("none", "Train biases", when=LORAS)
    """Anything but none changes the model even with the adapter switched off."""

    use_dora: bool = knob(False, "DoRA", when=LORA)
    """Splits each weight into size and direction. Often better at low rank, and slower."""

    use_rslora: bool = knob(False, "Rank-stabilised LoRA", when=LORA)
    """Scales by the root of the rank, so that ranks above 32 keep learning."""

    init_lora_weights: Literal["default", "gaussian", "eva", "pissa", "olora", "loftq"] = knob(
        "default", "Initial weights", when=LORA
    )
    """Default starts exactly at the base model. EVA looks at your rows first and begins where they
    differ most. PiSSA and OLoRA begin with the base's main directions, LoftQ with what quantizing
    it would lose: they learn faster, and take a while to compute."""

    eva_rho: float = knob(
        1.0,
        "EVA: most rank of a layer",
        when={**LORA, "adapter.init_lora_weights": ["eva"]},
        ge=1,
        le=16,
    )
    """1 gives every layer the rank r; 2 lets a layer that explains more of your rows have up to
    twice as much, taken from the others. PEFT names it rho."""

    loftq_bits: Literal[4, 8] = knob(
        4, "LoftQ: bits", when={**LORA, "adapter.init_lora_weights": ["loftq"]}
    )
    """To how many bits the base is rounded."""

    loftq_iter: int = knob(
        1, "LoftQ: rounds", when={**LORA, "adapter.init_lora_weights": ["loftq"]}, ge=1, le=10
    )
    """More fit the adapter closer to what was lost, and take longer."""

    loraplus_lr_ratio: float | None = knob(None, "LoRA+ ratio", when=LORA, ge=1, le=1000)
    """How much faster the second matrix (B) learns than the first; its paper takes 16, with half
    the usual learning rate. Empty is plain LoRA."""

    init_r: int = knob(24, "Rank at the start", level="basic", when=ADALORA, ge=2, le=1024)
    """AdaLoRA begins with this rank everywhere and takes it away where it helps least."""

    target_r: int = knob(16, "Rank at the end", level="basic", when=ADALORA, ge=1, le=1024)
    """What is left on average. Layers that matter keep more of it."""

    tinit: int = knob(0, "Steps before ranks fall", when=ADALORA, unit="steps", ge=0)
    """First all ranks learn, so that there is something to judge them by."""

    tfinal: int = knob(0, "Steps after ranks have fallen", when=ADALORA, unit="steps", ge=0)
    """The ranks that are left go on learning."""

    deltaT: int = knob(1, "Judge ranks every", when=ADALORA, unit="steps", ge=1)
    """Seldom is steadier, often is quicker."""

    orth_reg_weight: float = knob(0.5, "Orthogonality", when=ADALORA, ge=0, le=100)
    """How strongly an adapter's directions are kept at right angles, so that each can be judged
    alone."""

    decompose_both: bool = knob(False, "Split both factors", when={_KIND: ["lokr"]})
    """Gives the smaller factor a low rank too: fewer weights to train."""

    decompose_factor: int = knob(
        -1, "Size of the first factor", when={_KIND: ["lokr"]}, ge=-1, le=1024
    )
    """-1 takes two factors of about the same size. A smaller number trains more weights."""

    d_initial: float = knob(0.1, "First scale", when=VERA, gt=0, le=1)
    """With what VeRA's vector of scales begins. Its paper takes 0.1 and less."""

    oft_block_size: int = knob(32, "Block size", level="basic", when=OFT, ge=2, le=1024)
    """Features that are rotated together. Larger learns more and needs more memory."""

    use_cayley_neumann: bool = knob(True, "Quick rotations", when=OFT)
    """Comes near the exact rotation without inverting a matrix: quicker, and nearly as good."""

    feedforward_modules: list[str] = knob([], "Feed-forward modules", when={_KIND: ["ia3"]})
    """IA3 scales what goes into these and what comes out of the others. Empty finds them by their
    usual names, such as down_proj."""

    num_virtual_tokens: int = knob(
        20, "Virtual tokens", level="basic", when=PROMPTED, ge=1, le=1024
    )
    """Learned in place of words, before every text. They take that much room from it."""

    prompt_tuning_init: Literal["RANDOM", "SAMPLE_VOCAB", "TEXT"] = knob(
        "RANDOM", "Begin with", when={_KIND: ["prompt_tuning"]}
    )
    """Random numbers, random tokens of the vocabulary, or a text of yours."""

    prompt_tuning_init_text: str = knob(
        "",
        "Text to begin with",
        when={_KIND: ["prompt_tuning"], "adapter.prompt_tuning_init": ["TEXT"]},
        free_text=True,
    )
    """Such as an instruction for the task. It is cut or repeated to the number of virtual tokens.
    """

    prefix_projection: bool = knob(False, "Learn through a network", when=PREFIXED)
    """Makes the virtual keys and values with a small network, which is steadier and much larger."""

    encoder_hidden_size: int | None = knob(
        None, "Width of that network", when=PREFIXED, ge=1, le=65536
    )
    """Only where one is learned through it. Empty takes that of the keys."""

    freeze_trainable_layers: int = knob(
        2, "Layers to train", level="basic", when=FROZEN, ge=-1000, le=1000
    )
    """So many of the last layers learn; a negative number takes the first ones, 0 none."""

    freeze_trainable_modules: list[str] = knob(["all"], "Modules to train in them", when=FROZEN)
    """Only these modules of the layers, such as mlp or q_proj. `all` takes each."""

    freeze_extra_modules: list[str] = knob([], "Other modules to train", when=FROZEN)
    """Outside of the layers, such as embed_tokens, lm_head or norm."""

    modules_to_save: list[str] = knob([], "Modules trained in full", when=TUNED)
    """Trained and saved whole beside the adapter, such as embed_tokens for new words. Large."""

    bnb_4bit_use_double_quant: bool = knob(
        True, "Double quantization", when={**ADAPTED, **FOUR_BIT}
    )
    """Saves another 0.4 bit for each weight at hardly any cost."""

    bnb_4bit_compute_dtype: Literal["auto", "bfloat16", "float16", "float32"] = knob(
        "auto", "Compute type of the 4-bit base", when={**ADAPTED, **FOUR_BIT}
    )
    """The type in which the unpacked weights are multiplied. Auto follows the precision."""

    @property
    def is_adapter(self) -> bool:
        """Whether an adapter is trained on a frozen base, and not the base's own weights."""
        return self.method in (*TUNERS, *PROMPTS)

    @property
    def is_prompt(self) -> bool:
        """Whether virtual tokens are trained, which stand before every text."""
        return self.method in PROMPTS

    @property
    def changes_base(self) -> bool:
        """Whether the base without the adapter is no longer what it was: its biases are trained,
        or the adapter begins with a part of it."""
        if self.method not in ("lora", "adalora"):
            return False
        taken = self.method == "lora" and self.init_lora_weights in FROM_BASE
        return taken or self.bias != "none"

    @property
    def starts_at_base(self) -> bool:
        """Whether the model with its new adapter is exactly the base, and stays so without it.

        Virtual tokens begin as noise or words. All other kinds begin without any effect.
        """
        return self.method in TUNERS and not self.changes_base
