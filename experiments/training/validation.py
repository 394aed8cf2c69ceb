"""Held-out loss during a run, with the right pictures and with other ones in their place.

A row of metrics has, for each dataset of `data.validation`, in nats a token: `validation/<name>`,
`validation_shuffled/<name>` with each row's pictures exchanged for its neighbour's, and
`validation_difference/<name>`, what seeing the right ones saves; of texts, which have none, the
first alone; besides `validation_s` that it all took and `validation_skipped/<name>`, records that
could not be used.

The batches are those of `heldout_batches`: text sees its last picture, nothing is augmented.
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
from flamingo_jax.tokenizer import Tokenizer
from flamingo_jax.train import metrics, validation
from flamingo_jax.train.state import TrainState

Tree = Any


class Validation(HeldoutBatches):
    """Measures a state on them."""

    def __init__(
        self,
        streams: Mapping[str, StreamConfig],
        tokenizer: Tokenizer,
        graph: nnx.GraphDef,
        mesh: Mesh,
        *,
        compiler_options: Mapping[str, Any],
        **batches: Any,  # as of `HeldoutBatches`
    ):
        super().__init__(streams, tokenizer, mesh, **batches)
        # The loss is compiled once for both kinds of pictures, and for each shape of a batch.
        self._pictures = jax.jit(
            functools.partial(validation.right_and_other, graph),
            out_shardings=partition.batch_sharding(mesh),
            compiler_options=compiler_options,
        )
        self._loss = jax.jit(
            functools.partial(validation.total_loss, graph), compiler_options=compiler_options
        )

    def measure(self, state: TrainState, frozen: Tree, say: Callable[[str], None]) -> metrics.Row:
        """The entries of a row; all processes must call it, with the mesh set.

        Records that cannot be used are counted, and told with their reasons to `say`.

        Raises:
          TooManyBadRecords: more than `max_skipped_share`, or no two rows of a dataset are sound.
        """
        began_s = time.perf_counter()
        row = {}

        def losses(batch: Batch) -> list[tuple[np.ndarray, np.ndarray]]:
            there = batch.media.shape[1] > 0
            kinds = self._pictures(state, frozen, batch) if there else (batch,)
            return jax.device_get([self._loss(state, frozen, kind) for kind in kinds])

        for name, config in self.streams.items():
            found, skipped = self.read(config, losses, say)
            totals = np.sum(np.array(found, np.float64), axis=0)  # [kinds, 2]
            if not found or not totals[0, 1]:
                raise TooManyBadRecords(f"{config.name}: nothing to score: {skipped}")
            means = totals[:, 0] / totals[0, 1]
            row |= {
                f"validation/{name}": means[0],
                f"validation_skipped/{name}": sum(skipped.values()),
            }
            if len(means) > 1:
                row |= {
                    f"validation_shuffled/{name}": means[1],
                    f"validation_difference/{name}": means[1] - means[0],
                }
        return row | {"validation_s": time.perf_counter() - began_s}
