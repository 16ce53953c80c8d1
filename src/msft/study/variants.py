"""The names that `msft compare --methods` takes, and the configuration behind each (design 1, 5)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from msft.config.method_section import resolve
from msft.config.problems import one_of
from msft.config.schema import Config
from msft.core.errors import ConfigError, complaint
from msft.methods import METHODS
from msft.study.grid import Variant
from msft.study.overrides import resolved, with_method

EARLY = 4
"""Ticks after the best macro-average at which `sro_early` ends its first run."""


def variants(config: Config, names: Sequence[str]) -> tuple[Variant, ...]:
    """The variants of these names, in such an order that each comes after the one that it follows.

    The configuration's own method is taken as it stands there; another one with its defaults, or its preset's, and the
    horizon, ticks and average of the configuration. Raises ConfigError for a name that is unknown, or given twice.
    """
    wanted = list(dict.fromkeys(everything() if list(names) == ["all"] else names))
    if "all" in wanted or (list(names) != ["all"] and len(wanted) < len(names)):
        found = f"--methods {','.join(names)} names a method twice, or all and others"
        raise ConfigError(complaint(found, "name each once, or all alone"))
    made = [_variant(config, name, wanted) for name in wanted]
    return tuple(sorted(made, key=lambda variant: variant.after is not None))


def everything() -> list[str]:
    """What `--methods all` stands for: every method that is known, its further presets, and the controls."""
    presets = {
        name: [f"{name}:{preset}" for preset in list(method.presets)[1:] if name not in CONTROLS]
        for name, method in METHODS.items()
    }
    return [*(entry for name, more in presets.items() for entry in (name, *more)),
            *(name for name in CONTROLS if name not in METHODS)]  # fmt: skip


def ignored(config: Config, names: Sequence[str]) -> list[str]:
    """What the configuration says that a method of the list takes no notice of, as notes for people."""
    own = config.method
    standard = resolve({"name": own.name, "preset": own.preset})
    said = [
        field.name
        for field in dataclasses.fields(own.params)
        if getattr(own.params, field.name) != getattr(standard.params, field.name)
    ]
    hears = {own.name, f"{own.name}_decay", *(["placebo"] if own.name == "msft" else [])}
    deaf = [name for name in names if name not in hears]
    notes = []
    if said and deaf:
        notes.append(f"{', '.join(said)}: set for {own.name} in the configuration, not for {', '.join(deaf)}")
    if config.training.schedule != "constant":
        notes.append(
            f"the learning rate is a {config.training.schedule} function of position / horizon: methods that end "
            "before the horizon never see its end; a constant rate treats all alike"
        )
    return notes


def _variant(config: Config, name: str, names: Sequence[str]) -> Variant:
    if name in CONTROLS:
        return CONTROLS[name](config, names)
    method, _, preset = name.partition(":")
    known = [*METHODS, *(f"{m}:{p}" for m, entry in METHODS.items() for p in entry.presets if len(entry.presets) > 1)]
    if name not in known:
        raise ConfigError(complaint(f"--methods: found {name!r}", one_of(name, [*known, *CONTROLS, "all"])))
    return Variant(name=name, config=with_method(config, method, preset))


def _equal_flops(config: Config, names: Sequence[str]) -> Variant:
    reference = _search(config, names, "sft_equal_flops")
    return Variant(name="sft_equal_flops", config=with_method(config, "sft"), after=reference, rule="equal_flops")


def _decay(config: Config, method: str) -> Variant:
    """With a rate that falls linearly to 0 at the horizon; a roll-back takes it back up."""
    changed = with_method(config, method)
    training = changed.training.model_copy(update={"schedule": "linear"})
    return Variant(name=f"{method}_decay", config=changed.model_copy(update={"training": training}))


def _early(config: Config, _: Sequence[str]) -> Variant:
    return Variant(name="sro_early", config=with_method(config, "sro", stop_after=EARLY))


def _placebo(config: Config, names: Sequence[str]) -> Variant:
    """Without mSFT in the list it runs the search itself."""
    search = next((name for name in names if name.split(":")[0] == "msft"), None)
    if search is None:
        return Variant(name="placebo", config=with_method(config, "placebo"))
    of = _variant(config, search, names).config.method
    section = of.as_dict() | {"name": "placebo"}
    changed = config.model_copy(update={"method": resolved(section)})
    return Variant(name="placebo", config=changed, after=search, rule="exclusion_times")


def _search(config: Config, names: Sequence[str], control: str) -> str:
    """The mSFT of the list that a control is measured against: the first one."""
    found = next((name for name in names if name.split(":")[0] == "msft"), None)
    if found is None:
        raise ConfigError(complaint(f"--methods: {control} follows an msft run, and there is none", "add msft"))
    return found


CONTROLS: dict[str, Callable[[Config, Sequence[str]], Variant]] = {
    "sft_equal_flops": _equal_flops,
    "sft_decay": lambda config, _: _decay(config, "sft"),
    "msft_decay": lambda config, _: _decay(config, "msft"),
    "sro_early": _early,
    "placebo": _placebo,
}
