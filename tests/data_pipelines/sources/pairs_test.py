"""Pairs: webdataset tars, COCO's captions, WebVid's tables."""

import csv
import io
import json
import pathlib
import zipfile

import pytest

from data_pipelines.sources.coco import Coco
from data_pipelines.sources.webdataset import WebDataset
from data_pipelines.sources.webvid import WebVid
from tests.data_pipelines.sources.converting import converted, write_tar
from tests.data_pipelines.tiny_records import picture
from tests.data_pipelines.tiny_video import encoded, video


def test_webdataset_as_img2dataset_writes_it(tmp_path):
    columns = {"status": "success", "url": "http://x/1.jpg", "similarity": 0.33, "exif": "{}"}
    files = {
        "000000000.jpg": picture(0),
        "000000000.json": json.dumps(columns | {"caption": "other"}).encode(),
        "000000000.txt": b" a bird\n",
        "000000001.webp": picture(1),
        "000000001.json": json.dumps(
            {"URL": "http://x/2", "TEXT": "laion", "LICENSE": "CC0"}
        ).encode(),
        "000000002.png": picture(2),
        "000000002.json": json.dumps({"url": "u", "text": "coyo", "id": 7}).encode(),
        "000000003.jpeg": picture(3),
        "000000003.json": json.dumps({"caption": "cc12m"}).encode(),
    }
    documents, counts = converted(WebDataset("L"), [write_tar(tmp_path / "00000.tar", files)])
    assert [d.text for d in documents] == ["a bird", "laion", "coyo", "cc12m"]
    assert [d.media for d in documents] == [(picture(i),) for i in range(4)]
    assert {d.media_positions for d in documents} == {(0,)}
    assert documents[0].id == "webdataset/00000/000000000"
    assert documents[0].metadata == {
        "source": "webdataset", "url": "http://x/1.jpg", "similarity": 0.33, "licence": "L"
    }  # fmt: skip
    assert (documents[1].metadata["url"], documents[1].metadata["licence"]) == ("http://x/2", "CC0")
    assert documents[2].metadata["id"] == 7
    assert counts.dropped.total() == 0


def test_bad_samples_are_counted_by_reason_and_their_neighbours_kept(tmp_path):
    failed = json.dumps({"status": "failed_to_download", "error_message": "404"}).encode()
    files = {
        "a.jpg": picture(0), "a.txt": b"good",
        "b.jpg": picture(1)[:40], "b.txt": b"cut",
        "c.txt": b"alone",
        "d.jpg": picture(1),
        "e.jpg": picture(1), "e.txt": b"\xff\xfe",
        "f.json": failed,
        "g.jpg": picture(1), "g.json": b"{",
        "h.jpg": picture(1), "h.json": b"[]",
        "i.jpg": b"", "i.txt": b"x",
        "j.jpg": picture(1), "j.txt": b"  ",
        "../k.jpg": picture(1),
        "m.jpg": picture(1), "m.json": b'{"caption": "\\ud800"}',
        "n.jpg": picture(1), "n.json": b'{"caption": "x", "url": "\\udc80"}',
        "l.jpg": picture(2), "l.txt": b"good",
    }  # fmt: skip
    documents, counts = converted(WebDataset(), [write_tar(tmp_path / "0.tar", files)])
    assert [d.media for d in documents] == [(picture(0),), (picture(2),)]
    assert counts.dropped == {
        "damaged": 1, "no_picture": 1, "no_caption": 1, "not_utf8": 3, "not_downloaded": 1,
        "bad_json": 2, "empty": 1, "no_text": 1, "unsafe_path": 1,
    }  # fmt: skip
    assert counts.examples["damaged"].startswith("0/b: picture of 40 bytes")


OFFICIAL = {
    "licenses": [{"id": 4, "url": "http://cc/by"}],
    "images": [
        {"id": 9, "file_name": "COCO_train2014_000000000009.jpg", "license": 4},
        {"id": 5, "file_name": "COCO_train2014_000000000005.jpg"},
        {"id": 6, "file_name": "absent.jpg"},
    ],
    "annotations": [
        {"image_id": 5, "id": 1, "caption": "a cup. "},
        {"image_id": 9, "id": 2, "caption": "a cat"},
        {"image_id": 9, "id": 3, "caption": "the cat"},
        {"image_id": 6, "id": 4, "caption": "lost"},
    ],
}


@pytest.mark.parametrize("zipped", [False, True])
def test_coco_pairs_each_caption_with_its_own_picture(tmp_path, zipped):
    (tmp_path / "captions_train2014.json").write_text(json.dumps(OFFICIAL))
    pictures = {f"train2014/COCO_train2014_{i:012d}.jpg": picture(i) for i in (5, 9)}
    media = tmp_path / "media"
    (media / "train2014").mkdir(parents=True)
    if zipped:
        with zipfile.ZipFile(media / "train2014.zip", "w") as archive:
            for name, data in pictures.items():
                archive.writestr(name, data)
    else:
        for name, data in pictures.items():
            (media / name).write_bytes(data)
    documents, counts = converted(Coco(str(media)), [tmp_path / "captions_train2014.json"])
    found = {d.text: (d.media[0], d.metadata["licence"]) for d in documents}
    assert found == {
        "a cup.": (picture(5), "unknown"),
        "a cat": (picture(9), "http://cc/by"),
        "the cat": (picture(9), "http://cc/by"),
    }
    assert documents[0].metadata["references"] == ["a cat", "the cat"]
    assert counts.dropped == {"not_downloaded": 1}


