"""Media in a zip beside a table: found by name, and damage that only shows when one is read."""

import zipfile

import pytest

from data_pipelines.errors import BadRecord
from data_pipelines.sources import media_files
from data_pipelines.sources.media_files import MediaFiles, mirror_name

STORED, UNKNOWN = (0).to_bytes(2, "little"), (99).to_bytes(2, "little")


@pytest.fixture
def archive(tmp_path):
    """A zip of one medium."""
    file = tmp_path / "media.zip"
    with zipfile.ZipFile(file, "w") as members:
        members.writestr("a.jpg", b"picture")
    return file


def test_a_member_of_a_zip_is_found_by_its_name(archive):
    media = MediaFiles(str(archive.parent))
    assert media.read("a") == b"picture"
    with pytest.raises(BadRecord) as found:
        media.read("b")
    assert found.value.reason == "not_downloaded"


def compressed_by_an_unknown_method(data: bytes) -> bytes:
    """The method stands at byte 8 of a member's own header and at 10 of its directory entry."""
    for header, place in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        at = data.index(header) + place
        assert data[at : at + 2] == STORED
        data = data[:at] + UNKNOWN + data[at + 2 :]
    return data


def with_another_byte(data: bytes) -> bytes:
    """The directory's checksum no longer fits."""
    return data.replace(b"picture", b"pictura")


def with_bytes_that_are_not_deflated(data: bytes) -> bytes:
    """The method says that they are, and zlib finds that they are not."""
    deflated = (8).to_bytes(2, "little")
    for header, place in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        at = data.index(header) + place
        data = data[:at] + deflated + data[at + 2 :]
    return data


@pytest.mark.parametrize(
    "damage",
    [compressed_by_an_unknown_method, with_another_byte, with_bytes_that_are_not_deflated],
)
def test_a_damaged_member_is_counted_under_its_reason(archive, damage):
    archive.write_bytes(damage(archive.read_bytes()))
    with pytest.raises(BadRecord, match=r"media\.zip: a\.jpg: ") as found:
        MediaFiles(str(archive.parent)).read("a")
    assert found.value.reason == "damaged_zip"


def test_the_list_of_a_zips_members_is_read_once(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "media.zip", "w") as members:
        for number in range(9):
            members.writestr(f"{number}.jpg", f"picture {number}")
    lists, make = 0, zipfile.ZipFile

    def counted(*args):
        nonlocal lists
        lists += 1
        return make(*args)

    monkeypatch.setattr(media_files.zipfile, "ZipFile", counted)
    media = MediaFiles(str(tmp_path))
    assert [media.read(str(i)) for i in range(9)] == [b"picture %d" % i for i in range(9)]
    assert lists == 1


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://a.org/b/c%20d.jpg", "a.org/b/c d.jpg"),
        ("https://A.org/img.php?id=1&u=%2Fx/y#z", "a.org/img.php?id=1&u=%2Fx%2Fy"),
        ("b/c.jpg", ""),
        ("http://[/c.jpg", ""),
    ],
)
def test_names_of_mirrored_files(url, name):
    assert mirror_name(url) == name
