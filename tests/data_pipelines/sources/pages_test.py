"""Pages from HTML and WARC files: which pictures are found, what is dropped and why."""

import base64
import gzip
import json
import os
import random
import zlib

import numpy as np
import pytest

from data_pipelines import commands
from data_pipelines.building.counts import Counts
from data_pipelines.building.sorted_rows import write_rows
from data_pipelines.records import Document
from data_pipelines.sources import html, warc
from data_pipelines.sources.html import Html
from data_pipelines.sources.warc import Warc
from tests.data_pipelines.broken_inputs_test import COUNT, damaged
from tests.data_pipelines.page_files import (
    page,
    page_responses,
    picture,
    response,
    write_html,
    write_warc,
)
from tests.data_pipelines.sources.converting import around_media, converted


def from_html(folder, **fields) -> tuple[list[Document], Counts]:
    paths = sorted(folder.glob("*.html"))
    return converted(Html(**fields).bind([str(p) for p in paths], ()), paths)


def from_warc(*paths, **fields) -> tuple[list[Document], Counts]:
    source, names = Warc(**fields), [str(path) for path in paths]
    index = f"{paths[0]}.index"
    write_rows(index, np.concatenate([source.index(n, i) for i, n in enumerate(names)]))
    return converted(source.bind(names, [index]), paths)


def is_explicit(document: Document) -> bool:
    return "page 1\n" in document.text


def test_a_page_with_its_pictures(tmp_path):
    write_html(tmp_path, 2)
    documents, counts = from_html(tmp_path, licence="CC0")
    assert [d.media for d in documents] == [(picture(0), picture(1)), (picture(10), picture(11))]
    head, first, last = around_media(documents[0])
    assert head.startswith("Title of page 0\n\n")
    assert first.startswith("\n\n")
    assert last.startswith("\n\n")
    about = documents[0].metadata
    assert about["url"] == "page0.html"
    assert about["title"] == "Page 0"
    assert about["licence"] == "CC0"
    assert [m["alt"] for m in about["media"]] == ["picture 0", "picture 1"]
    assert [(m["width"], m["height"]) for m in about["media"]] == [(96, 80)] * 2
    assert counts.media_dropped == {"in_boilerplate": 2}
    assert documents == from_html(tmp_path, licence="CC0")[0]


