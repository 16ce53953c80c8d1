"""The page's style sheet and its script. Nothing here depends on a run."""

from __future__ import annotations

STYLE = """
:root { --paper: #fbfbfa; --card: #ffffff; --ink: #1d2127; --soft: #636b76; --rule: #e2e4e8; --accent: #2f6fae;
  --gain: #1b6ca8; --loss: #b04a00; --mark: #d9a400; color-scheme: light dark; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171b; --card: #1b1f25; --ink: #e4e7eb; --soft: #98a1ad;
  --rule: #2d333b; --accent: #7db4e6; --gain: #6fb4ea; --loss: #f0a05a; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .35rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 1.9rem 0 .5rem; }
h3 { font-size: .9rem; font-weight: 600; margin: 0 0 .25rem; overflow-wrap: anywhere; }
p, li { max-width: 56rem; overflow-wrap: anywhere; }
.lead { font-size: 1.05rem; font-weight: 600; margin: .6rem 0; }
.soft, figcaption { color: var(--soft); font-size: .87rem; }
.card { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: .9rem 1rem; margin: 0;
  min-width: 0; position: relative; }
.facts { display: flex; flex-wrap: wrap; gap: 0 1.1rem; margin: .6rem 0 .9rem; font-size: .87rem; }
.facts div { display: flex; gap: .35rem; min-width: 0; } .facts dt { color: var(--soft); white-space: nowrap; }
.facts dd { margin: 0; overflow-wrap: anywhere; min-width: 0; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(19rem, 100%), 1fr)); gap: .9rem; }
.wide { overflow-x: auto; }
.steps { display: grid; grid-template-columns: minmax(0, max-content) minmax(0, 1fr); gap: .4rem 1rem; margin: 1rem 0;
  align-items: baseline; }
.steps p { margin: 0; }
.steps pre { margin: 0; padding: .35rem .7rem; overflow-x: auto; background: var(--card); border: 1px solid var(--rule);
  border-radius: 6px; font-size: .82rem; user-select: all; }
@media (max-width: 640px) { .steps { grid-template-columns: minmax(0, 1fr); } .steps pre { margin-bottom: .5rem; } }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .38rem .7rem .38rem 0; border-bottom: 1px solid var(--rule); vertical-align: top; }
th { color: var(--soft); font-size: .8rem; font-weight: 600; }
.scores th, .scores td { text-align: right; white-space: nowrap; }
.scores th:first-child, .scores .word { text-align: left; white-space: normal; }
.scores tbody th { min-width: 8.5rem; color: inherit; font: inherit; overflow-wrap: anywhere; }
.pairs th, .pairs td { overflow-wrap: anywhere; }
.pairs th { width: 30%; font-weight: 400; font-size: inherit; }
.scores tr.average td, .scores tr.average th { font-weight: 650; border-bottom: 0; }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; font-size: .87rem; }
a { color: var(--accent); }
.wary { border-left: 4px solid var(--mark); } .wary ul { margin: 0; padding-left: 1.1rem; }
.stack { display: grid; gap: .9rem; margin-top: .9rem; }
section > figure.card + figure.card, fieldset + figure.card, .soft + figure.card, figure.card + .grid {
  margin-top: .9rem; }
.save { position: absolute; right: .6rem; top: .5rem; z-index: 1; font-size: .72rem; padding: 0 .5rem; opacity: .55; }
.save:hover, .save:focus { opacity: 1; }
.numbered { list-style: none; padding: 0; } .numbered li { margin: .25rem 0; } .number { font-size: 1.1rem; }
.numbered details { margin: 0; }
figcaption { padding-top: .5rem; }
fieldset { border: 0; padding: 0; margin: .9rem 0 .6rem; display: flex; flex-wrap: wrap; gap: .35rem .5rem;
  align-items: center; font-size: .87rem; min-width: 0; }
legend { float: left; color: var(--soft); margin-right: .4rem; padding: 0; }
.axis label { margin-right: .8rem; } .axis input { margin: 0 .4rem 0 0; }
.chip { display: inline-flex; align-items: center; gap: .4rem; border: 1px solid var(--rule); border-radius: 999px;
  padding: .1rem .65rem .1rem .45rem; background: var(--card); max-width: 100%; overflow-wrap: anywhere;
  cursor: pointer; }
.chip input { margin: 0; accent-color: var(--accent); } .swatch { width: 1.3rem; flex: none; }
.chip:has(input:not(:checked)) { color: var(--soft); }
button { font: inherit; color: var(--accent); background: none; border: 1px solid var(--rule); border-radius: 999px;
  padding: .1rem .7rem; cursor: pointer; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
[hidden] { display: none; }
.said { white-space: pre-wrap; } #samples .card { margin: .4rem 0 .9rem; } #samples h3 { margin-top: .9rem; }
#samples th { width: 22%; vertical-align: top; }
.scores.dense td, .scores.dense tbody th { padding-top: .1rem; padding-bottom: .1rem; }
.scores thead th { white-space: normal; }
@media (min-width: 1000px) { .scores.dense tbody th { min-width: 13rem; } }
.scores .extra { white-space: nowrap; } .scores svg { display: block; }
.narrow { display: none; color: var(--soft); font-weight: 400; }
.scores svg text { fill: var(--soft); font-size: 11px; }
.scores .zero { stroke: var(--soft); stroke-width: 1; stroke-dasharray: 2 2; }
.scores .span { stroke: currentColor; stroke-width: 1.6; } .scores circle { fill: currentColor; }
.scores svg { color: var(--soft); } .scores svg.up { color: var(--gain); } .scores svg.down { color: var(--loss); }
.up { color: var(--gain); } .down { color: var(--loss); }
details { margin-top: .8rem; } summary { cursor: pointer; color: var(--accent); }
.plot { min-height: 90px; }
.plot text { fill: var(--ink) !important; }
.plot .hoverlayer text { fill: #fff !important; }
.plot .gridlayer path, .plot .zerolinelayer path { stroke: var(--rule) !important; }
.plot .modebar { display: none; }
@media (max-width: 480px) { main { padding: 1.2rem .8rem 3rem; } .card { padding: .7rem; } h1 { font-size: 1.3rem; }
  table { font-size: .82rem; } th, td { padding-right: .4rem; } .scores tbody th { min-width: 5.5rem; }
  .extra { display: none; } .scores .narrow { display: block; } }
@page { margin: 1.4cm; }
@media print { :root { --paper: #fff; --card: #fff; --ink: #000; --soft: #444; --rule: #ccc; }
  main { max-width: none; padding: 0; } nav, .toggles button, .axis, .chip input { display: none; }
  .card, tr, li { break-inside: avoid; } h2 { break-after: avoid; } }
"""

