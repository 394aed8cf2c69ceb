"""What is kept of a page, and where its pictures stand: hand-made pages."""

import itertools
import time

import pytest

from data_pipelines.building.page_encoding import MAX_HTML_BYTES
from data_pipelines.building.page_extraction import Page, extract
from data_pipelines.errors import BadRecord

BASE = "http://a.example/dir/page.html"


def body(html: str, **arguments) -> Page:
    return extract(f"<html><body>{html}</body></html>".encode(), BASE, **arguments)


def with_marks(page: Page) -> str:
    """The text with `[name]` where an image stands."""
    text = page.text.encode()
    cuts = [0, *(image.position for image in page.images), len(text)]
    parts = [text[a:b].decode() for a, b in itertools.pairwise(cuts)]
    names = [f"[{image.urls[0].rpartition('/')[2]}]" for image in page.images]
    return "".join(itertools.chain(*itertools.zip_longest(parts, names, fillvalue="")))


def test_text_and_images_stand_in_the_order_of_the_dom():
    page = body(
        "<h1>Pets</h1><img src=a.png alt=' A  dog '><p>My <b>pup</b>py sits, see <img src=b.png>"
        "here.</p><div>The<br>end<img src=/c.png></div>"
    )
    assert with_marks(page) == "Pets[a.png]\n\nMy puppy sits, see[b.png] here.\n\nThe\nend[c.png]"
    assert page.images[0].alt == "A dog"
    assert page.images[0].urls == ("http://a.example/dir/a.png",)
    assert page.images[2].urls == ("http://a.example/c.png",)


def test_positions_are_byte_offsets():
    page = body("<p>Café ☕</p><img src=a.png><p>ü</p>")
    assert page.images[0].position == len("Café ☕".encode())


@pytest.mark.parametrize(
    "furniture",
    [
        "<nav>gone<img src=x.png></nav>",
        "<header>gone<img src=x.png></header>",
        "<aside>gone<img src=x.png></aside>",
        "<div class='navheader'>gone<img src=x.png></div>",
        "<div id=left-sidebar>gone<img src=x.png></div>",
        "<div role=navigation>gone<img src=x.png></div>",
        "<p hidden>gone<img src=x.png></p>",
        "<p style='display: none'>gone<img src=x.png></p>",
        "<noscript>gone<img src=x.png></noscript>",
        "<ul><li><a href=b>gone gone</a> <img src=x.png></li></ul>",
        "<form>gone<img src=x.png><button>Go</button></form>",
    ],
)
def test_boilerplate_goes_with_its_images_and_they_are_counted(furniture):
    page = body(f"<p>Before it.</p>{furniture}tail<p>Behind it.</p>")
    assert with_marks(page) in ("Before it.\n\ntail\n\nBehind it.", "Before it.tail\n\nBehind it.")
    assert page.num_boilerplate_images == 1


def test_what_only_sounds_like_boilerplate_stays():
    long = "word " * 50
    assert "word" in body(f"<div class='page has sidebar'><p>{long}</p></div><p>x</p>").text
    assert body("<article><header><h1>Title</h1></header></article>").text == "Title"
    assert body("<p class=navy>Blue</p>").text == "Blue"
    assert body("<p>See <a href=x>this</a> for what it is about.</p>").text.startswith("See this")
    assert with_marks(body("<p>x</p><a href=big.png><img src=a.png></a>")) == "x[a.png]"


def test_lazy_images_and_sets_give_their_real_address_first():
    page = body(
        "<p>x</p><img src='data:image/gif;base64,AAAA' data-src=real.png>"
        "<img srcset='s.png 100w, l.png 900w'><picture><source srcset=p.webp><img></picture>"
    )
    assert [i.urls[0].rpartition("/")[2] for i in page.images] == ["real.png", "l.png", "p.webp"]


def test_addresses_follow_the_base_element_but_not_into_other_schemes():
    html = "<html><head><base href='{}'></head><body>x<img src=a.png></body></html>"
    moved = extract(html.format("http://b.example/").encode(), BASE)
    assert moved.images[0].urls == ("http://b.example/a.png",)
    kept = extract(html.format("javascript:alert(1)").encode(), BASE)
    assert kept.images[0].urls == ("http://a.example/dir/a.png",)
    assert body("x<img src='http://[bad'>").images[0].urls == ()


