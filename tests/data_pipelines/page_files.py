"""Pages for tests: HTML that passes every filter, pictures that do, and WARC files of both."""

import io
import pathlib
import random

import numpy as np
from PIL import Image
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

_WORDS = """
    the of and to in that with have water river mountain garden picture street market window
    winter summer bridge forest house people country teacher music morning animal journey island
"""


def text(seed: int, num_words: int = 60) -> str:
    return " ".join(random.Random(seed).choices(_WORDS.split(), k=num_words))


def page(seed: int, images: list[str]) -> bytes:
    """A title, then each image before a paragraph, between navigation and a footer."""
    parts = "".join(
        f"<p><img src='{image}' alt='picture {n}'></p><p>{text(100 * seed + n)}</p>"
        for n, image in enumerate(images)
    )
    return (
        f"<html><title>Page {seed}</title><nav><a href=/>Home</a><img src=icon.png></nav>"
        f"<h1>Title of page {seed}</h1><p>{text(100 * seed + 99)}</p>{parts}<footer>End</footer>"
    ).encode()


def picture(seed: int, kind: str = "JPEG", size: tuple[int, int] = (96, 80)) -> bytes:
    small = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(file, kind)
    return file.getvalue()


def write_html(folder: pathlib.Path, count: int) -> None:
    """`count` pages with two pictures each, in the folder `images`."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for seed in range(count):
        names = [f"images/{seed}-{n}.jpg" for n in range(2)]
        (folder / f"page{seed}.html").write_bytes(page(seed, names))
        for n, name in enumerate(names):
            (folder / name).write_bytes(picture(10 * seed + n))


def response(url: str, content_type: str, data: bytes, **options) -> tuple:
    """One record for `write_warc`; `status` and `headers` are HTTP's."""
    return url, content_type, data, options


def page_responses(count: int) -> list[tuple]:
    """`count` pages with two pictures each, behind their page."""
    records = []
    for seed in range(count):
        url = f"http://a.example/{seed}/"
        records.append(
            response(f"{url}page.html", "text/html; charset=utf-8", page(seed, ["0.jpg", "1.jpg"]))
        )
        records += [
            response(f"{url}{n}.jpg", "image/jpeg", picture(10 * seed + n)) for n in range(2)
        ]
    return records


def write_warc(path: pathlib.Path, records: list[tuple], compressed: bool = True) -> pathlib.Path:
    with open(path, "wb") as file:
        writer = WARCWriter(file, gzip=compressed)
        for url, content_type, data, options in records:
            headers = [("Content-Type", content_type), *options.get("headers", ())]
            writer.write_record(
                writer.create_warc_record(
                    url,
                    "response",
                    payload=io.BytesIO(data),
                    http_headers=StatusAndHeaders(
                        options.get("status", "200 OK"), headers, protocol="HTTP/1.1"
                    ),
                    warc_headers_dict={"WARC-Date": "2026-11-21T00:00:00Z"},
                )
            )
    return path
