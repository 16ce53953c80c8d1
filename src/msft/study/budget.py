"""`msft study budget`: score and compute over the roll-out's budget C (the paper's Figure 6)."""

from __future__ import annotations

from msft.config.schema import Config
from msft.study.draw import against, intervals
from msft.study.findings import Findings, Plot, Table
from msft.study.grid import Variant
from msft.study.overrides import horizon, search, with_method
from msft.study.reading import Evidence, answer_score, over_seeds, total_flops

SHARES = (0.125, 0.25, 0.5, 1.0)
"""Budgets, as shares of `max_epochs`."""


def variants(config: Config) -> tuple[Variant, ...]:
    end = horizon(config)
    budgets = [end * share for share in SHARES]
    return (
        Variant(name="sft", config=with_method(config, "sft")),
        *(Variant(name=f"C_{budget:g}", config=search(config, budget=budget)) for budget in budgets),
    )


def find(evidence: Evidence) -> Findings:
    runs = evidence.runs
    budgets = {name: float(name.removeprefix("C_")) for name in runs if name != "sft"}
    scores = {name: over_seeds(runs[name], answer_score) for name in runs}
    relative = {name: over_seeds(runs[name], total_flops) for name in runs}
    base = relative["sft"].mean
    excluding = {n: over_seeds(runs[n], lambda story: sum(bool(r.excluded) for r in story.rollouts)) for n in runs}
    rows = [
        (name, budgets.get(name), scores[name].mean, scores[name].low, scores[name].high, relative[name].mean / base,
         excluding[name].mean)
        for name in runs
    ]  # fmt: skip
    table = Table(
        title="Score and compute",
        columns=("run", "C, epochs", "final model, %", "low", "high", "FLOPs against SFT", "exclusions"),
        rows=rows,
    )
    spread = [scores[name].mean for name in budgets]
    said = [
        f"Over all C, the macro-average is between {min(spread):.2f} % and {max(spread):.2f} %; SFT has "
        f"{scores['sft'].mean:.2f} %. Compute is between {min(relative[n].mean for n in budgets) / base:.2f} and "
        f"{max(relative[n].mean for n in budgets) / base:.2f} times SFT's."
    ]
    x = list(budgets.values())
    plots = [
        Plot(title="Score over the budget", caption="Mean over seeds with its 95 % interval.",
             figure=against([intervals("mSFT", x, [scores[n] for n in budgets], 0)], x, scores["sft"].mean, "SFT",
                            x_name="budget C, epochs", y="macro-average of the final model, %")),
        Plot(title="Compute over the budget", caption="Training, scoring and probes together.",
             figure=against([intervals("mSFT", x, [relative[n] for n in budgets], 0, scale=1 / base)], x, 1.0, "SFT",
                            x_name="budget C, epochs", y="FLOPs against SFT")),
    ]  # fmt: skip
    return Findings(title="The budget of a roll-out", said=said, plots=plots, tables=[table])
