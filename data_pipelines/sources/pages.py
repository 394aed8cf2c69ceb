"""What HTML files and WARC files share: a page's bytes to a document, through the paper's filters.

Paper: appendix on data (M3W). In this order: the page is parsed and its boilerplate dropped; its
text has to pass the filters; its pictures are found, decoded and filtered; a page without pictures
goes; last the hook for explicit content sees the document. Equal and similar pages, and pictures
that stand on many pages, are dropped later, when all pages are known.
"""

import dataclasses
import hashlib
import importlib
import json
import re
from collections.abc import Callable
from typing import Any, ClassVar

from data_pipelines.building import evaluation_images
from data_pipelines.building.counts import Counts
from data_pipelines.building.page_extraction import Page, PageImage, extract
from data_pipelines.building.page_filters import GOPHER, TextFilters, check_text
from data_pipelines.building.page_images import ImageFilters, SeenImage, look
from data_pipelines.errors import BadRecord
from data_pipelines.records import Document, media_id
from data_pipelines.sources.image_files import data_uri, from_folder
from data_pipelines.sources.media_files import check_folder
from data_pipelines.sources.source import Source
from flamingo_jax.images import BadMedia

_LANGUAGE = re.compile("[a-z]{2}")  # as py3langid names them
_TEXT_LIMITS = {"pages": TextFilters(), "gopher": GOPHER}


@dataclasses.dataclass(frozen=True)
class RawPage:
    """A page as it was found."""

    data: bytes = dataclasses.field(repr=False)
    url: str
    charset: str = ""  # as HTTP said
    place: str = ""  # file, and number in it, for messages
    date: str = ""


@dataclasses.dataclass(frozen=True)
class Pages(Source):
    """The filters; a subclass says where pages and pictures are."""

    deduplicates: ClassVar[bool] = True
    text_filters: TextFilters = dataclasses.field(default_factory=TextFilters)
    image_filters: ImageFilters = dataclasses.field(default_factory=ImageFilters)
    image_folder: str = ""  # pictures at their `mirror_name` in it, as wget --mirror puts them
    licence: str = ""  # of pages that state none
    explicit: str = ""  # "package.module:function", from a Document to whether it is explicit
    evaluation: bytes = b""  # perceptual hashes of pictures to keep out, 8 bytes each

    def image(self, url: str, page: RawPage) -> bytes:
        """The bytes of a picture on a page; BadMedia where it is not to be had."""
        if url[:5].lower() == "data:":
            return data_uri(url)
        if self.image_folder:
            return from_folder(url, self.image_folder)
        raise BadMedia("not_found", f"{url} is not among the input")

    def convert(self, item: RawPage, counts: Counts) -> Document:
        try:
            page = extract(item.data, item.url, item.charset)
            check_text(page.text, self.text_filters)
            if not page.images:
                raise BadRecord("no_image_in_text", "the page's text has no image")
            document = self._document(item, page, counts)
            if not document.media:
                raise BadRecord("no_image_kept", f"none of {len(page.images)} images was kept")
            if self.explicit and _function(self.explicit)(document):
                counts.drop_media("in_a_dropped_record", number=len(document.media))
                raise BadRecord("explicit", f"{self.explicit} says so")
        except BadRecord as error:
            raise BadRecord(error.reason, f"{item.place or item.url}: {error}") from error
        return document

    def _document(self, item: RawPage, page: Page, counts: Counts) -> Document:
        if page.num_boilerplate_images:
            counts.drop_media("in_boilerplate", number=page.num_boilerplate_images)
        positions, media, about, names = [], [], [], set()
        for image in page.images:
            try:
                data, url, seen = self._find(image, item)
                if media_id(data) in names:
                    raise BadMedia("repeated_on_page", url)
            except BadMedia as error:
                counts.drop_media(error.reason, f"{item.place or item.url}: {error}")
                continue
            names.add(media_id(data))
            positions.append(image.position)
            media.append(data)
            about.append(
                {
                    "url": url if url[:5].lower() != "data:" else "data:",
                    "alt": image.alt,
                    "width": seen.width,
                    "height": seen.height,
                    "perceptual_hash": f"{seen.perceptual_hash:016x}",
                }
            )
        digest = hashlib.sha256("\0".join((item.url, page.text, *map(media_id, media))).encode())
        metadata = {
            "source": type(self).__module__.rpartition(".")[2],
            "url": item.url,
            "date": item.date,
            "title": page.title,
            "language": page.language,
            "licence": page.licence or self.licence or "not stated",
            "num_words": len(page.text.split()),
            "num_images_on_page": len(page.images) + page.num_boilerplate_images,
            "media": about,
        }
        return Document(
            id=f"page/{digest.hexdigest()[:32]}",
            text=page.text,
            media_positions=tuple(positions),
            media=tuple(media),
            metadata=metadata,
        )

    def _find(self, image: PageImage, page: RawPage) -> tuple[bytes, str, SeenImage]:
        """The first of an image's addresses that leads to a picture which may stay."""
        fault = BadMedia("no_address", f"image {image.alt!r} has no address")
        for url in image.urls:
            try:
                data = self.image(url, page)
                return data, url, look(data, self.image_filters, self.evaluation)
            except BadMedia as error:
                # Of several reasons the one that says most: it was there, but no good.
                if fault.reason in ("no_address", "not_found"):
                    fault = BadMedia(error.reason, f"{url[:200]}: {error}")
        raise fault


