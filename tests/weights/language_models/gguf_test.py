"""GGUF files: a tiny one written here, damaged ones, and SmolLM2 against transformers."""

import dataclasses
import math
import pathlib

import gguf as gguf_package
import jax
import numpy as np
import pytest
from flax import traverse_util

from flamingo_jax.config import LinearScaling, Llama3Scaling, YarnScaling
from flamingo_jax.core import hosts
from flamingo_jax.weights.errors import BadWeightsFile
from flamingo_jax.weights.files import gguf_file
from flamingo_jax.weights.language_models import gguf, gguf_config
from flamingo_jax.weights.language_models.gguf_names import ARCHITECTURES
from flamingo_jax.weights.language_models.language_model import LAYER
from tests import parts
from tests.torch_reference import import_torch
from tests.weights.language_models import gguf_files

# Width, query heads, key heads, head dim, hidden, vocabulary, layers: all different.
D, N, K, H, F, V, LAYERS = 64, 4, 2, 16, 96, 11, 2
_SHAPES = {
    "attn_norm": (D,),
    "attn_q": (N * H, D),
    "attn_k": (K * H, D),
    "attn_v": (K * H, D),
    "attn_output": (D, N * H),
    "ffn_norm": (D,),
    "ffn_gate": (F, D),
    "ffn_up": (F, D),
    "ffn_down": (D, F),
}


def _tensors() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = {"token_embd": (V, D), "output_norm": (D,)}
    shapes |= {f"blk.{i}.{k}": s for i in range(LAYERS) for k, s in _SHAPES.items()}
    return {f"{k}.weight": rng.normal(size=s).astype(np.float32) for k, s in shapes.items()}


def _metadata() -> dict[str, int | float]:
    return {
        "block_count": LAYERS,
        "context_length": 128,
        "embedding_length": D,
        "feed_forward_length": F,
        "attention.head_count": N,
        "attention.head_count_kv": K,
        "rope.freq_base": 5e4,
        "rope.dimension_count": H,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "vocab_size": V,
    }


def load(path: pathlib.Path):
    """Config, and arrays: `embedding`, `final_norm`, `head`, and `layers` under neutral names."""
    file = gguf_file.read(path)
    config = gguf_config.read(file)
    tree = gguf.language_model(file, config)
    (segment,) = tree.pop("blocks").values()
    stacks = traverse_util.flatten_dict(segment["layers"]["layers"])
    layers = [
        {name: np.asarray(stacks[at][0, i]) for name, at in LAYER.items() if at in stacks}
        for i in range(config.num_layers)
    ]
    return config, tree | {"final_norm": tree["final_norm"]["scale"], "layers": layers}


def _write(
    path: pathlib.Path, tensors, metadata=None, architecture="llama", quantise=()
) -> pathlib.Path:
    numbers = _metadata() if metadata is None else metadata
    writer = gguf_files.begun(path, architecture, numbers)
    writer.add_array("tokenizer.ggml.tokens", [f"token {i}" for i in range(V)])
    for name, array in tensors.items():
        kind = gguf_package.GGMLQuantizationType.Q8_0 if name in quantise else None
        data = gguf_package.quantize(array, kind) if kind else array
        writer.add_tensor(name, data, raw_dtype=kind)
    return gguf_files.finished(writer, path)


@pytest.fixture
def path(tmp_path) -> pathlib.Path:
    return tmp_path / "model.gguf"


def test_a_format_that_cannot_be_read_is_named(path):
    tensors = _tensors()
    tensors["output_norm.weight"] = np.ones(D, np.int8)
    with pytest.raises(
        BadWeightsFile, match=r"'output_norm.weight' is in format I8, .* use a file"
    ):
        load(_write(path, tensors))


def test_config_comes_from_the_metadata(path):
    config, weights = load(_write(path, _tensors()))
    assert (config.num_layers, config.width, config.ffw_width) == (LAYERS, D, F)
    assert (config.num_heads, config.kv_heads, config.head_dim) == (N, K, H)
    assert (config.vocab_size, config.max_length) == (V, 128)
    assert (config.rope_base, config.norm_eps) == (5e4, 1e-5)
    assert config.tied_head
    assert "head" not in weights


