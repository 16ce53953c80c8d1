"""The page's style sheet and its script. Nothing here depends on a run."""

from __future__ import annotations

STYLE = """
:root { --paper: #fbfbfa; --card: #ffffff; --ink: #1d2127; --soft: #636b76; --rule: #e2e4e8; --accent: #2f6fae;
  --gain: #1f7a4d; --loss: #b3403a; color-scheme: light dark; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171b; --card: #1b1f25; --ink: #e4e7eb; --soft: #98a1ad;
  --rule: #2d333b; --accent: #7db4e6; --gain: #69c394; --loss: #e98984; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .35rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 2.4rem 0 .6rem; }
h3 { font-size: .9rem; font-weight: 600; margin: 0 0 .25rem; overflow-wrap: anywhere; }
p, li { max-width: 48rem; overflow-wrap: anywhere; }
.soft, figcaption { color: var(--soft); font-size: .87rem; }
.card { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: .9rem 1rem; margin: 0;
  min-width: 0; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .75rem; margin: 1.2rem 0; }
.facts dt { color: var(--soft); font-size: .8rem; } .facts dd { margin: 0; font-weight: 600; overflow-wrap: anywhere; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(19rem, 100%), 1fr)); gap: .9rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .38rem .7rem .38rem 0; border-bottom: 1px solid var(--rule); vertical-align: top; }
th { color: var(--soft); font-size: .8rem; font-weight: 600; }
.scores th:nth-child(n+3), .scores td:nth-child(n+3) { text-align: right; white-space: nowrap; }
.scores td:first-child { min-width: 8.5rem; }
.scores td:first-child, .pairs td { overflow-wrap: anywhere; }
.pairs td:first-child { color: var(--soft); width: 45%; }
tr.average td { font-weight: 650; border-bottom: 0; }
.up { color: var(--gain); } .down { color: var(--loss); }
details { margin-top: .8rem; } summary { cursor: pointer; color: var(--accent); }
.plot { min-height: 90px; }
.plot text { fill: var(--ink) !important; }
.plot .hoverlayer text { fill: #fff !important; }
.plot .gridlayer path, .plot .zerolinelayer path { stroke: var(--rule) !important; }
.plot .modebar { display: none; }
@media (max-width: 480px) { main { padding: 1.2rem .8rem 3rem; } .card { padding: .7rem; } h1 { font-size: 1.3rem; }
  table { font-size: .82rem; } th, td { padding-right: .4rem; } .scores td:first-child { min-width: 5.5rem; }
  .scores th { white-space: normal !important; } }
@media print { :root { --paper: #fff; --card: #fff; --ink: #000; --soft: #444; --rule: #ccc; } main { max-width: none; }
  .card, tr, li { break-inside: avoid; } h2 { break-after: avoid; } }
"""

SCRIPT = """
const figures = JSON.parse(document.getElementById("figures").textContent);
for (const [id, figure] of Object.entries(figures))
  Plotly.newPlot(id, figure.data, figure.layout, {responsive: true, displayModeBar: false});
const fit = () => document.querySelectorAll(".plot").forEach(plot => Plotly.Plots.resize(plot));
addEventListener("beforeprint", fit);
addEventListener("afterprint", fit);
"""
