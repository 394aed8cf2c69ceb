"""Retrieval on held-out pairs while the contrastive stage runs (paper, Table 9).

A row of metrics has, for each dataset of `data.validation`: `text_recall/<name>@K`, the share of
pictures that have their own text among the K nearest, `picture_recall/<name>@K` the other way, for
K of 1, 5 and 10; besides `validation_s` that it all took, and `validation_skipped/<name>`. The
pairs are the first `validation_batches` of the split drawn in one order, all against all, the same
at every step and in every run.
"""

import functools
import itertools
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from data_pipelines.errors import TooManyBadRecords
from data_pipelines.stream import Stream
from data_pipelines.stream_config import StreamConfig
from experiments import processes, run_log
from flamingo_jax.batch import Batch
from flamingo_jax.core import hosts, partition
from flamingo_jax.eval.recall import recall
from flamingo_jax.tokenizer import Tokenizer
from flamingo_jax.train import metrics
from flamingo_jax.train.contrastive import normalize, text_ids
from flamingo_jax.train.contrastive_step import embed
from flamingo_jax.train.state import TrainState

Tree = Any
AT = (1, 5, 10)


class Retrieval:
    """Measures a state; `reading` is what `Stream` takes beside its config."""

    def __init__(
        self,
        streams: Mapping[str, StreamConfig],
        tokenizer: Tokenizer,
        graph: nnx.GraphDef,
        mesh: Mesh,
        *,
        every: int,  # steps; 0: never
        num_batches: int,  # of each dataset
        reading: Mapping[str, Any],
    ):
        self._streams, self._tokenizer, self._mesh = streams, tokenizer, mesh
        self._every, self._num_batches, self._reading = every, num_batches, reading
        self._points = jax.jit(
            functools.partial(_points, graph), out_shardings=partition.replicated(mesh)
        )

    def is_due(self, step: int, last_step: int) -> bool:
        """Whether this step is one to measure after."""
        often = bool(self._streams) and self._every > 0
        return often and (step % self._every == 0 or step == last_step)

    def measure(self, state: TrainState, _: Tree, say: Callable[[str], None]) -> metrics.Row:
        """The entries of a row; all processes must call it, with the mesh set.

        Raises:
          TooManyBadRecords: more than `max_skipped_share`, or no two pairs of a dataset are sound.
        """
        began_s = time.perf_counter()
        row = {}
        for name, config in self._streams.items():
            (pictures, texts, ids), skipped = self._read(config, state)
            if skipped:
                say(f"{config.name}: {sum(skipped.values())} records are unusable: {skipped}")
            if len(ids) < 2:
                raise TooManyBadRecords(f"{config.name}: fewer than two pairs: {skipped}")
            scores = pictures @ texts.T
            for k in AT:
                row[f"text_recall/{name}@{k}"] = recall(scores, ids, ids, k)
                row[f"picture_recall/{name}@{k}"] = recall(scores.T, ids, ids, k)
            row[f"validation_skipped/{name}"] = sum(skipped.values())
        return row | {"validation_s": time.perf_counter() - began_s}

    def _read(
        self, config: StreamConfig, state: TrainState
    ) -> tuple[tuple[np.ndarray, ...], dict[str, int]]:
        """Points of all pictures and texts with the texts' ids; all processes' bad records."""
        stream = Stream(config, self._tokenizer, **self._reading)
        found = []
        for rows in itertools.islice(stream, self._num_batches):
            batch = hosts.place_rows(rows, self._mesh)
            *points, there = jax.device_get(self._points(state.trainable, batch))
            found.append([x[there] for x in points])
        stream.close()
        everyone = processes.gather(
            {"share": self._reading["process_index"], "data": {"": stream.state()}}
        )
        readers = run_log.one_of_each_share(everyone)
        skipped = run_log.total_place(one["data"] for one in readers)[""]["skipped"]
        return tuple(map(np.concatenate, zip(*found, strict=True))), skipped


def _points(graph: nnx.GraphDef, params: Tree, batch: Batch) -> tuple[jax.Array, ...]:
    """f32[B, J] of pictures and of texts, of length 1; u32[B] the texts' ids; bool[B] are there."""
    pictures, texts, there = embed(nnx.merge(graph, params), batch)
    ids = text_ids(batch.tokens, batch.token_mask)
    return normalize(pictures), normalize(texts), ids, there
