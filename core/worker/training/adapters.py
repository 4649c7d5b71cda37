"""The adapter of a run: its config by PEFT's own names; what it needs between the trainer's making
and its first step (weights that ask the run's own rows, words or base, an optimizer with two rates,
ranks that are taken away); and how it is written."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from peft import (
    AdaLoraConfig,
    EvaConfig,
    IA3Config,
    LoftQConfig,
    LoHaConfig,
    LoKrConfig,
    LoraConfig,
    OFTConfig,
    PeftConfig,
    PeftModel,
    PrefixTuningConfig,
    PromptTuningConfig,
    VeraConfig,
    get_peft_model,
    get_peft_model_state_dict,
    initialize_lora_eva_weights,
    load_peft_weights,
    set_peft_model_state_dict,
)
from peft.optimizers import create_loraplus_optimizer
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback, set_seed

from core.config import RunConfig
from core.config.adapter import FROM_BASE, AdapterSection
from core.errors import ModelError, TrainingError
from core.language import _
from core.models.origin import own_adapter
from core.models.trainable import FEEDFORWARD
from core.worker.models.loading import adapter_misfit
from core.worker.training import ranks
from core.worker.training.attention import other_attention
from core.worker.training.beginning import Beginning
from core.worker.training.trainer import same_randomness
from core.workspace import RunFolder

# The columns in which a prepared data set holds a whole text's tokens, and their labels.
_COLUMNS = (("input_ids", "labels"), ("chosen_input_ids", "chosen_labels"))
# EVA reads so many tokens at once, at least; more for high ranks, whose directions it compares.
_EVA_TOKENS = 512
# It has long found its directions by then.
_EVA_BATCHES = 2000
_IMPORTANCE = "adalora_importance.safetensors"


def peft_config(config: RunConfig, task_type: str = "CAUSAL_LM") -> PeftConfig | None:
    """The adapter of a run; None when weights of the model itself are trained."""
    adapter = config.adapter
    if not adapter.is_adapter:
        return None
    if adapter.method == "lora" and adapter.init_lora_weights == "loftq":
        _need_gpu(config)
    given = _OF_KIND[adapter.method](adapter)
    given.task_type = task_type
    return given


def _need_gpu(config: RunConfig) -> None:
    if config.training.device in ("cpu", "mps"):  # what was on auto is known by now
        raise TrainingError(
            _("LoftQ is computed on a GPU alone, and this run trains without one."),
            _("Set adapter.init_lora_weights to pissa, or train on a GPU."),
        )


def _lora(adapter: AdapterSection) -> LoraConfig:
    starts: Any = adapter.init_lora_weights
    return LoraConfig(
        r=adapter.r,
        lora_alpha=adapter.lora_alpha,
        lora_dropout=adapter.lora_dropout,
        bias=adapter.bias,
        use_dora=adapter.use_dora,
        use_rslora=adapter.use_rslora,
        init_lora_weights=True if starts == "default" else starts,
        eva_config=EvaConfig(rho=adapter.eva_rho) if starts == "eva" else None,
        loftq_config=LoftQConfig(loftq_bits=adapter.loftq_bits, loftq_iter=adapter.loftq_iter)
        if starts == "loftq"
        else {},
        **_patterns(adapter),
        **_modules(adapter),
        **_layers(adapter),
    )


def _adalora(adapter: AdapterSection) -> AdaLoraConfig:
    """How many steps there are is known when the training begins: see AllocateRanks."""
    return AdaLoraConfig(
        init_r=adapter.init_r,
        target_r=adapter.target_r,
        tinit=adapter.tinit,
        tfinal=adapter.tfinal,
        deltaT=adapter.deltaT,
        orth_reg_weight=adapter.orth_reg_weight,
        lora_alpha=adapter.lora_alpha,
        lora_dropout=adapter.lora_dropout,
        bias=adapter.bias,
        total_step=adapter.tinit + adapter.tfinal + 1,
        **_modules(adapter),
    )


def _loha(adapter: AdapterSection) -> LoHaConfig:
    return LoHaConfig(**_lycoris(adapter))


def _lokr(adapter: AdapterSection) -> LoKrConfig:
    return LoKrConfig(
        decompose_both=adapter.decompose_both,
        decompose_factor=adapter.decompose_factor,
        **_lycoris(adapter),
    )


def _vera(adapter: AdapterSection) -> VeraConfig:
    modules = _modules(adapter)
    modules.pop("exclude_modules")  # it knows none
    return VeraConfig(
        r=adapter.r,
        vera_dropout=adapter.vera_dropout,
        d_initial=adapter.d_initial,
        **modules,
        **_layers(adapter),
    )


def _oft(adapter: AdapterSection) -> OFTConfig:
    return OFTConfig(
        r=0,  # the size of a block decides
        oft_block_size=adapter.oft_block_size,
        use_cayley_neumann=adapter.use_cayley_neumann,
        module_dropout=adapter.module_dropout,
        **_modules(adapter),
        **_layers(adapter),
    )


def _ia3(adapter: AdapterSection) -> IA3Config:
    modules = _modules(adapter)
    given = IA3Config(feedforward_modules=adapter.feedforward_modules or FEEDFORWARD, **modules)
    return given


def _prompt_tuning(adapter: AdapterSection) -> PromptTuningConfig:
    """A text to begin with is put in later (`_begin_with_words`), by the run's own
    tokenizer: PEFT would keep the path of one on this machine."""
    begin = adapter.prompt_tuning_init
    return PromptTuningConfig(
        num_virtual_tokens=adapter.num_virtual_tokens,
        prompt_tuning_init="RANDOM" if begin == "TEXT" else begin,
    )


def _prefix_tuning(adapter: AdapterSection) -> PrefixTuningConfig:
    return PrefixTuningConfig(
        num_virtual_tokens=adapter.num_virtual_tokens,
        prefix_projection=adapter.prefix_projection,
        encoder_hidden_size=adapter.encoder_hidden_size,
    )


_OF_KIND: dict[str, Callable[[AdapterSection], PeftConfig]] = {
    "lora": _lora,
    "adalora": _adalora,
    "loha": _loha,
    "lokr": _lokr,
    "vera": _vera,
    "oft": _oft,
    "ia3": _ia3,
    "prompt_tuning": _prompt_tuning,
    "prefix_tuning": _prefix_tuning,
}


def _modules(adapter: AdapterSection) -> dict[str, Any]:
    return {
        "target_modules": adapter.target_modules,
        "exclude_modules": adapter.exclude_modules or None,
        "modules_to_save": adapter.modules_to_save or None,
    }


def _layers(adapter: AdapterSection) -> dict[str, Any]:
    return {"layers_to_transform": adapter.layers_to_transform or None}


def _patterns(adapter: AdapterSection) -> dict[str, Any]:
    return {
        "rank_pattern": dict(adapter.rank_pattern),
        "alpha_pattern": dict(adapter.alpha_pattern),
    }


def _lycoris(adapter: AdapterSection) -> dict[str, Any]:
    return {
        "r": adapter.r,
        "alpha": adapter.lora_alpha,
        "rank_dropout": adapter.rank_dropout,
        "module_dropout": adapter.module_dropout,
        **_patterns(adapter),
        **_modules(adapter),
        **_layers(adapter),
    }


def with_head(model: Any, drawn: list[str], config: RunConfig, task_type: str) -> Any:
    """The model with its adapter, which also holds the modules `drawn` for this run, which the base
    has no weights for: nobody else could draw them again."""
    adapter = peft_config(config, task_type)
    if adapter is None:
        return model
    if drawn:
        adapter.modules_to_save = [*config.adapter.modules_to_save, *drawn]
    set_seed(config.training.seed)
    model = get_peft_model(model, adapter)
    _in_full_precision(model)
    return model


def take_adapter(model: Any, run: RunFolder) -> None:
    """Gives the run's new adapter the weights of the one that it goes on with, if it does.

    Raises ModelError when the two are not alike.
    """
    folder = own_adapter(run)
    if folder is None or not isinstance(model, PeftModel):
        return
    misfit = adapter_misfit(model, folder)
    if misfit:
        raise ModelError(
            _(
                "The adapter of the run to go on with does not fit this run: {misfit}",
                misfit=misfit,
            ),
            _("Give adapter.* the settings of that run, or set model.start_from to merge."),
        )
    set_peft_model_state_dict(model, load_peft_weights(str(folder), device="cpu"))


def start_adapter(trainer: Any, start: Beginning) -> list[TrainerCallback]:
    """Readies the adapter of a trainer that was just made; the callbacks that its kind needs.

    Raises Stopped or a TunesmithError.
    """
    adapter, model = start.config.adapter, trainer.model
    if not isinstance(model, PeftModel):
        return []
    if adapter.method != "lora":
        _in_full_precision(model)
    goes_on = own_adapter(start.run) is not None  # its weights come from another run
    if adapter.method == "lora" and adapter.init_lora_weights == "eva" and not goes_on:
        _look_at_rows(trainer, start)
    if adapter.method == "lora" and adapter.init_lora_weights in FROM_BASE:
        _keep_beginning(model, start)
    if adapter.method == "prompt_tuning" and adapter.prompt_tuning_init == "TEXT" and not goes_on:
        _begin_with_words(model, start)
    if adapter.method == "lora" and adapter.loraplus_lr_ratio is not None:
        trainer.optimizer = _two_rates(trainer, adapter.loraplus_lr_ratio)
    return [AllocateRanks(model)] if adapter.method == "adalora" else []


def _in_full_precision(model: Any) -> None:
    """TRL puts what is trained on a quantized base into bf16, as QLoRA's paper has it. Heads and
    other kinds than LoRA were not made for it: they mix the types, or round their steps away."""
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.is_floating_point():
            parameter.data = parameter.data.float()


def beginning_of(start: Beginning) -> Path:
    """Where an adapter that took a part out of the base is kept as it began."""
    return start.run.root / "adapter_beginning"


def _keep_beginning(model: Any, start: Beginning) -> None:
    """Keeps the adapter as it begins: what it took out of the base has to be told at the end.

    A run that goes on finds it kept already; its weights are those of a fresh beginning.
    """
    place = beginning_of(start)
    if place.is_dir() or not ranks.is_first():
        return
    making = place.with_name(f".{place.name}.making")
    shutil.rmtree(making, ignore_errors=True)
    settings = model.peft_config["default"]
    begin = settings.init_lora_weights
    settings.init_lora_weights = True  # to be laid on the base as it is, without a second cut
    try:
        model.save_pretrained(str(making), save_embedding_layers=False)
    finally:
        settings.init_lora_weights = begin
    making.rename(place)


def _look_at_rows(trainer: Any, start: Beginning) -> None:
    """EVA: each adapter begins with the directions in which the run's rows differ most at its
    layer (Paischer et al. 2024)."""
    start.reporter.doing(_("Looking at the rows for EVA"))
    settings = trainer.model.peft_config["default"]
    ranks = [settings.r, *settings.rank_pattern.values()]
    most = max(_EVA_TOKENS, int(4 * max(ranks) * settings.eva_config.rho))
    batches = list(_eva_batches(trainer.train_dataset, start.tokenizer.pad_token_id or 0, most))
    tokens = sum(int(batch["attention_mask"].sum()) for batch in batches)
    if tokens < most // 2:
        raise TrainingError(
            _(
                "EVA needs about {most} tokens to find {ranks} directions; the rows have {tokens}.",
                most=most,
                ranks=max(ranks),
                tokens=tokens,
            ),
            _("Lower adapter.r, take more rows, or set adapter.init_lora_weights to default."),
        )
    seen = 0

    def forward(model: Any, inputs: Any) -> Any:
        nonlocal seen
        seen += 1
        start.reporter.check_stop()
        if seen > _EVA_BATCHES:
            raise TrainingError(
                _(
                    "EVA found no steady directions in {batches} batches.",
                    batches=_EVA_BATCHES,
                ),
                _("Lower adapter.r, or set adapter.init_lora_weights to default."),
            )
        given = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        with trainer.accelerator.autocast():
            return model(**given)

    causal = trainer.model.get_base_model()
    with same_randomness(), other_attention(causal):
        torch.manual_seed(start.config.training.seed)
        initialize_lora_eva_weights(
            trainer.model, batches, forward_fn=forward, show_progress_bar=False
        )
    start.reporter.note(
        "adapter.init_lora_weights",
        "eva",
        _("directions of {tokens} tokens, found in {seen} looks", tokens=tokens, seen=seen),
    )


def _eva_batches(rows: Any, pad: int, tokens: int) -> Iterator[dict[str, torch.Tensor]]:
    """Batches of the prepared rows, padded on the right, each of at least so many tokens (the last
    joins the one before), up to 64 of them."""
    names = next((pair for pair in _COLUMNS if pair[0] in rows.column_names), None)
    if names is None:
        raise TrainingError(
            _("EVA needs rows that are tokenized before the training, which this method has not."),
            _("Set adapter.init_lora_weights to default."),
        )
    batch: list[tuple[list[int], list[int]]] = []
    batches: list[list[tuple[list[int], list[int]]]] = []
    for row in rows:
        ids = list(row[names[0]])
        labels = row.get(names[1])
        # A classifier's labels are those of the text, not of its tokens.
        of_tokens = isinstance(labels, list) and len(labels) == len(ids)
        batch.append((ids, list(labels) if of_tokens else ids))
        if sum(len(one) for one, _labels in batch) >= tokens:
            batches.append(batch)
            batch = []
        if len(batches) == 64:
            break
    if batch:
        batches = [*batches[:-1], [*batches[-1], *batch]] if batches else [batch]
    for part in batches:
        width = max(len(ids) for ids, _labels in part)
        filled = {"input_ids": pad, "attention_mask": 0, "labels": -100}
        made = {name: torch.full((len(part), width), value) for name, value in filled.items()}
        for place, (ids, labels) in enumerate(part):
            made["input_ids"][place, : len(ids)] = torch.tensor(ids)
            made["attention_mask"][place, : len(ids)] = 1
            made["labels"][place, : len(ids)] = torch.tensor(labels)
        yield made


def _begin_with_words(model: Any, start: Beginning) -> None:
    """Virtual tokens begin as the words of the text, repeated or cut to their number."""
    adapter = start.config.adapter
    ids = start.tokenizer(adapter.prompt_tuning_init_text, add_special_tokens=False)["input_ids"]
    if not ids:
        raise TrainingError(
            _("The text that the virtual tokens begin with has no tokens."),
            _("Write a text in adapter.prompt_tuning_init_text."),
        )
    wanted = (list(ids) * -(-adapter.num_virtual_tokens // len(ids)))[: adapter.num_virtual_tokens]
    place = model.prompt_encoder["default"].embedding.weight
    with torch.no_grad():
        words = model.word_embeddings(torch.tensor(wanted, device=place.device))
        place.copy_(words.to(place.dtype))


def _two_rates(trainer: Any, ratio: float) -> Any:
    """LoRA+: the run's optimizer, with a higher rate for each second matrix (Hayou et al. 2024)."""
    args = trainer.args
    made, options = trainer.get_optimizer_cls_and_kwargs(args, trainer.model)
    options.pop("params", None)
    return create_loraplus_optimizer(
        trainer.model,
        made,
        loraplus_lr_ratio=ratio,
        loraplus_weight_decay=args.weight_decay,
        loraplus_lr_embedding=args.learning_rate,
        **{**options, "lr": args.learning_rate},
    )


