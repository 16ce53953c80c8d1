"""MSFTTrainer on models and data sets in memory does what `msft train` does on files."""

from __future__ import annotations

import json
import logging
import re
import shlex
import sys
from dataclasses import dataclass

import datasets
import pytest
import torch
from job import make_data, make_model
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

from msft import MSFTConfig, MSFTTrainer
from msft.cli.main import main
from msft.config.reader import load
from msft.config.temperature import rule
from msft.core.errors import ConfigError, DataError, RunError
from msft.core.method import Method, require
from msft.core.rollout import Answer, Track, roll_out
from msft.core.vocabulary import Mixture
from msft.record.journal import read
from msft.run.session import train


class Silent:
    def __getattr__(self, name):
        return lambda *arguments: None


def rows(tmp_path, name):
    return [json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()]


@pytest.fixture
def made(tmp_path):
    make_model(tmp_path / "model")
    make_data(tmp_path)
    return tmp_path


def objects(made):
    return {
        "model": AutoModelForCausalLM.from_pretrained(made / "model"),
        "processing_class": AutoTokenizer.from_pretrained(made / "model"),
        "train_dataset": {
            "copy": datasets.Dataset.from_list(rows(made, "copy")[:30]),
            "yes no": rows(made, "choice")[:30],
        },
        "eval_dataset": {
            "copy": datasets.Dataset.from_list(rows(made, "copy")[30:]),
            "yes no": rows(made, "choice")[30:],
        },
    }


def config(made, **changes):
    settings = {
        "method": "msft",
        "method_kwargs": {"eval_every": 0.5, "budget": 1.0, "smooth": 1},
        "num_train_epochs": 2,
        "learning_rate": 0.01,
        "lr_scheduler_type": "constant",
        "max_grad_norm": None,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "max_length": 64,
        "leaks": "warn",
        "logging_steps": 1,
        "dataset_kwargs": {"copy": {"scorer": "exact_match"}},
    }
    return MSFTConfig(**{"output_dir": str(made / "run"), **settings, **changes})


def records(folder):
    transcript = read(folder / "journal.jsonl", folder / "sidecars")
    return [(segment, outcome) for segment, outcome in transcript.segments]


class Heard(TrainerCallback):
    def __init__(self):
        self.events, self.steps = [], []

    def on_train_begin(self, args, state, control, **details):
        self.events.append("begin")

    def on_step_end(self, args, state, control, **details):
        self.steps.append(state.global_step)

    def on_evaluate(self, args, state, control, metrics, **details):
        self.events.append(("evaluate", sorted(metrics)))

    def on_exclusion(self, args, state, control, tasks, **details):
        self.events.append(("exclusion", tasks))

    def on_roll_back(self, args, state, control, epoch, from_epoch, **details):
        self.events.append(("back", epoch < from_epoch))

    def on_train_end(self, args, state, control, **details):
        self.events.append("end")


