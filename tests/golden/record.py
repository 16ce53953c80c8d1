"""Records the journals of `tests/golden/journals` with the code as it is: a tiny run of each method, without paths.

    python tests/golden/record.py SRC [NAME...]

They were recorded at version 0.1.0, `msft_candidates` at 0.2.0, and are replayed by every later one
(`tests/golden/test_golden.py`). Record them again only where a change of what a run writes
is wanted, and say so in the changelog.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

from same_bytes import RUNS, make, run

JOURNALS = Path(__file__).parent / "journals"
UNKNOWN = {"platform": "Linux", "cpus": 2}
"""What is said of the machine."""


def main() -> None:
    """Writes a folder for each run."""
    tree = Path(sys.argv[1]).resolve()
    sys.path.insert(0, str(tree))
    with tempfile.TemporaryDirectory() as temporary:
        for name in sys.argv[2:] or RUNS:
            anonymise(run(tree, make(Path(temporary), name, "golden", tree)), JOURNALS / name, temporary)


def anonymise(folder: Path, to: Path, root: str) -> None:
    """The journal without what tells where it was recorded, chained anew."""
    from msft.core.wire import VERSION, outcome_from_json, segment_from_json
    from msft.record.journal import Journal

    bodies = [json.loads(line.replace(f"{root}/", "")) for line in (folder / "journal.jsonl").read_text().splitlines()]
    header = bodies[0]["body"]
    header["environment"].update(UNKNOWN)
    assert header.pop("wire") == VERSION
    shutil.rmtree(to, ignore_errors=True)
    to.mkdir(parents=True)
    journal = Journal.create(to / "journal.jsonl", to / "sidecars", header)
    transcript_segments = read_segments(folder)
    for number, (segment, outcome) in enumerate(transcript_segments, 1):
        journal.segment(number, segment_from_json(segment), outcome_from_json(outcome))
    journal.final(bodies[-1]["body"])


def read_segments(folder: Path) -> list[tuple[dict, dict]]:
    """Segments and outcomes as JSON, the outcome's sidecars read in."""
    from msft.core.wire import outcome_to_json, segment_to_json
    from msft.record.journal import read

    transcript = read(folder / "journal.jsonl", folder / "sidecars")
    return [(segment_to_json(s), outcome_to_json(o)) for s, o in transcript.segments]


if __name__ == "__main__":
    main()
