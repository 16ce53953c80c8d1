"""The names that `msft compare --methods` accepts, and the configuration of each (design 1, 5)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from msft.config.method_section import resolve
from msft.config.problems import one_of
from msft.config.schema import Config
from msft.config.temperature import TemperatureConfig
from msft.core.errors import ConfigError, complaint
from msft.methods import METHODS
from msft.report.words import listed
from msft.study.grid import Variant
from msft.study.overrides import resolved, with_average, with_method

EARLY = 4
"""Number of ticks after the best macro-average after which `sro_early` ends its first run."""
TEMPERATURE = 2.0
"""That of `temperature`: numbers of examples in proportion to the square roots of the sizes. The multilingual
literature takes 5 (arXiv 1907.05019); T5's mixtures took 2, 4 and 8 (arXiv 1910.10683)."""


def variants(config: Config, names: Sequence[str]) -> tuple[Variant, ...]:
    """The variants of these names, ordered so that each comes after the variant on which it depends.

    The configuration's own method keeps its settings. Another method has its defaults, or those of its preset, with
    the limit on epochs, the ticks and the average of the configuration. Raises ConfigError for a name that is unknown
    or given twice.
    """
    wanted = list(dict.fromkeys(everything() if list(names) == ["all"] else names))
    if "all" in wanted or (list(names) != ["all"] and len(wanted) < len(names)):
        found = f"--methods {','.join(names)} names a method twice, or all and others"
        raise ConfigError(complaint(found, "name each method once, or all only"))
    made = [_variant(config, name, wanted) for name in wanted]
    return tuple(sorted(made, key=lambda variant: variant.after is not None))


def everything() -> list[str]:
    """The names in `--methods all`: every known method, its other presets, and the controls."""
    presets = {
        name: [f"{name}:{preset}" for preset in list(method.presets)[1:] if name not in CONTROLS]
        for name, method in METHODS.items()
    }
    return [*(entry for name, more in presets.items() for entry in (name, *more)),
            *(name for name in CONTROLS if name not in METHODS)]  # fmt: skip


def ignored(config: Config, names: Sequence[str]) -> list[str]:
    """Notes about settings of the configuration that do not apply to every method of the list."""
    own = config.method
    standard = resolve({"name": own.name, "preset": own.preset})
    said = [
        field.name
        for field in dataclasses.fields(own.params)
        if getattr(own.params, field.name) != getattr(standard.params, field.name)
    ]
    applies = {own.name, f"{own.name}_decay", f"{own.name}_average", *(["placebo"] if own.name == "msft" else [])}
    others = [name for name in names if name not in applies]
    notes = []
    if said and others:
        named = listed([f"method.{key}" for key in said])
        notes.append(f"Note: {named} {'applies' if len(said) == 1 else 'apply'} to {own.name} only.")
    if config.training.schedule != "constant":
        notes.append(
            f"Note: the learning rate follows a {config.training.schedule} schedule over max_epochs. Methods that end "
            "earlier do not reach its end; a constant rate treats all methods equally."
        )
    return notes


def _variant(config: Config, name: str, names: Sequence[str]) -> Variant:
    if name in CONTROLS:
        return CONTROLS[name](config, names)
    method, _, preset = name.partition(":")
    known = [*METHODS, *(f"{m}:{p}" for m, entry in METHODS.items() for p in entry.presets if len(entry.presets) > 1)]
    if name not in known:
        fix = one_of(name, dict.fromkeys([*known, *CONTROLS, "all"]))
        raise ConfigError(complaint(f"--methods: found {name!r}", fix))
    if METHODS[method].averaged:
        return Variant(name=name, config=with_average(config, method))
    return Variant(name=name, config=with_method(config, method, preset))


def _equal_flops(config: Config, names: Sequence[str]) -> Variant:
    reference = _search(config, names, "sft_equal_flops")
    return Variant(name="sft_equal_flops", config=with_method(config, "sft"), after=reference, rule="equal_flops")


def _decay(config: Config, method: str) -> Variant:
    """With a rate that decays linearly to 0 at the limit on epochs, without averaged weights; a roll-back raises it
    again."""
    changed = with_method(config, method)
    training = changed.training.model_copy(update={"schedule": "linear", "average": None})
    return Variant(name=f"{method}_decay", config=changed.model_copy(update={"training": training}))


