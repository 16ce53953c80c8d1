"""Whatever happens to a file of a run folder: it is refused, or noticed and made again; never used, no traceback."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from stored_runs import METHODS, At, Kill, config_of, content, fake_model, operations, run

from msft.config.schema import Config
from msft.core.errors import RunError
from msft.report.summary import summarise
from msft.run import RunFolder

Damage = Callable[[random.Random, Path, Path], None]
"""Called with (draw, the file, the folder of another run)."""


@pytest.fixture(autouse=True)
def fake() -> Iterator[None]:
    with fake_model():
        yield


def flip(draw: random.Random, file: Path, other: Path) -> None:
    data = bytearray(file.read_bytes())
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    file.write_bytes(data)


def truncate(draw: random.Random, file: Path, other: Path) -> None:
    file.write_bytes(file.read_bytes()[: draw.randrange(file.stat().st_size)])


def zero(draw: random.Random, file: Path, other: Path) -> None:
    data = bytearray(file.read_bytes())
    at = draw.randrange(len(data))
    end = min(len(data), at + draw.choice([1, 16, 512]))
    data[at:end] = bytes(end - at)
    file.write_bytes(data)


def delete(draw: random.Random, file: Path, other: Path) -> None:
    file.unlink()


def duplicate(draw: random.Random, file: Path, other: Path) -> None:
    """A second file beside it, or its own content twice."""
    if draw.random() < 0.5:
        file.with_name(f"copy-{file.name}").write_bytes(file.read_bytes())
    else:
        file.write_bytes(file.read_bytes() * 2)


def swap(draw: random.Random, file: Path, other: Path) -> None:
    """With another file of the folder."""
    files_there = [path for path in sorted(file.parent.iterdir()) if path.is_file() and path != file]
    second = draw.choice(files_there) if files_there else file
    mine, theirs = file.read_bytes(), second.read_bytes()
    file.write_bytes(theirs)
    second.write_bytes(mine)


def stale(draw: random.Random, file: Path, other: Path) -> None:
    """The file of the same name as another run had it."""
    if (other / file.name).exists():
        file.write_bytes((other / file.name).read_bytes())
    else:
        matches = [path for path in sorted(other.rglob(file.name)) if path.is_file()]
        if matches:
            file.write_bytes(draw.choice(matches).read_bytes())


KINDS: dict[str, Damage] = {
    "flip": flip, "truncate": truncate, "zero": zero, "delete": delete, "duplicate": duplicate, "swap": swap,
    "stale": stale,
}  # fmt: skip


class Bench:
    """A finished run and one that was killed, each in several kinds; and another run to take stale files from."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.cases: list[tuple[str, Config, Path, dict[str, str]]] = []
        self.summaries: dict[str, dict[str, object]] = {}
        for kind in METHODS:
            (place / kind).mkdir()
            config = config_of(kind, place / kind / "run")
            seen = operations(config)
            wanted = content(place / kind / "run")
            shutil.move(place / kind / "run", place / kind / "finished")
            late = [i for i, operation in enumerate(seen) if operation.name == "loop.run"][-1]
            with pytest.raises(Kill):
                run(config, observer=At(late, Kill()))
            shutil.move(place / kind / "run", place / kind / "killed")
            run(config_of(kind, place / kind / "run", learning_rate=0.02))
            shutil.move(place / kind / "run", place / kind / "other")
            self.cases += [
                (f"{kind} {state}", config, place / kind / state, wanted) for state in ("finished", "killed")
            ]
            for _, _, pristine, _ in self.cases[-2:]:
                self.summaries[str(pristine)] = summarise(RunFolder(pristine))

    def used_silently(self, draw: random.Random, kind: str, *, only: str | None = None) -> str | None:
        """Damages a file drawn at random, reads the run and resumes it; what went wrong."""
        name, config, pristine, wanted = draw.choice(self.cases)
        folder = Path(config.output)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(pristine, folder)
        listed = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.stat().st_size]
        file = draw.choice([path for path in listed if only is None or only in str(path.relative_to(folder))])
        KINDS[kind](draw, file, pristine.with_name("other"))
        what = f"{name}: {kind} {file.relative_to(folder)}"
        # The whole journal of another run is, to a reader, that other run; to go on with it is refused.
        problem = None if what.endswith("stale journal.jsonl") else self._read(folder, pristine)
        if problem is None:
            problem = self._resume(config, wanted)
        return None if problem is None else f"{what}: {problem}"

    def _read(self, folder: Path, pristine: Path) -> str | None:
        try:
            found = summarise(RunFolder(folder))
        except RunError as error:
            return _not_helpful(error, folder)
        wanted = self.summaries[str(pristine)]
        if found["seconds"] != wanted["seconds"]:
            found = {**found, "seconds": wanted["seconds"]}  # a lost line of timings
        torn = len(found["rollouts"]) <= len(wanted["rollouts"]) and found["answer"] is None  # type: ignore[arg-type]
        return None if found == wanted or torn else "the summary was made from it"

    def _resume(self, config: Config, wanted: dict[str, str]) -> str | None:
        folder = Path(config.output)
        try:
            run(config)
        except RunError as error:
            return _not_helpful(error, folder)
        # A stray copy in the run folder itself is nobody's file, and stays; in a published folder it must not.
        found = {name: sha for name, sha in content(folder).items() if not name.startswith("copy-")}
        return None if found == wanted else f"the result differs: {sorted(found.items() ^ wanted.items())}"


def _not_helpful(error: RunError, folder: Path) -> str | None:
    """A message must name a file of the run, and the mend."""
    return None if str(folder) in str(error) and "Mend: " in str(error) else f"the message does not help: {error}"


def campaign(place: Path, count: int) -> tuple[int, list[str]]:
    bench = Bench(place)
    draw = random.Random(11)
    found = [bench.used_silently(draw, list(KINDS)[i % len(KINDS)]) for i in range(count)]
    return len(found), [problem for problem in found if problem]


def test_no_corruption_is_used(tmp_path: Path) -> None:
    _, problems = campaign(tmp_path, 70)
    assert not problems, problems[:5]


@pytest.mark.campaign
def test_a_thousand_corruptions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    count, problems = campaign(tmp_path, 2100)
    with capsys.disabled():
        print(f"\n{count} corruptions, {len(problems)} used silently or without a helpful message")
    assert not problems, problems[:5]
