"""The bytes of a sentencepiece model, from its pieces.

Written out by hand, for the classes that `sentencepiece` brings for it want a newer protobuf than
others allow. Field numbers are those of its `sentencepiece_model.proto`.
"""

import struct
from collections.abc import Iterable
from typing import NamedTuple

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # kinds of pieces
_BYTE_PAIRS = 2


class Piece(NamedTuple):
    text: str
    score: float  # of two neighbours that make a piece, those of the higher one are joined first
    kind: int


def byte_pairs(
    pieces: Iterable[Piece],
    *,
    byte_fallback: bool,  # a character without a piece is written in bytes
    add_dummy_prefix: bool,  # a space before every text
    remove_extra_whitespaces: bool,
) -> bytes:
    """A model that splits texts by byte-pair encoding and leaves their characters as they are."""
    messages = [
        _field(1, _field(1, piece.text) + _field(2, piece.score) + _field(3, piece.kind))
        for piece in pieces
    ]
    trainer = _field(3, _BYTE_PAIRS) + _field(35, byte_fallback)
    normalizer = _field(1, "identity") + _field(3, add_dummy_prefix)
    normalizer += _field(4, remove_extra_whitespaces)
    return b"".join([*messages, _field(2, trainer), _field(3, normalizer)])


def _field(number: int, value: bytes | str | float) -> bytes:
    if isinstance(value, float):
        return _varint(number << 3 | 5) + struct.pack("<f", value)
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    value = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
