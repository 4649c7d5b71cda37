"""What steps would do to the first rows of a data set, before anybody applies them."""

from __future__ import annotations

from collections.abc import Sequence

from core.data.pipeline import try_steps
from core.data.record import StepResult
from core.data.registry import load_dataset_info
from core.data.steps.base import Step
from core.data.versions import imported_files, setting_of
from core.progress import Tell
from core.workspace import Workspace

TRIED_ROWS = 10_000


def try_in_order(
    workspace: Workspace,
    dataset_id: str,
    steps: Sequence[Step],
    *,
    imported: bool = False,
    rows: int = TRIED_ROWS,
    progress: Tell | None = None,
) -> list[StepResult]:
    """What the steps, one after the other, would do to the first `rows` rows of each part; nothing
    is written.

    The rows are those of the current version, or as they were `imported`, which shows what another
    setting of a step that is recorded already would do. Raises DataError when a step does not fit.
    """
    if progress:
        progress(0.0, "Trying")
    info = load_dataset_info(workspace, dataset_id)
    now = {part: info.rows_path(part) for part in info.parts}
    files = imported_files(info) if imported else now
    return try_steps(info.form, steps, setting_of(workspace, info), files, rows, progress)
