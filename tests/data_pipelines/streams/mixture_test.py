"""A mixture keeps the place of every dataset, and of each what its own stream would give."""

import json

import numpy as np
import pytest

from data_pipelines.streams.mixture import Mixture
from data_pipelines.streams.stream import Stream
from data_pipelines.streams.stream_config import StreamConfig
from flamingo_jax.config import ImagePreprocessing
from flamingo_jax.tokenizer import Tokenizer
from tests.data_pipelines.tiny_records import pairs, picture, record

TOKENIZER = Tokenizer.byte_level()
PP = ImagePreprocessing(size_px=8)


@pytest.fixture
def configs(build_dataset):
    pages = [record(str(i), "one two", [3, 7], [picture(i), picture(i + 1)]) for i in range(5)]
    pages.append(record("bad", "x", [0], [b""]))
    return [
        StreamConfig("pairs", build_dataset(pairs(7), "pairs"), "pair", 3, num_tokens=8, seed=1),
        StreamConfig(
            "pages",
            build_dataset(pages, "pages"),
            "page",
            2,
            num_tokens=16,
            max_media=2,
            max_skipped_share=0.5,
        ),
    ]


def equal(a, b) -> bool:
    return all(np.array_equal(x, y) for name in a for x, y in zip(a[name], b[name], strict=True))


def test_each_step_has_a_batch_of_every_dataset(configs):
    mixture = Mixture(configs, TOKENIZER, preprocessing=PP)
    alone = {c.name: Stream(c, TOKENIZER, preprocessing=PP) for c in configs}
    for _ in range(6):
        step = next(mixture)
        assert step["pairs"].tokens.shape == (3, 8)
        assert step["pages"].media.shape == (2, 2, 1, 8, 8, 3)
        assert equal(step, {name: next(stream) for name, stream in alone.items()})
    assert mixture.examples["pairs"] == 18
    assert mixture.examples["pages"] + mixture.skipped["pages"]["empty"] == 12


def test_round_robin_reads_the_dataset_it_visits_and_no_other(configs):
    mixture = Mixture(configs, TOKENIZER, preprocessing=PP)
    alone = {c.name: Stream(c, TOKENIZER, preprocessing=PP) for c in configs}
    for step, name in enumerate(["pairs", "pages", "pairs", "pages", "pairs"], 1):
        assert equal(mixture.in_turn(step), {name: next(alone[name])})
    assert mixture.examples["pairs"] == 9
    resumed = Mixture(configs, TOKENIZER, preprocessing=PP, state=mixture.state())
    assert equal(resumed.in_turn(6), {"pages": next(alone["pages"])})


def test_resumed_mixture_equals_an_uninterrupted_one_wherever_it_is_cut(configs):
    whole = Mixture(configs, TOKENIZER, preprocessing=PP)
    steps = [next(whole) for _ in range(8)]
    place, state = 0, None
    for count in (1, 3, 0, 2, 2):
        mixture = Mixture(configs, TOKENIZER, preprocessing=PP, state=state)
        for _ in range(count):
            assert equal(next(mixture), steps[place])
            place += 1
        state = json.loads(json.dumps(mixture.state()))
        mixture.close()
    assert state == whole.state()


def test_mistakes_are_said_in_one_line(configs):
    with pytest.raises(ValueError, match="different names"):
        Mixture([configs[0], configs[0]], TOKENIZER, preprocessing=PP)
    with pytest.raises(ValueError, match=r"repeat=True: \['pairs'\]"):
        Mixture([configs[0].for_evaluation()], TOKENIZER, preprocessing=PP)
    state = Mixture(configs, TOKENIZER, preprocessing=PP).state()
    with pytest.raises(ValueError, match=r"\['pages', 'pairs'\], the mixture has \['pairs'\]"):
        Mixture(configs[:1], TOKENIZER, preprocessing=PP, state=state)
