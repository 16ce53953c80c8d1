from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from device import DEVICE
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

from msft.data.examples import Example, Item, Measure
from msft.forward.batches import RowLayout
from msft.forward.runtime import NotFiniteError, Runtime, sequence_scores
from msft.forward.token_rows import row
from msft.model.attention import NAME
from msft.model.token_loss import TokenLoss
from msft.scoring.scorers import score, task_scores


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    torch.manual_seed(4)
    sizes = {"vocab_size": 30, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    made = LlamaForCausalLM(LlamaConfig(num_attention_heads=2, attention_dropout=0.3, eos_token_id=0, **sizes))
    for parameter in made.parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.4)
    return made.to(DEVICE)


def completed(prompt: list[int], completion: list[int]) -> Example:
    ids = np.array(prompt + completion, np.int32)
    return Example(ids=ids, trained=np.arange(len(ids)) >= len(prompt))


def log_likelihood(model: LlamaForCausalLM, example: Example) -> float:
    """By the model's own logits, one sequence alone."""
    ids = torch.from_numpy(example.ids.astype(np.int64)).to(DEVICE)
    with torch.no_grad():
        logits = model.eval()(input_ids=ids[None]).logits[0, :-1].double()
    taken = functional.log_softmax(logits, -1).gather(1, ids[1:, None])[:, 0]
    return float(taken[torch.from_numpy(example.trained[1:])].sum())


def items_of(random: np.random.Generator, options: int, count: int = 6) -> list[Item]:
    items = []
    for _ in range(count):
        prompt = random.integers(1, 30, int(random.integers(1, 9))).tolist()
        sequences = [
            completed(prompt, random.integers(1, 30, int(random.integers(1, 5))).tolist()) for _ in range(options)
        ]
        sizes = tuple(int(size) for size in random.integers(1, 20, options))
        items.append(Item(options=tuple(sequences), answer=int(random.integers(options)), option_bytes=sizes))
    return items


def loss_in(model: LlamaForCausalLM, layout: RowLayout) -> TokenLoss:
    model.set_attn_implementation(NAME if layout == "flat" else "sdpa")
    return TokenLoss(model)


@pytest.mark.parametrize("layout", ["padded", "branches", "flat"])
@pytest.mark.parametrize("normalize", ["none", "token", "byte"])
def test_choice_is_what_a_plain_computation_gives(model: LlamaForCausalLM, normalize: str, layout: RowLayout) -> None:
    items = items_of(np.random.default_rng(0), 4)
    measure = Measure(name="choice", normalize=normalize)  # type: ignore[arg-type]
    runtime = Runtime(device=DEVICE, max_tokens=50, layout=layout)
    found, tokens = score(loss_in(model, layout), {"a": (items, measure)}, runtime)
    soft, right = [], []
    for item in items:
        values = np.array([log_likelihood(model, option) for option in item.options])
        if normalize == "token":
            values = values / [option.targets for option in item.options]
        elif normalize == "byte":
            values = values / np.array(item.option_bytes)
        soft.append(math.exp(values[item.answer]) / sum(math.exp(value) for value in values))
        right.append(values[item.answer] == max(values))
    assert found["a"].items == pytest.approx(soft, rel=1e-4)
    assert found["a"].control == pytest.approx(np.mean(soft), rel=1e-4)
    assert found["a"].report == np.mean(right)
    whole = sum(len(option) - 1 for item in items for option in item.options)
    assert tokens < whole if layout != "padded" else tokens == whole


