"""Which held-out examples are asked about, and with which other picture."""

import pytest

from experiments import heldout
from experiments.heldout import Example


def example(number: int, name: str) -> Example:
    return Example(f"id{number:03d}", None, (name,), None)


@pytest.mark.parametrize("count", [2, 3, 40])
def test_shuffled_gives_each_another_and_every_one_once(count):
    found = heldout.shuffled(count, seed=1)
    assert sorted(found) == list(range(count))
    assert all(i != other for i, other in enumerate(found))


def test_shuffled_is_by_chance_not_by_neighbours():
    found = heldout.shuffled(200, seed=0)
    assert sum(abs(i - other) == 1 for i, other in enumerate(found)) < 10


def test_chosen_examples_have_different_names_and_come_from_everywhere():
    examples = [example(i, f"name{i // 2}") for i in range(100)]
    chosen = heldout.choose(examples, 20, seed=0)
    assert len({e.names for e in chosen}) == len(chosen) == 20
    assert chosen == sorted(chosen, key=lambda e: e.id)
    assert chosen == heldout.choose(examples[::-1][::-1], 20, seed=0)
    assert chosen[-1].id > "id060"  # not the first twenty
    assert len(heldout.choose(examples, 1000, seed=0)) == 50
    assert heldout.choose(examples, 0, seed=0) == []
