r"""How fast a dataset is read alone, without a model: examples and images a second.

    python -m data_pipelines.benchmark --data=data/pages --seconds=10

Reads, decodes, tokenises and batches as training does. A training step that takes longer than a
batch takes here never waits for data.
"""

import argparse
import time

from data_pipelines import commands
from data_pipelines.streams.stream import PREFETCHED_BATCHES, Stream


def main() -> None:
    """The command; prints one line of rates, and one of skipped records where there are any."""
    parser = commands.Parser(
        prog="python -m data_pipelines.benchmark",
        description="Examples and images a second of one dataset, alone.",
        epilog="example: python -m data_pipelines.benchmark --data=data/pages --num_workers=8",
    )
    commands.add_dataset_flags(parser)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--num_workers", type=int, default=2, help="threads that read and decode")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long to measure")
    args = parser.parse_args()
    commands.run(lambda: _benchmark(args))


def _benchmark(args: argparse.Namespace) -> None:
    if not 0 < args.seconds < float("inf"):
        raise ValueError(f"--seconds={args.seconds}: use more than 0")
    if args.num_workers < 1:
        raise ValueError(f"--num_workers={args.num_workers}: use 1 or more")
    stream, _, tokenizer_name = commands.open_stream(
        args, batch_size=args.batch_size, num_workers=args.num_workers
    )
    config = stream.config
    print(
        f"{config.data_dir}: {len(stream.rows.records)} records as {config.kind}s of "
        f"{config.num_tokens} tokens ({tokenizer_name}), batches of {config.batch_size}, "
        f"{config.num_workers} threads"
    )
    examples, images, tokens = rates(stream, args.seconds)
    print(f"{examples:.1f} examples/s, {images:.1f} images/s, {tokens:.0f} tokens/s")
    if stream.skipped:
        print(f"skipped: {stream.skipped} beside {stream.examples} good examples")
    stream.close()


def rates(stream: Stream, seconds: float) -> tuple[float, float, float]:
    """Examples, images (or frames of video) and tokens a second.

    Those batches that were ready at the start count for nothing: the clock starts behind them.
    """
    for _ in range(PREFETCHED_BATCHES + 1):
        next(stream)
    images = tokens = 0
    before = stream.examples
    start = time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        batch = next(stream)
        images += int(batch.media_mask.sum())
        tokens += int(batch.token_mask.sum())
    return (stream.examples - before) / elapsed, images / elapsed, tokens / elapsed


if __name__ == "__main__":
    main()
