"""What a search tries: what was typed is read, refused where it makes no sense, and drawn from."""

from __future__ import annotations

import pytest

from core.config import RunConfig
from core.errors import ConfigError
from core.runs.space import (
    Range,
    Tried,
    check_space,
    parse_space,
    propose,
    sweep_settings,
)

RATE = "training.learning_rate"
TWO = [f"{RATE}=1e-4,2e-4", "adapter.r=4,8,16"]
RANGES = [f"{RATE}=1e-5..1e-3:log", "adapter.r=4..64"]


def test_values_and_ranges_are_read_as_the_settings_own() -> None:
    assert parse_space(TWO) == {RATE: [1e-4, 2e-4], "adapter.r": [4, 8, 16]}
    assert parse_space(RANGES, "tpe") == {
        RATE: Range(1e-5, 1e-3, log=True, whole=False),
        "adapter.r": Range(4, 64, log=False, whole=True),
    }
    lists = parse_space(["adapter.target_modules=all-linear|q_proj,v_proj"])
    assert lists == {"adapter.target_modules": ["all-linear", ["q_proj", "v_proj"]]}
    assert parse_space(["adapter.use_dora=true,false"]) == {"adapter.use_dora": [True, False]}


@pytest.mark.parametrize(
    ("over", "search", "said"),
    [
        ([], "grid", "Name a setting"),
        (["adapter.r"], "grid", "no setting with values"),
        (["adapter.ranks=1,2"], "grid", "is not a setting"),
        (["adapter.r=8"], "grid", "needs two"),
        (["adapter.r=8,8"], "grid", "needs two"),
        (["adapter.r=4..8"], "grid", "takes values, not a range"),
        (["adapter.r=8..4"], "random", "LOW..HIGH"),
        (["adapter.r=4..8:linear"], "random", "LOW..HIGH"),
        (["adapter.r=a..b"], "random", "LOW..HIGH"),
        ([f"{RATE}=0..1:log"], "random", "begins above 0"),
        (["adapter.r=4,8", "adapter.r=1,2"], "grid", "twice"),
        (["method=sft,dpo"], "grid", "same in all runs"),
    ],
)
def test_what_makes_no_sense_is_said(over: list[str], search: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_space(over, search)  # type: ignore[arg-type]


def checked(over: list[str], **more: object) -> int:
    settings = sweep_settings(over=over, **more)
    return check_space(parse_space(over, settings.search), settings, RunConfig())


def test_a_search_is_refused_before_its_first_run_where_a_later_one_could_not_start() -> None:
    assert checked(TWO) == 6
    assert checked(RANGES, search="random", trials=7) == 7
    with pytest.raises(ConfigError, match=r"adapter\.r"):
        checked(["adapter.r=4,-8"])
    with pytest.raises(ConfigError, match=r"adapter\.r"):
        checked(["adapter.r=-4..8"], search="random")
    with pytest.raises(ConfigError, match="the most"):
        checked([f"training.seed={','.join(map(str, range(1001)))}"])
    with pytest.raises(ConfigError, match="trials"):
        checked(TWO, trials=0)


def test_a_grid_has_each_combination_once() -> None:
    space = parse_space(TWO)
    found = [propose(space, "grid", n, [], higher=False, seed=1) for n in range(6)]
    assert found[:2] == [{RATE: 1e-4, "adapter.r": 4}, {RATE: 1e-4, "adapter.r": 8}]
    assert len({tuple(one.values()) for one in found}) == 6


def test_what_is_drawn_lies_in_its_range_and_comes_again() -> None:
    space = parse_space(RANGES, "random")
    found = [propose(space, "random", n, [], higher=False, seed=1) for n in range(200)]
    assert found == [propose(space, "random", n, [], higher=False, seed=1) for n in range(200)]
    assert all(1e-5 <= one[RATE] <= 1e-3 and 4 <= one["adapter.r"] <= 64 for one in found)
    assert all(isinstance(one["adapter.r"], int) for one in found)
    # In a logarithmic range as many lie in each decade.
    assert 60 < sum(one[RATE] < 1e-4 for one in found) < 140


@pytest.mark.parametrize("higher", [False, True])
def test_tpe_comes_closer_to_the_best_than_chance(higher: bool) -> None:
    """It is told the runs so far, also where a process before this one made them."""
    over = [f"{RATE}=1e-5..1e-3:log", "adapter.use_dora=true,false"]
    space = parse_space(over, "tpe")

    def score(one: dict) -> float:
        away = abs(one[RATE] - 3e-4) * 1e4 + (0 if one["adapter.use_dora"] else 3)
        return -away if higher else away

    def best(search: str) -> float:
        tried: list[Tried] = []
        for number in range(60):
            one = propose(space, search, number, tried, higher=higher, seed=3)  # type: ignore[arg-type]
            tried.append(Tried(one, None if number == 2 else score(one)))
        later = [abs(one.score or 9) for one in tried[30:]]
        return sum(later) / len(later)

    assert best("tpe") < 0.75 * best("random")
