"""Each picture stands before its own sentence, whatever the order of MMC4's list."""

import base64
import gzip
import json
import zipfile

import pytest

from data_pipelines.sources.mmc4 import Mmc4
from tests.data_pipelines.sources.converting import around_media, converted, write_tar
from tests.data_pipelines.tiny_records import picture

# The example in MMC4's README: picture 0 belongs to sentence 2, picture 1 to sentence 1.
SENTENCES = [
    "When you lock the door using the lock tab on the driver\u2019s door, all of the other doors "
    "and tailgate lock at the same time.",
    "Press the master door lock switch in as shown to lock or unlock all doors and the tailgate.",
    "When you lock/unlock the driver\u2019s door and tailgate using the master lock switch, all "
    "the other doors lock/ unlock at the same time.",
]
README_EXAMPLE = {
    "image_info": [
        {
            "face_detections": None,
            "image_name": "b9040a0dbb22.jpg",
            "matched_sim": 0.27694183588027954,
            "matched_text_index": 2,
            "raw_url": "http://www.hfitinfo.com/honda_fit_pics/3/2/index.90.jpg",
        },
        {
            "face_detections": None,
            "image_name": "db1c21bc8474.jpg",
            "matched_sim": 0.3234919607639313,
            "matched_text_index": 1,
            "raw_url": "http://www.hfitinfo.com/honda_fit_pics/3/2/index.91.jpg",
        },
    ],
    "similarity_matrix": [
        [0.24363446235656738, 0.31758785247802734, 0.27694183588027954],
        [0.2233106791973114, 0.3234919607639313, 0.26118797063827515],
    ],
    "text_list": SENTENCES,
    "url": "http://www.hfitinfo.com/hofi-48.html",
    "could_have_url_duplicate": 0,
}


def page(assignment: list[int], sentences: int = 4, **changes) -> dict:
    """A document whose picture i, of number i, belongs to sentence `assignment[i]`."""
    images = [
        {
            "image_name": f"{i}.png",
            "matched_text_index": index,
            "matched_sim": 0.3,
            "image_base64": base64.b64encode(picture(i)).decode(),
        }
        for i, index in enumerate(assignment)
    ]
    text = [f"S{i}." for i in range(sentences)]
    return {"text_list": text, "image_info": images, "url": "http://x/"} | changes


def write(path, pages: list[dict]):
    path.write_text("".join(json.dumps(p) + "\n" for p in pages))
    return path


@pytest.fixture
def readme_pictures(tmp_path):
    folder = tmp_path / "media" / "7"
    folder.mkdir(parents=True)
    (folder / "b9040a0dbb22.jpg").write_bytes(picture(0))
    (folder / "db1c21bc8474.jpg").write_bytes(picture(1))
    return str(tmp_path / "media")


def test_the_readmes_example(tmp_path, readme_pictures):
    path = write(tmp_path / "docs_shard_7_v2.jsonl", [README_EXAMPLE])
    (document,), counts = converted(Mmc4(readme_pictures), [path])
    assert document.media == (picture(1), picture(0))
    assert around_media(document) == [SENTENCES[0], " " + SENTENCES[1], " " + SENTENCES[2]]
    assert document.metadata["url"] == "http://www.hfitinfo.com/hofi-48.html"
    assert counts.dropped.total() == counts.media_dropped.total() == 0


@pytest.mark.parametrize(
    ("assignment", "order"),
    [
        ([3, 0, 2, 1], [1, 3, 2, 0]),  # not monotone
        ([0, 1, 2, 3], [0, 1, 2, 3]),
        ([2, 2, 0, 2, 1], [2, 4, 0, 1, 3]),  # more pictures than sentences: some share one
    ],
)
def test_each_picture_stands_before_its_own_sentence(tmp_path, assignment, order):
    path = write(tmp_path / "docs.jsonl", [page(assignment)])
    (document,), _ = converted(Mmc4(), [path])
    assert document.media == tuple(picture(i) for i in order)
    for number, position in zip(order, document.media_positions, strict=True):
        rest = document.text.encode()[position:].decode()
        assert rest.lstrip().startswith(f"S{assignment[number]}.")


def test_positions_are_bytes(tmp_path):
    changed = page([1], 2, text_list=["é—\u2019", "x"])
    (document,), _ = converted(Mmc4(), [write(tmp_path / "a.jsonl", [changed])])
    assert document.media_positions == (8,)
    assert around_media(document) == ["é—\u2019", " x"]


