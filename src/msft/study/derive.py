"""Variants that take a number from another variant's run of the same seed, such as its exclusion times or its FLOPs."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import replace

from msft.config.schema import Config
from msft.core.clock import Clock
from msft.core.vocabulary import Mixture
from msft.record.run_folder import RunFolder
from msft.report.cost import flops
from msft.report.story import Story, read_story
from msft.study.reading import left_at


def equal_flops(config: Config, of: RunFolder) -> Config:
    """SFT with the number of steps whose FLOPs, scoring and test included, are closest to those of the run `of`."""
    story = read_story(of)
    method = config.method
    clock = Clock.of(replace(story.brief, eval_every=method.eval_every))
    mixture = Mixture(tasks=story.tasks)
    per_epoch, scored = _tokens_per_epoch(story, mixture), story.brief.base.tokens.eval
    fixed = scored + sum(outcome.tokens.eval for outcome in story.test.values())
    target = sum(flops(story).values()) / story.header["model"]["parameters"]

    def cost(steps: int) -> float:
        """FLOPs per parameter: 6 per trained token, 2 per scored token (design 3.13)."""
        return 6 * per_epoch * clock.epochs(mixture, steps) + 2 * (fixed + scored * len(clock.ticks(mixture, steps)))

    affordable = int(target / (6 * clock.epochs(mixture, 1) * per_epoch)) + 1
    steps = 1 + bisect_left(range(1, affordable + 1), target, key=cost)
    if steps > 1 and target - cost(steps - 1) <= cost(steps) - target:
        steps -= 1
    return _with_method(config, max_epochs=clock.epochs(mixture, steps))


def first_rollout(config: Config, of: RunFolder) -> Config:
    """SFT that ends where the first roll-out of the run `of`, one of auto, ended: its early end, and no second run.

    With a warm-up, which is a share of `max_epochs`, the warm-up is shorter too.
    """
    return _with_method(config, max_epochs=read_story(of).rollouts[0].end.epoch)


def exclusion_times(config: Config, of: RunFolder) -> Config:
    """Placebo with the times at which the run `of`, an mSFT search, excluded each sub-dataset."""
    return _with_method(config, params=replace(config.method.params, times=left_at(read_story(of))))


RULES: dict[str, Callable[[Config, RunFolder], Config]] = {
    "equal_flops": equal_flops,
    "exclusion_times": exclusion_times,
    "first_rollout": first_rollout,
}


def _with_method(config: Config, **changes: object) -> Config:
    return config.model_copy(update={"method": replace(config.method, **changes)})  # type: ignore[arg-type]


def _tokens_per_epoch(story: Story, whole: Mixture) -> float:
    """Trained tokens in an epoch of the whole mixture, from the segments that trained it."""
    trained = [(s, o) for s, o in story.segments if s.trains and s.mixture == whole]
    steps = sum(segment.stop - segment.start for segment, _ in trained)
    return sum(outcome.tokens.train for _, outcome in trained) * story.trail.clock.steps_per_epoch(whole) / steps
