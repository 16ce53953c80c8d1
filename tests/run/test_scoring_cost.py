"""Whether every evaluation scores everything is decided once, from counted tokens, and kept by what is continued."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from stored_runs import config_of, content, run, unsynced
from tiny_engine import tiny_data

from msft.config.as_begun import as_begun
from msft.config.reader import flatten
from msft.config.schema import Config
from msft.core.errors import Diverged
from msft.core.vocabulary import Brief, Outcome
from msft.data.examples import Measure, TaskData
from msft.record.run_folder import RunFolder
from msft.run.job import Job
from msft.run.scoring_cost import CHEAP, TRAINED, decided, scored_tokens, scoring_share
from msft.study.grid import Grid, StudyFolder, Variant


def times(data: dict[str, TaskData], factor: int) -> dict[str, TaskData]:
    """The same data with `factor` times as many training examples."""
    return {task: replace(part, train=list(part.train) * factor) for task, part in data.items()}


def test_the_share_is_counted_in_forward_passes() -> None:
    data = tiny_data()
    one = {"a": replace(data["one"], measure=Measure(name="exact_match"))}
    # A prefix that options share counts once; here each option is a sequence of its own.
    scored = sum(scored_tokens([item], one["a"].measure) for item in one["a"].validation)
    trained = sum(len(example) for example in one["a"].train)
    assert scoring_share(one.values(), 0.25) == pytest.approx(scored / (TRAINED * 0.25 * trained))
    assert scoring_share(one.values(), 0.5) == pytest.approx(scoring_share(one.values(), 0.25) / 2)
    spoken = {"a": replace(one["a"], measure=Measure(name="generate", max_new_tokens=8))}
    assert scoring_share(spoken.values(), 0.25) > scoring_share(one.values(), 0.25)


def test_auto_follows_the_counted_share(tmp_path: Path) -> None:
    config = config_of("tick", tmp_path / "run")
    assert config.method.score_excluded == "auto"
    data = tiny_data()
    few = next(n for n in range(1, 100) if scoring_share(times(data, n).values(), config.method.eval_every) <= CHEAP)
    assert few > 1
    for factor, when in ((few - 1, "rollout"), (few, "tick")):
        assert decided(config, times(data, factor), excludes=True).method.score_excluded == when
        assert decided(config, times(data, factor), excludes=False).method.score_excluded == "rollout"
    for given in ("rollout", "tick"):
        chosen = config_of("tick", tmp_path / "run", {"score_excluded": given})
        assert decided(chosen, data, excludes=True).method.score_excluded == given


def run_as(output: Path, **method: Any) -> dict[str, str]:
    with unsynced():
        run(config_of("tick", output, method))
    return content(output)


def header(output: Path) -> dict[str, Any]:
    return RunFolder(output).transcript().header


def test_a_run_records_what_was_decided_and_goes_on_with_it(tmp_path: Path) -> None:
    before = run_as(tmp_path / "run")
    said = header(tmp_path / "run")
    when = said["config"].get("method.score_excluded", "rollout")
    assert when == said["brief"].get("score_excluded", "rollout") in ("tick", "rollout")
    assert f"score_excluded: {when}" in (tmp_path / "run" / "config.yaml").read_text()
    assert run_as(tmp_path / "run") == before
    other = "tick" if when == "rollout" else "rollout"
    with pytest.raises(Diverged, match="score_excluded"):
        run_as(tmp_path / "run", score_excluded=other)


def test_a_run_from_before_there_was_auto_goes_on_as_it_began(tmp_path: Path) -> None:
    before = run_as(tmp_path / "run", score_excluded="rollout")
    assert "method.score_excluded" not in header(tmp_path / "run")["config"]
    assert not {"score_excluded", "candidates"} & header(tmp_path / "run")["brief"].keys()
    config = (tmp_path / "run" / "config.yaml").read_bytes()
    after = run_as(tmp_path / "run")
    assert after == before
    assert (tmp_path / "run" / "config.yaml").read_bytes() == config


def test_a_tick_of_version_0_1_stays_no_candidate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = Job.brief

    def then(job: Job, base: Outcome) -> Brief:
        return replace(now(job, base), candidates="decisions")

    monkeypatch.setattr(Job, "brief", then)
    before = run_as(tmp_path / "run", score_excluded="tick")
    monkeypatch.setattr(Job, "brief", now)
    assert header(tmp_path / "run")["brief"]["score_excluded"] == "tick"
    assert "candidates" not in header(tmp_path / "run")["brief"]
    assert run_as(tmp_path / "run", score_excluded="tick") == before
    run_as(tmp_path / "new", score_excluded="tick")
    assert header(tmp_path / "new")["brief"]["candidates"] == "ticks"


def test_a_study_goes_on_with_what_it_was_begun_with(tmp_path: Path) -> None:
    def grid(config: Config) -> Grid:
        return Grid(kind="compare", variants=(Variant(name="msft", config=config),), seeds=(1,))

    new, old = config_of("tick", tmp_path), config_of("tick", tmp_path, {"score_excluded": "rollout"})
    begun, before = StudyFolder(tmp_path / "new"), StudyFolder(tmp_path / "old")
    for folder, config in ((begun, new), (before, old)):
        folder.path.mkdir()
        folder.adopt(grid(config), 1)
    assert begun.continued(grid(new)) == grid(new)
    assert before.continued(grid(new)) == grid(as_begun(new, "rollout"))
    before.check(before.continued(grid(new)))
    assert flatten(new)["method.score_excluded"] == "auto"
    assert "method.score_excluded" not in flatten(old)