@pytest.mark.parametrize("layout", ["padded", "branches", "flat"])
def test_options_that_are_tied_in_bf16_only_are_told_apart(model: LlamaForCausalLM, layout: RowLayout) -> None:
    """Of a letter that is as likely as another, the earlier one would always win."""
    loss, random = loss_in(copy.deepcopy(model), layout), np.random.default_rng(6)
    with torch.no_grad():
        loss.model.lm_head.weight.mul_(0.01).add_(loss.model.lm_head.weight[:1] * 200)  # of about the same likelihood
    loss.ends_with_head = True
    prompts = [random.integers(1, 30, 5).tolist() for _ in range(40)]
    items = [Item(options=tuple(completed(one, [k]) for k in (3, 7, 11, 15)), answer=0) for one in prompts]
    runtime = Runtime(device=DEVICE, max_tokens=300, layout=layout, bf16=True)
    groups = [item.options for item in items]
    found = sequence_scores(loss, groups, runtime, exact=True)
    rounded, exact = (each.reshape(40, 4) for each in (-found.nll, found.lost - found.nll))
    tied = (np.sort(rounded)[:, -1] == np.sort(rounded)[:, -2]).sum()
    assert tied > 10 and (np.sort(exact)[:, -1] > np.sort(exact)[:, -2]).all()
    scores, _ = score(loss, {"a": (items, Measure(name="choice"))}, runtime)
    assert scores["a"].reported == tuple((exact.argmax(1) == 0).astype(float))
    assert not sequence_scores(loss, groups, runtime).lost.any(), "not asked for"


def test_exact_match_is_what_greedy_decoding_gives(model: LlamaForCausalLM) -> None:
    random = np.random.default_rng(1)
    items, matches = [], []
    for number in range(8):
        prompt = random.integers(1, 30, 4).tolist()
        with torch.no_grad():
            generated = model.eval().generate(
                torch.tensor([prompt], device=DEVICE),
                max_new_tokens=3,
                do_sample=False,
                eos_token_id=29,
                pad_token_id=29,
            )
        completion = generated[0, 4:].tolist()
        if number % 2:
            completion[-1] = (completion[-1] + 1) % 29
        matches.append(number % 2 == 0)
        items.append(Item(options=(completed(prompt, completion),)))
    found, _ = score(
        TokenLoss(model), {"a": (items, Measure(name="exact_match"))}, Runtime(device=DEVICE, max_tokens=50)
    )
    expected = [log_likelihood(model, item.options[0]) / item.options[0].targets for item in items]
    assert found["a"].report == np.mean(matches) == 0.5
    assert found["a"].items == pytest.approx(expected, rel=1e-4)
    assert found["a"].control == pytest.approx(math.exp(np.mean(expected)), rel=1e-4)


def test_loss_reports_its_control_and_control_report_acts_on_the_report(model: LlamaForCausalLM) -> None:
    items = items_of(np.random.default_rng(2), 1)
    choices = items_of(np.random.default_rng(2), 3)
    asked = {
        "loss": (items, Measure(name="loss")),
        "match": (items, Measure(name="exact_match", control="report")),
        "choice": (choices, Measure(name="choice", control="report")),
    }
    found, _ = score(TokenLoss(model), asked, Runtime(device=DEVICE, max_tokens=50))
    assert found["loss"].control == found["loss"].report == pytest.approx(math.exp(np.mean(found["loss"].items)))
    for task in ("match", "choice"):
        assert found[task].control == found[task].report == np.mean(found[task].items)


@pytest.mark.parametrize("name", ["choice", "exact_match", "loss", "generate", "some_module:some_scorer"])
@pytest.mark.parametrize("control", ["control", "report"])
def test_every_measure_gives_the_loss_of_the_reference(model: LlamaForCausalLM, name: str, control: str) -> None:
    """Of a choice, it is that of the right option, whatever the options are ranked by."""
    items = items_of(np.random.default_rng(3), 4 if name == "choice" else 1)
    measure = Measure(name=name, normalize="byte", control=control)  # type: ignore[arg-type]
    runtime = Runtime(device=DEVICE, max_tokens=50)
    found = sequence_scores(loss_in(model, "padded"), [item.options for item in items], runtime)
    verdicts = np.ones(len(items)) if measure.generates else None
    references = [item.options[item.answer if name == "choice" else 0] for item in items]
    expected = [-log_likelihood(model, example) / example.targets for example in references]
    assert task_scores(items, measure, found, verdicts).loss == pytest.approx(np.mean(expected), rel=1e-5)


