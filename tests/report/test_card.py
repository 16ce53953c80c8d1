"""The model card: the hub reads its front matter, nothing in a name becomes mark-up, no path of the machine shows."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from run_folders import NAMES, make_run, with_header

from msft.record.journal import canonical, digest
from msft.report.card import FILE, Form, card, write_card
from msft.report.intervals import of_items
from msft.report.page import page, write_page
from msft.report.story import Story, read_story

NASTY = ("<img src=x onerror=alert(1)>", "a|b | c", "[x](javascript:alert(1))", "`tick` *star* _under_ $m$ &lt;")
MODEL = Form(kind="model")


def config_of(**datasets: dict[str, Any]) -> dict[str, Any]:
    flat = {f"datasets.{name}.{key}": value for name, keys in datasets.items() for key, value in keys.items()}
    return flat | {f"datasets.{name}.id": name for name in datasets} | {"method.name": "msft", "training.batch_size": 8}


@pytest.fixture
def story(tmp_path: Path) -> Story:
    config = config_of(
        arc={"path": "/home/someone/secret/arc.jsonl", "license": "cc-by-4.0"},
        gsm8k={"path": "openai/gsm8k", "template.prompt": "Question: {question}\n```\nAnswer:"},
        piqa={"path": "reasoning_gym:chain_sum"},
    )
    config["model.license"] = "apache-2.0"
    run = make_run(tmp_path / "run", items=20)
    return read_story(
        with_header(run, config=config, model={"name": "HuggingFaceTB/SmolLM2-135M", "parameters": 9, "bytes": 36})
    )


def test_the_hub_reads_the_front_matter(story: Story) -> None:
    data = ModelCard(card(story, MODEL)).data
    assert data.base_model == "HuggingFaceTB/SmolLM2-135M"
    assert data.library_name == "transformers"
    assert data.license == "apache-2.0"
    assert data.datasets == ["openai/gsm8k"]
    assert data.pipeline_tag == "text-generation"
    assert "msft" in data.tags
    assert ModelCard(card(story, Form(kind="adapter"))).data.library_name == "peft"


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("https://me:word@host/a/b.jsonl?X-Amz-Signature=abc#top", "https://host/a/b.jsonl"),
        ("s3://bucket/a.jsonl", "s3://bucket/a.jsonl"), ("file:///home/me/b.jsonl", "b.jsonl"),
        ("/home/me/2026-11-28T10:00/b.jsonl", "b.jsonl"), ("reasoning_gym:chain_sum", "reasoning_gym:chain_sum"),
        ("hf://datasets/me/it/b.jsonl", "hf://datasets/me/it/b.jsonl"), ("openai/gsm8k", "openai/gsm8k"),
    ],
)  # fmt: skip
def test_no_folder_password_or_signature_is_published(tmp_path: Path, path: str, shown: str) -> None:
    run = make_run(tmp_path / "run", items=20)
    with_header(run, config=config_of(arc={"path": path}, gsm8k={"path": "x"}, piqa={"path": "x"}))
    lines = card(read_story(run), MODEL).replace("\\", "").splitlines()
    assert f"| arc | {shown} |" in "\n".join(lines)
    write_page(run, tmp_path / "page.html")
    written = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "datasets.arc.path" in written and "Signature" not in written and "me:word" not in written


def test_it_says_what_happened_what_it_scores_and_where_the_data_come_from(story: Story) -> None:
    text = card(story, MODEL)
    plain = text.replace("\\", "")
    for rollout in story.rollouts:
        assert f"- Roll-out {rollout.number}, epoch" in text
    assert "on the test split, which was scored once" in text
    assert "95 % interval" in text
    assert re.search(r"\| arc \| accuracy \| [\d.]+ \([\d.]+ to [\d.]+\) \| [\d.]+ \([\d.]+ to [\d.]+\) \|", text)
    assert "| arc | arc.jsonl | 20 |" in plain
    assert "| cc-by-4.0 |" in plain
    assert "| gsm8k | openai/gsm8k |" in plain
    assert "| piqa | reasoning_gym:chain_sum |" in plain
    assert re.search(r"\| boolq \| not known \|.*\| not known \|", text)
    assert "FLOPs" in text
    assert "training.batch_size | 8" in plain
    assert "gsm8k: Question: {question}" in text
    assert "secret" not in text
    assert "````text" in text, "a fence within the prompt must not end the block"


def test_the_model_is_asked_in_the_form_of_its_training(story: Story, tmp_path: Path) -> None:
    asked = "tokenizer('Question: {question}\\n```\\nAnswer:', return_tensors=\"pt\")"
    for chat in (False, True):
        assert asked in card(story, Form(kind="model", chat=chat))
    plain = read_story(with_header(make_run(tmp_path / "plain"), config=config_of(arc={"path": "/x/arc.jsonl"})))
    assert "Who are you?" in card(plain, Form(kind="model", chat=True))
    assert "Once upon a time" in card(plain, Form(kind="model"))


def test_no_name_becomes_markup(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", names=NASTY)
    config = config_of(**{name: {"path": f"/x/{name}.jsonl", "license": "<b>"} for name in NASTY})
    with_header(run, config=config, model={"name": "/x/<script>alert(1)</script>", "parameters": 9, "bytes": 36})
    text = card(read_story(run), MODEL)
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(text.split("\n---\n", 1)[1])
    assert set(re.findall(r"<([a-z0-9]+)", html)) <= {
        "h1", "h2", "p", "ul", "li", "table", "thead", "tbody", "tr", "th", "td", "pre", "code", "a", "br",
    }  # fmt: skip
    assert re.findall(r'href="([^"]*)"', html) == ["https://arxiv.org/abs/2603.21606"]
    for table in re.findall(r"<table>.*?</table>", html, re.DOTALL):
        head, *rows = [len(re.findall(r"<t[hd][ >]", row)) for row in re.findall(r"<tr>.*?</tr>", table, re.DOTALL)]
        assert set(rows) == {head}, "a name opened a column"
    shown = re.sub(r"<[^>]+>", "", html).replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    for name in NASTY:
        assert name in shown


def test_a_run_without_a_test_split_shows_validation_alone(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    lines = run.journal.read_text().splitlines()
    record = json.loads(lines[-1])
    del record["sha"]
    record["body"]["test"] = None
    record["sha"] = digest(canonical(record))
    run.journal.write_text("\n".join([*lines[:-1], canonical(record)]) + "\n")
    folder = tmp_path / "final"
    folder.mkdir()
    write_card(run, folder)
    text = (folder / FILE).read_text()
    assert "On the test split" not in text
    for name in NAMES:
        assert f"| {name} | accuracy |" in text


def test_intervals_of_log_probabilities_go_through_the_exponential() -> None:
    items = [-1.0, -1.5, -2.0, -1.2]
    report = 2.718281828 ** (sum(items) / 4)
    found = of_items(report, items)
    assert found is not None
    # Student, 3 degrees of freedom; the standard deviation of the items over the root of their number.
    half = 3.182446 * report * 0.4349 / 2
    assert found == pytest.approx((report - half, report + half), abs=1e-3)
    assert of_items(0.5, [0.5]) is None


def test_a_model_of_all_rows_was_trained_on_the_held_out_ones_too(tmp_path: Path) -> None:
    held = {"arc": 5, "gsm8k": 0, "piqa": 7, "boolq": 8}
    run = make_run(tmp_path / "run", "sft", horizon=2.0, held=held)
    story = read_story(run)
    assert story.refit and story.brief.distinct == (20, 24, 28, 32)
    text, shown = card(story, MODEL), page(story, {})
    assert "25, 5 of them held out in the search |" in text and "35, 7 of them held out in the search |" in text
    assert "| gsm8k | not known | 24 |" in text
    assert "<dd>124, 20 of them held out in the search</dd>" in shown
    before = read_story(make_run(tmp_path / "cut", "sft", horizon=2.0, held=held, stop_after=2))
    assert "<dd>104</dd>" in page(before, {}), "the search goes on: it does not train them"
    member = {"train": 12, "taken": 18, "validation": 5, "test": 0}
    grouped = with_header(run, groups={"arc": {"easy": member, "hard": member}})
    assert "| easy | not known | 12, each 1.5 times per epoch, and the rows held out in the search | 5 |" in card(
        read_story(grouped), MODEL
    )
