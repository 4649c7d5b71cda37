"""The models of a chat in memory: each base once, with any number of adapters on it."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from core.chat.settings import ChatSettings, Column
from core.config import RunConfig
from core.data.record import read_record
from core.errors import DataError, ModelError
from core.language import _
from core.models.fingerprint import base_changed
from core.models.trained import FINAL, TrainedModel, find_trained
from core.progress import Tell
from core.tokens.chat_templates import MODELS_OWN
from core.tokens.prompts import Message, end_of_answer_ids, prompt_ids
from core.worker.chat.decode import next_tokens, room_for_answer
from core.worker.chat.llama import LlamaVoice, Wanted, folder_of, is_here, llama_voices
from core.worker.chat.voices import GapVoice, LabelVoice, ScoreVoice, SilentVoice
from core.worker.models.classifier import open_classifier
from core.worker.models.loading import (
    open_base,
    open_kind,
    open_model,
    open_tokenizer,
    pick_device,
    pick_dtype,
    tokenizer_of,
    with_adapter,
)
from core.worker.models.masked import open_masked_base, open_trained_masked
from core.worker.models.scores import open_scorer
from core.workspace import Workspace


@dataclass
class _Body:
    """A model in memory and the names of the adapters on it. `active` is the one that answers."""

    model: Any
    adapters: list[str] = field(default_factory=list)
    active: str | None = None

    def switch(self, adapter: str | None) -> None:
        """Lets this adapter answer, or with None the base. Costs nothing when it does already."""
        if adapter == self.active:
            return
        layers = self.model.base_model
        if adapter is None:
            layers.disable_adapter_layers()
        else:
            if self.active is None:
                layers.enable_adapter_layers()
            self.model.set_adapter(adapter, inference_mode=True)
        self.active = adapter


@dataclass(frozen=True)
class Voice:
    """How one column answers. `plain_text`: without a chat template, write on from the text."""

    body: _Body
    adapter: str | None
    tokenizer: Any
    ends: list[int]
    plain_text: bool

    @property
    def model(self) -> Any:
        return self.body.model

    @property
    def dtype(self) -> str:
        return str(self.model.dtype).removeprefix("torch.")

    def prompt(self, messages: list[Message], **variables: Any) -> list[int]:
        """The tokens of a conversation, with variables of the chat template. Raises ModelError when
        it cannot be rendered."""
        return prompt_ids(messages, self.tokenizer, continue_text=self.plain_text, **variables)

    def room(self, prompt: list[int], wanted: int) -> int:
        """How many tokens can follow the prompt. Raises TooLong when none can."""
        return room_for_answer(self.model, prompt, wanted)

    def tokens(self, prompt: list[int], settings: ChatSettings, most: int) -> Generator[int | None]:
        """The answer's tokens, its end token left out; None while the prompt is being read."""
        tokens: Generator[int | None] = next_tokens(self.model, prompt, settings, self.ends, most)
        return tokens

    def take_turn(self) -> None:
        """Makes the shared model answer as this column's."""
        self.body.switch(self.adapter)


AnyVoice = Voice | LlamaVoice | LabelVoice | GapVoice | ScoreVoice | SilentVoice


