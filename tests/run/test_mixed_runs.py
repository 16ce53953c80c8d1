"""Runs whose epochs repeat a sub-dataset or take a part of it: `data.mixing` and `repeat`, from file to journal."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import pytest
from job import make_job

from msft.cli.main import main
from msft.config.reader import flatten, load
from msft.core.errors import Diverged
from msft.core.vocabulary import Segment
from msft.data import cache
from msft.record.run_folder import RunFolder
from msft.run.job import UNSCORED, Job
from msft.run.session import train
from msft.study.positions import Silent

UNEVEN = ["datasets.copy.max_samples=5", "datasets.double.max_samples=12"]
SIZES = (5, 24, 12)
MIXINGS = {
    "equal": ["data.mixing=equal"],
    "temperature": ["data.mixing={temperature: 2}"],
    "repeat": ["datasets.copy.repeat=3.5", "datasets.double.repeat=0.4"],
}
EXPECTED = {"equal": (14, 14, 14), "temperature": (9, 19, 13), "repeat": (18, 24, 5)}


class KilledError(Exception):
    pass


class Killing(Silent):
    """Ends the process's work after the record of a segment."""

    def __init__(self, after: int) -> None:
        self.after = after

    def outcome(self, number: int, segment: Segment, outcome: object) -> None:
        if number == self.after:
            raise KilledError


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mixed")
    make_job(folder)
    return folder


def hashes(run: Path) -> list[bytes]:
    found = [run / "journal.jsonl", run / "final" / "model.safetensors", *sorted((run / "sidecars").glob("*"))]
    return [file.read_bytes() for file in found]


