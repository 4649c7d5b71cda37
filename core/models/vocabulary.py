"""Rows for new tokens in a model. Imports torch: only workers use it."""

from __future__ import annotations

from typing import Any

import torch

from core.errors import ModelError
from core.models.new_tokens import NewTokens


def make_room(model: Any, tokenizer: Any, pieces: dict[str, list[int]]) -> NewTokens:
    """Gives a model rows for the tokens that were added to its tokenizer. Each begins at the mean
    of its former pieces, in the input's embeddings and in the output layer.

    The embeddings grow only when their padding has no room.
    """
    ids = {token: int(tokenizer.convert_tokens_to_ids(token)) for token in pieces}
    rows = max(int(model.get_input_embeddings().weight.shape[0]), len(tokenizer))
    found = NewTokens(ids, dict(pieces), rows, len(tokenizer))
    grow(model, found)
    return found


@torch.no_grad()
def grow(model: Any, tokens: NewTokens) -> None:
    """Makes a base as it was when the tokens had been added and not yet learned.

    Raises ModelError when it has more rows than the run's base had.
    """
    rows = int(model.get_input_embeddings().weight.shape[0])
    if rows > tokens.rows:
        raise ModelError(
            f"The base has {rows} rows of embeddings, and the run's had {tokens.rows} with its new "
            "tokens: it is another model.",
            "Choose the base that the run was trained from.",
        )
    if rows < tokens.rows:
        model.resize_token_embeddings(tokens.rows, mean_resizing=False)
    layers = [model.get_input_embeddings(), model.get_output_embeddings()]
    if layers[1] is None or layers[1].weight.data_ptr() == layers[0].weight.data_ptr():
        layers.pop()
    for layer in layers:
        for token, number in tokens.ids.items():
            if tokens.pieces[token]:
                layer.weight[number] = layer.weight[tokens.pieces[token]].float().mean(dim=0)
    bias = getattr(model.get_output_embeddings(), "bias", None)
    if bias is not None:
        for token, number in tokens.ids.items():
            if tokens.pieces[token]:
                bias[number] = bias[tokens.pieces[token]].float().mean()