def save_adapter(
    model: Any, folder: Path, start: Beginning, weights: Any = None, *, embeddings: bool
) -> None:
    """Writes the adapter so that it fits the base as others have it. `weights` are those of the
    whole model where it is split.

    One that began with a part of the base is written as the difference from how it began: a plain
    LoRA of twice the rank. What LoftQ's rounding of the base lost beside that stays lost.
    """
    options: dict[str, Any] = {"save_embedding_layers": embeddings}
    beginning = beginning_of(start)
    if not beginning.is_dir():
        model.save_pretrained(str(folder), state_dict=weights, **options)
        return
    model.save_pretrained(
        str(folder), path_initial_model_for_weight_conversion=str(beginning), **options
    )
    # PEFT writes the difference alone, without what was trained beside the adapter.
    file = folder / SAFETENSORS_WEIGHTS_NAME
    difference = load_file(file)
    beside = {
        name: value.contiguous()
        for name, value in get_peft_model_state_dict(model, **options).items()
        if "lora_A" not in name and "lora_B" not in name
    }
    save_file({**beside, **difference}, file, metadata={"format": "pt"})


class AllocateRanks(TrainerCallback):
    """Lets PEFT judge the ranks after each step, as AdaLoRA asks for (Zhang et al. 2023).

    A rank that was taken away stays in the model as zeros until the end, so that each checkpoint
    has the same shapes and can be gone on from; the finished adapter is written without them.

    The adapter's directions are kept at right angles by a term of the gradient, which is added
    here: PEFT would add it to the model's own loss, which most trainers never ask for, and which
    would be shown as the task's.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._layers = model.base_model
        self._settings = model.peft_config["default"]
        self._pattern: dict[str, list[bool]] | None = None
        plain = self._layers.model
        self._layers.forward = lambda *given, **options: plain(*given, **options)

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        settings = self._settings
        settings.total_step = state.max_steps
        if settings.tinit + settings.tfinal >= state.max_steps:
            raise TrainingError(
                _(
                    "AdaLoRA has no step to take ranks away in: the run has {max_steps}, of which "
                    "{tinit} come before (tinit) and {tfinal} after (tfinal).",
                    max_steps=state.max_steps,
                    tinit=settings.tinit,
                    tfinal=settings.tfinal,
                ),
                _("Lower adapter.tinit and adapter.tfinal, or train longer."),
            )
        if state.global_step:
            self._go_on(Path(args.output_dir) / f"checkpoint-{state.global_step}")
            if state.global_step > settings.total_step - settings.tfinal:
                self._pattern = self._left()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        weight = self._settings.orth_reg_weight
        if not weight:
            return
        with torch.enable_grad():
            lost = [
                _from_right_angles(part, "lora_A" in name)
                for name, part in self._parts()
                if "lora_E" not in name and part.requires_grad
            ]
            (weight * torch.stack(lost).mean()).backward()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._settings.rank_pattern = self._pattern
        self._layers.update_and_allocate(state.global_step + 1)
        self._pattern, self._settings.rank_pattern = self._settings.rank_pattern, None

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        place = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        judged = self._layers.rankallocator
        kept = {
            f"{kind}.{name}": value
            for kind in ("ipt", "exp_avg_ipt", "exp_avg_unc")
            for name, value in getattr(judged, kind).items()
        }
        if kept and place.is_dir():
            save_file(kept, place / _IMPORTANCE)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._settings.rank_pattern = self._left()

    def _go_on(self, checkpoint: Path) -> None:
        """Takes up the importance of each weight where the checkpoint left it."""
        if not (checkpoint / _IMPORTANCE).is_file():
            return
        judged = self._layers.rankallocator
        device = next(part for _, part in self._parts()).device
        for key, value in load_file(checkpoint / _IMPORTANCE).items():
            kind, _, name = key.partition(".")
            getattr(judged, kind)[name] = value.to(device)

    def _left(self) -> dict[str, list[bool]]:
        """Which ranks each layer still has, as PEFT writes them down."""
        return {
            name: (part.detach() != 0).view(-1).tolist()
            for name, part in self._layers.model.named_parameters()
            if "lora_E.default" in name
        }

    def _parts(self) -> list[tuple[str, Any]]:
        return [
            (name, part) for name, part in self._layers.model.named_parameters() if "lora_" in name
        ]


def _from_right_angles(part: torch.Tensor, is_first: bool) -> torch.Tensor:
    """How far the directions of a matrix are from standing at right angles, each of length 1."""
    products = part @ part.T if is_first else part.T @ part
    return torch.linalg.matrix_norm(products - torch.eye(len(products), device=part.device))
