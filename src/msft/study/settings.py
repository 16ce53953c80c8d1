"""Changes to a configuration that studies make."""

from __future__ import annotations

from pydantic import TypeAdapter

from msft.config.method import resolve
from msft.config.problems import ProblemsError
from msft.config.schema import Config, DatasetConfig
from msft.core.errors import ConfigError, complaint

COMMON = ("horizon", "eval_every", "average")
"""What every method takes from the configuration's own `method` section."""


def with_method(config: Config, name: str, **changes: object) -> Config:
    """The configuration with this method: its own settings where it is the configuration's, and these changes.

    Raises ConfigError where a changed value is not allowed.
    """
    own = config.method
    if name == own.name:
        section = own.as_dict() | changes
    else:
        common = {key: getattr(own, key) for key in COMMON if getattr(own, key) is not None}
        section = {"name": name, **common, **changes}
    try:
        # As from a file: a resolved section may hold tuples.
        method = resolve(TypeAdapter(dict[str, object]).dump_python(section, mode="json"))
    except ProblemsError as error:
        raise ConfigError(complaint(f"{name}: {error}", "change the method section", field="method")) from None
    return config.model_copy(update={"method": method})


def with_datasets(config: Config, datasets: tuple[DatasetConfig, ...]) -> Config:
    return config.model_copy(update={"datasets": datasets})


def search(config: Config, **changes: object) -> Config:
    """mSFT as the configuration says, or, where that is another method, its default preset."""
    return with_method(config, "msft", **changes)


def horizon(config: Config) -> float:
    """Raises ConfigError where the method has none: a study needs an end that all its runs share."""
    if config.method.horizon is None:
        found = f"the preset {config.method.preset} has no horizon"
        raise ConfigError(complaint(found, "give method.horizon: a study's runs share one", field="method.horizon"))
    return config.method.horizon
