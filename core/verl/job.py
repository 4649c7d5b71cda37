"""A folder with everything that verl needs for PPO with a critic on a Ray cluster: settings, rows,
reward functions, a command and a README. It is not run here."""

from __future__ import annotations

import ast
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from core.config import RunConfig
from core.config.run import nest
from core.data.record import DatasetInfo, Part
from core.data.registry import load_dataset_info
from core.data.rowfile import iter_rows
from core.errors import ConfigError, DataError, WorkspaceError
from core.language import _
from core.rewards.kinds import Own
from core.rewards.specs import parse_rewards
from core.rules.data import need_form, reward_problems
from core.tokens.prompts import prompted
from core.verl.settings import VERSION, Checked, Cluster, check_keys, model_name, verl_settings
from core.workspace import Workspace

_CORE = Path(__file__).resolve().parents[1]
_TURNS = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_SCHEMA = pa.schema(
    [
        ("data_source", pa.string()),
        ("prompt", _TURNS),
        ("ability", pa.string()),
        ("reward_model", pa.struct([("style", pa.string()), ("ground_truth", pa.string())])),
        (
            "extra_info",
            pa.struct([("split", pa.string()), ("index", pa.int64()), ("prompt", pa.string())]),
        ),
    ]
)
_REWARDS = '''"""The run's reward functions, for verl. The code they need is in tunesmith/."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "tunesmith"))

from core.verl.scoring import Scorer  # noqa: E402

_score = Scorer(HERE)


def compute_score(data_source, solution_str, ground_truth, extra_info=None, **_):
    return _score(solution_str, ground_truth, extra_info)
'''
_RUN = """#!/usr/bin/env bash
# Starts the job where Ray runs, or on this machine's GPUs. Further settings of verl may follow:
#   ./run.sh trainer.total_epochs=1
set -euo pipefail
HERE="$(cd "$(dirname "$0")" && pwd)"
exec python3 -m verl.trainer.main_ppo --config-path "$HERE" --config-name ppo \\
  data.train_files="$HERE/data/train.parquet" \\
  data.val_files="$HERE/{held_out}" \\
  reward.custom_reward_function.path="$HERE/rewards.py" \\
  trainer.default_local_dir="$HERE/checkpoints" "$@"
"""


@dataclass(frozen=True)
class Job:
    """A job folder, the rows in it by part, those left out, and what its keys were held against."""

    folder: Path
    rows: dict[str, int]
    left_out: int
    settings: dict[str, Any]
    checked: Checked


def write_job(
    workspace: Workspace, config: RunConfig, folder: Path, cluster: Cluster | None = None
) -> Job:
    """Writes the job of a run into a new folder.

    Raises ConfigError for what verl's PPO cannot do, DataError for rows without prompts, and
    WorkspaceError when the folder is there already.
    """
    cluster = cluster or Cluster()
    if folder.exists():
        raise WorkspaceError(
            _("{folder} is there already.", folder=folder), _("Name a new folder.")
        )
    name = config.name or folder.name
    settings = verl_settings(config, cluster, name)
    info = load_dataset_info(workspace, config.data.dataset)
    need_form(info, config)
    problems = reward_problems(info, config, workspace)
    if problems:
        raise ConfigError(problems)
    making = folder.with_name(f".{folder.name}.making")
    shutil.rmtree(making, ignore_errors=True)
    (making / "data").mkdir(parents=True)
    try:
        rows, left_out = _write_data(info, config, making / "data")
        _write_rewards(config, workspace, making)
        held_out = settings["data.val_files"]
        text = yaml.safe_dump(nest(settings), sort_keys=False, allow_unicode=True)
        head = {"hydra": {"searchpath": ["pkg://verl.trainer.config"]}}
        begin = yaml.safe_dump({**head, "defaults": ["ppo_trainer", "_self_"]}, sort_keys=False)
        (making / "ppo.yaml").write_text(f"{begin}\n{text}", encoding="utf-8")
        (making / "run.sh").write_text(_RUN.format(held_out=held_out), encoding="utf-8")
        (making / "run.sh").chmod(0o755)
        readme = _readme(config, cluster, name, rows)
        (making / "README.md").write_text(readme, encoding="utf-8")
        making.rename(folder)
    except BaseException:
        shutil.rmtree(making, ignore_errors=True)
        raise
    return Job(folder, rows, left_out, settings, check_keys(settings))


def carried(*modules: str) -> list[str]:
    """The modules of core that these need when they are imported, themselves among them."""
    seen: set[str] = set()
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module not in seen:
            seen.add(module)
            waiting += _imported(module)
    return sorted(seen)


def _source(module: str) -> Path:
    return _CORE.parent / f"{module.replace('.', '/')}.py"


