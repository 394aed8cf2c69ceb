"""Which held-out examples are asked about, and with which other pictures."""

import collections
import types

import numpy as np
import pytest

from data_pipelines.demo import synthetic
from data_pipelines.records import Document
from experiments.reporting import heldout
from experiments.reporting.heldout import Example
from flamingo_jax.config import ImagePreprocessing


def example(number: int, name: str, media_id: str | None = None) -> Example:
    return Example(f"id{number:03d}", b"picture", (name,), media_id or f"media{number}", None)


def document(name: str, *media: bytes, references=()) -> Document:
    return Document("d", name, (0,) * len(media), media, {"references": list(references)})


def test_a_name_that_is_listed_twice_is_one_name():
    """As in COCO, where a record's references hold its own caption, spaces and all."""
    found = heldout.examples(
        [document("a cat", b"1", references=["a dog ", "a cat\n", "a dog"])],
        None,
        collections.Counter(),
    )
    assert [e.names for e in found] == [("a cat", "a dog")]


def test_what_is_no_picture_with_a_name_is_left_out_and_counted():
    picture = synthetic.draw("red", "circle", 0)
    video = b"\0\0\0\x18ftypmp42"
    documents = [
        document("none"),
        document("two", b"1", b"2"),
        document("clip", video),
        document(" ", picture),
        document("new", b"not encoded"),
        document("good", picture),
    ]
    features = {d.media_ids[0]: np.ones((4, 3)) for d in documents if len(d.media) == 1}
    del features[documents[4].media_ids[0]]
    skipped = collections.Counter()
    assert [e.names for e in heldout.examples(documents, features, skipped)] == [("good",)]
    assert skipped == {"not_one_medium": 2, "video": 1, "no_text": 1, "no_features": 1}


def test_pictures_that_cannot_be_decoded_are_counted_and_others_take_their_place():
    good = [document(f"good {i}", synthetic.draw("red", "circle", i)) for i in range(3)]
    bad = [document(f"bad {i}", b"no picture %d" % i) for i in range(3)]
    skipped = collections.Counter()
    found = heldout.examples([*good, *bad], None, skipped)
    chosen = heldout.choose(
        found, 3, 0, lambda e: heldout.is_readable(e, ImagePreprocessing(32), skipped)
    )
    assert sorted(e.names[0] for e in chosen) == [d.text for d in good]
    assert set(skipped) == {"not_an_image"}


def test_chosen_examples_have_different_pictures_too():
    """Else the loss with another's picture could be that with one's own."""
    found = [example(i, f"caption {i}", media_id=f"picture{i // 5}") for i in range(50)]
    chosen = heldout.choose(found, 50, seed=0)
    assert len({e.media_id for e in chosen}) == len(chosen) == 10


def test_support_shows_each_picture_once():
    found = [example(i, f"caption {i}", media_id=f"picture{i // 5}") for i in range(50)]
    assert [e.id for e in heldout.each_picture_once(found)] == [
        f"id{i:03d}" for i in range(0, 50, 5)
    ]


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
    params = types.MappingProxyType({"vision": {}})

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
    assert 0 < found.low < found.high < 1  # a bootstrap of two says 0 to 1
    assert found.num_queries == 2
    for prompt in model.asked:
        kinds = [type(part).__name__ for part in prompt.parts]
        shot = ["ImagePart", "TextPart", "EndOfChunk"]
        assert kinds == [*shot, *shot, "ImagePart", "TextPart"]
        assert prompt.parts[1].text.startswith("It is thing ")
        assert prompt.parts[-1].text == "It is"


@pytest.mark.parametrize("kind", ["random", "rices"])
def test_no_query_sees_its_own_picture_as_an_example(kind):
    """The support set holds every query's picture, under another record's id and name."""
    rng = np.random.default_rng(0)
    pictures = [rng.normal(size=(4, 8)) for _ in range(6)]
    queries = [Example(f"q{i}", x, (f"n{i}",), f"m{i}", None) for i, x in enumerate(pictures)]
    support = [Example(f"s{i}", x, (f"t{i}",), f"m{i}", None) for i, x in enumerate(pictures)]
    test = heldout.NameTest.draw(queries, [q.names[0] for q in queries], 3, seed=0)
    model = Prompted("n0")
    heldout.few_shot_rank1(model, test, support, 5, kind, seed=0)
    for i, prompt in enumerate(model.asked):
        shown = {part.text for part in prompt.parts if type(part).__name__ == "TextPart"}
        assert shown == {f"It is t{j}" for j in range(6) if j != i} | {"It is"}


class Reader(Prompted):
    """Stands in for a model to which wrong pictures make the right name less likely."""

    class tokenizer:
        @staticmethod
        def encode_behind(before, text):
            return text.split()

    def likelihoods(self, asked, texts):
        known = {b"cat": "cat", b"big dog": "big dog"}
        return [
            np.array([0.0 if known[p.parts[0].image] == t.strip() else -6.0 for t in row])
            for p, row in zip(asked, texts, strict=True)
        ]


def test_the_interval_is_around_the_difference_of_the_losses():
    names = ["cat", "big dog"]
    queries = [Example(n, n.encode(), (n,), n, None) for n in names]
    test = heldout.NameTest.draw(queries, names, 2, seed=0)
    found = heldout.losses_and_ranks(Reader(""), test, seed=0)
    assert (found.nll_right, found.nll_shuffled) == (0.0, 12 / 5)  # tokens: 1 + 2, and an end each
    assert found.nll_difference.mean == pytest.approx(found.nll_shuffled - found.nll_right)
    assert found.rank1.mean == found.rank1_per_token.mean == 1.0
    assert found.rank1.low < 0.5
