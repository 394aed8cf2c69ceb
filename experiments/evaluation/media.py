"""Pictures and videos of a benchmark: which can be read, their features, what RICES compares.

A picture or video stands in many prompts, as a query in each order of its examples and as an
example often, so its frozen features are made once and shown in its place; they are what the model
would make of it. Those that were shown last are kept in memory, `MAX_BYTES` of them.
"""

import collections
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.evaluation import frames
from experiments.training import processes
from flamingo_jax.eval import retrieval
from flamingo_jax.eval.task import Example
from flamingo_jax.model import Model
from flamingo_jax.models.flamingo import Flamingo
from flamingo_jax.prompts import ImagePart, Part, VideoPart

MAX_BYTES = 2 << 30  # of kept features
_AT_ONCE = 16  # frames encoded together on a device
_ON_CPU = 2  # of those a device step there: what fits the cache (see models/efficientnet_lite.py)

Tick = Callable[[int], object]
Decoded = tuple[np.ndarray | None, str | None]  # the frames, or why there are none


class Media:
    """Features of a model's pictures, by path."""

    def __init__(self, model: Model):
        self._model = model
        self._how = model.config.vision.preprocessing, model.video_sampling
        self._features: collections.OrderedDict[Any, np.ndarray] = collections.OrderedDict()
        self._bytes = 0
        self._pooled: dict[Any, np.ndarray] = {}
        self._reasons: dict[Any, str | None] = {}  # of everything looked at; None where it is good

    def look(self, media: Iterable[Part], *, pooled: bool, tick: Tick) -> None:
        """Decodes each once, to know which are good; `pooled` also encodes what RICES compares.

        `tick` is called with the number of those that were looked at just now, or before.
        """
        parts = {frames.path(part): part for part in media}
        known = self._pooled if pooled else self._reasons
        paths = [p for p in parts if p not in known and self._reasons.get(p) is None]
        tick(len(parts) - len(paths))
        with ThreadPoolExecutor(frames.THREADS) as pool:
            for chunk in frames.chunks(paths, parts):
                looked = pool.map(lambda path: frames.look(parts[path], *self._how), chunk)
                decoded = _agreed(list(looked))
                for path, (_, reason) in zip(chunk, decoded, strict=True):
                    self._reasons[path] = reason
                if pooled:
                    both = zip(chunk, decoded, strict=True)
                    self._pool({path: own for path, (own, _) in both if own is not None})
                tick(len(chunk))

    def reason(self, example: Example) -> str | None:
        """Why its picture cannot be used; None where it can."""
        return self._reasons[example.path]

    def pooled(self, examples: Sequence[Example]) -> np.ndarray:  # f32[examples, E]
        """What RICES compares, of those that were looked at so."""
        return np.stack([self._pooled[example.path] for example in examples])

    def num_bytes(self, media: Sequence[Part]) -> int:
        """What their features take at most, each counted."""
        num_frames = {ImagePart: 1, VideoPart: self._model.video_sampling.num_frames}
        return sum(num_frames[type(part)] for part in media) * self._model.feature_bytes

    def shown(self, prompts: Sequence[Sequence[Part]]) -> list[tuple[Part, ...]]:
        """The prompts with features in place of pictures and videos.

        All of them are in memory together: see `num_bytes`.
        """
        media = {frames.path(p): p for parts in prompts for p in parts if _is_media(p)}
        here = {path: self._features[path] for path in media if path in self._features}
        missing = [path for path in media if path not in here]
        with ThreadPoolExecutor(frames.THREADS) as pool:
            for chunk in frames.chunks(missing, media):
                read = pool.map(lambda path: frames.read(media[path], *self._how), chunk)
                here |= self._encoded(dict(zip(chunk, read, strict=True)))
        self._keep({path: here[path] for path in media})

        def features(part: Part) -> Part:
            if isinstance(part, VideoPart):
                return VideoPart(here[part.video])
            return ImagePart(here[part.image][0]) if isinstance(part, ImagePart) else part

        return [tuple(map(features, parts)) for parts in prompts]

    def _pool(self, decoded: Mapping[Any, np.ndarray]) -> None:
        """What RICES compares of media, by path; their features are kept, too."""
        features = self._encoded(decoded)
        for path, own in features.items():
            mean = retrieval.pool(own[None])
            self._pooled[path] = similarity_features(self._model, mean)[0]
        self._keep(features)

    def _encoded(self, decoded: Mapping[Any, np.ndarray]) -> dict[Any, np.ndarray]:
        """Features [F, P, E] of media's frames u8[F, H, W, 3], by path."""
        if not decoded:
            return {}
        pixels = np.concatenate(list(decoded.values()))
        encode, found = _encoder(self._model), []
        at_once = _AT_ONCE * (1 if self._model.mesh is None else self._model.mesh.size)
        for start in range(0, len(pixels), at_once):
            chunk = pixels[start : start + at_once]
            pad = [(0, at_once - len(chunk)), (0, 0), (0, 0), (0, 0)]
            found.append(np.asarray(encode(self._model.params, np.pad(chunk, pad)))[: len(chunk)])
        ends = np.cumsum([len(own) for own in decoded.values()])
        parts = np.split(np.concatenate(found), ends[:-1])
        return {path: own.copy() for path, own in zip(decoded, parts, strict=True)}

    def _keep(self, features: Mapping[Any, np.ndarray]) -> None:
        """As the newest; the oldest make room."""
        for path, own in features.items():
            before = self._features.pop(path, None)
            self._bytes += 0 if before is not None else own.nbytes
            self._features[path] = own
        while self._bytes > MAX_BYTES:
            self._bytes -= self._features.popitem(last=False)[1].nbytes


@functools.cache
def _encoder(model: Model) -> Callable[[Any, np.ndarray], jax.Array]:
    """Of the model's parameters and u8[N, H, W, 3] to [N, P, E]; a mesh shares the pictures out."""
    dtype = jnp.dtype(model.compute_dtype)

    def encode(flamingo: Flamingo, pixels: jax.Array) -> jax.Array:
        vision = flamingo.vision
        if model.mesh is not None:
            return vision(pixels[:, None, None], dtype)[:, 0, 0]
        at_once = _ON_CPU if jax.default_backend() == "cpu" else len(pixels)

        def one(picture):
            return vision(picture[None, None, None], dtype)[0, 0, 0]

        return jax.lax.map(one, pixels, batch_size=at_once)

    return model.program(encode)


def similarity_features(model: Model, pooled: np.ndarray) -> np.ndarray:
    """Pooled features [pictures, E] through the map that aligns them, as RICES takes them."""
    alignment = model.params["vision"].get("alignment")
    if alignment is None:
        return pooled
    return pooled @ np.asarray(alignment["kernel"]) + np.asarray(alignment["bias"])


def _agreed(decoded: Sequence[Decoded]) -> list[Decoded]:
    """What several processes decoded, less what one of them could not: they encode the same."""
    of_all = zip(*processes.gather([reason for _, reason in decoded]), strict=True)
    reasons = [next(filter(None, everyones), None) for everyones in of_all]
    both = zip(decoded, reasons, strict=True)
    return [(None if reason else pixels, reason) for (pixels, _), reason in both]


def _is_media(part: Part) -> bool:
    return isinstance(part, ImagePart | VideoPart)
