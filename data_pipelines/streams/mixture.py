"""Several datasets side by side: a batch of each at every step, and one place to keep for all.

Paper: section 2.4 and appendix B.1.2: each update sees a batch of every dataset, weighted in the
loss (the weights are the trainer's); or of one dataset after the other, as its ablation. Nothing
here differs from it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data_pipelines.streams.stream import Stream
from data_pipelines.streams.stream_config import StreamConfig
from flamingo_jax.batch import Batch
from flamingo_jax.config import ImagePreprocessing
from flamingo_jax.tokenizer import Tokenizer


class Mixture:
    """Iterator of `{name: Batch}`, endless; `state()` and `state=` as for `Stream`, by name.

    `features` serves every dataset; it maps media ids, which are hashes of the pictures.
    """

    def __init__(
        self,
        configs: Sequence[StreamConfig],
        tokenizer: Tokenizer,
        *,
        preprocessing: ImagePreprocessing | None = None,
        features: Mapping[str, np.ndarray] | None = None,
        process_index: int = 0,
        process_count: int = 1,
        state: Mapping[str, Any] | None = None,
    ):
        names = [config.name for config in configs]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"a mixture needs datasets of different names, got {names}")
        if single_pass := [config.name for config in configs if not config.repeat]:
            raise ValueError(f"a mixture's datasets must have repeat=True: {single_pass} have not")
        if state is not None and set(state) != set(names):
            raise ValueError(
                f"the saved positions are of datasets {sorted(state)}, the mixture has "
                f"{sorted(names)}: train on with the same datasets, or with others in another "
                "workdir, from this one's parameters by init_from"
            )
        self.streams = {
            config.name: Stream(
                config,
                tokenizer,
                preprocessing=preprocessing,
                features=features,
                process_index=process_index,
                process_count=process_count,
                state=None if state is None else state[config.name],
            )
            for config in configs
        }

    def __iter__(self) -> "Mixture":
        return self

    def __next__(self) -> dict[str, Batch]:
        return {name: next(stream) for name, stream in self.streams.items()}

    def in_turn(self, step: int) -> dict[str, Batch]:
        """The next batch of the one dataset that round-robin visits in this step, from 1."""
        names = list(self.streams)
        name = names[(step - 1) % len(names)]
        return {name: next(self.streams[name])}

    @property
    def examples(self) -> dict[str, int]:
        """Good examples handed out so far, by dataset."""
        return {name: stream.examples for name, stream in self.streams.items()}

    @property
    def skipped(self) -> dict[str, dict[str, int]]:
        """Unusable records so far, by dataset and reason."""
        return {name: stream.skipped for name, stream in self.streams.items()}

    def state(self) -> dict[str, Any]:
        """The place after the last step handed out, as JSON values."""
        return {name: stream.state() for name, stream in self.streams.items()}

    def close(self) -> None:
        """Stops the reading threads of every dataset."""
        for stream in self.streams.values():
            stream.close()
