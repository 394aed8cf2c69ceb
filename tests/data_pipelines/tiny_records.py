"""Records for tests: pictures that tell their number, and pairs of them."""

import io

import numpy as np
from PIL import Image

from data_pipelines.records import media_id


def picture(number: int, size: int = 16) -> bytes:
    """A PNG of one colour that tells its number: red and green are its two low bytes."""
    file = io.BytesIO()
    Image.new("RGB", (size, size), (number % 256, number // 256, 77)).save(file, "PNG")
    return file.getvalue()


def record(name: str, text: str, positions=(0,), media=()) -> dict:
    """One example of the schema; positions and media may disagree, for bad ones are wanted too."""
    return {
        "id": name,
        "text": text,
        "media_positions": np.asarray(positions, np.int32),
        "media": np.asarray(media, object),
        "media_ids": np.asarray([media_id(data) for data in media], object),
        "metadata": "{}",
    }


def pairs(count: int) -> list[dict]:
    """Pair i: picture i and the caption `i`."""
    return [record(str(i), str(i), media=[picture(i)]) for i in range(count)]
