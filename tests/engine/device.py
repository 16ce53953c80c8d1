"""Where the tests make models and batches: a card with `pytest --device cuda`, else the CPU, as conftest.py sees to."""

from __future__ import annotations

import torch

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