def add_flags(parser: Any) -> None:
    """The flags of pages, whatever file they are in."""
    add = parser.add_argument
    add("--language", default="en", help="ISO 639-1 code of pages to keep; 'any' keeps all")
    add("--image_folder", default="", metavar="DIR", help="pictures, called as wget calls them")
    add("--licence", default="", help="of pages that link to none; default: 'not stated'")
    evaluation_images.add_flag(parser)
    add("--explicit", default="", metavar="MODULE:FUNCTION", help="Document to whether to drop it")
    add(
        "--text_limits",
        default="pages",
        choices=sorted(_TEXT_LIMITS),
        help="gopher: MassiveWeb's own",
    )
    add("--filters", default="{}", metavar="JSON", help='limits, such as {"min_words": 20}')


def flags(args: Any) -> dict[str, Any]:
    """Fields of `Pages` from the flags; ValueError for what is wrong with them."""
    values = _filters(args.filters)
    values["text_filters"]["language"] = "" if args.language == "any" else args.language
    if args.language != "any" and not _LANGUAGE.fullmatch(args.language):
        raise ValueError(
            f"--language={args.language}: use a code of two letters, such as en, or any for all"
        )
    limits = _TEXT_LIMITS[args.text_limits]
    if args.explicit:
        _function(args.explicit)
    check_folder("--image_folder", args.image_folder)
    return {
        "text_filters": dataclasses.replace(limits, **values["text_filters"]),
        "image_filters": ImageFilters(**values["image_filters"]),
        "image_folder": args.image_folder,
        "licence": args.licence,
        "explicit": args.explicit,
        "evaluation": evaluation_images.hashes(args.evaluation_images),
    }


def _filters(text: str) -> dict[str, dict[str, Any]]:
    """The JSON of `--filters`, split by the class that has the field."""
    try:
        given = dict(json.loads(text))
    except (ValueError, TypeError) as error:
        raise ValueError(f"--filters={text}: want a JSON object: {error}") from error
    found = {"text_filters": {}, "image_filters": {}}
    for name, kind in (("text_filters", TextFilters), ("image_filters", ImageFilters)):
        for field in dataclasses.fields(kind):
            if field.name in given:
                value = given.pop(field.name)
                value = tuple(value) if isinstance(value, list) else value
                if type(value) is not type(field.default) and not isinstance(value, int):
                    raise ValueError(
                        f"--filters: {field.name}={value!r}: want such as {field.default!r}, which "
                        "is the default"
                    )
                found[name][field.name] = value
    if given:
        known = [f.name for kind in (TextFilters, ImageFilters) for f in dataclasses.fields(kind)]
        raise ValueError(f"--filters: no filter {sorted(given)[0]!r}: use one of {known}")
    return found


def _function(name: str) -> Callable[[Document], bool]:
    module, _, function = name.partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"--explicit={name}: want MODULE:FUNCTION: {error}") from error