def test_scores_do_not_depend_on_what_they_are_batched_with(model: LlamaForCausalLM) -> None:
    examples = [item.options[0] for item in items_of(np.random.default_rng(3), 1, 20)]
    wrapped = TokenLoss(model)
    together = sequence_scores(wrapped, [[e] for e in examples], Runtime(device=DEVICE, max_tokens=10_000))
    alone = sequence_scores(wrapped, [[e] for e in examples], Runtime(device=DEVICE, max_tokens=1))
    assert together.nll == pytest.approx(alone.nll, rel=1e-5)
    assert together.nll == pytest.approx([-log_likelihood(model, example) for example in examples], rel=1e-5)


def test_scoring_leaves_training_mode_and_random_state_as_they_were(model: LlamaForCausalLM) -> None:
    examples = [item.options[0] for item in items_of(np.random.default_rng(4), 1)]
    wrapped = TokenLoss(model).train()
    before = torch.get_rng_state()
    first = sequence_scores(wrapped, [[e] for e in examples], Runtime(device=DEVICE, max_tokens=30))
    assert wrapped.training and model.training and torch.equal(torch.get_rng_state(), before)
    again = sequence_scores(wrapped, [[e] for e in examples], Runtime(device=DEVICE, max_tokens=30))
    assert (first.nll == again.nll).all(), "dropout must be off"
    assert all(parameter.grad is None for parameter in model.parameters())


def test_progress_ends_at_the_total(model: LlamaForCausalLM) -> None:
    told: list[tuple[int, int]] = []
    asked = {"a": (items_of(np.random.default_rng(5), 3), Measure(name="choice"))}
    score(
        TokenLoss(model),
        asked,
        Runtime(device=DEVICE, max_tokens=30),
        progress=lambda done, all_: told.append((done, all_)),
    )
    assert told[-1] == (6, 6) and len(told) > 1


def test_a_likelihood_that_is_no_number_is_told_with_how_many(model: LlamaForCausalLM) -> None:
    examples = [completed([1, 2], [3]), completed([1, 2, 7], [3])]
    wrapped = TokenLoss(model)
    with torch.no_grad():
        kept = model.model.embed_tokens.weight[7].clone()
        model.model.embed_tokens.weight[7] = math.nan
    with pytest.raises(NotFiniteError, match="1 of 2 scored sequences"):
        sequence_scores(wrapped, [[e] for e in examples], Runtime(device=DEVICE, max_tokens=30))
    with torch.no_grad():
        model.model.embed_tokens.weight[7] = kept


@pytest.mark.parametrize("layout", ["branches", "flat"])
@pytest.mark.parametrize(
    ("options", "tokens"),
    [
        (([1, 2, 3], [1, 2, 4, 5]), 3),  # a common prompt of two
        (([1, 2, 3], [1, 9, 4, 5]), 4),  # that part ways inside the prompt: the branches start there
        (([3], [4]), 2),  # nothing in common, and nothing to predict
        (([1, 2, 3], [1, 2, 3]), 2),  # the same option twice
        (([1, 2, 3],), 2),
    ],
)
def test_a_row_holds_the_common_beginning_once_and_no_token_that_predicts_nothing(
    model: LlamaForCausalLM, options: tuple[list[int], ...], tokens: int, layout: RowLayout
) -> None:
    group = [Example(ids=np.array(ids, np.int32), trained=np.arange(len(ids)) >= min(2, len(ids))) for ids in options]
    assert len(row(group)) == tokens
    runtime = Runtime(device=DEVICE, max_tokens=100, layout=layout)
    longer = completed([5, 6, 7, 8, 9], [2, 3])  # so that the row is padded
    found = sequence_scores(loss_in(model, layout), [group, [longer]], runtime)
    assert found.nll == pytest.approx([-log_likelihood(model, e) for e in (*group, longer)], rel=1e-5)