def test_every_array_is_in_out_with_its_heads_split(path):
    tensors = _tensors()
    _, weights = load(_write(path, tensors))
    x = np.random.default_rng(1).normal(size=(3, D)).astype(np.float32)
    layer, source = weights["layers"][1], {k: tensors[f"blk.1.{k}.weight"] for k in _SHAPES}
    np.testing.assert_array_equal(weights["embedding"], tensors["token_embd.weight"])
    np.testing.assert_array_equal(weights["final_norm"], tensors["output_norm.weight"])
    np.testing.assert_array_equal(layer["attn_norm"], source["attn_norm"])
    np.testing.assert_array_equal(layer["ffw_norm"], source["ffn_norm"])
    v = np.einsum("td,dkh->tkh", x, layer["v"])
    np.testing.assert_allclose(v.reshape(3, K * H), x @ source["attn_v"].T, atol=1e-4)
    heads = np.random.default_rng(2).normal(size=(3, N, H)).astype(np.float32)
    o = np.einsum("tnh,nhd->td", heads, layer["o"])
    np.testing.assert_allclose(o, heads.reshape(3, N * H) @ source["attn_output"].T, atol=1e-4)
    np.testing.assert_allclose(x @ layer["gate"], x @ source["ffn_gate"].T, atol=1e-4)
    np.testing.assert_allclose(x @ layer["up"], x @ source["ffn_up"].T, atol=1e-4)
    assert layer["down"].shape == (F, D)
    assert {a.dtype for a in layer.values()} == {np.dtype(np.float32)}