def test_objects_and_files_give_the_same_run(made):
    heard = Heard()
    trainer = MSFTTrainer(args=config(made), callbacks=[heard], **objects(made))
    output = trainer.train()

    for name in ("copy", "choice"):
        for part, content in (("train", rows(made, name)[:30]), ("eval", rows(made, name)[30:])):
            (made / f"{name}-{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in content))
    (made / "c.yaml").write_text(f"""\
model: {{name_or_path: model}}
method: {{name: msft, eval_every: 0.5, budget: 1.0, smooth: 1, max_epochs: 2}}
datasets:
  - {{id: copy, path: copy-train.jsonl, validation: {{path: copy-eval.jsonl}}, scorer: {{name: exact_match}}}}
  - {{id: yes no, path: choice-train.jsonl, validation: {{path: choice-eval.jsonl}}}}
data: {{max_length: 64, leaks: warn}}
training: {{learning_rate: 0.01, batch_size: 8}}
output: {made / "files"}
""")
    train(load(made / "c.yaml"), Silent())
    assert records(made / "run") == records(made / "files")
    weights = [(made / run / "final" / "model.safetensors").read_bytes() for run in ("run", "files")]
    assert weights[0] == weights[1]

    taken = sum(s.stop - s.start for s, _ in records(made / "run"))
    assert output.global_step == taken and heard.steps == list(range(1, taken + 1))
    assert set(output.metrics) == {"eval_copy", "base_eval_copy", "eval_yes no", "base_eval_yes no"}
    best = (output.metrics["eval_copy"] + output.metrics["eval_yes no"]) / 2
    assert trainer.state.best_metric == pytest.approx(best)
    assert trainer.state.best_model_checkpoint == str(made / "run" / "final")
    assert heard.events[0] == "begin" and heard.events[-1] == "end"
    assert heard.events[1] == ("evaluate", ["eval_copy", "eval_yes no"])
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert [entry["step"] for entry in logged] == heard.steps

    said = trainer.model(**trainer.processing_class("ab1>", return_tensors="pt")).logits
    trainer.save_model(made / "copy")
    again = AutoModelForCausalLM.from_pretrained(made / "copy")
    assert torch.equal(said, again(**trainer.processing_class("ab1>", return_tensors="pt")).logits)


def test_the_trained_model_is_saved_where_scripts_of_trl_save_it(made, monkeypatch):
    monkeypatch.setenv("HOME", str(made))
    monkeypatch.chdir(made / "model")
    trainer = MSFTTrainer(args=config(made, output_dir="~/run", num_train_epochs=0.5), **objects(made))
    trainer.train()
    weights = (made / "run" / "final" / "model.safetensors").read_bytes()
    trainer.save_model(made / "run" / "final")
    trainer.save_model("~/saved")
    trainer.save_model()
    for folder in (made / "saved", made / "run"):
        assert (folder / "model.safetensors").read_bytes() == weights
    assert not (made / "model" / "~").exists()
    again = MSFTTrainer(args=config(made, output_dir="~/run", num_train_epochs=0.5), **objects(made))
    assert again.train(resume_from_checkpoint="~/run").metrics == trainer.evaluate()


def back_to_the_first(brief):
    """A method as a user would write it: an epoch of all, then back to its first tick without the first of them."""
    track, tasks = Track(brief), brief.tasks
    answer = Answer(brief, track.base)
    every, rest = Mixture(tasks=tasks), Mixture(tasks=tasks[1:])
    points = yield from roll_out(track, track.base, every, 0.5, watch=tasks, at_end=tasks)
    first = points[-1]
    answer.offer(first)
    keep = answer.keep | {first.snapshot}
    points = yield from roll_out(track, first, every, 0.5, watch=tasks, at_end=tasks, keep=keep)
    answer.offer(points[-1])
    here = yield from track.turn(first, rest, keep=answer.keep)
    points = yield from roll_out(track, here, rest, 0.5, watch=tasks, at_end=tasks, keep=answer.keep)
    return answer.choose(points[-1])


def forgetful(brief):
    """As above, but what it goes back to was never to be kept."""
    track, every = Track(brief), Mixture(tasks=brief.tasks)
    first = yield from track.advance(track.base, every, track.clock.steps(every, 0.5), score=brief.tasks)
    last = yield from track.advance(first, every, track.clock.steps(every, 1.0), score=brief.tasks)
    last = yield from track.advance(last, every, track.clock.steps(every, 1.5), score=brief.tasks)
    here = yield from track.turn(first, Mixture(tasks=brief.tasks[1:]))
    return here.snapshot


@dataclass(frozen=True, kw_only=True)
class Patience:
    ticks: int = 1

    def __post_init__(self):
        require(self.ticks > 0, "ticks", "more than 0", self.ticks)


def test_a_method_of_ones_own(made):
    heard = Heard()
    MSFTTrainer(
        args=config(made, method=back_to_the_first, method_kwargs={}), callbacks=[heard], **objects(made)
    ).train()
    assert ("exclusion", ["copy"]) in heard.events and ("back", True) in heard.events

    lost = config(made, output_dir=str(made / "lost"), method=forgetful, method_kwargs={})
    with pytest.raises(RunError, match=r"segment 4: the method requests snapshot 1, which it dropped. Fix: list it"):
        MSFTTrainer(args=lost, **objects(made)).train()

    own = Method(plan=back_to_the_first, Params=Patience)
    with pytest.raises(ConfigError, match=r"MSFTConfig method.ticks: .*more than 0"):
        MSFTTrainer(args=config(made, method=own, method_kwargs={"ticks": 0}), **objects(made))


class Trips(TrainerCallback):
    """A script that dies in the middle."""

    def __init__(self, at=10):
        self.at = at

    def on_step_end(self, args, state, control, **details):
        if state.global_step == self.at:
            raise RuntimeError("tripped")


class Stops(TrainerCallback):
    """A callback that has seen enough, once."""

    def on_step_end(self, args, state, control, **details):
        control.should_training_stop = state.global_step == 9


def test_a_callback_may_stop_a_run_that_is_resumed_later(made, capsys):
    MSFTTrainer(args=config(made, output_dir=str(made / "whole")), **objects(made)).train()
    stopped = MSFTTrainer(args=config(made), callbacks=[Stops()], **objects(made))
    assert stopped.train() == (9, pytest.approx(stopped._events.mean_loss), {})
    assert "Continue with train(resume_from_checkpoint=True)" in capsys.readouterr().err
    assert stopped.state.best_metric is None
    with pytest.raises(RunError, match=r"no trained model yet. Fix: call train\(resume_from_checkpoint=True\), which"):
        stopped.evaluate()
    MSFTTrainer(args=config(made), **objects(made)).train(resume_from_checkpoint=True)
    assert records(made / "run") == records(made / "whole")


def test_resuming_takes_the_same_rows_only(made):
    whole = config(made, output_dir=str(made / "whole"))
    MSFTTrainer(args=whole, **objects(made)).train()
    with pytest.raises(RuntimeError, match="tripped"):
        MSFTTrainer(args=config(made), callbacks=[Trips()], **objects(made)).train()
    changed = objects(made)
    changed["train_dataset"]["yes no"] = changed["train_dataset"]["yes no"][:-1]
    with pytest.raises(RunError, match="the train rows of yes no are not those that the run began with"):
        MSFTTrainer(args=config(made), **changed).train(resume_from_checkpoint=True)
    MSFTTrainer(args=config(made), **objects(made)).train(resume_from_checkpoint=True)
    assert records(made / "run") == records(made / "whole")
    with pytest.raises(RunError, match="already holds a run"):
        MSFTTrainer(args=config(made), **objects(made)).train()


def test_what_a_resumed_run_may_change_is_a_command(made):
    """`train` allows no change by itself; what is printed works."""
    args = {"method_kwargs": {}, "method": "sft", "num_train_epochs": 1}
    given = objects(made) | {"model": str(made / "model"), "processing_class": None}
    with pytest.raises(RuntimeError, match="tripped"):
        MSFTTrainer(args=config(made, **args), callbacks=[Trips(at=6)], **given).train()
    changed = MSFTTrainer(args=config(made, learning_rate=0.02, **args), **given)
    with pytest.raises(
        RunError, match=r"training.learning_rate was 0.01, is now 0.02.*Fix: undo the change, or"
    ) as raised:
        changed.train(resume_from_checkpoint=True)
    command = shlex.split(str(raised.value).partition("command line: ")[2])
    assert command[-2:] == ["--allow-changed", "training.learning_rate"]
    assert main(command[1:]) == 0

    with pytest.raises(RunError, match=f"model: found a model object.* Fix: give model='{made}/model'"):
        MSFTTrainer(args=config(made, **args), **objects(made)).train(resume_from_checkpoint=True)


def test_an_adapter(made):
    peft = LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    trainer = MSFTTrainer(args=config(made), peft_config=peft, **objects(made))
    trainer.train()
    saved = json.loads((made / "run" / "final" / "adapter_config.json").read_text())
    assert (saved["r"], sorted(saved["target_modules"])) == (2, ["q_proj", "v_proj"])
    assert trainer.model(**trainer.processing_class("ab1>", return_tensors="pt")).logits.isfinite().all()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"train_dataset": [{"text": "a"}]}, DataError,
         "train_dataset: found a list. Fix: give a dict of sub-datasets"),
        ({"eval_dataset": datasets.Dataset.from_list([{"text": "a"}])}, DataError,
         "eval_dataset: found a single data set, for several sub-datasets. Fix: give a dict .*: copy, yes no"),
        ({"train_dataset": {}}, DataError, "train_dataset: is missing"),
        ({"eval_dataset": {"coppy": []}}, DataError,
         r"eval_dataset\['coppy'\]: there is no such sub-dataset. Fix: use a name of train_dataset: copy, yes no"),
        ({"train_dataset": {"copy": 3}}, DataError, r"train_dataset\['copy'\]: found an int"),
        ({"peft_config": LoraConfig(lora_bias=True)}, ConfigError, "peft_config lora_bias: found True. Fix: leave it"),
        ({"peft_config": {"r": 4}}, ConfigError, "peft_config: found dict. Fix: give a peft.LoraConfig"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_answered_before_anything_is_written(made, change, error, message):
    given = {**objects(made), **change}
    if "train_dataset" in change:
        del given["eval_dataset"]
    with pytest.raises(error, match=message):
        MSFTTrainer(args=config(made), **given)
    assert not (made / "run").exists()


def test_training_shows_what_the_command_line_shows_unless_it_is_to_be_quiet(made, capsys):
    heard = Heard()
    trainer = MSFTTrainer(args=config(made, num_train_epochs=1), callbacks=[heard], **objects(made))
    capsys.readouterr()
    trainer.train()
    out, err = capsys.readouterr()
    assert out == "" and "\x1b" not in err
    lines = err.splitlines()
    assert any(re.match(r"\d{4}-\d\d-\d\d \S+  msft: \S+ on 2 sub-datasets, at most 1 epoch, into ", x) for x in lines)
    assert any(line.startswith("Too few validation items") for line in lines), "notes are seen"
    assert any(line.startswith("roll-out 1  epoch 0.5") and "search score: copy " in line for line in lines)
    assert lines[-2:] == [f"The model: {made}/run/final", f"The page: {made}/run/report.html"]
    assert heard.events[-1] == "end" and heard.steps

    quiet = MSFTTrainer(
        args=config(made, num_train_epochs=1, output_dir=str(made / "quiet"), disable_tqdm=True), **objects(made)
    )
    capsys.readouterr()
    quiet.train()
    said = capsys.readouterr()
    assert not [line for line in (said.out + said.err).splitlines() if "epoch" in line or "validation" in line]


def test_notes_reach_the_user_whatever_is_shown(made, caplog, capsys):
    """Rows that were dropped above all. Where logging is not set up, each note is said once."""

    def train(name, **changes):
        given = objects(made)
        given["train_dataset"]["copy"] = [*rows(made, "copy")[:30], {**rows(made, "copy")[0], "completion": ""}]
        caplog.clear()
        capsys.readouterr()
        args = config(made, num_train_epochs=0.5, output_dir=str(made / name), bad_rows="drop", **changes)
        MSFTTrainer(args=args, **given).train()
        logged = [each for each in caplog.records if each.name == "msft" and "dropped" in each.getMessage()]
        assert all(each.levelname == "WARNING" for each in logged)
        return len(logged), sum("dropped" in line for line in capsys.readouterr().err.splitlines())

    assert train("quiet", disable_tqdm=True) == (1, 0)
    assert train("shown") == (1, 1)
    root = logging.getLogger()
    handlers, root.handlers = root.handlers, []
    try:
        assert [train("quiet alone", disable_tqdm=True)[1], train("shown alone")[1]] == [1, 1]
    finally:
        root.handlers = handlers


def test_a_callback_may_be_given_by_its_class(made):
    class Counts(TrainerCallback):
        begun = 0

        def on_train_begin(self, args, state, control, **details):
            Counts.begun += 1

    MSFTTrainer(args=config(made), callbacks=[Counts], **objects(made)).train()
    assert Counts.begun == 1


def test_arguments_are_checked_by_name(made):
    with pytest.raises(ConfigError, match=r"MSFTConfig training.learning_rate: found -1"):
        MSFTTrainer(args=config(made, learning_rate=-1.0), **objects(made))
    with pytest.raises(ConfigError, match=r"MSFTConfig method.bugdet: .*budget"):
        MSFTTrainer(args=config(made, method_kwargs={"bugdet": 2}), **objects(made))


def test_mixing_and_repeat_reach_the_configuration(made):
    def resolved(**changes):
        datasets = [{"id": "copy", "path": "copy.jsonl"}, {"id": "yes no", "path": "choice.jsonl"}]
        return config(made, **changes).resolve(model={"name_or_path": "m"}, datasets=datasets, peft=None, world=1)

    plain = resolved()
    assert (plain.data.mixing, [dataset.repeat for dataset in plain.datasets]) == ("size", [None, None])
    mixed = resolved(mixing={"temperature": 2}, repeat={"yes no": 3})
    assert (rule(mixed.data.mixing), [dataset.repeat for dataset in mixed.datasets]) == (2.0, [None, 3.0])
    assert resolved(dataset_kwargs={"copy": {"repeat": 0.5}}).datasets[0].repeat == 0.5
    for changes, message in (
        ({"mixing": "even"}, "MSFTConfig data.mixing: found 'even'. Fix: use one of: size, equal"),
        ({"repeat": {"coppy": 2}}, "MSFTConfig repeat: there is no sub-dataset 'coppy'. Fix: did you mean 'copy'?"),
        ({"dataset_kwargs": {"no": {}}}, "MSFTConfig dataset_kwargs: there is no sub-dataset 'no'. Fix: "),
        ({"repeat": {"copy": -1}}, "MSFTConfig datasets.0.repeat: found -1"),
    ):
        with pytest.raises(ConfigError, match=re.escape(message)):
            resolved(**changes)


def test_importing_the_package_loads_no_torch():
    import subprocess

    code = "import sys, msft; sys.exit('torch' in sys.modules or not msft.__version__)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_defaults_are_those_of_trl(made):
    """Read from its source at version 1.16: SFTConfig and transformers' TrainingArguments."""
    args = MSFTConfig(output_dir="run")
    assert (args.learning_rate, args.per_device_train_batch_size, args.gradient_accumulation_steps) == (2e-5, 8, 1)
    assert (args.max_grad_norm, args.weight_decay, args.warmup_ratio, args.max_length) == (1.0, 0.0, 0.0, 1024)

    def training(**changes):
        args = MSFTConfig(output_dir="run", **changes)
        sections = {"model": {"name_or_path": "m"}, "datasets": [{"id": "a", "path": "a.jsonl"}], "peft": None}
        return args.resolve(world=1, **sections).training

    assert training(method="sft").schedule == "linear" and training().max_grad_norm == 1.0
    assert training(method="sft", average=1).schedule == "constant"
    assert training(method="sft", average=1, lr_scheduler_type="linear").schedule == "linear"
    assert training(method="msft", method_kwargs={"preset": "release"}).schedule == "constant"
    assert training().schedule == "constant" and training().average == 1, "the method is auto, which averages"
    assert training(max_grad_norm=0).max_grad_norm is None
    assert training(report_to="tensorboard").report_to == training(report_to=["tensorboard"]).report_to
    assert training(report_to="none").report_to == ()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"packing": True}, "MSFTConfig packing: unknown argument. Fix: remove it; micro-batches"),
        (
            {"eval_strategy": "steps", "eval_steps": 5},
            "eval_steps: unknown argument. Fix: remove it; give method_kwargs",
        ),
        ({"lerning_rate": 1}, "did you mean 'learning_rate'?"),
    ],
)
def test_arguments_of_other_trainers_are_answered(given, said):
    with pytest.raises(ConfigError) as raised:
        MSFTConfig(output_dir="run", **given)
    assert said in str(raised.value) and str(raised.value).count("Fix:") == len(given)


