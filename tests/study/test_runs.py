"""The grid runner on a tiny model: what is shared, what survives a kill, what is refused, what fails alone."""

from __future__ import annotations

import gc
import json
import shutil
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from job import make_job
from run_folders import make_run

from msft.cli.main import main
from msft.config.reader import load
from msft.config.schema import Config
from msft.core.errors import RunError
from msft.core.wire import differences
from msft.engine.torch_engine import TorchEngine
from msft.record.journal import read
from msft.record.run_folder import RunFolder
from msft.report.cost import flops
from msft.report.story import read_story
from msft.study import worker
from msft.study.comparison import comparison
from msft.study.derive import RULES
from msft.study.grid import Grid, StudyFolder, Variant
from msft.study.results import read_results
from msft.study.runs import Progress, _devices, run_grid
from msft.study.worker import OF_A_STUDY

METHODS = {
    "msft": "method={name: msft, max_epochs: 2, eval_every: 0.5, budget: 1, smooth: 1, leave_within: 0, replay: 0}",
    "sft": "method={name: sft, max_epochs: 2, eval_every: 0.5}",
    "placebo": "method={name: placebo, max_epochs: 2, eval_every: 0.5}",
    "one_pass": "method={name: one_pass, max_epochs: 2, eval_every: 0.5}",
}


def test_only_gpus_that_are_there_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Schedulers and images set the variable on machines without any."""
    cases = [(0, "0", []), (0, "-1", []), (2, None, ["0", "1"]), (1, "GPU-8932", ["GPU-8932"]), (2, "3,5", ["3", "5"])]
    for there, named, found in cases:
        monkeypatch.setattr(torch.cuda, "device_count", lambda there=there: there)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if named is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
        assert _devices() == found


def test_a_process_whose_gpu_fails_runs_nothing_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would take one run after another, each of which fails at once."""

    def fails() -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nand more")

    def crash(*_: Any, **__: Any) -> None:
        raise RuntimeError("CUDA error")

    monkeypatch.setattr(worker, "_broken", [])
    monkeypatch.setattr(worker, "read_base", crash)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", fails)
    asked: Any = (None, 1, tmp_path, None, 1)
    first, second = worker.work(*asked), worker.work(*asked)
    assert first.failure == "RuntimeError: CUDA error"
    assert second.failure is not None and "illegal memory access" in second.failure and "and more" not in second.failure
    assert "Fix: repeat the study" in second.failure


