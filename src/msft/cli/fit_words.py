"""In words, what a process needs of memory, and whether that fits on a machine."""

from __future__ import annotations

from msft.cli.fitting import Fit, Plan
from msft.cli.needs import HostNeeds, Needs
from msft.report.words import scaled

USES = {
    "weights": "weights",
    "masters": "fp32 masters",
    "moments": "moments",
    "gradients": "gradients",
    "mean": "averages",
    "exchange": "in exchange between processes",
}


def of_process(needs: Needs) -> str:
    """The bytes of one process, by use."""
    uses = [f"{scaled(getattr(needs, name), 'B')} {said}" for name, said in USES.items() if getattr(needs, name)]
    on_host = f"{scaled(needs.read, 'B')} to read the model"
    if needs.host:
        on_host += f" and {scaled(needs.host, 'B')} for what is kept there"
    return (
        f"{scaled(needs.total, 'B')}: {', '.join(uses)}, at most {scaled(needs.activations, 'B')} activations "
        f"({needs.tokens:,} tokens at a time); of the host's memory, {on_host}"
    )


def of_host(host: HostNeeds) -> str:
    """What the processes on one machine take of its own memory, and what it has."""
    together = "" if host.processes == 1 else f" in {host.processes} processes together"
    waiting = f"; with snapshots that wait to be written, at most {scaled(host.most, 'B')}"
    known = "how much the machine has is not known here"
    if host.memory is not None:
        known = f"this machine has {scaled(host.memory, 'B')}"
    return f"{scaled(host.least, 'B')}{together}{waiting if host.most > host.least else ''}; {known}"


def fit_lines(fit: Fit) -> list[tuple[str, str]]:
    """(name, sentence): whether it fits, and what to change if not."""
    machine, plan = fit.machine, fit.plan
    each = "" if machine.count == 1 else "each card of "
    has = f"{each}{machine} has {scaled(machine.card, 'B')}, of which training may take {scaled(plan.room, 'B')}"
    if plan.fits:
        return [("fits", f"yes: {has}")]
    if plan.needs.total <= plan.room:
        start = plan.needs.read + plan.needs.masters
        short = f"no: {has}, and at the start a process needs {scaled(start, 'B')} for the model in fp32"
    else:
        short = f"no: {has}, and a process needs {scaled(plan.needs.total, 'B')}"
    return [("fits", short), ("change", _change(fit.proposal))]


def _change(proposal: Plan | None) -> str:
    if proposal is None:
        return (
            "no change that is known here makes it fit: use a smaller model, a shorter data.max_length, or larger cards"
        )
    flags = " ".join(f'--set "{change}"' if " " in change else f"--set {change}" for change in proposal.changes)
    return f"{flags} makes it fit ({scaled(proposal.needs.total, 'B')}){''.join(_cautions(proposal))}"


def _cautions(proposal: Plan) -> list[str]:
    said = []
    if any(change.startswith("peft") for change in proposal.changes):
        said.append("; an adapter usually needs a higher training.learning_rate, such as 2e-4")
    if "training.optimizer=adafactor" in proposal.changes:
        said.append("; its learning_rate is relative to the size of a weight: 1e-3 is a usual one")
    if "training.offload_optimizer=true" in proposal.changes:
        said.append(f"; it takes {scaled(proposal.needs.host, 'B')} of the host's memory for each process")
    if {"training.optimizer=adamw_8bit", "model.quantize=nf4"} & set(proposal.changes):
        said.append("; it needs bitsandbytes: pip install 'msft[quantized]'")
    return said
