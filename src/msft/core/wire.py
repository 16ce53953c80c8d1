"""The types of `msft.core.vocabulary` as JSON, versioned. Floats round-trip exactly; NaN and infinity are strings."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, TypeAlias

from msft.core.vocabulary import LATER, Anneal, Brief, Mixture, Outcome, Probe, Segment, Task, Teacher, Tokens

VERSION = 1
"""Increased when older journals can no longer be read as they are."""

KEPT_NAMES = {"method.max_epochs": "method.horizon", "model.precision": "model.autocast"}
"""Key of a configuration to its name in journals and studies, which must not change."""
_KEPT_VALUES = {"model.precision": {"autocast": "bf16", "fp32": "no"}}
"""Key of a configuration to the values that have another name in journals and studies."""
Json = dict[str, Any]
KeyPath: TypeAlias = tuple[str | int, ...]
"""The keys and indices that lead to a value."""


def kept(flat: Mapping[str, Any]) -> Json:
    """A flat configuration with the names and values that journals have."""
    values = {key: known.get(flat[key], flat[key]) for key, known in _KEPT_VALUES.items() if key in flat}
    return {KEPT_NAMES.get(key, key): value for key, value in (dict(flat) | values).items()}


def today(flat: Mapping[str, Any]) -> Json:
    """A journal's flat configuration with the names and values of a configuration file; undoes `kept`."""
    names = {name: key for key, name in KEPT_NAMES.items()}
    renamed = {names.get(name, name): value for name, value in flat.items()}
    values = {key: {old: new for new, old in known.items()} for key, known in _KEPT_VALUES.items() if key in renamed}
    return renamed | {key: known.get(renamed[key], renamed[key]) for key, known in values.items()}


def to_number(x: float) -> float | str:
    """As JSON, which has no infinite numbers: these become texts, which `float` reads."""
    return x if math.isfinite(x) else repr(float(x))


def _out(scores: Mapping[Task, float] | None) -> Json | None:
    return None if scores is None else {task: to_number(score) for task, score in scores.items()}


def _in(scores: Json | None) -> dict[Task, float] | None:
    return None if scores is None else {task: float(score) for task, score in scores.items()}


def _items_out(items: Mapping[Task, tuple[float, ...]] | None) -> Json | None:
    return None if items is None else {task: [to_number(x) for x in xs] for task, xs in items.items()}


def _items_in(items: Json | None) -> dict[Task, tuple[float, ...]] | None:
    return None if items is None else {task: tuple(float(x) for x in xs) for task, xs in items.items()}


def mixture_to_json(mixture: Mixture) -> Json:
    without: dict[Task, list[int]] = {}
    for task, index in sorted(mixture.without):
        without.setdefault(task, []).append(index)
    data: Json = {
        "tasks": list(mixture.tasks),
        "shares": None if mixture.shares is None else list(mixture.shares),
        "weights": None if mixture.weights is None else list(mixture.weights),
        "without": without,
        **_later(mixture),
    }
    if mixture.replayed != _taken_in_part(mixture.tasks, mixture.shares):
        data["replayed"] = sorted(mixture.replayed)
    return data


def mixture_from_json(data: Json) -> Mixture:
    tasks = tuple(data["tasks"])
    shares = None if data["shares"] is None else tuple(data["shares"])
    return Mixture(
        tasks=tasks,
        shares=shares,
        weights=None if data["weights"] is None else tuple(data["weights"]),
        without=frozenset((task, index) for task, indices in data["without"].items() for index in indices),
        replayed=frozenset(data["replayed"]) if "replayed" in data else _taken_in_part(tasks, shares),
        loss_weights=tuple(data["loss_weights"]) if "loss_weights" in data else None,
        whole=data.get("whole", False),
    )


def _taken_in_part(tasks: tuple[Task, ...], shares: tuple[float, ...] | None) -> frozenset[Task]:
    """The sub-datasets with a share below 1: those that are replayed where a journal does not say otherwise.

    Journals of version 0.1 never say it, as a share below 1 had no other meaning there.
    """
    return frozenset(task for task, share in zip(tasks, shares or (), strict=shares is not None) if share != 1)


def segment_to_json(segment: Segment) -> Json:
    return {
        "parent": segment.parent,
        "rollout": segment.rollout,
        "mixture": mixture_to_json(segment.mixture),
        "start": segment.start,
        "stop": segment.stop,
        "epoch": segment.epoch,
        "score": list(segment.score),
        "probes": sorted(probe.value for probe in segment.probes),
        "keep": sorted(segment.keep),
        "reset_optimizer": segment.reset_optimizer,
        **_later(segment),
    }


def segment_from_json(data: Json) -> Segment:
    return Segment(
        parent=data["parent"],
        rollout=data["rollout"],
        mixture=mixture_from_json(data["mixture"]),
        start=data["start"],
        stop=data["stop"],
        epoch=data["epoch"],
        score=tuple(data["score"]),
        probes=frozenset(Probe(name) for name in data["probes"]),
        keep=frozenset(data["keep"]),
        reset_optimizer=data["reset_optimizer"],
        anneal=Anneal(**data["anneal"]) if "anneal" in data else None,
        blend=tuple((snapshot, weight) for snapshot, weight in data.get("blend", ())),
        ties=data.get("ties"),
        teacher=_teacher(data["teacher"]) if "teacher" in data else None,
        why=data.get("why", "search"),
    )