def _imported(module: str) -> Iterator[str]:
    for node in ast.parse(_source(module).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("core"):
            for name in (node.module, *(f"{node.module}.{alias.name}" for alias in node.names)):
                if name and _source(name).is_file():
                    yield name


def _write_data(info: DatasetInfo, config: RunConfig, folder: Path) -> tuple[dict[str, int], int]:
    """(rows by part, rows left out)."""
    parts: list[Part] = ["train"]
    if config.evaluation.eval_strategy != "no":
        if not info.counts.eval:
            raise DataError(
                _("{name} has no held-out rows.", name=info.name),
                _("Split some off in Data, or set evaluation.eval_strategy to no."),
            )
        parts.append("eval")
    counts: dict[str, int] = {}
    left_out = 0
    for part in parts:
        limit = config.data.max_train_samples if part == "train" else None
        with pq.ParquetWriter(folder / f"{part}.parquet", _SCHEMA) as file:
            written, seen = 0, 0
            for rows in iter_rows(info.rows_path(part)):
                rows = rows if limit is None else rows[: max(0, limit - seen)]
                made = [_row(row, seen + place, part, config) for place, row in enumerate(rows)]
                kept = [row for row in made if row is not None]
                file.write_table(pa.Table.from_pylist(kept, schema=_SCHEMA))
                seen += len(rows)
                written += len(kept)
        if not written:
            raise DataError(
                _("No {part} row of {name} has a prompt.", part=part, name=info.name),
                _("Look at it in Data."),
            )
        counts[part] = written
        left_out += seen - written
    return counts, left_out


def _row(row: dict[str, Any], index: int, part: str, config: RunConfig) -> dict[str, Any] | None:
    """A row as verl reads it; None where there is nothing to answer, or tools would be needed."""
    try:
        made = prompted(row, config.data.system_prompt)
    except DataError:
        return None
    if made.tools or any(turn.get("tool_calls") for turn in made.prompt):
        return None
    turns = [{"role": turn["role"], "content": turn["content"]} for turn in made.prompt]
    return {
        "data_source": "tunesmith",
        "prompt": turns,
        "ability": "",
        "reward_model": {"style": "rule", "ground_truth": made.answer or ""},
        "extra_info": {"split": part, "index": index, "prompt": json.dumps(turns)},
    }


def _write_rewards(config: RunConfig, workspace: Workspace, folder: Path) -> None:
    """rewards.py with the code that it stands on, own functions beside it."""
    values = config.reinforcement.rewards
    (folder / "rewards.py").write_text(_REWARDS, encoding="utf-8")
    text = json.dumps(values, ensure_ascii=False, indent=1)
    (folder / "rewards.json").write_text(text, encoding="utf-8")
    for module in carried("core.verl.scoring"):
        target = folder / "tunesmith" / f"{module.replace('.', '/')}.py"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(_source(module), target)
        # What a package says of itself would import more than the functions need.
        for parent in target.relative_to(folder / "tunesmith").parents:
            if parent.name:
                (folder / "tunesmith" / parent / "__init__.py").touch()
    for spec in parse_rewards(values):
        for name in (getattr(spec.options, "schema_file", ""), _own_file(spec.options)):
            if name:
                (folder / "rewards").mkdir(exist_ok=True)
                shutil.copyfile(workspace.rewards / name, folder / "rewards" / name)


def _own_file(options: Any) -> str:
    return options.file if isinstance(options, Own) else ""


def _readme(config: RunConfig, cluster: Cluster, name: str, rows: dict[str, int]) -> str:
    parts = ", ".join(f"{count} {part} rows" for part, count in rows.items())
    names = ", ".join(spec.name for spec in parse_rewards(config.reinforcement.rewards))
    gpus = cluster.nodes * cluster.gpus_per_node
    return f"""# {name}: PPO with a critic, by verl on a Ray cluster

Tunesmith wrote this folder and did not run it: TRL has no PPO, and a critic beside the model wants
GPUs. The settings were held against the keys of verl {VERSION}; another version may name some of
them otherwise.

- Base model: {model_name(config)}
- Rows: {parts}
- Rewards: {names}
- For {cluster.nodes} node(s) of {cluster.gpus_per_node} GPUs, {gpus} in all

## Start
1. In an environment with CUDA, on each node:
   `pip install "verl[verl-core]=={VERSION}" vllm pydantic regex jsonschema`
2. Put this folder where all nodes read it under the same path.
3. With several nodes, start Ray: `ray start --head` on the first,
   `ray start --address FIRST:6379` on the others.
4. `./run.sh`, on the first node. Settings of verl may follow, such as `trainer.total_epochs=1`.

Checkpoints come into `checkpoints/`. `python -m verl.model_merger merge --backend fsdp
--local_dir checkpoints/global_step_N/actor --target_dir merged` makes a model folder of one, which
Tunesmith opens as a base model.

## What is here
| file | what it is |
| --- | --- |
| `ppo.yaml` | the settings that differ from verl's own, which it extends |
| `data/` | the rows: prompt, and the reference answer as `reward_model.ground_truth` |
| `rewards.py` | verl's `compute_score`: the run's reward functions, as in Tunesmith |
| `tunesmith/` | the code they stand on; `rewards/` has your own functions, if there are any |
| `run.sh` | the command |

An answer that no function applies to is rewarded 0. One answer is written to each prompt, for a
critic tells what to expect of it; `reinforcement.num_generations` of the run has no part here.
"""
