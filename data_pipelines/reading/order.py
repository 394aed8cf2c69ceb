"""The order of examples: a permutation of any size of which each entry is computed alone.

A shuffled epoch needs no buffer and no list, so a run can go on from any place in constant time and
memory, and the order is a function of the key only: not of hosts, threads, or library versions.
"""

import functools
import hashlib

_ROUNDS = 6
_MASK = (1 << 64) - 1


def shuffled(
    index: int,  # 0 to size - 1
    size: int,
    key: str,
) -> int:
    """Entry `index` of the permutation of range(size) that `key` names.

    A Feistel network permutes the next even power of two; entries that land outside the range are
    sent through again until they do not ("cycle walking"; under 4 times on average).
    """
    half_bits = max(1, (max(size - 1, 1).bit_length() + 1) // 2)
    half_mask = (1 << half_bits) - 1
    keys = _round_keys(key)
    while True:
        left, right = index >> half_bits, index & half_mask
        for round_key in keys:
            left, right = right, left ^ (_mix(right + round_key) & half_mask)
        index = left << half_bits | right
        if index < size:
            return index


@functools.lru_cache(maxsize=256)
def _round_keys(key: str) -> tuple[int, ...]:
    digest = hashlib.sha256(key.encode()).digest() + hashlib.sha256(key.encode() + b"+").digest()
    return tuple(int.from_bytes(digest[8 * i : 8 * i + 8], "little") for i in range(_ROUNDS))


def _mix(value: int) -> int:
    """64 bits in which each depends on all bits of `value` (the finalizer of SplitMix64)."""
    value &= _MASK
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    value = (value ^ value >> 27) * 0x94D049BB133111EB & _MASK
    return value ^ value >> 31