@pytest.mark.parametrize("name", MIXINGS)
def test_a_run_takes_what_the_configuration_says_and_resumes_bit_for_bit(place: Path, name: str) -> None:
    def config(output: str) -> Path:
        return make_job(place, "msft", ", max_epochs: 1, budget: 1, smooth: 1", output=f"{name}-{output}")

    overrides = [*UNEVEN, *MIXINGS[name]]
    train(load(config("whole"), overrides), Silent())
    killed = load(config("killed"), overrides)
    with pytest.raises(KilledError):
        train(killed, Killing(1))
    train(killed, Silent(), resume=True)
    assert hashes(place / f"{name}-killed") == hashes(place / f"{name}-whole")

    transcript = RunFolder(place / f"{name}-whole").transcript()
    brief, (first, _) = transcript.brief, transcript.segments[0]
    assert (brief.sizes, brief.pools) == (EXPECTED[name], SIZES)
    steps = -(-sum(brief.sizes) // 8)
    assert [s.stop for s, _ in transcript.segments][:2] == [-(-steps // 2), steps] and first.start == 0
    with pytest.raises(Diverged, match=r"datasets\.copy had \d+ training examples in an epoch, has 5"):
        train(load(config("whole"), UNEVEN), Silent(), resume=True)


@pytest.mark.parametrize("name", ["equal", "repeat"])
def test_ies_has_a_loss_of_every_different_example_in_every_epoch(place: Path, name: str) -> None:
    """Those that an epoch does not take are read after it; those that it takes several times have one loss."""
    config = make_job(place, "ies", ", max_epochs: 2", output=f"ies-{name}")
    train(load(config, [*UNEVEN, *MIXINGS[name]]), Silent())
    losses: dict[float, dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    transcript = RunFolder(place / f"ies-{name}").transcript()
    for segment, outcome in transcript.segments:
        for task, by_index in (outcome.losses or {}).items():
            losses[int(segment.epoch + 1e-9)][task] |= set(by_index)
    everything = {task: set(range(size)) for task, size in zip(transcript.brief.tasks, SIZES, strict=True)}
    assert losses == {0: everything, 1: everything}
    last = transcript.segments[-1][1]
    assert last.tokens.probe > 0, "the forward passes count"


def test_check_tells_how_often_an_epoch_takes_an_example(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sets = [part for override in (*UNEVEN, *MIXINGS["repeat"]) for part in ("--set", override)]
    command = ["check", str(make_job(place, "msft", ", max_epochs: 2")), *sets]
    assert main(command) == 0
    said = capsys.readouterr().out
    rows = [line.split()[:4] for line in said.splitlines() if line.startswith(("sub-d", "copy ", "double "))]
    assert rows == [
        ["sub-dataset", "train", "taken", "tokens"], ["copy", "5", "18", "(3.6×)"], ["double", "12", "5", "(0.417×)"],
    ]  # fmt: skip
    assert "taken     training examples that an epoch takes" in said and "learned by heart" not in said
    assert main([*command, "--json", "--set", "datasets.copy.repeat=6"]) == 0
    made = json.loads(capsys.readouterr().out)
    copy, choice, double = made["parts"]
    assert [(part["train"], part["taken"]) for part in made["parts"]] == [(5, 30), (24, 24), (12, 5)]
    assert made["epoch_tokens"] == 6 * copy["tokens"] + choice["tokens"] + round(double["tokens"] * 5 / 12)
    assert made["steps_per_epoch"] == -(-59 // 8)
    assert any(
        text.startswith("copy: an epoch takes each of its 5 training examples 6 times") for text in made["warnings"]
    )
    assert main(["check", str(make_job(place, "msft", ", max_epochs: 2"))]) == 0
    assert "taken" not in capsys.readouterr().out


def test_what_an_epoch_trains_is_what_check_estimates(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sets = ["datasets.copy.repeat=3", "datasets.double.repeat=2"]
    config = make_job(place, "sft", ", max_epochs: 1", output="estimated")
    assert main(["check", str(config), "--json", *(part for key in sets for part in ("--set", key))]) == 0
    made = json.loads(capsys.readouterr().out)
    train(load(config, sets), Silent())
    trained = sum(outcome.tokens.train for _, outcome in RunFolder(place / "estimated").transcript().segments)
    assert trained == made["epoch_tokens"]
    assert "Training examples per epoch" in (place / "estimated" / "report.html").read_text()
    assert "| copy | copy.jsonl | 24, each 3 times per epoch |" in (place / "estimated/final/README.md").read_text()


def test_each_sub_dataset_of_a_split_is_repeated(place: Path) -> None:
    rows = [{"prompt": f"{part}{n} ", "completion": "a", "part": part} for part in "xy" for n in range(20)]
    (place / "parts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    entry = "{id: set, path: parts.jsonl, split_by: part, repeat: 2, validation: {max_samples: 8}}"
    overrides = [f"datasets=[{entry}, {{id: set.z, path: parts.jsonl, validation: {{max_samples: 8}}}}]"]
    job = Job.prepare(load(make_job(place), [*overrides, "data.leaks=warn"]))
    assert {task: (part.dataset, part.size, len(part.train)) for task, part in job.data.items()} == {
        "set.x": ("set", 24, 12), "set.y": ("set", 24, 12), "set.z": ("set.z", 32, 32),
    }  # fmt: skip


def test_cached_tokens_do_not_depend_on_the_mixing(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(cache, "CACHE_FROM", 0)
    found = []
    for overrides in ([], *MIXINGS.values()):
        job = Job.prepare(load(make_job(place), [*UNEVEN, *overrides]))
        found.append(tuple(part.size for part in job.data.values()))
    assert found == [SIZES, *EXPECTED.values()]
    assert len(list((tmp_path / "msft" / "data").iterdir())) == 1


def test_a_journal_names_only_what_is_not_the_default(place: Path) -> None:
    plain = load(make_job(place))
    assert not [key for key in flatten(plain) if "mixing" in key or "repeat" in key]
    mixed = flatten(load(make_job(place), [*MIXINGS["temperature"], *MIXINGS["repeat"]]))
    assert mixed["data.mixing.temperature"] == 2.0 and mixed["datasets.copy.repeat"] == 3.5
    brief = Job.prepare(plain).brief(UNSCORED)
    assert brief.pools is None and brief.sizes == (24, 24, 32)
