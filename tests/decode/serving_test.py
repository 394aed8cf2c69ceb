"""A finished model cut over a mesh answers as on one device, and each device holds its part."""

import dataclasses
import functools
import math

import jax
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding

from experiments.configs import models
from flamingo_jax import model_directory
from flamingo_jax.config import DTypePolicy, FlamingoConfig, VisionConfig, from_dict
from flamingo_jax.core import params as params_lib
from flamingo_jax.core import partition
from flamingo_jax.core.stack import Execution
from flamingo_jax.decode import beam, candidates, score, serving
from flamingo_jax.model import Decoding
from flamingo_jax.models.flamingo import Flamingo
from tests import drawn_model
from tests import tiny_flamingo as tiny

FLOAT32 = DTypePolicy("float32", "float32", "float32")
DECODINGS = (  # greedy is a draw without chance
    Decoding("beam", max_tokens=5),
    Decoding("sample", max_tokens=5, seed=3, temperature=2.0),
)
# Of micro's 2 key heads a cut in four leaves both on every device.
MESHES = {
    "heads cut": ({"data": 4, "tensor": 2}, DECODINGS),
    "key heads whole": ({"data": 2, "tensor": 4}, DECODINGS[:1]),
}


SMALL = dataclasses.replace(models.LITE0, size_px=32)
VIT = VisionConfig("vit", "thin", 16, 32, SMALL)


def config() -> FlamingoConfig:
    """The micro architecture with heads that four devices can share, and an encoder of few kinds of
    layers, as most of the time is compiling."""
    micro = from_dict(FlamingoConfig, models.micro())
    return dataclasses.replace(
        micro,
        resampler=dataclasses.replace(micro.resampler, num_heads=4),
        cross_attention=dataclasses.replace(micro.cross_attention, num_heads=4),
        vision=VIT,
    )


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    folder = tmp_path_factory.mktemp("serving") / "model"
    drawn_model.save(folder, config())
    return folder


def asked() -> list[list[dict]]:
    """Five prompts, which no mesh here divides, of two pictures and a few lengths."""
    rng = np.random.default_rng(0)
    prompts = []
    for text in ("a", "bc", "dog", "red", "cat"):
        shot = [{"image": _picture(rng)}, {"text": text}, {"end_of_chunk": True}]
        prompts.append([*shot, {"image": _picture(rng)}, {"text": "Out"}])
    return prompts


def _picture(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (64, 64, 3), np.uint8)


@pytest.fixture(scope="module")
def one_device(directory):
    return answers(model_directory.load(directory), DECODINGS)


