"""What the help of a command says beside its arguments: what it does, and an example."""

from __future__ import annotations

import argparse
from typing import Any

EXAMPLES = {
    "check": "msft check config.yaml",
    "preview": "msft preview config.yaml --rows 1",
    "init": "msft init data/ --model Qwen/Qwen2.5-0.5B",
    "schema": "msft schema > msft.schema.json",
    "train": "msft train config.yaml --set training.learning_rate=2e-5 --set output=runs/second",
    "compare": "msft compare config.yaml --methods msft,sft --seeds 6",
    "study": "msft study headroom config.yaml",
    "report": "msft report runs/first",
    "status": "msft status runs/first",
    "export": "msft export runs/first --dtype bfloat16 --output my_model",
    "eval": "msft eval runs/first --split test",
    "quickstart": "msft quickstart",
    "env": "msft env",
}


def explain(commands: argparse._SubParsersAction[Any]) -> None:
    """Adds to the help of each command its line in the list of commands, and its example."""
    about = {choice.dest: choice.help or "" for choice in commands._choices_actions}
    for name, command in commands.choices.items():
        command.description = f"{about[name][0].upper()}{about[name][1:]}."
        command.epilog = f"Example: {EXAMPLES[name]}"
