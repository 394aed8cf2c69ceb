"""The format of TFRecord files: a chain of `u64 length, u32 crc(length), data, u32 crc(data)`.

Little-endian; the crc is a masked CRC-32C.
"""

import struct

import google_crc32c

HEADER_BYTES = 12
FOOTER_BYTES = 4


def framed(data: bytes) -> bytes:
    """One record as it stands in a file."""
    length = struct.pack("<Q", len(data))
    return length + masked_crc(length) + data + masked_crc(data)


def masked_crc(data: bytes) -> bytes:
    """CRC-32C, rotated and offset, as it stands in the file."""
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
