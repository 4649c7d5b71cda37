"""The memory that a run needs, part by part, in bytes: arithmetic on a model's sizes.

What the backward pass needs of a batch are the tensors that a layer's forward pass leaves behind.
The lists were read off torch's own saved tensors, layer by layer, for Llama's and BERT's layers:
with an adapter and in full, in 32 bits and under autocast, with each kind of attention.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import reduce

from core.config import RunConfig
from core.config.optimizers import OPTIMIZERS
from core.config.run import device_count
from core.estimate.sizes import TOKENS_AT_ONCE, Batch, ModelShape
from core.language import N_, Said, _
from core.models.describe import trainable_parameters

# A worker with torch, transformers, TRL, PEFT and datasets imported (measured: 610 MB), and what
# a run brings along besides its model: tokenizer, rows, and more of torch's code (80 MB).
PROCESS = 690_000_000
# What CUDA and its libraries take on a GPU before anything is computed.
CUDA_CONTEXT = 600_000_000
# glibc gives blocks below this back only from the end of its heap; larger ones count as one.
_HEAP_BLOCK = 32 * 2**20
# The share of what is kept that lies free between it: torch asks for aligned blocks, for which
# glibc needs a little more than a freed one of the same size has. Adapters free more on the way.
_HOLES_OF_ADAPTER, _HOLES = 0.4, 0.2
# What a layer computes on its way stays on the heap when it is freed: in times of what it keeps,
# and so much where each layer is computed again between what is kept of the others.
_LAYERS_FREED, _LAYERS_FREED_CHECKPOINTED = 2.5, 5.5
# What torch's allocator on a GPU holds beyond what is used; a cautious share.
_CUDA_HOLES = 0.1
# core.worker.training.row_trainer: scores at once, and bytes for each: raw, in 32 bits, for their
# sum, slope.
_OWN_SCORES = 12_000_000
# trl.kernels.chunked_logprob: tokens and entries of the vocabulary at once, and the bytes that
# its torch code takes for each where there is no Triton: forward, and backward.
_TILE_TOKENS, _TILE_ENTRIES = 4096, 32768
_TILE_FORWARD, _TILE_BACKWARD = 14, 31
# Bytes a score where the scores of all tokens are held: themselves, their logarithms, gradients.
_ALL_SCORES = 16
_BNB_BLOCK, _BNB_SECOND_BLOCK = 64, 256


@dataclass(frozen=True)
class MemoryEstimate:
    """What a run takes at its peak. `parts` are bytes by name, in the order in which they are
    shown; activations are what is needed beyond the gradients, which take their place during the
    backward pass. `fits` is None where nothing is known of the device. `doubt` says why it may be
    far off.
    """

    parts: dict[str, int]
    device: str
    free_bytes: int | None = None
    doubt: Said = Said("")
    batch: Batch | None = field(default=None, compare=False)

    @property
    def total(self) -> int:
        return sum(self.parts.values())

    @property
    def fits(self) -> bool | None:
        return None if self.free_bytes is None else self.total <= self.free_bytes


def estimate_memory(
    shape: ModelShape,
    config: RunConfig,
    batch: Batch,
    *,
    device: str = "cpu",
    free_bytes: int | None = None,
) -> MemoryEstimate:
    """The peak of a run of `config`, in which precision and checkpointing are no longer on auto,
    on a kind of device (cpu, cuda, mps) where so much is free."""
    way = way_of(config, shape, batch, device)
    trained = trainable_parameters(shape.facts, config)
    doubts = [shape.doubt]
    if trained is None:
        trained = round(0.02 * shape.parameters)
        doubts.append(_("how much is trained is not known: counted as a fiftieth of the model"))
    size = _trained_size(config)
    state = state_of(config.training.optim, size, whole_model=way.own_weights)
    gradients = on_each_device("gradients", _gradients(trained, size, state), config)
    doubts.append(state.doubt)
    at_once = _at_once(config, way, batch)
    layer = kept_of_layer(shape, way, at_once)
    kept = _kept(shape, config, way, at_once, layer)
    head, held = _loss_head(shape, config, way, at_once)
    casts = trained * 2 if way.compute == 2 and size == 4 else 0
    activations = sum(kept) + casts + _on_the_way(shape, way, at_once)
    in_parts = config.training.gradient_accumulation_steps > 1 or at_once != batch
    there_before = gradients if in_parts else 0
    beyond = max(activations + held - (gradients - there_before), 0)
    if config.training_method.generates:
        beyond = max(beyond, _written(shape, config, way))
        doubts.append(_("how long the answers are is not known before they are written"))
    if config.training_method.makes == "filler":
        doubts.append(_("masked language modelling has not been measured"))
    parts: dict[str, int] = {
        _OWN[device]: PROCESS if device != "cuda" else CUDA_CONTEXT,
        N_("weights"): _weights(shape, config, way),
        N_("reference model"): _reference(shape, config),
        N_("adapter"): trained * size if config.adapter.is_adapter else 0,
        N_("optimizer"): round(trained * state.a_weight),
    }
    parts = {name: on_each_device(name, held, config) for name, held in parts.items()}
    parts |= {
        N_("gradients"): gradients,
        **_between_devices(gradients, shape, config, way),
        N_("activations"): beyond,
        N_("loss head"): head,
        N_("allocator"): _holes(shape, config, kept, layer, way) if device != "cuda" else 0,
    }
    if device == "cuda":
        parts["allocator"] = round(_CUDA_HOLES * (sum(parts.values()) - CUDA_CONTEXT))
    shown = {name: value for name, value in parts.items() if value}
    doubt = reduce(_both, dict.fromkeys(text for text in doubts if text), "")
    return MemoryEstimate(shown, device, free_bytes, doubt, batch)


Names = tuple[str, ...]
_ZERO1: Names = ("optimizer",)
_ZERO2: Names = (*_ZERO1, "gradients")
_ALL: Names = (*_ZERO2, "weights", "adapter", "reference model")
# What each strategy divides among the devices, and what of it waits in the machine's memory when it
# is offloaded.
_DIVIDED: dict[str, tuple[Names, Names]] = {
    "zero1": (_ZERO1, ()),
    "zero2": (_ZERO2, ("optimizer",)),
    "zero3": (_ALL, ("optimizer", "weights", "adapter")),
    "fsdp": (_ALL, _ALL),
}


def on_each_device(name: str, size: int, config: RunConfig) -> int:
    """What each of several devices holds of a part of this size.

    ZeRO's stages divide what the optimizer remembers, then the gradients, then the weights too
    (Rajbhandari et al. 2020, figure 1), as FSDP does.
    """
    count, training = device_count(config), config.training
    divided, waiting = _DIVIDED.get(training.strategy, ((), ()))
    if count > 1 and training.offload and name in waiting:
        return 0
    return size // count if name in divided else size


def _between_devices(
    gradients: int, shape: ModelShape, config: RunConfig, way: Way
) -> dict[str, int]:
    """What several devices need to share the work. DDP copies all gradients into buckets that it
    adds up (PyTorch's notes on DistributedDataParallel, gradient_as_bucket_view). Where the weights
    are divided a layer at a time is whole, and the next one is fetched meanwhile."""
    if device_count(config) == 1:
        return {}
    strategy = config.training.strategy
    if strategy in ("auto", "ddp"):
        return {N_("gradients in buckets"): gradients}
    if "weights" not in _DIVIDED[strategy][0]:
        return {}
    a_layer = shape.linear // max(shape.layers, 1)
    size = _weights(shape, config, way) // max(shape.parameters, 1)
    return {N_("layers in use"): 2 * max(a_layer, shape.embedding, shape.head) * size}


def _both(one: str, other: str) -> str:
    return _("{one}; {other}", one=one, other=other) if one else other


_LIBRARIES = N_("Python and libraries")
_OWN = {"cpu": _LIBRARIES, "mps": _LIBRARIES, "cuda": N_("CUDA context")}


def quantized_bytes(parameters: int, outputs: int, kind: str, double: bool) -> int:
    """What bitsandbytes makes of a layer's weights: in 4 bits with a scale for each block of 64,
    which double quantization makes 8 bits with a scale for each 256 of them (Dettmers et al. 2023,
    section 3); in 8 bits with one scale of 32 bits for each of its `outputs`."""
    if kind == "int8":
        return parameters + 4 * outputs
    scales = parameters / _BNB_BLOCK
    return round(parameters / 2 + scales * (1 + 4 / _BNB_SECOND_BLOCK if double else 4))


def _weights(shape: ModelShape, config: RunConfig, way: Way) -> int:
    """The base in memory. On a CPU weights in their file's own type stay in the file's pages, and
    a quantized model keeps those of what it leaves as it is."""
    adapter = config.adapter
    size = 4 if way.own_weights else way.compute
    if adapter.quantization == "none":
        return shape.parameters * size
    small = quantized_bytes(
        shape.linear,
        shape.linear // max(shape.hidden, 1),
        adapter.quantization,
        adapter.bnb_4bit_use_double_quant,
    )
    rest = (shape.embedding + shape.head + shape.other) * size
    # One layer at a time is unpacked to be multiplied.
    unpacked = shape.largest * size
    return small + unpacked + (shape.file_bytes if way.device == "cpu" else rest)


def _reference(shape: ModelShape, config: RunConfig) -> int:
    """A second model that judges the answers, where it is one of its own."""
    reference, section = config.training_method.reference, config.preference
    if not reference:
        return 0
    if reference == "kl":
        if not config.reinforcement.kl_beta or config.adapter.is_adapter:
            return 0
        return shape.parameters * 4
    if section.ref_model == "none" or section.precompute_ref_log_probs:
        return 0
    size = 4 if config.training.precision == "fp32" else 2
    if section.ref_model != "base":
        return shape.parameters * size
    return 0 if config.adapter.is_adapter else shape.parameters * 4


def _trained_size(config: RunConfig) -> int:
    """Bytes of a trained weight: TRL puts the adapter of a quantized base into bf16."""
    is_small = config.adapter.quantization != "none" and config.training_method.rounds_adapter
    return 2 if is_small and config.adapter.is_adapter else 4


def _gradients(trained: int, size: int, state: State) -> int:
    return trained * size if state.keeps_gradients else 0


def _takes_own_loss(config: RunConfig, way: Way) -> bool:
    """As core.worker.training.row_trainer decides; method cpt may ask TRL for another loss."""
    loss = config.training.extra.get("loss_type", config.training.sft_loss_type)
    is_ours = way.device != "cuda" and not config.adapter.is_prompt
    return config.training_method.loss_head == "rows" and is_ours and loss in ("nll", "dft")


def _at_once(config: RunConfig, way: Way, batch: Batch) -> Batch:
    """The part of a batch that is computed at once: a CPU takes it in pieces of whole rows."""
    waits = not OPTIMIZERS[config.training.optim].at_once
    in_pieces = waits and way.device == "cpu" and device_count(config) == 1
    if not in_pieces or not _takes_own_loss(config, way):
        return batch
    return replace(batch, tokens=min(batch.tokens, max(TOKENS_AT_ONCE[way.compute], batch.width)))


def _kept(
    shape: ModelShape, config: RunConfig, way: Way, batch: Batch, layer: list[int]
) -> list[int]:
    """Bytes of each tensor that is there when the backward pass begins or works on a layer."""
    if config.adapter.method == "freeze":
        trained = min(config.adapter.freeze_trainable_layers or 1, shape.layers)
        layers = abs(trained)
    else:
        layers = shape.layers
    if config.training.gradient_checkpointing is True:
        return [kept_between_layers(shape, way, batch)] * shape.layers + layer
    return layer * layers


def _on_the_way(shape: ModelShape, way: Way, batch: Batch) -> int:
    """Gradients inside a layer's feed-forward part; on a CPU they fit into what lies free."""
    return 0 if way.device == "cpu" else 3 * batch.tokens * shape.inner * way.compute


def _holes(
    shape: ModelShape, config: RunConfig, kept: list[int], layer: list[int], way: Way
) -> int:
    """What lies free between the kept tensors on a heap that cannot move them."""
    share = _HOLES if way.own_weights else _HOLES_OF_ADAPTER
    is_checkpointed = config.training.gradient_checkpointing is True
    layers = _LAYERS_FREED_CHECKPOINTED if is_checkpointed else _LAYERS_FREED
    on_heap = [sum(min(size, _HEAP_BLOCK) for size in sizes) for sizes in (kept, layer)]
    # Weights that were quantized as they were read, and are unpacked one after the other.
    unpacked = shape.linear * way.compute if config.adapter.quantization != "none" else 0
    return round(share * on_heap[0] + layers * on_heap[1] + unpacked)


def _loss_head(shape: ModelShape, config: RunConfig, way: Way, batch: Batch) -> tuple[int, int]:
    """(bytes that the loss takes for a moment, bytes that it leaves for the backward pass)."""
    takes = config.training_method.loss_head
    if takes == "none":
        return 0, 0
    tokens, vocabulary, size = batch.tokens, shape.vocabulary, way.compute
    trains_head = way.own_weights and config.adapter.method == "none"
    matrix = vocabulary * shape.hidden
    # The gradient of a trained head in 32 bits, and its copy when it is scaled.
    left = tokens * shape.hidden * 4 + (matrix * 4 if trains_head else 0)
    cast = matrix * size if way.casts else 0
    if takes == "everything":
        return tokens * vocabulary * _ALL_SCORES, tokens * shape.hidden * size
    if _takes_own_loss(config, way):
        scores = min(_OWN_SCORES, tokens * vocabulary)
        return scores * (8 + 2 * size) + cast + (matrix * 4 if trains_head else 0), left
    entries = min(tokens, _TILE_TOKENS) * min(vocabulary, _TILE_ENTRIES)
    if way.device == "cuda":
        return entries * size + cast, left
    return entries * _TILE_BACKWARD + cast, left


def _written(shape: ModelShape, config: RunConfig, way: Way) -> int:
    """What the keys and values of all answers take while they are written."""
    rows = config.training.per_device_train_batch_size
    length = config.training.max_length + config.reinforcement.max_completion_length
    count = rows if isinstance(rows, int) else config.reinforcement.num_generations
    return 2 * shape.layers * shape.key_value * way.compute * length * count


def evaluation_head(shape: ModelShape, config: RunConfig, batch: Batch) -> int:
    """Bytes that the loss of an evaluation takes on a CPU; there is no backward pass."""
    method = config.training_method
    if method.compares and method.loss_head == "everything":
        return batch.tokens * shape.vocabulary * _ALL_SCORES
    if method.compares and method.loss_head == "tiles" and not method.generates:
        entries = min(batch.tokens, _TILE_TOKENS) * min(shape.vocabulary, _TILE_ENTRIES)
        return entries * _TILE_FORWARD
    return 0


_QUERY_KEY_VALUE = ("q_proj", "k_proj", "v_proj", "qkv_proj", "query", "key", "value", "c_attn")
_GATE_UP = ("gate_proj", "up_proj", "gate_up_proj", "fc1", "c_fc", "Wi")


@dataclass(frozen=True)
class Way:
    """How a run computes. `compute` is the size of a number in bytes (2 or 4); `own_weights` says
    that weights of the model itself are trained, which are held in 32 bits."""

    compute: int
    device: str
    own_weights: bool
    adapters: int
    rank: int
    attention: str
    dropout: bool
    adapter_dropout: bool
    dora: bool
    targets: tuple[str, ...] | None

    @property
    def casts(self) -> bool:
        """Whether autocast makes 16-bit copies of 32-bit weights."""
        return self.own_weights and self.compute == 2

    def has(self, *names: str) -> bool:
        """Whether a module of these names is trained or has an adapter."""
        return self.own_weights or self.targets is None or bool(set(names) & set(self.targets))


def way_of(config: RunConfig, shape: ModelShape, batch: Batch, device: str) -> Way:
    """How `config`, with nothing on auto, is computed on a kind of device (cpu, cuda, mps)."""
    adapter = config.adapter
    wanted = config.model.attn_implementation
    attention = "padded" if batch.padded else "rows"
    if wanted == "eager":
        attention = "eager"
    # TRL switches dropout off where two answers are compared.
    compares = config.training_method.compares
    targets = adapter.target_modules
    return Way(
        compute=4 if config.training.precision == "fp32" else 2,
        device=device,
        own_weights=not adapter.is_adapter,
        adapters=_adapters(shape, targets) if adapter.is_adapter and not adapter.is_prompt else 0,
        rank=adapter.init_r if adapter.method == "adalora" else adapter.r,
        attention=attention,
        dropout=shape.attention_dropout and not compares,
        adapter_dropout=adapter.method in ("lora", "adalora")
        and adapter.lora_dropout > 0
        and not compares,
        dora=adapter.use_dora,
        targets=tuple(targets) if isinstance(targets, list) else None,
    )


def _adapters(shape: ModelShape, targets: str | list[str]) -> int:
    """Modules of a layer that have an adapter."""
    if isinstance(targets, str):
        return len([n for n in shape.facts.linear_modules if n not in ("pooler", "dense")]) + (
            3 if shape.kind == "encoder" and "dense" in shape.facts.linear_modules else 0
        )
    return len(targets)


def kept_of_layer(shape: ModelShape, way: Way, batch: Batch) -> list[int]:
    """Bytes of each tensor that one layer leaves for its backward pass."""
    parts = _encoder(shape, way, batch) if shape.kind == "encoder" else _decoder(shape, way, batch)
    found = [round(batch.tokens * size) for size in parts]
    if way.adapters:
        found += [batch.tokens * way.rank * way.compute] * way.adapters
        width = (4 * shape.hidden + 2 * shape.inner) / 6 * way.compute
        found += [round(batch.tokens * width)] * way.adapters * (2 * way.adapter_dropout + way.dora)
    return [size for size in found if size > 0]


def _decoder(shape: ModelShape, way: Way, batch: Batch) -> list[float]:
    """Bytes a token of each tensor: Llama's norms, attention and gated feed-forward part."""
    hidden, inner, query, size = shape.hidden, shape.inner, shape.query, way.compute
    # A norm computes in 32 bits and keeps what it was given, and to train its weight its result.
    found: list[float] = [hidden * 4] * (4 if way.own_weights else 2)
    if way.casts:  # each linear layer has its input cast for itself
        inputs = [hidden * 2] * (5 if shape.gated else 4)
    else:
        inputs = [hidden * size] * (way.has(*_QUERY_KEY_VALUE) + way.has(*_GATE_UP))
    found += [*inputs, query * size]
    found += [inner * size] * (4 if shape.gated else 2)
    return found + _attention(shape, way, batch)


def _attention(shape: ModelShape, way: Way, batch: Batch) -> list[float]:
    query, keys, size = shape.query, shape.key_value, way.compute
    if way.attention == "eager":
        # The shares of all pairs of tokens, in 32 bits and in the precision.
        pairs = shape.heads * batch.width
        return [query * size] * 3 + [pairs * 4.0] + ([pairs * 2.0] if size == 2 else [])
    if way.attention == "rows":
        # On a CPU ours computes in 32 bits.
        size = 4 if way.device == "cpu" else size
        return [query * size, query * size, keys * size, keys * size]
    if way.device == "cpu":
        return [query * size] * 7 + [float(batch.width * size)]
    return [query * size] * 4


def _encoder(shape: ModelShape, way: Way, batch: Batch) -> list[float]:
    """Bytes a token of each tensor: BERT's norms, attention, feed-forward part and dropouts."""
    hidden, inner, size = shape.hidden, shape.inner, way.compute
    found: list[float] = [hidden * (4 if way.own_weights else size)] * 2
    found += [hidden * size] * (5 if size == 2 else 3)
    found += [inner * size] * (4 if shape.gated else 2)
    if way.dropout:
        found += [hidden * size] * 2
    pairs = float(shape.heads * batch.width * 4)
    if way.attention == "eager" or (way.dropout and way.device == "cpu"):
        # With dropout a CPU has no fused attention: the shares, which were dropped, the rest.
        return found + [hidden * 4.0] * 3 + [pairs] * 3
    return found + [hidden * size] * (7 if way.device == "cpu" else 4)


def kept_between_layers(shape: ModelShape, way: Way, batch: Batch) -> int:
    """Bytes of a layer's input: all that checkpointing keeps of it."""
    return batch.tokens * shape.hidden * (4 if way.own_weights else way.compute)


# How many values of the weight's own type it keeps for each weight.
_VALUES = {
    "adamw_torch": 2,
    "adamw_torch_fused": 2,
    "adamw_torch_xla": 2,
    "adamw_torch_npu_fused": 2,
    "adamw_apex_fused": 2,
    "stable_adamw": 2,
    "grokadamw": 3,
    "schedule_free_adamw": 2,
    "schedule_free_radam": 2,
    "schedule_free_sgd": 1,
    "sgd": 0,
    "adagrad": 1,
    "rmsprop": 1,
    "lomo": 0,
    "adalomo": 0,
}
# Those of bitsandbytes: 32 bits a value, whatever the weight's type, or 8 bits and a scale of 32
# bits for each 256 values.
_32_BIT, _8_BIT = 4.0, 1.0 + 4 / 256
_OF_BITSANDBYTES = {
    "adamw_bnb": 2,
    "adamw": 2,
    "paged_adamw": 2,
    "lion": 1,
    "paged_lion": 1,
    "rmsprop_bnb": 1,
    "ademamix": 3,
    "paged_ademamix": 3,
}
# torchao's, with a scale for each block of 256 values (4 bits: 128).
_OF_TORCHAO = {"adamw_torch_8bit": 2 * _8_BIT, "adamw_torch_4bit": 2 * (0.5 + 4 / 128)}
_ADAMW_VALUES = 2


@dataclass(frozen=True)
class State:
    """Bytes an optimizer keeps for each trained weight; `keeps_gradients` is False where a weight
    is changed as soon as its gradient is there. `doubt` says what is not known."""

    a_weight: float
    keeps_gradients: bool = True
    doubt: str = ""


def state_of(name: str, weight_bytes: int, *, whole_model: bool) -> State:
    """What optimizer `name` keeps of weights of `weight_bytes` each; `whole_model` says that
    matrices of the model are trained, not the slim ones of an adapter."""
    if name in _OF_TORCHAO:
        return State(_OF_TORCHAO[name])
    if name in _VALUES:
        return State(_VALUES[name] * weight_bytes, keeps_gradients="lomo" not in name)
    if name == "adafactor":
        # A sum for each row and column: of a slim matrix of rank 16 that is a sixteenth.
        return State(4 * (0.002 if whole_model else 0.07))
    bits = _8_BIT if name.endswith("_8bit") else _32_BIT
    base = name.removesuffix("_8bit").removesuffix("_32bit")
    if base in _OF_BITSANDBYTES:
        return State(_OF_BITSANDBYTES[base] * bits)
    doubt = _("what {optimizer} keeps is not known: counted as AdamW", optimizer=name)
    if name.startswith(("galore", "apollo")):
        # Its rank decides, and which modules it is put on.
        doubt = _(
            "{optimizer} keeps less than AdamW, by its rank: counted as AdamW", optimizer=name
        )
    return State(_ADAMW_VALUES * weight_bytes, "layerwise" not in name, doubt)
