"""What opens a tokenizer for `core.tokens`: previews, counts, statistics of a data set.

Runs in a process other than the server's: a pool calls these functions by name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from functools import lru_cache
from pathlib import Path
from typing import Any

from core.data.registry import load_dataset_info
from core.errors import ModelError
from core.jobs.limits import SHORT, limited
from core.language import _
from core.models.describe import describe_model
from core.models.location import local_model
from core.progress import Tell
from core.tokens import counts, preview, statistics, words
from core.tokens.chat_templates import use_template
from core.tokens.lens import Lens
from core.workspace import Workspace


def preview_rows(
    workspace: Workspace,
    dataset_id: str,
    lens: Lens,
    part: str,
    indices: Sequence[int],
    template_draft: str = "",
) -> list[dict[str, Any]]:
    """`core.tokens.preview.preview_rows`. `template_draft` is the text of a chat template that is
    being written and goes before the lens's."""
    tokenizer = open_tokenizer(workspace, lens, template_draft)
    info = load_dataset_info(workspace, dataset_id)
    return preview.preview_rows(info, part, indices, tokenizer, lens)


def token_counts(workspace: Workspace, dataset_id: str, lens: Lens) -> dict[str, Any]:
    """`core.tokens.counts.token_counts` of all rows, with as much time for each thousand of them
    as a preview may take."""
    info = load_dataset_info(workspace, dataset_id)
    tokenizer = open_tokenizer(workspace, lens)
    with limited(SHORT) as anew:
        return counts.token_counts(info, tokenizer, lens, progress=lambda _: anew())


def estimated_token_counts(workspace: Workspace, dataset_id: str, lens: Lens) -> dict[str, Any]:
    """`core.tokens.counts.estimated_token_counts`: in a moment, whatever the data set's size."""
    info = load_dataset_info(workspace, dataset_id)
    return counts.estimated_token_counts(info, open_tokenizer(workspace, lens), lens)


def dataset_statistics(
    workspace: Workspace,
    dataset_id: str,
    lens: Lens,
    max_rows: int | None = None,
    progress: Callable[[float], None] | None = None,
    fingerprint: str = "",
) -> dict[str, Any]:
    """The statistics of `core.tokens.statistics`, as they were kept or counted now, with as much
    time for each thousand rows as a preview may take.

    `fingerprint` is that of an earlier version. Raises DataError, and JobError for a chat template
    without end.
    """
    info = load_dataset_info(workspace, dataset_id, fingerprint)
    where = _where(workspace, lens.model) if lens.model else ""
    known = statistics.read_statistics(workspace, info, lens, where)
    if known is not None:
        return known
    tokenizer = open_tokenizer(workspace, lens) if where else None
    with limited(SHORT) as anew:

        def tell(share: float) -> None:
            anew()
            if progress:
                progress(share)

        return statistics.count_statistics(
            workspace,
            info,
            lens,
            where,
            tokenizer,
            model_limit=_limit(where, tokenizer) if where else None,
            max_rows=max_rows,
            progress=tell,
        )


def sampled_statistics(workspace: Workspace, dataset_id: str, lens: Lens) -> dict[str, Any]:
    """`dataset_statistics` of some rows, in a moment."""
    return dataset_statistics(workspace, dataset_id, lens, counts.COUNTED_ROWS)


def count_every_row(workspace: Workspace, dataset_id: str, lens: Lens, progress: Tell) -> None:
    """Counts all rows, and keeps what was counted for `core.tokens.statistics.read_statistics`.

    For a process of its own (`core.jobs.isolated`): a million rows take minutes.
    """
    dataset_statistics(
        workspace, dataset_id, lens, progress=lambda share: progress(share, _("Counting the rest"))
    )


def fragmented_words(
    workspace: Workspace, dataset_id: str, model: str, **settings: Any
) -> dict[str, Any]:
    """`core.tokens.words.fragmented_words` with its settings."""
    info = load_dataset_info(workspace, dataset_id)
    tokenizer = open_tokenizer(workspace, Lens(model, None))
    return words.fragmented_words(info, tokenizer, **settings)


def open_tokenizer(workspace: Workspace, lens: Lens, template_draft: str = "") -> Any:
    """The tokenizer of the lens's model, with its template; kept.

    Raises ModelError, DataError for a template that is not there, and WorkspaceError for a folder
    that may not be read.
    """
    template = template_draft or lens.template(workspace)
    return _templated(_where(workspace, lens.model), template)


def _where(workspace: Workspace, model: str) -> str:
    """The model's folder; a Hub id that is not in the cache as it is."""
    return str(local_model(workspace, model) or model)


@lru_cache(maxsize=8)
def _templated(where: str, template: str) -> Any:
    """The tokenizer of a model with another chat template ("" leaves it its own)."""
    tokenizer = _tokenizer(where)
    return use_template(copy(tokenizer), template) if template else tokenizer


@lru_cache(maxsize=4)
def _tokenizer(where: str) -> Any:
    """The tokenizer of a model; kept, since loading it takes longer than using it."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(where, trust_remote_code=False)
    except (OSError, ValueError, ImportError) as error:
        raise ModelError(
            _(
                "The tokenizer of {name} cannot be loaded: {error}",
                name=Path(where).name,
                error=str(error),
            ),
            _("Choose another model, or a folder that has tokenizer.json in it."),
        ) from error


def _limit(where: str, tokenizer: Any) -> int | None:
    """The most tokens a model reads, by its config and its tokenizer; None if they do not say."""
    try:
        limit = describe_model(where).max_position_embeddings
    except ModelError:
        limit = None  # a Hub id or a folder of a tokenizer alone
    own = tokenizer.model_max_length  # a huge number where it is not set
    return limit or (int(own) if own and own < 10**7 else None)
