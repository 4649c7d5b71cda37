"""What a run that added tokens left beside its weights: which they are, and how many rows the
embeddings have with them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from core.errors import ModelError

FILE = "vocabulary.json"


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
        (folder / FILE).write_text(text, encoding="utf-8")


def read_new_tokens(folder: Path) -> NewTokens | None:
    """The tokens that were added for the weights in a folder; None when there were none.

    Raises ModelError when the tokenizer beside the weights is another one.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        ids = {str(token): int(number) for token, number in data["ids"].items()}
        pieces = {str(t): [int(n) for n in given] for t, given in data["pieces"].items()}
        found = NewTokens(ids, pieces, int(data["rows"]), int(data["length"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{FILE} in {folder.name} cannot be read: {error}.", "Choose another checkpoint or run."
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
    what = f"{length} tokens where its weights have rows for {found.length}"
    if length == found.length:
        what = f"{lost[0]!r} in another place than its weights"
    raise ModelError(
        f"The tokenizer in {folder.name} does not belong to its weights: it has {what}.",
        "Bring its own tokenizer files back, or choose another checkpoint or run.",
    )


def _tokenizer_ids(folder: Path) -> dict[str, int] | None:
    """The id of each token by tokenizer.json; None without that file."""
    try:
        data: dict[str, Any] = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ModelError(
            f"The tokenizer in {folder.name} cannot be read: {error}.", "Bring its files back."
        ) from error
    vocab = data.get("model", {}).get("vocab") or {}
    if isinstance(vocab, list):  # of a unigram model: [[token, score], ...]
        vocab = {str(entry[0]): number for number, entry in enumerate(vocab)}
    added = {str(token["content"]): int(token["id"]) for token in data.get("added_tokens", [])}
    return {**vocab, **added}
