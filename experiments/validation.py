"""Held-out loss during a run, with the right pictures and with other ones in their place.

A row of metrics has, for each dataset of `data.validation`, in nats a token: `validation/<name>`,
`validation_shuffled/<name>` with each row's pictures exchanged for its neighbour's, and
`validation_difference/<name>`, what seeing the right ones saves; besides `validation_s` that it all
took and `validation_skipped/<name>`, records that could not be used.

The batches are the same each time, at every step and in every run, on any number of processes:
`validation_batches` of each dataset, drawn from its split, read as for evaluation (text sees its
last picture, nothing is augmented). They are read anew each time and go to the devices one by one,
cut as in training.
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
from flamingo_jax.core import hosts, partition
from flamingo_jax.tokenizer import Tokenizer
from flamingo_jax.train import metrics, validation
from flamingo_jax.train.state import TrainState

Tree = Any


class Validation:
    """Measures a state on held-out batches; `reading` is what `Stream` takes beside its config."""

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
        compiler_options: Mapping[str, Any],
    ):
        self._streams, self._tokenizer, self._mesh = streams, tokenizer, mesh
        self._every, self._num_batches, self._reading = every, num_batches, reading
        # The loss is compiled once for both kinds of pictures, and for each shape of a batch.
        self._pictures = jax.jit(
            functools.partial(validation.right_and_other, graph),
            out_shardings=partition.batch_sharding(mesh),
            compiler_options=compiler_options,
        )
        self._loss = jax.jit(
            functools.partial(validation.total_loss, graph), compiler_options=compiler_options
        )

    def is_due(self, step: int, last_step: int) -> bool:
        """Whether this step is one to measure after."""
        often = bool(self._streams) and self._every > 0
        return often and (step % self._every == 0 or step == last_step)

    def measure(self, state: TrainState, frozen: Tree, say: Callable[[str], None]) -> metrics.Row:
        """The entries of a row; all processes must call it, with the mesh set.

        Records that cannot be used are counted, and told with their reasons to `say`.

        Raises:
          TooManyBadRecords: more than `max_skipped_share`, or no two rows of a dataset are sound.
        """
        began_s = time.perf_counter()
        row = {}
        for name, config in self._streams.items():
            (right, other, num_targets), skipped = self._sums(config, state, frozen)
            if skipped:
                say(f"{config.name}: {sum(skipped.values())} records are unusable: {skipped}")
            if not num_targets:
                raise TooManyBadRecords(f"{config.name}: nothing to score: {skipped}")
            row |= {
                f"validation/{name}": right / num_targets,
                f"validation_shuffled/{name}": other / num_targets,
                f"validation_difference/{name}": (other - right) / num_targets,
                f"validation_skipped/{name}": sum(skipped.values()),
            }
        return row | {"validation_s": time.perf_counter() - began_s}

    def _sums(
        self, config: StreamConfig, state: TrainState, frozen: Tree
    ) -> tuple[np.ndarray, dict[str, int]]:
        """f64[3]: both losses and the targets of all batches; all processes' bad records."""
        stream = Stream(config, self._tokenizer, **self._reading)
        sums = np.zeros(3)
        for rows in itertools.islice(stream, self._num_batches):
            batch = hosts.place_rows(rows, self._mesh)
            right, other = self._pictures(state, frozen, batch)
            (a, count), (b, _) = (self._loss(state, frozen, x) for x in (right, other))
            sums += jax.device_get((a, b, count))  # waits, so that one batch is there at a time
        stream.close()
        everyone = processes.gather(
            {"share": self._reading["process_index"], "data": {"": stream.state()}}
        )
        readers = run_log.one_of_each_share(everyone)
        return sums, run_log.total_place(one["data"] for one in readers)[""]["skipped"]
