"""What every test runs under."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
if "e2e" not in sys.argv and "campaign" not in sys.argv:
    os.environ["OMP_NUM_THREADS"] = "1"  # tiny models: two workers with two threads each would only wait for each other

# Helpers lie beside the tests that use them most, and are imported by their plain names.
for folder in ("data", "engine", "cli", "run", "report", "study", "crash", "cases", "../benchmarks"):
    sys.path.insert(0, str(Path(__file__).parent / folder))

# A deadline measures how busy the machine is.
settings.register_profile("msft", deadline=None)
settings.load_profile("msft")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--device", choices=("cpu", "cuda"), default="cpu",
        help="cpu: cards are hidden, so that the suite is the same on every machine; cuda: the first card is used",
    )  # fmt: skip
    parser.addoption("--by-file", action="store_true", help="print failures as they happen, and a line for each file")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("device") == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # before anything asks torch for its devices
    else:
        import torch

        if not torch.cuda.is_available():
            raise pytest.UsageError("--device cuda: torch sees no CUDA device here")
    if config.getoption("by_file") and not hasattr(config, "workerinput"):  # not in the processes of pytest-xdist
        from report_by_file import ReportByFile

        config.option.reportchars = "N"  # it has a summary of its own
        config.pluginmanager.register(ReportByFile(config))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    on_card = config.getoption("device") == "cuda"
    for item in items:
        for_card, for_cpu = item.get_closest_marker("gpu"), item.get_closest_marker("cpu")
        if for_card and not on_card:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device: run by `make gpu-check`"))
        if for_cpu and on_card:
            item.add_marker(pytest.mark.skip(reason=f"for a CPU: {for_cpu.args[0]}"))
