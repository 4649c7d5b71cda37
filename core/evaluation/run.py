"""An evaluation, from its folder to its result: the tuned model against its base.

First each model alone: its loss on the expected answers, then its own answers. Then both
together: scores, intervals, a verdict, and the rows where they differ.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from core.errors import TunesmithError
from core.evaluation.classification import evaluate_classifier
from core.evaluation.compare import (
    Measured,
    difference,
    differing_rows,
    score_answers,
    summarize_side,
)
from core.evaluation.measure import answer_losses, too_long, write_answers
from core.evaluation.reward import evaluate_reward
from core.evaluation.rewarded import evaluate_rewarded
from core.evaluation.rewards import reward_note
from core.evaluation.rows import EvalSet, load_eval_set, new_tokens_note, prompts_of, row_count
from core.evaluation.scoring import field_rules
from core.evaluation.texts import evaluate_texts
from core.evaluation.verdict import verdict
from core.jobs.task import Stopped, Task, Tell
from core.models.inference import (
    free_memory,
    open_before,
    open_trained,
    pick_device,
    pick_dtype,
    resolve_base,
    without_adapter,
)
from core.models.trained import TrainedModel, find_trained
from core.workspace import Workspace, write_atomic

ANSWERS = "answers.jsonl"
# Room for answers of new rows beyond the longest expected one, when no length was asked for.
_SPARE_TOKENS, _MOST_TOKENS = 16, 1024


def run_evaluation(folder: Path, workspace_root: Path) -> str:
    """Measures a run's checkpoint and its base; "finished", or "stopped" with nothing written.

    Parameters (job.json): checkpoint ("final"), max_rows (all), max_new_tokens (half as many
    again as the longest expected answer), compare_base (true). Raises TunesmithError.
    """
    task = Task(Path(folder))
    try:
        result, answers = _evaluate(task, Workspace.open(workspace_root))
        task.check_stop()
    except Stopped:
        return "stopped"
    write_atomic(task.folder / ANSWERS, answers)
    task.finish(result)
    return "finished"


def _evaluate(task: Task, workspace: Workspace) -> tuple[dict[str, Any], str]:
    begun = time.time()
    task.tell(0.0, "Loading the model")
    trained = find_trained(task.run, str(task.params.get("checkpoint") or "final"))
    method = trained.config.training_method
    if method.makes == "classifier":
        return evaluate_classifier(task, workspace, trained)
    if method.makes == "scorer":
        return evaluate_reward(task, workspace, trained)
    if method.generates:
        return evaluate_rewarded(task, workspace, trained)
    if method.section == "text":
        return evaluate_texts(task, workspace, trained)
    device = pick_device()
    dtype = pick_dtype(trained.config.training.precision, device)
    base_path = resolve_base(trained.base, workspace)
    model, tokenizer = open_trained(trained, base_path, device=device, dtype=dtype)
    rows = load_eval_set(workspace, trained.config, tokenizer, task.params.get("max_rows"))
    limit = _new_tokens(task.params.get("max_new_tokens"), rows, tokenizer)
    if trained.new_tokens is not None:
        rows.notes.append(new_tokens_note(trained.new_tokens))
    rewards = reward_note(trained)
    if rewards:
        rows.notes.append(rewards)
    if rows.has_answers:
        unread = too_long(model, prompts_of(rows.rows, tokenizer), limit)
        if unread:
            rows.notes.append(
                f"Too long for the model to read and answer with {limit} tokens, and counted as "
                f"wrong: {row_count(len(unread))}."
            )
    compare = bool(task.params.get("compare_base", True))
    end = 0.5 if compare else 0.98
    sides = {"tuned": _measure(model, tokenizer, rows, limit, task.part(0.05, end), "tuned")}
    if compare:
        tell = task.part(0.5, 0.98)
        if trained.shares_base:
            with without_adapter(model):
                sides["base"] = _measure(model, tokenizer, rows, limit, tell, "base")
        else:
            del model
            free_memory()
            model = open_before(trained, base_path, device=device, dtype=dtype)
            sides["base"] = _measure(model, tokenizer, rows, limit, tell, "base")
    result, answers = _report(trained, rows, sides)
    result["settings"] = {
        "device": device,
        "dtype": str(dtype).removeprefix("torch."),
        "quantization": trained.config.adapter.quantization,
        "max_new_tokens": limit if rows.has_answers else 0,
        "max_length": trained.config.training.max_length,
    }
    result["seconds"] = round(time.time() - begun, 1)
    return result, answers


def _measure(
    model: Any, tokenizer: Any, rows: EvalSet, limit: int, tell: Tell, which: str
) -> Measured:
    """Loss and answers of one model."""
    losses = answer_losses(
        model,
        [row.tokens for row in rows.rows],
        lambda share: tell(0.25 * share, f"Loss of the {which} model"),
    )
    answers = None
    if rows.has_answers:
        answers = write_answers(
            model,
            tokenizer,
            prompts_of(rows.rows, tokenizer),
            max_new_tokens=limit,
            tell=lambda share: tell(0.25 + 0.75 * share, f"Answers of the {which} model"),
            lengths=[len(row.expected or "") for row in rows.rows],
        )
    return Measured(losses.sums, losses.tokens, answers)


def _report(
    trained: TrainedModel, rows: EvalSet, sides: dict[str, Measured]
) -> tuple[dict[str, Any], str]:
    """(result without its settings, all answers as JSON lines)."""
    expected = [row.expected for row in rows.rows if row.expected is not None]
    rules = field_rules(rows.info.task, expected) if rows.has_answers else []
    scored = {
        name: score_answers(side.answers, rows.rows, rules)
        for name, side in sides.items()
        if side.answers is not None
    }
    base, tuned = sides.get("base"), sides["tuned"]
    result: dict[str, Any] = {
        "rows": len(rows.rows),
        "part": rows.part,
        "checkpoint": trained.checkpoint,
        "model": trained.base_name,
        "dataset": {
            "id": rows.info.id,
            "name": rows.info.name,
            "fingerprint": rows.info.fingerprint,
        },
        "tokens": int(tuned.tokens.sum()),
        "rules": [{"name": rule.name, "score": rule.score} for rule in rules],
        "base": summarize_side(base, scored.get("base"), rules) if base else None,
        "tuned": summarize_side(tuned, scored.get("tuned"), rules),
        "difference": difference(base, tuned, scored.get("base"), scored.get("tuned"))
        if base
        else None,
        "notes": rows.notes,
        "differences": differing_rows(rows.rows, rules, scored.get("base"), scored.get("tuned")),
    }
    result["verdict"] = verdict(result)
    return result, _answer_lines(rows, sides)


def _answer_lines(rows: EvalSet, sides: dict[str, Measured]) -> str:
    """All answers with each row's loss, as JSON lines."""
    lines = []
    for place, row in enumerate(rows.rows):
        line: dict[str, Any] = {"index": row.index, "expected": row.expected}
        for name, side in sides.items():
            line[name] = side.answers[place] if side.answers is not None else None
            line[f"{name}_loss"] = float(side.sums[place] / side.tokens[place])
        lines.append(json.dumps(line, ensure_ascii=False))
    return "\n".join(lines) + "\n"


def _new_tokens(asked: Any, rows: EvalSet, tokenizer: Any) -> int:
    """How long an answer may become, in tokens."""
    if asked is not None:
        if int(asked) < 1:
            raise TunesmithError("max_new_tokens must be at least 1.", "Leave it out, or raise it.")
        return int(asked)
    expected = [row.expected for row in rows.rows if row.expected]
    if not expected:
        return _SPARE_TOKENS
    longest = max(map(len, tokenizer(expected, add_special_tokens=False)["input_ids"]))
    return min(longest + longest // 2 + _SPARE_TOKENS, _MOST_TOKENS)
