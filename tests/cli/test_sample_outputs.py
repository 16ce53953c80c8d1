"""What base model and final model say to a few test prompts: the models' own words, on the page, and no score."""

from __future__ import annotations

import json
from html import escape
from typing import Any

import pytest
import torch
from job import make_job
from transformers import AutoModelForCausalLM, AutoTokenizer

from msft.cli.main import main
from msft.record.run_folder import RunFolder
from msft.report.outputs import _shown
from msft.report.page import page
from msft.report.story import read_story


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """One sub-dataset for each of exact_match, choice and loss; the last one has no test split."""
    place = tmp_path_factory.mktemp("samples")
    config = make_job(place, "sft", ", max_epochs: 4")
    choice = place / "choice.jsonl"
    choice.write_text(choice.read_text().replace('"yes"', '"<script>alert(1)</script>"'))
    assert main(["train", str(config)]) == 0
    return RunFolder(place / "run")


def samples(run: RunFolder) -> list[dict[str, Any]]:
    found = run.read_samples()["samples"]
    assert isinstance(found, list)
    return found


def test_three_items_of_each_sub_dataset_are_answered_by_both_models(run: RunFolder) -> None:
    assert [(each["task"], each["split"], each["item"]) for each in samples(run)] == [
        (task, split, item)
        for task, split in (("copy", "test"), ("yes no", "test"), ("double", "validation"))
        for item in (0, 2, 5)
    ]
    assert str(run.path) not in run.samples.read_text()


@pytest.mark.parametrize(("key", "model"), [("base", "model"), ("final", "run/final")])
def test_a_text_is_what_the_model_says(run: RunFolder, key: str, model: str) -> None:
    folder = run.path.parent / model
    loaded, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    for each in samples(run):
        if each["task"] == "yes no":
            continue
        ids = torch.tensor([tokenizer(each["prompt"], add_special_tokens=False)["input_ids"]])
        said = tokenizer.decode(loaded.generate(ids, max_new_tokens=96, do_sample=False)[0, ids.shape[1] :])
        output, ended = each[key]["output"], said.partition(tokenizer.eos_token)[0]
        assert ended.startswith(output)
        assert output == ended or len(output) >= 2 * len(each["reference"])


@pytest.mark.parametrize(("key", "which"), [("base", "base"), ("final", "answer")])
def test_an_output_is_right_where_the_score_of_its_item_says_so(run: RunFolder, key: str, which: str) -> None:
    outcome = read_story(run).test[which]
    assert outcome.items is not None
    for each in samples(run):
        if each["split"] == "test":
            right = outcome.items[each["task"]][each["item"]] == 1.0
            assert (each[key]["output"] == each["reference"]) is right, each
            probability = each[key]["probability"]
            assert (probability is None) is (each["task"] == "copy")
            assert probability is None or 0.5 <= probability <= 1.0  # the most likely of two options


def test_the_page_shows_them_folded_and_as_text(run: RunFolder) -> None:
    shown = page(read_story(run), {}).partition('<section id="part-outputs">')[2].partition("</section>")[0]
    assert '<details id="samples"><summary>9 prompts' in shown
    assert "<script>" not in shown and "&lt;script&gt;alert(1)&lt;/script&gt;" in shown
    for each in samples(run):
        assert f">{escape(each['prompt']).replace(chr(10), '<br>')}</span>" in shown
    assert shown.count("final model (right") + shown.count("final model (wrong") == 6


def test_a_tab_and_what_joins_letters_stay_and_control_characters_go() -> None:
    """Without them, code and Persian are other texts."""
    said = _shown("if x:\n\treturn\t0\u200c\u200d\x1b[2J\u202e<b>")
    assert said == '<span class="said">if x:<br>\treturn\t0\u200c\u200d[2J&lt;b&gt;</span>'


def test_without_a_whole_file_of_this_run_nothing_is_shown_and_a_resumed_run_makes_it_again(run: RunFolder) -> None:
    whole = run.samples.read_bytes()
    assert b'"head"' in whole
    changed = json.loads(whole)
    changed["body"]["samples"][0]["final"]["output"] = "made up"
    for damaged in (None, b"", whole[:-9], json.dumps(changed).encode(), b"[1]", b'{"sha": 1, "body": 2}'):
        run.samples.unlink(missing_ok=True)
        if damaged is not None:
            run.samples.write_bytes(damaged)
        assert run.read_samples() == {}
        assert "part-outputs" not in page(read_story(run), {})
    assert main(["train", str(run.path), "--resume"]) == 0
    assert run.samples.read_bytes() == whole
