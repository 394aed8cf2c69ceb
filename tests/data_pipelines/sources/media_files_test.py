"""Media in a zip beside a table: found by name, and damage that only shows when one is read."""

import zipfile

import pytest

from data_pipelines.errors import BadRecord
from data_pipelines.sources.media_files import MediaFiles

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


@pytest.mark.parametrize("damage", [compressed_by_an_unknown_method, with_another_byte])
def test_a_damaged_member_is_counted_under_its_reason(archive, damage):
    archive.write_bytes(damage(archive.read_bytes()))
    with pytest.raises(BadRecord, match=r"media\.zip: a\.jpg: ") as found:
        MediaFiles(str(archive.parent)).read("a")
    assert found.value.reason == "damaged_zip"
