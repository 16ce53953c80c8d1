"""After a power loss nothing that was acted on is missing, and nothing half-written is ever taken for whole.

Two levels. Every state that a disk may hold is held against the rules that the loop relies on; a good part of them is
put on a real disk and resumed, and must end as the run that nothing happened to.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest
from power_loss import Disk, Folder, Tree, materialise, power_losses, recorder
from schedules import SCHEDULES
from stored_runs import METHODS, Kill, config_of, content, run, unsynced

from msft.config.schema import Config
from msft.system import files
from msft.system.files import Operation


@pytest.fixture(autouse=True)
def fake() -> Iterator[None]:
    with unsynced(SCHEDULES["at once"]):
        yield


def recorded(config: Config, kill_at: tuple[str, int] | None = None) -> list[Operation]:
    """The operations of a whole run; or of one killed before the n-th sync of that name, and resumed."""
    seen: list[Operation] = []
    record = recorder(seen)
    if kill_at is not None:
        arrivals = 0
        deleted = kill_at == SNAPSHOTS_DELETED

        def watch(operation: Operation) -> None:
            nonlocal arrivals
            arrivals += (operation.name, operation.kind) == (kill_at[0], "sync")
            if arrivals == kill_at[1]:
                raise Kill
            record(operation)

        with pytest.raises(Kill):
            run(config, observer=watch)
        if deleted:
            with patch.object(files, "observer", record):
                files.remove("somebody", Path(config.output) / "snapshots")
                files.sync("somebody", Path(config.output))
    run(config, observer=record)
    return seen


class Rules:
    """What must be on the disk whatever happens to the power, learnt from the operations as the code did them."""

    def __init__(self, root: Path, seen: Sequence[Operation]) -> None:
        self.visible = Disk(root)
        """What the process sees, and so acts on."""
        self.root, self.seen = root, seen
        self.journal = b""
        """What somebody has acted on."""
        self.kept: dict[Path, Tree] = {}
        """Snapshots and the model that stand where something else was deleted, or the run was called finished."""
        self.files: dict[str, bytes] = {}
        """What lies in the run folder when the run is called finished, and the configuration when it is begun."""
        self.sidecars: dict[Path, bytes] = {}
        """What records name that somebody has acted on."""
        self.whole: dict[Path, list[object]] = {}
        """Everything that a rename ever puts in its place."""
        ahead = Disk(root)
        for operation in seen:
            ahead.apply(operation)
            if operation.kind == "rename" and operation.to is not None and operation.to.suffix != ".unfinished":
                self.whole.setdefault(operation.to, []).append(_tree(ahead.find(operation.to)))

    def happens(self, operation: Operation) -> None:
        acts = operation.name in {"loop.run", "recover.run", "loop.settle", "end"} or operation.name.endswith(".doom")
        journal = self.visible.find(self.root / "run" / "journal.jsonl")
        if acts and journal is not None and not isinstance(journal, Folder):
            self.journal = journal.now()
            self.files |= self._plain("config.yaml", "environment.json")
            sidecars = _tree(self.visible.find(self.root / "run" / "sidecars"))
            named = {name: data for name, data in (sidecars or {}).items() if name.encode() in self.journal}
            self.sidecars = {self.root / "run" / "sidecars" / name: data for name, data in named.items()}
        if operation.name == "end":
            self.files |= self._plain("summary.json", "report.html")
        if operation.name in {"loop.run", "end"} or operation.name.endswith(".doom"):
            self.kept = self._published()
            self.kept.pop(operation.path, None)
        if operation.name == "somebody":
            self.kept = {}
        self.visible.apply(operation)

    def broken_by(self, tree: Tree) -> str | None:
        """The rule that a disk of this content breaks."""
        folder = tree.get("run")
        if not isinstance(folder, dict):
            return "the run folder is gone" if self.journal else None
        journal = folder.get("journal.jsonl", b"")
        if not isinstance(journal, bytes) or not journal.startswith(self.journal):
            return "the journal lacks a record that was acted on"
        for name, wanted in self.files.items():
            if folder.get(name) != wanted:
                return f"{name} is not what the run wrote"
        for path, published in {**self.kept, **self.sidecars}.items():
            if _at(folder, path.relative_to(self.root / "run")) != published:
                return f"{path.name} is gone, though something was done because it was there"
        for path, contents in self.whole.items():
            found = _at(folder, path.relative_to(self.root / "run"))
            if path.name == "journal.jsonl" and isinstance(found, bytes):
                found = found[: len(contents[0])]  # type: ignore[arg-type]
            if found is not None and found not in contents:
                return f"{path.name} is there, and not whole"
        return None

    def _plain(self, *names: str) -> dict[str, bytes]:
        found = {name: self.visible.find(self.root / "run" / name) for name in names}
        return {name: node.now() for name, node in found.items() if node is not None and not isinstance(node, Folder)}

    def _published(self) -> dict[Path, Tree]:
        run = self.root / "run"
        folders = [run / "final"]
        snapshots = self.visible.find(run / "snapshots")
        if isinstance(snapshots, Folder):
            folders += [run / "snapshots" / name for name in snapshots.now() if name.isdecimal()]
        trees = {path: _tree(self.visible.find(path)) for path in folders}
        return {path: tree for path, tree in trees.items() if isinstance(tree, dict)}


def _tree(node: object) -> object:
    """All that a process sees below a place."""
    if isinstance(node, Folder):
        return {name: _tree(inner) for name, inner in node.now().items()}
    return None if node is None else node.now()  # type: ignore[attr-defined]


def _at(tree: object, path: Path) -> object:
    for part in path.parts:
        tree = tree.get(part) if isinstance(tree, dict) else None
    return tree


def breaches(
    root: Path,
    seen: Sequence[Operation],
    draw: random.Random,
    each: int,
    happens: Callable[[Operation], list[Operation]] = lambda operation: [operation],
) -> tuple[int, list[str]]:
    """States looked at, and the rules broken; `happens`: what the disk is really told for each operation."""
    rules, disk = Rules(root, seen), Disk(root)
    broken, states = [], 0
    for index, operation in enumerate(seen):
        rules.happens(operation)
        for real in happens(operation):
            disk.apply(real)
        if operation.name == "somebody":
            continue
        for mode in ("none", "all", *["some"] * (each - 2)):
            states += 1
            if breach := rules.broken_by(disk.after_power_loss(draw, mode)):
                broken.append(f"behind {index} {operation.name}: {breach}")
    return states, broken


LONG = {"max_epochs": 5, "budget": 1, "eval_every": 0.25}
SNAPSHOTS_DELETED = ("journal.append", 4)
CASES: dict[str, tuple[str, tuple[str, int] | None]] = {
    "tick": ("tick", None),
    "rollout": ("rollout", None),
    "losses": ("losses", None),
    "killed before a record was synced": ("tick", ("journal.append", 2)),
    "killed before the journal's place was synced": ("tick", ("journal.create.entry", 1)),
    "killed before a snapshot's place was synced": ("rollout", ("snapshot.published", 2)),
    "killed, and the snapshots deleted": ("tick", SNAPSHOTS_DELETED),
    "killed before a sidecar's place was synced": ("losses", ("sidecar.entry", 2)),
}


@pytest.mark.parametrize("case", CASES)
def test_no_state_breaks_a_rule(tmp_path: Path, case: str) -> None:
    kind, kill_at = CASES[case]
    seen = recorded(config_of(kind, tmp_path / "run"), kill_at)
    states, broken = breaches(tmp_path, seen, random.Random(1), each=3)
    assert not broken, (len(broken), broken[:5])
    assert states >= 350


@pytest.mark.parametrize("case", ["rollout", "killed before a snapshot's place was synced"])
def test_no_state_breaks_a_rule_where_snapshots_are_written_late(tmp_path: Path, case: str) -> None:
    kind, kill_at = CASES[case]
    with unsynced(SCHEDULES["at last"]):
        seen = recorded(config_of(kind, tmp_path / "run", LONG), kill_at)
    order = [operation.name for operation in seen if operation.name in {"loop.run", "snapshot.publish"}]
    late = "".join("w" if name == "snapshot.publish" else "t" for name in order)
    assert "tttw" in late, "no snapshot was written later than three segments behind"
    states, broken = breaches(tmp_path, seen, random.Random(1), each=3)
    assert not broken, (len(broken), broken[:5])
    assert states >= 400


def resumed(config: Config, tree: Tree, wanted: dict[str, str]) -> list[str]:
    """Puts a state on the disk and goes on from it; what the run said."""
    folder = Path(config.output)
    shutil.rmtree(folder)
    materialise(tree, folder.parent)
    _, notes = run(config)
    assert content(folder) == wanted
    return notes.said


def resume_from_states(
    place: Path, kind: str, kill_at: tuple[str, int] | None, each: int, every: int, schedule: str = "at once"
) -> int:
    config = config_of(kind, place / "run", LONG if schedule == "at last" else None)
    with unsynced(SCHEDULES[schedule]):
        seen = recorded(config, kill_at)
    wanted = content(place / "run")
    states = 0
    for number, (index, tree) in enumerate(power_losses(seen, place, random.Random(2), each)):
        if number % every:
            continue
        said = resumed(config, tree, wanted)
        told = [note for note in said if "removed an incomplete last record" not in note]
        assert not told, (index, seen[index - 1], told)
        states += 1
    return states


@pytest.mark.parametrize(("kind", "schedule"), [*((kind, "at once") for kind in METHODS), ("rollout", "at last")])
def test_a_run_goes_on_from_what_the_power_left(tmp_path: Path, kind: str, schedule: str) -> None:
    assert resume_from_states(tmp_path, kind, None, each=3, every=27, schedule=schedule) >= 10


@pytest.mark.campaign
@pytest.mark.parametrize("case", CASES)
def test_a_run_goes_on_from_every_state(tmp_path: Path, case: str, capsys: pytest.CaptureFixture[str]) -> None:
    kind, kill_at = CASES[case]
    states = resume_from_states(tmp_path, kind, kill_at, each=3, every=1)
    if kind == "rollout":
        (tmp_path / "late").mkdir()
        states += resume_from_states(tmp_path / "late", kind, kill_at, each=3, every=1, schedule="at last")
    with capsys.disabled():
        print(f"\n{case}: {states} states resumed, 0 wrong results, 0 losses")
    assert states >= 250


def written_in_place(operation: Operation) -> list[Operation]:
    """The same write without its rename: straight to where the content belongs."""
    if operation.kind == "rename":
        return []
    path = operation.path
    if path.name.startswith(".") and path.name.endswith(".tmp"):
        return [replace(operation, path=path.with_name(path.name[1:-4].rpartition(".")[0]))]
    parts = [part.removesuffix(".unfinished") for part in path.parts]
    return [replace(operation, path=Path(*parts))]


def mutations() -> dict[str, tuple[str, Callable[[Operation], list[Operation]]]]:
    """For each sync, and each write that a rename places: the case that shows it missing, and the disk's view."""

    def without(name: str) -> Callable[[Operation], list[Operation]]:
        return lambda operation: [] if (operation.name, operation.kind) == (name, "sync") else [operation]

    def in_place(name: str) -> Callable[[Operation], list[Operation]]:
        mine = {name, f"{name}.content", f"{name}.entry"}
        return lambda operation: written_in_place(operation) if operation.name in mine else [operation]

    def published_in_place(name: str) -> Callable[[Operation], list[Operation]]:
        parts = ("draft", "fill", "manifest", "content", "entries", "publish", "published")
        mine = {f"{name}.{part}" for part in parts}
        return lambda operation: written_in_place(operation) if operation.name in mine else [operation]

    syncs = {
        "run": "tick", "config.content": "tick", "environment.content": "tick", "notes.content": "tick",
        "journal.create.content": "tick", "journal.create.entry": "tick", "journal.append": "tick",
        "journal.found": "killed before a record was synced",
        "journal.placed": "killed before the journal's place was synced",
        "snapshot.found": "killed before a snapshot's place was synced",
        "snapshot.parent": "killed, and the snapshots deleted",
        "snapshot.content": "tick", "snapshot.entries": "tick",
        "snapshot.published": "tick", "snapshot.doomed": "tick", "sidecar": "losses", "sidecar.content": "losses",
        "sidecar.entry": "losses", "final.content": "tick", "final.entries": "tick",
        "samples.content": "tick", "summary.content": "tick", "page.content": "tick", "page.entry": "tick",
    }  # fmt: skip
    found = {f"sync {name}": (case, without(name)) for name, case in syncs.items()}
    for name, case in {"journal.create": "tick", "sidecar": "losses"}.items():
        found[f"rename {name}"] = (case, in_place(name))
    for name in ("config", "environment", "samples", "summary", "page"):
        found[f"rename {name}"] = ("tick", in_place(name))
    for name in ("snapshot", "final"):
        found[f"rename {name}"] = ("tick", published_in_place(name))
    return found


@pytest.mark.parametrize("mutation", mutations())
def test_every_sync_and_rename_is_needed(tmp_path: Path, mutation: str) -> None:
    """Without it, a state breaks a rule."""
    case, happens = mutations()[mutation]
    kind, kill_at = CASES[case]
    seen = recorded(config_of(kind, tmp_path / "run"), kill_at)
    assert any(happens(operation) != [operation] for operation in seen), "this operation never happens"
    _, broken = breaches(
        tmp_path, seen, random.Random(1), each=24 if mutation.startswith("rename") else 4, happens=happens
    )
    assert broken


def test_no_sync_is_left_out_of_the_check(tmp_path: Path) -> None:
    listed = {name.partition(" ")[2] for name in mutations() if name.startswith("sync ")}
    done = set()
    for number, (kind, kill_at) in enumerate(CASES.values()):
        (tmp_path / str(number)).mkdir()
        seen = recorded(config_of(kind, tmp_path / str(number) / "run"), kill_at)
        done |= {operation.name for operation in seen if operation.kind == "sync"}
    assert done - {"somebody"} == listed