def _wsd(config: Config, _: Sequence[str]) -> Variant:
    """Its cooldown is the alternative to averaged weights, and needs a constant rate; the configuration's own method
    keeps its averages."""
    changed = with_method(config, "wsd")
    average = config.training.average if config.method.name == "wsd" else None
    training = changed.training.model_copy(update={"schedule": "constant", "average": average})
    return Variant(name="wsd", config=changed.model_copy(update={"training": training}))


def _temperature(config: Config, _: Sequence[str]) -> Variant:
    """SFT that draws at a temperature, as multilingual models are trained."""
    changed = with_method(config, "sft")
    data = changed.data.model_copy(update={"mixing": TemperatureConfig(temperature=TEMPERATURE)})
    return Variant(name="temperature", config=changed.model_copy(update={"data": data}))


def _average(config: Config, method: str) -> Variant:
    """With averaged weights at a constant rate."""
    return Variant(name=f"{method}_average", config=with_average(config, method))


def _auto_placebo(config: Config, _: Sequence[str]) -> Variant:
    made = with_average(config, "auto")
    return Variant(name="auto_placebo", config=with_method(made, "auto", peaks="random"))


def _average_like_auto(config: Config, names: Sequence[str], name: str, rule: str) -> Variant:
    """SFT with averaged weights, for as long as a rule takes from the auto run."""
    _needed(names, name, "auto")
    return Variant(name=name, config=with_average(config, "sft"), after="auto", rule=rule)


def _average_placebo(config: Config, names: Sequence[str]) -> Variant:
    """The exclusion times of the list's averaged mSFT, assigned to random sub-datasets, with averaged weights."""
    _needed(names, "msft_average_placebo", "msft_average")
    made = with_average(config, "msft")
    section = made.method.as_dict() | {"name": "placebo"}
    changed = made.model_copy(update={"method": resolved(section)})
    return Variant(name="msft_average_placebo", config=changed, after="msft_average", rule="exclusion_times")


def _needed(names: Sequence[str], control: str, reference: str) -> None:
    if reference not in names:
        found = f"--methods: {control} needs {'an' if reference[0] in 'am' else 'a'} {reference} run, and there is none"
        raise ConfigError(complaint(found, f"add {reference}"))


def _early(config: Config, _: Sequence[str]) -> Variant:
    return Variant(name="sro_early", config=with_method(config, "sro", stop_after=EARLY))


def _placebo(config: Config, names: Sequence[str]) -> Variant:
    """The placebo of the list's mSFT; without mSFT in the list, it runs the search itself."""
    search = next((name for name in names if name.split(":")[0] == "msft"), None)
    if search is None:
        return Variant(name="placebo", config=with_method(config, "placebo"))
    of = _variant(config, search, names).config.method
    section = of.as_dict() | {"name": "placebo"}
    changed = config.model_copy(update={"method": resolved(section)})
    return Variant(name="placebo", config=changed, after=search, rule="exclusion_times")


def _search(config: Config, names: Sequence[str], control: str) -> str:
    """The mSFT of the list on which a control depends: the first one."""
    found = next((name for name in names if name.split(":")[0] == "msft"), None)
    if found is None:
        raise ConfigError(complaint(f"--methods: {control} needs an msft run, and there is none", "add msft"))
    return found


CONTROLS: dict[str, Callable[[Config, Sequence[str]], Variant]] = {
    "sft_equal_flops": _equal_flops,
    "sft_decay": lambda config, _: _decay(config, "sft"),
    "sft_average": lambda config, _: _average(config, "sft"),
    "sft_average_equal_flops": lambda config, names: _average_like_auto(
        config, names, "sft_average_equal_flops", "equal_flops"
    ),
    "sft_average_early": lambda config, names: _average_like_auto(config, names, "sft_average_early", "first_rollout"),
    "auto_placebo": _auto_placebo,
    "msft_average": lambda config, _: _average(config, "msft"),
    "msft_average_placebo": _average_placebo,
    "msft_decay": lambda config, _: _decay(config, "msft"),
    "sro_early": _early,
    "temperature": _temperature,
    "wsd": _wsd,
    "placebo": _placebo,
}
