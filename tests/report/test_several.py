from __future__ import annotations

import io
import math
from pathlib import Path

import pytest
from browser import DRAWN, opened, until
from rich.console import Console
from run_folders import NAMES, make_run, with_header

from msft.cli.main import main
from msft.core.errors import RunError
from msft.report.intervals import tango
from msft.report.several import MODELS_ONLY, against, find_runs, gap, macro_gap, overview, scores, wary
from msft.report.several_page import answers, render_several, write_several
from msft.report.table import INTERVAL_NOTE, render_text
from msft.report.verdict import against_plain
from msft.report.words import difference, percent

EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three finished runs of the same data and one that was cut off, one of them under an evil name."""
    path = tmp_path_factory.mktemp("several") / "runs"
    for method in ("msft", "sft", "one_pass"):
        make_run(path / method, method, items=40)
    make_run(path / EVIL, "msft", items=40, stop_after=5)
    return path


def test_plain_fine_tuning_is_what_others_are_compared_with(folder: Path) -> None:
    runs = find_runs([folder])
    assert [run.name for run in runs] == ["sft", EVIL, "msft", "one_pass"]
    assert [run.name for run in find_runs([folder / "one_pass", folder / "msft"])] == ["one_pass", "msft"]


def test_gaps_are_paired_over_the_items(folder: Path) -> None:
    sft, _, msft, _ = find_runs([folder])
    task = NAMES[0]
    differences = [b - a for a, b in zip(sft.items(task), msft.items(task), strict=True)]
    mean = sum(differences) / 40
    found = gap(msft, sft, task)
    assert found.difference == pytest.approx(mean)
    assert found.interval == tango(differences.count(1), differences.count(-1), 40)
    assert found.p is not None and found.interval is not None
    assert (found.p < 0.05) == (not found.interval[0] <= 0 <= found.interval[1])
    whole = macro_gap(msft, sft)
    assert whole.difference == pytest.approx(sum(gap(msft, sft, t).difference or 0 for t in NAMES) / 4)
    assert whole.interval is not None and whole.interval[0] < (whole.difference or 0.0) < whole.interval[1]


def test_other_data_are_not_paired(folder: Path, tmp_path: Path) -> None:
    other = make_run(tmp_path / "other", "msft", items=30)
    sft, found = find_runs([folder / "sft", other.path])
    assert gap(found, sft, NAMES[0]).difference is not None
    assert gap(found, sft, NAMES[0]).p is None
    assert macro_gap(found, sft).interval is None


def test_the_command_writes_tables_and_one_page(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert "Test average, difference to sft in points" in shown
    assert f"{EVIL} is not finished" in shown.replace("\n", " ")
    with opened(folder / "report.html") as page:
        assert page.locator("h1").text_content() == "4 runs side by side"
        assert page.locator("img").count() == 0
        assert page.get_by_text(EVIL).count() >= 3
        page.locator("[data-toggle='0']").uncheck()
        shown_lines = "document.getElementById('together').data.filter(line => line.visible).map(line => line.meta)"
        assert set(page.evaluate(shown_lines)) == {1, 2, 3}
        page.locator("#none").click()
        assert page.evaluate(shown_lines) == []
        page.locator("#all").click()
        page.locator("[data-toggle='1']").focus()
        page.keyboard.press("Space")
        assert set(page.evaluate(shown_lines)) == {0, 2, 3}
        page.reload()
        until(page, DRAWN)
        assert set(page.evaluate(shown_lines)) == {0, 2, 3}, "what was chosen is kept when the page is read again"
        page.locator("#view-compute").check()
        assert "compute spent" in page.locator("#together .xtitle").text_content()


def test_seeds_of_one_job_are_named_and_not_put_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Statistics over seeds are those of `msft compare`, which knows that the splits are the same."""
    for seed in (20, 21):
        make_run(tmp_path / f"msft-{seed}", "msft", seed=seed, items=40)
    make_run(tmp_path / "sft", "sft", seed=22, items=40)
    assert main(["report", str(tmp_path)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "msft-20, msft-21: the same job with other seeds." in shown
    assert "msft compare" in shown
    assert "the same job with other seeds" in (tmp_path / "report.html").read_text()
    assert main(["report", str(tmp_path / "msft-20"), str(tmp_path / "sft")]) == 0
    assert "the same job" not in capsys.readouterr().out


def test_runs_without_a_test_split_are_compared_on_validation(tmp_path: Path) -> None:
    """Their cells were empty."""
    for method in ("sft", "msft"):
        make_run(tmp_path / method, method, items=40, tested=False)
    runs = find_runs([tmp_path])
    sft, msft = runs
    assert sft.story.answer is not None and msft.story.answer is not None
    was, now = (math.fsum(point.reports[t] for t in NAMES) / 4 for point in (sft.story.answer, msft.story.answer))
    out = io.StringIO()
    render_several(runs, Console(file=out, width=200))
    shown = out.getvalue()
    assert "validation, %" in shown and "Validation scores, in %" in shown and percent(now) in shown
    assert "Validation average, difference to sft in points" in shown
    moved = macro_gap(msft, sft).difference
    assert moved == pytest.approx(now - was) and difference(moved) in shown
    assert "No run has test scores: these are validation scores" in shown
    assert "test, %" not in shown and "95 %" not in shown and "–" not in shown
    (said,) = answers(runs)
    assert said.startswith("msft: Not tested against plain SFT with the same seed and data: ")
    assert said.endswith(" points on the validation split, by which both chose their final models.")
    make_run(tmp_path / "tested", "msft", items=40)
    assert {run.split for run in find_runs([tmp_path])} == {"test"}, "runs are compared on one split"


def test_a_sub_dataset_without_a_test_split_is_left_out_of_all_numbers(tmp_path: Path) -> None:
    """It left no average, and was counted among those that do not differ."""
    for method in ("sft", "msft"):
        make_run(tmp_path / method, method, items=40, tested=NAMES[:3])
    runs = sft, msft = find_runs([tmp_path])
    average = math.fsum(msft.scores[task] for task in NAMES[:3]) / 3
    (heads, rows), (_, table), (_, against_rows) = overview(runs), scores(runs), against(runs)
    assert rows[1][heads.index("test, %")] == percent(average) == table[-1][2]
    assert [row[0] for row in table] == [*NAMES[:3], "average"]
    assert against_rows[0][-1].endswith(" of 3")
    assert against_rows[0][1] == difference(average - math.fsum(sft.scores[task] for task in NAMES[:3]) / 3)
    said = wary(runs)
    assert "Not in these tables, because they have no test split: boolq." in said
    assert not [line for line in said if "Not paired" in line]
    make_run(tmp_path / "whole", "msft", items=40)
    runs = find_runs([tmp_path])
    cells = [row[heads.index("test, %")] for row in overview(runs)[1]]
    assert cells[:2] == ["–", "–"] and cells[2] != "–", "averages of other sub-datasets are not comparable"
    assert not [line for line in wary(runs) if "no test split" in line]


def test_runs_that_differ_in_their_rows_or_scorer_are_said_to(tmp_path: Path) -> None:
    """A fingerprint is of training rows too: equal test items, which it does not show, are not said to differ."""
    for method in ("sft", "msft"):
        run = make_run(tmp_path / method, method, items=40)
        with_header(run, fingerprints={"data": dict.fromkeys(NAMES, "same") | {"piqa": method}})
    why = "the rows (training rows included), their tokens or the scorer differ between runs: piqa."
    said = wary(find_runs([tmp_path]))
    assert f"Not paired, because {why}" in said and not [line for line in said if "not recorded" in line]
    for method in ("sft", "msft"):
        run = make_run(tmp_path / "validation" / method, method, items=40, tested=False)
        with_header(run, fingerprints={"data": dict.fromkeys(NAMES, "same") | {"piqa": method}})
    assert f"T{why[1:]}" in wary(find_runs([tmp_path / "validation"]))


def test_different_measures_are_not_subtracted(tmp_path: Path) -> None:
    for method, name in (("sft", "exact_match"), ("msft", "loss")):
        run = make_run(tmp_path / method, method, items=40)
        with_header(run, measures={task: {"name": "exact_match"} for task in NAMES} | {"piqa": {"name": name}})
    runs = sft, msft = find_runs([tmp_path])
    assert gap(msft, sft, "piqa").difference is None and gap(msft, sft, NAMES[0]).difference is not None
    assert macro_gap(msft, sft).difference is None and against(runs)[1][0][1] == "–"
    said = wary(runs)
    assert "No difference is given where runs have different measures: piqa." in said
    assert any("The average is a mean of different measures" in line for line in said)


def test_what_a_run_lacks_beside_another_is_said_and_is_no_other_data(tmp_path: Path) -> None:
    make_run(tmp_path / "sft", "sft", items=40)
    make_run(tmp_path / "msft", "msft", items=40, tested=NAMES[:3])
    said = wary(find_runs([tmp_path]))
    assert f"msft has no average, as it has no score of {NAMES[3]}." in said
    assert not [line for line in said if NAMES[3] in line and "Not paired" in line]


def test_runs_without_scores_of_single_items_are_said_to(tmp_path: Path) -> None:
    for method in ("sft", "msft"):
        make_run(tmp_path / method, method)
    why = f"scores of single test items are not recorded: {', '.join(NAMES[:3])} and {NAMES[3]}."
    assert f"Not paired, because {why}" in wary(find_runs([tmp_path]))


def test_the_page_of_several_runs_stands_beside_them_and_replaces_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was written into the working directory, over whatever was there."""
    one, two = (str(make_run(tmp_path / "runs" / name, name, items=40).path) for name in ("sft", "msft"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    page = tmp_path / "runs" / "report.html"
    for _ in range(2):  # its own page is replaced
        assert main(["report", one, two]) == 0
        assert f"The page: {page}" in capsys.readouterr().out and not list((tmp_path / "here").iterdir())
    page.write_text("<title>my own</title>")
    assert main(["report", one, two]) == 2
    assert f"{page}: this file is there, and is no page of several runs. Fix: " in capsys.readouterr().err
    assert page.read_text() == "<title>my own</title>"
    assert main(["report", one, two, "--page", str(page)]) == 0, "it was named"
    inner = make_run(tmp_path / "runs" / "sft" / "inner", "msft", items=40).path
    assert main(["report", one, str(inner)]) == 0
    assert not (tmp_path / "runs" / "sft" / "report.html").exists(), "a run's folder holds its own page"


def test_a_folder_without_runs_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == 2
    assert "holds no run" in capsys.readouterr().err
    with pytest.raises(RunError, match="holds no run"):
        find_runs([tmp_path])


def test_a_choice_among_fewer_candidates_is_said(tmp_path: Path) -> None:
    make_run(tmp_path / "sft", "sft", items=40)
    make_run(tmp_path / "msft", "msft", items=40)
    make_run(tmp_path / "all", "msft", items=40, score_excluded="tick", candidates="ticks")
    (said,) = (line for line in wary(find_runs([tmp_path])) if "candidates" in line)
    assert "fewer candidates by msft: only" in said and "by sft and all among all evaluations" in said
    assert not [line for line in wary(find_runs([tmp_path / "sft", tmp_path / "all"])) if "candidates" in line]


def test_a_run_beside_plain_sft_of_its_job_is_answered_first(tmp_path: Path) -> None:
    for name in ("sft", "msft"):
        make_run(tmp_path / name, name, items=100)
    make_run(tmp_path / "other" / "sft", "sft", items=100, seed=9)
    plain, search = find_runs([tmp_path / "sft", tmp_path / "msft"])
    (line,) = answers([plain, search])
    assert line == f"msft: {against_plain(search, plain)}"
    write_several([plain, search], tmp_path / "report.html")
    assert f'</h1>\n<p class="lead">{line}</p>' in (tmp_path / "report.html").read_text(encoding="utf-8")
    (other,) = find_runs([tmp_path / "other" / "sft"])
    assert answers([other, search]) == [], "another seed is another job"
    assert answers([search, plain]) == [] and answers([plain, plain]) == [] and answers([plain]) == []


def test_in_a_log_file_no_line_is_broken(tmp_path: Path) -> None:
    runs = find_runs([make_run(tmp_path / name, name, items=100).path for name in ("sft", "msft")])
    out = io.StringIO()
    render_several(runs, Console(file=out, color_system=None))
    render_text(runs[1].story.folder, Console(file=out, color_system=None))
    lines = out.getvalue().splitlines()
    assert MODELS_ONLY in lines and INTERVAL_NOTE in lines
    heads = ["sub-dataset", "test,", "in", "%", "base", "model", "change", "95", "%", "interval", "items"]
    assert heads in [line.split() for line in lines]
