"""Callbacks: which are refused, what they are told, and the state of a run that was stopped and resumed."""

from __future__ import annotations

import logging
import shutil

import pytest
from job import make_data, make_model
from test_api import back_to_the_first
from transformers import EarlyStoppingCallback, ProgressCallback, TrainerCallback
from transformers.integrations import AzureMLCallback, TensorBoardCallback
from transformers.trainer_callback import DefaultFlowCallback

from msft import MSFTConfig, MSFTTrainer
from msft.api.given_callbacks import CALLED, NEVER, checked
from msft.core.errors import ConfigError, RunError


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("callbacks")
    make_model(folder / "model")
    make_data(folder)
    return folder


def trainer(place, into, callbacks=(), **changes):
    settings = {
        "method": "msft",
        "method_kwargs": {"eval_every": 0.4, "budget": 1.0, "smooth": 1},
        "num_train_epochs": 2,
    }
    settings |= {"learning_rate": 0.01, "max_length": 64, "leaks": "warn", "logging_steps": 1, "disable_tqdm": True}
    args = MSFTConfig(output_dir=str(place / into), **{**settings, **changes})
    data = {name: str(place / f"{name}.jsonl") for name in ("copy", "choice")}
    return MSFTTrainer(model=str(place / "model"), args=args, train_dataset=data, callbacks=list(callbacks))


class Heard(TrainerCallback):
    """Keeps what it is told; stops where it is asked to, once."""

    def __init__(self, stop=None):
        self.stop, self.told = stop, []

    def hear(self, event, state):
        self.told.append((event, state.global_step, state.epoch))

    def on_train_begin(self, args, state, control, **details):
        self.hear("begin", state)

    def on_train_end(self, args, state, control, **details):
        self.hear("end", state)

    def on_evaluate(self, args, state, control, metrics, **details):
        self.hear("evaluate", state)

    def on_save(self, args, state, control, **details):
        self.hear("save", state)

    def on_step_end(self, args, state, control, **details):
        self.hear("step", state)
        if state.global_step == self.stop:
            self.stop, control.should_training_stop = None, True


@pytest.fixture(scope="module")
def whole(place):
    """(output, state, told) of a run that nothing stopped."""
    heard = Heard()
    made = trainer(place, "whole", [heard])
    output, losses = made.train(), [entry["loss"] for entry in made.state.log_history if "loss" in entry]
    assert output.global_step == len(losses) and output.training_loss == pytest.approx(sum(losses) / len(losses))
    return output, made.state, heard.told


def evaluations(state):
    return [entry for entry in state.log_history if "loss" not in entry]


@pytest.mark.parametrize("again", ["same trainer", "another trainer", "lost snapshots"])
def test_a_resumed_run_has_the_state_of_the_whole_run(place, whole, again):
    output, state, told = whole
    stop = output.global_step - 3
    heard, into = Heard(stop), again.replace(" ", "-")
    made = trainer(place, into, [heard])
    stopped = made.train()
    assert stopped.global_step == stop and stopped.metrics == {}
    assert heard.told[-2:] == [*(entry for entry in told if entry[:2] == ("step", stop)), ("end", *heard.told[-1][1:])]

    if again == "lost snapshots":  # what is trained again to make them is no training of the run's
        lost = list((place / into / "snapshots").glob("[0-9]*"))
        assert lost
        for folder in lost:
            shutil.rmtree(folder)
    rest = heard if again == "same trainer" else Heard()
    rest.told = []
    made = made if again == "same trainer" else trainer(place, into, [rest])
    assert made.train(resume_from_checkpoint=True) == output
    assert (made.state.global_step, made.state.epoch) == (state.global_step, state.epoch)
    assert made.state.num_input_tokens_seen == state.num_input_tokens_seen > 0
    assert evaluations(made.state) == evaluations(state)

    begun = rest.told[0][1]
    assert rest.told[0][0] == "begin" and 0 < begun <= stop
    later = [entry for entry in told if entry[1] > begun]
    assert rest.told[1:] == later, "what the first process was told of is not told again"
    losses = [(entry["step"], entry["loss"]) for entry in made.state.log_history if "loss" in entry]
    each = {entry["step"]: entry["loss"] for entry in state.log_history if "loss" in entry}
    assert [pair for pair in losses if pair[0] > begun] == [pair for pair in each.items() if pair[0] > begun]
    ends = [0, *(step for step, _ in losses if step <= begun)]
    for (step, mean), start in zip(losses, ends, strict=False):
        of = [each[k] for k in range(start + 1, step + 1)]
        assert step > begun or mean == pytest.approx(sum(of) / len(of)), "the mean loss up to each evaluation"


def test_a_finished_run_that_is_resumed_has_its_state(place, whole):
    output, state, _ = whole
    heard = Heard()
    made = trainer(place, "whole", [heard])
    assert made.train(resume_from_checkpoint=True) == output and output.training_loss > 0
    assert [event for event, *_ in heard.told] == ["begin", "end"]
    assert heard.told[0][1] == state.global_step > 0


