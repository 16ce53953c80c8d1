"""What `pytest --by-file` prints, so that a run says something whenever it is cut off: a failing test with its short
traceback as it fails, a line per file as its last test ends, and those lines once more at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

LINES = 25
"""Lines of a traceback, its end."""


class ReportByFile:
    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.left: Counter[str] = Counter()
        self.outcomes: dict[str, Counter[str]] = {}
        self.seconds: Counter[str] = Counter()
        self.failed: dict[str, str] = {}
        self.skipped: Counter[str] = Counter()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.collected(item.nodeid for item in session.items)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        self.collected(ids)

    def collected(self, ids: Iterable[str]) -> None:
        """With pytest-xdist every process tells the same."""
        if not self.left:
            self.left.update(map(file_of, ids))

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        """No dots; how else the test is counted is left to pytest."""
        outcome = report.outcome if report.when == "call" or report.outcome != "passed" else ""
        return ("error" if outcome == "failed" and report.when != "call" else outcome), "", ""

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.fails(report)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        file = file_of(report.nodeid)
        self.seconds[file] += report.duration
        found = self.outcomes.setdefault(file, Counter())
        if report.outcome == "failed":
            found["failed"] += 1
            self.fails(report)
        elif report.outcome == "skipped":
            found["skipped"] += 1
            self.skipped[reason_of(report)] += 1
        elif report.when == "call":
            found["passed"] += 1
        if report.when in ("teardown", "???"):  # the latter: the process that ran it died
            self.left[file] -= 1
            if self.left[file] == 0:
                self.say(self.line(file))

    def fails(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        self.failed[report.nodeid] = message_of(report)
        self.say(f"FAILED {report.nodeid}: {self.failed[report.nodeid]}")
        for line in report.longreprtext.splitlines()[-LINES:]:
            self.say(f"    {line}")

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        self.config.option.tbstyle = "no"  # tracebacks were printed

    def pytest_terminal_summary(self) -> None:
        self.say("")
        for file in sorted(self.outcomes):
            self.say(self.line(file))
        for reason, count in self.skipped.items():
            self.say(f"skipped {count}: {reason}")
        for name, message in self.failed.items():
            self.say(f"FAILED {name}: {message}")

    def line(self, file: str) -> str:
        found = self.outcomes[file]
        counts = ", ".join(f"{found[kind]} {kind}" for kind in ("passed", "failed", "skipped") if found[kind])
        left = f", {self.left[file]} not run" if self.left[file] > 0 else ""
        return f"{file}: {counts}{left}, {self.seconds[file]:.0f} s"

    def say(self, line: str) -> None:
        terminal: Any = self.config.pluginmanager.get_plugin("terminalreporter")
        terminal.write_line(line)
        terminal.flush()


def file_of(nodeid: str) -> str:
    return nodeid.partition("::")[0]


def message_of(report: pytest.TestReport | pytest.CollectReport) -> str:
    """The error in one line, with where it was raised."""
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash is None:
        return next((line for line in reversed(report.longreprtext.splitlines()) if line.strip()), "no message")
    return f"{Path(crash.path).name}:{crash.lineno}: {' '.join(str(crash.message).split())[:200]}"


def reason_of(report: pytest.TestReport) -> str:
    told = report.longrepr
    return str(told[2]).removeprefix("Skipped: ") if isinstance(told, tuple | list) else "no reason given"