def test_the_model_of_a_run_is_gone_before_the_next_begins(
    tmp_path: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU that holds one model and its graphs may not hold two. Nothing else looks for circles meanwhile."""
    engines: weakref.WeakSet[TorchEngine] = weakref.WeakSet()
    init, train, alive = TorchEngine.__init__, worker.train, []

    def made(self: TorchEngine, *args: Any, **given: Any) -> None:
        init(self, *args, **given)
        engines.add(self)

    def begins(*args: Any, **given: Any) -> Any:
        alive.append(len(engines))
        return train(*args, **given)

    monkeypatch.setattr(TorchEngine, "__init__", made)
    monkeypatch.setattr(worker, "train", begins)
    gc.disable()
    try:
        assert run_grid(StudyFolder(tmp_path / "study"), grid_of(config, "sft"), jobs=1) == {}
    finally:
        gc.enable()
    assert alive == [0, 0]


def grid_of(config: Path, *names: str, seeds: tuple[int, ...] = (1, 2), more: tuple[str, ...] = ()) -> Grid:
    variants = tuple(Variant(name=name, config=load(config, [METHODS[name], *more])) for name in names)
    return Grid(kind="compare", variants=variants, seeds=seeds)


def contents(folder: StudyFolder) -> dict[str, bytes]:
    """Every record and the base scores: what must be the same whenever the study is."""
    files = [*folder.path.glob("runs/*/*/journal.jsonl"), *folder.path.glob("base/*.json")]
    return {str(file.relative_to(folder.path)): file.read_bytes() for file in files}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_job(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def whole(config: Path) -> StudyFolder:
    """A study that nothing interrupted."""
    folder = StudyFolder(config.parent / "whole")
    assert run_grid(folder, grid_of(config, "msft", "sft")) == {}
    return folder


def trained(run: Path) -> list[Any]:
    """A run's journal, but for the items of its evaluations, which only the runs of a study record."""
    transcript = read(run / "journal.jsonl", run / "sidecars")
    header = {**transcript.header, "brief": {**transcript.header["brief"], "record": None}}
    segments = [(replace(segment, probes=frozenset()), replace(outcome, items=None, metrics=None))
                for segment, outcome in transcript.segments]  # fmt: skip
    return [header, segments, transcript.final]


def test_a_run_of_a_study_is_the_run_that_train_makes(config: Path, whole: StudyFolder) -> None:
    """To the last bit, but that it records each item of every evaluation."""
    ordinary = config.parent / "ordinary"
    again = ["--set", METHODS["msft"], "--set", "training.seed=2", "--set", f"output={ordinary}"]
    assert main(["train", str(config), *again]) == 0
    run = whole.path / "runs" / "msft" / "2"
    assert trained(run) == trained(ordinary)
    scored = [(segment, outcome) for segment, outcome in read_story(RunFolder(run)).segments if segment.score]
    assert all(set(outcome.items or ()) == set(segment.score) for segment, outcome in scored)
    summaries = [json.loads((path / "summary.json").read_text()) | {"seconds": None} for path in (run, ordinary)]
    assert summaries[0] == summaries[1]
    assert len(list((whole.path / "base").glob("*.json"))) == 1
    assert {path.name for path in run.iterdir()}.isdisjoint({"final", "report.html"})
    assert not list((run / "snapshots").iterdir())


def test_the_model_of_a_run_can_be_had_afterwards(config: Path, whole: StudyFolder) -> None:
    run = whole.path / "runs" / "sft" / "1"
    before = (run / "journal.jsonl").read_bytes()
    assert main(["train", str(run / "config.yaml"), "--resume"]) == 0
    assert (run / "final" / "model.safetensors").exists()
    assert (run / "journal.jsonl").read_bytes() == before


def test_seeds_share_the_splits_and_differ_in_training(config: Path, whole: StudyFolder) -> None:
    (variant,) = grid_of(config, "sft").variants
    one, two = (read_story(whole.run(variant, seed)) for seed in (1, 2))
    assert one.header["fingerprints"] == two.header["fingerprints"]
    assert [s for s, _ in one.segments] == [s for s, _ in two.segments]
    losses = [[outcome.train_loss for _, outcome in story.segments] for story in (one, two)]
    assert not set(losses[0]) & set(losses[1])


def test_a_finished_study_runs_nothing(config: Path, whole: StudyFolder) -> None:
    told: list[Progress] = []
    before = contents(whole)
    assert run_grid(whole, grid_of(config, "msft", "sft"), tell=told.append) == {}
    assert told == []
    assert contents(whole) == before


def test_a_study_that_recorded_every_default_continues(config: Path, whole: StudyFolder) -> None:
    """As version 0.1 did."""
    recorded = whole.record.read_bytes()
    old = json.loads(recorded)
    for variant in old["variants"].values():
        variant["config"]["method.score_excluded"] = "rollout"
    whole.record.write_text(json.dumps(old))
    told: list[Progress] = []
    assert run_grid(whole, grid_of(config, "msft", "sft"), tell=told.append) == {}
    assert told == []
    whole.record.write_bytes(recorded)


def test_another_grid_is_refused_by_name(config: Path, whole: StudyFolder) -> None:
    for grid, named in (
        (grid_of(config, "msft", "sft", seeds=(2, 3)), "this study also holds seed 1."),
        (grid_of(config, "one_pass", "sft", seeds=(3,)), "this study also holds msft and seeds 1, 2."),
        (grid_of(config, "msft", "sft", more=("training.learning_rate=0.5",)), "learning_rate was 0.01, is now 0.5"),
        (grid_of(config, "msft", "sft", more=("method.max_epochs=9",)), "method.max_epochs was 2.0, is now 9.0"),
    ):
        with pytest.raises(RunError) as raised:
            run_grid(whole, grid)
        assert named in str(raised.value)
    (config.parent / "mine").mkdir()
    (config.parent / "mine" / "thesis.tex").touch()
    with pytest.raises(RunError, match="not an empty folder"):
        run_grid(StudyFolder(config.parent / "mine"), grid_of(config, "sft"))


def test_a_study_grows(config: Path, whole: StudyFolder, tmp_path: Path) -> None:
    """More methods and seeds: what is there is not run again, and the comparison says that seeds were added."""
    grown = StudyFolder(tmp_path / "grown")
    shutil.copytree(whole.path, grown.path)
    told: list[Progress] = []
    assert run_grid(grown, grid_of(config, "msft", "sft", "one_pass"), tell=told.append) == {}
    assert [(each.variant, each.seed) for each in told] == [("one_pass", 1), ("one_pass", 2)]
    assert grown.began_with is None and not any("added" in n for n in comparison(read_results(grown), "msft")["notes"])
    assert run_grid(grown, grid_of(config, "msft", "sft", "one_pass", seeds=(1, 2, 3)), tell=told.append) == {}
    assert [(each.variant, each.seed) for each in told[2:]] == [("msft", 3), ("sft", 3), ("one_pass", 3)]
    found = comparison(read_results(grown), "msft")
    assert found["seeds"] == [1, 2, 3] and grown.began_with == [1, 2]
    again = comparison(read_results(grown), "msft", found["notes"])
    assert again["notes"] == found["notes"] and sum("began with 2, and has 3" in n for n in found["notes"]) == 1
    with pytest.raises(RunError, match="also holds one_pass and seed 3"):
        run_grid(grown, grid_of(config, "msft", "sft"))


def test_what_diverges_fails_alone_and_what_follows_it_is_not_run(config: Path) -> None:
    folder = StudyFolder(config.parent / "failing")
    msft = Variant(name="msft", config=load(config, [METHODS["msft"], "training.learning_rate=1e30"]))
    placebo = Variant(name="placebo", config=load(config, [METHODS["placebo"]]))
    grid = Grid(
        kind="compare",
        variants=(
            msft,
            replace(placebo, after="msft", rule="exclusion_times"),
            Variant(name="sft", config=load(config, [METHODS["sft"]])),
        ),
        seeds=(1,),
    )
    failures = run_grid(folder, grid)
    assert set(failures) == {("msft", 1), ("placebo", 1)}
    assert "NaN" in failures["msft", 1] and "--resume" not in failures["msft", 1], "compare has no such option"
    assert failures["msft", 1].endswith(OF_A_STUDY)
    assert "it depends on msft" in failures["placebo", 1]
    assert folder.read_failures() == {variant: {"1": message} for (variant, _), message in failures.items()}
    assert (folder.path / "runs" / "sft" / "1" / "summary.json").exists()


def test_failures_are_known_if_the_study_is_killed(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They were written at its end. Here `train` runs out of memory for one seed, and is killed at another."""
    folder, fates = StudyFolder(config.parent / "killed"), {1: RuntimeError("out of memory"), 2: KeyboardInterrupt()}
    grid, train = grid_of(config, "sft", seeds=(1, 2, 3)), worker.train

    def fails(config: Config, *more: Any, **named: Any) -> Any:
        if config.training.seed in fates:
            raise fates[config.training.seed]
        return train(config, *more, **named)

    monkeypatch.setattr(worker, "train", fails)
    with pytest.raises(KeyboardInterrupt):
        run_grid(folder, grid)
    assert folder.read_failures() == {"sft": {"1": "RuntimeError: out of memory"}}
    del fates[1]
    with pytest.raises(KeyboardInterrupt):
        run_grid(folder, grid)
    assert folder.read_failures() == {} and json.loads(folder.failures.read_text()) == {}
    fates[2] = RuntimeError("a device is lost")
    assert run_grid(folder, grid) == {("sft", 2): "RuntimeError: a device is lost"}
    fates[2] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        run_grid(folder, grid)
    assert folder.read_failures() == {"sft": {"2": "RuntimeError: a device is lost"}}, "until it is tried again"


def test_what_follows_takes_its_numbers_from_the_run_of_its_seed(config: Path) -> None:
    folder = StudyFolder(config.parent / "following")
    high = ("method.max_epochs=4", "training.learning_rate=0.03")
    (msft, placebo, sft) = grid_of(config, "msft", "placebo", "sft", more=high).variants
    grid = Grid(
        kind="compare",
        variants=(
            msft,
            replace(placebo, after="msft", rule="exclusion_times"),
            replace(sft, after="msft", rule="equal_flops"),
        ),
        seeds=(1, 2),
    )
    assert run_grid(folder, grid) == {}
    for seed in (1, 2):
        of, dealt, equal = (read_story(folder.run(variant, seed)) for variant in grid.variants)
        left = {task: rollout.went_on.epoch for rollout in of.rollouts for task in rollout.excluded}
        assert left, "nothing was excluded, so nothing was dealt"
        expected = {task: left.get(task, of.tip.epoch) for task in of.tasks}
        assert dealt.brief.params["times"] == expected
        assert sum(o.tokens.train for _, o in dealt.segments) < sum(o.tokens.train for _, o in of.segments) * 1.5
        cost, target = sum(flops(equal).values()), sum(flops(of).values())
        step = 6 * of.header["model"]["parameters"] * equal.segments[0][1].tokens.train
        assert abs(cost - target) <= step, "SFT's FLOPs are not within a tick of mSFT's"


def test_plain_fine_tuning_ends_where_the_first_roll_out_of_auto_did(tmp_path: Path, config: Path) -> None:
    of = make_run(tmp_path / "auto", "auto", peaks=(0.5, 0.6, 0.7, 0.8), items=400, horizon=8.0)
    story = read_story(of)
    end = story.rollouts[0].end.epoch
    assert end < 8.0, "it ended early"
    (sft,) = grid_of(config, "sft").variants
    changed = RULES["first_rollout"](sft.config, of)
    assert changed.method == replace(sft.config.method, max_epochs=end)


def test_a_base_score_that_was_changed_is_not_used(config: Path) -> None:
    folder = StudyFolder(config.parent / "damaged")
    grid = grid_of(config, "sft", seeds=(1,))
    assert run_grid(folder, grid) == {}
    (base,) = folder.path.glob("base/*.json")
    (run,) = folder.path.glob("runs/*/*")
    good, journal = base.read_bytes(), (run / "journal.jsonl").read_bytes()
    content = json.loads(good)
    content["body"]["base"]["reports"]["copy"] = 0.99
    base.write_text(json.dumps(content))
    shutil.rmtree(run)
    assert run_grid(folder, grid) == {}
    assert differences(json.loads(good), json.loads(base.read_bytes())) == []
    assert (run / "journal.jsonl").read_bytes() == journal


def test_data_that_changed_since_the_base_was_scored_are_refused(tmp_path: Path) -> None:
    folder, config = StudyFolder(tmp_path / "study"), make_job(tmp_path)
    grid = grid_of(config, "sft", seeds=(1,))
    assert run_grid(folder, grid) == {}
    shutil.rmtree(folder.path / "runs")
    data = tmp_path / "copy.jsonl"
    data.write_text(data.read_text().replace("a", "b"))
    worker._jobs.clear()  # as in a new process
    failures = run_grid(folder, grid)
    assert "since the base model was scored, data.copy was" in failures["sft", 1]
    assert not list(folder.path.glob("runs/*/*/journal.jsonl"))


def test_a_seed_may_draw_its_own_rows(config: Path, whole: StudyFolder) -> None:
    """A run is then the one that train makes with both seeds, and base scores belong to the seed."""
    folder = StudyFolder(config.parent / "redrawn")
    grid = replace(grid_of(config, "sft"), redraw=True)
    assert run_grid(folder, grid, jobs=1) == {}
    headers = [json.loads((folder.run("sft", seed).journal).read_text().splitlines()[0])["body"] for seed in (1, 2)]
    assert [header["config"]["data.seed"] for header in headers] == [1, 2]
    assert headers[0]["fingerprints"]["data"] != headers[1]["fingerprints"]["data"]
    assert len(list(folder.path.glob("base/*.json"))) == 2
    ordinary = config.parent / "ordinary of seed 2"
    seeds = ["--set", "training.seed=2", "--set", "data.seed=2", "--set", f"output={ordinary}"]
    assert main(["train", str(config), "--set", METHODS["sft"], *seeds]) == 0
    assert trained(folder.run("sft", 2).path) == trained(ordinary)
    with pytest.raises(RunError, match="redraw"):
        run_grid(folder, grid_of(config, "sft"))


def test_redrawn_seeds_are_compared_within_themselves(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = config.parent / "redrawn comparison"
    asked = ["compare", str(config), "--set", METHODS["msft"], "--methods", "sft,msft", "--seeds", "2", "--redraw"]
    assert main([*asked, "--output", str(output)]) == 0
    data = json.loads((output / "comparison.json").read_text())
    assert any("Each seed drew its own rows" in note for note in data["notes"])
    first, second = (
        json.loads((output / "runs" / "sft" / str(seed) / "summary.json").read_text())["test"]["base"]
        for seed in (20, 21)
    )
    task = data["tasks"][0]["task"]
    assert data["base"]["tasks"][task] == pytest.approx((first[task] + second[task]) / 2)
    assert main(["report", str(output)]) == 0
    # A run of other data than its seed's is still found out.
    shutil.copytree(output / "runs" / "sft" / "21", output / "runs" / "msft" / "moved")
    shutil.rmtree(output / "runs" / "msft" / "20")
    (output / "runs" / "msft" / "moved").rename(output / "runs" / "msft" / "20")
    assert main(["report", str(output)]) == 2
    assert "other data" in capsys.readouterr().err
