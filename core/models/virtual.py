"""Models with virtual tokens before the text (prompt and prefix tuning), as whoever asks them has
to know them. Imports torch: only workers use it."""

from __future__ import annotations

from typing import Any

from peft import PeftModel, PeftType


def virtual_tokens(model: Any) -> int:
    """How many of the model's positions its virtual tokens take."""
    return int(model.active_peft_config.num_virtual_tokens) if _is_prompted(model) else 0


def scored_virtual_tokens(model: Any) -> int:
    """How many scores the model gives before those of the text: prompt tuning's virtual tokens
    are scored like words, a prefix is not."""
    if not _is_prompted(model) or _is_prefix(model):
        return 0
    return virtual_tokens(model)


def after_virtual_tokens(model: Any) -> tuple[Any, Any]:
    """(what to ask, its cache to begin with) for an answer of one row, token by token: PEFT would
    put the virtual tokens before each of them. Other models come back with no cache."""
    if not _is_prompted(model):
        return model, None
    plain = model.get_base_model()
    if _is_prefix(model):
        return plain, model.get_prompt(batch_size=1)
    words = model.get_prompt(batch_size=1).to(plain.dtype)
    return plain, plain(inputs_embeds=words, use_cache=True).past_key_values


def _is_prompted(model: Any) -> bool:
    return isinstance(model, PeftModel) and bool(model.active_peft_config.is_prompt_learning)


def _is_prefix(model: Any) -> bool:
    return bool(model.active_peft_config.peft_type == PeftType.PREFIX_TUNING)
