"""Run folders for tests: made by the real loop and journal with the fake engine, in milliseconds."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from msft.core.method import Method
from msft.core.search import Search
from msft.core.vocabulary import Brief, Outcome, Segment
from msft.core.wire import brief_to_json, outcome_to_json
from msft.methods import METHODS
from msft.record.journal import Journal, canonical, digest
from msft.record.run_folder import RunFolder, environment
from msft.run.loop import drive
from msft.testing.fake import Curve, FakeEngine, brief_of

NAMES = ("arc", "gsm8k", "piqa", "boolq")
PARAMETERS = 1000


class CutOffError(Exception):
    """The run is cut off here."""


def engine_for(names: tuple[str, ...], peaks: tuple[float, ...] | None = None, **fields: Any) -> FakeEngine:
    chosen = peaks or tuple(0.8 + 1.3 * i for i in range(len(names)))
    curves = {name: Curve(peak=peak) for name, peak in zip(names, chosen, strict=True)}
    return FakeEngine(curves=curves, sizes={name: 20 + 4 * i for i, name in enumerate(names)}, **fields)


def header_of(method: str, brief: Brief, measure: str = "choice") -> dict[str, Any]:
    return {
        "msft": "0.1.0",
        "method": method,
        "brief": brief_to_json(brief),
        "model": {"name": "tiny", "parameters": PARAMETERS, "bytes": 4000},
        "fingerprints": {"data": "ab" * 32},
        "config": {"method.name": method},
        "measures": {task: {"name": measure, "normalize": "none", "control": "report"} for task in brief.tasks},
    }


def make_run(
    path: Path,
    method: str = "msft",
    *,
    names: tuple[str, ...] = NAMES,
    peaks: tuple[float, ...] | None = None,
    params: dict[str, Any] | None = None,
    items: int = 0,
    held: Mapping[str, int] | None = None,
    stop_after: int | None = None,
    chosen: int | None = None,
    tested: bool | Collection[str] = True,
    own: Method | None = None,
    **changes: Any,
) -> RunFolder:
    """A run folder; with `stop_after`, of a run that was cut off behind so many segments; with `chosen`, as if the
    search had ended with that snapshot as the final model.

    `tested`: with scores on the test split, or which sub-datasets have them. `own`: a method that is not in METHODS;
    `method` is then its name.
    """
    engine = engine_for(names, peaks, items=items, held=held)
    definition = own or METHODS[method]
    brief = brief_of(engine, definition.Params(**(params or {})), **changes)
    folder = RunFolder(path)
    folder.create()
    folder.write_json(folder.environment, environment())
    journal = Journal.create(folder.journal, folder.sidecars, header_of(method, brief))

    def record(number: int, segment: Segment, outcome: Outcome) -> None:
        journal.segment(number, segment, outcome)
        folder.add_timing({"number": number, "kind": "segment", "seconds": {"train": 1.5, "eval": 0.5}})
        if number == stop_after:
            raise CutOffError

    try:
        answer = drive(Search(definition, brief), engine, engine.store, record)
    except CutOffError:
        return folder
    answer = answer if chosen is None else chosen
    test = {"base": engine.test(0), "answer": engine.test(answer)}
    if not isinstance(tested, bool):
        test = {which: _only(outcome, tested) for which, outcome in test.items()}
    written = {which: outcome_to_json(outcome) for which, outcome in test.items()}
    journal.final({"answer": answer, "test": written if tested else None})
    return folder


def _only(outcome: Outcome, tasks: Collection[str]) -> Outcome:
    def part(of: Mapping[str, Any] | None) -> dict[str, Any] | None:
        return None if of is None else {task: x for task, x in of.items() if task in tasks}

    reports, scores = part(outcome.reports) or {}, part(outcome.scores) or {}
    return replace(outcome, reports=reports, scores=scores, items=part(outcome.items))


def with_header(run: RunFolder, **changes: Any) -> RunFolder:
    """The run as if its header had said this; its records chained again."""
    records = _records(run)
    records[0]["body"].update(changes)
    return _written(run, records)


def resumed_with(run: RunFolder, since: int, path: tuple[str, ...], was: Any, now: Any) -> RunFolder:
    """The run as if it had been resumed before segment `since` with another value in its header."""
    records = _records(run)
    segments = [number for number, record in enumerate(records) if record["kind"] == "segment"]
    at = segments[since - 1] if since <= len(segments) else segments[-1] + 1
    body = {"since": since, "path": list(path), "was": was, "now": now}
    return _written(run, [*records[:at], {"kind": "change", "body": body}, *records[at:]])


def _records(run: RunFolder) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run.journal.read_text().splitlines()]


def _written(run: RunFolder, records: list[dict[str, Any]]) -> RunFolder:
    """The run with these records, numbered and chained again."""
    previous, lines = "0" * 64, []
    for number, given in enumerate(records):
        record = {"seq": number, "prev": previous, "kind": given["kind"], "body": given["body"]}
        previous = record["sha"] = digest(canonical(record))
        lines.append(canonical(record))
    run.journal.write_text("\n".join(lines) + "\n")
    return run
