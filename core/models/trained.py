"""What a run left behind: an adapter on its base, or a whole model, and the tokens that it added.
No torch: only the files."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from core.config import RunConfig, read_config
from core.errors import ModelError, reason_of
from core.language import _
from core.models.checkpoints import checkpoints
from core.models.origin import maker_of, own_adapter, own_base, read_origin
from core.workspace import RunFolder

FINAL = "final"
# Kinds whose virtual tokens stand before the text; PEFT's names.
_VIRTUAL = ("PROMPT_TUNING", "PREFIX_TUNING")
# Initial weights that PEFT takes out of the base, so that without its adapter it is not the base.
_TAKEN_FROM_BASE = ("pissa", "olora", "corda", "loftq")


@dataclass(frozen=True)
class TrainedModel:
    """The weights of one checkpoint of a run.

    `folder` holds an adapter (`is_adapter`) or a whole model. `base` is what the run was trained
    from: the name in its config, or a folder of the run's own where another run made it. `begun`
    is the adapter that the run trained further, as it was before.
    """

    run: RunFolder
    checkpoint: str
    config: RunConfig
    folder: Path
    is_adapter: bool

    @property
    def base(self) -> str:
        own = own_base(self.run)
        return str(own) if own else self.config.model.model_name_or_path

    @property
    def base_name(self) -> str:
        """The base for people: the first of all, and which run made of it what this one got."""
        name, origin = self.config.model.model_name_or_path, read_origin(self.run)
        if origin is None or not (own_base(self.run) or self.begun):
            return name
        return _("{base} after {run}", base=name, run=maker_of(origin).name)

    @property
    def begun(self) -> Path | None:
        return own_adapter(self.run)

    @property
    def adapter(self) -> Path | None:
        return self.folder if self.is_adapter else None

    @property
    def new_tokens(self) -> NewTokens | None:
        """The tokens that the run added. Raises ModelError when its tokenizer is another one."""
        return read_new_tokens(self.folder)

    @property
    def has_tokenizer(self) -> bool:
        return (self.folder / "tokenizer_config.json").is_file()

    @property
    def peft_type(self) -> str:
        """The adapter's kind by PEFT's name, such as LORA; "" for a whole model."""
        return str(adapter_settings(self.folder).get("peft_type", "")) if self.is_adapter else ""

    @property
    def shares_base(self) -> bool:
        """Whether the model with its adapter switched off is exactly the base.

        Not so when biases were trained, when the adapter began with a part of the base, or when it
        had been trained by another run before, or brought tokens that the base has not.
        """
        if not self.is_adapter or self.begun or self.new_tokens:
            return False
        settings = adapter_settings(self.folder)
        if self.peft_type in _VIRTUAL:  # they stand beside the layers, not in them
            return False
        begin = str(settings.get("init_lora_weights", "")).lower()
        return settings.get("bias", "none") == "none" and not begin.startswith(_TAKEN_FROM_BASE)


def find_trained(run: RunFolder, checkpoint: str = FINAL) -> TrainedModel:
    """The model that a run left at `checkpoint` ("final" or such as "checkpoint-40").

    Raises ModelError when it is not there or not whole, naming those that are.
    """
    if not run.config.is_file():
        raise ModelError(
            _("There is no run {name}.", name=run.root.name), _("See which there are: runs list.")
        )
    whole = checkpoints(run.root)
    found = next((item for item in whole if item.name == checkpoint), None)
    if found is None:
        names = [item.name for item in whole]
        raise ModelError(
            _(
                "{name} has no whole model {checkpoint}.",
                name=run.root.name,
                checkpoint=repr(checkpoint),
            ),
            _("Choose one of: {names}.", names=", ".join(names))
            if names
            else _("It has saved none yet: wait for a checkpoint, or let it train to its end."),
        )
    is_adapter = (found.path / "adapter_config.json").is_file()
    trained = TrainedModel(run, checkpoint, read_config(run.config), found.path, is_adapter)
    read_new_tokens(trained.folder)  # a tokenizer that is not its own is refused at once
    return trained


def adapter_settings(folder: Path) -> dict[str, Any]:
    """The adapter's own configuration. Raises ModelError when it cannot be read."""
    try:
        settings = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            _(
                "The adapter in {name} cannot be read: {reason}.",
                name=folder.name,
                reason=reason_of(error),
            ),
            _("Choose another checkpoint."),
        ) from error
    return dict(settings)


NEW_TOKENS_FILE = "vocabulary.json"


@dataclass(frozen=True)
class NewTokens:
    """`ids` has the id of each new token and `pieces` the tokens that it was before. `rows` are
    the rows of the embeddings, `length` the tokenizer's tokens, both with the new ones."""

    ids: dict[str, int]
    pieces: dict[str, list[int]]
    rows: int
    length: int

    def save(self, folder: Path) -> None:
        text = json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"
        (folder / NEW_TOKENS_FILE).write_text(text, encoding="utf-8")


def read_new_tokens(folder: Path) -> NewTokens | None:
    """The tokens that were added for the weights in a folder; None when there were none.

    Raises ModelError when the tokenizer beside the weights is another one.
    """
    path = folder / NEW_TOKENS_FILE
    if not path.is_file():
        return None
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        ids = {str(token): int(number) for token, number in data["ids"].items()}
        pieces = {str(t): [int(n) for n in given] for t, given in data["pieces"].items()}
        found = NewTokens(ids, pieces, int(data["rows"]), int(data["length"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            _(
                "{file} in {name} cannot be read: {reason}.",
                file=NEW_TOKENS_FILE,
                name=folder.name,
                reason=reason_of(error),
            ),
            _("Choose another checkpoint or run."),
        ) from error
    _check_tokenizer(folder, found)
    return found


def _check_tokenizer(folder: Path, found: NewTokens) -> None:
    known = _tokenizer_ids(folder)
    if known is None:
        return  # a tokenizer without tokenizer.json: it is looked at when it is loaded
    length = max(known.values(), default=-1) + 1
    lost = [token for token, number in found.ids.items() if known.get(token) != number]
    if length == found.length and not lost:
        return
    if length == found.length:
        what = _(
            "The tokenizer in {name} does not belong to its weights: it has {token} in another "
            "place than its weights.",
            name=folder.name,
            token=repr(lost[0]),
        )
    else:
        what = _(
            "The tokenizer in {name} does not belong to its weights: it has {length} tokens where "
            "its weights have rows for {rows}.",
            name=folder.name,
            length=length,
            rows=found.length,
        )
    raise ModelError(
        what,
        _("Bring its own tokenizer files back, or choose another checkpoint or run."),
    )


def _tokenizer_ids(folder: Path) -> dict[str, int] | None:
    """The id of each token by tokenizer.json; None without that file."""
    try:
        data: dict[str, Any] = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ModelError(
            _(
                "The tokenizer in {name} cannot be read: {reason}.",
                name=folder.name,
                reason=reason_of(error),
            ),
            _("Bring its files back."),
        ) from error
    vocab = data.get("model", {}).get("vocab") or {}
    if isinstance(vocab, list):  # of a unigram model: [[token, score], ...]
        vocab = {str(entry[0]): number for number, entry in enumerate(vocab)}
    added = {str(token["content"]): int(token["id"]) for token in data.get("added_tokens", [])}
    return {**vocab, **added}
