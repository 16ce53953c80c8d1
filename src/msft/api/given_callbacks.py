"""Which callbacks of transformers work here: the others are refused when the trainer is made, not in the training."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Sequence
from typing import Any, NoReturn

from transformers import (
    DefaultFlowCallback,
    EarlyStoppingCallback,
    TrainerCallback,
)

from msft.core.errors import ConfigError, complaint
from msft.core.plain_words import kind_of

log = logging.getLogger("msft")

CALLED = {
    "on_init_end": (),
    "on_train_begin": (),
    "on_train_end": (),
    "on_step_end": (),
    "on_log": ("logs",),
    "on_evaluate": ("metrics",),
    "on_save": (),
    "on_exclusion": ("tasks",),
    "on_roll_back": ("epoch", "from_epoch"),
}
"""The events that are called, and what each is given beside args, state and control."""
NEVER = sorted({name for name in vars(TrainerCallback) if name.startswith("on_")} - CALLED.keys())
"""Events of transformers that are never called: an epoch has no fixed place in a search that rolls back, and a step is
known here when it is done."""
TRACKERS = {"TensorBoardCallback": "tensorboard", "WandbCallback": "wandb", "TrackioCallback": "trackio",
            "MLflowCallback": "mlflow"}  # fmt: skip
"""Callbacks of transformers that report to a service, and its name in `report_to`."""
OTHERS = {
    EarlyStoppingCallback: "remove it; the final model is the best of all evaluations, wherever training ends. To "
    'train less: a smaller num_train_epochs, or method="one_pass" with method_kwargs={"patience": ...}, which excludes '
    "each sub-dataset when it stops improving",
    DefaultFlowCallback: "remove it; logging_steps sets the logs, the method's eval_every the evaluations",
}


def checked(callbacks: Sequence[TrainerCallback | type[TrainerCallback]] | None) -> list[TrainerCallback]:
    """The callbacks as instances; classes are called. Raises ConfigError for those that cannot work; warns of events
    that are never called."""
    if callbacks is None:
        return []
    if not isinstance(callbacks, (list, tuple)):
        _refuse(f"found {kind_of(callbacks)}", "give a list of callbacks")
    made = [callback() if isinstance(callback, type) else callback for callback in callbacks]
    for callback in made:
        _check(callback)
    return made


def _check(callback: TrainerCallback) -> None:
    kind, ours = type(callback), type(callback).__module__.startswith("transformers.")
    for base in kind.__mro__:
        if base in OTHERS:
            _refuse(f"found {kind.__name__}, which does not work here", OTHERS[base])
        if base.__module__.startswith("transformers.integrations"):
            tracker = TRACKERS.get(base.__name__)
            fix = "remove it" if tracker is None else f'remove it, and give report_to=["{tracker}"]'
            _refuse(f"found {kind.__name__}, which needs transformers' own trainer", f"{fix}; or write on_log yourself")
        if base.__module__ == "transformers.utils.notebook":
            _refuse(f"found {kind.__name__}", "remove it; training shows its progress itself")
    events = [name for name in (*CALLED, *NEVER) if _has(callback, name)]
    if not events and not isinstance(callback, TrainerCallback):
        _refuse(f"found a {kind.__name__}, which has none of the events", f"give it one of: {', '.join(CALLED)}")
    for name in events:
        if name in CALLED:
            _check_signature(callback, name)
    never = [name for name in events if name in NEVER]
    if never and not ours:
        text = "%s: %s will never be called in a search; the events are: %s"
        log.warning(text, kind.__name__, ", ".join(never), ", ".join(CALLED))


def _has(callback: Any, name: str) -> bool:
    """Whether the callback has this event itself, rather than the empty one of TrainerCallback."""
    handler = getattr(callback, name, None)
    return callable(handler) and getattr(handler, "__func__", None) is not getattr(TrainerCallback, name, handler)


def _check_signature(callback: Any, name: str) -> None:
    try:
        inspect.signature(getattr(callback, name)).bind(None, None, None, **dict.fromkeys(CALLED[name]))
    except TypeError as error:
        given = ", ".join(("args", "state", "control", *CALLED[name]))
        found = f"{type(callback).__name__}.{name} does not take what it is given ({error})"
        _refuse(found, f"it is given {given}, and no model, tokenizer or optimizer: add **kwargs, or a default")


def _refuse(found: str, fix: str) -> NoReturn:
    raise ConfigError(complaint(found, fix, field="callbacks"))
