"""Records for tests: pictures that tell their number, and pairs of them."""

import hashlib
import io

from PIL import Image


def picture(number: int, size: int = 16) -> bytes:
    """A PNG of one colour that tells its number: red and green are its two low bytes."""
    file = io.BytesIO()
    Image.new("RGB", (size, size), (number % 256, number // 256, 77)).save(file, "PNG")
    return file.getvalue()


def record(name: str, text: str, positions=(0,), media=()) -> dict:
    return {
        "id": name,
        "text": text,
        "media_positions": list(positions),
        "media": list(media),
        "media_ids": [hashlib.sha256(data).hexdigest()[:16] for data in media],
        "metadata": "{}",
    }


def pairs(count: int) -> list[dict]:
    """Pair i: picture i and the caption `i`."""
    return [record(str(i), str(i), media=[picture(i)]) for i in range(count)]
