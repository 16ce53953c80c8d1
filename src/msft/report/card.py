"""The model card: README.md of `final/` and of every export, made from a run folder's records only. No torch.

Its front matter is for the Hugging Face hub, the rest for people. It contains no times, so that a resumed run has the
same card as an uninterrupted one, and no paths of the training machine: local files appear by name only. Names are
escaped wherever they appear.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path, PurePath
from typing import Any, Literal

from huggingface_hub import ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from msft.record.run_folder import RunFolder
from msft.report.base_and_answer import compare
from msft.report.cost import flops
from msft.report.intervals import wilson
from msft.report.load_snippets import ASK, ASK_IN_TURNS, LOAD_MODEL, NOT_BY_AUTO, is_dora, load_adapter, quantized_in
from msft.report.story import Story, read_story
from msft.report.table import columns, costs, counted, notes, shown_columns
from msft.report.verdict_views import sentences
from msft.report.words import clean, decisions, measure_label, percent, without_secrets

FILE = "README.md"
UNKNOWN = "not known"
SHARES = {"choice", "exact_match", "generate"}
"""Measures that are the share of items answered correctly."""
SETTINGS = ("method.", "training.", "data.", "peft.", "model.quantize")
_MARKDOWN = re.compile(r"([\\`*_\[\]|~#!$])")
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """The form in which a model is exported."""

    kind: Literal["model", "adapter"]
    dtype: str = "float32"
    hub_id: str | None = None
    """Its name on the hub; None: the card refers to the folder that contains it."""
    chat: bool = False
    """The tokenizer has a chat template."""
    base: str | None = None
    """The base that an adapter names."""


def write_card(run: RunFolder, folder: Path) -> None:
    """Writes the card of a finished run into the folder, still being written, of its model. Raises RunError."""
    (folder / FILE).write_text(card(read_story(run), form_of(folder)), encoding="utf-8")


def form_of(folder: Path, *, dtype: str = "float32", hub_id: str | None = None) -> Form:
    """The form of the model in a Hugging Face folder, recognised by its files."""
    adapter = folder / "adapter_config.json"
    base = json.loads(adapter.read_text(encoding="utf-8"))["base_model_name_or_path"] if adapter.exists() else None
    return Form(
        kind="adapter" if adapter.exists() else "model",
        dtype=dtype,
        hub_id=hub_id,
        chat=(folder / "chat_template.jinja").exists(),
        base=base,
    )


def card(story: Story, form: Form) -> str:
    """The card as Markdown."""
    quantized, templates = quantized_in(story), _templates(story)
    base, method = _base(story, form), clean(str(story.header.get("method", "")))
    title = f"{_md(base.rpartition('/')[2])}, fine-tuned with {_md(method)}"
    made = f"by [msft](https://arxiv.org/abs/2603.21606) {_md(str(story.header.get('msft', '')))}"
    what = "An adapter of" if form.kind == "adapter" else "A fine-tuned version of"
    parts = [
        f"---\n{front_matter(story, form).strip()}\n---",
        f"# {title}",
        *(["\n".join(map(_md, said))] if (said := sentences(story)) else []),
        f"{what} {_md(base)}, trained on a mixture of {counted(story)} with the method {_md(method)} "
        f"{made}. The weights are in {form.dtype}.",
        "## How to load it",
        _snippet(form, quantized, templates),
        *([f"{NOT_BY_AUTO}."] if form.kind == "adapter" and is_dora(story) else []),
        *_prompts(templates),
        "## Scores",
        *([_of_which_base(form, quantized)] if quantized else []),
        *_scores(story),
        "## What happened in training",
        _list(_md(line) for line in decisions(story)),
        "## Data",
        _data(story),
        "## Cost",
        _list(f"{name}: {_md(value)}" for name, value in _costs(story)),
        "## Settings",
        _table(["setting", "value"], [[_md(key), _md(_plain(value))] for key, value in _settings(story)]),
        "## Versions",
        _md(", ".join(_versions(story))),
    ]
    return "\n\n".join(parts) + "\n"


def front_matter(story: Story, form: Form) -> str:
    """YAML for the hub. It contains hub names only, never local paths, which the hub could not resolve."""
    base, licence = _base(story, form), story.config.get("model.license")
    sources = [str(dataset.get("path", "")) for dataset in _datasets(story).values()]
    data = ModelCardData(
        base_model=base if on_hub(_name(story, form)) else None,
        library_name="peft" if form.kind == "adapter" else "transformers",
        license=licence if isinstance(licence, str) and _LICENCE.fullmatch(licence) else None,
        datasets=list(dict.fromkeys(source for source in sources if on_hub(source))) or None,
        pipeline_tag="text-generation",
        tags=["msft", *(["lora"] if form.kind == "adapter" else [])],
    )
    return data.to_yaml()


def _scores(story: Story) -> Iterable[str]:
    """Scores on the test split and on the validation split."""
    comparison = compare(story)
    if comparison.split == "test":
        names, rows = shown_columns(story, comparison)
        yield "Scores in % of the base model and of this model on the test split, which was scored once:"
        yield _table(["measure" if i == 1 else name for i, name in enumerate(names)], _escaped(rows))
        yield "\n".join(map(_md, notes(comparison)))
    yield (
        "Scores in % on the validation split; shares of right answers with 95 % intervals from sampling the items. "
        + (
            "They are of the model that the search chose. This model followed it on all rows, the validation rows "
            "included, so it has no validation scores."
            if story.refit
            else "The search used these scores to choose the final model: expect lower scores on new data."
        )
    )
    counts = dict(zip(story.tasks, story.brief.validation_sizes, strict=True))
    counts |= {} if story.aggregate is None else {story.aggregate: story.header["aggregate"]}
    answer = story.best_known.reports
    rows = [
        [
            task,
            measure_label(story, task),
            *(_with_interval(story, task, reports.get(task), counts[task]) for reports in (story.base.reports, answer)),
            str(counts[task]),
        ]
        for task in story.names
    ]
    head = columns(story, comparison)
    yield _table(["sub-dataset", "measure", head[2], "search" if story.refit else head[3], "items"], _escaped(rows))


def _with_interval(story: Story, task: str, report: float | None, items: int) -> str:
    if report is None or not math.isfinite(report) or story.measure(task).get("name") not in SHARES or not items:
        return percent(report)
    low, high = wilson(report, items)
    return f"{percent(report)} ({percent(low)} to {percent(high)})"


def _data(story: Story) -> str:
    datasets = _datasets(story)
    rows = []
    brief = story.brief
    counts = {
        task: (_trained_on(size + held, taken, held), items)
        for task, size, taken, items, held in zip(
            story.tasks, brief.distinct, story.sizes, brief.validation_sizes, story.held, strict=True
        )
    } | {
        entry: (_trained_on(numbers["train"], numbers["taken"], None if story.refit else 0), numbers["validation"])
        for members in story.groups.values()
        for entry, numbers in members.items()
    }
    for task, (trained, items) in ((entry, counts[entry]) for entry in story.entries):
        # `split_by` makes sub-datasets <id>.<value>.
        owners = [name for name in datasets if task == name or task.startswith(f"{name}.")]
        given = datasets[max(owners, key=len)] if owners else {}
        source = str(given.get("path", ""))
        where = _origin(source)
        rows.append([task, where or UNKNOWN, trained, str(items), str(given.get("license") or UNKNOWN)])
    return _table(["sub-dataset", "from", "trained on", "validation items", "licence"], _escaped(rows))


def _trained_on(size: int, taken: int, held: int | None) -> str:
    """How many examples the final model was trained on. `held`: how many of them were held out in the search; None:
    these are not among them, and their number is not known."""
    often = "" if taken == size else f", each {taken / size:.3g} times per epoch"
    if held is None:
        return f"{size:,}{often}, and the rows held out in the search"
    return f"{size:,}{often}{f', {held:,} of them held out in the search' if held else ''}"


def _templates(story: Story) -> dict[str, str]:
    """The prompt templates of the configuration, by data set: the model works best with the prompts of its training."""
    found = {name: given.get("template.prompt") for name, given in _datasets(story).items()}
    return {name: _lines(template) for name, template in sorted(found.items()) if isinstance(template, str)}


def _prompts(templates: Mapping[str, str]) -> Iterable[str]:
    if templates:
        yield "Prompts in training, where `{...}` is a column of the data:"
        yield _fenced("\n\n".join(_lines(f"{name}: {template}") for name, template in templates.items()), "text")


def _of_which_base(form: Form, quantized: str) -> str:
    scored = f"The scores are of the adapter on the base in {quantized} (bitsandbytes)"
    if form.kind == "adapter":
        return f"{scored}, loaded as above."
    return f"{scored}. This model is the adapter merged into the base as it is stored, and was not scored."


def _snippet(form: Form, quantized: str | None, templates: Mapping[str, str]) -> str:
    """Loads the model, and asks it in the form of its training: by its first prompt template, if it has one."""
    place = f'"{form.hub_id}"' if form.hub_id else '"."  # the folder of this file'
    load = load_adapter(place, quantized) if form.kind == "adapter" else LOAD_MODEL.format(place=place)
    first = next(iter(templates.values()), "Once upon a time")
    ask = ASK_IN_TURNS if form.chat and not templates else ASK.format(prompt=repr(first))
    return _fenced(f"{load}\n{ask}".rstrip(), "python")


def _costs(story: Story) -> list[tuple[str, str]]:
    tokens = story.tokens
    counted = ", ".join(f"{n:,} {what}" for n, what in ((tokens.train, "trained"), (tokens.eval, "scored")) if n)
    without_clock = [(name, value) for name, value in costs(story) if name != "Time"]
    return [*without_clock, ("Tokens", counted)] if sum(flops(story).values()) else without_clock


def _settings(story: Story) -> list[tuple[str, Any]]:
    return [(key, value) for key, value in sorted(story.config.items()) if key.startswith(SETTINGS)]


def _versions(story: Story) -> Iterable[str]:
    header = story.with_changes
    environment = header.get("environment", {})
    named = {"msft": header.get("msft"), "python": environment.get("python"), **environment.get("libraries", {})}
    return (f"{name} {version}" for name, version in named.items() if version)


def _datasets(story: Story) -> dict[str, dict[str, Any]]:
    """The settings of each data set, by its id; an id may contain dots."""
    config = story.config
    ids = [str(value) for key, value in config.items() if key == f"datasets.{value}.id"]
    prefixes = {name: f"datasets.{name}." for name in ids}
    return {
        name: {key.removeprefix(prefix): value for key, value in config.items() if key.startswith(prefix)}
        for name, prefix in prefixes.items()
    }


def _name(story: Story, form: Form) -> str:
    return form.base or str(story.header.get("model", {}).get("name", ""))


def _base(story: Story, form: Form) -> str:
    """The base model's name on the hub, or the name of its folder."""
    name = _name(story, form)
    return name if on_hub(name) else PurePath(name).name


def _origin(path: str) -> str:
    """Where rows come from, as strangers may read it: no folder of the training machine, no password or signature."""
    if on_hub(path) or path.startswith("reasoning_gym:"):
        return path
    address = str(without_secrets(path))
    return address if "://" in address and not address.startswith("file:") else PurePath(path).name


def on_hub(name: str) -> bool:
    """Whether a name can be a hub name: paths of files and folders were made absolute when they were read."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return not name.startswith(".")


def _md(text: str) -> str:
    """Text escaped for Markdown, on one line: no name can become a link, a tag or a column."""
    one_line = " ".join(clean(" ".join(text.split())).split())
    return escape(_MARKDOWN.sub(r"\\\1", one_line), quote=False)


def _plain(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return ", ".join(map(str, value)) if isinstance(value, Sequence) and not isinstance(value, str) else str(value)


def _lines(text: str) -> str:
    """Remove control characters except line breaks."""
    return "\n".join(map(clean, text.splitlines()))


def _escaped(rows: Iterable[Sequence[str]]) -> list[list[str]]:
    return [[_md(cell) for cell in row] for row in rows]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _fenced(text: str, language: str) -> str:
    """A code block whose fence is longer than any fence in the text."""
    longest = max((len(found) for found in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"
