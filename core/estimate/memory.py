"""The memory that a run needs, part by part, in bytes: arithmetic on a model's sizes."""

from __future__ import annotations

from dataclasses import dataclass, field

from core.config import RunConfig
from core.estimate.batch import Batch
from core.estimate.kept import Way, kept_between_layers, kept_of_layer, way_of
from core.estimate.optimizers import State, state_of
from core.estimate.shape import ModelShape
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
    doubt: str = ""
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
        doubts.append("how much is trained is not known: counted as a fiftieth of the model")
    size = _trained_size(config)
    state = state_of(config.training.optim, size, whole_model=way.own_weights)
    gradients = _gradients(trained, size, state)
    doubts.append(state.doubt)
    layer = kept_of_layer(shape, way, batch)
    kept = _kept(shape, config, way, batch, layer)
    head, held = _loss_head(shape, config, way, batch)
    casts = trained * 2 if way.compute == 2 and size == 4 else 0
    activations = sum(kept) + casts + _on_the_way(shape, way, batch)
    at_once = gradients if config.training.gradient_accumulation_steps > 1 else 0
    beyond = max(activations + held - (gradients - at_once), 0)
    if config.training_method.generates:
        beyond = max(beyond, _written(shape, config, way))
        doubts.append("how long the answers are is not known before they are written")
    if config.training_method.makes == "filler":
        doubts.append("masked language modelling has not been measured")
    parts = {
        _OWN[device]: PROCESS if device != "cuda" else CUDA_CONTEXT,
        "weights": _weights(shape, config, way),
        "reference model": _reference(shape, config),
        "adapter": trained * size if config.adapter.is_adapter else 0,
        "optimizer": round(trained * state.a_weight),
        "gradients": gradients,
        "activations": beyond,
        "loss head": head,
        "allocator": _holes(shape, config, kept, layer, way) if device != "cuda" else 0,
    }
    if device == "cuda":
        parts["allocator"] = round(_CUDA_HOLES * (sum(parts.values()) - CUDA_CONTEXT))
    shown = {name: value for name, value in parts.items() if value}
    doubt = "; ".join(dict.fromkeys(text for text in doubts if text))
    return MemoryEstimate(shown, device, free_bytes, doubt, batch)


_OWN = {"cpu": "Python and libraries", "mps": "Python and libraries", "cuda": "CUDA context"}


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
    # As core.worker.training.row_trainer decides; method cpt may ask TRL for another loss.
    own = config.training.extra.get("loss_type", config.training.sft_loss_type) in ("nll", "dft")
    if takes == "rows" and way.device != "cuda" and own:
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
