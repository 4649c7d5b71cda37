"""A run that learns from rewards, said in verl's own words (Hydra keys of its ppo_trainer.yaml),
and held against verl's own config: the keys of one version, which lie here, or the installed one
of another Python environment, composed by Hydra there. No verl here."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from core.config import RunConfig
from core.config.run import answers_a_step
from core.errors import ConfigError, Problem, SetupError, nearest, reason_of
from core.language import N_, _
from core.models.modelscope import is_named
from core.models.starter import STARTER_MODELS
from core.rewards.specs import FIELD, parse_rewards

# Rows at once on a GPU where the run leaves it to this machine.
_ROWS_A_GPU = 8
_NOT_ON_A_CLUSTER = {
    "reward_model": N_("verl holds reward models itself: set reward.reward_model in ppo.yaml"),
    "judge": N_("each worker of the cluster would ask the endpoint, and its key stays here"),
}


@dataclass(frozen=True)
class Cluster:
    """What the job will run on."""

    nodes: int = 1
    gpus_per_node: int = 8


def job_problems(config: RunConfig, cluster: Cluster) -> list[Problem]:
    """What of a run verl's PPO cannot do, each at its field."""
    found: list[Problem] = []
    if not config.training_method.generates:
        message = _(
            "{method} learns from rows, and a verl job from rewards. Set it to grpo or rloo, "
            "and name reward functions: the job itself is PPO.",
            method=config.method,
        )
        return [Problem("method", message)]
    adapter = config.adapter
    if adapter.method not in ("lora", "none"):
        message = _("{method} is none of verl's kinds. Take lora or none.", method=adapter.method)
        found.append(Problem("adapter.method", message))
    if adapter.quantization != "none":
        message = _(
            "{quantization}: verl trains no quantized base. Set it to none.",
            quantization=adapter.quantization,
        )
        found.append(Problem("adapter.quantization", message))
    name = config.model.model_name_or_path
    if is_named(name):
        message = _(
            "{name}: verl takes a base from the Hub. Name it as it is called there, or a folder "
            "that the cluster reads.",
            name=name,
        )
        found.append(Problem("model.model_name_or_path", message))
    if config.model.start_from != "base":
        message = _(
            "{start_from}: a cluster does not have this machine's runs. Export the run "
            "merged, put it where the cluster reads it, and name that folder as base model.",
            start_from=config.model.start_from,
        )
        found.append(Problem("model.start_from", message))
    for spec in parse_rewards(config.reinforcement.rewards):
        reason = _NOT_ON_A_CLUSTER.get(spec.kind)
        if spec.kind == "length" and getattr(spec.options, "unit", "") == "tokens":
            reason = _("it counts tokens, for which the job has no tokenizer: count words")
        if reason:
            text = _(
                "reward {number} ({name}): {reason}.",
                number=spec.number,
                name=spec.name,
                reason=reason,
            )
            found.append(Problem(FIELD, text))
    answers, gpus = _answers(config), cluster.nodes * cluster.gpus_per_node
    if answers % gpus:
        message = _(
            "{answers} answers a step (batch size times accumulation) do not share out over "
            "{gpus} GPUs. Take {nearest}, or other --gpus and --nodes.",
            answers=answers,
            gpus=gpus,
            nearest=math.ceil(answers / gpus) * gpus,
        )
        found.append(Problem("training.per_device_train_batch_size", message))
    return found


def verl_settings(config: RunConfig, cluster: Cluster, name: str) -> dict[str, Any]:
    """verl's settings by dotted key. Paths are relative to the job's folder, from which it starts.

    Raises ConfigError with every problem of `job_problems`.
    """
    problems = job_problems(config, cluster)
    if problems:
        raise ConfigError(problems)
    return {
        **_data(config),
        **_model(config),
        **_learning(config),
        **_writing(config),
        **_trainer(config, cluster, name),
    }


def model_name(config: RunConfig) -> str:
    """The base as a cluster finds it: starter models by their name on the Hub."""
    name = config.model.model_name_or_path
    starter = STARTER_MODELS.get(name)
    return starter.hub_id if starter else name


