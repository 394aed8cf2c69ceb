"""Every picture's frozen features, computed once and kept: `data.cache_features` in a recipe.

Right where nothing is augmented and the encoder is frozen. The features lie in one memory-mapped
float16 file beside the datasets, named by encoder, preprocessing and datasets, and are made again
when any of them changes. Float16 keeps three digits of values that ReLU6 holds within 0 to 6.
"""

import dataclasses
import hashlib
import json
import pathlib
import shutil
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from data_pipelines import progress_bar
from data_pipelines.errors import BadRecord
from data_pipelines.reading import bucket_files, documents
from data_pipelines.reading.record_index import RecordIndex
from data_pipelines.reading.splits import shard_slices
from data_pipelines.whole_files import read_json, write_json
from flamingo_jax.config import VisionConfig, to_dict
from flamingo_jax.core.rngs import Rngs
from flamingo_jax.images import BadMedia, decode_image
from flamingo_jax.model_directory import ModelCard
from flamingo_jax.models.vision import VisionEncoder

Tree = Any
_PARTIAL = ".partial-"
_MIB = 1 << 20
_CHUNK = 64  # pictures decoded and encoded at a time
_ON_CPU = 2  # pictures a device step there: what fits the cache (see models/efficientnet_lite.py)


class FeatureCache(Mapping[str, np.ndarray]):
    """float16[P, E] by media id."""

    def __init__(self, path: pathlib.Path):
        self.path = path
        self._row = {name: i for i, name in enumerate(read_json(_names(path)))}
        self._features = np.load(path, mmap_mode="r")

    def __getitem__(self, name: str) -> np.ndarray:
        return self._features[self._row[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._row)

    def __len__(self) -> int:
        return len(self._row)

    def channel_statistics(self, media_ids: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
        """float32[E] mean and standard deviation over these pictures and their places."""
        rows = np.array(sorted({self._row[name] for name in media_ids}))
        total = square = 0.0
        for start in range(0, len(rows), 256):
            x = self._features[rows[start : start + 256]].astype(np.float32)
            total, square = total + x.sum((0, 1)), square + np.square(x).sum((0, 1))
        count = len(rows) * self._features.shape[1]
        mean = total / count
        std = np.sqrt(np.maximum(square / count - mean**2, 1e-6))
        return mean.astype(np.float32), std.astype(np.float32)


def open_or_build(
    card: ModelCard, vision_params: Tree, dataset_dirs: dict[pathlib.Path, str], root: pathlib.Path
) -> FeatureCache:
    """The cache of all pictures in the named splits (by dataset folder, as TFDS writes them)."""
    key = json.dumps(
        [
            to_dict(card.vision),
            to_dict(_unaligned(card)),
            {str(d): [s, _fingerprint(d)] for d, s in dataset_dirs.items()},
        ],
        sort_keys=True,
    )
    path = root / f"features-{hashlib.sha256(key.encode()).hexdigest()[:16]}.npy"
    try:
        return FeatureCache(path)
    except (OSError, EOFError, ValueError):  # not there, or cut, as when the power fails
        _build(card, vision_params, dataset_dirs, path)
    return FeatureCache(path)


def _unaligned(card: ModelCard) -> VisionConfig:
    """The encoder alone; what is made of its features is no reason to encode again."""
    return dataclasses.replace(card.config.vision, aligned_width=None)


def _build(card, vision_params, dataset_dirs, path: pathlib.Path) -> None:
    config = _unaligned(card)
    pictures = _pictures(dataset_dirs)
    graph = nnx.graphdef(nnx.eval_shape(lambda: VisionEncoder(config, rngs=Rngs(0))))

    @jax.jit
    def encode(params, pixels):  # u8[N, H, W, 3] to float16[N, P, E]
        model = nnx.merge(graph, params)

        def one(picture):
            return model(picture[None, None, None])[0, 0, 0]

        batch_size = _ON_CPU if jax.default_backend() == "cpu" else len(pixels)
        return jax.lax.map(one, pixels, batch_size=batch_size).astype(jnp.float16)

    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f"{_PARTIAL}*"):  # by a run that was killed
        left.unlink()
    partial = path.with_name(f"{_PARTIAL}{path.name}")
    shape = (len(pictures), config.num_features, config.width)
    _check_room(path.parent, shape)
    names: list[str] = []
    bar = progress_bar.bar(len(pictures), "encoding pictures", "pictures")
    ids = list(pictures)
    with ThreadPoolExecutor(2) as pool, bar, partial.open("wb") as file:
        # Written, not mapped: a full disk is an error of writing, and of a mapping the end.
        header = {"descr": "<f2", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, len(ids), _CHUNK):
            chunk = ids[start : start + _CHUNK]
            decoded = list(pool.map(lambda i: _decode(pictures[i], config.preprocessing), chunk))
            good = [(i, p) for i, p in zip(chunk, decoded, strict=True) if p is not None]
            if good:
                pixels = np.stack([p for _, p in good])
                pad = [(0, _CHUNK - len(good)), (0, 0), (0, 0), (0, 0)]
                features = np.asarray(encode(vision_params, np.pad(pixels, pad)))
                file.write(features[: len(good)].tobytes())
                names += [i for i, _ in good]
            bar.update(len(chunk))
        file.truncate(file.tell() + (len(pictures) - len(names)) * _row_bytes(shape))
    write_json(_names(path), names)
    partial.rename(path)


def _check_room(folder: pathlib.Path, shape: tuple[int, int, int]) -> None:
    """OSError where the disk has not the room for features of this shape."""
    needed, free = shape[0] * _row_bytes(shape) / _MIB, shutil.disk_usage(folder).free / _MIB
    if free < needed:
        raise OSError(
            f"{folder}: features of {shape[0]} pictures take {needed:.1f} MiB, and {free:.1f} are "
            "free: make room, or give data.dir on another disk"
        )


def _row_bytes(shape: tuple[int, int, int]) -> int:
    """Of one picture's features, float16."""
    return 2 * shape[1] * shape[2]


def _decode(data: bytes, preprocessing) -> np.ndarray | None:
    """The picture, or None for one the stream will count as bad."""
    try:
        return decode_image(data, preprocessing)
    except BadMedia:
        return None


def _pictures(dataset_dirs: dict[pathlib.Path, str]) -> dict[str, bytes]:
    """Compressed pictures by media id, each once."""
    pictures = {}
    for directory, split in dataset_dirs.items():
        index = RecordIndex(shard_slices(directory, split, str(directory)))
        for document in documents.read(index, range(len(index))):
            if not isinstance(document, BadRecord):  # the stream counts it
                pictures.update(zip(document.media_ids, document.media, strict=True))
    return pictures


def _fingerprint(directory: pathlib.Path) -> str:
    """Changes when the dataset does: its shards' names and sizes; in a bucket, its statistics."""
    if bucket_files.is_address(directory):
        return hashlib.sha256(bucket_files.read(directory / "dataset_info.json")).hexdigest()[:16]
    shards = sorted((p.name, p.stat().st_size) for p in directory.glob("*.tfrecord*"))
    return hashlib.sha256(repr(shards).encode()).hexdigest()[:16]


def _names(path: pathlib.Path) -> pathlib.Path:
    return path.with_suffix(".json")
