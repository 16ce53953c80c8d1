"""Generation on arrays that stay where they are says what growing ones say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from device import DEVICE
from test_generation import Letters, requests, runtime, theirs
from tiny_engine import tiny_model

from msft.engine.batched_decoding import fixed_decoding
from msft.engine.parallel import Processes
from msft.engine.settings import EngineSettings
from msft.engine.setup import deterministic, runtime_for
from msft.model import fixed_decoding as module
from msft.model.fixed_decoding import FixedSteps, fixed_steps
from msft.model.token_loss import TokenLoss
from msft.scoring.generation import Request, generate


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[FixedSteps]:
    """The steps that were made, however few tokens are to come."""
    found: list[FixedSteps] = []
    monkeypatch.setattr(module, "LEAST", 1)
    init = FixedSteps.__init__

    def noted(self: FixedSteps, *given: object) -> None:
        init(self, *given)  # type: ignore[arg-type]
        found.append(self)

    monkeypatch.setattr(FixedSteps, "__init__", noted)
    return found


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("budget", [1, 30, 10_000])
def test_the_texts_are_those_of_transformers(kind: str, budget: int, made: list[FixedSteps]) -> None:
    """Rows of other lengths, which end at other steps."""
    model = tiny_model(kind, dropout=0.3).to(DEVICE)
    model.generation_config.eos_token_id = None
    free = [theirs(model, request) for request in requests()]
    ends = tuple(sorted({tokens[at % 9] for at, tokens in enumerate(free)})[:4])
    cut = [next((at for at, token in enumerate(tokens) if token in ends), len(tokens)) for tokens in free]
    assert len(set(cut)) > 2, "a test of nothing"
    found, count = generate(TokenLoss(model), requests(ends=ends), Letters(), runtime(budget, steps=fixed_steps))
    assert found == [Letters().decode(tokens[:at]) for tokens, at in zip(free, cut, strict=True)]
    growing = generate(TokenLoss(model), requests(ends=ends), Letters(), runtime(budget))
    assert (found, count) == growing
    assert made, "all of it came from growing arrays"


def test_a_finished_row_takes_no_more_positions(made: list[FixedSteps]) -> None:
    """Learned positions end where the longest row does: a row that has ended may not go beyond."""
    model = tiny_model("gpt2").to(DEVICE)
    most = model.config.n_positions
    long = Request(
        prompt=np.full(most - 2, 3, np.int32), ends=frozenset(), stop=(), max_new_tokens=3
    )  # its last token is never read
    short = Request(prompt=np.full(2, 4, np.int32), ends=frozenset(), stop=(), max_new_tokens=most - 3)
    asked = [long, short]
    expected = [Letters().decode(theirs(model, request)) for request in asked]
    assert generate(TokenLoss(model), asked, Letters(), runtime(10_000, steps=fixed_steps))[0] == expected
    assert len(made) == 1


@pytest.mark.parametrize(("kind", "fits"), [("llama", True), ("gpt2", True), ("gemma2", False)])
def test_whether_a_model_takes_it_is_tried(kind: str, fits: bool) -> None:
    assert fixed_decoding(tiny_model(kind), None, torch.device("cpu")) is fits


def test_a_window_that_no_row_fills_is_none() -> None:
    assert fixed_decoding(tiny_model("gemma2"), 30, torch.device("cpu")) is True


def test_other_likelihoods_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache that writes each token over the last."""
    compute = FixedSteps._compute

    def stays(self: FixedSteps) -> tuple[torch.Tensor, torch.Tensor]:
        found = compute(self)
        self._at.sub_(1)
        return found

    monkeypatch.setattr(FixedSteps, "_compute", stays)
    model = tiny_model("llama")
    model.config.rope_theta = 20_000.0  # what a twin of this model shows is not known yet
    assert fixed_decoding(model, None, torch.device("cpu")) is False


def test_few_tokens_and_other_models_are_left_as_they_are() -> None:
    model = tiny_model().to(DEVICE)
    few = [Request(prompt=np.array([1, 2], np.int32), ends=frozenset(), stop=(), max_new_tokens=module.LEAST - 1)]
    seen: list[object] = []

    def steps(*given: object) -> FixedSteps | None:
        seen.append(found := fixed_steps(*given))  # type: ignore[arg-type]
        return found

    generate(TokenLoss(model), few, Letters(), runtime(steps=steps))
    assert seen == [None]


