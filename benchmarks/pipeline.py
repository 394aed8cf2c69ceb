r"""Examples a second of a `Stream` of pictures, against decoding the same pictures in a bare loop.

    python -m benchmarks.pipeline

The bare loop decodes and resizes compressed pictures that lie in memory, on as many threads. What
the stream does beside that (reading records, drawing the order, tokenising, batching) is the
difference.
"""

import itertools
import time
from concurrent.futures import ThreadPoolExecutor

from absl import flags
from ml_collections import config_flags

from data_pipelines.stream import Stream
from experiments import cli, datasets, parts
from flamingo_jax.images import decode_image

_CONFIG = config_flags.DEFINE_config_file(
    "config", "experiments/configs/flamingo.py:demo", "Recipe, as PATH.py:VARIANT."
)
_SECONDS = flags.DEFINE_float("seconds", 5.0, "Time for each measurement.", lower_bound=0.1)


def main() -> None:
    """Prints one line a dataset."""
    config = _CONFIG.value
    card = parts.model_card(config)
    datasets.prepare(config)
    preprocessing = card.config.vision.preprocessing
    for name, stream_config in zip(config.data.train, datasets.stream_configs(config), strict=True):
        path, split = config.data.train[name].path, config.data.train[name].split
        documents = datasets.documents(config, path, split)
        pictures = list(itertools.chain.from_iterable(d.media for d in documents))
        bare = bare_loop(pictures, preprocessing, stream_config.num_workers)
        stream = Stream(stream_config, parts.tokenizer(card), preprocessing=preprocessing)
        examples, streamed = stream_rate(stream)
        stream.close()
        print(
            f"{name}: Stream {examples:.1f} examples/s, {streamed:.1f} pictures/s; bare decode "
            f"loop {bare:.1f} pictures/s; ratio {streamed / bare:.2f} on "
            f"{stream_config.num_workers} threads"
        )


def bare_loop(pictures: list[bytes], preprocessing, num_threads: int) -> float:
    """Pictures decoded a second."""
    source = itertools.cycle(pictures)
    done, start = 0, time.perf_counter()
    with ThreadPoolExecutor(num_threads) as pool:
        while (elapsed := time.perf_counter() - start) < _SECONDS.value:
            some = list(itertools.islice(source, 64))
            for _ in pool.map(lambda data: decode_image(data, preprocessing), some):
                done += 1
    return done / elapsed


def stream_rate(stream: Stream) -> tuple[float, float]:
    """(examples, pictures) a second, after a first batch that starts the threads."""
    next(stream)
    examples = pictures = 0
    start = time.perf_counter()
    while (elapsed := time.perf_counter() - start) < _SECONDS.value:
        batch = next(stream)
        examples += int(batch.token_mask.any(1).sum())
        pictures += int(batch.media_mask.any(2).sum())
    return examples / elapsed, pictures / elapsed


if __name__ == "__main__":
    cli.run(main)
