"""What the help of a command says beside its arguments: what it does, and an example."""

from __future__ import annotations

import argparse
from typing import Any

EXAMPLES = {
    "quickstart": "msft quickstart",
    "init": "msft init data/ --model Qwen/Qwen2.5-0.5B",
    "check": "msft check config.yaml",
    "preview": "msft preview config.yaml --rows 1",
    "train": "msft train config.yaml --set training.learning_rate=2e-5 --set output=runs/second",
    "status": "msft status runs/first",
    "report": "msft report runs/first",
    "compare": "msft compare config.yaml --methods sft_average,auto --seeds 6 --redraw",
    "study": "msft study headroom config.yaml",
    "eval": "msft eval runs/first --split test",
    "export": "msft export runs/first --dtype bfloat16 --output my_model",
    "schema": "msft schema > msft.schema.json",
    "env": "msft env",
}
"""In the order in which one needs the commands."""
STUDIES = {
    "peaks": "when does each sub-dataset peak?",
    "shift": "how do the peaks move when one sub-dataset is left out?",
    "budget": "what do score and compute do over C, the epochs of a roll-out?",
    "granularity": "does the gain depend on the number and sizes of sub-datasets?",
    "ticks": "how often should a run be evaluated?",
    "loss": "do training loss and gradient conflict differ from SFT's?",
    "optimizer": "restore Adam's moments at a roll-back, or reset them?",
    "noise": "would other validation examples change the decisions?",
    "headroom": "what would stopping each sub-dataset at its own best moment gain?",
    "similar": "are similar sub-datasets excluded together?",
}
"""The studies of `msft.study.studies`, which is not imported for `--help`, and the question of each."""


def explain(commands: argparse._SubParsersAction[Any]) -> None:
    """Adds to the help of each command its line in the list of commands, and its example; lists them in the order in
    which one needs them."""
    about = {choice.dest: choice.help or "" for choice in commands._choices_actions}
    for name, command in commands.choices.items():
        command.description = f"{about[name][0].upper()}{about[name][1:]}."
        command.epilog = f"Example: {EXAMPLES[name]}"
    questions = "\n".join(f"  {name:13}{question}" for name, question in STUDIES.items())
    study = commands.choices["study"]
    study.epilog = f"The studies:\n{questions}\n\n{study.epilog}"
    study.formatter_class = argparse.RawDescriptionHelpFormatter  # keeps the lines
    commands._choices_actions.sort(key=lambda choice: list(EXAMPLES).index(choice.dest))