def test_what_the_head_says():
    page = extract(
        b"<html lang=en><head><title> A \n page </title></head><body>text"
        b"<a rel='license' href='https://creativecommons.org/licenses/by/4.0/'>CC BY</a> and more",
        BASE,
    )
    assert (page.title, page.language) == ("A page", "en")
    assert page.licence == "https://creativecommons.org/licenses/by/4.0/"


@pytest.mark.parametrize(
    ("data", "charset"),
    [
        ("<p>Caf\xe9 \u20ac</p>".encode("windows-1252"), "iso-8859-1"),
        ("<p>Caf\xe9 \u20ac</p>".encode("windows-1252"), "no-such-charset"),
        ("<p>Caf\xe9 \u20ac</p>".encode("windows-1252"), "hex"),
        ("<p>Caf\xe9 \u20ac</p>".encode("utf-16"), ""),
        ("<meta charset=utf-16><p>Caf\xe9 \u20ac</p>".encode("windows-1252"), "utf-32"),
        ("<p>Caf\xe9 \u20ac</p>".encode(), "iso-8859-1"),
        ("<?xml encoding='iso-8859-15'?><p>Caf\xe9 \u20ac</p>".encode("iso8859-15"), ""),
        ("<meta charset=cp850><p>Caf\xe9 \u20ac</p>".replace("\u20ac", "x").encode("cp850"), ""),
    ],
)  # fmt: skip
def test_encodings(data, charset):
    assert extract(data, BASE, charset).text in ("Caf\xe9 \u20ac", "Caf\xe9 x")


def test_bytes_of_no_encoding_are_still_a_page():
    assert extract(b"<p>good \xff\x81\xfe text</p>", BASE, "utf-8").text.startswith("good ")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"<p>" * (MAX_HTML_BYTES // 3 + 1), "too_large"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\0\0", "not_html"),
        (b"<p>x" + b"<img src=a>" * 1001, "too_many_images"),
        (b"<p>x</p>" + b"<div>" * 20_000 + b"deep" + b"</div>" * 20_000, "too_deep"),
        (b"<table><tr><td>a<img src=x.png>" * 1000, "too_deep"),
    ],
)
def test_what_is_no_page_is_refused(data, reason):
    with pytest.raises(BadRecord) as caught:
        extract(data, BASE)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    "html",
    [
        b"<div>" * 500 + b"deep" + b"</div>" * 500,
        b"<p>a<div>b</p><span>c</div><img src=x.png",
        b"<table><tr><td>a<img src=x.png>" * 400,
        b"<p>text &#x110000; &#0; &nosuch; \0 more</p>",
        b"<!DOCTYPE html [<!ENTITY a 'aaaa'><!ENTITY b '&a;&a;'>]><p>&b;</p>",
        b"plain text with no elements at all",
    ],
)
def test_broken_pages_are_read_as_far_as_they_go(html):
    page = extract(html, BASE)
    assert isinstance(page.text, str)
    page.text.encode()


def test_what_stands_in_and_behind_many_elements_is_not_lost():
    deep = b"<font>" * 1000 + b"<p>in</p><img src=a.png>" + b"</font>" * 1000
    page = extract(b"<p>before</p>" + deep + b"<p>behind</p>", BASE)
    assert page.text == "before\n\nin\n\nbehind"
    assert [image.position for image in page.images] == [len("before\n\nin")]


def test_what_is_called_furniture_in_furniture_takes_no_longer_than_other_pages():
    """A page of a megabyte, whose text was counted anew for each of 2000 elements around it."""
    inner = b"<i>x</i> " * 100_000
    began = time.process_time()
    page = extract(b"<div class=nav>" * 2000 + inner + b"</div>" * 2000, BASE)
    assert len(page.text) == 2 * 100_000 - 1
    assert time.process_time() - began < 3