def _rotate(q, position, interleaved):
    """Rotary positions on one head q [H], the two textbook ways."""
    angle = position * 5e4 ** (-np.arange(H // 2) / (H // 2))
    a, b = (q[0::2], q[1::2]) if interleaved else (q[: H // 2], q[H // 2 :])
    c = a * np.cos(angle) - b * np.sin(angle)
    d = b * np.cos(angle) + a * np.sin(angle)
    return np.stack([c, d], -1).ravel() if interleaved else np.concatenate([c, d])


def test_half_split_rotation_after_import_equals_interleaved_rotation_before(path):
    """Attention scores are what must not change: query at position 7, key at position 3."""
    tensors = _tensors()
    _, weights = load(_write(path, tensors))
    x = np.random.default_rng(1).normal(size=D)
    for head in range(N):
        group = head * K // N
        q = tensors["blk.0.attn_q.weight"].reshape(N, H, D)[head] @ x
        k = tensors["blk.0.attn_k.weight"].reshape(K, H, D)[group] @ x
        want = _rotate(q, 7, True) @ _rotate(k, 3, True)
        q, k = x @ weights["layers"][0]["q"][:, head], x @ weights["layers"][0]["k"][:, group]
        np.testing.assert_allclose(_rotate(q, 7, False) @ _rotate(k, 3, False), want, rtol=1e-4)


def test_half_split_order_by_hand():
    rows = np.arange(8.0)[:, None]  # two heads of four: pairs (0, 1), (2, 3) and (4, 5), (6, 7)
    out = gguf.half_split_rope(rows, 2)[:, 0]
    np.testing.assert_array_equal(out, [0, 2, 1, 3, 4, 6, 5, 7])


def test_quantised_tensors(path):
    tensors = _tensors()
    name = "blk.0.ffn_up.weight"
    _, weights = load(_write(path, tensors, quantise=(name,)))
    got, want = weights["layers"][0]["up"], tensors[name].T
    blocks = np.abs(tensors[name]).reshape(F, -1, 32).max(-1).max()
    assert 0 < np.abs(got - want).max() <= blocks / 127  # half a step of 127 up and down, rounded


def test_layers_are_read_when_they_are_looked_at(path, monkeypatch):
    """And of a stack of them one tensor after the other."""
    read, dequantize = [], gguf_package.dequantize
    record = lambda data, kind: read.append(data.size) or dequantize(data, kind)  # noqa: E731
    file = gguf_file.read(_write(path, _tensors()))
    monkeypatch.setattr(gguf_file.gguf, "dequantize", record)
    tree = gguf.language_model(file, gguf_config.read(file))
    assert sorted(read) == [D, V * D]  # the last norm and the embedding
    read.clear()
    up = tree["blocks"]["groups"]["layers"]["layers"]["ffw"]["up"]["kernel"]
    assert np.asarray(up[0, 1]).shape == (D, F)
    assert read == [D * F]
    assert np.asarray(up).shape == (1, LAYERS, D, F)
    assert read == [D * F] * (1 + LAYERS)
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    cut = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, None, None, "x"))
    read.clear()
    np.testing.assert_array_equal(hosts.place(up, cut), up)
    assert read == [D * F] * LAYERS * 2  # once for eight devices, and to compare


@pytest.mark.reference
@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_every_block_format_against_transformers(path):
    """Blocks of random bytes; where a scale is none, nor is it there."""
    torch = import_torch()
    theirs = pytest.importorskip("transformers.integrations.gguf.dequant")
    rng, writer = np.random.default_rng(4), gguf_package.GGUFWriter(path, "llama")
    blocks = {}
    for number, (_, size) in theirs.GGML_BLOCK.items():
        kind = gguf_package.GGMLQuantizationType(number)
        blocks[kind] = rng.integers(0, 256, (5, 2 * size), np.uint8)
        writer.add_tensor(kind.name, blocks[kind], raw_dtype=kind)
    half = rng.normal(size=(5, 64)).astype(np.float16)
    brain = half.astype(np.float32).view(np.uint32) >> 16
    writer.add_tensor("F16", half)
    kind = gguf_package.GGMLQuantizationType.BF16
    writer.add_tensor("BF16", brain.astype(np.uint16).view(np.uint8), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = gguf_file.read(path)
    np.testing.assert_array_equal(file.unread("F16"), half)
    np.testing.assert_array_equal(file.unread("BF16"), (brain << 16).view(np.float32))
    for kind, data in blocks.items():
        want = theirs.dequantize(torch.from_numpy(data), int(kind)).numpy()
        have = np.asarray(file.unread(kind.name))
        np.testing.assert_allclose(have, want.reshape(have.shape), rtol=1e-6, err_msg=kind.name)


def test_an_untied_head_is_read(path):
    head = np.random.default_rng(3).normal(size=(V, D)).astype(np.float32)
    config, weights = load(_write(path, _tensors() | {"output.weight": head}))
    assert not config.tied_head
    np.testing.assert_array_equal(weights["head"], head)
    again = _tensors()["token_embd.weight"]
    config, weights = load(_write(path, _tensors() | {"output.weight": again}))
    assert config.tied_head
    assert "head" not in weights
    again[-1, -1] += 1
    assert not load(_write(path, _tensors() | {"output.weight": again}))[0].tied_head


def _without(name):
    return {k: v for k, v in _tensors().items() if k != name}


def _slowed(path, factors=None, **metadata):
    """The config of a file with factors of rotary positions, or metadata of theirs."""
    named = {f"rope.{name}": value for name, value in metadata.items()}
    named = {name.replace("scaling_", "scaling."): value for name, value in named.items()}
    tensors = _tensors() | ({} if factors is None else {"rope_freqs.weight": factors})
    return gguf_config.read(gguf_file.read(_write(path, tensors, _metadata() | named)))


def test_rotary_positions_that_turn_slower(path):
    """Llama 3.1 and later have a tensor for it, not metadata."""
    ones = np.ones(H // 2, np.float32)
    assert _slowed(path, ones).rope_scaling is None
    # Base 5e4: in 8192 tokens pairs 0 to 4 turn 4 times or more, pair 5 1.5 times, 6 and 7 less.
    turns = 8192 * 5e4 ** (-np.arange(H // 2) / (H // 2)) / (2 * np.pi)
    share = np.clip((turns - 1) / 3, 0, 1)
    assert 0 < share[5] < 1
    factors = (1 / ((1 - share) / 32 + share)).astype(np.float32)
    assert _slowed(path, factors).rope_scaling == Llama3Scaling(32.0, 1.0, 4.0, 8192)
    with pytest.raises(BadWeightsFile, match=r"rope_freqs\.weight of 1 to 8 is not Llama 3's: use"):
        _slowed(path, np.linspace(1, 8, H // 2, dtype=np.float32))
    for wrong in (ones[:3], 0 * ones):
        with pytest.raises(BadWeightsFile, match=r"rope_freqs\.weight' is .* ask for 8 numbers ab"):
            _slowed(path, wrong)
    assert _slowed(path, scaling_type="none").rope_scaling is None
    assert _slowed(path, scaling_type="linear", scaling_factor=4.0).rope_scaling == LinearScaling(4)
    assert _slowed(path, ones, scale_linear=4.0).rope_scaling == LinearScaling(4)
    yarn = {"scaling_type": "yarn", "scaling_factor": 4.0, "scaling_original_context_length": 64}
    assert _slowed(path, **yarn).rope_scaling == YarnScaling(4.0, 64, 0.1 * math.log(4) + 1)
    with pytest.raises(BadWeightsFile, match="'yarn' with yarn_log_multiplier is not supported"):
        _slowed(path, **yarn, scaling_yarn_log_multiplier=0.1)
    with pytest.raises(BadWeightsFile, match="rotary scaling 'longrope' is not supported"):
        _slowed(path, scaling_type="longrope")


def test_names_of_tensors_are_those_of_the_gguf_package():
    kinds = {name: kind for kind, name in gguf_package.MODEL_ARCH_NAMES.items()}
    beside = ("rope_", "attn_rot", "_exps", "_inp")  # factors, buffers and experts
    for name, architecture in ARCHITECTURES.items():
        names = architecture.names
        ours = {names.embedding, names.final_norm, names.head, *filter(None, [names.positions])}
        ours |= {f"{names.layer}{module}".replace("{}", "{bid}") for module in names.modules}
        theirs = {gguf_package.TENSOR_NAMES[t] for t in gguf_package.MODEL_TENSORS[kinds[name]]}
        theirs = {n for n in theirs if not any(part in n for part in beside)}
        if name == "phi3":  # of its models that are fused into one
            theirs -= {f"blk.{{bid}}.attn_{x}" for x in "qkv"}
        assert ours == theirs | {"output"}, name


@pytest.mark.parametrize(
    ("tensors", "metadata", "architecture", "message"),
    [
        (_without("blk.1.attn_v.weight"), {}, "llama", r"no tensor blk\.1\.attn_v\.weight"),
        (_tensors(), {}, "falcon", r"architecture 'falcon' cannot be read, only \['llama'"),
        (
            _tensors(),
            {"feed_forward_length": F + 1},
            "llama",
            r"ffw/down/kernel is \(1, 2, 96, 64\)",
        ),
        (
            _without("blk.1.attn_q.weight") | {"blk.1.attn_q.weight": np.ones((9, D), "f")},
            {},
            "llama",
            r"attn_q",
        ),
        (_tensors(), {"attention.head_count_kv": 3}, "llama", "divide"),
        (_tensors(), {"rope.dimension_count": 8}, "llama", "rotary positions on 8 of 16 numbers"),
        (_tensors(), {"block_count": 0}, "llama", "block_count"),
        (_tensors(), {"block_count": 2**31}, "llama", "2147483648 layers, more than its tensors"),
        (_tensors(), {"block_count": 1}, "llama", r"no place in a llama model: blk\.1"),
        (_tensors() | {"blk.0.attn_q.bias": np.zeros(D, "f")}, {}, "llama", "differ in .*/bias"),
        (_tensors() | {"blk.0.ffn_gate_inp.weight": np.zeros(D, "f")}, {}, "llama", "no place"),
        (_tensors(), {"attention.head_count": "4"}, "llama", "attention.head_count is '4', want >"),
    ],
)
def test_files_that_do_not_fit(path, tensors, metadata, architecture, message):
    _write(path, tensors, _metadata() | metadata, architecture)
    with pytest.raises(BadWeightsFile, match=message) as raised:
        load(path)
    assert "\n" not in str(raised.value)


def test_every_truncation_is_one_clear_error(path):
    data = _write(path, _tensors()).read_bytes()
    tensors_start = gguf_package.GGUFReader(path).data_offset
    for stop in [*range(0, tensors_start, 3), tensors_start, len(data) // 2, len(data) - 32]:
        path.write_bytes(data[:stop])
        with pytest.raises(BadWeightsFile, match=r"cut short|not a GGUF"):
            load(path)


def test_files_that_are_no_gguf_or_lie(path):
    with pytest.raises(BadWeightsFile, match="No such file"):
        gguf_file.read(path)
    path.write_bytes(b"<!DOCTYPE html>" * 10)
    with pytest.raises(BadWeightsFile, match="does not begin"):
        gguf_file.read(path)
    data = bytearray(_write(path, _tensors()).read_bytes())
    data[16:24] = (2**62).to_bytes(8, "little")  # number of metadata entries
    path.write_bytes(data)
    with pytest.raises(BadWeightsFile, match=str(path)):
        gguf_file.read(path)
    data[4:8] = (9).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(BadWeightsFile, match="version 9"):
        gguf_file.read(path)


def test_a_part_of_a_model_says_how_to_join_them(path):
    file = gguf_file.read(_write(path, _tensors()))
    part = dataclasses.replace(file, metadata={"split.count": 3, "split.no": 1})
    with pytest.raises(BadWeightsFile, match="one of 3 files of a model: join them with llama"):
        gguf_config.read(part)


def test_an_array_of_endless_length_does_not_fill_the_memory(path):
    data = bytearray(_write(path, _tensors()).read_bytes())
    at = data.index(b"tokenizer.ggml.tokens") + len(b"tokenizer.ggml.tokens") + 4
    data[at : at + 12] = (5).to_bytes(4, "little") + (2**60).to_bytes(8, "little")  # of int32
    path.write_bytes(data)
    with pytest.raises(BadWeightsFile, match="cut short or damaged"):
        gguf_file.read(path)


@pytest.mark.reference
def test_smollm2_against_transformers():
    """Every tensor and every number of the config, as its own GGUF loader has them."""
    import_torch()
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    file = parts.find(parts.SMOLLM2)
    config, weights = load(file)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        str(file.parent), gguf_file=file.name, dtype="float32"
    )
    theirs = model.config
    assert config.num_layers == theirs.num_hidden_layers == 30
    assert config.width == theirs.hidden_size
    assert (config.num_heads, config.kv_heads) == (9, theirs.num_key_value_heads)
    assert config.ffw_width == theirs.intermediate_size
    assert math.isclose(config.norm_eps, theirs.rms_norm_eps, rel_tol=1e-6)
    assert config.rope_base == theirs.rope_parameters["rope_theta"]
    state = {k: v.numpy() for k, v in model.state_dict().items()}
    names = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "o_proj"}
    d = config.width
    for i, layer in enumerate(weights["layers"]):
        of = lambda name, i=i: state[f"model.layers.{i}.{name}.weight"]  # noqa: E731
        np.testing.assert_array_equal(layer["attn_norm"], of("input_layernorm"))
        np.testing.assert_array_equal(layer["ffw_norm"], of("post_attention_layernorm"))
        for ours, name in names.items():
            kernel = np.reshape(layer[ours], (-1, d) if ours == "o" else (d, -1))
            np.testing.assert_array_equal(kernel, of(f"self_attn.{name}").T)
        for ours in ("gate", "up", "down"):
            np.testing.assert_array_equal(layer[ours], of(f"mlp.{ours}_proj").T)
    np.testing.assert_array_equal(weights["embedding"], state["model.embed_tokens.weight"])
    np.testing.assert_array_equal(weights["final_norm"], state["model.norm.weight"])