def test_a_run_continues_from_its_own_folder_only(place, whole):
    output = whole[0]
    for other in ("whole/checkpoint-20", "elsewhere"):
        with pytest.raises(RunError, match=r"resume_from_checkpoint: found .*, not output_dir .* Fix: give True"):
            trainer(place, "whole").train(resume_from_checkpoint=str(place / other))
    assert trainer(place, "whole").train(resume_from_checkpoint=str(place / "whole")) == output
    with pytest.raises(RunError, match=r"holds no run to resume. Fix: call train\(\)"):
        trainer(place, "none").train(resume_from_checkpoint=True)
    with pytest.raises(RunError, match=r"already holds a run. Fix: call train\(resume_from_checkpoint=True\)"):
        trainer(place, "whole").train(resume_from_checkpoint=None)


def test_the_steps_of_max_epochs_are_known_as_training_begins(place):
    class Begins(TrainerCallback):
        def on_train_begin(self, args, state, control, **details):
            self.known = state.max_steps, state.num_train_epochs

    begins = Begins()
    made = trainer(place, "sft", [begins], method="sft", method_kwargs={}, num_train_epochs=1.5)
    taken = made.train().global_step
    assert begins.known == (taken, 2)


def test_flags_that_are_not_followed_are_said_once(place, caplog):
    class Flags(TrainerCallback):
        def on_step_end(self, args, state, control, **details):
            control.should_evaluate = control.should_save = True
            control.should_log = state.global_step == 2

    made = trainer(place, "flags", [Flags], method="sft", method_kwargs={}, num_train_epochs=1, logging_steps=100)
    with caplog.at_level(logging.WARNING, "msft"):
        made.train()
    said = [line for line in caplog.messages if "which is not followed" in line]
    assert [line.split()[3] for line in said] == ["control.should_evaluate,", "control.should_save,"]
    assert [entry["step"] for entry in made.state.log_history if "loss" in entry] == [2]


class OfTensorBoard(TensorBoardCallback):
    pass


class OfNotebooks(TrainerCallback):
    __module__ = "transformers.utils.notebook"  # which needs IPython


class WithModel(TrainerCallback):
    def on_step_end(self, args, state, control, model, **details):
        pass


class WithoutDetails(TrainerCallback):
    def on_evaluate(self, args, state, control):
        pass


@pytest.mark.parametrize(
    ("callback", "said"),
    [
        (EarlyStoppingCallback(), "found EarlyStoppingCallback.*remove it; the final model is the best of all"),
        (TensorBoardCallback, r'found TensorBoardCallback.*give report_to=\["tensorboard"\]'),
        (OfTensorBoard, r'found OfTensorBoard.*give report_to=\["tensorboard"\]'),
        (object.__new__(AzureMLCallback), "found AzureMLCallback.* Fix: remove it; or write on_log yourself"),
        (DefaultFlowCallback, "found DefaultFlowCallback.*logging_steps sets the logs"),
        (OfNotebooks, "found OfNotebooks. Fix: remove it"),
        (WithModel, r"WithModel.on_step_end does not take what it is given \(missing .*'model'\).* no model"),
        (WithoutDetails, r"WithoutDetails.on_evaluate does not take .*'metrics'"),
        ("wandb", "found a str, which has none of the events"),
    ],
)
def test_callbacks_that_cannot_work_are_refused(callback, said):
    with pytest.raises(ConfigError, match=f"callbacks: .*{said}"):
        checked([callback])


def test_one_callback_is_no_list(place):
    with pytest.raises(ConfigError, match=r"callbacks: found a Heard\. Fix: give a list"):
        MSFTTrainer(model="m", args=MSFTConfig(output_dir="r"), train_dataset={"a": "a.jsonl"}, callbacks=Heard())


def test_events_that_are_never_called_are_said(caplog):
    class Eager(TrainerCallback):
        def on_step_begin(self, args, state, control, **details):
            pass

        def on_epoch_end(self, args, state, control, **details):
            pass

    with caplog.at_level(logging.WARNING, "msft"):
        checked([Heard(), ProgressCallback])
        assert caplog.messages == []
        checked([Eager])
    assert caplog.messages[0].startswith("Eager: on_epoch_end, on_step_begin will never be called in a search;")
    assert {"on_epoch_begin", "on_optimizer_step", "on_predict"} <= set(NEVER) and not set(NEVER) & CALLED.keys()


def test_the_events_that_are_said_to_be_called_are_called(place):
    """A method that excludes and goes back."""
    told = set()
    methods = {
        name: (lambda event: lambda self, args, state, control, **details: told.add((event, *details)))(name)
        for name in CALLED
    }
    every = type("Every", (TrainerCallback,), methods)
    trainer(place, "every", [every], method=back_to_the_first, method_kwargs={}).train()
    assert told == {(event, *details) for event, details in CALLED.items()}