def test_an_aggregate_chooses_the_final_model(made):
    """As in a configuration file; and callbacks, `evaluate` and the page have its score."""
    exam = {"path": str(made / "double.jsonl"), "scorer": "loss", "max_samples": 8, "test": {"max_samples": 8}}
    exam["template"] = {"prompt": "{question}=", "completion": "{answer}"}
    trainer = MSFTTrainer(args=config(made, aggregate=exam), **objects(made))
    assert trainer.config.aggregate is not None and trainer.config.aggregate.scorer.name == "loss"
    metrics = trainer.train().metrics
    assert {"test_aggregate", "base_test_aggregate"} <= metrics.keys()
    assert any("eval_aggregate" in entry for entry in trainer.state.log_history)
    transcript = read(made / "run" / "journal.jsonl", made / "run" / "sidecars")
    scores = [transcript.brief.base.scores, *(outcome.scores for _, outcome in transcript.segments)]
    exams = {number: found["aggregate"] for number, found in enumerate(scores) if "aggregate" in found}
    assert transcript.final["answer"] == max(exams, key=exams.get)

    for wrong, field in (({"path": rows(made, "double")}, "aggregate.path"), ("exam.jsonl", "aggregate")):
        with pytest.raises(ConfigError, match=f"MSFTConfig {field}: found"):
            MSFTTrainer(args=config(made, aggregate=wrong), **objects(made))
