"""The campaigns over methods: what they compare, and that their statistics are right. No model is trained."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import claims
import headroom_gains
import peers
import simple_rivals
from frontier_page import merged


def test_a_fit_is_least_squares_with_students_intervals() -> None:
    dice = np.random.default_rng(1)
    x = dice.normal(2, 1, 12)
    y = 0.4 * x - 0.5 + dice.normal(0, 0.2, 12)
    found, known = headroom_gains.fit(list(x), list(y)), stats.linregress(x, y)
    wide = stats.t.ppf(0.975, 10)
    assert (found.slope, found.intercept) == pytest.approx((known.slope, known.intercept))
    assert found.slope_interval == pytest.approx((known.slope - wide * known.stderr, known.slope + wide * known.stderr))
    reach = wide * known.intercept_stderr
    assert found.intercept_interval == pytest.approx((known.intercept - reach, known.intercept + reach))


def test_errors_in_headroom_flatten_a_slope_and_the_instrument_mends_it() -> None:
    """2,000 variants of which y is 0.4 x; each seed sees x with an error as large as the spread of x."""
    dice = np.random.default_rng(2)
    true = dice.normal(1, 1, 2000)
    rows = [[(t + dice.normal(0, 1.5), 0.4 * t + dice.normal(0, 0.2)) for _ in range(4)] for t in true]
    xs = [[x for x, _ in seeds] for seeds in rows]
    flat = headroom_gains.fit([float(np.mean(x)) for x in xs], [float(np.mean([y for _, y in s])) for s in rows])
    share = headroom_gains.reliability(xs)
    assert share == pytest.approx(1 / (1 + 1.5**2 / 4), abs=0.03)
    assert flat.slope == pytest.approx(0.4 * share, abs=0.02)
    assert headroom_gains.instrumented(rows) == pytest.approx(0.4, abs=0.03)


def test_variants_differ_in_what_their_names_say() -> None:
    assert len({made.name for made in headroom_gains.VARIANTS}) == len(headroom_gains.VARIANTS) == 12
    for made in headroom_gains.VARIANTS:
        sizes = headroom_gains.sizes(made, 10)
        assert sum(sizes) / 10 == pytest.approx(made.number, abs=0.5)
        assert sizes[0] / sizes[-1] == pytest.approx(made.uneven, rel=0.1)
        config = headroom_gains.config_of(made, 3e-3)
        wrong = {d.id for d in config.datasets if d.path.endswith("_noisy.jsonl")}
        assert wrong == (set(headroom_gains.NOISY) if made.noise else set())
        assert config.data.mixing == "equal" and config.training.average == 1.0


def test_seeds_for_a_power_are_those_of_the_tables() -> None:
    """One-sample t-test, two-sided 5 %, power 80 %: 34 for an effect of half a standard deviation, 199 for a fifth."""
    assert claims.seeds_for(1.0, 0.5) == 34
    assert claims.seeds_for(2.5, 0.5) == 199
    assert claims.seeds_for(1.0, 0.5, power=0.9) == 44


def test_the_better_run_is_chosen_by_validation_and_costs_both() -> None:
    one = {7: {"validation": {"a": 0.5}, "reports": {"a": 0.1}, "flops": 3}}
    two = {7: {"validation": {"a": 0.4}, "reports": {"a": 0.9}, "flops": 4}, 8: two_of_nothing()}
    assert simple_rivals.better(one, two) == {7: {"validation": {"a": 0.5}, "reports": {"a": 0.1}, "flops": 7}}


def two_of_nothing() -> dict[str, Any]:
    return {"validation": {"a": 0.0}, "reports": {"a": 0.0}, "flops": 0}


def test_each_peer_has_one_name_and_its_setting() -> None:
    made = {variant.name: variant.config.training for variant in peers.all_peers(peers.PEERS)}
    assert len(made) == sum(map(len, peers.PEERS.values())) + 1, "wsd, at a rate of its own too"
    assert {name: (t.learning_rate, t.average, t.schedule) for name, t in made.items() if "sft" in name} == {
        "sft_average": (1.5e-3, 1.0, "constant"),
        "msft_average": (1.5e-3, 1.0, "constant"),
        "msft_average_placebo": (1.5e-3, 1.0, "constant"),
        "sft_decay": (8e-3, None, "linear"),
        "sft_decay on averages": (8e-3, 1.0, "linear"),
        "msft": (3e-3, None, "constant"),
    }
    tried = [variant.name for variant in peers.candidates()]
    assert len(set(tried)) == len(tried)


def test_a_claim_adds_only_the_runs_that_the_grid_has_not() -> None:
    for name in claims.NAMES:
        studied = {variant.name for variant in claims.STUDIES[name].variants(claims.config())}
        added = {variant.name for variant in claims.missing(name)}
        assert studied - added == studied & set(claims.KNOWN) and added


def test_a_page_shows_the_seeds_that_all_methods_have() -> None:
    sys.path.append(str(Path(__file__).parents[1] / "study"))
    from test_comparison import results

    whole, part = results(seeds=1, sft=0.0, msft=0.1), results(seeds=2, sft=0.0, msft=0.1)
    for each, seeds in ((whole, [0]), (part, [1])):
        for name in each.runs:
            each.runs[name] = {seed: each.runs[name][seed] for seed in seeds}  # type: ignore[index]
    part.base.update(dict.fromkeys(part.base, 0.35))  # type: ignore[attr-defined]
    found = merged([whole, part])
    assert {name: list(runs) for name, runs in found.runs.items()} == {"sft": [0, 1], "msft": [0, 1]}
    assert found.redrawn and list(found.base.values()) == pytest.approx([0.3] * len(found.base))
    part.runs["msft"].clear()  # type: ignore[attr-defined]
    assert {name: list(runs) for name, runs in merged([whole, part]).runs.items()} == {"sft": [0], "msft": [0]}


def test_the_fresh_job_has_tasks_of_its_own_and_the_sizes_of_the_uneven_one(tmp_path: Path) -> None:
    pytest.importorskip("reasoning_gym")
    import fresh_job
    from average_first import example
    from cheap_model import FINE_TUNING, PRETRAINING

    names = {task.name for task in fresh_job.TASKS}
    assert len(names) == 10 and not names & {task.name for task in (*FINE_TUNING, *PRETRAINING)}
    config = fresh_job.config_of(tmp_path, "equal")
    mine, theirs = ([d.max_samples for d in each.datasets] for each in (config, example("uneven", 1e-3)))
    assert sorted(mine) == sorted(theirs) and mine != theirs
    fresh_job.write_data(tmp_path)
    for task in fresh_job.TASKS:
        rows = [json.loads(line) for line in (tmp_path / f"{task.name}.jsonl").read_text().splitlines()]
        assert len({row["prompt"] for row in rows}) == len(rows) == sum(fresh_job.SPLITS.values())
        assert all(row["completion"].startswith(" ") and len(row["completion"]) > 1 for row in rows)
