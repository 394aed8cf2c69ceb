r"""Pages a second on one core: our stream, a bare decode loop, and webdataset with Pillow.

    python -m benchmarks.pipeline

Each page has five JPEGs and text for 256 tokens; the pictures have a photograph's spectrum and the
sizes that MMC4's downloader leaves. The loops run in turns on one core. The
bare loop decodes and resizes the same JPEGs, in memory, with the function that the stream uses.
The webdataset loop reads a tar, decodes and resizes whole pictures with Pillow, and makes the same
token sequences; it is also timed with our decoder in Pillow's place.
"""

import io
import itertools
import json
import os
import pathlib
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow_datasets as tfds
import webdataset
from PIL import Image, ImageOps

from data_pipelines import commands, records
from data_pipelines.building.tfds_writer import build
from data_pipelines.streams.sequences import InterleavedText, page_sequence
from data_pipelines.streams.stream import PREFETCHED_BATCHES, Stream
from data_pipelines.streams.stream_config import StreamConfig
from flamingo_jax.config import ImagePreprocessing
from flamingo_jax.images import decode_image
from flamingo_jax.tokenizer import Tokenizer

SIZES = ((800, 600), (800, 533), (800, 450), (600, 800), (640, 480), (500, 375))
_PER_PAGE, _NUM_TOKENS = 5, 256
_NUM_PICTURES, _NUM_PAGES = 60, 200
_BATCH = 8
_WORDS = "a the of picture shows with light under water over red house tree and old street by sea"
_PP = ImagePreprocessing()


def photograph(size: tuple[int, int], seed: int) -> bytes:
    """A JPEG of quality 85 with amplitudes that fall as 1/f^1.2, about 2.5 bits a pixel."""
    rng, (width, height) = np.random.default_rng(seed), size
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = 1

    def plane() -> np.ndarray:
        waves = np.fft.rfft2(rng.standard_normal((height, width))) / frequency**1.2
        values = np.fft.irfft2(waves, s=(height, width))
        return (values - values.mean()) / values.std()

    light = plane()
    pixels = np.stack([128 + 50 * (light + 0.2 * plane()) for _ in range(3)], -1)
    file = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=85)
    return file.getvalue()


