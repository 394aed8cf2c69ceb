"""Both torch containers, honest, cut short and lying."""

import collections
import pathlib
import pickle
import struct
import zipfile

import numpy as np
import pytest

from flamingo_jax.weights.errors import BadWeightsFile
from flamingo_jax.weights.files.torch_checkpoint import load_state_dict
from tests import parts
from tests.torch_reference import import_torch

_MAGIC = 0x1950A86A20F9469CFC6C


def _global(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def _value(value) -> bytes:
    """One value as pickle opcodes without the frame around it."""
    return pickle.dumps(value, 2)[2:-1]


def _tensor(key="k", kind="FloatStorage", size=6, offset=0, shape=(2, 3), strides=(3, 1)) -> bytes:
    """Opcodes that torch writes for a tensor, by hand."""
    storage = b"(" + _value("storage") + _global("torch", kind) + _value(key) + _value("cpu")
    storage += _value(size) + b"N" + b"tQ"
    arguments = _value(offset) + _value(shape) + _value(strides) + b"\x89"
    arguments += _global("collections", "OrderedDict") + b")R"
    return _global("torch._utils", "_rebuild_tensor_v2") + b"(" + storage + arguments + b"tR"


def _state(tensors: dict[str, bytes]) -> bytes:
    items = b"".join(_value(name) + tensor for name, tensor in tensors.items())
    return b"\x80\x02" + _global("collections", "OrderedDict") + b")R(" + items + b"u."


def _old(state: bytes, storages: dict[str, tuple[int, bytes]], **system) -> bytes:
    system = {"little_endian": True, "protocol_version": 1001} | system
    head = [pickle.dumps(v, 2) for v in (_MAGIC, 1001, system)]
    tail = [struct.pack("<q", count) + data for count, data in storages.values()]
    return b"".join([*head, state, pickle.dumps(list(storages), 2), *tail])


def _write_zip(path, state, storages, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", state)
        archive.writestr("archive/byteorder", "little")
        for key, data in storages.items():
            archive.writestr(f"archive/data/{key}", data)


_SIX = np.arange(6, dtype="<f4")


@pytest.fixture
def path(tmp_path) -> pathlib.Path:
    return tmp_path / "weights.pth"


def test_of_a_training_checkpoint_only_the_wanted_tensors_of_the_model_are_read(path):
    model = _state({"a": _tensor("k"), "b": _tensor("lost")})[2:-1]
    beside = _value("epoch") + _value(3) + _value("optimizer_state_dict")
    beside += b"}(" + _value("state") + b"}(" + _value(0) + _tensor("lost") + b"u" + b"u"
    state = b"\x80\x02}(" + beside + _value("model_state_dict") + model + b"u."
    _write_zip(path, state, {"k": _SIX.tobytes(), "unread": bytes(64)})
    out = load_state_dict(path, lambda name: name == "a")
    assert list(out) == ["a"]
    np.testing.assert_array_equal(out["a"], _SIX.reshape(2, 3))
    with pytest.raises(BadWeightsFile, match="lost"):
        load_state_dict(path)


@pytest.mark.parametrize("container", ["old", "zip"])
def test_shapes_strides_and_offsets(path, container):
    state = _state(
        {
            "plain": _tensor(),
            "transposed": _tensor(shape=(3, 2), strides=(1, 3)),
            "tail": _tensor(offset=4, shape=(2,), strides=(1,)),
            "scalar": _tensor(offset=5, shape=(), strides=()),
            "empty": _tensor(shape=(0, 4), strides=(4, 1)),
        }
    )
    if container == "old":
        path.write_bytes(_old(state, {"k": (6, _SIX.tobytes())}))
    else:
        _write_zip(path, state, {"k": _SIX.tobytes()})
    out = load_state_dict(path)
    assert list(out) == ["plain", "transposed", "tail", "scalar", "empty"]
    np.testing.assert_array_equal(out["plain"], [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(out["transposed"], [[0, 3], [1, 4], [2, 5]])
    np.testing.assert_array_equal(out["tail"], [4, 5])
    assert out["scalar"].shape == ()
    assert out["scalar"] == 5
    assert out["empty"].shape == (0, 4)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (_tensor(shape=(3, 3)), "beyond its storage"),
        (_tensor(offset=1), "beyond its storage"),
        (_tensor(shape=(2**40,), strides=(0,)), "beyond its storage"),
        (_tensor(offset=-1), "negative"),
        (_tensor(strides=(-3, 1)), "negative"),
        (_tensor(strides=(1,)), "strides"),
        (_tensor(size=2**40), "cut short"),
        (_tensor(size=5, shape=(5,), strides=(1,)), "6 numbers where 5"),
        (_tensor(shape=(0, 2**40, 2**40), strides=(1, 1, 1)), "impossible shape"),
        (_tensor(kind="EvilStorage"), r"torch\.EvilStorage"),
        (_value("text"), "'weight' is a str"),
    ],
)
def test_lying_tensors(path, tensor, message):
    path.write_bytes(_old(_state({"weight": tensor}), {"k": (6, _SIX.tobytes())}))
    with pytest.raises(BadWeightsFile, match=message) as raised:
        load_state_dict(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_lying_containers(path):
    state = _state({"weight": _tensor()})
    lies = {
        "list of storages": _old(state, {"other": (6, _SIX.tobytes())}),
        "7 numbers where 6": _old(state, {"k": (7, _SIX.tobytes() + b"more")}),
        "big-endian": _old(state, {"k": (6, _SIX.tobytes())}, little_endian=False),
        "not a torch checkpoint": pickle.dumps({"weight": [1.0, 2.0]}, 2),
        "not a torch checkpoint ": b"<!DOCTYPE html><html>404</html>",
    }
    for message, data in lies.items():
        path.write_bytes(data)
        with pytest.raises(BadWeightsFile, match=message.strip()):
            load_state_dict(path)


@pytest.mark.parametrize("container", ["old", "zip"])
def test_every_truncation_is_one_clear_error(path, container):
    state = _state({"weight": _tensor()})
    if container == "old":
        data = _old(state, {"k": (6, _SIX.tobytes())})
    else:
        _write_zip(path, state, {"k": _SIX.tobytes()})
        data = path.read_bytes()
    for stop in range(len(data)):
        path.write_bytes(data[:stop])
        with pytest.raises(BadWeightsFile, match="again"):
            load_state_dict(path)


def test_zip_with_a_compressed_storage_is_refused(path):
    size = 10**6
    tensor = _tensor(size=size, shape=(size,), strides=(1,))
    _write_zip(path, _state({"weight": tensor}), {"k": bytes(4 * size)}, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 100_000
    with pytest.raises(BadWeightsFile, match="compressed"):
        load_state_dict(path)


def test_of_a_zip_nothing_is_read_into_memory_and_checksums_are_looked_at(path):
    _write_zip(path, _state({"weight": _tensor()}), {"k": _SIX.tobytes()})
    out = load_state_dict(path)["weight"]
    base = out
    while not isinstance(base, np.memmap):
        base = base.base
    data = bytearray(path.read_bytes())
    data[data.index(_SIX.tobytes()) + 5] ^= 1
    path.write_bytes(data)
    with pytest.raises(BadWeightsFile, match=r"Bad CRC-32 .*: fetch the file again"):
        load_state_dict(path)


def test_hostile_checkpoint_runs_nothing(path, tmp_path):
    class Payload:
        def __reduce__(self):
            return pathlib.Path.touch, (tmp_path / "pwned",)

    path.write_bytes(_old(pickle.dumps({"weight": Payload()}, 2), {}))
    with pytest.raises(BadWeightsFile, match=r"refused to build .*getattr"):
        load_state_dict(path)
    assert not (tmp_path / "pwned").exists()


def test_missing_file(path):
    with pytest.raises(BadWeightsFile, match="No such file"):
        load_state_dict(path)


@pytest.mark.reference
@pytest.mark.parametrize("zipped", [False, True])
def test_what_torch_saves(path, zipped):
    torch = import_torch()
    kinds = [
        "float64",
        "float32",
        "float16",
        "bfloat16",
        "int64",
        "int32",
        "int16",
        "int8",
        "uint8",
        "bool",
    ]
    state = collections.OrderedDict(
        (kind, (torch.arange(12).reshape(3, 4) % 2).to(getattr(torch, kind)).T) for kind in kinds
    )
    state["shared"] = state["float32"][1:]
    state["parameter"] = torch.nn.Parameter(torch.randn(5))
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    out = load_state_dict(path)
    assert list(out) == list(state)
    for name, want in state.items():
        assert str(out[name].dtype) == str(want.dtype).removeprefix("torch.")
        np.testing.assert_array_equal(
            out[name].astype(np.float64), want.detach().to(torch.float64).numpy()
        )


@pytest.mark.reference
def test_the_published_efficientnet_equals_torch_load():
    torch = import_torch()
    file = parts.find(parts.EFFICIENTNET_LITE0)
    want, out = torch.load(file, weights_only=True), load_state_dict(file)
    assert list(out) == list(want)
    assert len(out) == 296
    for name, array in out.items():
        np.testing.assert_array_equal(array, want[name].numpy())
