"""Held-out loss of a language model while it trains: `validation/<name>` in nats a token.

The batches are those of `heldout_batches`, each text from its beginning. Besides there are
`validation_s` and `validation_skipped/<name>`.
"""

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
from flamingo_jax.tokenizer import Tokenizer
from flamingo_jax.train import metrics
from flamingo_jax.train.language_model_step import text_loss
from flamingo_jax.train.state import TrainState

Tree = Any


class HeldoutText(HeldoutBatches):
    """Measures a state on them."""

    def __init__(
        self,
        streams: Mapping[str, StreamConfig],
        tokenizer: Tokenizer,
        graph: nnx.GraphDef,
        mesh: Mesh,
        *,
        dtype: str,
        **batches: Any,  # as of `HeldoutBatches`
    ):
        super().__init__(streams, tokenizer, mesh, **batches)
        self._loss = jax.jit(lambda params, batch: text_loss(graph, params, dtype, batch))

    def measure(self, state: TrainState, _: Tree, say: Callable[[str], None]) -> metrics.Row:
        """The entries of a row; all processes must call it, with the mesh set.

        Raises:
          TooManyBadRecords: more than `max_skipped_share`, or nothing of a dataset is sound.
        """
        began_s = time.perf_counter()
        row = {}
        for name, config in self.streams.items():
            found, skipped = self.read(
                config, lambda batch: jax.device_get(self._loss(state.trainable, batch)), say
            )
            total, num_targets = np.sum(np.array(found, np.float64).reshape(-1, 2), axis=0)
            if not num_targets:
                raise TooManyBadRecords(f"{config.name}: nothing to score: {skipped}")
            row[f"validation/{name}"] = total / num_targets
            row[f"validation_skipped/{name}"] = sum(skipped.values())
        return row | {"validation_s": time.perf_counter() - began_s}
