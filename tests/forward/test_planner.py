from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from msft.forward.planner import FIXED_PRICE, deal, micro_batches

lengths_ = st.lists(st.integers(1, 60), max_size=60)
budgets = st.integers(1, 200)


def cost(lengths: list[int], batches: list[list[int]], budget: int) -> float:
    areas = [len(batch) * max(lengths[place] for place in batch) for batch in batches]
    return sum(areas) + FIXED_PRICE * budget * len(areas)


def greedy(lengths: list[int], budget: int) -> list[list[int]]:
    """Micro-batches filled in the order given."""
    batches: list[list[int]] = []
    for place in range(len(lengths)):
        last = [*batches[-1], place] if batches else [place]
        if batches and len(last) * max(lengths[i] for i in last) <= budget:
            batches[-1] = last
        else:
            batches.append([place])
    return batches


@given(lengths_, budgets)
def test_nothing_is_lost_and_the_budget_holds(lengths: list[int], budget: int) -> None:
    batches = micro_batches(lengths, budget)
    assert sorted(place for batch in batches for place in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[place] for place in batch) <= budget
    assert batches == micro_batches(lengths, budget)


@given(lengths_, budgets, st.randoms())
def test_no_other_cut_costs_less_than_the_plan(lengths: list[int], budget: int, random: object) -> None:
    planned = cost(lengths, micro_batches(lengths, budget), budget)
    assert planned <= cost(lengths, greedy(lengths, budget), budget) + 1e-6
    in_order = sorted(lengths)
    assert planned <= cost(in_order, greedy(in_order, budget), budget) + 1e-6


@given(lengths_, budgets, st.integers(1, 5))
def test_every_process_gets_the_same_number_and_everything_is_dealt_once(
    lengths: list[int], budget: int, world: int
) -> None:
    hands = deal(lengths, budget, world)
    assert len(hands) == world and len({len(hand) for hand in hands}) == 1
    dealt = [place for hand in hands for batch in hand for place in batch or []]
    assert sorted(dealt) == list(range(len(lengths)))
    assert deal(lengths, budget, 1) == [micro_batches(lengths, budget)]


@given(lengths_, budgets, st.integers(1, 5), st.integers(0, 70), st.booleans())
def test_so_it_is_with_a_border_which_no_micro_batch_crosses(
    lengths: list[int], budget: int, world: int, border: int, flat: bool
) -> None:
    """Processes that made other numbers of micro-batches would wait for each other without end."""
    hands = deal(lengths, budget, world, flat=flat, sides=[length > border for length in lengths])
    assert len(hands) == world and len({len(hand) for hand in hands}) == 1
    batches = [batch for hand in hands for batch in hand if batch is not None]
    assert sorted(place for batch in batches for place in batch) == list(range(len(lengths)))
    for batch in batches:
        assert batch and len({lengths[place] > border for place in batch}) == 1
        held = sum(lengths[at] for at in batch) if flat else len(batch) * max(lengths[at] for at in batch)
        assert len(batch) == 1 or held <= budget


@given(lengths_, budgets)
def test_end_to_end_the_budget_holds_with_as_few_micro_batches_as_can_be_and_even_ones(
    lengths: list[int], budget: int
) -> None:
    batches = micro_batches(lengths, budget, flat=True)
    in_order = [lengths[place] for batch in batches for place in batch]
    assert in_order == sorted(lengths)
    held = [sum(lengths[place] for place in batch) for batch in batches]
    for batch, tokens in zip(batches, held, strict=True):
        assert len(batch) == 1 or tokens <= budget

    def fewest(most: int) -> int:
        count, room = 0, 0
        for length in sorted(lengths):
            if count == 0 or length > room:
                count, room = count + 1, most
            room -= length
        return count

    assert len(batches) == fewest(budget)
    if max(lengths, default=0) <= budget and held:
        assert fewest(max(held) - 1) > len(batches) or max(held) == max(lengths), "a smaller budget would have done"