def pages(tokenizer: Tokenizer) -> Iterator[records.Document]:
    """Pages that fill 256 tokens with five pictures in them."""
    pictures = [photograph(SIZES[i % len(SIZES)], i) for i in range(_NUM_PICTURES)]
    words_of = _NUM_TOKENS - 3 * _PER_PAGE - 2
    for number in range(_NUM_PAGES):
        rng = np.random.default_rng(number)
        text = " ".join(rng.choice(_WORDS.split(), words_of))
        while len(tokenizer.encode(text)) > words_of:
            text = text[: text.rindex(" ")] if " " in text else text[: words_of // 2]
        media = tuple(pictures[i] for i in rng.choice(_NUM_PICTURES, _PER_PAGE, replace=False))
        positions = tuple(len(text) * i // _PER_PAGE for i in range(_PER_PAGE))
        metadata = {"licence": "Apache-2.0", "source": "benchmarks.pipeline"}
        yield records.Document(f"page-{number:04d}", text, positions, media, metadata)


class Pages(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """The pages as a TFDS dataset."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, documents: list[records.Document], **kwargs):
        self._documents = documents
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(builder=self, features=records.features())

    def _split_generators(self, dl_manager):
        del dl_manager  # nothing is downloaded
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for document in self._documents:
            yield document.id, records.to_example(document)


def write_tar(documents: list[records.Document], path: pathlib.Path) -> None:
    """The pages as webdataset keeps them: `KEY.json` with text and positions, `KEY.N.jpg`."""
    with tarfile.open(path, "w") as tar:
        for document in documents:
            text = {"text": document.text, "media_positions": document.media_positions}
            members = {"json": json.dumps(text).encode()}
            members |= {f"{i}.jpg": data for i, data in enumerate(document.media)}
            for extension, data in members.items():
                info = tarfile.TarInfo(f"{document.id}.{extension}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def bare_loop(documents: list[records.Document]) -> Iterator[int]:
    """Decodes and resizes; yields pictures done, a batch at a time."""
    endless = itertools.cycle(documents)
    while True:
        batch = itertools.islice(endless, _BATCH)
        yield len([decode_image(data, _PP) for document in batch for data in document.media])


def stream_loop(stream: Stream) -> Iterator[int]:
    """The pictures of each batch of a stream."""
    for batch in stream:
        yield int(batch.media_mask.sum())


def pillow(data: bytes) -> np.ndarray:
    """Whole picture, then bicubic with padding: what most loaders do."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    size = (_PP.size_px, _PP.size_px)
    return np.asarray(ImageOps.pad(image, size, Image.Resampling.BICUBIC, color=_PP.pad))


def webdataset_loop(
    path: pathlib.Path, tokenizer: Tokenizer, decode: Callable[[bytes], np.ndarray]
) -> Iterator[int]:
    """Batches of the same contents by webdataset's pipeline."""
    rng = np.random.default_rng(0)

    def example(sample: dict) -> tuple[np.ndarray, ...]:
        page = json.loads(sample["json"])
        document = InterleavedText(page["text"].encode(), np.asarray(page["media_positions"]))
        sequence = page_sequence(
            document, tokenizer, rng, num_tokens=_NUM_TOKENS, max_media=_PER_PAGE
        )
        media = np.zeros((_PER_PAGE, _PP.size_px, _PP.size_px, 3), np.uint8)
        for slot, kept in enumerate(sequence.kept_media.tolist()):
            media[slot] = decode(sample[f"{kept}.jpg"])
        mask = np.arange(_PER_PAGE) < len(sequence.kept_media)
        return sequence.tokens, sequence.loss_mask, sequence.media_index, media, mask

    dataset = webdataset.WebDataset(str(path), shardshuffle=False).repeat().map(example)
    for *_, mask in dataset.batched(_BATCH):
        yield int(mask.sum())


def take_turns(loops: dict[str, Iterator[int]], seconds: float, rounds: int) -> dict[str, list]:
    """Pictures a second of CPU time of each loop in each round; a turn ends with a whole batch.

    On one core that is a second by the clock where nothing else runs, and it is not disturbed where
    something does. Threads of the last loop are given the time to fill their buffers.
    """
    rates: dict[str, list[float]] = {name: [] for name in loops}
    for _, name in itertools.product(range(rounds), loops):
        loop = loops[name]
        for _ in range(PREFETCHED_BATCHES + 1):  # what was ready when the turn began
            next(loop)
        done, start = 0, time.process_time()
        while time.process_time() - start < seconds:
            done += next(loop)
        rates[name].append(done / (time.process_time() - start))
        _wait_until_idle()
    return rates


def _wait_until_idle() -> None:
    busy = 1.0
    while busy > 0.01:
        before = time.process_time()
        time.sleep(0.5)
        busy = time.process_time() - before


def main() -> None:
    """The command; prints each loop's rate and the two ratios."""
    parser = commands.Parser(prog="python -m benchmarks.pipeline", description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--num_workers", type=int, default=1, help="threads of our stream")
    parser.add_argument("--tokenizer", help="see data_pipelines.inspect --help")
    args = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # before threads are started
    tokenizer, name = commands.load_tokenizer(args.tokenizer)
    documents = list(pages(tokenizer))
    with tempfile.TemporaryDirectory() as folder:
        builder = Pages(documents, data_dir=folder)
        build(builder)
        write_tar(documents, pathlib.Path(folder) / "pages.tar")
        config = StreamConfig(
            "pages", str(builder.data_dir), "page", _BATCH, num_workers=args.num_workers
        )
        stream = Stream(config, tokenizer, preprocessing=_PP)
        tar = pathlib.Path(folder) / "pages.tar"
        loops = {
            "bare decode loop": bare_loop(documents),
            "stream": stream_loop(stream),
            "webdataset + Pillow": webdataset_loop(tar, tokenizer, pillow),
            "webdataset + our decoder": webdataset_loop(
                tar, tokenizer, lambda data: decode_image(data, _PP)
            ),
        }
        rates = take_turns(loops, args.seconds, args.rounds)
        stream.close()
    print(f"{_PP.size_px} px, {_PER_PAGE} pictures, {_NUM_TOKENS} tokens ({name}), one core")
    for name, values in rates.items():
        middle = statistics.median(values)
        print(f"{name}: {middle:.1f} pictures/s ({min(values):.1f} to {max(values):.1f})")
    for other in ("bare decode loop", "webdataset + Pillow"):
        ratios = [a / b for a, b in zip(rates["stream"], rates[other], strict=True)]
        print(
            f"stream / {other}: {statistics.median(ratios):.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f})"
        )


if __name__ == "__main__":
    commands.run(main)