def _answers(config: RunConfig) -> int:
    """Answers of a step; PPO writes one to each prompt."""
    batch = config.training.per_device_train_batch_size
    return answers_a_step(config, batch if isinstance(batch, int) else _ROWS_A_GPU * 8)


def _rows_a_gpu(config: RunConfig) -> int:
    batch = config.training.per_device_train_batch_size
    return min(batch, _ROWS_A_GPU) if isinstance(batch, int) else _ROWS_A_GPU


def _data(config: RunConfig) -> dict[str, Any]:
    held_out = config.evaluation.eval_strategy != "no"
    return {
        "data.train_files": "data/train.parquet",
        "data.val_files": "data/eval.parquet" if held_out else "data/train.parquet",
        "data.prompt_key": "prompt",
        "data.max_prompt_length": config.training.max_length,
        "data.max_response_length": config.reinforcement.max_completion_length,
        "data.train_batch_size": _answers(config),
        "data.filter_overlong_prompts": True,
        "data.seed": config.training.data_seed
        if config.training.data_seed is not None
        else config.training.seed,
    }


def _model(config: RunConfig) -> dict[str, Any]:
    name, adapter = model_name(config), config.adapter
    found: dict[str, Any] = {
        "actor_rollout_ref.model.path": name,
        "actor_rollout_ref.model.enable_gradient_checkpointing": bool(
            config.training.gradient_checkpointing
        ),
        "critic.model.path": name,
        "critic.model.enable_gradient_checkpointing": bool(config.training.gradient_checkpointing),
    }
    if adapter.method == "lora":
        for model in ("actor_rollout_ref.model", "critic.model"):
            found |= {
                f"{model}.lora_rank": adapter.r,
                f"{model}.lora_alpha": adapter.lora_alpha,
                f"{model}.target_modules": adapter.target_modules,
            }
        # vLLM reads the base from the disk once and gets the adapter at each step.
        found["actor_rollout_ref.rollout.load_format"] = "safetensors"
    return found


def _learning(config: RunConfig) -> dict[str, Any]:
    section, training = config.reinforcement, config.training
    warmup = training.warmup_steps
    schedule = (
        {"lr_warmup_steps": int(warmup)} if warmup >= 1 else {"lr_warmup_steps_ratio": warmup}
    )
    upper = section.epsilon if section.epsilon_high is None else section.epsilon_high
    rows, mini = _rows_a_gpu(config), _answers(config)
    found: dict[str, Any] = {
        "algorithm.adv_estimator": "gae",
        "algorithm.use_kl_in_reward": section.kl_beta > 0,
        "algorithm.kl_ctrl.kl_coef": section.kl_beta,
        "actor_rollout_ref.actor.clip_ratio_low": section.epsilon,
        "actor_rollout_ref.actor.clip_ratio_high": upper,
        "actor_rollout_ref.actor.ppo_epochs": section.num_iterations,
        "actor_rollout_ref.actor.ppo_mini_batch_size": mini,
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu": rows,
        "actor_rollout_ref.actor.grad_clip": training.max_grad_norm,
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu": rows,
        "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu": rows,
        "critic.ppo_micro_batch_size_per_gpu": rows,
        "critic.optim.lr": training.learning_rate,
        "actor_rollout_ref.actor.optim.lr": training.learning_rate,
    }
    for optimizer in ("actor_rollout_ref.actor.optim", "critic.optim"):
        found |= {f"{optimizer}.{key}": value for key, value in schedule.items()}
        found[f"{optimizer}.weight_decay"] = training.weight_decay
    return found


def _writing(config: RunConfig) -> dict[str, Any]:
    section = config.reinforcement
    return {
        "actor_rollout_ref.rollout.name": "vllm",
        "actor_rollout_ref.rollout.n": 1,
        "actor_rollout_ref.rollout.temperature": section.temperature,
        "actor_rollout_ref.rollout.top_p": section.top_p,
        "actor_rollout_ref.rollout.top_k": section.top_k or -1,
        "actor_rollout_ref.rollout.tensor_model_parallel_size": 1,
        "actor_rollout_ref.rollout.gpu_memory_utilization": 0.5,
        "reward.custom_reward_function.path": "rewards.py",
        "reward.custom_reward_function.name": "compute_score",
    }


