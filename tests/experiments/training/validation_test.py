"""Validation against losses worked out from logits, one row after the other, without a mesh."""

import itertools

import jax
import numpy as np
import pytest

from data_pipelines.demo import synthetic
from data_pipelines.errors import TooManyBadRecords
from data_pipelines.streams.stream import Stream
from experiments.configs import base, flamingo
from experiments.training import datasets
from experiments.training.validation import Validation
from flamingo_jax.batch import Batch
from flamingo_jax.core import hosts, partition
from flamingo_jax.core import params as params_lib
from flamingo_jax.models.flamingo import Flamingo
from flamingo_jax.tokenizer import Tokenizer
from flamingo_jax.train.state import TrainState
from tests import tiny_flamingo as tiny

TOKENIZER = Tokenizer.byte_level(260)
CONFIG = tiny.changed(
    lm={"num_layers": 1, "vocab_size": 260},
    resampler={"depth": 1},
    cross_attention={"every": 1, "offset": 0},
)
BAD = 4  # of 28 pages


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """Pages of one to three pictures, some without any, which cannot be used."""
    folder = tmp_path_factory.mktemp("data")
    synthetic.prepare(folder, bad=["no_image"] * BAD)
    c = flamingo.get_config("micro")
    c.data.dir = str(folder)
    c.data.max_skipped_share = 0.5
    pages = base.pages(path="synthetic_pages", batch_size=8, num_tokens=48, max_media=3)
    c.data.validation = {"pages": pages}
    c.validation_batches = 3
    return c


@pytest.fixture(scope="module")
def reading(recipe):
    """What streams take beside their config: features drawn for every picture."""
    rng, shape = np.random.default_rng(1), (tiny.NUM_FEATURES, tiny.VISION_WIDTH)
    found = datasets.documents(recipe, "synthetic_pages", "train")
    names = [name for document in found for name in document.media_ids]
    features = {name: rng.normal(size=shape).astype(np.float32) for name in names}
    return {"features": features, "process_index": 0, "process_count": 1}


@pytest.fixture(scope="module")
def measure(recipe, reading):
    """The row of one state on a mesh that cuts everything, given where to say what."""
    mesh = partition.make_mesh(data=2, fsdp=2, tensor=2)
    graph, shapes, axes = tiny.abstract(CONFIG)
    placed = hosts.place(tiny.random_params(CONFIG), partition.shardings(axes, shapes, mesh))
    trainable, frozen = params_lib.split(placed)
    state = TrainState(np.zeros((), np.int32), trainable, (), np.zeros(2, np.uint32))
    streams = datasets.validation_configs(recipe)
    validation = Validation(
        streams,
        TOKENIZER,
        graph,
        mesh,
        every=5,
        num_batches=3,
        reading=reading,
        compiler_options={},
    )
    assert [s for s in range(14) if validation.is_due(s, 13)] == [0, 5, 10, 13]

    def measure(say, reading=reading):
        validation._reading = reading
        with jax.set_mesh(mesh):
            return validation.measure(state, frozen, say)

    yield measure
    assert validation._loss._cache_size() == 1  # one program for all batches and both pictures


@pytest.fixture(scope="module")
def measured(measure):
    """Two rows of one state, and what was said."""
    said = []
    return [measure(said.append) for _ in range(2)], said


LOGITS = tiny.jit(Flamingo.__call__, CONFIG)


def nats(batch: Batch) -> np.ndarray:
    """f64[B] of all targets of a row, from logits."""
    logits = np.asarray(LOGITS(tiny.random_params(CONFIG), batch), np.float64)
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    of_next = np.take_along_axis(log_probs[:, :-1], batch.tokens[:, 1:, None], -1)[..., 0]
    return -(of_next * batch.loss_mask[:, 1:]).sum(1)


@pytest.fixture(scope="module")
def by_hand(recipe, reading):
    """f64[rows, 4] that count: losses with own and neighbour's pictures, targets, pictures."""
    (config,) = datasets.validation_configs(recipe).values()
    batches = list(itertools.islice(Stream(config, TOKENIZER, **reading), 3))
    rows = jax.tree.map(lambda *parts: np.concatenate(parts), *batches)
    media, mask = np.zeros_like(rows.media), np.zeros_like(rows.media_mask)
    num_own = rows.media_mask[..., 0].sum(1)
    counted = []
    for row, own in enumerate(num_own):
        neighbour = row + 1 if row % 2 == 0 else row - 1
        theirs = list(rows.media[neighbour, : num_own[neighbour]])
        if own and theirs:
            counted.append(row)
            mask[row, :own] = True
            media[row, :own] = list(itertools.islice(itertools.cycle(theirs), int(own)))
    other = rows._replace(media=media, media_mask=mask)
    targets = rows.loss_mask[:, 1:].sum(1)
    return np.stack([nats(rows), nats(other), targets, num_own], 1)[counted]


def test_losses_are_sums_over_all_targets_of_all_batches(measured, by_hand):
    (row, _), _ = measured
    right, other, targets, num_own = by_hand.T
    assert len({*num_own}) > 1  # pages of several sizes
    assert len(num_own) < 24 - BAD / 2  # some have a bad neighbour
    assert row["validation/pages"] == pytest.approx(right.sum() / targets.sum(), rel=1e-5)
    assert row["validation_shuffled/pages"] == pytest.approx(other.sum() / targets.sum(), rel=1e-5)
    difference = (other - right).sum() / targets.sum()
    assert abs(difference) > 1e-3
    assert row["validation_difference/pages"] == pytest.approx(difference, rel=1e-2)


def test_bad_records_are_counted_and_told(measured):
    (row, _), said = measured
    count = row["validation_skipped/pages"]
    assert 0 < count <= BAD
    reasons = {"no_media": count}
    assert said[0] == f"data.validation.pages: {count} records are unusable: {reasons}"


def test_the_same_each_time(measured):
    (first, second), _ = measured
    times = first["validation_s"], second["validation_s"]
    assert first | {"validation_s": 0} == second | {"validation_s": 0}
    assert min(times) > 0


def test_the_records_are_those_of_every_seed_and_nothing_of_them_is_drawn(recipe):
    other = recipe.copy_and_resolve_references()
    other.seed, other.data.validation.pages.flip = 7, 0.5
    found = datasets.validation_configs(other)
    assert found == datasets.validation_configs(recipe)
    stream = found["pages"]
    assert stream.shuffle  # the order of the records is, once for all
    assert not any((stream.p_next, stream.random_window, stream.flip, stream.color, stream.repeat))


def test_datasets_that_are_never_read_need_not_be_there(recipe):
    other = recipe.copy_and_resolve_references()
    other.validate_every, other.data.validation.pages.path = 0, "nowhere"
    assert datasets.validation_configs(other) == {}
    other.data.cache_features = True  # what is not read has no features to cache
    assert datasets.validation_configs(other) == {}


def test_a_dataset_of_bad_records_alone_ends_the_run(measure, reading):
    bad = reading | {"features": {"another": np.zeros((2, 10), np.float32)}}
    with pytest.raises(TooManyBadRecords, match=r"data.validation.pages: .*'no_features'"):
        measure(print, bad)
