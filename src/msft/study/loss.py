"""`msft study loss`: training loss and gradient conflict along SFT and mSFT (the paper's Figure 9)."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

from msft.config.schema import Config
from msft.core.vocabulary import Snapshot
from msft.engine.torch_engine import TorchEngine
from msft.report.plots import figure
from msft.report.story import Story
from msft.study.draw import line
from msft.study.findings import Findings, Plot, Table
from msft.study.grid import Variant
from msft.study.observe import observe
from msft.study.overrides import search, with_method
from msft.study.reading import Evidence

COUNT = 32
"""Number of training examples per sub-dataset whose gradients are computed."""
Curve = list[tuple[float, float]]
"""(epoch, value) along the final path."""


def variants(config: Config) -> tuple[Variant, ...]:
    return Variant(name="sft", config=with_method(config, "sft")), Variant(name="msft", config=search(config))


def find(evidence: Evidence) -> Findings:
    names = list(evidence.runs)
    losses = {name: [_losses(story) for story in evidence.runs[name].values()] for name in names}
    conflicts: dict[str, list[Curve]] = {name: [] for name in names}
    for name in names:
        for seed, story in evidence.runs[name].items():
            trunk = {point.snapshot for point in story.trunk}
            seen = observe(evidence.job(name, seed), story, _conflict, trunk.__contains__)
            conflicts[name].append([(p.epoch, seen[p.snapshot]) for p in story.trunk])
    ends = {name: mean(curve[-1][1] for curve in losses[name]) for name in names}
    along = {name: mean(value for curve in conflicts[name] for _, value in curve[1:]) for name in names}
    said = [
        "Final training loss, nats per token: " + ", ".join(f"{n} {ends[n]:.3f}" for n in names)
        + " (in the paper, mSFT's is lower). The loss of mSFT is that of the sub-datasets active at the end, so it is "
        "of another mixture.",
        "Mean cosine between two sub-datasets' gradients along the trajectory: "
        + ", ".join(f"{n} {along[n]:.3f}" for n in names) + ".",
    ]  # fmt: skip
    rows = [
        (name, seed, loss[-1][1], mean(v for _, v in conflict[1:]), conflict[0][1], conflict[-1][1])
        for name in names
        for seed, loss, conflict in zip(evidence.runs[name], losses[name], conflicts[name], strict=True)
    ]
    table = Table(
        title="Loss and conflict",
        columns=("run", "seed", "final training loss", "mean cosine", "cosine, base model", "cosine, end"),
        rows=rows,
    )
    plots = [
        Plot(title="Training loss", figure=_drawn(losses, "training loss, nats per token"),
             caption="The final path, one line per method and seed: the mean of each segment, at its end."),
        Plot(title="Gradient conflict", figure=_drawn(conflicts, "mean cosine of two sub-datasets' gradients"),
             caption=f"All pairs of sub-datasets, including excluded ones; at most {COUNT} training examples of each."),
    ]  # fmt: skip
    return Findings(title="Training loss and gradient conflict", said=said, plots=plots, tables=[table])


def _losses(story: Story) -> Curve:
    recorded = {number: outcome.train_loss for number, (_, outcome) in enumerate(story.segments, 1)}
    return [(p.epoch, loss) for p in story.trunk if (loss := recorded.get(p.snapshot)) is not None]


def _conflict(engine: TorchEngine, snapshot: Snapshot) -> float:
    return mean(engine.conflict(snapshot, COUNT).values() or [1.0])


def _drawn(curves: dict[str, list[Curve]], y: str) -> dict[str, object]:
    traces = [
        line(name, [e for e, _ in curve], [v for _, v in curve], number, legendgroup=name, showlegend=first)
        for number, name in enumerate(curves)
        for first, curve in _marked(curves[name])
    ]
    return figure(traces, height=340, x="epoch along the final path", y=y, legend=True)


def _marked(curves: Sequence[Curve]) -> list[tuple[bool, Curve]]:
    """Each curve, and whether it is the first: only the first has an entry in the legend."""
    return [(number == 0, curve) for number, curve in enumerate(curves)]