class StandIn:
    """A CUDA graph without CUDA: recording leaves everything as it was, a replay does the work into the same arrays."""

    def __init__(self, steps: FixedSteps, *, wrong: bool) -> None:
        self.steps, self.wrong, self.replays = steps, wrong, 0

    @contextmanager
    def recording(self, graph: object) -> Iterator[None]:
        reading = self.steps._reading
        arrays = [self.steps._at, reading.positions, reading.mask]
        arrays += [array for layer in reading.cache.layers for array in (layer.keys, layer.values)]
        before = [array.clone() for array in arrays]
        yield
        for array, was in zip(arrays, before, strict=True):
            array.copy_(was)

    def replay(self) -> None:
        self.replays += 1
        assert self.steps._found is not None
        for array, found in zip(self.steps._found, self.steps._compute(), strict=True):
            array.copy_(found + 100 * self.wrong)


@pytest.fixture
def recorded(made: list[FixedSteps], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> list[StandIn]:
    """All steps are recorded, by stand-ins; with the parameter True, those give wrong numbers."""
    graphs: list[StandIn] = []
    init = FixedSteps.__init__

    def records(self: FixedSteps, *given: object) -> None:
        init(self, *given)  # type: ignore[arg-type]
        self._records = True
        graphs.append(graph := StandIn(self, wrong=request.param))
        monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: graph)
        monkeypatch.setattr(module, "recording", graph.recording)

    monkeypatch.setattr(FixedSteps, "__init__", records)
    return graphs


@pytest.mark.parametrize("recorded", [False, True], indirect=True)
def test_a_step_that_was_recorded_is_taken_once(recorded: list[StandIn], made: list[FixedSteps]) -> None:
    """It is computed both ways; other numbers are not used."""
    model = tiny_model().to(DEVICE)
    model.generation_config.eos_token_id = None
    expected = [Letters().decode(theirs(model, request)) for request in requests(most=12)]
    assert generate(TokenLoss(model), requests(most=12), Letters(), runtime(10_000, steps=fixed_steps))[0] == expected
    (graph,) = recorded
    # 11 steps after the first token, of which 2 warm up.
    assert graph.replays == (1 if graph.wrong else 9)
    assert [bool(each.refused) for each in made] == [graph.wrong]
    assert made[0]._loss.records_steps is not graph.wrong, "the next batch need not find out again"


@pytest.mark.parametrize("recorded", [False], indirect=True)
def test_the_trial_reads_what_a_replay_gives(recorded: list[StandIn]) -> None:
    model = tiny_model("llama")
    model.config.rope_theta = 30_000.0  # what a twin of this model shows is not known yet
    assert fixed_decoding(model, None, torch.device("cpu")) is True
    assert recorded[0].replays > 5


@pytest.mark.parametrize(
    ("kind", "more", "used"),
    [
        ("llama", {"lengths": True}, True),
        ("llama", {"lengths": True, "cuda_graphs": False}, False),
        ("gemma2", {"lengths": True}, False),
        ("llama", {}, False),
    ],
)
def test_where_a_run_generates_so(kind: str, more: dict[str, Any], used: bool) -> None:
    """On a GPU; `lengths` treats a CPU as one."""
    settings = EngineSettings(seed=1, batch_size=4, horizon=1, learning_rate=1e-3, light=False, **more)
    processes = Processes()
    found, _ = runtime_for(processes, settings, TokenLoss(tiny_model(kind).to(processes.device)), generates=True)
    assert (found.steps is fixed_steps) is (used or (processes.device.type == "cuda" and not more))


@pytest.mark.gpu
def test_a_step_of_generation_is_recorded_and_repeated(made: list[FixedSteps]) -> None:
    """Rows end at other steps; in fp32, the texts are those of arrays that grow. Deterministic, as runs are."""
    deterministic(DEVICE, EngineSettings(seed=1, batch_size=4, horizon=1, learning_rate=1e-3))
    model = tiny_model().to(DEVICE)
    model.generation_config.eos_token_id = None
    asked = requests(most=40, ends=(3, 5))
    fixed, growing = (
        generate(TokenLoss(model), asked, Letters(), runtime(10_000, steps=s)) for s in (fixed_steps, None)
    )
    assert fixed == growing
    generate(TokenLoss(model.to(torch.bfloat16)), asked, Letters(), runtime(10_000, steps=fixed_steps))
    assert len(made) == 2 and all(each._graph is not None for each in made), [each.refused for each in made]
    assert fixed_decoding(tiny_model(), None, DEVICE)
