"""Columns of a chat that llama.cpp answers: on a CPU it writes two to three times as fast as
transformers. A process of it holds a base once, with the adapters of all columns on it."""

from __future__ import annotations

import json
import secrets
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx2 as httpx

from core.chat.settings import ChatSettings
from core.errors import ExportError, ModelError
from core.export.formats import formats
from core.language import _
from core.models.describe import describe_model
from core.models.hub import cached_snapshot
from core.models.origin import read_stack
from core.models.trained import TrainedModel
from core.progress import Tell
from core.setup.extras import missing
from core.tokens.prompts import Message, end_of_answer_ids, prompt_ids
from core.worker.chat.decode import too_long
from core.worker.llama_cpp import gguf_files
from core.worker.llama_cpp.kept import kept_adapter, kept_base, kept_whole
from core.worker.llama_cpp.memory import slots
from core.worker.llama_cpp.process import EACH_ITS_OWN, end, open_server
from core.worker.models.loading import open_kind
from core.workspace import Workspace

# A smaller model answers at once in any case, and is not worth a conversion.
LEAST_BYTES = 50_000_000
KIND = "f16"
_CONTEXT = 8192
_PROBE = [{"role": "user", "content": "Hello, who are you? 你好 1 + 1"}]


@dataclass(frozen=True)
class Wanted:
    """What a column asks for: a run's model, or with `trained` None the base in a folder."""

    trained: TrainedModel | None
    base: Path
    tokenizer: Any
    plain_text: bool

    @property
    def is_whole(self) -> bool:
        return self.trained is not None and self.trained.adapter is None


def is_here(device: str) -> bool:
    """Whether llama.cpp answers at all: on a CPU, once it is installed."""
    return device == "cpu" and not missing(["gguf"])


def can_be_tried(wanted: Wanted) -> bool:
    """Whether it may answer: as a plain LoRA, a whole model or the base."""
    weights = sum(path.stat().st_size for path in wanted.base.glob("*.safetensors"))
    if (
        weights < LEAST_BYTES
        or read_stack(wanted.base) is not None
        or open_kind(str(wanted.base)) == "encoder"
    ):
        return False
    if wanted.trained is None:
        return True
    kind = formats()["gguf" if wanted.is_whole else "gguf_adapter"]
    config = wanted.trained.config
    return config.adapter.quantization == "none" and kind.why_not(config) is None


class LlamaServer:
    """llama.cpp with one base, or one model that was trained as a whole. Raises ExportError where
    it cannot be converted or opened, or is read in another way."""

    def __init__(
        self, workspace: Workspace, wanted: Sequence[Wanted], at_once: int, context: int
    ) -> None:
        """It answers so many requests `at_once`, or as many as the memory holds, each of up to
        `context` tokens."""
        first = wanted[0]
        if first.trained is not None and first.is_whole:
            file = kept_whole(first.trained, first.base, KIND, partial(_write, first.trained))
        else:
            file = kept_base(workspace, first.base, KIND)
        adapters = [one.trained for one in wanted if one.trained and not one.is_whole]
        self.adapters = [trained.folder for trained in adapters]
        laid = [kept_adapter(trained, first.base) for trained in adapters]
        facts = describe_model(first.base)
        self.context = min(context, facts.max_position_embeddings or context)
        width = (facts.key_value_size or 0) * (facts.num_layers or 0)
        self.at_once = slots(file, width, self.context, at_once)
        key = secrets.token_hex(16)
        self._process, address = open_server(
            file,
            laid,
            key=key,
            applied=False,
            context=self.context,
            at_once=self.at_once,
            beside_others=True,
            quiet=True,
        )
        headers = {"Authorization": f"Bearer {key}"}
        how: dict[str, Any] = {"base_url": address, "headers": headers, "timeout": None}
        self._client = httpx.Client(**how, limits=httpx.Limits(**EACH_ITS_OWN))
        try:
            self._check_reading(first.tokenizer)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._client.close()
        end(self._process)

    def answer(self, asked: dict[str, Any]) -> list[int]:
        """The tokens that it writes, all together."""
        how = {"return_tokens": True, "cache_prompt": True, **asked}
        try:
            answer = self._client.post("/completion", json=how)
        except httpx.HTTPError as error:
            raise _ended() from error
        if answer.status_code != 200:
            raise ModelError(_("llama.cpp did not answer: {reason}.", reason=answer.text))
        return list(answer.json()["tokens"])

    def tokens(self, asked: dict[str, Any]) -> Generator[int]:
        """What it writes, token by token. Who closes the iterator stops it."""
        how = {"stream": True, "return_tokens": True, "cache_prompt": True, **asked}
        try:
            with self._client.stream("POST", "/completion", json=how) as answer:
                if answer.status_code != 200:
                    reason = answer.read().decode(errors="replace")
                    raise ModelError(_("llama.cpp did not answer: {reason}.", reason=reason))
                for line in answer.iter_lines():
                    kind, _colon, said = line.partition(":")
                    if kind == "data":
                        yield from json.loads(said).get("tokens", ())
        except httpx.HTTPError as error:
            raise _ended() from error

    def _check_reading(self, tokenizer: Any) -> None:
        """Its tokens must be the model's own, by which it is asked."""
        ids = prompt_ids(_PROBE, tokenizer, continue_text=tokenizer.chat_template is None)
        text = tokenizer.decode(ids)
        asked = {"content": text, "add_special": False, "parse_special": True}
        found = self._client.post("/tokenize", json=asked).json()
        if found.get("tokens") != tokenizer(text, add_special_tokens=False)["input_ids"]:
            raise ExportError(_("llama.cpp reads texts in another way than the model."))