def _teacher(data: Json) -> Teacher:
    return Teacher(snapshots=tuple(data["snapshots"]), share=data["share"], top=data["top"])


def outcome_to_json(outcome: Outcome) -> Json:
    losses = outcome.losses
    return {
        "snapshot": outcome.snapshot,
        "scores": _out(outcome.scores),
        "reports": _out(outcome.reports),
        "items": _items_out(outcome.items),
        **({} if outcome.metrics is None else {"metrics": _items_out(outcome.metrics)}),
        "lookahead": _out(outcome.lookahead),
        "losses": None
        if losses is None
        else {task: [[i, to_number(x)] for i, x in sorted(by.items())] for task, by in losses.items()},
        "train_loss": None if outcome.train_loss is None else to_number(outcome.train_loss),
        "tokens": dataclasses.asdict(outcome.tokens),
        "bytes": outcome.bytes,
        **({} if outcome.loss is None else {"loss": _out(outcome.loss)}),
    }


def outcome_from_json(data: Json) -> Outcome:
    losses = data["losses"]
    return Outcome(
        snapshot=data["snapshot"],
        scores=_in(data["scores"]) or {},
        reports=_in(data["reports"]) or {},
        items=_items_in(data["items"]),
        metrics=_items_in(data.get("metrics")),
        lookahead=_in(data["lookahead"]),
        losses=None if losses is None else {task: {i: float(x) for i, x in pairs} for task, pairs in losses.items()},
        train_loss=None if data["train_loss"] is None else float(data["train_loss"]),
        tokens=Tokens(**data["tokens"]),
        bytes=data["bytes"],
        loss=_in(data.get("loss")),
    )


def brief_to_json(brief: Brief) -> Json:
    return {
        "tasks": list(brief.tasks),
        "sizes": list(brief.sizes),
        "validation_sizes": list(brief.validation_sizes),
        "batch_size": brief.batch_size,
        "seed": brief.seed,
        "base": outcome_to_json(brief.base),
        "horizon": to_number(brief.horizon),
        "eval_every": brief.eval_every,
        "select": brief.select,
        "average": brief.average,
        "params": {} if brief.params is None else dataclasses.asdict(brief.params),
        **_later(brief),
    }


def _later(of: Any) -> Json:
    """The fields marked LATER that differ from their default, with their values; older journals do not have them."""
    marked = [field for field in dataclasses.fields(of) if field.metadata == LATER]
    return {field.name: _plain(getattr(of, field.name)) for field in marked if getattr(of, field.name) != field.default}


def _plain(value: Any) -> Any:
    """The value as JSON gives it back."""
    if isinstance(value, Anneal | Teacher):
        return {name: _plain(field) for name, field in dataclasses.asdict(value).items()}
    return [_plain(each) for each in value] if isinstance(value, tuple) else value


def brief_from_json(data: Json, params: Any = None) -> Brief:
    """The brief; `params` is the method's own dataclass, whose type the JSON does not state."""
    return Brief(
        tasks=tuple(data["tasks"]),
        sizes=tuple(data["sizes"]),
        validation_sizes=tuple(data["validation_sizes"]),
        batch_size=data["batch_size"],
        seed=data["seed"],
        base=outcome_from_json(data["base"]),
        horizon=float(data["horizon"]),
        eval_every=data["eval_every"],
        select=data["select"],
        average=data["average"],
        score_excluded=data.get("score_excluded", "rollout"),
        pools=tuple(data["pools"]) if "pools" in data else None,
        candidates=data.get("candidates", "decisions"),
        record=data.get("record", False),
        whole=tuple(data["whole"]) if "whole" in data else None,
        held=tuple(data["held"]) if "held" in data else None,
        aggregate=data.get("aggregate"),
        params=params,
    )


def differences(was: Any, now: Any) -> list[str]:
    """The differences between two JSON values, one line per leaf: ``brief.sizes[2] was 300, is now 299``."""
    return [f"{dotted(path)} was {old!r}, is now {new!r}" for path, old, new in changed(was, now)]


def changed(was: Any, now: Any, path: KeyPath = ()) -> list[tuple[KeyPath, Any, Any]]:
    """The leaves in which two JSON values differ, each as (path, old value, new value); a missing value is None."""
    if isinstance(was, dict) and isinstance(now, dict):
        return [
            entry for key in sorted(was.keys() | now.keys())
            for entry in changed(was.get(key), now.get(key), (*path, key))
        ]  # fmt: skip
    if isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        return [
            entry for i, pair in enumerate(zip(was, now, strict=True)) for entry in changed(*pair, (*path, i))
        ]  # fmt: skip
    return [] if was == now else [(path, was, now)]


def dotted(path: KeyPath) -> str:
    """The path as text, such as ``brief.sizes[2]``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
