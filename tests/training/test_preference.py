"""DPO, KTO, ORPO and CPO on a tiny model: what they learn, from which tokens, against bare TRL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer

from core.data.record import DatasetInfo
from core.data.rowfile import read_slice
from core.errors import DataError, TrainingError
from core.jobs.events import Event
from core.rules import parse_config
from core.tokens.sides import sides_of_rows
from core.tokens.tokenize import TokenizedRow
from core.worker.training.preference import (
    DirectTrainer,
    JudgedCollator,
    OddsRatioTrainer,
    PairCollator,
    PairColumns,
    judged_measures,
    judged_rows,
)
from core.worker.training.run import run_training
from core.workspace import RunFolder
from tests.preferences import THINGS, bring, judged, pairs
from tests.tiny_model import TinyWorld, tiny_tokenizer, tiny_world
from tests.training.conftest import SETTINGS, events, losses
from tests.training.preferring import bare_arguments, mean_margin
from tests.training.test_resume import stop_at

# Ends an answer with its end token, as TRL's own tokenisation takes it for the whole answer.
TIGHT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
Learn = Callable[..., RunFolder]
EVALUATING = {"evaluation.eval_strategy": "steps", "evaluation.eval_steps": 4}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TinyWorld]:
    before = torch.get_num_threads()
    made = tiny_world(tmp_path_factory.mktemp("preference"))
    tokenizer = tiny_tokenizer(TIGHT)
    tokenizer.save_pretrained(made.base)
    yield made
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def sets(world: TinyWorld) -> dict[str, DatasetInfo]:
    """`worse` holds up the answers that the untrained model finds less likely."""
    turned = [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in pairs()]
    most = 4 * len(THINGS[:4])
    space = world.workspace
    return {
        "pairs": bring(space, pairs(THINGS[:4]), pairs(THINGS[4:]), "pairs"),
        "worse": bring(space, turned[:most], turned[most:], "worse"),
        "judged": bring(space, judged(THINGS[:4]), judged(THINGS[4:]), "judged"),
    }


@pytest.fixture(scope="module")
def learn(world: TinyWorld, sets: dict[str, DatasetInfo]) -> Learn:
    """Trains a run by a method on one of the sets; without a name the one that was trained with
    these settings before, if there is one."""
    trained: dict[str, RunFolder] = {}

    def go(method: str, data: str = "pairs", name: str = "", **settings: Any) -> RunFolder:
        wanted = f"{method} {data} {sorted(settings.items())}"
        if not name and wanted in trained:
            return trained[wanted]
        run_id = f"{method}-{data}-{name or len(trained)}"[:60]
        info = sets.get(data)
        values = {
            **SETTINGS,
            "training.learning_rate": 4e-3,
            "method": method,
            "data.dataset": info.id if info else data,
            **settings,
        }
        run = world.run(run_id, values)
        assert run_training(run.root, world.root, None) == "finished"
        if not name:
            trained[wanted] = run
        return run

    return go


def measured(run: RunFolder) -> list[Event]:
    return [event for event in events(run, "metrics") if "eval_loss" in event]


FULL = {"adapter.method": "none", "training.learning_rate": 2e-3}


@pytest.mark.parametrize(
    ("method", "data", "settings"),
    [
        ("dpo", "worse", {}),
        ("dpo", "worse", FULL),
        ("kto", "judged", {}),
        ("kto", "judged", FULL | {"preference.precompute_ref_log_probs": True}),
        ("kto", "judged", {"preference.kto_loss_type": "apo_zero_unpaired"}),
        ("orpo", "worse", {}),
        ("orpo", "worse", FULL),
        ("cpo", "worse", {}),
        ("cpo", "worse", {"preference.cpo_loss_type": "simpo", "preference.cpo_alpha": 0.0}),
        ("cpo", "worse", FULL),
    ],
    ids="dpo dpo-full kto kto-full kto-apo orpo orpo-full cpo simpo cpo-full".split(),
)
def test_held_out_answers_are_told_apart(
    learn: Learn, world: TinyWorld, method: str, data: str, settings: dict[str, Any]
) -> None:
    """A run would learn nothing that holds for new questions, or what it saved would be another
    model than the one that was measured."""
    epochs = 3.0 if method == "kto" else 6.0
    watched = EVALUATING | {"evaluation.eval_steps": 12, "training.num_train_epochs": epochs}
    run = learn(method, data, **watched, **settings)
    first, *_, last = measured(run)
    assert first["step"] == 0
    accuracy = "eval_rewards/accuracies"
    assert last[accuracy] >= 0.9 and last[accuracy] - first[accuracy] >= 0.4
    assert last["eval_rewards/margins"] > first["eval_rewards/margins"] + 0.1
    assert last["eval_loss"] < first["eval_loss"]
    found = losses(run)
    assert sum(found[-3:]) < 0.9 * sum(found[:3])
    names = {"rewards/chosen", "rewards/rejected", "logps/chosen", "logps/rejected", "grad_norm"}
    told = set().union(*(event for event in events(run, "metrics") if "loss" in event))
    assert names | {"tokens_per_second"} <= told

    folder = run.model if settings.get("adapter.method") == "none" else run.adapter
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder if folder == run.model else world.base)
    if folder == run.adapter:
        model = PeftModel.from_pretrained(model, str(folder))
    # ORPO and SimPO log means over an answer's tokens, the others sums.
    if method != "orpo" and settings.get("preference.cpo_loss_type") != "simpo":
        expected = last["eval_logps/chosen"] - last["eval_logps/rejected"]
        margin = mean_margin(model.eval(), tokenizer, data)
        assert margin == pytest.approx(expected, abs=2e-3)
    else:
        assert mean_margin(model.eval(), tokenizer, data) > 0


LORA = LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=32, target_modules="all-linear")


@pytest.mark.parametrize(
    ("settings", "changes"),
    [
        ({}, {}),
        (FULL, {"learning_rate": 2e-3}),
        (
            {"preference.loss_type": "ipo", "preference.beta": 0.3},
            {"loss_type": ["ipo"], "beta": 0.3},
        ),
        (
            {"preference.loss_type": "robust", "preference.label_smoothing": 0.1},
            {"loss_type": ["robust"], "label_smoothing": 0.1},
        ),
        (
            {"preference.loss_weights": {"bco_pair": 0.2, "sigmoid": 0.8}},
            {"loss_type": ["sigmoid", "bco_pair"], "loss_weights": [0.8, 0.2]},
        ),
    ],
    ids=["lora", "full", "ipo", "robust", "two losses"],
)
def test_losses_of_dpo_are_those_of_a_bare_script(
    learn: Learn, world: TinyWorld, tmp_path: Path, settings: Any, changes: Any
) -> None:
    """A run would learn something else than the same rows and settings give elsewhere."""
    run = learn("dpo", **settings)
    model = AutoModelForCausalLM.from_pretrained(world.base, dtype=torch.float32)
    bare = DPOTrainer(
        model=model,
        args=DPOConfig(**bare_arguments(tmp_path / "bare", **changes)),
        train_dataset=Dataset.from_list(pairs(THINGS[:4])),
        processing_class=AutoTokenizer.from_pretrained(world.base),
        peft_config=None if settings is FULL else LORA,
    )
    bare.train()
    expected = [log["loss"] for log in bare.state.log_history if "loss" in log]
    assert losses(run) == pytest.approx(expected, abs=2e-5)
    assert abs(expected[-1] - expected[0]) > 0.1, "nothing was learned, so nothing was compared"


def test_losses_of_kto_are_those_of_a_bare_script(
    learn: Learn, world: TinyWorld, tmp_path: Path
) -> None:
    """A run would learn something else than the same rows and settings give elsewhere."""
    run = learn("kto", "judged")
    bare = KTOTrainer(
        model=AutoModelForCausalLM.from_pretrained(world.base, dtype=torch.float32),
        args=KTOConfig(**bare_arguments(tmp_path / "bare")),
        train_dataset=Dataset.from_list(judged(THINGS[:4])).shuffle(seed=42),
        processing_class=AutoTokenizer.from_pretrained(world.base),
        peft_config=LORA,
    )
    bare.train()
    expected = [log["loss"] for log in bare.state.log_history if "loss" in log]
    assert losses(run) == pytest.approx(expected, abs=2e-5)


def test_a_batch_holds_what_the_preview_shows(
    world: TinyWorld, sets: dict[str, DatasetInfo]
) -> None:
    """The page would colour other tokens than those that are learned."""
    tokenizer = tiny_tokenizer()  # its template sets a line break behind each turn
    config = parse_config({"method": "dpo", "training.max_length": 14})
    rows = judged_rows(sets["pairs"], "train", tokenizer, config)
    raw = read_slice(sets["pairs"].rows_path("train"), 0, 3)
    shown = sides_of_rows(raw, tokenizer, max_length=14)
    some = [rows.dataset[place] for place in range(3)]
    batch = PairCollator(pad_token_id=0)(some)
    columns = PairColumns(pad_token_id=0)(some)
    for place in range(6):
        tokens = shown[place % 3][place // 3].tokens
        assert isinstance(tokens, TokenizedRow) and tokens.is_cut
        real = int(batch["attention_mask"][place].sum())
        assert batch["input_ids"][place, :real].tolist() == tokens.input_ids
        learned = [int(label != -100) for label in tokens.labels]
        assert batch["completion_mask"][place, :real].tolist() == learned
        name = ("chosen", "rejected")[place // 3]
        assert columns[f"{name}_labels"][place % 3, :real].tolist() == tokens.labels


def test_kto_compares_a_prompt_with_its_neighbours_answer() -> None:
    """How far the model moved would be measured on the very answers that are learned."""
    rows = [
        {"input_ids": [1, 2, 9, 8], "labels": [-100, -100, 9, 8], "label": True},
        {"input_ids": [3, 7], "labels": [-100, 7], "label": False},
    ]
    batch = JudgedCollator(0, max_length=3, compares=True)(rows)
    assert batch["KL_input_ids"].tolist() == [[1, 2, 7], [3, 9, 8]]
    assert batch["KL_completion_mask"].tolist() == [[0, 0, 1], [0, 1, 1]]
    assert batch["label"].tolist() == [True, False]


def test_the_reward_accuracy_of_kto_counts_all_pairs() -> None:
    answers = [(1.0, -2.0, True), (0.0, -4.0, True), (0.0, -6.0, False), (-1.0, -8.0, False)]
    assert judged_measures(answers) == {
        "rewards/chosen": 0.5,
        "logps/chosen": -3.0,
        "rewards/rejected": -0.5,
        "logps/rejected": -7.0,
        "rewards/margins": 1.0,
        "rewards/accuracies": 3.5 / 4,
    }
    assert judged_measures(answers[:1]) == {"rewards/chosen": 1.0, "logps/chosen": -2.0}


@pytest.mark.parametrize(("method", "data"), [("dpo", "pairs"), ("kto", "judged")])
def test_what_an_evaluation_says_does_not_depend_on_its_batches(
    learn: Learn, method: str, data: str
) -> None:
    """The best checkpoint would be chance, and the rewards not those of the rows."""
    found = [
        measured(
            learn(
                method,
                data,
                **EVALUATING,
                **{"evaluation.per_device_eval_batch_size": size},
            )
        )[-1]
        for size in (3, 8)
    ]
    for name in ("rewards/chosen", "rewards/accuracies", "rewards/margins"):
        assert found[0][f"eval_{name}"] == pytest.approx(found[1][f"eval_{name}"], abs=1e-5)


def test_orpo_learns_the_answer_alone_unless_asked_for_all(learn: Learn) -> None:
    """The preview would show no loss on words that are learned."""
    answers = measured(learn("orpo", **EVALUATING))[0]
    everything = measured(learn("orpo", **EVALUATING, **{"data.learn": "everything"}))[0]
    assert answers["eval_nll_loss"] == pytest.approx(-answers["eval_logps/chosen"], rel=0.02)
    assert everything["eval_nll_loss"] != pytest.approx(answers["eval_nll_loss"], rel=0.01)
    assert everything["eval_logps/chosen"] == pytest.approx(answers["eval_logps/chosen"], rel=1e-4)


def test_rows_that_teach_nothing_are_counted_and_named(learn: Learn, world: TinyWorld) -> None:
    """Rows would vanish without a word."""
    long = pairs(["cup"])[0]
    long["prompt"][0]["content"] *= 20
    same = pairs(["hat"])[0]
    same["chosen"][0]["content"] = "yes " * 40 + "a"
    same["rejected"][0]["content"] = "yes " * 40 + "b"
    info = bring(world.workspace, [*pairs(["pen"]), long, same], pairs(["bag"]), "mixed")
    run = learn("dpo", info.id, **{"training.max_length": 40})
    (warning,) = [event for event in events(run, "log") if event["level"] == "warning"]
    assert "2 of 6 train rows are left out" in warning["message"]
    assert "row 5: Chosen: No answer is left" in warning["message"]
    assert "row 6: Both answers are the same in their first 40 tokens" in warning["message"]
    with pytest.raises(DataError, match="Nothing can be learned"):
        learn("dpo", info.id, "none", **{"training.max_length": 8})


def test_a_set_of_another_form_is_refused(learn: Learn) -> None:
    with pytest.raises(DataError, match=r"method kto learns from unpaired-preference"):
        learn("kto", "pairs")


@pytest.mark.parametrize(
    ("method", "data", "trainer"),
    [("dpo", "pairs", DirectTrainer), ("orpo", "pairs", OddsRatioTrainer)],
)
def test_a_loss_that_is_not_a_number_ends_the_run(
    learn: Learn, monkeypatch: pytest.MonkeyPatch, method: str, data: str, trainer: Any
) -> None:
    """Hours of training would go into a model that is lost."""
    compute = trainer.compute_loss
    monkeypatch.setattr(
        trainer, "compute_loss", lambda self, *a, **o: compute(self, *a, **o) * float("nan")
    )
    with pytest.raises(TrainingError, match="step 1 is nan"):
        learn(method, data, "nan")


@pytest.mark.parametrize(
    ("method", "data"), [("dpo", "pairs"), ("kto", "judged"), ("cpo", "pairs")]
)
def test_a_resumed_run_ends_as_one_that_never_stopped(
    learn: Learn, world: TinyWorld, monkeypatch: pytest.MonkeyPatch, method: str, data: str
) -> None:
    """Stopping for the night would change what is learned."""
    settings = EVALUATING | {"tracking.save_strategy": "steps", "tracking.save_steps": 100}
    whole = learn(method, data, **settings)
    with monkeypatch.context() as patch:
        stop_at(3, patch)
        with pytest.raises(AssertionError):
            learn(method, data, "parts", **settings)
    run = world.workspace.run(f"{method}-{data}-parts")
    run.stop_request.unlink()
    torch.manual_seed(12345)
    assert run_training(run.root, world.root, Path("checkpoints/checkpoint-3")) == "finished"
    expected, found = (
        load_file(folder.adapter / "adapter_model.safetensors") for folder in (whole, run)
    )
    for name, weight in expected.items():
        assert torch.equal(weight, found[name]), name


def test_the_reference_is_the_one_that_was_chosen(learn: Learn) -> None:
    """The rewards would measure the distance from another model."""
    first = learn("dpo")
    other = measured(learn("dpo", **EVALUATING, **{"preference.ref_model": first.root.name}))
    none = measured(learn("dpo", **EVALUATING, **{"preference.ref_model": "none"}))
    base = measured(learn("dpo", **EVALUATING))
    ahead = measured(learn("dpo", **EVALUATING, **{"preference.precompute_ref_log_probs": True}))
    assert base[0]["eval_rewards/margins"] == 0
    # The base is behind what the first run has learned.
    assert other[0]["eval_rewards/margins"] < -0.1
    assert none[0]["eval_rewards/chosen"] == pytest.approx(
        0.1 * none[0]["eval_logps/chosen"], rel=1e-3
    )
    assert [e["eval_loss"] for e in ahead] == pytest.approx(
        [e["eval_loss"] for e in base], abs=1e-5
    )


def test_a_base_without_a_chat_template_and_samples_to_watch(
    learn: Learn, world: TinyWorld
) -> None:
    """Plain base models could not be trained, or nobody could watch them learn."""
    tight = AutoTokenizer.from_pretrained(world.base)
    tiny_tokenizer(None).save_pretrained(world.base)
    (world.base / "chat_template.jinja").unlink(missing_ok=True)
    try:
        assert AutoTokenizer.from_pretrained(world.base).chat_template is None
        run = learn("dpo", name="plain", **EVALUATING, **{"evaluation.sample_max_new_tokens": 4})
    finally:
        tight.save_pretrained(world.base)
    assert losses(run)[-1] < losses(run)[0]
    found = events(run, "sample")
    assert [event["step"] for event in found] == [0, 0, 0, 4, 4, 4, 8, 8, 8]
    assert found[0]["expected"] == "yes, red"


def test_kto_says_which_weights_would_even_out(learn: Learn, world: TinyWorld) -> None:
    """Rare bad answers would hardly count, and nobody would know."""
    rows = [row for row in judged() if row["label"] or row["prompt"][0]["content"] == "a red cup"]
    info = bring(world.workspace, rows, judged(["bag"]), "uneven")
    run = learn("kto", info.id, **{"training.num_train_epochs": 1.0})
    told = [event["message"] for event in events(run, "log") if event["level"] == "warning"]
    assert told == [
        "24 good and 1 bad answers weigh 24 to 1. To even them out, set "
        "preference.undesirable_weight 24."
    ]
