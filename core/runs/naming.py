"""What a run is called that nobody gave a name: its model, its rows, and how it learns."""

from __future__ import annotations

from pathlib import PurePosixPath

from core.config import SPEC_BY_PATH, RunConfig
from core.config.adapter import NAMES
from core.errors import TunesmithError
from core.language import _
from core.workspace import Workspace

MOST = 80


def run_title(workspace: Workspace, config: RunConfig) -> str:
    """Such as `SmolLM2-135M-Instruct on Support tickets, LoRA r16`; at most 80 characters. A name
    that stays as it is now, whoever reads it."""
    how = []
    if config.method != SPEC_BY_PATH["method"].default:
        how.append(config.method.upper() if len(config.method) <= len("RLOO") else config.method)
    adapter = config.adapter
    kind = f"{'Q' if adapter.quantization != 'none' else ''}{NAMES[adapter.method]}"
    ranked = SPEC_BY_PATH["adapter.r"].shown(config.values())
    how.append(f"{kind} r{adapter.r}" if ranked else kind)
    model = PurePosixPath(config.model.model_name_or_path.replace("\\", "/")).name
    end = f", {', '.join(how)}"
    data = dataset_title(workspace, config.data.dataset)
    return shortened(_("{model} on {data}", model=model, data=data), MOST - len(end)) + end


def dataset_title(workspace: Workspace, dataset: str) -> str:
    """A data set's name; its id where it is not there."""
    from core.data.registry import load_dataset_info  # pyarrow takes half of a short command's time

    try:
        return load_dataset_info(workspace, dataset).name
    except TunesmithError:
        return dataset


def shortened(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1].rstrip(" ,") + "…"