def test_nothing_outside_of_the_root_is_read(tmp_path):
    site = tmp_path / "site"
    site.mkdir()
    (tmp_path / "secret.jpg").write_bytes(picture(1))
    (site / "in.jpg").write_bytes(picture(2))
    (site / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (site / "loop.jpg").symlink_to(site / "loop.jpg")
    addresses = ["../secret.jpg", "/../secret.jpg", "%2e%2e/secret.jpg", "link.jpg", "loop.jpg"]
    addresses += [str(tmp_path / "secret.jpg"), f"file://{tmp_path}/secret.jpg", ".", "a" * 5000]
    (site / "page.html").write_bytes(page(1, [*addresses, "a%00b.jpg", "/in.jpg"]))
    (document,), counts = from_html(site)
    assert document.media == (picture(2),)
    assert counts.media_dropped["outside_folder"] >= 2
    assert counts.media_dropped.total() == len(addresses) + 2  # and the icon in the navigation


def test_pictures_in_data_addresses_and_in_a_mirror(tmp_path):
    mirror = tmp_path / "mirror" / "b.example" / "dir"
    mirror.mkdir(parents=True)
    (mirror / "far.jpg?v=1").write_bytes(picture(3))
    (mirror / "other.jpg").write_bytes(picture(5))
    inline = base64.b64encode(picture(4)).decode()
    addresses = ["http://b.example/dir/far.jpg?v=1", f"data:image/jpeg;base64,{inline}"]
    addresses += ["data:image/jpeg;base64,%%%", "data:nothing", "http://c.example/x.jpg"]
    addresses += ["http://b.example/dir/other.jpg?v=1"]  # not what lies there without a query
    (tmp_path / "page.html").write_bytes(page(1, addresses))
    (document,), counts = from_html(tmp_path, image_folder=str(tmp_path / "mirror"))
    assert document.media == (picture(3), picture(4))
    assert document.metadata["media"][1]["url"] == "data:"
    assert counts.media_dropped["bad_data_uri"] == 2
    assert counts.media_dropped["not_found"] == 2


def test_a_page_may_lose_pictures_and_goes_with_the_last(tmp_path):
    (tmp_path / "small.png").write_bytes(picture(1, "PNG", (63, 80)))
    (tmp_path / "good.png").write_bytes(picture(2, "PNG"))
    (tmp_path / "cut.jpg").write_bytes(picture(3)[:500])
    (tmp_path / "a.html").write_bytes(page(1, ["small.png", "good.png", "good.png", "cut.jpg"]))
    (tmp_path / "b.html").write_bytes(page(2, ["small.png"]))
    (tmp_path / "c.html").write_bytes(page(3, []))
    (tmp_path / "d.html").write_bytes(b"")
    (document,), counts = from_html(tmp_path)
    assert document.media == (picture(2, "PNG"),)
    assert counts.dropped == {"no_image_kept": 1, "no_image_in_text": 1, "empty": 1}
    for reason in ("too_small", "repeated_on_page", "truncated"):
        assert counts.media_dropped[reason] >= 1
    assert "b.html" in counts.examples["no_image_kept"]


def test_a_file_name_that_is_not_utf8(tmp_path):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    write_html(folder, 1)
    (folder / "page0.html").rename(folder / os.fsdecode(b"\xff.html"))
    paths = [str(folder / os.fsdecode(b"\xff.html")), *map(str, folder.glob("none"))]
    (document,), _ = converted(Html(root=str(tmp_path)), paths)
    assert document.metadata["url"] == "caf%E9/%FF.html"
    assert document.media == (picture(0), picture(1))
    (folder / os.fsdecode(b"\xff.html")).write_bytes(b"")
    _, counts = converted(Html(root=str(tmp_path)), paths)
    str(counts).encode()  # can be printed


def test_the_hook_for_explicit_content(tmp_path):
    write_html(tmp_path, 3)
    documents, counts = from_html(tmp_path, explicit=f"{__name__}:is_explicit")
    assert len(documents) == 2
    assert counts.dropped == {"explicit": 1}
    assert counts.media_dropped == {"in_boilerplate": 3, "in_a_dropped_record": 2}


def flags(module, *words):
    parser = commands.Parser()
    module.add_flags(parser)
    return module.source(parser.parse_args(words))


@pytest.mark.parametrize("module", [html, warc])
def test_flags(module, tmp_path):
    (tmp_path / "1.jpg").write_bytes(picture(1))
    (tmp_path / "cut.gif").write_bytes(b"GIF89a")
    source = flags(module, "--language=any", '--filters={"min_words": 7, "min_side_px": 100}',
                   f"--evaluation_images={tmp_path}/*.jpg", "--text_limits=gopher")  # fmt: skip
    assert source.text_filters.language == ""
    assert source.text_filters.min_words == 7
    assert source.text_filters.min_stop_words == 2
    assert source.image_filters.min_side_px == 100
    assert len(source.evaluation) == 8
    for words, message in (
        (["--filters={"], "want a JSON object"),
        (['--filters={"min_word": 7}'], "no filter 'min_word'"),
        (['--filters={"min_words": "7"}'], "min_words='7': want such as 10, which is the default"),
        (["--language=english"], "--language=english: use a code of two letters"),
        ([f"--image_folder={tmp_path}/none"], r"--image_folder=.*/none: no such folder"),
        (["--explicit=nowhere:f"], "MODULE:FUNCTION"),
        ([f"--evaluation_images={tmp_path}/*.png"], "no such file"),
        ([f"--evaluation_images={tmp_path}/*.gif"], r"picture .*cut\.gif cannot be read"),
    ):
        with pytest.raises(ValueError, match=message):
            flags(module, *words)


def test_the_root_is_there(tmp_path):
    with pytest.raises(ValueError, match=r"--root=.*/none: no such folder"):
        flags(html, f"--root={tmp_path}/none")


@pytest.mark.parametrize("compressed", [True, False])
def test_warc(tmp_path, compressed):
    path = write_warc(tmp_path / "a.warc", page_responses(3), compressed)
    documents, counts = from_warc(path)
    assert [d.media for d in documents] == [
        (picture(10 * n), picture(10 * n + 1)) for n in range(3)
    ]
    assert documents[0].metadata["url"] == "http://a.example/0/page.html"
    assert documents[0].metadata["date"] == "2026-11-21T00:00:00Z"
    assert not counts.dropped


def test_pictures_in_another_file_and_of_the_other_scheme(tmp_path):
    records = page_responses(1)
    pages = write_warc(tmp_path / "pages.warc.gz", records[:1])
    images = [(url.replace("http:", "https:"), *rest) for url, *rest in records[1:]]
    (document,), _ = from_warc(pages, write_warc(tmp_path / "images.warc.gz", images))
    assert document.media == (picture(0), picture(1))


def test_a_picture_that_was_asked_for_twice_is_the_one_that_came(tmp_path):
    """Crawlers come back to what a server was too busy for."""
    page, *images = page_responses(1)
    busy = [response(url, kind, b"later", status="503 Busy") for url, kind, *_ in images]
    (document,), counts = from_warc(write_warc(tmp_path / "a.warc.gz", [page, *busy, *images]))
    assert document.media == (picture(0), picture(1))
    assert not counts.media_dropped.keys() - {"in_boilerplate"}


def test_what_was_not_answered_with_a_page_is_counted(tmp_path):
    compressed = gzip.compress(page(5, ["/0/0.jpg"]), mtime=0)
    lying = response("http://a.example/l", "text/html", b"no gzip at all" * 9,
                     headers=[("Content-Encoding", "gzip")])  # fmt: skip
    records = [
        *page_responses(1),
        response("http://a.example/404", "text/html", page(3, []), status="404 Not Found"),
        response("http://a.example/css", "text/css", b"p {}"),
        response("http://a.example/z", "text/html", compressed,
                 headers=[("Content-Encoding", "gzip")]),
        response("http://a.example/bomb", "text/html", zlib.compress(bytes(20 << 20), 9),
                 headers=[("Content-Encoding", "deflate")]),
        lying,
    ]  # fmt: skip
    documents, counts = from_warc(write_warc(tmp_path / "a.warc.gz", records))
    assert [len(d.media) for d in documents] == [2, 1]
    assert counts.dropped["http_status"] == 1
    assert counts.dropped["too_large"] == 1
    assert counts.dropped.total() == 3


def test_a_file_that_is_one_gzip_stream_is_refused_with_a_reason(tmp_path):
    plain = write_warc(tmp_path / "a.warc", page_responses(3), compressed=False)
    path = tmp_path / "a.warc.gz"
    path.write_bytes(gzip.compress(plain.read_bytes()))
    documents, counts = from_warc(path)
    assert "non-chunked" in counts.examples["damaged_record"]
    assert len(documents) < 3


@pytest.mark.parametrize("compressed", [True, False])
def test_damaged_warc_files_keep_good_neighbours(tmp_path, compressed):
    good = write_warc(tmp_path / "good.warc", page_responses(3), compressed)
    bad, rng = tmp_path / "bad.warc", random.Random(compressed)
    wanted, lost, kept = {d.media for d in from_warc(good)[0]}, 0, 0
    for _ in range(COUNT):
        bad.write_bytes(damaged(good.read_bytes(), rng))
        documents, counts = from_warc(bad, good)
        assert wanted <= {d.media for d in documents}
        kept += len(documents) - 3
        lost += counts.dropped.total() + counts.media_dropped.total() > 3 + 3
    assert lost > (COUNT / 4 if compressed else 0)  # plain text can change and be good HTML
    assert kept > COUNT  # of 3 a file: damage in one record costs that one


def test_a_record_without_its_address_costs_no_other(tmp_path):
    path = write_warc(tmp_path / "a.warc", page_responses(3), False)
    whole = from_warc(path)[0]
    data = path.read_bytes()
    start = data.index(b"WARC-Target-URI")
    path.write_bytes(data[:start] + data[data.index(b"\r\n", start) + 2 :])
    documents, counts = from_warc(path)
    assert {d.media for d in documents} >= {d.media for d in whole[1:]}
    assert "damaged_record" in counts.dropped


def test_damaged_pages(tmp_path):
    rng = random.Random(0)
    write_html(tmp_path, 1)
    good = (tmp_path / "page0.html").read_bytes()
    for number in range(5 * COUNT):
        (tmp_path / f"x{number}.html").write_bytes(damaged(good, rng))
    documents, counts = from_html(tmp_path)
    assert any(d.media == (picture(0), picture(1)) for d in documents)
    assert len(documents) + counts.dropped.total() == 5 * COUNT + 1
    json.dumps([d.metadata for d in documents])


def test_an_input_file_that_is_none_is_counted(tmp_path):
    (tmp_path / "a.warc").write_bytes(b"\x89PNG no archive")
    (tmp_path / "b.warc").write_bytes(b"")
    good = write_warc(tmp_path / "c.warc", page_responses(1))
    documents, counts = from_warc(tmp_path / "a.warc", tmp_path / "b.warc", good,
                                  tmp_path / "absent.warc")  # fmt: skip
    assert len(documents) == 1
    assert counts.dropped == {"damaged_record": 1, "unreadable": 1}