SCRIPT = """
const {figures, unit} = JSON.parse(document.getElementById("figures").textContent);
const config = {responsive: true, displayModeBar: false};
const all = selector => [...document.querySelectorAll(selector)];
const hidden = new Set();
let view = 0, focus = null;
let reached = {};  // by figure: line, point and name of the line that the arrow keys selected

const hover = figure => `%{fullData.name}: %{y:${figure.format ?? ".1f"}}<br>epoch %{customdata[0]:.2~f}, ` +
  `%{customdata[1]:.4~g} ${unit} spent, roll-out %{customdata[2]}<extra></extra>`;
const opacity = trace => (trace.opacity ?? 1) * (focus === null || trace.meta === undefined || trace.meta === focus
  ? 1 : 0.12);
const traces = figure => (figure.views ? figure.views[view] : figure.data).map(trace => trace.customdata
  ? {...trace, x: trace.customdata.map(row => row && row[view]), hovertemplate: hover(figure), opacity: opacity(trace),
     visible: !hidden.has(trace.meta)}
  : trace);

function layout(figure) {
  const made = structuredClone(figure.layout);
  made.shapes = (figure.uprights ?? []).map(line => ({type: "line", x0: line.at[view], x1: line.at[view],
    yref: "paper", y0: 0, y1: 1, layer: "below", line: {color: line.colour, width: 1.5, dash: line.dash}}));
  made.annotations = (figure.marks?.[view] ?? []).map(([x, text]) =>
    ({x, y: -1, text, showarrow: false, font: {size: 16}}));
  if (figure.views || figure.follows) made.xaxis.title.text = ["epoch", "compute spent, " + unit][view];
  return made;
}

const draw = id => Plotly.react(id, traces(figures[id]), layout(figures[id]), config);
const place = id => document.getElementById(id);
for (const id in figures) place(id).style.minHeight = figures[id].layout.height + "px";  // no layout shift

// While a search runs, the page is rewritten and reloaded as a whole; the reader's choices are kept across reloads.
const memory = "msft " + location.pathname, stops = "a, input, button, summary, .plot";
const named = part => part.id || part.textContent || part.closest("label").textContent;
// The section at the top of the window and its offset: the content above it may grow between reloads.
const topOf = part => part.getBoundingClientRect().top;
function reading() {
  const part = scrollY > 0 && all("section").findLast(part => topOf(part) <= 0);
  return part ? [part.id, topOf(part)] : null;
}
addEventListener("pagehide", () => {
  const kept = {view, reached, off: all("[data-toggle]:not(:checked)").map(named), at: reading(),
    open: all("details").filter(part => part.open).map(part => part.id),
    focus: document.activeElement.matches(stops) ? named(document.activeElement) : null};
  try { sessionStorage.setItem(memory, JSON.stringify(kept)); } catch {}  // a browser may refuse storage
});
function restore() {
  let kept = null;
  try { kept = JSON.parse(sessionStorage.getItem(memory)); } catch {}
  if (!kept) return;
  history.scrollRestoration = "manual";
  ({view, reached} = kept);
  all("input[name=view]").forEach(radio => { radio.checked = +radio.value === view; });
  all("[data-toggle]").forEach(box => { box.checked = !kept.off.includes(named(box)); });
  all("details").forEach(part => { part.open = kept.open.includes(part.id); });
  hide();
  all(stops).find(part => named(part) === kept.focus)?.focus({preventScroll: true});
  const part = kept.at && place(kept.at[0]);
  if (part) scrollBy(0, topOf(part) - kept.at[1]);
}
function hide() {
  hidden.clear();
  all("[data-toggle]:not(:checked)").forEach(box => hidden.add(+box.dataset.toggle));
}
restore();

// Figures are drawn one by one, the visible ones first: the reader can scroll and click meanwhile.
const seen = id => { const box = place(id).getBoundingClientRect(); return box.bottom > 0 && box.top < innerHeight; };
const waiting = Object.keys(figures).map(id => [!seen(id), id]).sort(([a], [b]) => a - b).map(([, id]) => id);
function next() { if (waiting.length) { draw(waiting.shift()); setTimeout(next); } }
next();
const following = () => Object.keys(figures).filter(id => (figures[id].views || figures[id].follows) &&
  !waiting.includes(id)).forEach(draw);

all("input[name=view]").forEach(radio => radio.addEventListener("change", () => { view = +radio.value; following(); }));

function toggled() {
  hide();
  draw("together");
}
const point = task => { if (focus !== task) { focus = task; draw("together"); } };
for (const box of all("[data-toggle]")) {
  const chip = box.closest("label"), task = +box.dataset.toggle;
  box.addEventListener("change", toggled);
  for (const [event, on] of [["mouseenter", task], ["mouseleave", null]])
    chip.addEventListener(event, () => point(on));
  box.addEventListener("focus", () => { if (box.matches(":focus-visible")) point(task); });
  box.addEventListener("blur", () => point(null));
}
for (const [id, on] of [["all", true], ["none", false]])
  place(id)?.addEventListener("click", () => {
    all("[data-toggle]").forEach(box => { box.checked = on; });
    toggled();
  });

// The arrow keys move through a figure's points: left and right along a line, up and down between lines.
for (const plot of all(".plot")) {
  plot.addEventListener("keydown", event => {
    let [line, at, name] = reached[plot.id] ?? [0, -1];
    const step = {ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0]}[event.key];
    if (!step) return;
    event.preventDefault();
    const cells = plot.data.findIndex(trace => trace.type === "heatmap" && trace.hoverinfo !== "skip");
    if (cells >= 0) return moved(plot, cells, step);
    const lines = plot.data.map((_, i) => i).filter(i => plot.data[i].visible !== false &&
      plot.data[i].hoverinfo !== "skip");
    if (!lines.length) return;
    // A reload may have inserted discarded lines before it: find the line by name.
    if (name && plot.data[lines[line]]?.name !== name)
      line = Math.max(0, lines.findIndex(i => plot.data[i].name === name));
    if (step[0]) [line, at] = [(line + step[0] + lines.length) % lines.length, 0];
    const trace = plot.data[lines[line %= lines.length]], count = trace.y.length;
    do at = Math.max(0, Math.min(count - 1, at + step[1]));
    while (trace.y[at] === null && at > 0 && at < count - 1 && step[1]);
    reached[plot.id] = [line, at, trace.name];
    Plotly.Fx.hover(plot, [{curveNumber: lines[line], pointNumber: at}]);
    said(plot);
  });
}

// In a heat map they move from cell to cell, over those without a value.
function moved(plot, curve, [down, right]) {
  const {x: edges, z} = plot.data[curve], [row, column] = reached[plot.id] ?? [0, -1];
  let [y, x] = [row + down, column + right];
  while (z[y] && x >= 0 && x < z[y].length && z[y][x] === null) [y, x] = [y + down, x + right];
  if (!z[y] || !(x >= 0 && x < z[y].length)) return;
  reached[plot.id] = [y, x];
  Plotly.Fx.hover(plot, {xval: (edges[x] + edges[x + 1]) / 2, yval: y}, "xy");
  said(plot);
}
const said = plot => setTimeout(() => {  // plotly.js shows at most one label in 50 ms
  place("said").textContent = all("#" + plot.id + " .hoverlayer text").map(t => t.textContent).join(" ");
}, 100);

// A figure as a file, with dark text on white whatever the page's colours are.
for (const button of all("[data-save]")) button.addEventListener("click", async () => {
  const plot = place(button.dataset.save), {width, height} = plot.getBoundingClientRect();
  const layout = {...plot.layout, paper_bgcolor: "#fff", plot_bgcolor: "#fff"};
  const picture = new Image();  // as data: the page's policy allows no other source
  picture.src = await Plotly.toImage({data: plot.data, layout}, {format: "svg", width, height});
  await picture.decode();
  const canvas = Object.assign(document.createElement("canvas"), {width: 2 * width, height: 2 * height});
  canvas.getContext("2d").drawImage(picture, 0, 0, 2 * width, 2 * height);
  const file = {href: canvas.toDataURL("image/png"), download: button.dataset.save + ".png"};
  Object.assign(document.createElement("a"), file).click();
});

const fit = () => all(".plot").filter(plot => plot.offsetParent && plot.data)
  .forEach(plot => Plotly.Plots.resize(plot));
all("details").forEach(part => part.addEventListener("toggle", fit));  // what was folded has a width now
addEventListener("beforeprint", () => { while (waiting.length) draw(waiting.shift()); fit(); });
addEventListener("afterprint", fit);
"""
