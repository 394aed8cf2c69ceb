"""Pictures of a benchmark: which can be read, their frozen features, and what RICES compares.

A picture stands in many prompts, as a query once and as an example often, so its features are made
once and shown in its place; they are what the model would make of it. The newest are kept in
memory. Videos go into prompts as they are, and are decoded there.
"""

import collections
import functools
import itertools
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.cli import UserError
from flamingo_jax.eval import retrieval
from flamingo_jax.eval.task import Example
from flamingo_jax.images import BadMedia, decode_image
from flamingo_jax.model import Model
from flamingo_jax.prompts import ImagePart, Part, VideoPart
from flamingo_jax.videos import decode_video

MAX_BYTES = 2 << 30  # of kept features
_AT_ONCE = 16  # pictures decoded and encoded together
_ON_CPU = 2  # of those a device step there: what fits the cache (see models/efficientnet_lite.py)
_THREADS = 2

Tick = Callable[[int], object]


class Media:
    """Features of a model's pictures, by path."""

    def __init__(self, model: Model):
        self._model = model
        self._features: collections.OrderedDict[Any, np.ndarray] = collections.OrderedDict()
        self._bytes = 0
        self._pooled: dict[Any, np.ndarray] = {}
        self._reasons: dict[Any, str | None] = {}  # of everything looked at; None where it is good

    def look(self, media: Iterable[Part], *, pooled: bool, tick: Tick) -> None:
        """Decodes each once, to know which are good; `pooled` also encodes what RICES compares.

        `tick` is called with the number of those that were looked at just now, or before.
        """
        parts = {_path(part): part for part in media}
        known = self._pooled if pooled else self._reasons
        paths = [p for p in parts if p not in known and self._reasons.get(p) is None]
        tick(len(parts) - len(paths))
        with ThreadPoolExecutor(_THREADS) as pool:
            for start in range(0, len(paths), _AT_ONCE):
                chunk = paths[start : start + _AT_ONCE]
                decoded = list(pool.map(lambda path: self._decode(parts[path]), chunk))
                for path, (_, reason) in zip(chunk, decoded, strict=True):
                    self._reasons[path] = reason
                if pooled:
                    self._pool([(parts[p], d[0]) for p, d in zip(chunk, decoded, strict=True)])
                tick(len(chunk))

    def reason(self, example: Example) -> str | None:
        """Why its picture cannot be used; None where it can."""
        return self._reasons[example.path]

    def pooled(self, examples: Sequence[Example]) -> np.ndarray:  # f32[examples, E]
        """What RICES compares, of those that were looked at so."""
        return np.stack([self._pooled[example.path] for example in examples])

    def shown(self, prompts: Sequence[Sequence[Part]]) -> list[tuple[Part, ...]]:
        """The prompts with features in place of pictures."""
        pictures = {p.image: p for parts in prompts for p in parts if isinstance(p, ImagePart)}
        missing = [path for path in pictures if path not in self._features]
        here = {path: self._features[path] for path in pictures if path in self._features}
        preprocessing = self._model.config.vision.preprocessing
        with ThreadPoolExecutor(_THREADS) as pool:
            for start in range(0, len(missing), _AT_ONCE):
                chunk = missing[start : start + _AT_ONCE]
                pixels = list(pool.map(decode_image, chunk, itertools.repeat(preprocessing)))
                here |= dict(zip(chunk, self._encoded(np.stack(pixels)), strict=True))
        self._keep({path: here[path] for path in missing})
        return [
            tuple(ImagePart(here[p.image]) if isinstance(p, ImagePart) else p for p in parts)
            for parts in prompts
        ]

    def _decode(self, part: Part) -> tuple[np.ndarray | None, str | None]:
        """u8[F, H, W, 3], or why there is none."""
        preprocessing = self._model.config.vision.preprocessing
        try:
            if isinstance(part, VideoPart):
                sampling = self._model.video_sampling._asdict()
                return decode_video(part.video, preprocessing, **sampling), None
            return decode_image(_path(part), preprocessing)[None], None
        except BadMedia as error:
            return None, error.reason
        except ModuleNotFoundError as error:  # PyAV, which videos alone want
            raise UserError(f"{_path(part)}: {error}: pip install 'flamingo_jax[data]'") from error

    def _pool(self, decoded: Sequence[tuple[Part, np.ndarray | None]]) -> None:
        """Encodes and pools media; a picture's features are kept, too."""
        good = [(part, frames) for part, frames in decoded if frames is not None]
        if not good:
            return
        features = self._encoded(np.concatenate([frames for _, frames in good]))
        start = 0
        for part, frames in good:
            own = features[start : start + len(frames)]
            start += len(frames)
            mean = retrieval.pool(own[None])
            self._pooled[_path(part)] = similarity_features(self._model, mean)[0]
            if isinstance(part, ImagePart):
                self._keep({part.image: own[0]})

    def _encoded(self, pixels: np.ndarray) -> np.ndarray:  # u8[N, H, W, 3] to [N, P, E]
        encode, found = _encoder(self._model), []
        for start in range(0, len(pixels), _AT_ONCE):
            chunk = pixels[start : start + _AT_ONCE]
            pad = [(0, _AT_ONCE - len(chunk)), (0, 0), (0, 0), (0, 0)]
            found.append(np.asarray(encode(self._model.params, np.pad(chunk, pad))))
            found[-1] = found[-1][: len(chunk)].copy()
        return np.concatenate(found)

    def _keep(self, features: dict[Any, np.ndarray]) -> None:
        fresh = {path: own for path, own in features.items() if path not in self._features}
        self._features |= fresh
        self._bytes += sum(own.nbytes for own in fresh.values())
        while self._bytes > MAX_BYTES:
            self._bytes -= self._features.popitem(last=False)[1].nbytes


@functools.cache
def _encoder(model: Model) -> Callable[[Any, np.ndarray], jax.Array]:
    """Of the model's parameters and u8[N, H, W, 3] to [N, P, E]."""
    dtype = jnp.dtype(model.compute_dtype)

    @jax.jit
    def encode(params, pixels):
        vision = nnx.merge(model.graph, params).vision
        at_once = _ON_CPU if jax.default_backend() == "cpu" else len(pixels)

        def one(picture):
            return vision(picture[None, None, None], dtype)[0, 0, 0]

        return jax.lax.map(one, pixels, batch_size=at_once)

    return encode


def similarity_features(model: Model, pooled: np.ndarray) -> np.ndarray:
    """Pooled features [pictures, E] through the map that aligns them, as RICES takes them."""
    alignment = model.params["vision"].get("alignment")
    if alignment is None:
        return pooled
    return pooled @ np.asarray(alignment["kernel"]) + np.asarray(alignment["bias"])


def _path(part: Part) -> Any:
    return part.video if isinstance(part, VideoPart) else part.image
