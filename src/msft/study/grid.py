"""The runs of a study and its folder: a grid of variants and seeds, recorded before the first run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from msft.config.as_begun import as_begun
from msft.config.problems import not_portable
from msft.config.reader import flatten, without_later_defaults
from msft.config.schema import Config
from msft.core.errors import ConfigError, RunError, complaint
from msft.core.wire import differences, today
from msft.record.journal import canonical
from msft.record.run_folder import LOCK, STUDY, RunFolder
from msft.system import files

VERSION = 1
"""Version of study.json; increased when studies of an older version can no longer be continued."""
MOST = 6
"""Maximum number of differences in one message."""
BEGAN_WITH = "began_with"
"""The key of the record with the seeds of its first grid, where there are more now."""
SHARED_SECTIONS = ("model.", "datasets.", "data.", "peft", "training.max_tokens_per_microbatch")
"""The settings on which data and base scores depend."""


def folder_name(variant: str) -> str:
    return variant.replace(":", "-")


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One row of the grid: a configuration that is run with every seed.

    `config`: its `output` and `training.seed` are replaced. `after` and `rule`: some variants take a number from
    another variant's run of the same seed (`msft.study.derive.RULES`), and therefore run after it.
    """

    name: str
    config: Config
    after: str | None = None
    rule: str | None = None

    def __post_init__(self) -> None:
        assert (self.after is None) == (self.rule is None), "a rule derives from a run"
        assert not_portable(self.folder) is None or self.folder[:1].isalnum(), f"{self.name} cannot name a folder"

    @property
    def folder(self) -> str:
        return folder_name(self.name)


@dataclass(frozen=True, kw_only=True)
class Grid:
    """All runs of a study: each variant with each training seed.

    `kind`: the purpose of the study, such as `compare`; a folder holds one kind and one grid.
    """

    kind: str
    variants: tuple[Variant, ...]
    seeds: tuple[int, ...]
    redraw: bool = False
    """Whether a seed also draws its own rows and splits (`data.seed`), so that differences between seeds hold the
    variation of the data too."""

    def seeded(self, config: Config, seed: int) -> Config:
        """The configuration with this seed."""
        changed: dict[str, Any] = {"training": config.training.model_copy(update={"seed": seed})}
        if self.redraw:
            changed["data"] = config.data.model_copy(update={"seed": seed})
        return config.model_copy(update=changed)

    def __post_init__(self) -> None:
        if any(variant.config.method.refit for variant in self.variants):
            found = "studies read validation scores of final models, and after a run on all rows there are none"
            raise ConfigError(complaint(found, "add --set method.refit=false", field="method.refit"))
        if any(variant.config.aggregate is not None for variant in self.variants):
            found = "studies compare methods by the scores of sub-datasets, and here an aggregate chooses"
            raise ConfigError(complaint(found, "add --set aggregate=null", field="aggregate"))
        names = [variant.name for variant in self.variants]
        assert len({variant.folder for variant in self.variants}) == len(names), "variants need distinct names"
        assert all(v.after is None or v.after in names[:i] for i, v in enumerate(self.variants)), "order of variants"

    def to_json(self) -> dict[str, Any]:
        return {
            "version": VERSION,
            "kind": self.kind,
            "seeds": list(self.seeds),
            **({"redraw": True} if self.redraw else {}),
            "variants": {
                variant.name: {"config": _settings(variant.config), "after": variant.after, "rule": variant.rule}
                for variant in self.variants
            },
        }


