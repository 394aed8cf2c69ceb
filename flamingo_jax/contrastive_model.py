"""A finished contrastive model: pictures, videos and texts as points, nearer where they agree.

    model = contrastive_model.load("runs/towers")
    scores = model.embed_media(pictures) @ model.embed_texts(texts).T

Points have length 1, so a product of two is their cosine. A text is read as training reads it,
`<BOS><image>...<EOC><EOS>`, and loses its end where it is longer than the text tower's positions. A
video is the mean direction of its frames, which the paper does not say. All devices of the process
take their share of what is embedded.
"""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

from flamingo_jax.contrastive_config import TwoTowersConfig
from flamingo_jax.core import params as params_lib
from flamingo_jax.core import partition
from flamingo_jax.core.stack import Execution
from flamingo_jax.models.two_towers import TwoTowers
from flamingo_jax.tokenizer import NEW_TOKENS, Tokenizer
from flamingo_jax.train.contrastive import normalize
from flamingo_jax.weights import stage_folder
from flamingo_jax.weights.encoders import two_towers
from flamingo_jax.weights.errors import BadWeightsFile

Tree = Any

_ROWS_A_DEVICE = 32  # embedded together


def load(directory: str | pathlib.Path) -> "ContrastiveModel":
    """The model that experiments.pretrain_contrastive left, by its folder or its workdir.

    BadWeightsFile where there is none, or a damaged one.
    """
    directory = find(directory)
    config = two_towers.read_config(directory)
    try:
        tokenizer = Tokenizer.from_file(directory / stage_folder.TOKENIZER)
        tokenizer.check_rows(config.text.vocab_size - len(NEW_TOKENS), len(NEW_TOKENS))
    except (OSError, ValueError) as error:
        raise BadWeightsFile(f"{directory}: {error}: copy the folder anew") from error
    return ContrastiveModel(config, stage_folder.read_params(directory), tokenizer)


def find(directory: str | pathlib.Path) -> pathlib.Path:
    """The folder of the model itself, where a workdir is given."""
    directory = pathlib.Path(directory)
    inner = directory / "model"
    return inner if (inner / two_towers.CONFIG).is_file() else directory


class ContrastiveModel:
    """Two towers with parameters and tokenizer."""

    def __init__(self, config: TwoTowersConfig, params: Tree, tokenizer: Tokenizer):
        self.config, self.tokenizer = config, tokenizer
        graph, _, _ = params_lib.abstract(lambda rngs: TwoTowers(config, Execution(), rngs=rngs))
        self._mesh = partition.make_mesh()
        self._params = jax.device_put(params, partition.replicated(self._mesh))

        @jax.jit
        def pictures(params, pixels):
            return normalize(nnx.merge(graph, params).embed_pictures(pixels))

        @jax.jit
        def texts(params, tokens, mask):
            return normalize(nnx.merge(graph, params).embed_texts(tokens, mask))

        self._pictures, self._texts = pictures, texts

    def embed_media(
        self,
        media: Sequence[
            np.ndarray
        ],  # of each its frames u8[n, size_px, size_px, 3], of a picture 1
    ) -> np.ndarray:  # f32[media, J]
        """A point each; `n` may differ."""
        points = self._embed(self._pictures, np.concatenate(media))
        starts = np.cumsum([0, *map(len, media[:-1])])
        sums = np.add.reduceat(points, starts)
        return sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-6)

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:  # f32[texts, J]
        """A point each."""
        length = self.config.text.max_length
        tokens = np.full((len(texts), length), self.tokenizer.pad_id, np.int32)
        mask = np.zeros((len(texts), length), bool)
        for row, text in enumerate(texts):
            own = self._row(text)[:length]
            tokens[row, : len(own)], mask[row, : len(own)] = own, True
        return self._embed(self._texts, tokens, mask)

    def _row(self, text: str) -> list[int]:
        t = self.tokenizer
        return [*t.prefix, *t.image_tag([]), *t.encode(text), *t.chunk_end, t.eos_id]

    def _embed(self, tower: Callable[..., jax.Array], *arrays: np.ndarray) -> np.ndarray:
        """Rows of one size at a time, the last ones filled up, cut among the devices."""
        at_once, found = _ROWS_A_DEVICE * self._mesh.size, []
        for start in range(0, len(arrays[0]), at_once):
            chunk = [x[start : start + at_once] for x in arrays]
            room = at_once - len(chunk[0])
            filled = [np.pad(x, [(0, room), *[(0, 0)] * (x.ndim - 1)]) for x in chunk]
            placed = jax.device_put(filled, partition.batch_sharding(self._mesh))
            with jax.set_mesh(self._mesh):
                found.append(np.asarray(tower(self._params, *placed))[: len(chunk[0])])
        return np.concatenate(found)