def test_coco_captions_that_are_bad_cost_no_others(tmp_path):
    names = ["good.png", None, "\ud800.png", "good.png"]
    captions = ["one", "two", "three", "\udfff"]
    images = [{"id": i, "file_name": name} for i, name in enumerate(names)]
    annotations = [{"image_id": i, "id": i, "caption": text} for i, text in enumerate(captions)]
    annotations.append({"image_id": 3, "id": 4, "caption": "beside a bad one"})
    (tmp_path / "good.png").write_bytes(picture(1))
    (tmp_path / "a.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    documents, counts = converted(Coco(str(tmp_path)), [tmp_path / "a.json"])
    assert [d.text for d in documents] == ["one", "beside a bad one"]
    assert documents[1].metadata["references"] == ["beside a bad one"]
    assert counts.dropped == {"no_file_name": 1, "not_downloaded": 1, "not_utf8": 1}


def karpathy(name: str, split: str, folder: dict) -> dict:
    sentences = [{"sentid": int(name), "raw": f"caption {name}", "imgid": 1, "tokens": []}]
    return {"filename": f"{name}.jpg", "split": split, "sentences": sentences} | folder


def test_coco_and_flickr_by_karpathys_split_leave_the_test_pictures_out(tmp_path):
    splits = {"1": "train", "2": "val", "3": "test", "4": "restval"}
    media = tmp_path / "media"
    (media / "val2014").mkdir(parents=True)
    for name in splits:
        (media / "val2014" / f"{name}.jpg").write_bytes(picture(int(name)))
        (media / f"{name}.jpg").write_bytes(picture(int(name) + 10))
    for folder, offset in (({"filepath": "val2014"}, 0), ({}, 10)):
        images = [karpathy(name, split, folder) for name, split in splits.items()]
        (tmp_path / "dataset.json").write_text(json.dumps({"images": images}))
        documents, _ = converted(Coco(str(media)), [tmp_path / "dataset.json"])
        assert [d.text for d in documents] == ["caption 1", "caption 4"]
        assert [d.media[0] for d in documents] == [picture(1 + offset), picture(4 + offset)]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "bad_json"),
        ("[]", "bad_captions"),
        ('{"images": [{}]}', "bad_captions"),
        ("\xff", "bad_json"),
    ],
)
def test_captions_that_are_none(tmp_path, text, reason):
    (tmp_path / "a.json").write_bytes(text.encode("latin-1"))
    assert converted(Coco(str(tmp_path)), [tmp_path / "a.json"])[1].dropped == {reason: 1}


def webvid_table(path: pathlib.Path, rows: list[dict]) -> pathlib.Path:
    file = io.StringIO()
    names = ["videoid", "contentUrl", "duration", "page_dir", "name"]
    table = csv.DictWriter(file, names)
    table.writeheader()
    table.writerows(rows)
    path.write_text(file.getvalue())
    return path


def test_webvid(tmp_path):
    media = tmp_path / "media"
    (media / "001_050").mkdir(parents=True)
    (media / "001_050" / "1.mp4").write_bytes(video(4))
    (media / "2.mp4").write_bytes(video(5))
    (media / "3.mp4").write_bytes(video(5)[:300])
    (media / "5.mp4").write_bytes(encoded("mpegts"))  # which training would not take for a video
    rows = [
        {"videoid": "1", "page_dir": "001_050", "name": 'Clip, "one"\nof two', "contentUrl": "u"},
        {"videoid": "2", "page_dir": "", "name": "clip two", "duration": "PT00H00M01S"},
        {"videoid": "3", "page_dir": "", "name": "cut"},
        {"videoid": "4", "page_dir": "x", "name": "absent"},
        {"videoid": "5", "page_dir": "", "name": "another container"},
        {"videoid": "", "page_dir": "x", "name": "no id"},
        {"videoid": "../../2", "page_dir": "a/b", "name": "outside"},
        {"videoid": "2", "page_dir": "..", "name": "outside"},
    ]
    path = webvid_table(tmp_path / "results_2M_val.csv", rows)
    path.write_bytes(path.read_bytes() + b"2,u,PT1S,,\xff\xfe\r\n")
    documents, counts = converted(WebVid(str(media), "L"), [path])
    assert [d.text for d in documents] == ['Clip, "one"\nof two', "clip two"]
    assert [d.media for d in documents] == [(video(4),), (video(5),)]
    assert documents[1].metadata["duration"] == "PT00H00M01S"
    reasons = dict(counts.dropped)
    assert reasons.pop("not_a_video", 0) + reasons.pop("damaged", 0) == 2
    assert reasons == {"not_downloaded": 1, "bad_row": 1, "unsafe_path": 2, "not_utf8": 1}


def test_webvid_tables_that_are_none(tmp_path):
    (tmp_path / "a.csv").write_text("caption,url\nx,y\n")
    (tmp_path / "b.csv").write_text("")
    (tmp_path / "c.csv").write_text('videoid,"na"me\n1,x\n')
    paths = [tmp_path / f"{name}.csv" for name in "abc"]
    _, counts = converted(WebVid(str(tmp_path)), paths)
    assert counts.dropped == {"no_column": 2, "bad_csv": 1}
