"""The journal: what was written is what is read, and nothing else is ever believed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from msft.core.errors import RunError
from msft.core.search import Search
from msft.core.vocabulary import Outcome, Segment
from msft.core.wire import brief_to_json
from msft.methods import METHODS
from msft.record.journal import Journal, read
from msft.run.loop import drive
from msft.testing.fake import Curve, FakeEngine, brief_of


def write(folder: Path, method: str = "ies") -> list[tuple[Segment, Outcome]]:
    """A whole run's journal; IES writes losses to sidecars."""
    engine = FakeEngine({"a": Curve(peak=1.0), "b": Curve()}, {"a": 8, "b": 8})
    brief = brief_of(engine, METHODS[method].Params(), horizon=2.0)
    journal = Journal.create(folder / "journal.jsonl", folder / "sidecars", {"brief": brief_to_json(brief)})
    written: list[tuple[Segment, Outcome]] = []

    def record(number: int, segment: Segment, outcome: Outcome) -> None:
        journal.segment(number, segment, outcome)
        written.append((segment, outcome))

    answer = drive(Search(METHODS[method], brief), engine, engine.store, record)
    journal.final({"answer": answer})
    return written


def test_what_was_written_is_read(tmp_path: Path) -> None:
    written = write(tmp_path)
    transcript = read(tmp_path / "journal.jsonl", tmp_path / "sidecars")
    assert transcript.segments == written
    assert transcript.final is not None
    assert transcript.brief.sizes == (8, 8)
    assert any((tmp_path / "sidecars").iterdir())


def test_a_torn_last_line_is_cut_off_and_the_journal_goes_on(tmp_path: Path) -> None:
    written = write(tmp_path)
    file = tmp_path / "journal.jsonl"
    whole = file.read_bytes()
    for cut in (1, 2, 40):
        file.write_bytes(whole[:-cut])
        assert read(file, tmp_path / "sidecars").torn > 0
        journal, transcript = Journal.resume(file, tmp_path / "sidecars")
        assert transcript.segments == written
        assert transcript.final is None
        journal.final({"answer": json.loads(whole.splitlines()[-1])["body"]["answer"]})
        assert file.read_bytes() == whole


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_damage_is_believed(tmp_path: Path, data: st.DataObject) -> None:
    """Any flipped bit, lost, doubled or swapped line before the last is refused with file and line."""
    folder = tmp_path / "run"
    if not folder.exists():
        folder.mkdir()
        write(folder)
        (tmp_path / "good").write_bytes((folder / "journal.jsonl").read_bytes())
    file, good = folder / "journal.jsonl", (tmp_path / "good").read_bytes()
    lines = good.splitlines(keepends=True)
    kind = data.draw(st.sampled_from(["flip", "lose", "double", "swap"]))
    i = data.draw(st.integers(0, len(lines) - 2))
    if kind == "flip":
        at = data.draw(st.integers(0, len(lines[i]) - 1))
        bit = data.draw(st.integers(0, 7))
        lines[i] = lines[i][:at] + bytes([lines[i][at] ^ (1 << bit)]) + lines[i][at + 1 :]
    elif kind == "lose":
        del lines[i]
    elif kind == "double":
        lines.insert(i, lines[i])
    else:
        lines[i], lines[i + 1] = lines[i + 1], lines[i]
    file.write_bytes(b"".join(lines))
    with pytest.raises(RunError, match=r"journal\.jsonl:\d+: .*Fix: "):
        read(file, folder / "sidecars")


def test_a_changed_sidecar_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    sidecar = next((tmp_path / "sidecars").iterdir())
    sidecar.write_text(sidecar.read_text().replace("0", "1"))
    with pytest.raises(RunError, match=sidecar.name):
        read(tmp_path / "journal.jsonl", tmp_path / "sidecars")
    sidecar.unlink()
    with pytest.raises(RunError, match="cannot be read"):
        read(tmp_path / "journal.jsonl", tmp_path / "sidecars")


def test_an_older_or_newer_format_is_refused(tmp_path: Path) -> None:
    Journal.create(tmp_path / "j", tmp_path / "s", {"brief": {}})._append("header", {})
    text = (tmp_path / "j").read_text().splitlines()[0]
    assert '"wire":1' in text
    (tmp_path / "k").touch()
    journal = Journal(tmp_path / "k", tmp_path / "s")
    journal._append("header", {"wire": 99})
    with pytest.raises(RunError, match="written in format 99"):
        read(tmp_path / "k", tmp_path / "s")


def test_a_record_of_another_run_is_refused(tmp_path: Path) -> None:
    """Whole, with the right number, and yet not what followed here."""
    for name in ("mine", "other"):
        (tmp_path / name).mkdir()
    write(tmp_path / "mine", "sft")
    write(tmp_path / "other", "one_pass")
    mine = (tmp_path / "mine" / "journal.jsonl").read_bytes().splitlines(keepends=True)
    mine[2] = (tmp_path / "other" / "journal.jsonl").read_bytes().splitlines(keepends=True)[2]
    (tmp_path / "mine" / "journal.jsonl").write_bytes(b"".join(mine))
    with pytest.raises(RunError, match=r"journal\.jsonl:3: this record does not follow"):
        read(tmp_path / "mine" / "journal.jsonl", tmp_path / "mine" / "sidecars")
