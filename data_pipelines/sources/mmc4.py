"""MMC4: documents of sentences, and pictures that are each assigned to one of them.

Inputs are the project's `docs_shard_N_v2.jsonl.zip` (or `.jsonl`, `.jsonl.gz`) with the downloaded
pictures in `--media`, under `N/IMAGE_NAME` as its script leaves them, `IMAGE_NAME`, or in tars
there; or webdataset tars with the pictures in the documents (`image_base64`), as OpenFlamingo
trains on.

`image_info` is in no order: in the project's own example picture 0 belongs to sentence 2 and
picture 1 to sentence 1. Here pictures are sorted by sentence, and stand before theirs; several of
one sentence stay in the order of the list. Pictures may share a sentence, for there can be more
than sentences.
"""

import argparse
import base64
import binascii
import dataclasses
import json
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

from data_pipelines.building.counts import Counts
from data_pipelines.errors import BadRecord
from data_pipelines.records import Document
from data_pipelines.sources.input_names import NamedByInput
from data_pipelines.sources.lines import lines
from data_pipelines.sources.media_files import MediaFiles, check_folder, checked_picture
from data_pipelines.sources.source import Dropped
from data_pipelines.sources.tar_members import Member, samples
from flamingo_jax.images import BadMedia

_SHARD = re.compile(r"shard_(\d+)_")
_MARKER = re.compile(r"_!_IMAGE\d+_!_")
_LICENCE = "ODC-BY for the assignment; text and pictures as on their pages"


@dataclasses.dataclass(frozen=True)
class _Item:
    name: str  # of the document
    shard: str  # the folder of its pictures
    line: bytes | Member  # JSON, or where it lies


@dataclasses.dataclass(frozen=True)
class Mmc4(NamedByInput):
    """`min_similarity` leaves out pictures that CLIP finds less like their sentence (OpenFlamingo
    takes 0.24); `strict_urls` leaves out documents whose page may be there twice."""

    media: str | None = None
    min_similarity: float = 0.0
    strict_urls: bool = False

    def items(self, paths: Sequence[str]) -> Iterator[_Item | Dropped]:
        for path in paths:
            name = self.input_name(path)
            stem = pathlib.PurePosixPath(path).name.partition(".")[0]
            shard = match[1] if (match := _SHARD.search(path)) else stem
            if path.endswith(".tar"):
                for sample in samples(path):
                    if isinstance(sample, Dropped):
                        yield sample
                    elif member := sample.get("json"):
                        yield _Item(f"{name}/{sample.key}", shard, member)
                    else:
                        yield Dropped("no_json", f"{path}: {sample.key} has no .json")
                continue
            for number, line in enumerate(lines(path)):
                yield line if isinstance(line, Dropped) else _Item(f"{name}/{number}", shard, line)

    def convert(self, item: _Item, counts: Counts) -> Document:
        try:
            data = item.line if isinstance(item.line, bytes) else item.line.read()
            page = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise BadRecord("bad_json", f"mmc4 {item.name}: {error}") from error
        try:
            if self.strict_urls and page.get("could_have_url_duplicate"):
                raise BadRecord("url_duplicate", f"mmc4 {item.name}: may be there twice")
            text, placed = _marked(page) if page.get("is_gpt") else self._assigned(page, counts)
            url = str(page.get("url") or "")
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise BadRecord("bad_document", f"mmc4 {item.name}: {error!r}") from error
        media, positions = [], []
        for position, image in placed:
            try:
                media.append(checked_picture(self._picture(image, item.shard)))
                positions.append(position)
            except (BadRecord, BadMedia) as error:
                counts.drop_media(error.reason, f"mmc4 {item.name}: {error}")
        return Document(
            id=f"mmc4/{item.name}",
            text=text,
            media_positions=tuple(positions),
            media=tuple(media),
            metadata={"source": "mmc4", "url": url, "licence": _LICENCE},
        )

    def _assigned(self, page: dict, counts: Counts) -> tuple[str, list[tuple[int, Any]]]:
        """The text, and each picture with the byte offset before its sentence, in reading order."""
        text, starts = "", []
        for sentence in page["text_list"]:
            starts.append(len(text.encode()))
            text += (" " if text else "") + sentence
        placed = []
        for image in page["image_info"]:
            number = image["matched_text_index"]
            if not isinstance(number, int) or not 0 <= number < len(starts):
                counts.drop_media("bad_assignment", f"sentence {number!r} of {len(starts)}")
            elif image.get("matched_sim", 1.0) < self.min_similarity:
                counts.drop_media("low_similarity")
            else:
                placed.append((starts[number], image))
        return text, sorted(placed, key=lambda pair: pair[0])  # sorted() keeps the order of equals

    def _picture(self, image: Any, shard: str) -> bytes:
        if not isinstance(image, dict):
            raise BadRecord("no_image_name", f"a picture that is {image!r:.60}, not an object")
        if data := image.get("image_base64") or image.get("base64_image"):
            try:
                return base64.b64decode(data, validate=True)
            except (binascii.Error, ValueError, TypeError) as error:
                raise BadRecord("bad_base64", f"a picture's base64: {error}") from error
        if self.media is None:
            raise BadRecord("not_downloaded", "a picture that is not in the file, and no --media")
        name = image.get("image_name")
        if not isinstance(name, str):
            raise BadRecord("no_image_name", "a picture without a name")
        return MediaFiles(self.media).read(f"{shard}/{name}", name)


def _marked(page: dict) -> tuple[str, list[tuple[int, Any]]]:
    """A document written around markers `_!_IMAGE0_!_`, which `image_map` resolves."""
    text, placed, end = "", [], 0
    for match in _MARKER.finditer(page["example"]):
        text += page["example"][end : match.start()]
        placed.append((len(text.encode()), page["image_map"][match[0]]))
        end = match.end()
    return text + page["example"][end:], placed


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of `--source=mmc4`."""
    parser.add_argument("--media", metavar="DIR", help="where the downloaded pictures lie")
    parser.add_argument(
        "--min_similarity", type=float, default=0.0, help="CLIP's, of a picture and its sentence"
    )
    parser.add_argument(
        "--strict_urls", action="store_true", help="leave out pages that may be there twice"
    )


def source(args: argparse.Namespace) -> Mmc4:
    """The source that the flags describe; ValueError without its folder."""
    check_folder("--media", args.media)
    return Mmc4(args.media, args.min_similarity, args.strict_urls)
