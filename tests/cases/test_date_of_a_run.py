"""A chat template with a clock: the date is that of the day on which the run began, wherever the run goes on."""

from __future__ import annotations

import datetime
import json
from dataclasses import replace

import pytest
from small_models import make_model, tokenizer_of

from msft.config.reader import load
from msft.core.errors import ConfigError, Diverged
from msft.data import cache
from msft.data.encode import Encoder
from msft.data.load import load_tasks
from msft.data.sources import Source
from msft.record.run_folder import RunFolder
from msft.run.evaluate import evaluate
from msft.run.job import Job
from msft.run.session import train
from msft.study.days import on_one_day
from msft.study.grid import Grid, StudyFolder, Variant
from msft.study.positions import Silent

CHAT = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
CLOCK = "{{ 'Today: ' + strftime_now('%d %b %Y') + '\\n' }}" + CHAT
CONFIG = """\
model: {{name_or_path: {folder}/model, precision: fp32}}
method: {{name: sft, max_epochs: 1}}
datasets:
  - {{id: chat, path: {folder}/chat.jsonl, validation: {{max_samples: 6}}, scorer: {{name: loss}}}}
data: {{leaks: warn, max_length: 400{date}}}
training: {{batch_size: 8}}
output: {folder}/run
"""
DAY = "2020-02-01"
"""A day on which the run began that is not today."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("clock")
    make_model(made / "model", words=tokenizer_of(template=CLOCK))
    turns = [[{"role": "user", "content": f"Say {n}"}, {"role": "assistant", "content": "red"}] for n in range(24)]
    (made / "chat.jsonl").write_text("".join(json.dumps({"messages": one}) + "\n" for one in turns))
    train(config(made, DAY), Silent())
    return made


def config(folder, day=None):
    file = folder / f"{day}.yaml"
    file.write_text(CONFIG.format(folder=folder, date=f", date: {day}" if day else ""))
    return load(file)


def test_a_run_goes_on_another_day(folder):
    summaries = [train(made, Silent(), resume=True) for made in (config(folder), config(folder, DAY))]
    assert summaries[0]["answer"] == summaries[1]["answer"] and summaries[0]["macro"] == summaries[1]["macro"]


def test_the_run_folder_keeps_the_day(folder):
    run = RunFolder(folder / "run")
    assert run.transcript().day == DAY and load(run.config).data.date == DAY
    assert any(f"which is {DAY} throughout" in note for note in run.read_notes())


def test_another_day_that_is_given_is_another_run(folder):
    with pytest.raises(Diverged, match=r"data\.date was '2020-02-01', is now '2020-02-02'"):
        train(config(folder, "2020-02-02"), Silent(), resume=True)


def test_a_run_is_scored_on_its_own_day(folder):
    run = str(folder / "run")
    found = [evaluate(made, run, "validation") for made in (config(folder), config(folder, DAY))]
    assert found[0].data["chat"].fingerprint == found[1].data["chat"].fingerprint
    assert found[0].macro == found[1].macro


def test_a_new_run_takes_today_and_keeps_it_for_its_variants(folder):
    job = Job.prepare(config(folder))
    assert job.config.data.date == datetime.date.today().isoformat()
    assert job.of(config(folder)).config.data.date == job.config.data.date


def test_a_template_without_a_clock_has_no_day(folder):
    words = tokenizer_of(template=CHAT)
    one, other = (load_tasks(config(folder, day), words)["chat"] for day in (DAY, "2020-02-02"))
    assert one.fingerprint == other.fingerprint
    assert "the chat template reads the date" not in "".join(one.notes)


def test_all_runs_of_a_study_have_one_day(folder, tmp_path):
    grid = Grid(kind="compare", variants=(Variant(name="sft", config=config(folder)),), seeds=(1,))
    study = StudyFolder(tmp_path)
    today = on_one_day(grid, study)
    assert today.variants[0].config.data.date == datetime.date.today().isoformat()
    began = replace(grid, variants=(Variant(name="sft", config=config(folder, DAY)),))
    study.adopt(began, 1)
    assert on_one_day(grid, study) == began
    study.check(on_one_day(grid, study))


def test_cached_tokens_are_those_of_the_day(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    words = tokenizer_of(template=CLOCK)
    made = config(folder)
    sources = [Source(dataset, made.data.seed) for dataset in made.datasets]
    days = [datetime.date(2020, 2, day) for day in (1, 1, 2)]
    monkeypatch.setattr(cache, "CACHE_FROM", 0)
    one, same, other = (cache.Cache.of(made, sources, Encoder(words, day=day)).folder for day in days)
    assert one == same != other


@pytest.mark.parametrize("day", ["yesterday", "2020-02-31", "20"])
def test_a_day_that_is_none_is_refused(folder, day):
    with pytest.raises(ConfigError, match=r"data\.date.*which is not a day. Fix: write it as 2026-01-31"):
        config(folder, f"'{day}'")
