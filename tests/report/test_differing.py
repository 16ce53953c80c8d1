"""Runs side by side: in which settings they differ."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from run_folders import make_run

from msft.report.differing import settings_in_words
from msft.report.several import Run, find_runs
from msft.report.several_page import render_several, write_several

CONFIG = {
    "output": "runs/x",
    "method.name": "msft",
    "method.preset": "robust",
    "method.max_epochs": 3.0,
    "training.learning_rate": 0.003,
    "training.average": None,
    "datasets.a.path": "/here/a.jsonl",
    "model.name_or_path": "/here/model",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    (made,) = find_runs([make_run(tmp_path_factory.mktemp("settings") / "msft", items=40).path])
    return made


def with_config(run: Run, name: str, fingerprint: str = "ab", **config: Any) -> Run:
    header = {**run.story.header, "config": CONFIG | config, "fingerprints": {"data": fingerprint}}
    return replace(run, name=name, story=replace(run.story, header=header))


def said(run: Run, *changes: dict[str, Any]) -> str:
    return settings_in_words([with_config(run, str(i), **change) for i, change in enumerate(changes)])


def test_the_values_stand_in_the_order_of_the_runs(run: Run) -> None:
    other = {"output": "runs/y", "datasets.a.path": "/there/a.jsonl", "training.learning_rate": 3.0}
    wsd = {"method.name": "wsd", "method.preset": "default", "method.share": 0.2}
    assert said(run, {}, wsd, other) == (
        "They differ in: method.name (msft, wsd, msft); training.learning_rate (0.003, 0.003, 3)."
    ), "not in what is another method's own, nor in where the same data lie"
    assert said(run, {}, {"output": "runs/y"}) == "Their settings are the same."
    assert said(run, {"fingerprint": "cd"}, other).endswith(
        "datasets.a.path (/here/a.jsonl, /there/a.jsonl); training.learning_rate (0.003, 3)."
    ), "other data"


def test_the_parameters_of_a_method_are_compared_among_its_runs(run: Run) -> None:
    sft = {"method.name": "sft", "method.preset": "default"}
    budgets = ({"method.compute_budget": 1}, {"method.compute_budget": 3})
    assert said(run, sft, *budgets) == (
        "They differ in: method.name (sft, msft, msft); method.compute_budget (not set, 1, 3)."
    )
    assert said(run, sft, budgets[0], budgets[0]) == "They differ in: method.name (sft, msft, msft)."
    quick = {"method.preset": "quick"}
    assert said(run, sft, {}, quick) == (
        "They differ in: method.name (sft, msft, msft); method.preset (default, robust, quick)."
    )
    assert said(run, {}, budgets[0]) == "They differ in: method.compute_budget (not set, 1)."


def test_a_section_that_only_one_has_is_one_difference(run: Run) -> None:
    lora = {"peft.r": 8, "peft.lora_alpha": 16.0}
    assert said(run, {}, lora) == "They differ in: peft (not set, set)."
    assert said(run, lora, lora | {"peft.r": 16}) == "They differ in: peft.r (8, 16)."


def test_many_runs_and_many_settings_are_cut_short(run: Run) -> None:
    found = said(run, *({"training.learning_rate": rate / 100} for rate in (1, 2, 1, 3, 4, 5, 6)))
    assert found == "They differ in: training.learning_rate (6 different: 0.01, 0.02, 0.03, 0.04 and 2 more)."
    many = {f"training.key{i}": i for i in range(11)}
    assert said(run, {}, many).endswith("; training.key6 (not set, 6); and 3 more.")


def test_terminal_and_page_say_it(run: Run, tmp_path: Path) -> None:
    runs = [with_config(run, "one"), with_config(run, "<i>", **{"training.schedule": "<b>"})]
    out = io.StringIO()
    render_several(runs, Console(file=out, width=200))
    assert "They differ in: training.schedule (not set, <b>).\n" in out.getvalue()
    write_several(runs, tmp_path / "report.html")
    assert "<p>They differ in: training.schedule (not set, &lt;b&gt;).</p>" in (tmp_path / "report.html").read_text()
    assert settings_in_words(runs[:1]) == ""
