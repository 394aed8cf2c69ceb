"""Held-out batches that a run looks at now and then: the same each time, however many processes.

`num_batches` of each dataset, drawn from its split, read as for evaluation. They are read anew each
time and go to the devices one by one, cut as in training.
"""

import itertools
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from jax.sharding import Mesh

from data_pipelines.streams.stream import Stream
from data_pipelines.streams.stream_config import StreamConfig
from experiments.training import processes, run_log
from flamingo_jax.batch import Batch
from flamingo_jax.core import hosts
from flamingo_jax.tokenizer import Tokenizer

T = TypeVar("T")


class HeldoutBatches:
    """Of several datasets, by name; `reading` is what `Stream` takes beside its config."""

    def __init__(
        self,
        streams: Mapping[str, StreamConfig],
        tokenizer: Tokenizer,
        mesh: Mesh,
        *,
        every: int,  # steps; 0: never
        num_batches: int,  # of each dataset
        reading: Mapping[str, Any],
    ):
        self.streams = streams
        self._tokenizer, self._mesh = tokenizer, mesh
        self._every, self._num_batches, self._reading = every, num_batches, reading

    def is_due(self, step: int, last_step: int) -> bool:
        """Whether this step is one to measure after."""
        often = bool(self.streams) and self._every > 0
        return often and (step % self._every == 0 or step == last_step)

    def read(
        self, config: StreamConfig, work: Callable[[Batch], T], say: Callable[[str], None]
    ) -> tuple[list[T], dict[str, int]]:
        """What `work` makes of each batch, and all processes' bad records by reason.

        All processes must call it. Bad records are told to `say`, too. `work` waits for what it
        makes, so that one batch is there at a time.
        """
        stream = Stream(config, self._tokenizer, **self._reading)
        batches = itertools.islice(stream, self._num_batches)
        found = [work(hosts.place_rows(rows, self._mesh)) for rows in batches]
        stream.close()
        everyone = processes.gather(
            {"share": self._reading["process_index"], "data": {"": stream.state()}}
        )
        readers = run_log.one_of_each_share(everyone)
        skipped = run_log.total_place(one["data"] for one in readers)[""]["skipped"]
        if skipped:
            say(f"{config.name}: {sum(skipped.values())} records are unusable: {skipped}")
        return found, skipped