def test_forms_of_a_shard(tmp_path, readme_pictures):
    line = json.dumps(README_EXAMPLE).encode() + b"\n"
    with zipfile.ZipFile(tmp_path / "docs_shard_7_v2.jsonl.zip", "w") as archive:
        archive.writestr("docs_shard_7_v2.jsonl", line)
    (tmp_path / "docs_shard_7_v3.jsonl.gz").write_bytes(gzip.compress(line))
    paths = [tmp_path / "docs_shard_7_v2.jsonl.zip", tmp_path / "docs_shard_7_v3.jsonl.gz"]
    documents, _ = converted(Mmc4(readme_pictures), paths)
    assert [len(d.media) for d in documents] == [2, 2]
    pages = {f"key{i}.json": json.dumps(page([i])).encode() for i in range(3)}
    documents, _ = converted(Mmc4(), [write_tar(tmp_path / "000.tar", pages)])
    assert [d.id for d in documents] == [f"mmc4/000/key{i}" for i in range(3)]
    assert [d.media for d in documents] == [(picture(0),)] * 3


def test_pictures_in_tars_beside_the_documents(tmp_path):
    media = tmp_path / "media"
    media.mkdir()
    members = {"7/b9040a0dbb22.jpg": picture(0), "7/db1c21bc8474.jpg": picture(1)}
    write_tar(media / "shard7.tar", members)
    path = write(tmp_path / "docs_shard_7_v2.jsonl", [README_EXAMPLE])
    (document,), _ = converted(Mmc4(str(media)), [path])
    assert document.media == (picture(1), picture(0))


def test_documents_written_around_markers(tmp_path):
    images = {
        f"_!_IMAGE{i}_!_": {"base64_image": base64.b64encode(picture(i)).decode()} for i in (0, 1)
    }
    gpt = {"is_gpt": True, "example": "A _!_IMAGE1_!_ b _!_IMAGE0_!_ c", "image_map": images}
    (document,), _ = converted(Mmc4(), [write(tmp_path / "a.jsonl", [gpt])])
    assert document.media == (picture(1), picture(0))
    assert around_media(document) == ["A ", " b ", " c"]


def test_filters(tmp_path):
    unlike = page([0, 1])
    unlike["image_info"][0]["matched_sim"] = 0.2
    twice = page([0], could_have_url_duplicate=1)
    source = Mmc4(min_similarity=0.24, strict_urls=True)
    (document,), counts = converted(source, [write(tmp_path / "a.jsonl", [unlike, twice])])
    assert document.media == (picture(1),)
    assert counts.dropped == {"url_duplicate": 1}
    assert counts.media_dropped == {"low_similarity": 1}


def test_bad_rows_are_counted_by_reason_and_their_neighbours_kept(tmp_path):
    bad_picture = page([0, 1])
    bad_picture["image_info"][0]["image_base64"] = "%%%"
    cut = page([0, 1])
    cut["image_info"][1]["image_base64"] = base64.b64encode(picture(1)[:40]).decode()
    absent = page([0])
    del absent["image_info"][0]["image_base64"]
    pages = [page([0]), bad_picture, cut, absent, page([9]), page([-1]), page([True])]
    named = {"_!_IMAGE0_!_": "a.png", "_!_IMAGE1_!_": page([0])["image_info"][0]}
    pages.append({"is_gpt": True, "example": "_!_IMAGE0_!_ a _!_IMAGE1_!_", "image_map": named})
    pages += [page([0], url="\ud800"), page([0], text_list=["\udc80"])]
    lines = [json.dumps(p) for p in pages]
    lines += [
        "{",
        "[]",
        "null",
        '{"text_list": [1], "image_info": []}',
        '{"text_list": null}',
        "[" * 10**5,
    ]
    path = tmp_path / "a.jsonl"
    path.write_bytes("\n".join(lines).encode() + b"\n\xff\xfe\n" + json.dumps(page([2])).encode())
    documents, counts = converted(Mmc4(), [path])
    assert [len(d.media) for d in documents] == [1, 1, 1, 1, 1, 1]
    assert counts.dropped == {"no_media": 3, "bad_json": 3, "bad_document": 4, "not_utf8": 2}
    assert counts.media_dropped["bad_base64"] == 1
    assert counts.media_dropped["not_downloaded"] == 1
    assert counts.media_dropped["bad_assignment"] == 2
    assert counts.media_dropped["no_image_name"] == 1
    assert counts.media_dropped.total() == 6


def test_a_cut_archive_keeps_what_came_before(tmp_path):
    data = gzip.compress(b"".join(json.dumps(page([0])).encode() + b"\n" for _ in range(2000)))
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(data[: len(data) * 2 // 3])
    documents, counts = converted(Mmc4(), [path])
    assert len(documents) > 100
    assert counts.dropped["cut_file"] == 1
    (tmp_path / "b.jsonl.zip").write_bytes(b"PK no zip")
    zipfile.ZipFile(tmp_path / "c.jsonl.zip", "w").close()  # of no members
    paths = [tmp_path / "b.jsonl.zip", tmp_path / "c.jsonl.zip"]
    assert converted(Mmc4(), paths)[1].dropped == {"cut_file": 2}