@dataclass(frozen=True)
class LlamaVoice:
    """How one column answers. `scales` say which of its server's adapters is on."""

    server: LlamaServer
    scales: tuple[float, ...]
    tokenizer: Any
    plain_text: bool

    @property
    def dtype(self) -> str:
        return _("{dtype} by llama.cpp", dtype="float16")

    def prompt(self, messages: list[Message], **variables: Any) -> list[int]:
        """The tokens of a conversation, with variables of the chat template. Raises ModelError when
        it cannot be rendered."""
        return prompt_ids(messages, self.tokenizer, continue_text=self.plain_text, **variables)

    def room(self, prompt: list[int], wanted: int) -> int:
        """How many tokens can follow the prompt. Raises TooLong when none can."""
        left = self.server.context - len(prompt)
        if left < 1:
            raise too_long(len(prompt), self.server.context)
        return min(wanted, left)

    def tokens(self, prompt: list[int], settings: ChatSettings, most: int) -> Generator[int | None]:
        """The answer's tokens, its end token left out."""
        ends = end_of_answer_ids(None, self.tokenizer)
        for token in self.server.tokens(self._asked(prompt, settings, most)):
            if token in ends:
                return
            yield token

    def most_probable(self, prompt: list[int], most: int, **more: Any) -> list[int]:
        """The same, all together, each token the most probable one; `more` are options of
        llama.cpp's /completion."""
        ends = end_of_answer_ids(None, self.tokenizer)
        greedy = ChatSettings(temperature=0.0, top_p=1.0, seed=0)
        found = self.server.answer({**self._asked(prompt, greedy, most), **more})
        return found[: next((at for at, token in enumerate(found) if token in ends), len(found))]

    def _asked(self, prompt: list[int], settings: ChatSettings, most: int) -> dict[str, Any]:
        seed = secrets.randbits(31) if settings.seed is None else settings.seed % 2**32
        return {
            "prompt": prompt,
            "n_predict": most,
            "temperature": settings.temperature,
            "top_k": settings.top_k,
            "top_p": settings.top_p,
            "min_p": settings.min_p,
            "repeat_penalty": settings.repetition_penalty,
            "repeat_last_n": self.server.context,
            "seed": seed,
            # In the order of transformers.
            "samplers": ["penalties", "temperature", "top_k", "top_p", "min_p"],
            "lora": [{"id": place, "scale": scale} for place, scale in enumerate(self.scales)],
        }

    def take_turn(self) -> None:
        """Nothing is shared that would have to be switched."""


def llama_voices(
    workspace: Workspace,
    wanted: Mapping[int, Wanted],
    tell: Tell,
    at_once: int = 0,
    context: int = _CONTEXT,
) -> tuple[dict[int, LlamaVoice], list[str]]:
    """The columns that llama.cpp answers, by their place, and notes on those that it cannot. It
    answers so many requests `at_once` (0: one a column), of up to `context` tokens each."""
    can = {place: one for place, one in wanted.items() if can_be_tried(one)}
    groups: dict[Path, dict[int, Wanted]] = {}
    for place, one in can.items():
        at = one.trained.folder if one.trained is not None and one.is_whole else one.base
        groups.setdefault(at, {})[place] = one
    voices: dict[int, LlamaVoice] = {}
    notes: list[str] = []
    for group in groups.values():
        tell(0.0, _("Converting the model for llama.cpp"))
        try:
            server = LlamaServer(workspace, list(group.values()), at_once or len(group), context)
        except ExportError as error:
            notes.append(_("transformers answers, which is slower: {why}", why=error.message))
            continue
        for column, one in group.items():
            folder = one.trained.folder if one.trained is not None else None
            on = server.adapters.index(folder) if folder in server.adapters else None
            scales = tuple(float(place == on) for place in range(len(server.adapters)))
            voices[column] = LlamaVoice(server, scales, one.tokenizer, one.plain_text)
    return voices, notes


def folder_of(base: str) -> Path | None:
    """Where a base's files are, of a folder's path or a Hub id that is in the cache."""
    return Path(base) if Path(base).is_dir() else cached_snapshot(base)


def _ended() -> ModelError:
    return ModelError(_("llama.cpp's process ended."), _("Load the models again."))


def _write(trained: TrainedModel, file: Path) -> None:
    gguf_files.convert(trained.folder, file, KIND, trained.run.root.name)