class Models:
    """Loads what the columns of a chat need, sharing what can be shared."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.device = pick_device()
        self.voices: list[AnyVoice] = []
        self.notes: list[str] = []  # on what was loaded, for a person
        # By what a base is made of: its path, how it is quantized, and its type.
        # With the kind of adapters that stand on it: PEFT puts those of one kind on a model.
        self._shared: dict[tuple[str, str, torch.dtype], dict[str, _Body]] = {}
        # How the runs hold a base: a column with that base alone is held and asked alike.
        self._held: dict[str, tuple[RunConfig, torch.dtype, Any]] = {}

    def load(self, columns: list[Column], bases: list[str], tell: Tell) -> None:
        """Loads a voice for each column. `bases` are the folders or Hub ids of their bases.

        Raises TunesmithError for what cannot be loaded.
        """
        found: dict[int, AnyVoice] = {}
        self.notes = []
        # Runs first: a column with the base alone then shares the base of a run.
        order = sorted(range(len(columns)), key=lambda place: columns[place].run_id is None)
        tell(0.0, _("Loading {name}", name=columns[order[0]].label))
        asked = order if is_here(self.device) else []
        wanted = {place: self._wanted(columns[place], bases[place]) for place in asked}
        writing = {place: one for place, one in wanted.items() if one is not None}
        by_llama, notes = llama_voices(self.workspace, writing, tell)
        found |= by_llama
        self.notes += notes
        for count, place in enumerate(place for place in order if place not in found):
            column = columns[place]
            tell(count / len(columns), _("Loading {name}", name=column.label))
            if column.run_id is None:
                found[place] = self._base_voice(bases[place])
            else:
                found[place] = self._run_voice(column, bases[place])
        self.voices = [found[place] for place in range(len(columns))]

    def _wanted(self, column: Column, base: str) -> Wanted | None:
        """What llama.cpp could answer for a column; None where that does not write."""
        folder = folder_of(base)
        if folder is None:
            return None
        if column.run_id is None:
            config, _dtype, tokenizer = self._held.get(base, (RunConfig(), None, None))
            if config.training_method.makes != "writer":
                return None
            return Wanted(None, folder, self._base_tokenizer(config, base, tokenizer), True)
        trained = self._trained(column, base)
        if trained.config.training_method.makes != "writer":
            return None
        tokenizer = tokenizer_of(trained, base)
        dtype = pick_dtype(trained.config.training.precision, self.device)
        self._held.setdefault(base, (trained.config, dtype, tokenizer))
        return Wanted(trained, folder, tokenizer, self._learned_text(trained))

    def _trained(self, column: Column, base: str) -> TrainedModel:
        """A run's model, with a note where its base is another one now."""
        run = self.workspace.run(str(column.run_id))
        trained = find_trained(run, column.checkpoint or FINAL)
        changed = base_changed(trained, base)
        if changed and changed not in self.notes:
            self.notes.append(changed)
        return trained

    def _base_tokenizer(self, config: RunConfig, base: str, tokenizer: Any) -> Any:
        """Beside a run with a chat template of its own the base is asked in the same words."""
        if tokenizer is None or config.data.chat_template == MODELS_OWN:
            return open_tokenizer(base)
        return tokenizer

    def _run_voice(self, column: Column, base: str) -> AnyVoice:
        trained = self._trained(column, base)
        makes = trained.config.training_method.makes
        if makes == "scorer":
            dtype = pick_dtype(trained.config.training.precision, self.device)
            return ScoreVoice(open_scorer(trained, base, device=self.device, dtype=dtype))
        if makes == "classifier":
            dtype = pick_dtype(trained.config.training.precision, self.device)
            found = open_classifier(trained, base, device=self.device, dtype=dtype)
            return LabelVoice(*found, trained.config.training.max_length)
        if makes == "filler":
            return self._gap_voice(trained, base)
        tokenizer = tokenizer_of(trained, base)
        dtype = pick_dtype(trained.config.training.precision, self.device)
        self._held.setdefault(base, (trained.config, dtype, tokenizer))
        adapter = None
        if trained.adapter is None:
            body = _Body(open_model(trained.folder, device=self.device, dtype=dtype))
        else:
            kind = trained.peft_type if trained.shares_base else None
            body = self._body(trained.config, base, dtype, kind)
            adapter = self._add_adapter(body, trained.adapter)
        return self._voice(body, adapter, tokenizer, self._learned_text(trained))

    def _gap_voice(self, trained: TrainedModel, base: str) -> GapVoice:
        dtype = pick_dtype(trained.config.training.precision, self.device)
        model, tokenizer = open_trained_masked(trained, base, device=self.device, dtype=dtype)
        self._held.setdefault(base, (trained.config, dtype, tokenizer))
        return GapVoice(model, tokenizer, trained.config.training.max_length)

    def _encoder_voice(self, base: str) -> GapVoice | SilentVoice:
        """An encoder alone fills gaps beside a run that learned to."""
        config, dtype, tokenizer = self._held.get(base, (RunConfig(), torch.float32, None))
        if config.training_method.makes != "filler":
            return SilentVoice(Path(base).name)
        model = open_masked_base(config, base, device=self.device, dtype=dtype)
        return GapVoice(model, tokenizer, config.training.max_length)

    def _base_voice(self, base: str) -> Voice | GapVoice | SilentVoice:
        if open_kind(base) == "encoder":
            return self._encoder_voice(base)
        auto = RunConfig(), pick_dtype("auto", self.device), None
        config, dtype, tokenizer = self._held.get(base, auto)
        body = self._body(config, base, dtype, "")
        tokenizer = self._base_tokenizer(config, base, tokenizer)
        return self._voice(body, None, tokenizer, plain_text=True)

    def _body(self, config: RunConfig, base: str, dtype: torch.dtype, kind: str | None) -> _Body:
        """The base in memory for adapters of one kind (by PEFT's name; "" where none is put on
        it), shared with others; with None one that nobody else uses."""
        shared = self._shared.setdefault((base, config.adapter.quantization, dtype), {})
        if kind is not None and (kind in shared or (shared and not kind)):
            return shared[kind] if kind in shared else next(iter(shared.values()))
        body = _Body(open_base(config, base, device=self.device, dtype=dtype))
        if kind is not None:
            shared[kind] = body
        return body

    def _add_adapter(self, body: _Body, adapter: Path) -> str:
        name = f"adapter{len(body.adapters)}"
        is_first = not isinstance(body.model, PeftModel)
        body.model = with_adapter(body.model, adapter, name)
        body.adapters.append(name)
        if is_first:
            body.active = name  # PEFT lets the first one answer at once, and only that one
        return name

    def _voice(self, body: _Body, adapter: str | None, tokenizer: Any, plain_text: bool) -> Voice:
        return Voice(body, adapter, tokenizer, end_of_answer_ids(body.model, tokenizer), plain_text)

    def _learned_text(self, trained: TrainedModel) -> bool:
        """Whether the run learned from plain text, which is to be continued, not answered."""
        try:
            folder = self.workspace.dataset(trained.config.data.dataset)
            return read_record(folder).form == "text"
        except DataError:  # it was deleted since
            return False


def out_of_memory(error: Exception) -> ModelError | None:
    """What to say when it is the memory that was not enough; None for any other error."""
    is_torch = isinstance(error, torch.OutOfMemoryError | MemoryError)
    if not is_torch and "allocate memory" not in str(error):
        return None
    return ModelError(
        _("There is not enough memory for this."),
        _("Clear the chat or load fewer models; a run that is training holds memory too."),
    )
