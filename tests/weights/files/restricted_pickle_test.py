"""Hostile pickles are refused by name and nothing in them runs; honest ones come out whole."""

import builtins
import collections
import io
import os
import pickle
import struct

import pytest

from flamingo_jax.weights.files.restricted_pickle import Malformed, unpickle


class _Call:
    """Pickles as a call of `function`."""

    def __init__(self, function, *arguments):
        self._reduced = (function, arguments)

    def __reduce__(self):
        return self._reduced


def _unpickle(data: bytes):
    return unpickle(io.BytesIO(data))


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize(
    ("function", "argument", "name"),
    [
        (os.system, "touch {path}", "system"),
        (eval, "open({path!r}, 'w')", "builtins.eval"),
        (exec, "open({path!r}, 'w')", "builtins.exec"),
        (os.mkdir, "{path}", "mkdir"),
        (builtins.__import__, "antigravity", "builtins.__import__"),
    ],
)
def test_calls_are_refused_and_not_made(tmp_path, protocol, function, argument, name):
    path = str(tmp_path / "pwned")
    data = pickle.dumps(
        {"weight": _Call(function, argument.format(path=path))}, protocol, fix_imports=False
    )
    with pytest.raises(Malformed, match=name):
        _unpickle(data)
    assert not os.path.exists(path)


def test_the_same_payload_does_run_in_the_standard_unpickler(tmp_path):
    # Otherwise the test above could pass with a payload that does nothing.
    path = tmp_path / "pwned"
    pickle.loads(pickle.dumps(_Call(os.mkdir, str(path))))
    assert path.exists()


def test_a_call_inside_the_arguments_of_an_allowed_call_is_refused(tmp_path):
    path = tmp_path / "pwned"
    outer = _Call(collections.OrderedDict, [("a", _Call(eval, f"open({str(path)!r}, 'w')"))])
    with pytest.raises(Malformed, match=r"refused to build .*eval"):
        _unpickle(pickle.dumps(outer, 2))
    assert not path.exists()


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"(S'true'\nios\nsystem\n.", "os"),  # INST and OBJ call a class without REDUCE
        (b"(ios\nsystem\n.", "os system"),
        (b"(cos\nsystem\nS'true'\no.", r"os\.system"),
        (b"\x80\x02cbuiltins\ngetattr\n.", r"builtins\.getattr"),
        (b"\x80\x02ccollections\ndefaultdict\n.", r"collections\.defaultdict"),
        (b"\x80\x02ctorch.hub\nload\n.", r"torch\.hub\.load"),
        (b"\x80\x02ccollections\nOrderedDict\n)\x81.", "NEWOBJ"),
        (b"\x80\x02\x82\x01.", "EXT1"),
        (b"\x80\x03C\x02ab.", "BINBYTES"),
        (b"\x80\x02ctorch\nFloatStorage\n)R.", "FloatStorage"),  # a storage is no function
        (b"\x80\x02X\x01\x00\x00\x00a)R.", "calling str"),
    ],
)
def test_opcodes_that_build_anything_else_are_refused_by_name(data, name):
    with pytest.raises(Malformed, match=name):
        _unpickle(data)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_plain_values_come_out_as_they_went_in(protocol):
    shared = [1, 2]
    value = {
        "numbers": [0, -1, 255, 65536, 2**40, -(2**70), 1.5, float("inf")],
        "text": ["", "naïve 🦩", "x" * 300],
        "constants": (None, True, False),
        "nested": {"a": {"b": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)]}},
        "twice": [shared, shared],
        7: "number as key",
    }
    assert _unpickle(pickle.dumps(value, protocol)) == value


def test_ordered_dict_keeps_its_order_and_drops_its_attributes():
    state = collections.OrderedDict([("z", 1), ("a", 2), ("m", 3)])
    state._metadata = {"": {"version": 1}}
    out = _unpickle(pickle.dumps(state, 2))
    assert list(out.items()) == [("z", 1), ("a", 2), ("m", 3)]
    assert type(out) is dict


def test_every_truncation_is_one_clear_error():
    data = pickle.dumps({"a": [1, 2.5, "text", (None, True)], "b": {"c": 2**80}}, 2)
    for stop in range(len(data)):
        with pytest.raises(Malformed, match="cut short"):
            _unpickle(data[:stop])


def test_the_file_is_left_right_behind_the_pickle():
    file = io.BytesIO(pickle.dumps(1, 2) + pickle.dumps("two", 2) + b"rest")
    assert (unpickle(file), unpickle(file), file.read()) == (1, "two", b"rest")


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02h\x07.",  # a memo entry that is not there
        b"\x80\x02.",  # nothing on the stack
        b"\x80\x02t.",  # a tuple without its mark
        b"\x80\x02K\x01K\x02s.",  # an item set on nothing
        b"\x80\x02}(K\x01u.",  # a key without a value
        b"\x80\x02})K\x01s.",  # a tuple as a key
        b"\x80\x02K\x01Q.",  # a storage reference that is a number
        b"\x80\x02X" + struct.pack("<I", 2**31) + b"a.",  # a string of 2 GiB in 10 bytes
        b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"a.",
        b"\xff\xff\xff",
    ],
)
def test_damaged_pickles_raise_the_same_error(data):
    with pytest.raises(Malformed, match="damaged"):
        _unpickle(data)


def test_values_that_explode_when_compared_or_printed_do_no_harm():
    # Ten bytes a level double the size: 2^60 items if anything walks them.
    bomb = b"\x80\x02]q\x00" + b"".join(b"h%c\x86q%c" % (i, i + 1) for i in range(60))
    assert isinstance(_unpickle(bomb + b"."), tuple)
    for tail in (b"Q.", b")R.", b"\x93.", b"}0sK\x01s."):
        with pytest.raises(Malformed):
            _unpickle(bomb + tail)
