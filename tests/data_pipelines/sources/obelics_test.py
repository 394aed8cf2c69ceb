"""OBELICS documents: reading order, the places pictures are looked for, damaged files."""

import json
import random

import pyarrow
from pyarrow import parquet

from data_pipelines.sources.media_files import url_name
from data_pipelines.sources.obelics import Obelics
from tests.data_pipelines.sources.converting import around_media, converted
from tests.data_pipelines.tiny_records import picture

URLS = [f"http://host.org/a/{i}.jpg?w=3" for i in range(4)]
URLS[2] = "http://HOST.org/a/2%202.jpg?u=b/c#top"


def row(entries: list, **changes) -> dict:
    """A document of texts (str) and pictures (int, into URLS)."""
    about = [{"formatted_filename": f"f{e}"} if isinstance(e, int) else None for e in entries]
    return {
        "images": [URLS[e] if isinstance(e, int) else None for e in entries],
        "texts": [e if isinstance(e, str) else None for e in entries],
        "metadata": json.dumps(about),
        "general_metadata": json.dumps({"url": "http://page.org/"}),
    } | changes


def write(path, rows: list[dict], **options):
    parquet.write_table(pyarrow.Table.from_pylist(rows), path, **options)
    return path


def test_texts_and_pictures_in_reading_order_wherever_the_pictures_lie(tmp_path):
    media = tmp_path / "media"
    (media / "host.org" / "a").mkdir(parents=True)
    (media / f"{url_name(URLS[0])}.jpg").write_bytes(picture(0))
    (media / "host.org" / "a" / "1.jpg?w=3").write_bytes(picture(1))
    (media / "host.org" / "a" / "2 2.jpg?u=b%2Fc").write_bytes(picture(2))
    path = write(tmp_path / "a.parquet", [row([2, "é one", 0, 1, "two\n\nlines", 3])])
    (document,), counts = converted(Obelics(str(media)), [path])
    assert document.media == (picture(2), picture(0), picture(1))
    assert around_media(document) == ["", "é one", "", "\n\ntwo\n\nlines"]
    assert document.id == "obelics/a/0"
    assert document.metadata["url"] == "http://page.org/"
    assert counts.media_dropped == {"not_downloaded": 1}


def test_a_picture_of_another_address_is_never_taken(tmp_path):
    """Nor one whose address differs in its query only, nor by the last part of the address."""
    urls = ["http://host.org/img.php?id=1", "http://host.org/img.php?id=2"]
    (tmp_path / "host.org").mkdir()
    for name in ("img.php", "img.php?id=2"):
        (tmp_path / "host.org" / name).write_bytes(picture(len(name)))
    (tmp_path / "img").write_bytes(picture(0))
    about = json.dumps([{"formatted_filename": "img"}] * 2 + [None])
    rows = [row([0, 1, "text"], images=[*urls, None], metadata=about)]
    path = write(tmp_path / "a.parquet", rows)
    (document,), counts = converted(Obelics(str(tmp_path)), [path])
    assert document.media == (picture(len("img.php?id=2")),)
    assert counts.media_dropped == {"not_downloaded": 1}


def test_pictures_in_the_file(tmp_path):
    rows = [
        {"images": [{"bytes": picture(i), "path": None}, None], "texts": [None, f"t{i}"]}
        for i in range(100)
    ]
    path = write(tmp_path / "a.parquet", rows, row_group_size=30)
    documents, counts = converted(Obelics(), [path])
    assert [d.text for d in documents] == [f"t{i}" for i in range(100)]
    assert [d.media for d in documents] == [(picture(i),) for i in range(100)]
    assert counts.dropped.total() == 0


def test_bad_rows_are_counted_by_reason_and_their_neighbours_kept(tmp_path):
    (tmp_path / url_name(URLS[0])).write_bytes(picture(0))
    rows = [
        row([0, "good"]),
        row([0, "x"], metadata="{"),
        row([0, "x"], texts=["both", "x"]),
        row([0, "x"], texts=["x"]),
        row([0, "x"], images=None),
        row(["only text"]),
        row([0, "good"], metadata=None, general_metadata=None),
        row([0], images=["../../etc/passwd"]),
    ]
    documents, counts = converted(Obelics(str(tmp_path)), [write(tmp_path / "a.parquet", rows)])
    assert [d.text for d in documents] == ["good", "good"]
    assert counts.dropped == {"bad_json": 1, "bad_document": 3, "no_media": 2}


def test_rows_of_other_types_cost_themselves_only(tmp_path):
    (tmp_path / url_name(URLS[0])).write_bytes(picture(0))
    path = write(tmp_path / "a.parquet", [row([0, f"text {i}"]) for i in range(9)],
                 compression="none")  # fmt: skip
    path.write_bytes(path.read_bytes().replace(b"text 4", b"\xff\xfext 4"))
    binary = write(tmp_path / "b.parquet", [row([0, "x"], texts=[None, b"x"])])
    number = write(tmp_path / "c.parquet", [row([0, "x"], images=7, metadata=None)])
    surrogate = json.dumps({"url": "http://\ud800/"})
    url = write(tmp_path / "d.parquet", [row([0, "x"], general_metadata=surrogate)])
    documents, counts = converted(Obelics(str(tmp_path)), [path, binary, number, url])
    print(counts)
    assert [d.id for d in documents] == [f"obelics/a/{i}" for i in range(9) if i != 4]
    assert counts.dropped == {"not_utf8": 2, "bad_document": 2}


def test_damaged_files_neither_raise_nor_take_others_along(tmp_path):
    (tmp_path / url_name(URLS[0])).write_bytes(picture(0))
    rows = [row([0, f"text {i}"]) for i in range(200)]
    good = write(tmp_path / "z.parquet", rows, row_group_size=50)
    whole, rng, kept = good.read_bytes(), random.Random(0), 0
    for trial in range(60):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 10)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        bad = tmp_path / "bad.parquet"
        bad.write_bytes(data[: rng.randrange(len(data))] if trial % 3 == 0 else data)
        documents, counts = converted(Obelics(str(tmp_path)), [bad])
        assert len(documents) <= 200
        assert counts.dropped.total() or documents
        kept += len(documents)
    assert kept > 200
    documents, _ = converted(Obelics(str(tmp_path)), [bad, good])
    assert [d.text for d in documents[-200:]] == [f"text {i}" for i in range(200)]
    other = write(tmp_path / "other.parquet", [{"a": 1}])
    assert converted(Obelics(), [other])[1].dropped == {"no_column": 1}