def answers(model, decodings) -> dict:
    """Everything that a model can be asked."""
    texts = [[" cat", " dog and", "x"]] * 5
    found = {decoding.method: model.generate(asked(), decoding) for decoding in decodings}
    return found | {
        "score": model.score(asked()),
        "likelihoods": np.stack(model.likelihoods(asked(), texts)),
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", ["heads cut", "key heads whole"])
def test_a_mesh_answers_as_one_device(directory, one_device, name, monkeypatch):
    """With kernels in a TPU's order, too."""
    sizes, decodings = MESHES[name]
    monkeypatch.setattr(serving, "_HEADS_FIRST", ("cpu",))
    model = model_directory.load(directory, mesh=partition.make_mesh(**sizes))
    layer = model.params["language_model"]["blocks"]["groups"]["layers"]["layers"]["attention"]
    for kernel, order in (("query", (0, 1, 3, 4, 2)), ("out", (0, 1, 2, 3, 4))):
        assert layer[kernel]["kernel"].format.layout.major_to_minor == order
    found = answers(model, decodings)
    for method in (decoding.method for decoding in decodings):
        for a, b in zip(one_device[method], found[method], strict=True):
            assert a.tokens == b.tokens, method
            assert b.log_prob == pytest.approx(a.log_prob, rel=1e-5, abs=1e-5)
    for a, b in zip(one_device["score"], found["score"], strict=True):
        assert a.tokens == b.tokens
        np.testing.assert_allclose(b.log_probs[1:], a.log_probs[1:], atol=1e-5)
    np.testing.assert_allclose(
        found["likelihoods"], one_device["likelihoods"], rtol=1e-5, atol=1e-5
    )


@pytest.mark.slow
def test_a_vocabulary_that_is_cut_gives_the_same(monkeypatch):
    """Of 40 rows and two new ones, which the byte-level tokenizer's 259 never are."""
    params, batch = tiny.random_params(), tiny.random_batch(batch_size=4)
    graph = tiny.abstract()[0]
    monkeypatch.setattr(score, "_CHUNK", 5)  # several, and the last one not full
    packed = candidates.pack([[1, 2, 41], [3, 41], [4, 5, 6]], 6)
    many = jax.tree.map(lambda x: np.stack([x] * 4), packed)
    search = functools.partial(
        beam.beam_search, num_beams=3, max_tokens=6, stop_ids=(41,), pad_id=39
    )

    def ask(mesh):
        def program(f):
            return serving.program(lambda p, *rows: f(nnx.merge(graph, p), *rows), mesh)

        placed = serving.place(params, tiny.CONFIG, mesh)
        return jax.device_get(
            (
                program(search)(placed, batch),
                program(score.token_log_probs)(placed, batch),
                program(candidates.log_probs)(placed, batch, many),
            )
        )

    mesh = partition.make_mesh(data=4, tensor=2)
    rows = serving.shardings(tiny.CONFIG, mesh)["language_model"]["embedding"]
    assert rows.shard_shape((tiny.VOCAB, 16)) == (tiny.VOCAB // 2, 16)
    for a, b in zip(jax.tree.leaves(ask(None)), jax.tree.leaves(ask(mesh)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "vision",
    [
        from_dict(FlamingoConfig, models.micro()).vision,
        VIT,
        VisionConfig("nfnet", "thin", 4, 192, dataclasses.replace(models.LITE0, size_px=64)),
    ],
    ids=lambda vision: vision.kind,
)
def test_every_kind_of_encoder_shares_its_pictures_out(vision):
    """One padded slot in three holds no picture."""
    wanted = dataclasses.replace(config(), vision=vision)
    size_px = vision.preprocessing.size_px
    make = lambda rngs: Flamingo(wanted, Execution(), rngs=rngs)  # noqa: E731
    graph, shapes, _ = params_lib.abstract(make)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda s: rng.normal(0, 0.1, s.shape).astype(np.float32), shapes)
    media = rng.integers(0, 256, (4, 3, 1, size_px, size_px, 3), np.uint8)
    mask = np.ones((4, 3, 1), bool)
    mask[:, 2] = False

    def ask(mesh):
        run = serving.program(
            lambda p, *rows: nnx.merge(graph, p).visual_tokens(*rows)[:, :2], mesh
        )
        return jax.device_get(run(serving.place(params, wanted, mesh), media, mask))

    want = ask(None)
    found = ask(partition.make_mesh(data=2, tensor=4))
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-4 * np.abs(want).max())


def test_each_device_holds_its_part_and_copies_of_what_was_trained(directory):
    mesh = partition.make_mesh(data=2, tensor=4)
    model = model_directory.load(directory, mesh=mesh)
    held = [0] * 8
    for leaf in jax.tree.leaves(model.params):
        for shard in leaf.addressable_shards:
            held[shard.device.id] += shard.data.nbytes
    assert set(held) == {serving.bytes_a_device(model.config, FLOAT32, mesh)}
    up = model.params["gated_xattn"]["groups"]["layers"]["ffw"]["up"]["kernel"]
    assert up.addressable_shards[0].data.size == up.size // 4
    everything = sum(leaf.nbytes for leaf in jax.tree.leaves(model.params))
    assert held[0] < 0.9 * everything


def test_kernels_that_were_trained_are_cast_once_to_the_same_answers():
    """Bit for bit, where XLA rounds to bfloat16 as the program says."""
    less = {"lm": {"num_layers": 2}, "cross_attention": {"offset": 0}}  # to compile
    policy, wanted = DTypePolicy(), tiny.changed(**less, trained=("language_model",))
    make = lambda rngs: Flamingo(wanted, Execution(), dtype=policy.compute, rngs=rngs)  # noqa: E731
    graph = params_lib.abstract(make)[0]
    parts = params_lib.split(tiny.random_params(wanted), wanted.trained)
    saved = params_lib.merge(*params_lib.cast(*parts, policy))
    kept = jax.tree.map(lambda x, dtype: x.astype(dtype), saved, serving.dtypes(wanted, policy))
    held = [sum(leaf.nbytes for leaf in jax.tree.leaves(tree)) for tree in (saved, kept)]
    assert held[0] - held[1] > 0.9 * 2 * params_lib.count(parts[0])

    @functools.partial(jax.jit, compiler_options={"xla_allow_excess_precision": False})
    def ask(params):
        return score.token_log_probs(nnx.merge(graph, params), tiny.random_batch(batch_size=2))

    np.testing.assert_array_equal(ask(saved), ask(kept))


def test_heads_that_fill_a_tpus_tiles_keep_their_rows(monkeypatch):
    monkeypatch.setattr(serving, "_HEADS_FIRST", ("cpu",))
    wide = tiny.changed(lm={"head_dim": 128}).language_model
    where = serving.formats(
        dataclasses.replace(config(), language_model=wide), partition.make_mesh()
    )
    attention = where["language_model"]["blocks"]["groups"]["layers"]["layers"]["attention"]
    assert attention["query"]["kernel"].layout.major_to_minor == (0, 1, 3, 2, 4)
    assert isinstance(attention["out"]["kernel"], NamedSharding)


def test_a_mesh_holds_the_weights_in_half_of_the_memory_with_as_few_cuts_as_do():
    wanted, policy, devices = config(), FLOAT32, jax.devices()

    def tensor(memory):
        return serving.make_mesh(wanted, policy, devices, memory).shape["tensor"]

    whole, half, quarter = (
        serving.bytes_a_device(wanted, policy, partition.make_mesh(tensor=n)) for n in (1, 2, 4)
    )
    assert whole > half > quarter
    assert tensor(None) == tensor(2 * whole) == 1
    assert tensor(2 * whole - 1) == tensor(2 * half) == 2
    assert tensor(2 * half - 1) == 4
    assert tensor(1) == 4  # 8 does not divide 4 heads
    assert math.prod(serving.make_mesh(wanted, policy, devices, 1).shape.values()) == 8


def test_a_mesh_that_does_not_divide_the_model_is_named_with_what_does(directory):
    with pytest.raises(ValueError, match=r"heads\) is 4, which mesh axis tensor of 8 .*: use 4"):
        model_directory.load(directory, mesh=partition.make_mesh(tensor=8))
