"""What would make a run fit: each offer has to do it, and none may be worse than the run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.estimate.changes import Change, changes_that_fit
from core.estimate.plan import estimate_run, imagined
from core.rules import parse_config
from tests.estimate.test_memory import CPU, GB, SMOLLM2, config, memory, model

ROWS = {"row_lengths": [[2000, 3], [600, 97]]}


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model(tmp_path_factory.mktemp("models") / "smollm2", SMOLLM2)


@pytest.fixture(autouse=True)
def whole_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """As most methods compute them; SFT on a CPU takes pieces, and smaller batches save nothing."""
    monkeypatch.setattr("core.estimate.memory.TOKENS_AT_ONCE", {2: 10**6, 4: 10**6})


def offered(folder: Path, free: float, rows: int, length: int, **more: Any) -> list[Change]:
    hardware = replace(CPU, devices=(replace(CPU.devices[0], memory_free_bytes=int(free * GB)),))
    settled = config(rows, length, **more)
    return changes_that_fit(estimate_run(folder, settled, hardware, token_counts=ROWS))


def test_a_run_that_fits_is_offered_nothing(smollm2: Path) -> None:
    assert offered(smollm2, 20, 2, 512) == []


def test_each_offer_makes_it_fit_and_says_what_it_then_takes(smollm2: Path) -> None:
    """A click would change settings for nothing."""
    changes = offered(smollm2, 6, 8, 1024)
    assert len(changes) > 1
    for change in changes:
        assert change.fits and change.total <= 6 * GB
        changed = parse_config(config(8, 1024).values() | change.settings)
        again = estimate_run(smollm2, changed, CPU, token_counts=ROWS)
        assert memory(again).total == change.total


def test_what_does_no_harm_comes_first_and_only_as_much_as_is_needed(smollm2: Path) -> None:
    """Rows would be cut where a slower step is enough."""
    first, second, *_ = offered(smollm2, 6, 8, 1024)
    assert first.settings == {"training.gradient_checkpointing": True}
    rows = second.settings["training.per_device_train_batch_size"]
    assert rows * second.settings["training.gradient_accumulation_steps"] == 8
    smaller = parse_config(
        config(8, 1024).values() | {"training.per_device_train_batch_size": rows * 2}
    )
    assert memory(estimate_run(smollm2, smaller, CPU, token_counts=ROWS)).total > 0.9 * 6 * GB


def test_an_offer_leaves_room_for_what_the_machine_does_meanwhile(smollm2: Path) -> None:
    """A click on "makes it fit" would leave a run that is said not to fit a second later."""
    total = offered(smollm2, 6, 8, 1024)[1].total
    tight = 1.02 * total / GB
    assert all(change.total <= 0.9 * tight * GB for change in offered(smollm2, tight, 8, 1024))


def test_what_hardly_fits_is_offered_where_nothing_smaller_of_its_kind_is(smollm2: Path) -> None:
    (first, *_) = offered(smollm2, 2.6, 1, 256, **{"adapter.method": "none"})
    assert first.settings == {"training.optim": "adamw_8bit"} and first.total > 0.9 * 2.6 * GB


def test_no_offer_does_more_than_one_that_is_enough(smollm2: Path) -> None:
    """Checkpointing with fewer rows would stand below checkpointing alone."""
    settings = [change.settings.items() for change in offered(smollm2, 6, 8, 1024)]
    assert not any(one < other for one in settings for other in settings)


def test_a_shorter_row_says_how_many_rows_it_cuts(smollm2: Path) -> None:
    """Somebody would lose the end of most rows without knowing."""
    checkpointed = {"training.gradient_checkpointing": True}
    changes = offered(smollm2, 1.6, 1, 4096, **checkpointed)
    shorter = next(change for change in changes if "training.max_length" in change.settings)
    assert shorter.settings == {"training.max_length": 1024}
    assert shorter.costs == "3 of 100 rows lose their end."


def test_training_in_full_is_offered_smaller_states_and_an_adapter(smollm2: Path) -> None:
    changes = offered(smollm2, 2.6, 1, 256, **{"adapter.method": "none"})
    settings = [change.settings for change in changes]
    assert {"training.optim": "adamw_8bit"} in settings
    assert any(change.get("adapter.method") == "lora" for change in settings)


def test_where_one_change_is_not_enough_several_are_offered_at_once(smollm2: Path) -> None:
    """Only a dead end would be shown."""
    (together,) = offered(smollm2, 1.75, 32, 4096, **{"adapter.method": "none"})
    assert together.fits and len(together.settings) > 3
    (too_little,) = offered(smollm2, 0.5, 32, 4096)
    assert not too_little.fits


def test_a_gpu_that_is_not_here_can_be_asked_for(smollm2: Path) -> None:
    hardware = imagined(CPU, "1.5 GB")
    estimate = estimate_run(smollm2, config(4, 1024), hardware)
    assert estimate.device.kind == "cuda" and memory(estimate).free_bytes == 1_500_000_000
    assert memory(estimate).parts["CUDA context"] > 0
    assert imagined(CPU, "2GiB").devices[0].memory_total_bytes == 2 * 2**30
