"""Retrieval on held-out pairs while the contrastive stage runs (paper, Table 9).

A row of metrics has, for each dataset of `data.validation`: `text_recall/<name>@K`, the share of
pictures that have their own text among the K nearest, `picture_recall/<name>@K` the other way, for
K of 1, 5 and 10; `validation_pairs/<name>`, among how many; besides
`validation_s` that it all took, and `validation_skipped/<name>`. The pairs are those of
`heldout_batches`, all of a dataset's against all.
"""

import functools
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from data_pipelines.errors import TooManyBadRecords
from data_pipelines.streams.stream_config import StreamConfig
from experiments.training.heldout_batches import HeldoutBatches
from flamingo_jax.batch import Batch
from flamingo_jax.core import partition
from flamingo_jax.eval.recall import AT, PICTURE, TEXT, recall
from flamingo_jax.tokenizer import Tokenizer
from flamingo_jax.train import metrics
from flamingo_jax.train.contrastive import normalize, text_ids
from flamingo_jax.train.contrastive_step import embed
from flamingo_jax.train.state import TrainState

Tree = Any


class Retrieval(HeldoutBatches):
    """Measures a state on them."""

    def __init__(
        self,
        streams: Mapping[str, StreamConfig],
        tokenizer: Tokenizer,
        graph: nnx.GraphDef,
        mesh: Mesh,
        **batches: Any,  # as of `HeldoutBatches`
    ):
        super().__init__(streams, tokenizer, mesh, **batches)
        self._points = jax.jit(
            functools.partial(_points, graph), out_shardings=partition.replicated(mesh)
        )

    def measure(self, state: TrainState, _: Tree, say: Callable[[str], None]) -> metrics.Row:
        """The entries of a row; all processes must call it, with the mesh set.

        Raises:
          TooManyBadRecords: more than `max_skipped_share`, or no two pairs of a dataset are sound.
        """
        began_s = time.perf_counter()
        row = {}

        def points(batch: Batch) -> list[np.ndarray]:
            *found, there = jax.device_get(self._points(state.trainable, batch))
            return [x[there] for x in found]

        for name, config in self.streams.items():
            found, skipped = self.read(config, points, say)
            pictures, texts, ids = map(np.concatenate, zip(*found, strict=True))
            if len(ids) < 2:
                raise TooManyBadRecords(f"{config.name}: fewer than two pairs: {skipped}")
            scores = pictures @ texts.T
            for k in AT:
                row[f"{TEXT}/{name}@{k}"] = recall(scores, ids, ids, k)
                row[f"{PICTURE}/{name}@{k}"] = recall(scores.T, ids, ids, k)
            row[f"validation_pairs/{name}"] = len(ids)
            row[f"validation_skipped/{name}"] = sum(skipped.values())
        return row | {"validation_s": time.perf_counter() - began_s}


def _points(graph: nnx.GraphDef, params: Tree, batch: Batch) -> tuple[jax.Array, ...]:
    """f32[B, J] of pictures and of texts, of length 1; u32[B] the texts' ids; bool[B] are there."""
    pictures, texts, there = embed(nnx.merge(graph, params), batch)
    ids = text_ids(batch.tokens, batch.token_mask)
    return normalize(pictures), normalize(texts), ids, there
