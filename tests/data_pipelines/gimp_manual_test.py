"""GIMP's manual through the extraction, against a walk of the same pages by html.parser.

The files are those of the Debian package `gimp-help-en`: unpack it and set GIMP_HELP to its folder
`usr/share/gimp/2.0/help/en`.
"""

import html.parser
import os
import pathlib
import random
import re

import pytest
from PIL import Image

from data_pipelines.building.counts import Counts
from data_pipelines.building.page_extraction import extract
from data_pipelines.building.page_filters import GOPHER, TextFilters
from data_pipelines.errors import BadRecord
from data_pipelines.sources.html import Html

FOLDER = pathlib.Path(os.environ.get("GIMP_HELP", "/usr/share/gimp/2.0/help/en"))
VOID = {"img", "br", "hr", "meta", "link", "col", "input"}
INLINE = {
    "a",
    "span",
    "em",
    "strong",
    "code",
    "b",
    "i",
    "tt",
    "img",
    "kbd",
    "sup",
    "sub",
    "acronym",
}
INLINE |= {"abbr", "cite", "q", "u", "var", "samp", "small", "big", "font"}

pytestmark = [
    pytest.mark.reference,
    pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no {FOLDER}: set GIMP_HELP"),
]


class Reference(html.parser.HTMLParser):
    """Words and addresses of images in the order of the source, outside of the navigation."""

    def __init__(self, path: pathlib.Path):
        super().__init__()
        self._open, self._text, self.navigation = [], "", []
        self.feed(path.read_text("utf-8"))
        self.tokens = self._text.split()

    def _inside(self) -> bool:
        tags = [tag for tag, _ in self._open]
        return "body" in tags and not any(
            name in ("navheader", "navfooter") or tag in ("script", "style")
            for tag, name in self._open
        )

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag == "img":
            if self._inside():
                self._text += f" [[{attrs['src']}]] "
            else:
                self.navigation.append(attrs["src"])
        if tag not in INLINE:
            self._text += " "
        if tag not in VOID:
            self._open.append((tag, attrs.get("class")))

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        if tag in VOID:
            return
        assert self._open.pop()[0] == tag
        if tag not in INLINE:
            self._text += " "

    def handle_data(self, data):
        if self._inside():
            self._text += data


def tokens(text: str, images: list[tuple[int, str]]) -> list[str]:
    """Words, and addresses of images in double brackets, as `Reference` has them."""
    data, parts, last = text.encode(), [], 0
    for position, url in images:
        parts += [data[last:position].decode(), f" [[{url}]] "]
        last = position
    return "".join([*parts, data[last:].decode()]).split()


def is_subsequence(some: list[str], every: list[str]) -> bool:
    rest = iter(every)
    return all(token in rest for token in some)


def pages() -> list[pathlib.Path]:
    return sorted(FOLDER.glob("*.html"))


@pytest.mark.parametrize(
    "path", random.Random(5).sample(pages(), min(20, len(pages()))), ids=lambda p: p.stem
)
def test_text_and_images_of_twenty_pages_stand_in_the_doms_order(path):
    reference = Reference(path)
    page = extract(path.read_bytes(), path.name)
    ours = tokens(page.text, [(image.position, image.urls[0]) for image in page.images])
    assert is_subsequence(ours, reference.tokens)


def test_every_page_keeps_the_doms_order_all_pictures_and_no_navigation():
    words = [0, 0]
    for path in pages():
        reference = Reference(path)
        try:
            page = extract(path.read_bytes(), path.name)
        except BadRecord as error:
            raise AssertionError(path) from error
        ours = tokens(page.text, [(image.position, image.urls[0]) for image in page.images])
        assert is_subsequence(ours, reference.tokens), path
        kept = {image.urls[0] for image in page.images}
        pictures = {token[2:-2] for token in reference.tokens if token.startswith("[[")}
        lost = {p for p in pictures - kept if min(Image.open(FOLDER / p).size) >= 64}
        assert not lost, path
        navigation = {re.sub(r".*/", "", url) for url in kept} & {"prev.png", "next.png", "up.png"}
        assert not navigation, path
        words[0] += len([t for t in ours if not t.startswith("[[")])
        words[1] += len([t for t in reference.tokens if not t.startswith("[[")])
    print(f"{words[0]} of {words[1]} words kept")
    assert words[0] > 0.9 * words[1]


@pytest.mark.parametrize(("filters", "least"), [(TextFilters(), 451), (GOPHER, 420)])
def test_most_pages_have_a_picture_that_passes(filters, least):
    source, counts, kept = Html(root=str(FOLDER), text_filters=filters), Counts(), 0
    for item in source.items([str(path) for path in pages()]):
        try:
            kept += bool(source.convert(item, counts).media)
        except BadRecord as error:
            counts.drop(error.reason, str(error))
    print(f"{kept} pages kept; {counts}")
    assert kept >= least
