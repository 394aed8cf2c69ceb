"""A published checkpoint on disk as tensors by name: one file, or a folder with its shards.

safetensors and torch files are read, nothing in them is run; safetensors and the zip archives that
torch writes since 1.6 only where they are looked at, so that a model larger than memory can be read
part by part. A folder's SHA-256 covers names and contents of its weight files and of `config.json`,
so any changed byte shows.
"""

import hashlib
import json
import os
import pathlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ml_dtypes
import numpy as np
import safetensors

from flamingo_jax.weights.errors import BadWeightsFile
from flamingo_jax.weights.files.torch_checkpoint import load_state_dict

CONFIG = "config.json"
_THREADS = min(16, os.cpu_count() or 1)  # that hash
_PATTERNS = ("*.safetensors", "*pytorch_model*.bin", "*.pt", "*.pth")  # the first that is there
_WHOLE = ("model.safetensors", "pytorch_model.bin")  # all that transformers reads, where it is


def weight_files(path: pathlib.Path) -> list[pathlib.Path]:
    """The file itself, or a folder's weight files in order; BadWeightsFile where there are none.

    Of a folder with several checkpoints, such as Mistral's with `consolidated.safetensors` beside
    the shards, those files that transformers reads: the whole one, or what the index names.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise BadWeightsFile(f"{path} is missing: give a checkpoint's file, or the folder of it")
    for pattern in _PATTERNS:
        if found := sorted(path.glob(pattern)):
            there = {file.name for file in found}
            if whole := there & {*_WHOLE}:
                return [path / min(whole)]
            named = _named_shards(path, pattern, there)
            return [path / name for name in named] or found
    raise BadWeightsFile(f"{path} holds no weights: want one of {', '.join(_PATTERNS)} in it")


def _named_shards(folder: pathlib.Path, pattern: str, there: set[str]) -> list[str]:
    """What an index of some that are there names, transformers' own first; none without one.

    BadWeightsFile where it names one that is not there, unlike others.
    """
    own = {f"{name}.index.json" for name in _WHOLE}
    found = sorted(folder.glob(f"{pattern}.index.json"), key=lambda f: (f.name not in own, f.name))
    for index in found:
        places = json_object(index).get("weight_map")
        named = set(map(str, places.values())) if isinstance(places, dict) else set()
        if there & named and (missing := sorted(named - there)):
            raise BadWeightsFile(
                f"{folder} lacks {missing[0]}, one of {len(named)} files that {index.name} names: "
                "fetch the folder again"
            )
        if there & named:
            return sorted(named)
    return []


def tensors(
    path: pathlib.Path, keep: Callable[[str], bool] = lambda name: True
) -> dict[str, np.ndarray]:
    """The tensors whose names `keep` wants, in their own dtype; those of torch files are read-only.

    Raises:
      BadWeightsFile: nothing there, damaged, or two shards with a tensor of one name.
    """
    found: dict[str, np.ndarray] = {}
    for file in weight_files(path):
        if file.suffix == ".safetensors":
            new = {name: tensor for name, tensor in _safetensors(file).items() if keep(name)}
        else:
            new = load_state_dict(file, keep)
        if twice := sorted(found.keys() & new.keys()):
            raise BadWeightsFile(
                f"{file}: tensor {twice[0]} is in another shard too; where the folder "
                "holds two checkpoints, name the file of one"
            )
        found |= new
    return found


def names(path: pathlib.Path) -> list[str]:
    """Of all tensors, read from headers where the files have them; BadWeightsFile as `tensors`."""
    found: list[str] = []

    def note(name: str) -> bool:
        found.append(name)
        return False

    tensors(path, note)
    return found


def json_object(file: pathlib.Path) -> dict[str, Any]:
    """What a JSON file beside weights says; BadWeightsFile where it is missing or damaged."""
    try:
        values = json.loads(file.read_text("utf-8"))
        if not isinstance(values, dict):
            raise ValueError(f"it holds a {type(values).__name__}, want an object")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BadWeightsFile(
            f"{file} is missing: give the folder that holds it, with all its files"
        ) from error
    except (OSError, ValueError) as error:
        raise BadWeightsFile(f"{file} is damaged ({error}): fetch it again") from error
    return values


def hashed_files(path: pathlib.Path) -> list[pathlib.Path]:
    """Those that `sha256` covers."""
    files = weight_files(path)
    config = path / CONFIG
    return [config, *files] if config.is_file() else files


def sha256(path: pathlib.Path, tick: Callable[[int], object] = lambda num_bytes: None) -> str:
    """Of a file its own; of a folder that of a listing of its files' hashes.

    Several files are hashed together, on as many cores. `tick` is called with the number of bytes
    that were read just now.
    """
    files, lock = hashed_files(path), threading.Lock()

    def told(num_bytes: int) -> None:
        with lock:
            tick(num_bytes)

    with ThreadPoolExecutor(min(_THREADS, len(files))) as pool:
        digests = list(pool.map(lambda file: _file_sha256(file, told), files))
    if path.is_file():
        return digests[0]
    lines = [f"{digest}  {file.name}\n" for digest, file in zip(digests, files, strict=True)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _file_sha256(path: pathlib.Path, tick: Callable[[int], object]) -> str:
    """Kept, for naming a part and reading it hash the same 100 GB; a changed file is read anew."""
    stat = path.stat()
    known = (path, stat.st_mtime_ns)
    if known in _DIGESTS:
        tick(stat.st_size)
        return _DIGESTS[known]
    digest, piece = hashlib.sha256(), memoryview(bytearray(1 << 22))
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(piece):
            digest.update(piece[:size])
            tick(size)
    return _DIGESTS.setdefault(known, digest.hexdigest())


_DIGESTS: dict[tuple[pathlib.Path, int], str] = {}

DTYPES = {  # of numbers in safetensors files, by the names there
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}


def _safetensors(file: pathlib.Path) -> dict[str, np.ndarray]:
    """Views into the file: of each tensor what is used is read, when it is used."""
    try:
        with safetensors.safe_open(file, "np"):  # checks that offsets, shapes and size agree
            pass
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            header = json.loads(opened.read(length))
        data = np.memmap(file, np.uint8, "r", offset=8 + length)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise BadWeightsFile(f"{file} is damaged ({error}): fetch it again") from error
    header.pop("__metadata__", None)
    found = {}
    for name, entry in header.items():
        if entry["dtype"] not in DTYPES:
            raise BadWeightsFile(f"{file}: tensor {name} is of {entry['dtype']}, not {[*DTYPES]}")
        start, end = entry["data_offsets"]
        numbers = data[start:end].view(DTYPES[entry["dtype"]])
        try:
            found[name] = numbers.reshape(entry["shape"])
        except ValueError as error:  # of more dims than numpy has, or empty and endless
            raise BadWeightsFile(
                f"{file} is damaged (tensor {name}: {error}): fetch it again"
            ) from error
    return found
