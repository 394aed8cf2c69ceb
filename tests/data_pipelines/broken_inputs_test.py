"""Thousands of damaged files through the readers of media and of datasets.

Each is a good file with bytes changed, cut, repeated or inserted, with a bomb or a lie among them.
None may raise anything but its reason, hang, or take much memory, and good ones beside it are kept.
`FLAMINGO_TEST_BROKEN` sets how many there are of each of the kinds; 20 by default.
"""

import base64
import io
import json
import os
import random
import resource
import struct
import time
import zlib

import numpy as np
import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

from data_pipelines.sources.coco import Coco
from data_pipelines.sources.mmc4 import Mmc4
from data_pipelines.sources.obelics import Obelics
from data_pipelines.sources.webdataset import WebDataset
from flamingo_jax.config import ImagePreprocessing
from flamingo_jax.images import BadMedia, decode_image
from flamingo_jax.videos import decode_video
from tests.data_pipelines.sources.converting import converted, write_tar
from tests.data_pipelines.tiny_records import picture
from tests.data_pipelines.tiny_video import video

COUNT = int(os.environ.get("FLAMINGO_TEST_BROKEN", "20"))
PP = ImagePreprocessing(size_px=32)
MAX_SECONDS = 5.0  # for one file
MAX_RISE_MIB = 700  # of the peak memory over all files of a kind; a 67-megapixel picture takes 201


def damaged(data: bytes, rng: random.Random) -> bytes:
    """A changed copy of `data`."""
    broken = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(broken) + 1) if rng.random() < 0.7 else rng.randrange(64)
        match rng.randrange(5):
            case 0:
                broken = broken[:at]
            case 1:
                broken[at : at + 1] = bytes([rng.randrange(256)])
            case 2:
                broken[at : at + 4] = rng.choice((b"\xff" * 4, b"\x00" * 4, b"\x7f\xff\xff\xff"))
            case 3:
                broken[at:at] = rng.randbytes(rng.randrange(1, 100))
            case 4:
                broken[at:at] = broken[at : at + rng.randrange(1, 1000)]
        if not broken:
            break
    return bytes(broken)


def encoded(kind: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def png_bomb(width: int, height: int) -> bytes:
    """A few hundred bytes that claim to be a picture of any size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(100_000))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


@pytest.fixture(autouse=True)
def _memory_stays_bounded():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    rise = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert rise < MAX_RISE_MIB


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "MP4"])
def test_media(kind):
    decode = decode_video if kind == "MP4" else decode_image
    good = video(24) if kind == "MP4" else encoded(kind)
    rng, reasons, whole = random.Random(kind), set(), 0
    for _ in range(COUNT):
        start = time.monotonic()
        try:
            pixels = decode(damaged(good, rng), PP)
        except BadMedia as error:
            reasons.add(error.reason)
        else:
            whole += 1
            assert pixels.shape[-3:] == (32, 32, 3)
        assert time.monotonic() - start < MAX_SECONDS
    assert decode(good, PP).shape[-3:] == (32, 32, 3)
    assert reasons <= {"empty", "not_an_image", "not_a_video", "too_large", "too_long", "truncated",
                       "damaged", "unsupported_mode"}  # fmt: skip
    assert reasons


@pytest.mark.parametrize("size", [(30_000, 30_000), (1, 2_000_000_000), (2**31 - 1, 2**31 - 1)])
def test_bombs(size):
    with pytest.raises(BadMedia) as caught:
        decode_image(png_bomb(*size), PP)
    assert caught.value.reason in ("too_large", "damaged")


def jsonl(path):
    image = {"image_name": "0.png", "matched_text_index": 0, "matched_sim": 0.3}
    image["image_base64"] = base64.b64encode(picture(1)).decode()
    page = json.dumps({"text_list": ["one", "two"], "image_info": [image], "url": "u"}) + "\n"
    path.write_text(page * 10)


def tar(path):
    files = {}
    for i in range(10):
        files |= {f"{i}.png": picture(1), f"{i}.txt": b"caption", f"{i}.json": b'{"url": "u"}'}
    write_tar(path, files)


def parquet_file(path):
    row = {"images": [{"bytes": picture(1), "path": None}, None], "texts": [None, "one"]}
    parquet.write_table(pyarrow.Table.from_pylist([row] * 10), path, row_group_size=2)


def captions(path):
    image = {"id": 1, "file_name": "1.png"}
    annotations = [{"image_id": 1, "id": i, "caption": f"caption {i}"} for i in range(10)]
    path.write_text(json.dumps({"images": [image], "annotations": annotations}))
    (path.parent / "1.png").write_bytes(picture(1))


SOURCES = {
    "jsonl": (jsonl, lambda folder: Mmc4()),
    "tar": (tar, lambda folder: WebDataset()),
    "parquet": (parquet_file, lambda folder: Obelics()),
    "json": (captions, lambda folder: Coco(str(folder))),
}


@pytest.mark.parametrize("kind", sorted(SOURCES))
def test_dataset_files(tmp_path, kind):
    write, open_source = SOURCES[kind]
    good, bad = tmp_path / f"good.{kind}", tmp_path / f"bad.{kind}"
    write(good)
    rng, lost = random.Random(kind), 0
    for _ in range(COUNT):
        bad.write_bytes(damaged(good.read_bytes(), rng))
        start = time.monotonic()
        documents, counts = converted(open_source(tmp_path), [bad, good])
        assert time.monotonic() - start < MAX_SECONDS
        assert sum(document.media == (picture(1),) for document in documents) >= 10
        lost += counts.dropped.total() + counts.media_dropped.total() > 0
    assert lost > COUNT / 4
