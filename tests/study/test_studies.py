"""Every study on a tiny model, and what each rests on: decisions, observations, gradient conflict, chance."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from html import escape
from pathlib import Path

import numpy as np
import pytest
import torch
from job import make_job

from msft.cli.example_commands import STUDIES as NAMES
from msft.cli.main import main
from msft.config.reader import load
from msft.core.errors import ConfigError, Diverged
from msft.core.vocabulary import ROOT
from msft.engine.conflict import cosines
from msft.engine.torch_engine import TorchEngine
from msft.report.story import Story, read_story
from msft.run.job import Job
from msft.snapshots.store import Store
from msft.study import optimizer
from msft.study.findings import Findings, Table
from msft.study.grid import Grid, StudyFolder, Variant
from msft.study.noise import decision
from msft.study.observe import observe
from msft.study.overrides import search, with_method
from msft.study.peaks import agreement
from msft.study.reading import Evidence, left_at
from msft.study.runs import run_grid
from msft.study.studies import STUDIES

MORE = ", max_epochs: 2, budget: 1, smooth: 1, leave_within: 0, replay: 0"
SIZES = [f"datasets.{name}.max_samples=12" for name in ("copy", "yes no", "double")]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_job(tmp_path_factory.mktemp("studies"), more=MORE)


@pytest.fixture(scope="module")
def pair(config: Path) -> dict[str, tuple[Job, Story]]:
    """SFT and mSFT with the same seed, run as a study runs them; a rate at which something is soon unlearned."""
    job = load(config, ["training.learning_rate=0.1"])
    variants = (
        Variant(name="sft", config=with_method(job, "sft")),
        Variant(name="msft", config=search(job, flat="leaves")),
    )
    grid, folder = Grid(kind="pair", variants=variants, seeds=(20,)), StudyFolder(config.parent / "pair")
    assert run_grid(folder, grid) == {}
    return {v.name: (Job.prepare(v.config), read_story(folder.run(v, 20))) for v in variants}


def test_finer_ticks_leave_the_window_of_smoothing_as_long_in_epochs(config: Path) -> None:
    """A centred mean over k ticks reaches (k - 1) / 2 of them to either side."""
    reach = {}
    for variant in STUDIES["ticks"].variants(load(config, ["method.eval_every=0.5", "method.smooth=3"])):
        method = variant.config.method
        if method.name == "msft":
            assert method.params.smooth % 2 == 1
            reach[method.eval_every] = (method.params.smooth - 1) / 2 * method.eval_every
    assert reach == {0.5: 0.5, 0.25: 0.5, 0.125: 0.5}


@pytest.mark.parametrize("name", NAMES)
def test_every_study_ends_in_a_page_and_tables(config: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = config.parent / f"study-{name}"
    seeds = "2" if name in ("peaks", "shift", "optimizer") else "1"
    command = ["study", name, str(config), "--seeds", seeds, "--output", str(folder)]
    for size in SIZES:
        command += ["--set", size]
    assert main(command) in (0, None)
    found = json.loads((folder / "findings.json").read_text())
    rows = list(csv.reader((folder / "findings.csv").read_text().splitlines()))
    assert rows[0] == found["tables"][0]["columns"]
    assert len(rows) == 1 + len(found["tables"][0]["rows"]) > 1
    for figure in found["figures"].values():
        assert figure["layout"]["xaxis"]["title"]["text"] or figure["data"][0]["type"] == "heatmap"
        assert all(trace.get("x") for trace in figure["data"])
    if name == "shift":  # whole ticks of half an epoch, two seeds; mixtures of other sizes have other steps
        moved = [v for row in found["figures"]["Where each peak goes"]["data"][0]["z"] for v in row if v is not None]
        assert all(4 * v == round(4 * v) for v in moved)
    said = capsys.readouterr().out
    assert found["title"] in said
    page = (folder / "report.html").read_text()
    assert all(escape(table["title"]) in page for table in found["tables"])


def test_the_command_knows_the_studies() -> None:
    assert list(STUDIES) == list(NAMES)


def test_the_decision_read_from_plain_fine_tuning_is_the_one_that_the_search_took(
    pair: dict[str, tuple[Job, Story]],
) -> None:
    job, searched = pair["msft"]
    _, plain = pair["sft"]
    first = next(rollout for rollout in searched.rollouts if rollout.excluded)
    steps = [place.step for place in plain.trunk]
    scores = {t: np.array([place.scores[t] for place in plain.trunk]) for t in plain.tasks}
    expected = (frozenset(first.excluded), first.went_on.epoch)
    assert decision(plain, steps, scores, job.config.method.params) == expected
    other = {t: values if t in first.excluded else values[::-1] for t, values in scores.items()}
    assert decision(plain, steps, other, job.config.method.params) != expected


def test_exclusions_are_dated_by_where_the_search_went_on(pair: dict[str, tuple[Job, Story]]) -> None:
    _, story = pair["msft"]
    times = left_at(story)
    for rollout in story.rollouts:
        assert all(times[task] == rollout.went_on.epoch for task in rollout.excluded)
    assert set(times) == set(story.tasks)


def test_an_observation_sees_the_snapshots_of_the_run(pair: dict[str, tuple[Job, Story]]) -> None:
    """Rolled back or not, every place has the scores that the run recorded there."""
    job, story = pair["msft"]
    asked = {task: (part.validation, part.measure) for task, part in job.data.items()}
    seen = observe(job, story, lambda engine, snapshot: engine.score_items(snapshot, asked))
    assert set(seen) == set(story.trail.points)
    for snapshot, place in story.trail.points.items():
        for task, score in place.scores.items():
            assert seen[snapshot][task].control == score


def test_an_observation_refuses_another_run(pair: dict[str, tuple[Job, Story]]) -> None:
    job, story = pair["sft"]
    training = job.config.training.model_copy(update={"learning_rate": 0.2})
    changed = job.of(job.config.model_copy(update={"training": training}))
    with pytest.raises(Diverged, match="segment 1, run again"):
        observe(changed, story, lambda engine, snapshot: None)


def test_conflict_is_the_cosine_of_the_gradients_and_leaves_no_trace(
    pair: dict[str, tuple[Job, Story]], tmp_path: Path
) -> None:
    job, _ = pair["sft"]
    engine = TorchEngine(job.model, job.data, job.settings, Store(tmp_path, memory_bytes=10**9))
    stepper = engine._stepper
    before = {name: p.detach().clone() for name, p in stepper.model.named_parameters()}
    a, b = job.data["copy"].train[:6], job.data["double"].train[:6]
    found = cosines(stepper, {"a": a, "again": a, "b": b})
    assert found["a", "again"] == pytest.approx(1.0, abs=1e-5)
    gradients = []
    for examples in (a, b):
        stepper.backward(examples, None)
        gradients.append(torch.cat([p.grad.flatten() for p in stepper.model.parameters() if p.grad is not None]))
        stepper.optimizer.zero_grad(set_to_none=True)
    expected = float(gradients[0] @ gradients[1] / (gradients[0].norm() * gradients[1].norm()))
    assert found["a", "b"] == pytest.approx(expected, abs=1e-5)
    assert -1 < expected < 1
    assert all(torch.equal(p, before[name]) for name, p in stepper.model.named_parameters())
    assert all(p.grad is None for p in stepper.model.parameters())
    assert engine.conflict(ROOT, 6)["copy", "double"] == pytest.approx(expected, abs=1e-5)


def test_agreement_tells_a_property_of_the_sub_datasets_from_luck() -> None:
    tasks = "abcdefgh"
    same = [{task: float(number) for number, task in enumerate(tasks)} for _ in range(3)]
    spread, chance, p = agreement(same)
    assert spread > chance
    assert p < 0.01
    turned = [{t: float((number * 3 + 5 * s) % 8) for number, t in enumerate(tasks)} for s in (0, 1, 3)]
    assert agreement(turned)[2] > 0.05


@pytest.mark.parametrize("name", ["granularity", "similar"])
def test_studies_that_take_shares_need_sizes(config: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"copy, yes no, double.*max_samples"):
        STUDIES[name].variants(load(config))


@pytest.mark.parametrize("name", ["granularity", "shift"])
def test_studies_of_a_mixture_refuse_a_single_data_set(config: Path, name: str) -> None:
    job = load(config, SIZES)
    with pytest.raises(ConfigError, match=r"^datasets: this study needs two data sets or more"):
        STUDIES[name].variants(job.model_copy(update={"datasets": job.datasets[:1]}))


def test_an_effect_that_seeds_agree_on_is_not_tested(pair: dict[str, tuple[Job, Story]], config: Path) -> None:
    """It was said to need more than one seed."""
    _, story = pair["msft"]
    for seeds, said in ((1, "that needs more than one seed"), (2, "the difference is identical with each seed")):
        same = dict.fromkeys(range(seeds), story)
        found = optimizer.find(Evidence(load(config), {"restore": same, "reset": same}, lambda *_: pair["msft"][0]))
        assert found.said[0].endswith(f"by +0.00 points compared with resetting them; not tested: {said}.")


def test_findings_hold_no_number_that_json_does_not_know(tmp_path: Path) -> None:
    table = Table(title="<b>", columns=("a", "b"), rows=[("x<y", math.nan), ("z", -1.0)])
    folder = StudyFolder(tmp_path)
    Findings(title="T & U", said=["s"], plots=[], tables=[table]).write(folder)
    found = json.loads(folder.findings.read_text())
    assert found["tables"][0]["rows"] == [["x<y", None], ["z", -1.0]]
    assert folder.findings_table.read_text() == "a,b\nx<y,\nz,-1.0\n"
    page = folder.page.read_text()
    assert "x&lt;y" in page
    assert "<b>" not in page


def test_a_study_of_a_search_without_horizon_is_refused(config: Path) -> None:
    job = load(config, ["method={name: msft, preset: release}"])
    with pytest.raises(ConfigError, match=r"method\.max_epochs"):
        STUDIES["budget"].variants(job)
    assert replace(job.method, max_epochs=3.0).max_epochs == 3.0
