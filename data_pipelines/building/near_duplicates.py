"""Keys that equal and similar texts share, and the perceptual hash that similar pictures share.

Texts: MinHash over five-word shingles with 14 bands of 8 rows, as FineWeb uses it (Penedo et al.
2024): a pair whose shingles overlap by 0.75 shares a band in 77 of 100 cases, by 0.9 always, by 0.5
in 5. Pictures: the 64-bit DCT hash of the ImageHash package. The paper names neither; it says of
M3W that it holds much redundancy and was not deduplicated against the evaluation sets.
"""

import hashlib
import re
import zlib

import imagehash
import numpy as np
from PIL import Image

from flamingo_jax.config import ImagePreprocessing
from flamingo_jax.images import decode_image

NUM_BANDS = 14
ROWS_PER_BAND = 8
NUM_TEXT_KEYS = 1 + NUM_BANDS
_SHINGLE_WORDS = 5
_WORDS_AT_ONCE = 4096  # bounds the memory of a very long text: 112 x 4096 hashes are 4 MB
_SMALL_PX = 128  # the side of the square on which a picture's colour and hash are computed
_WORD = re.compile(r"\w+")

_RNG = np.random.default_rng(20220429)
_MULTIPLIERS = _RNG.integers(1, 2**63, NUM_BANDS * ROWS_PER_BAND, np.uint64) * np.uint64(2) + 1
_OFFSETS = _RNG.integers(0, 2**63, NUM_BANDS * ROWS_PER_BAND, np.uint64)
_PLACES = _RNG.integers(1, 2**63, _SHINGLE_WORDS, np.uint64) * np.uint64(2) + 1


def hash64(*parts: str | bytes) -> int:
    """A 64-bit hash of a list of strings, the same on every machine."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    return int.from_bytes(digest.digest(), "big")


def text_keys(text: str) -> np.ndarray:  # u64[NUM_TEXT_KEYS]
    """First the key that only equal texts share, then those that similar ones may share.

    Case, white space and punctuation are passed over.
    """
    words = _WORD.findall(text.lower())
    signature = _minhash(words).reshape(NUM_BANDS, ROWS_PER_BAND)
    bands = (hash64(f"band {n}", band.tobytes()) for n, band in enumerate(signature))
    return np.array([hash64("text", " ".join(words)), *bands], np.uint64)


def small(data: bytes) -> Image.Image:
    """A picture of a file, RGB and upright, its longer side 128 pixels; BadMedia for none."""
    found = []
    decode_image(
        data,
        ImagePreprocessing(size_px=_SMALL_PX),
        augment=lambda image: found.append(image) or image,
    )
    return found[0]


def perceptual_hash(image: Image.Image) -> int:
    """64 bits, of which similar pictures differ in few."""
    return int(str(imagehash.phash(image)), 16)


def distances(
    one: int,
    many: np.ndarray,  # u64[n]
) -> np.ndarray:  # u8[n]
    """In how many bits a perceptual hash differs from each of others."""
    return np.bitwise_count(many ^ np.uint64(one))


def _minhash(words: list[str]) -> np.ndarray:  # u64[NUM_BANDS * ROWS_PER_BAND]
    hashes = np.array([zlib.crc32(word.encode()) for word in words], np.uint64)
    if len(hashes) < _SHINGLE_WORDS:
        hashes = np.pad(hashes, (0, _SHINGLE_WORDS - len(hashes)))
    count = len(hashes) - _SHINGLE_WORDS + 1
    shingles = np.zeros(count, np.uint64)
    for place, multiplier in enumerate(_PLACES):
        shingles += _mixed(hashes[place : place + count]) * multiplier
    shingles = _mixed(shingles)
    smallest = np.full(len(_OFFSETS), np.iinfo(np.uint64).max, np.uint64)
    for start in range(0, count, _WORDS_AT_ONCE):
        some = shingles[start : start + _WORDS_AT_ONCE]
        permuted = (some * _MULTIPLIERS[:, None] + _OFFSETS[:, None]) >> np.uint64(16)
        np.minimum(smallest, permuted.min(axis=1), out=smallest)
    return smallest


def _mixed(hashes: np.ndarray) -> np.ndarray:  # u64[n] -> u64[n]
    """The finalizer of MurmurHash3: every bit of the input moves every bit of the output."""
    hashes = (hashes ^ (hashes >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    hashes = (hashes ^ (hashes >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return hashes ^ (hashes >> np.uint64(33))
