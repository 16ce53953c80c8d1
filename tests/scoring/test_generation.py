"""Greedy decoding: what transformers' own generation says, whatever the batch."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from device import DEVICE
from peft import LoraConfig, get_peft_model
from tiny_engine import VOCABULARY, tiny_model

from msft.data.examples import Example, Item, Measure
from msft.forward.runtime import Runtime
from msft.model.token_loss import TokenLoss
from msft.scoring.generation import Decoding, Request, generate
from msft.scoring.scorers import score


class Letters:
    """Token n is the n-th of these characters; the last two are special."""

    characters = "".join(map(chr, range(65, 65 + VOCABULARY)))
    all_special_ids = [VOCABULARY - 2, VOCABULARY - 1]  # noqa: RUF012 - as tokenizers have it

    def decode(self, token_ids: Any, **_: bool) -> str:
        return "".join(self.characters[token] for token in token_ids)


def runtime(max_tokens: int = 30, **fields: Any) -> Runtime:
    return Runtime(device=DEVICE, max_tokens=max_tokens, **fields)


def requests(
    count: int = 13, *, most: int = 9, ends: tuple[int, ...] = (), stop: tuple[str, ...] = ()
) -> list[Request]:
    random = np.random.default_rng(5)
    return [
        Request(
            prompt=random.integers(1, VOCABULARY, int(random.integers(1, 12))).astype(np.int32),
            ends=frozenset(ends), stop=stop, max_new_tokens=most,
        )
        for _ in range(count)
    ]  # fmt: skip


def theirs(model: Any, request: Request, ends: list[int] | None = None) -> list[int]:
    prompt = torch.from_numpy(request.prompt.astype(np.int64))[None].to(DEVICE)
    model.eval()
    said = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=request.max_new_tokens,
        eos_token_id=ends, pad_token_id=0,
    )  # fmt: skip
    return said[0, prompt.shape[1] :].tolist()


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma2"])
def test_it_says_what_transformers_generate_says(kind: str) -> None:
    model = tiny_model(kind, dropout=0.3).to(DEVICE)
    model.generation_config.eos_token_id = None
    asked = requests()
    expected = [theirs(model, request) for request in asked]
    assert len({tuple(tokens) for tokens in expected}) > 5, "a test of nothing"
    for budget in (1, 30, 10_000):
        texts, count = generate(TokenLoss(model), asked, Letters(), runtime(budget))
        assert texts == [Letters().decode(tokens) for tokens in expected]
        assert count == sum(len(request.prompt) + 8 for request in asked)


def test_finished_rows_leave_and_the_others_go_on_as_before() -> None:
    model = tiny_model().to(DEVICE)
    model.generation_config.eos_token_id = None
    free = [theirs(model, request) for request in requests()]
    ends = sorted({tokens[at % 9] for at, tokens in enumerate(free)})[:4]
    sizes: list[int] = []
    wrapped = TokenLoss(model)
    wrapped.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0].ids)))
    texts, count = generate(wrapped, requests(ends=tuple(ends)), Letters(), runtime(10_000))
    cut = [next((at for at, token in enumerate(tokens) if token in ends), 9) for tokens in free]
    assert texts == [Letters().decode(tokens[:at]) for tokens, at in zip(free, cut, strict=True)]
    assert len(set(cut)) > 2 and sizes[0] == 13 and sizes == sorted(sizes, reverse=True) and sizes[-1] < 13
    prompts = sum(len(request.prompt) for request in requests())
    assert count == prompts + sum(min(at + 1, 9) - 1 for at in cut)


def test_stop_sequences_end_the_text_even_across_tokens() -> None:
    model = tiny_model().to(DEVICE)
    model.generation_config.eos_token_id = None
    asked = requests(most=12)
    free = [Letters().decode(theirs(model, request)) for request in asked]
    stops = (free[0][3:6], free[1][5])
    texts, count = generate(TokenLoss(model), requests(most=12, stop=stops), Letters(), runtime())
    cut = [min([len(text), *(text.find(stop) for stop in stops if stop in text)]) for text in free]
    assert texts == [text[:at] for text, at in zip(free, cut, strict=True)]
    assert min(cut) < 6 and count < sum(len(request.prompt) + 11 for request in asked), "it stops when it may"


def test_rows_of_different_lengths_share_a_batch() -> None:
    model = tiny_model().to(DEVICE)
    model.generation_config.eos_token_id = None
    asked = [*requests(4, most=3), *requests(4, most=7)]
    texts, _ = generate(TokenLoss(model), asked, Letters(), runtime(10_000))
    assert texts == [Letters().decode(theirs(model, request)) for request in asked]


def test_an_adapter_speaks_and_nothing_is_left_behind() -> None:
    model = get_peft_model(
        tiny_model().to(DEVICE), LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
    )
    model.generation_config.eos_token_id = None
    wrapped = TokenLoss(model).train()
    before = torch.get_rng_state()
    texts, _ = generate(wrapped, requests(4), Letters(), runtime())
    assert wrapped.training and model.training and torch.equal(torch.get_rng_state(), before)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert texts == [Letters().decode(theirs(model, request)) for request in requests(4)]
    with model.disable_adapter():
        assert generate(wrapped, requests(4), Letters(), runtime())[0] != texts


def test_processes_share_the_work_and_agree() -> None:
    model = tiny_model().to(DEVICE)
    wrapped = TokenLoss(model)
    alone, count = generate(wrapped, requests(), Letters(), runtime())
    parts: list[np.ndarray] = []
    for rank in (0, 1):
        generate(wrapped, requests(), Letters(), runtime(rank=rank, world=2, total=lambda a: parts.append(a) or a))
    assert all((part.sum(1) > 0).sum() in (6, 7) for part in parts), "each takes its share"
    both = generate(wrapped, requests(), Letters(), runtime(rank=0, world=2, total=lambda a: parts[0] + parts[1]))
    assert both == (alone, count)


def item(prompt: list[int], completion: list[int], reference: str = "") -> Item:
    ids = np.array(prompt + completion, np.int32)
    return Item(
        options=(Example(ids=ids, trained=np.arange(len(ids)) >= len(prompt)),), reference=reference, place="f:1"
    )


def test_control_is_the_likelihood_of_the_reference_and_report_what_was_said() -> None:
    model = tiny_model().to(DEVICE)
    model.generation_config.eos_token_id = None
    prompts = [request.prompt.tolist() for request in requests(6)]
    said = [Letters().decode(theirs(model, request)) for request in requests(6, most=4)]
    items = [
        item(prompt, [3, 4], text if number % 3 else "else")
        for number, (prompt, text) in enumerate(zip(prompts, said, strict=True))
    ]
    measure = Measure(name="generate", max_new_tokens=4)
    acted = Measure(name="generate", max_new_tokens=4, control="report")
    decoding = Decoding(decoder=Letters(), eos=frozenset())
    told: list[tuple[int, int]] = []
    asked = {"a": (items, measure), "l": (items, Measure(name="loss")), "b": (items, acted)}
    found, tokens = score(
        TokenLoss(model), asked, runtime(), decoding=decoding, progress=lambda done, all_: told.append((done, all_))
    )
    assert found["a"].reported == (0, 1, 1, 0, 1, 1) and found["a"].report == pytest.approx(4 / 6)
    assert found["a"].items == found["l"].items and found["a"].control == found["l"].control
    assert found["a"].control == pytest.approx(math.exp(np.mean(found["a"].items)))
    assert found["b"].control == found["b"].report == found["a"].report and found["b"].items == found["a"].reported
    assert told[-1] == (30, 30) and [done for done, _ in told] == sorted(done for done, _ in told)
    prompted = sum(map(len, prompts))
    assert tokens == 3 * (prompted + 6) + 2 * (prompted + 18)


def test_a_token_that_a_sub_dataset_teaches_to_end_with_ends_its_texts_only() -> None:
    model = tiny_model().to(DEVICE)
    model.generation_config.eos_token_id = None
    with torch.no_grad():  # whatever it reads, it says the token that ends a turn
        hidden = model.model.norm.register_forward_hook(lambda _, __, output: torch.ones_like(output))
        head = model.get_output_embeddings()
        head.weight.zero_()
        head.weight[VOCABULARY - 2] = 1
    measure = Measure(name="generate", max_new_tokens=4)
    turn = [item([1, 2], [3, VOCABULARY - 2, 5], "")]
    plain = [item([1, 2], [3, 5], Letters().decode([VOCABULARY - 2] * 4))]
    decoding = Decoding(decoder=Letters(), eos=frozenset({0}), taught={"a": frozenset({VOCABULARY - 2})})
    found, tokens = score(TokenLoss(model), {"a": (turn, measure), "b": (plain, measure)}, runtime(), decoding=decoding)
    hidden.remove()
    assert found["b"].report == 1
    assert tokens == (4 + 3) + (2 + 0) + (2 + 3), "the first ends at once, the other where it is interrupted"


def test_a_letter_is_found_among_those_of_the_choices() -> None:
    model = tiny_model().to(DEVICE)
    with torch.no_grad():  # whatever it reads, it says K
        hidden = model.model.norm.register_forward_hook(lambda _, __, output: torch.ones_like(output))
        head = model.get_output_embeddings()
        head.weight.zero_()
        head.weight[10] = 1
    asked = item([1, 2], [10], "K")
    tasks = {
        str(choices): ([replace(asked, choices=choices)], Measure(name="generate", extract="letter", max_new_tokens=1))
        for choices in (0, 10, 11, 26)
    }
    found, _ = score(TokenLoss(model), tasks, runtime(), decoding=Decoding(decoder=Letters(), eos=frozenset({0})))
    hidden.remove()
    assert {task: scores.report for task, scores in found.items()} == {"0": 0, "10": 0, "11": 1, "26": 1}


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_finished_row_that_stays_takes_no_more_positions(kind: str) -> None:
    """The model has as many as each row needs by itself, and a row that is done waits for another one."""
    model = tiny_model(kind).to(DEVICE)
    random = np.random.default_rng(8)
    most = model.config.max_position_embeddings
    asked = [
        Request(prompt=random.integers(1, VOCABULARY, size).astype(np.int32), ends=frozenset(), stop=(),
                max_new_tokens=new)
        for size, new in ((most - 2, 3), (2, most - 10), (most - 20, 5))
    ]  # fmt: skip
    seen: list[int] = []
    model.register_forward_pre_hook(
        lambda _, __, given: seen.append(int(given["position_ids"].max())), with_kwargs=True
    )
    loss = TokenLoss(model)
    together, alone = (
        generate(loss, asked, Letters(), runtime(1000, decoding=way))[0] for way in ("kept", "alone")
    )  # fmt: skip
    assert together == alone
    assert max(seen) < most
