"""Walking tars: whole ones as tarfile reads them, damaged ones around the damage."""

import io
import random
import tarfile

import pytest

from data_pipelines.errors import BadRecord
from data_pipelines.sources.source import Dropped
from data_pipelines.sources.tar_members import Sample, members, samples
from tests.data_pipelines.sources.converting import write_tar

FILES = {f"{i:03d}.txt": bytes([65 + i]) * (i * 300 + 1) for i in range(8)}


def walked(path) -> tuple[dict[str, bytes], list[str]]:
    found, reasons = {}, []
    for member in members(str(path)):
        if isinstance(member, Dropped):
            reasons.append(member.reason)
            continue
        try:
            found[member.name] = member.read()
        except BadRecord as error:
            reasons.append(error.reason)
    return found, reasons


def headers(data: bytes) -> list[int]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return [member.offset for member in tar]


def test_whole_tars_of_every_format(tmp_path):
    for kind in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        files = FILES | {"deep/" * 15 + "x" * 80 + ".txt": b"long name"}
        with tarfile.open(tmp_path / "a.tar", "w", format=kind) as tar:
            for name, data in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        assert walked(tmp_path / "a.tar") == (files, [])


def test_keys_end_at_the_first_dot_behind_the_last_slash(tmp_path):
    names = ["a.b/1.jpg", "a.b/1.seg.png", "a.b/1.json", "a.b/2.JPG", "2.json"]
    path = write_tar(tmp_path / "a.tar", {name: name.encode() for name in names})
    found = [sample for sample in samples(str(path)) if isinstance(sample, Sample)]
    assert [sample.key for sample in found] == ["a.b/1", "a.b/2", "2"]
    assert found[0].get("jpg", "png").name == "a.b/1.jpg"
    assert found[0].get("png").name == "a.b/1.seg.png"
    assert found[1].get("jpg").read() == b"a.b/2.JPG"
    assert found[2].get("txt") is None


@pytest.mark.parametrize("number", [1, 4, 7])
def test_a_broken_header_loses_only_its_own_member(tmp_path, number):
    path = write_tar(tmp_path / "a.tar", FILES)
    data = bytearray(path.read_bytes())
    data[headers(data)[number] + 10] ^= 0xFF
    path.write_bytes(data)
    found, reasons = walked(path)
    assert found == {n: d for i, (n, d) in enumerate(FILES.items()) if i != number}
    assert reasons == ["damaged_tar"]


def test_a_lying_length_loses_only_its_own_member(tmp_path):
    path = write_tar(tmp_path / "a.tar", FILES)
    data = bytearray(path.read_bytes())
    at = headers(data)[3]
    info = tarfile.TarInfo("003.txt")
    info.size = 8**10
    data[at : at + 512] = info.tobuf(tarfile.USTAR_FORMAT)
    path.write_bytes(data)
    found, reasons = walked(path)
    assert found == {n: d for n, d in FILES.items() if n != "003.txt"}
    assert reasons[0] == "cut_tar"


@pytest.mark.parametrize("number", [0, 3])
@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_an_extension_header_that_claims_100_terabytes_is_not_believed(tmp_path, number, kind):
    path = write_tar(tmp_path / "a.tar", FILES)
    data = path.read_bytes()
    info = tarfile.TarInfo("long")
    info.type, info.size = kind, 10**14
    at = headers(data)[number]
    path.write_bytes(data[:at] + info.tobuf(tarfile.GNU_FORMAT) + data[at:])
    assert walked(path) == (FILES, ["damaged_tar"])


def test_files_that_cannot_be_read_are_told(tmp_path):
    (tmp_path / "a.tar").mkdir()
    for name in ("a.tar", "absent.tar"):
        assert walked(tmp_path / name) == ({}, ["unreadable"])
    path = write_tar(tmp_path / "b.tar", {"x": b"y"})
    (member,) = members(str(path))
    path.unlink()
    with pytest.raises(BadRecord, match=r"b\.tar: x: ") as caught:
        member.read()
    assert caught.value.reason == "unreadable"


def test_a_cut_tar_keeps_what_came_before(tmp_path):
    path = write_tar(tmp_path / "a.tar", FILES)
    starts = headers(path.read_bytes())
    path.write_bytes(path.read_bytes()[: starts[5] + 512 + 100])
    found, reasons = walked(path)
    assert list(found) == [f"{i:03d}.txt" for i in range(5)]
    assert reasons[0] == "cut_tar"


def test_names_that_leave_the_archive_and_links_are_told(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in ("../up.txt", "/etc/passwd", "a/../../b.txt", "./good.txt"):
            tar.addfile(tarfile.TarInfo(name))
        link = tarfile.TarInfo("link.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
    found, reasons = walked(tmp_path / "a.tar")
    assert found == {"good.txt": b""}
    assert reasons == ["unsafe_path"] * 3 + ["not_a_file"]


@pytest.mark.parametrize("data", [b"", b"x", b"no tar" * 500, b"\x1f\x8b" + b"z" * 2000])
def test_what_is_no_tar(tmp_path, data):
    (tmp_path / "a.tar").write_bytes(data)
    found, reasons = walked(tmp_path / "a.tar")
    assert found == {}
    assert reasons
    assert set(reasons) <= {"not_a_tar", "damaged_tar"}


def test_random_damage_neither_raises_nor_invents(tmp_path):
    """300 mutated tars: what is found is what was written, but for the bytes that were changed."""
    path, rng = write_tar(tmp_path / "a.tar", FILES), random.Random(0)
    whole = path.read_bytes()
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 8)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(data[: rng.randint(1, len(data))] if rng.random() < 0.5 else data)
        found, _ = walked(path)
        for name, content in found.items():
            if name in FILES and len(content) == len(FILES[name]):
                assert sum(a != b for a, b in zip(content, FILES[name], strict=True)) <= 8
