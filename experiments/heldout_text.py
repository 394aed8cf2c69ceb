"""Held-out loss of a language model while it trains: `validation/<name>` in nats a token.

The batches are the same each time, at every step and in every run: the first `validation_batches`
of a split drawn in one order, read from each text's beginning. Besides there are `validation_s` and
`validation_skipped/<name>`.
"""

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
from flamingo_jax.core import hosts
from flamingo_jax.tokenizer import Tokenizer
from flamingo_jax.train import metrics
from flamingo_jax.train.language_model_step import text_loss
from flamingo_jax.train.state import TrainState

Tree = Any


class HeldoutText:
    """Measures a state; `reading` is what `Stream` takes beside its config."""

    def __init__(
        self,
        streams: Mapping[str, StreamConfig],
        tokenizer: Tokenizer,
        graph: nnx.GraphDef,
        mesh: Mesh,
        *,
        dtype: str,
        every: int,  # steps; 0: never
        num_batches: int,  # of each dataset
        reading: Mapping[str, Any],
    ):
        self._streams, self._tokenizer, self._mesh = streams, tokenizer, mesh
        self._every, self._num_batches, self._reading = every, num_batches, reading
        self._loss = jax.jit(lambda params, batch: text_loss(graph, params, dtype, batch))

    def is_due(self, step: int, last_step: int) -> bool:
        """Whether this step is one to measure after."""
        often = bool(self._streams) and self._every > 0
        return often and (step % self._every == 0 or step == last_step)

    def measure(self, state: TrainState, _: Tree, say: Callable[[str], None]) -> metrics.Row:
        """The entries of a row; all processes must call it, with the mesh set.

        Raises:
          TooManyBadRecords: more than `max_skipped_share`, or nothing of a dataset is sound.
        """
        began_s = time.perf_counter()
        row = {}
        for name, config in self._streams.items():
            stream = Stream(config, self._tokenizer, **self._reading)
            sums = np.zeros(2)
            for rows in itertools.islice(stream, self._num_batches):
                batch = hosts.place_rows(rows, self._mesh)
                sums += jax.device_get(self._loss(state.trainable, batch))
            stream.close()
            everyone = processes.gather(
                {"share": self._reading["process_index"], "data": {"": stream.state()}}
            )
            readers = run_log.one_of_each_share(everyone)
            skipped = run_log.total_place(one["data"] for one in readers)[""]["skipped"]
            if skipped:
                say(f"{config.name}: {sum(skipped.values())} records are unusable: {skipped}")
            if not sums[1]:
                raise TooManyBadRecords(f"{config.name}: nothing to score: {skipped}")
            row[f"validation/{name}"] = sums[0] / sums[1]
            row[f"validation_skipped/{name}"] = sum(skipped.values())
        return row | {"validation_s": time.perf_counter() - began_s}