def _trainer(config: RunConfig, cluster: Cluster, name: str) -> dict[str, Any]:
    training, tracking = config.training, config.tracking
    steps = {"trainer.total_training_steps": training.max_steps} if training.max_steps > 0 else {}
    save = tracking.save_steps if tracking.save_strategy == "steps" else -1
    test = config.evaluation.eval_steps if config.evaluation.eval_strategy == "steps" else -1
    return {
        "trainer.nnodes": cluster.nodes,
        "trainer.n_gpus_per_node": cluster.gpus_per_node,
        "trainer.total_epochs": math.ceil(training.num_train_epochs),
        **steps,
        "trainer.project_name": "tunesmith",
        "trainer.experiment_name": name,
        "trainer.logger": ["console"],
        "trainer.save_freq": save,
        "trainer.test_freq": test,
        "trainer.val_before_train": config.evaluation.eval_strategy != "no",
        "trainer.default_local_dir": "checkpoints",
        "trainer.max_actor_ckpt_to_keep": tracking.save_total_limit,
        "trainer.max_critic_ckpt_to_keep": tracking.save_total_limit,
    }


VERSION = "0.9.1"
_KEYS = Path(__file__).with_name(f"keys-{VERSION}.txt")
_SECONDS = 120

# What runs in the other environment. Hydra refuses what its config has not; verl itself, which
# would import torch, is only looked for.
_PROGRAM = """
import importlib.metadata, importlib.util, json, sys
from pathlib import Path
found = importlib.util.find_spec("verl")
if found is None:
    print(json.dumps({"missing": "verl"})); sys.exit()
try:
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf
except ImportError as error:
    print(json.dumps({"missing": str(error.name)})); sys.exit()
folder, wanted = Path(found.origin).parent / "trainer/config", json.load(sys.stdin)
wrong = []
with initialize_config_dir(str(folder), version_base=None):
    known = compose("ppo_trainer")
    for key, value in wanted.items():
        try:
            OmegaConf.update(known, key, value, force_add=False)
        except Exception as error:
            wrong.append([key, str(error).splitlines()[0]])
print(json.dumps({"version": importlib.metadata.version("verl"), "wrong": wrong}))
"""


@dataclass(frozen=True)
class Checked:
    """What a config was held against, and what it does not know: (key, why)."""

    version: str
    wrong: list[tuple[str, str]]


@lru_cache
def known_keys() -> frozenset[str]:
    """The keys of verl's ppo_trainer config in VERSION (without profilers and other engines)."""
    return frozenset(_KEYS.read_text(encoding="utf-8").split())


def check_keys(keys: Iterable[str]) -> Checked:
    """The keys against those of VERSION."""
    known = known_keys()
    wrong: list[tuple[str, str]] = []
    for key in keys:
        if key not in known:
            near = nearest(key, known)
            why = (
                _("no key of verl {version}; near: {near}", version=VERSION, near=near)
                if near
                else _("no key of verl {version}", version=VERSION)
            )
            wrong.append((key, why))
    return Checked(VERSION, wrong)


def check_with(python: str, settings: Mapping[str, Any]) -> Checked:
    """The settings against the verl of another environment, named by its Python.

    Raises SetupError when it cannot be asked.
    """
    try:
        done = subprocess.run(
            [python, "-c", _PROGRAM],
            input=json.dumps(settings),
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SetupError(
            _("{python} cannot be asked: {reason}.", python=python, reason=reason_of(error)),
            _("Name a Python."),
        ) from error
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        reason = (done.stderr.strip().splitlines() or [_("it said nothing")])[-1]
        raise SetupError(
            _("{python} could not read verl's config: {reason}", python=python, reason=reason),
            _("Name another Python."),
        )
    found = json.loads(lines[-1])
    if "missing" in found:
        raise SetupError(
            _("{python} has no {missing}.", python=python, missing=found["missing"]),
            _("Name the Python of an environment with verl, such as {version}.", version=VERSION),
        )
    return Checked(found["version"], [(key, why) for key, why in found["wrong"]])
