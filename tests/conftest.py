"""What every test runs under."""

from __future__ import annotations

import os
import sys
from pathlib import Path

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
