"""Which held-out examples are asked about, and with which other picture."""

import numpy as np
import pytest

from experiments import heldout
from experiments.heldout import Example


def example(number: int, name: str) -> Example:
    return Example(f"id{number:03d}", b"picture", (name,), None)


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


class Prompted:
    """Stands in for a model: keeps what it is asked, and likes the name it is told to."""

    caption_template = "It is {}"

    def __init__(self, likes: str):
        self.likes, self.asked = likes, []

    def likelihoods(self, asked, texts):
        self.asked = list(asked)
        return [np.array([float(text == f" {self.likes}") for text in row]) for row in texts]


def test_examples_stand_before_the_query_whose_name_is_sought():
    queries = [example(1, "cat"), example(2, "dog")]
    support = [example(i, f"thing {i}") for i in range(10, 20)]
    names = [e.names[0] for e in queries + support]
    test = heldout.NameTest.draw(queries, names, 3, seed=0)
    assert [row[0] for row in test.names] == ["cat", "dog"]
    model = Prompted("cat")
    found = heldout.few_shot_rank1(model, test, support, 2, "random", seed=0)
    assert found.mean == 0.5
    assert found.num_queries == 2
    for prompt in model.asked:
        kinds = [type(part).__name__ for part in prompt.parts]
        shot = ["ImagePart", "TextPart", "EndOfChunk"]
        assert kinds == [*shot, *shot, "ImagePart", "TextPart"]
        assert prompt.parts[1].text.startswith("It is thing ")
        assert prompt.parts[-1].text == "It is"
