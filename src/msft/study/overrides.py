"""Changes that studies make to a configuration."""

from __future__ import annotations

from pydantic import TypeAdapter

from msft.config.dataset_section import DatasetConfig
from msft.config.method_section import MethodConfig, resolve
from msft.config.problems import ProblemsError
from msft.config.schema import Config
from msft.core.errors import ConfigError, complaint
from msft.methods import METHODS

COMMON = ("max_epochs", "eval_every", "average", "score_excluded")
"""Keys that every method takes from the configuration's `method` section, unless its preset sets them."""


def with_method(config: Config, name: str, preset: str = "", /, **changes: object) -> Config:
    """The configuration with another method. If `name` is its own method, without a preset, it keeps its settings.

    Raises ConfigError if a changed value is not allowed.
    """
    own = config.method
    if name == own.name and not preset:
        section = own.as_dict() | changes
    else:
        fixed = METHODS[name].presets[preset] if preset else next(iter(METHODS[name].presets.values()))
        common = {key: getattr(own, key) for key in COMMON if key not in fixed and getattr(own, key) is not None}
        section = {"name": name, **({"preset": preset} if preset else {}), **common, **changes}
    return config.model_copy(update={"method": resolved(section)})


def with_average(config: Config, name: str) -> Config:
    """The configuration with another method, a constant rate, and weights averaged over its own window, or an epoch."""
    changed = with_method(config, name)
    window = config.training.average or 1.0
    training = changed.training.model_copy(update={"schedule": "constant", "average": window})
    return changed.model_copy(update={"training": training})


def resolved(section: dict[str, object]) -> MethodConfig:
    """A method section. Raises ConfigError."""
    try:
        # Convert to plain JSON types, as read from a file: a resolved section may contain tuples.
        return resolve(TypeAdapter(dict[str, object]).dump_python(section, mode="json"))
    except ProblemsError as error:
        found = f"{section['name']}: {error}"
        raise ConfigError(complaint(found, "change the method section", field="method")) from None


def with_datasets(config: Config, datasets: tuple[DatasetConfig, ...]) -> Config:
    return config.model_copy(update={"datasets": datasets})


def search(config: Config, **changes: object) -> Config:
    """mSFT with the configuration's settings, or, if that is another method, with the default preset."""
    return with_method(config, "msft", **changes)


def horizon(config: Config) -> float:
    """The limit on epochs. Raises ConfigError if there is none: all runs of a study must have the same limit."""
    if config.method.max_epochs is None:
        found = f"the preset {config.method.preset} sets no max_epochs"
        raise ConfigError(
            complaint(found, "set method.max_epochs, which all runs of a study share", field="method.max_epochs")
        )
    return config.method.max_epochs