@dataclass(frozen=True, slots=True)
class StudyFolder:
    """The files of a study. Only this class defines their names."""

    path: Path

    @property
    def record(self) -> Path:
        return self.path / STUDY

    @property
    def failures(self) -> Path:
        return self.path / "failures.json"

    @property
    def workers(self) -> Path:
        """A file on which every worker process holds a shared lock until it ends."""
        return self.path / "workers.lock"

    @property
    def comparison(self) -> Path:
        return self.path / "comparison.json"

    @property
    def table(self) -> Path:
        return self.path / "comparison.csv"

    @property
    def markdown(self) -> Path:
        return self.path / "comparison.md"

    @property
    def findings(self) -> Path:
        return self.path / "findings.json"

    @property
    def findings_table(self) -> Path:
        return self.path / "findings.csv"

    @property
    def page(self) -> Path:
        return self.path / "report.html"

    def run(self, variant: Variant | str, seed: int) -> RunFolder:
        """The run folder of a variant, given itself or by name."""
        name = variant if isinstance(variant, str) else variant.name
        return RunFolder(self.path / "runs" / folder_name(name) / str(seed))

    def base(self, config: Config, threads: int) -> Path:
        """The file of the base model's scores for all configurations with this model and data."""
        return self.path / "base" / f"{sharing_key(config, threads)}.json"

    def continued(self, grid: Grid) -> Grid:
        """The grid with the `score_excluded` with which the folder's study was begun, where the grid leaves it open.

        What `auto` means is then the same in all its runs; a study of version 0.1 goes on with `rollout`, its default.
        """
        if not self.record.exists():
            return grid
        was = {name: c.get("method.score_excluded", "rollout") for name, c in self.recorded_configs().items()}
        variants = (replace(v, config=as_begun(v.config, was[v.name])) if v.name in was else v for v in grid.variants)
        return replace(grid, variants=tuple(variants))

    def check(self, grid: Grid) -> None:
        """Raises RunError if the folder holds something else, or a study that this grid does not contain: it may have
        more variants and seeds. Writes nothing."""
        if self.record.exists():
            was, now = self._recorded(), json.loads(json.dumps(grid.to_json()))
            names = [name for name in was["variants"] if name not in now["variants"]]
            seeds = [str(seed) for seed in was["seeds"] if seed not in now["seeds"]]
            if names or seeds:
                lacking = " and ".join(
                    [*names, *([f"seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}"] if seeds else [])]
                )
                fix = "ask for all of it, and for more if you like, or name another folder"
                raise RunError(complaint(f"this study also holds {lacking}", fix, file=self.path))
            for variant in was["variants"].values():  # version 0.1 recorded every default
                variant["config"] = without_later_defaults(variant["config"])
            for variant in [*was["variants"].values(), *now["variants"].values()]:  # in the words of a configuration
                variant["config"] = today(variant["config"])
            now["variants"] = {name: now["variants"][name] for name in was["variants"]}
            ignored = {"threads", "seeds", BEGAN_WITH}
            if changed := differences(*({k: v for k, v in each.items() if k not in ignored} for each in (was, now))):
                listed = "; ".join(changed[:MOST]) + (f"; and {len(changed) - MOST} more" if changed[MOST:] else "")
                fix = "undo the change, or name another folder"
                raise RunError(complaint(f"this study was started with another grid: {listed}", fix, file=self.path))
            return
        # A start that was interrupted before the grid was recorded leaves these files only.
        ours = {LOCK, self.workers.name, self.record.name}
        if self.path.exists() and not (self.path.is_dir() and files.holds_only(self.path, ours)):
            raise RunError(complaint("this is not an empty folder", "name another folder", file=self.path))

    def threads(self, default: int) -> int:
        """Threads of each run, on which the last bits depend: those that the study was begun with."""
        return int(self._recorded()["threads"]) if self.record.exists() else default

    def adopt(self, grid: Grid, threads: int) -> None:
        """Records the grid, which `check` has passed, and the threads per run."""
        was = self._recorded() if self.record.exists() else {}
        now = {**grid.to_json(), "threads": threads}
        if was and (BEGAN_WITH in was or was["seeds"] != now["seeds"]):
            now[BEGAN_WITH] = was.get(BEGAN_WITH, was["seeds"])
        if not was or (was["seeds"], list(was["variants"])) != (now["seeds"], list(now["variants"])):
            files.replace("study", self.record, json.dumps(now, indent=1, ensure_ascii=False).encode())

    @property
    def began_with(self) -> list[int] | None:
        """The seeds that the study was begun with, if more were added later."""
        return self._recorded().get(BEGAN_WITH)

    @property
    def holds_study(self) -> bool:
        """Whether a study was started in the folder."""
        return self.record.is_file()

    @property
    def kind(self) -> str:
        """`compare`, or `study NAME`: the command that made the folder. Raises RunError if its record is damaged."""
        return str(self._recorded()["kind"])

    def recorded_grid(self) -> tuple[list[str], list[int]]:
        """Names of the variants, and seeds, of the recorded grid. Raises RunError if there is none."""
        recorded = self._recorded()
        return list(recorded["variants"]), list(recorded["seeds"])

    @property
    def redrawn(self) -> bool:
        """Whether each seed draws its own rows and splits."""
        return bool(self._recorded().get("redraw", False))

    def recorded_configs(self) -> dict[str, dict[str, Any]]:
        """Variant to its recorded settings: dotted key to value."""
        return {name: dict(variant["config"]) for name, variant in self._recorded()["variants"].items()}

    def read_failures(self) -> dict[str, dict[str, str]]:
        """Variant to seed to the message of a run that failed, and was not finished later."""
        if not self.failures.exists():
            return {}
        every: dict[str, dict[str, str]] = json.loads(self.failures.read_text(encoding="utf-8"))
        left = {
            name: {seed: said for seed, said in by_seed.items() if not self.run(name, int(seed)).summary.exists()}
            for name, by_seed in every.items()
        }
        return {name: by_seed for name, by_seed in left.items() if by_seed}

    def write_failures(self, failures: Mapping[tuple[str, int], str]) -> None:
        listed: dict[str, dict[str, str]] = {}
        for (variant, seed), message in failures.items():
            listed.setdefault(variant, {})[str(seed)] = message
        files.replace("failures", self.failures, json.dumps(listed, indent=1, ensure_ascii=False).encode())

    def _recorded(self) -> dict[str, Any]:
        try:
            recorded: dict[str, Any] = json.loads(self.record.read_text(encoding="utf-8"))
            int(recorded["threads"])
            dict(recorded["variants"]), list(recorded["seeds"]), str(recorded["kind"])
        except (OSError, ValueError, KeyError, TypeError):
            fix = "restore the file from a copy, or name another folder"
            raise RunError(complaint("this record of a study cannot be read", fix, file=self.record)) from None
        return recorded


def sharing_key(config: Config, threads: int) -> str:
    """A key that is equal for all configurations that share data and base scores."""
    shared = {key: value for key, value in flatten(config).items() if key.startswith(SHARED_SECTIONS)}
    return hashlib.sha256(canonical({"config": shared, "threads": threads}).encode()).hexdigest()[:16]


def _settings(config: Config) -> dict[str, Any]:
    """All settings of a run except its seed and its folder."""
    return {key: value for key, value in flatten(config).items() if key not in {"output", "training.seed"}}
